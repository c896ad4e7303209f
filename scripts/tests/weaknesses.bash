# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# What the driver in C does wrong, or could do better; Documentation/differences-from-c.rst tells of it. With
# --driver c these tests look for the weakness, so they pass as long as it is there.
#
# kernels: uml-test

is_c()
{
	[[ $driver == c ]]
}

# full_pool [FEATURE...]: of 64 blocks, all in use for the start of `thin`.
full_pool()
{
	pool_sectors=$((64 * 128))
	new_pool "$@"
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 4096 "fits"
}

# Blocks that were discarded a moment ago can be had. In C they count as free, but only a commit makes them
# so: the write fails.
test_spurious_out_of_space()
{
	local n failed=0
	full_pool error_if_no_space
	for n in {0..15}; do
		discard /dev/mapper/thin $((n * 64)) 64
		write_text /dev/mapper/thin $((8192 + n * 64)) 64 "late" 2>/dev/null || failed=$((failed + 1))
	done
	if is_c; then
		((failed > 0)) || fail "no write has failed"
	else
		expect "failed writes" $failed 0
		log_says "out-of-data-space" && fail "the mode has changed"
	fi
	dmsetup remove thin pool
}

# A flush concerns no block. In C it is taken for a write to block 0.
test_flush_without_block_0()
{
	new_pool error_if_no_space
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 1024 64 "text"
	load_table read_only
	if is_c; then
		refused write_text /dev/mapper/thin 1024 64 "more" conv=fsync,notrunc
	else
		write_text /dev/mapper/thin 1024 64 "more" conv=fsync,notrunc
	fi
	dmsetup remove thin pool
}

# A new pool's table with ignore_discard can be loaded as often as one likes. In C it cannot be loaded a
# second time before the first resume.
test_ignore_discard_loaded_twice()
{
	load_driver
	format_pool
	dmsetup create pool --notable
	dmsetup reload pool --table "$(pool_table ignore_discard)"
	if is_c; then
		refused dmsetup reload pool --table "$(pool_table ignore_discard)"
	else
		dmsetup reload pool --table "$(pool_table ignore_discard)"
		dmsetup resume pool
		expect_like "status" "$(pool_status)" " ignore_discard "
	fi
	dmsetup remove pool
}

# A read-only table that is longer than the pool leaves it read-only. In C it fails.
test_read_only_and_longer()
{
	pool_data=$spare_disk
	pool_sectors=$((64 * 128))
	new_pool
	pool_sectors=$((40000 * 128))
	load_table read_only
	if is_c; then
		expect_like "mode" "$(pool_mode)" "ro|Fail"
	else
		expect "mode" "$(pool_mode)" ro
	fi
	dmsetup remove pool
}

# Behind the end of an external origin there are zeroes in every mode. In C, a read there fails in a pool
# that is full or read-only.
test_behind_the_origin()
{
	new_pool
	create_thin origin 0 $((1 * MiB))
	write_text /dev/mapper/origin 0 1024 "origin"
	message "create_thin 1"
	activate_thin thin 1 $((8 * MiB)) /dev/mapper/origin
	load_table read_only
	has_text /dev/mapper/thin 0 1024 "origin"
	if is_c; then
		refused read_range /dev/mapper/thin 2048 64
	else
		has_zeroes /dev/mapper/thin 1024 1024
	fi
	dmsetup remove thin origin pool
}

# With skip_block_zeroing, what is behind the end of an external origin in its last block is zeroes after a
# write. In C it is what the data device had there.
test_stale_behind_the_origin()
{
	load_driver
	text 0 1024 "stale" | dd of=$data_disk bs=64k oflag=direct status=none
	format_pool
	dmsetup create origin --table "0 $((96 * 2)) linear $spare_disk 0"
	create_pool skip_block_zeroing
	message "create_thin 1"
	activate_thin thin 1 $((8 * MiB)) /dev/mapper/origin
	write_text /dev/mapper/thin 64 4 "new"
	if is_c; then
		(trap - ERR; has_zeroes /dev/mapper/thin 96 32) 2>/dev/null && fail "there are zeroes"
	else
		has_zeroes /dev/mapper/thin 96 32
	fi
	dmsetup remove thin pool origin
}

# Zeroes take no space where there is none. In C they come as data.
test_zeroes_provision()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	if [[ $(cat /sys/block/dm-0/queue/write_zeroes_max_bytes) == 0 ]] && ! is_c; then
		skip "the data device takes no zeroes"
	fi
	blkdiscard -z /dev/mapper/thin
	if is_c; then
		expect "blocks in use" "$(used_blocks)" 1024
	else
		expect "blocks in use" "$(used_blocks)" 0
	fi
	dmsetup remove thin pool
}

# A table that is refused, as it is too short, has no effect. In C its features have one.
test_refused_table_changes_nothing()
{
	full_pool
	pool_sectors=$((32 * 128))
	dmsetup reload pool --table "$(pool_table error_if_no_space)"
	dmsetup suspend pool
	refused dmsetup resume pool
	if is_c; then
		expect_like "status" "$(pool_status)" " error_if_no_space "
	else
		expect_like "status" "$(pool_status)" " queue_if_no_space "
	fi
	pool_sectors=$((64 * 128))
	dmsetup reload pool --table "$(pool_table)"
	dmsetup resume pool
	dmsetup remove thin pool
}

# A transaction that is undone is undone in memory, too. In C the transaction id stays.
test_aborted_in_memory()
{
	failing data $data_disk $data_sectors
	pool_data=/dev/mapper/data
	new_pool
	message "set_transaction_id 0 1"
	# Committing flushes the data device first.
	fails_with data "0 $data_sectors flakey $data_disk 0 0 60 1 error_writes"
	message "set_transaction_id 1 2"
	works_again data
	expect_like "status" "$(pool_status)" " ro .* needs_check "
	if is_c; then
		expect "transaction" "$(pool_field 1)" 2
	else
		expect "transaction" "$(pool_field 1)" 1
	fi
	dmsetup remove pool data
}

# A block that could not be filled is given back. In C it leaks.
test_failed_copy_leaks()
{
	failing data $data_disk $data_sectors
	pool_data=/dev/mapper/data
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 64 "text"
	expect "blocks in use" "$(used_blocks)" 1
	fails_with data "0 $data_sectors flakey $data_disk 0 0 60 1 error_writes"
	refused write_text /dev/mapper/thin 1024 4 "new"
	refused write_text /dev/mapper/thin 2048 4 "new"
	works_again data
	if is_c; then
		expect "blocks in use" "$(used_blocks)" 3
	else
		expect "blocks in use" "$(used_blocks)" 1
		dmsetup remove thin pool
		check_metadata
	fi
	dmsetup remove -f thin pool 2>/dev/null || :
	dmsetup remove data
}
