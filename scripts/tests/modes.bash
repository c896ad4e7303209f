# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# The modes of a pool: what leads into and out of them while I/O is under way, and sizes that change. See
# Documentation/pool-modes.rst.
#
# kernels: uml-test

time_limit[growth]=200

# full_pool [FEATURE...]: 64 blocks, all of which "thin" has; "other" has none.
full_pool()
{
	pool_sectors=$((64 * 128))
	new_pool "$@"
	create_thin thin 0 $((64 * MiB))
	create_thin other 1 $((64 * MiB))
	write_text /dev/mapper/thin 0 4096 "fits"
}

# start_writer DEVICE PLACE LENGTH TEXT: a write, in the background, that waits for space.
start_writer()
{
	# What fails is for the test to judge.
	(
		trap - ERR
		write_text "$@"
	) 2>/run/test/writer.log &
	writer=$!
	eventually 20 mode_is out_of_data_space
	sleep 0.5
	kill -0 $writer 2>/dev/null || fail "the write has not waited: $(cat /run/test/writer.log)"
}

# writer_fails_with TEXT
writer_fails_with()
{
	wait $writer && fail "the write that waited succeeded"
	grep -q "$1" /run/test/writer.log || fail "not '$1' but '$(cat /run/test/writer.log)'"
}

# small_metadata BLOCKS: a pool with so many metadata blocks, and a device of 1 GiB, "thin".
small_metadata()
{
	dmsetup create metadata --table "0 $(($1 * 8)) linear $metadata_disk 0"
	pool_metadata=/dev/mapper/metadata
	new_pool
	create_thin thin 0 $((1024 * MiB))
}

# use_metadata: until there is none left. Each device takes a block.
use_metadata()
{
	local n
	for n in {100..499}; do
		message "create_thin $n" 2>/dev/null || break
	done
	expect "mode" "$(pool_mode)" ro
}

# resize_metadata BLOCKS: the device, below a pool that is resumed then, with a new table if it has one.
resize_metadata()
{
	dmsetup suspend pool
	dmsetup suspend metadata
	dmsetup reload metadata --table "0 $(($1 * 8)) linear $metadata_disk 0"
	dmsetup resume metadata
	dmsetup resume pool
}

# fragile_full_pool: full, on metadata that can fail, with transaction 1, and a write that waits.
fragile_full_pool()
{
	modprobe dm-flakey
	failing metadata $metadata_disk $metadata_sectors
	pool_metadata=/dev/mapper/metadata
	full_pool
	message "set_transaction_id 0 1"
	start_writer /dev/mapper/other 0 64 "waits"
}

# start_small_io: to the first half of what a full pool has mapped.
start_small_io()
{
	start_io --name=a --size=2m --filename=/dev/mapper/thin
}

# A write that waits for space gets it when a discard gives some back; others do not notice.
test_wait_for_discard()
{
	full_pool
	start_small_io
	start_writer /dev/mapper/other 0 64 "waits"
	has_text /dev/mapper/thin 2048 2048 "fits" 0
	has_zeroes /dev/mapper/other 0 64
	write_text /dev/mapper/thin 3072 64 "over it"
	discard /dev/mapper/thin 2048 64
	wait $writer
	has_text /dev/mapper/other 0 64 "waits"
	has_text /dev/mapper/thin 3072 64 "over it"
	eventually 20 mode_is rw
	io_goes_on
	stop_io
	dmsetup remove thin other pool
	check_metadata
}

# Writes that wait are woken by the deletion of a device, too.
test_wait_for_deletion()
{
	full_pool
	dmsetup remove thin
	start_writer /dev/mapper/other 0 64 "waits"
	message "delete 0"
	wait $writer
	has_text /dev/mapper/other 0 64 "waits"
	eventually 20 mode_is rw
	dmsetup remove other pool
	check_metadata
}

