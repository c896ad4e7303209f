# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2154 # see lib.bash
#
# What a pool and thin devices are for.
#
# kernels: uml-test test

# Status and table of a new pool and of a new thin device, to the letter.
test_new_pool()
{
	new_pool
	expect_like "the pool's status" "$(pool_status)" \
		'^0 2097152 thin-pool 0 [0-9]+/4096 0/16384 - rw discard_passdown queue_if_no_space - 1024 $'
	expect_like "the pool's table" "$(dmsetup table pool)" '^0 2097152 thin-pool [0-9]+:[0-9]+ [0-9]+:[0-9]+ 128 0 0 $'
	create_thin thin 0 $((64 * MiB))
	expect "the device's status" "$(dmsetup status thin)" "0 131072 thin 0 -"
	expect_like "the device's table" "$(dmsetup table thin)" '^0 131072 thin [0-9]+:[0-9]+ 0$'
	write_text /dev/mapper/thin 0 4 "first"
	expect "the device's status" "$(dmsetup status thin)" "0 131072 thin 128 127"
	expect "blocks in use" "$(used_blocks)" 1
	dmsetup remove thin pool
	check_metadata
}

# Features show in table and status, and a reload changes them.
test_features_show()
{
	new_pool skip_block_zeroing error_if_no_space no_discard_passdown
	expect_like "table" "$(dmsetup table pool)" ' 3 skip_block_zeroing no_discard_passdown error_if_no_space $'
	expect_like "status" "$(pool_status)" ' rw no_discard_passdown error_if_no_space - '
	load_table error_if_no_space
	expect_like "table" "$(dmsetup table pool)" ' 1 error_if_no_space $'
	expect_like "status" "$(pool_status)" ' rw discard_passdown error_if_no_space - '
	load_table
	expect_like "status" "$(pool_status)" ' rw discard_passdown queue_if_no_space - '
	load_table read_only
	expect_like "status" "$(pool_status)" ' ro discard_passdown queue_if_no_space - '
	dmsetup remove pool
	create_pool ignore_discard
	expect_like "status" "$(pool_status)" ' rw ignore_discard queue_if_no_space - '
	dmsetup remove pool
	check_metadata
}

# What was never written reads as zeroes, and reading it takes no space.
test_unmapped_reads_zero()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	has_zeroes /dev/mapper/thin 0 65536
	expect "blocks in use" "$(used_blocks)" 0
	dmsetup remove thin pool
}

# The rest of a block that is written in part is zeroes, and the data are there after everything was
# deactivated.
test_write_and_read_back()
{
	# What the disk had before must not show.
	text 0 4096 "of somebody else" | dd of=$data_disk bs=1M iflag=fullblock oflag=direct conv=notrunc status=none
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 68 4 "a part"
	write_text /dev/mapper/thin 1024 1000 "much"
	has_zeroes /dev/mapper/thin 64 4
	has_text /dev/mapper/thin 68 4 "a part"
	has_zeroes /dev/mapper/thin 72 56
	expect "blocks in use" "$(used_blocks)" 17
	dmsetup remove thin pool
	check_metadata
	unload_driver
	load_driver
	create_pool
	activate_thin thin 0 $((64 * MiB))
	expect "blocks in use" "$(used_blocks)" 17
	has_zeroes /dev/mapper/thin 64 4
	has_text /dev/mapper/thin 68 4 "a part"
	has_text /dev/mapper/thin 1024 1000 "much"
	has_zeroes /dev/mapper/thin 2024 24
	dmsetup remove thin pool
	check_metadata
}

# Single sectors, written one by one into the same block, keep to their places.
test_sectors()
{
	local n order
	new_pool
	create_thin thin 0 $((64 * MiB))
	order=$(seq 0 127 | shuf --random-source=<(yes "$DM_THIN_RS_SEED"))
	text 0 64 "sectors" >/run/test/block
	for n in $order; do
		dd if=/run/test/block of=/dev/mapper/thin bs=512 count=1 skip="$n" seek="$n" oflag=direct conv=notrunc status=none
	done
	has_text /dev/mapper/thin 0 64 "sectors"
	has_zeroes /dev/mapper/thin 64 64
	expect "blocks in use" "$(used_blocks)" 1
	dmsetup remove thin pool
}

