# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# No space, and devices that fail: errors reach those who need to know, nothing hangs, and what was
# durable stays.
#
# kernels: uml-test test

# A pool that gives errors when it is full: writes that need a block fail with ENOSPC, others go on, and
# space that comes back can be used.
test_out_of_data_space()
{
	pool_sectors=$((64 * 128))
	new_pool error_if_no_space
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 4096 "fits"
	fails_with_error "No space left" write_text /dev/mapper/thin 8192 64 "too much"
	expect "mode" "$(pool_mode)" out_of_data_space
	log_says "switching pool to out-of-data-space (error IO) mode" || fail "log"
	has_text /dev/mapper/thin 0 4096 "fits"
	has_zeroes /dev/mapper/thin 8192 64
	write_text /dev/mapper/thin 0 64 "over it"
	discard /dev/mapper/thin 1024 64
	eventually 10 mode_is rw
	write_text /dev/mapper/thin 8192 64 "fits now"
	has_text /dev/mapper/thin 8192 64 "fits now"
	has_text /dev/mapper/thin 0 64 "over it"
	dmsetup remove thin pool
	check_metadata
}

# A pool that waits for space: a write waits until some comes back, reads do not.
test_out_of_data_space_queueing()
{
	local writer
	pool_sectors=$((64 * 128))
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 4096 "fits"
	write_text /dev/mapper/thin 8192 64 "waits" &
	writer=$!
	eventually 20 mode_is out_of_data_space
	log_says "switching pool to out-of-data-space (queue IO) mode" || fail "log"
	sleep 1
	kill -0 $writer || fail "the write has not waited"
	has_text /dev/mapper/thin 0 4096 "fits"
	discard /dev/mapper/thin 1024 64
	wait $writer
	has_text /dev/mapper/thin 8192 64 "waits"
	eventually 10 mode_is rw
	dmsetup remove thin pool
	check_metadata
}

# The low water mark gives an event, once.
test_low_water()
{
	local before
	pool_sectors=$((64 * 128))
	low_water=32
	new_pool
	create_thin thin 0 $((64 * MiB))
	before=$(events)
	write_text /dev/mapper/thin 0 1024 "much left"
	expect "events" "$(events)" "$before"
	write_text /dev/mapper/thin 1024 2048 "little left"
	expect "events" "$(events)" $((before + 1))
	dmsetup remove thin pool
}

# Metadata that are full: the pool becomes read-only, what is mapped can still be used, and the metadata are
# whole.
test_out_of_metadata_space()
{
	local n
	dmsetup create metadata --table "0 192 linear $metadata_disk 0"
	pool_metadata=/dev/mapper/metadata
	new_pool error_if_no_space
	create_thin thin 0 $((1024 * MiB))
	write_text /dev/mapper/thin 0 64 "there" conv=fsync,notrunc
	# Each takes a block.
	for n in {1..200}; do
		message "create_thin $n" 2>/dev/null || break
	done
	((n > 1 && n < 200)) || fail "$n devices"
	expect "mode" "$(pool_mode)" ro
	refused write_text /dev/mapper/thin $((1000 * 1024)) 64 "more"
	refused message "create_thin 1000"
	has_text /dev/mapper/thin 0 64 "there"
	dmsetup remove thin pool
	check_metadata_after_fault
	dmsetup remove metadata
}

# The metadata device takes no writes any more: the pool becomes read-only or fails, those who wanted
# something durable are told, and what had been durable is there afterwards.
test_metadata_writes_fail()
{
	modprobe dm-flakey
	failing metadata $metadata_disk $metadata_sectors
	pool_metadata=/dev/mapper/metadata
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 1024 "durable" conv=fsync,notrunc
	fails_with metadata "0 $metadata_sectors flakey $metadata_disk 0 0 60 1 error_writes"
	refused write_text /dev/mapper/thin 2048 1024 "not durable" conv=fsync,notrunc
	[[ $(pool_mode) == ro || $(pool_mode) == Fail ]] || fail "the mode is $(pool_mode)"
	log_says "failed" || fail "nothing in the log"
	works_again metadata
	dmsetup remove thin pool
	check_metadata_after_fault
	create_pool
	activate_thin thin 0 $((64 * MiB))
	has_text /dev/mapper/thin 0 1024 "durable"
	write_text /dev/mapper/thin 2048 64 "again"
	has_text /dev/mapper/thin 2048 64 "again"
	dmsetup remove thin pool
	check_metadata_after_fault
	dmsetup remove metadata
}