# After no_space_timeout, writes that wait fail, and those that come later fail at once.
test_timeout()
{
	local before
	full_pool
	echo 3 >"/sys/module/$(module_of $driver)/parameters/no_space_timeout"
	start_small_io
	start_writer /dev/mapper/other 0 64 "waits"
	before=$(events)
	writer_fails_with "No space left"
	expect_like "status" "$(pool_status)" " out_of_data_space .* error_if_no_space "
	expect "events" "$(events)" $((before + 1))
	fails_with_error "No space left" write_text /dev/mapper/other 0 64 "fails at once"
	io_goes_on
	# Space ends that.
	discard /dev/mapper/thin 2048 64
	eventually 20 mode_is rw
	write_text /dev/mapper/other 0 64 "fits"
	has_text /dev/mapper/other 0 64 "fits"
	stop_io
	dmsetup remove thin other pool
	check_metadata
}

# The pool grows: writes that wait get their blocks.
test_wait_for_growth()
{
	full_pool
	start_small_io
	start_writer /dev/mapper/other 0 1024 "waits"
	pool_sectors=$((128 * 128))
	load_table
	wait $writer
	has_text /dev/mapper/other 0 1024 "waits"
	expect_like "status" "$(pool_status)" " 80/128 - rw "
	log_says "growing the data device from 64 to 128 blocks" || fail "log"
	io_goes_on
	stop_io
	dmsetup remove thin other pool
	check_metadata
}

# Resuming it without more space lets them wait on.
test_resume_without_growth()
{
	full_pool
	start_small_io
	start_writer /dev/mapper/other 0 64 "waits"
	resume_table
	expect "mode" "$(pool_mode)" out_of_data_space
	sleep 0.5
	kill -0 $writer || fail "the write has ended: $(cat /run/test/writer.log)"
	load_table
	eventually 20 mode_is out_of_data_space
	kill -0 $writer || fail "the write has ended: $(cat /run/test/writer.log)"
	discard /dev/mapper/thin 2048 64
	wait $writer
	has_text /dev/mapper/other 0 64 "waits"
	io_goes_on
	stop_io
	dmsetup remove thin other pool
	check_metadata
}

# The table says what becomes of writes without space: another one makes those that wait fail.
test_error_by_table()
{
	full_pool
	start_writer /dev/mapper/other 0 64 "waits"
	load_table error_if_no_space
	writer_fails_with "No space left"
	fails_with_error "No space left" write_text /dev/mapper/other 0 64 "fails"
	load_table
	start_writer /dev/mapper/other 0 64 "waits again"
	discard /dev/mapper/thin 2048 64
	wait $writer
	has_text /dev/mapper/other 0 64 "waits again"
	dmsetup remove thin other pool
	check_metadata
}

# A device is suspended without flush while a write of it waits: device-mapper keeps the write.
test_suspend_noflush()
{
	full_pool
	start_writer /dev/mapper/other 0 64 "waits"
	dmsetup suspend --noflush --nolockfs other
	kill -0 $writer || fail "the write has ended: $(cat /run/test/writer.log)"
	discard /dev/mapper/thin 2048 64
	sleep 1
	kill -0 $writer || fail "the write went through a suspended device"
	dmsetup resume other
	wait $writer
	has_text /dev/mapper/other 0 64 "waits"
	dmsetup remove thin other pool
	check_metadata
}

# With a flush, suspending waits for the write.
test_suspend_with_flush()
{
	local suspender
	full_pool
	start_writer /dev/mapper/other 0 64 "waits"
	dmsetup suspend --nolockfs other &
	suspender=$!
	sleep 1
	kill -0 $suspender || fail "it did not wait"
	discard /dev/mapper/thin 2048 64
	wait $suspender
	wait $writer
	dmsetup resume other
	has_text /dev/mapper/other 0 64 "waits"
	dmsetup remove thin other pool
	check_metadata
}