# A write of whole blocks into nothing, and over what is there.
test_whole_blocks()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 4096 "once"
	has_text /dev/mapper/thin 0 4096 "once"
	write_text /dev/mapper/thin 1024 1024 "twice"
	has_text /dev/mapper/thin 0 1024 "once"
	has_text /dev/mapper/thin 1024 1024 "twice"
	has_text /dev/mapper/thin 2048 2048 "once" 0
	expect "blocks in use" "$(used_blocks)" 64
	dmsetup remove thin pool
	check_metadata
}

# Neither of a device and its snapshot sees what is written to the other, be it a part of a block or a
# whole one.
test_snapshot_isolation()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 1024 "origin"
	create_snapshot thin 0 1
	activate_thin snap 1 $((64 * MiB))
	expect "blocks in use" "$(used_blocks)" 16
	has_text /dev/mapper/snap 0 1024 "origin"
	write_text /dev/mapper/thin 4 4 "part"
	write_text /dev/mapper/thin 64 64 "block"
	has_text /dev/mapper/snap 0 1024 "origin"
	write_text /dev/mapper/snap 132 4 "its part"
	write_text /dev/mapper/snap 192 64 "its block"
	has_text /dev/mapper/thin 0 4 "origin"
	has_text /dev/mapper/thin 4 4 "part"
	has_text /dev/mapper/thin 8 56 "origin" 0
	has_text /dev/mapper/thin 64 64 "block"
	has_text /dev/mapper/thin 128 896 "origin" 0
	has_text /dev/mapper/snap 0 132 "origin"
	has_text /dev/mapper/snap 132 4 "its part"
	has_text /dev/mapper/snap 136 56 "origin" 0
	has_text /dev/mapper/snap 192 64 "its block"
	has_text /dev/mapper/snap 256 768 "origin" 0
	expect "blocks in use" "$(used_blocks)" 20
	dmsetup remove thin snap pool
	check_metadata
}

# Snapshots of snapshots, each as it was when it was taken, also after those in between were deleted.
test_snapshots_of_snapshots()
{
	local n
	new_pool
	create_thin s0 0 $((64 * MiB))
	for n in {1..8}; do
		write_text "/dev/mapper/s$((n - 1))" $((n * 64)) 64 "generation $n"
		create_snapshot "s$((n - 1))" $((n - 1)) "$n"
		activate_thin "s$n" "$n" $((64 * MiB))
		write_text "/dev/mapper/s$((n - 1))" 0 64 "too late $n"
	done
	for n in 2 3 5 6; do
		dmsetup remove "s$n"
		message "delete $n"
	done
	for n in {1..8}; do
		has_text /dev/mapper/s8 $((n * 64)) 64 "generation $n"
	done
	has_zeroes /dev/mapper/s8 0 64
	has_text /dev/mapper/s4 $((4 * 64)) 64 "generation 4"
	has_text /dev/mapper/s4 $((5 * 64)) 64 "generation 5"
	has_zeroes /dev/mapper/s4 $((6 * 64)) 64
	has_text /dev/mapper/s4 0 64 "too late 5"
	dmsetup remove s0 s1 s4 s7 s8 pool
	check_metadata
}

# A discard gives the blocks back, they read as zeroes, and what is beside them stays.
test_discard()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 4096 "there"
	# 32 KiB into a block, until 32 KiB into another: the whole ones go.
	discard /dev/mapper/thin 1056 1024
	expect "blocks in use" "$(used_blocks)" 49
	has_text /dev/mapper/thin 0 1056 "there"
	has_zeroes /dev/mapper/thin 1088 960
	has_text /dev/mapper/thin 2080 2016 "there" 0
	write_text /dev/mapper/thin 1088 4 "again"
	has_text /dev/mapper/thin 1088 4 "again"
	has_zeroes /dev/mapper/thin 1092 60
	discard /dev/mapper/thin 0 65536
	expect "blocks in use" "$(used_blocks)" 0
	has_zeroes /dev/mapper/thin 0 8192
	dmsetup remove thin pool
	check_metadata
}