# The metadata device is gone altogether.
test_metadata_gone()
{
	failing metadata $metadata_disk $metadata_sectors
	pool_metadata=/dev/mapper/metadata
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 1024 "durable" conv=fsync,notrunc
	fails_with metadata "0 $metadata_sectors error"
	refused write_text /dev/mapper/thin 2048 1024 "not durable" conv=fsync,notrunc
	expect "status" "$(dmsetup status --noflush pool)" "0 $data_sectors thin-pool Fail"
	expect "status" "$(dmsetup status thin)" "0 $((64 * MiB)) thin Fail"
	refused read_range /dev/mapper/thin 8192 64
	works_again metadata
	dmsetup remove thin pool
	check_metadata_after_fault
	create_pool
	activate_thin thin 0 $((64 * MiB))
	has_text /dev/mapper/thin 0 1024 "durable"
	dmsetup remove thin pool metadata
}

# first_blocks_work NUMBER: the rest of the data device has errors.
first_blocks_work()
{
	fails_with data "0 $(($1 * 128)) linear $data_disk 0
$(($1 * 128)) $((data_sectors - $1 * 128)) error"
}

# Most of the data device has errors: writes get the error, be it for the zeroes or for the data, and nothing
# is mapped that was not written.
test_data_writes_fail()
{
	failing data $data_disk $data_sectors
	pool_data=/dev/mapper/data
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 1024 "there"
	first_blocks_work 16
	fails_with_error "Input/output error" write_text /dev/mapper/thin 2048 4 "with zeroes"
	fails_with_error "Input/output error" write_text /dev/mapper/thin 4096 64 "whole block"
	has_text /dev/mapper/thin 0 1024 "there"
	has_zeroes /dev/mapper/thin 2048 64
	has_zeroes /dev/mapper/thin 4096 64
	expect "mode" "$(pool_mode)" rw
	works_again data
	write_text /dev/mapper/thin 2048 4 "with zeroes"
	has_text /dev/mapper/thin 2048 4 "with zeroes"
	has_zeroes /dev/mapper/thin 2052 60
	dmsetup remove thin pool data
	check_metadata_after_fault
}

# The data device is gone for a while.
test_data_gone()
{
	failing data $data_disk $data_sectors
	pool_data=/dev/mapper/data
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 1024 "there"
	fails_with data "0 $data_sectors error"
	refused read_range /dev/mapper/thin 0 64
	refused write_text /dev/mapper/thin 0 64 "lost"
	refused write_text /dev/mapper/thin 2048 64 "lost"
	has_zeroes /dev/mapper/thin 8192 64
	works_again data
	has_text /dev/mapper/thin 0 1024 "there"
	write_text /dev/mapper/thin 0 64 "not lost"
	has_text /dev/mapper/thin 0 64 "not lost"
	dmsetup remove thin pool data
	check_metadata_after_fault
}

# The copy of a shared block fails: the write gets the error, the block stays shared and as it was.
test_copy_fails()
{
	failing data $data_disk $data_sectors
	pool_data=/dev/mapper/data
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 1024 "shared"
	create_snapshot thin 0 1
	activate_thin snap 1 $((64 * MiB))
	first_blocks_work 16
	fails_with_error "Input/output error" write_text /dev/mapper/thin 4 4 "lost"
	works_again data
	has_text /dev/mapper/thin 0 1024 "shared"
	has_text /dev/mapper/snap 0 1024 "shared"
	write_text /dev/mapper/thin 4 4 "not lost"
	has_text /dev/mapper/thin 4 4 "not lost"
	has_text /dev/mapper/snap 0 1024 "shared"
	dmsetup remove thin snap pool data
	check_metadata_after_fault
}