# Metadata get full under I/O: what is mapped goes on, what would change them is refused. They grow, and all is
# well.
test_metadata_space()
{
	local before
	small_metadata 64
	write_text /dev/mapper/thin 0 $((33 * 1024)) "mapped"
	start_io --name=a --filename=/dev/mapper/thin
	before=$(events)
	use_metadata
	log_says "switching pool to read-only mode" || fail "log"
	if [[ $driver == rust ]]; then
		# One for the low water mark, and one for the mode.
		expect "events" "$(events)" $((before + 2))
	fi
	fails_with_error "Input/output error" write_text /dev/mapper/thin $((64 * 1024)) 64 "new"
	fails_with_error "Operation not supported" message "create_thin 500"
	discard /dev/mapper/thin $((32 * 1024)) 64
	has_text /dev/mapper/thin $((32 * 1024)) 1024 "mapped" 0
	io_goes_on

	before=$(events)
	resize_metadata 4096
	expect_like "status" "$(pool_status)" " [0-9]+/4096 .* rw .* - 1024 $"
	log_says "growing the metadata device from 64 to 4096 blocks" || fail "log"
	expect "events" "$(events)" $((before + 1))
	write_text /dev/mapper/thin $((64 * 1024)) 1024 "fits"
	has_text /dev/mapper/thin $((64 * 1024)) 1024 "fits"
	io_goes_on
	stop_io
	dmsetup remove thin pool
	check_metadata $pool_metadata
	dmsetup remove metadata
}

# Data and metadata grow under I/O, several times, together and one by one.
test_growth()
{
	local n
	pool_sectors=$((128 * 128))
	small_metadata 128
	start_io --name=a --size=4m --filename=/dev/mapper/thin
	for n in 2 3 4; do
		pool_sectors=$((n * 128 * 128))
		load_table
		expect_like "status" "$(pool_status)" " [0-9]+/128 [0-9]+/$((n * 128)) - rw "
	done
	for n in 2 3; do
		resize_metadata $((n * 128))
		expect_like "status" "$(pool_status)" " [0-9]+/$((n * 128)) [0-9]+/512 - rw "
	done
	pool_sectors=$((1024 * 128))
	dmsetup reload pool --table "$(pool_table)"
	resize_metadata 4096
	expect_like "status" "$(pool_status)" " [0-9]+/4096 [0-9]+/1024 - rw "
	write_text /dev/mapper/thin $((16 * 1024)) $((32 * 1024)) "more than there was"
	has_text /dev/mapper/thin $((16 * 1024)) $((32 * 1024)) "more than there was"
	io_goes_on
	stop_io
	dmsetup remove thin pool
	check_metadata $pool_metadata
	dmsetup remove metadata
}

# A pool, or its metadata, that became smaller: nothing changes, and the right table helps.
test_refused_shrink()
{
	local before
	small_metadata 1024
	write_text /dev/mapper/thin 0 4096 "there"
	before=$(used_blocks)
	dmsetup suspend pool
	pool_sectors=$((64 * 128))
	dmsetup reload pool --table "$(pool_table read_only)"
	refused dmsetup resume pool
	log_says "too small: expected" || fail "log"
	pool_sectors=$data_sectors
	dmsetup reload pool --table "$(pool_table)"
	dmsetup resume pool
	expect_like "status" "$(pool_status)" " $before/16384 - rw "
	write_text /dev/mapper/thin 8192 64 "works"

	dmsetup suspend pool
	dmsetup suspend metadata
	dmsetup reload metadata --table "0 $((512 * 8)) linear $metadata_disk 0"
	dmsetup resume metadata
	refused dmsetup resume pool
	log_says "metadata device (512 blocks) too small: expected 1024" || fail "log"
	resize_metadata 1024
	expect_like "status" "$(pool_status)" "/1024 $((before + 1))/16384 - rw "
	has_text /dev/mapper/thin 0 4096 "there"
	has_text /dev/mapper/thin 8192 64 "works"
	dmsetup remove thin pool
	check_metadata $pool_metadata
	dmsetup remove metadata
}

# The low water mark of the data: an event when it is reached, and once more after each resume.
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
	write_text /dev/mapper/thin 1024 1536 "little left"
	expect "events" "$(events)" $((before + 1))
	log_says "reached low water mark for data device: sending event." || fail "log"
	write_text /dev/mapper/thin 2560 64 "less"
	expect "events" "$(events)" $((before + 1))
	resume_table
	before=$(events)
	write_text /dev/mapper/thin 2624 64 "even less"
	expect "events" "$(events)" $((before + 1))
	dmsetup remove thin pool
}