# Discarding what a snapshot shares takes nothing from the snapshot.
test_discard_shared()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 2048 "shared"
	create_snapshot thin 0 1
	activate_thin snap 1 $((64 * MiB))
	discard /dev/mapper/thin 0 2048
	has_zeroes /dev/mapper/thin 0 2048
	has_text /dev/mapper/snap 0 2048 "shared"
	expect "blocks in use" "$(used_blocks)" 32
	discard /dev/mapper/snap 0 1024
	expect "blocks in use" "$(used_blocks)" 16
	has_text /dev/mapper/snap 1024 1024 "shared" 0
	dmsetup remove thin snap pool
	check_metadata
}

# A pool that ignores discards has devices that take none.
test_ignore_discard()
{
	new_pool ignore_discard
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 1024 "stays"
	refused discard /dev/mapper/thin 0 1024
	has_text /dev/mapper/thin 0 1024 "stays"
	dmsetup remove thin pool
}

# The limits that file systems and partitioners look at.
test_queue_limits()
{
	local queue
	new_pool
	create_thin thin 0 $((64 * MiB))
	queue=/sys/block/$(dmsetup info -c --noheadings -o blkdevname thin)/queue
	expect "optimal I/O size" "$(<"$queue/optimal_io_size")" 65536
	expect "discard granularity" "$(<"$queue/discard_granularity")" 65536
	expect "logical block size" "$(<"$queue/logical_block_size")" 512
	(($(<"$queue/discard_max_bytes") >= 65536)) || fail "no discards"
	dmsetup remove thin pool
}

# Without zeroing only what was written is certain, and it is there.
test_skip_block_zeroing()
{
	new_pool skip_block_zeroing
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 4 4 "a part"
	write_text /dev/mapper/thin 64 64 "a block"
	has_text /dev/mapper/thin 4 4 "a part"
	has_text /dev/mapper/thin 64 64 "a block"
	has_zeroes /dev/mapper/thin 128 64
	dmsetup remove thin pool
	check_metadata
}

# A pool that is read-only serves reads and refuses all that changes it.
test_read_only()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 1024 "there"
	dmsetup remove thin pool
	create_pool read_only
	expect_like "status" "$(pool_status)" ' ro discard_passdown '
	activate_thin thin 0 $((64 * MiB))
	has_text /dev/mapper/thin 0 1024 "there"
	has_zeroes /dev/mapper/thin 1024 1024
	# What is mapped and nobody else's can be written without changing metadata.
	write_text /dev/mapper/thin 0 4 "over it"
	has_text /dev/mapper/thin 0 4 "over it"
	refused write_text /dev/mapper/thin 2048 4 "new"
	refused message "create_thin 1"
	refused message "create_snap 1 0"
	refused message "delete 0"
	expect "blocks in use" "$(used_blocks)" 16
	dmsetup remove thin pool
	check_metadata
}

# What a flush has made durable is in the metadata on the disk; the rest is, a moment later.
test_flush()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 64 "flushed" conv=fsync,notrunc
	# While the pool is active: what its disk has now is what a crash would leave.
	dd if=$metadata_disk of=/run/test/metadata bs=1M iflag=direct status=none
	thin_dump /run/test/metadata >/run/test/dump
	grep -q 'mapped_blocks="1"' /run/test/dump || fail "not in the metadata: $(cat /run/test/dump)"
	write_text /dev/mapper/thin 64 64 "not flushed"
	sleep 2.5
	dd if=$metadata_disk of=/run/test/metadata bs=1M iflag=direct status=none
	thin_dump /run/test/metadata >/run/test/dump
	grep -q 'mapped_blocks="2"' /run/test/dump || fail "no commit by itself: $(cat /run/test/dump)"
	dmsetup remove thin pool
}

# Flushes of several devices at once all end, with all data in place.
test_flush_storm()
{
	local n
	new_pool
	for n in 0 1 2 3; do
		create_thin "t$n" "$n" $((64 * MiB))
	done
	for n in 0 1 2 3; do
		fio --output-format=terse --name="f$n" --filename="/dev/mapper/t$n" --ioengine=libaio --iodepth=4 --direct=1 \
			--rw=randwrite --bs=4k --size=4m --fsync=1 --verify=crc32c --verify_fatal=1 >"/run/test/f$n" 2>&1 &
	done
	for n in 0 1 2 3; do
		wait -n || fail "$(cat /run/test/f*)"
	done
	dmsetup remove t0 t1 t2 t3 pool
	check_metadata
}

