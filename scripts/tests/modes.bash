# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# The modes of a pool: how each is entered and left, with I/O under way, and what becomes of writes that
# wait for space.
#
# kernels: uml-test test

time_limit[growth]=200

parameter()
{
	printf '/sys/module/%s/parameters/%s\n' "$(module_of $driver)" "$1"
}

# full_pool [FEATURE...]: of 64 blocks, all in use for the start of `thin`.
full_pool()
{
	pool_sectors=$((64 * 128))
	new_pool "$@"
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 4096 "fits"
	expect "blocks in use" "$(used_blocks)" 64
}

# start_writer PLACE: of one block that there is no space for.
start_writer()
{
	(
		trap - ERR
		write_text /dev/mapper/thin "$1" 64 "late"
	) 2>/run/test/writer.log &
	writer=$!
	eventually 20 mode_is out_of_data_space
	sleep 0.5
	kill -0 $writer 2>/dev/null || fail "the write has not waited"
}

# writer_fails_with TEXT
writer_fails_with()
{
	if wait $writer; then
		fail "the write that waited has succeeded"
	fi
	grep -q "$1" /run/test/writer.log || fail "not '$1' but '$(cat /run/test/writer.log)'"
}

small_io()
{
	start_io --name=a --size=2m --filename=/dev/mapper/thin
}

# A write waits until something is discarded; others do not notice.
test_wait_for_discard()
{
	full_pool
	small_io
	start_writer 8192
	io_goes_on
	discard /dev/mapper/thin 3072 64
	wait $writer
	has_text /dev/mapper/thin 8192 64 "late"
	has_zeroes /dev/mapper/thin 3072 64
	eventually 20 mode_is rw
	stop_io
	dmsetup remove thin pool
	check_metadata
}

# Or until the pool grows.
test_wait_for_growth()
{
	full_pool
	small_io
	start_writer 8192
	pool_sectors=$((96 * 128))
	load_table
	wait $writer
	has_text /dev/mapper/thin 8192 64 "late"
	expect "mode" "$(pool_mode)" rw
	expect_like "status" "$(pool_status)" " 65/96 - rw "
	log_says "growing the data device from 64 to 96 blocks" || fail "log"
	io_goes_on
	stop_io
	dmsetup remove thin pool
	check_metadata
}

# It fails when the time for it is over, and so do others from then on; a resume begins anew.
test_timeout()
{
	full_pool
	echo 2 >"$(parameter no_space_timeout)"
	start_writer 8192
	local before
	before=$(events)
	writer_fails_with "No space left"
	expect_like "status" "$(pool_status)" " out_of_data_space .* error_if_no_space "
	expect "events" "$(events)" $((before + 1))
	log_says "switching pool to out-of-data-space (error IO) mode" || fail "log"
	fails_with_error "No space left" write_text /dev/mapper/thin 8192 64 "late"
	echo 60 >"$(parameter no_space_timeout)"
	resume_table
	expect_like "status" "$(pool_status)" " out_of_data_space .* queue_if_no_space "
	start_writer 8192
	discard /dev/mapper/thin 0 64
	wait $writer
	dmsetup remove thin pool
	check_metadata
}

# A device is suspended while a write waits: without a flush at once, and the write waits on afterwards.
# A pool takes its devices with it.
test_suspend_while_waiting()
{
	full_pool
	start_writer 8192
	dmsetup suspend --noflush --nolockfs thin
	dmsetup resume thin
	sleep 0.5
	kill -0 $writer || fail "the write has not waited on"
	resume_table
	sleep 0.5
	kill -0 $writer || fail "the write has not waited on"
	load_table error_if_no_space
	writer_fails_with "No space left"
	expect_like "status" "$(pool_status)" " out_of_data_space .* error_if_no_space "
	load_table
	start_writer 8192
	discard /dev/mapper/thin 0 64
	wait $writer
	dmsetup remove thin pool
	check_metadata
}