# A table with read_only, under I/O to what is mapped, and one without.
test_read_only_table()
{
	local before
	new_pool
	create_thin thin 0 $((64 * MiB))
	create_thin other 1 $((64 * MiB))
	write_text /dev/mapper/thin 0 8192 "mapped"
	start_io --name=a --size=4m --filename=/dev/mapper/thin
	before=$(events)
	load_table read_only
	expect_like "status" "$(pool_status)" " ro "
	expect "events" "$(events)" $((before + 1))
	fails_with_error "Input/output error" write_text /dev/mapper/other 0 64 "new"
	fails_with_error "Operation not supported" message "create_thin 2"
	has_text /dev/mapper/thin 4096 4096 "mapped" 0
	io_goes_on
	load_table
	expect_like "status" "$(pool_status)" " rw "
	expect "events" "$(events)" $((before + 2))
	write_text /dev/mapper/other 0 64 "new"
	has_text /dev/mapper/other 0 64 "new"
	io_goes_on
	stop_io
	dmsetup remove thin other pool
	check_metadata
}

# Suspending with a flush, which waits for the write, is interrupted: it waits on, and is served later.
test_interrupted_suspend()
{
	full_pool
	start_writer /dev/mapper/thin 8192 64 "late"
	timeout -s INT 2 dmsetup suspend thin && fail "suspended"
	kill -0 $writer || fail "the write has not waited on"
	has_text /dev/mapper/thin 0 64 "fits"
	discard /dev/mapper/thin 0 64
	wait $writer
	has_text /dev/mapper/thin 8192 64 "late"
	dmsetup remove thin other pool
	check_metadata
}

# A failure of the metadata device while a write waits: what had been committed stays, the pool needs a
# check, and has that on the disk; everybody is told who lost something.
test_failure_while_waiting()
{
	modprobe dm-flakey
	failing metadata $metadata_disk $metadata_sectors
	pool_metadata=/dev/mapper/metadata
	full_pool
	sync
	start_writer /dev/mapper/thin 8192 64 "late"
	discard /dev/mapper/thin 0 64 &
	wait $!
	wait $writer
	write_text /dev/mapper/thin 0 64 "late" 2>/dev/null &
	local last=$!
	dmsetup suspend --noflush --nolockfs metadata
	dmsetup reload metadata --table "0 $metadata_sectors flakey $metadata_disk 0 0 60 1 error_writes"
	dmsetup resume metadata
	message "set_transaction_id 0 5" || :
	eventually 20 mode_is_bad
	kill $last 2>/dev/null || :
	wait $last || :
	fails_with_error "Operation not supported" message "create_thin 2"
	works_again metadata
	dmsetup remove thin other pool
	check_metadata_after_fault
	create_pool
	dmsetup remove pool
	dmsetup remove metadata
}

mode_is_bad()
{
	local mode
	mode=$(pool_mode)
	[[ $mode == ro || $mode == Fail ]]
}

# What can be set while the driver is loaded.
test_parameters()
{
	local parameters
	load_driver
	parameters=/sys/module/$(module_of $driver)/parameters
	expect "no_space_timeout" "$(cat $parameters/no_space_timeout)" 60
	expect "snapshot_copy_throttle" "$(cat $parameters/snapshot_copy_throttle)" 100
	echo 0 >$parameters/no_space_timeout
	echo 50 >$parameters/snapshot_copy_throttle
	expect "no_space_timeout" "$(cat $parameters/no_space_timeout)" 0
	expect "snapshot_copy_throttle" "$(cat $parameters/snapshot_copy_throttle)" 50
	# Copies go on at half the speed.
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 1024 "old"
	create_snapshot thin 0 1
	write_text /dev/mapper/thin 16 16 "new"
	has_text /dev/mapper/thin 16 16 "new"
	activate_thin snapshot 1 $((64 * MiB))
	has_text /dev/mapper/snapshot 0 1024 "old"
	dmsetup remove snapshot thin pool
}
