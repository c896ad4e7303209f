# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# Discards of any size and place, beside writes, copies and each other, and with a data device that does not
# do what it is told.
#
# kernels: uml-test test

time_limit[storm]=200

# What programs go by.
test_limits()
{
	new_pool
	create_thin thin 0 $((256 * MiB))
	local queue
	queue=/sys/block/dm-$(dmsetup info -c --noheadings -o minor thin)/queue
	expect "granularity" "$(cat $queue/discard_granularity)" 65536
	expect "largest discard" "$(cat $queue/discard_max_bytes)" $((1024 * 65536))
	dmsetup remove thin pool
	create_pool ignore_discard
	activate_thin thin 0 $((256 * MiB))
	queue=/sys/block/dm-$(dmsetup info -c --noheadings -o minor thin)/queue
	expect "largest discard" "$(cat $queue/discard_max_bytes)" 0
	refused discard /dev/mapper/thin 0 64
	dmsetup remove thin pool
}

# Only whole blocks are given back, wherever a discard begins and ends, also across regions of 1024 blocks.
test_ranges()
{
	new_pool
	create_thin thin 0 $((256 * MiB))
	write_text /dev/mapper/thin 0 1024 "text"
	write_text /dev/mapper/thin $((64 * 1024 - 512)) 1024 "border"
	expect "mapped" "$(mapped_sectors thin)" $((4096))
	discard /dev/mapper/thin 100 300
	# Blocks 2 to 5 are whole; what of others is discarded may be zeroes or not.
	expect "mapped" "$(mapped_sectors thin)" $((4096 - 4 * 128))
	has_text /dev/mapper/thin 0 100 "text"
	has_zeroes /dev/mapper/thin 128 256
	has_text /dev/mapper/thin 400 600 "text" 0
	discard /dev/mapper/thin $((64 * 1024 - 128)) 256
	has_text /dev/mapper/thin $((64 * 1024 - 512)) 384 "border"
	has_zeroes /dev/mapper/thin $((64 * 1024 - 128)) 256
	has_text /dev/mapper/thin $((64 * 1024 + 128)) 384 "border" $((64 * 1024 - 512))
	discard /dev/mapper/thin 0 $((256 * 1024))
	expect "mapped" "$(mapped_sectors thin)" 0
	expect "blocks in use" "$(used_blocks)" 0
	dmsetup remove thin pool
	check_metadata
}

# A range of which a snapshot shares some blocks: those stay with the snapshot, the others are free.
test_shared_in_part()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 2048 "shared"
	create_snapshot thin 0 1
	write_text /dev/mapper/thin 512 512 "own"
	activate_thin snapshot 1 $((64 * MiB))
	discard /dev/mapper/thin 0 2048
	has_zeroes /dev/mapper/thin 0 2048
	has_text /dev/mapper/snapshot 0 2048 "shared"
	expect "blocks in use" "$(used_blocks)" 32
	discard /dev/mapper/snapshot 0 1024
	has_text /dev/mapper/snapshot 1024 1024 "shared" 0
	expect "blocks in use" "$(used_blocks)" 16
	dmsetup remove thin snapshot pool
	check_metadata
}

# Writes, discards and snapshots all at once.
test_storm()
{
	local n
	new_pool
	create_thin thin 0 $((128 * MiB))
	start_io --name=a --filename=/dev/mapper/thin
	for n in {1..12}; do
		message "create_snap $n 0"
		activate_thin snapshot $n $((128 * MiB))
		(
			trap - ERR
			for place in 0 3000 7000; do
				discard /dev/mapper/snapshot $place 4000
			done
		) &
		local one=$!
		discard /dev/mapper/thin 16384 65536 &
		local two=$!
		write_text /dev/mapper/thin $((20000 + n * 1000)) 1024 "round $n"
		wait $one
		wait $two
		dmsetup remove snapshot
		message "delete $n"
	done
	io_goes_on
	stop_io
	dmsetup remove thin pool
	check_metadata
}

# A data device that refuses discards, although it says it takes them: blocks are given back all the same,
# and nothing but the space on that device is lost.
test_failed_passdown()
{
	failing data $data_disk $data_sectors
	pool_data=/dev/mapper/data
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 1024 "text"
	sync
	expect "blocks in use" "$(used_blocks)" 16
	fails_with data "0 $data_sectors flakey $data_disk 0 0 60 1 error_writes"
	discard /dev/mapper/thin 0 512
	works_again data
	expect_like "status" "$(pool_status)" " (8|16)/16384 "
	if mode_is rw; then
		has_zeroes /dev/mapper/thin 0 512
	fi
	has_text /dev/mapper/thin 512 512 "text" 0
	dmsetup remove thin pool
	check_metadata_after_fault
	dmsetup remove data
}

# In a pool that is read-only discards succeed and change nothing.
test_read_only()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 1024 "text"
	load_table read_only
	discard /dev/mapper/thin 0 1024
	has_text /dev/mapper/thin 0 1024 "text"
	expect "blocks in use" "$(used_blocks)" 16
	load_table
	discard /dev/mapper/thin 0 1024
	has_zeroes /dev/mapper/thin 0 1024
	expect "blocks in use" "$(used_blocks)" 0
	dmsetup remove thin pool
	check_metadata
}