# Suspending with a flush, which waits for the write, is interrupted: it waits on, and is served later.
test_interrupted_suspend()
{
	full_pool
	start_writer 8192
	timeout -s INT 2 dmsetup suspend thin && fail "suspended"
	kill -0 $writer || fail "the write has not waited on"
	has_text /dev/mapper/thin 0 64 "fits"
	discard /dev/mapper/thin 0 64
	wait $writer
	has_text /dev/mapper/thin 8192 64 "late"
	dmsetup remove thin pool
	check_metadata
}

# A table that is read-only, for a pool without space: the write fails. The next table ends that.
test_read_only_table()
{
	full_pool
	small_io
	start_writer 8192
	load_table read_only
	writer_fails_with "Input/output error"
	log_says "switching pool to read-only mode" || fail "log"
	expect_like "status" "$(pool_status)" " 64/64 - ro "
	fails_with_error "Input/output error" write_text /dev/mapper/thin 8192 64 "new"
	fails_with_error "Operation not supported" message "create_thin 2"
	discard /dev/mapper/thin 3072 64
	has_text /dev/mapper/thin 3072 64 "fits" 0
	io_goes_on
	pool_sectors=$((70 * 128))
	load_table
	expect_like "status" "$(pool_status)" " 64/70 - rw "
	write_text /dev/mapper/thin 8192 64 "fits now"
	io_goes_on
	stop_io
	dmsetup remove thin pool
	check_metadata
}

# Metadata that run out: an event before, then the pool is read-only; it writes again when their device has
# grown. Data and metadata can grow in one go.
test_growth()
{
	local n before
	dmsetup create metadata --table "0 $((64 * 8)) linear $metadata_disk 0"
	pool_metadata=/dev/mapper/metadata
	pool_sectors=$((16384 * 128))
	new_pool
	before=$(events)
	create_thin thin 0 $((1024 * MiB))
	write_text /dev/mapper/thin 0 1024 "fits"
	for n in {1..500}; do
		message "create_thin $n" 2>/dev/null || break
	done
	eventually 10 mode_is ro
	log_says "switching pool to read-only mode" || fail "log"
	expect_like "status" "$(pool_status)" " 64/64 .* ro "
	(($(events) > before + 1)) || fail "$(events) events after $before"
	fails_with_error "Operation not supported" message "create_thin 600"
	fails_with_error "Input/output error" write_text /dev/mapper/thin 8192 64 "new"
	has_text /dev/mapper/thin 0 1024 "fits"
	resume_table
	expect "mode" "$(pool_mode)" ro

	dmsetup suspend pool
	dmsetup reload metadata --table "0 $((4096 * 8)) linear $metadata_disk 0"
	dmsetup suspend metadata
	dmsetup resume metadata
	dmsetup resume pool
	expect "mode" "$(pool_mode)" rw
	expect_like "status" "$(pool_status)" "/4096 "
	log_says "growing the metadata device from 64 to 4096 blocks" || fail "log"
	write_text /dev/mapper/thin 8192 64 "new"
	message "create_thin 600"
	dmsetup remove thin pool
	check_metadata
	dmsetup remove metadata
}

# A table that is shorter than the pool is refused, and the pool can go on with the one before.
test_refused_shrink()
{
	full_pool
	small_io
	pool_sectors=$((63 * 128))
	dmsetup reload pool --table "$(pool_table error_if_no_space)"
	dmsetup suspend pool
	refused dmsetup resume pool
	log_says "pool target (63 blocks) too small: expected 64" || fail "log"
	expect_like "status" "$(pool_status)" " 64/64 .* queue_if_no_space "
	pool_sectors=$((64 * 128))
	dmsetup reload pool --table "$(pool_table)"
	dmsetup resume pool
	io_goes_on
	stop_io
	dmsetup remove thin pool
	check_metadata
}

# A failure of the metadata device while a write waits: what had been committed stays, the pool needs a
# check, and has that on the disk; everybody is told who lost something.
test_failure_while_waiting()
{
	failing metadata $metadata_disk $metadata_sectors
	pool_metadata=/dev/mapper/metadata
	full_pool
	sync
	start_writer 8192
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
	dmsetup remove thin pool
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