# Blocks of other sizes than the smallest, powers of two or not, and devices that end in the middle of a
# block.
test_block_sizes()
{
	local n
	load_driver
	# Sectors: 128 KiB, 192 KiB, 1 MiB, and 64 MiB less 64 KiB.
	for n in 256 384 2048 130944; do
		block_sectors=$n
		pool_sectors=$((n * 8))
		format_pool
		create_pool
		create_thin thin 0 $((n * 3 + 8))
		write_text /dev/mapper/thin $((n / 2 - 32)) 64 "over the edge"
		write_text /dev/mapper/thin $((n * 3 / 2)) 4 "the end"
		has_text /dev/mapper/thin $((n / 2 - 32)) 64 "over the edge"
		has_zeroes /dev/mapper/thin 0 $((n / 2 - 32))
		has_text /dev/mapper/thin $((n * 3 / 2)) 4 "the end"
		expect "blocks in use" "$(used_blocks)" 3
		create_snapshot thin 0 1
		activate_thin snap 1 $((n * 3 + 8))
		write_text /dev/mapper/snap $((n / 2)) 4 "new"
		has_text /dev/mapper/thin $((n / 2 - 32)) 64 "over the edge"
		discard /dev/mapper/thin $((n / 2)) $((n / 2))
		has_zeroes /dev/mapper/thin $((n / 2)) $((n / 2))
		has_text /dev/mapper/snap $((n / 2)) 4 "new"
		dmsetup remove thin snap pool
		check_metadata
	done
}

# A thin device as a part of a larger one, behind another target and twice in one table, flushes included.
test_segments()
{
	new_pool
	message "create_thin 0"
	message "create_thin 1"
	dmsetup create both <<-END
		0 8192 thin /dev/mapper/pool 0
		8192 8192 error
		16384 8192 thin /dev/mapper/pool 1
	END
	dmsetup create upon --table "0 8192 linear /dev/mapper/both 16384"
	write_text /dev/mapper/both 0 64 "first" conv=fsync,notrunc
	write_text /dev/mapper/upon 1024 64 "second" conv=fsync,notrunc
	has_text /dev/mapper/both 0 64 "first"
	has_text /dev/mapper/both $((8192 + 1024)) 64 "second"
	expect "blocks in use" "$(used_blocks)" 2
	dmsetup remove upon both pool
	check_metadata
}

# The number of a deleted device can be taken again, for an empty one.
test_delete_and_create()
{
	new_pool
	create_thin thin 7 $((64 * MiB))
	write_text /dev/mapper/thin 0 1024 "gone"
	refused message "delete 7"
	dmsetup remove thin
	message "delete 7"
	expect "blocks in use" "$(used_blocks)" 0
	refused message "delete 7"
	refused activate_thin thin 7 $((64 * MiB))
	create_thin thin 7 $((64 * MiB))
	has_zeroes /dev/mapper/thin 0 1024
	dmsetup remove thin pool
	check_metadata
}

# The largest number of a device, and large devices, work like others.
test_extremes()
{
	new_pool
	create_thin thin 16777215 $((1 << 36))
	refused message "create_thin 16777216"
	write_text /dev/mapper/thin $(((1 << 35) - 4)) 4 "the end"
	write_text /dev/mapper/thin 0 4 "the beginning"
	has_text /dev/mapper/thin $(((1 << 35) - 4)) 4 "the end"
	expect "status" "$(dmsetup status thin)" "0 $((1 << 36)) thin 256 $(((1 << 36) - 1))"
	create_snapshot thin 16777215 0
	activate_thin snap 0 $((1 << 36))
	has_text /dev/mapper/snap $(((1 << 35) - 4)) 4 "the end"
	discard /dev/mapper/thin $(((1 << 35) - 65536)) 65536
	expect "status" "$(dmsetup status thin)" "0 $((1 << 36)) thin 128 127"
	dmsetup remove thin snap pool
	check_metadata
}
