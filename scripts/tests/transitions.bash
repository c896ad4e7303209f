# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# Transitions between the modes of a pool that are rare: from one shortage into
# another, and by tables and failures that come in the middle of one. The others
# are in modes.bash. The table of all is in drivers/md/thin/core/mode.rs.
#
# kernels: uml-test

# shellcheck source=scripts/tests/modes.bash
. ./modes.bash

# order_in_log TEXT...: each after the one before.
order_in_log()
{
	local text last=0 line
	for text; do
		line=$(log | grep -nF -- "$text" | tail -n 1)
		[ "${line%%:*}" -gt $last ] || fail "'$text' is not in the log, or too early"
		last=${line%%:*}
	done
}

# No data block is free, and then no metadata block either: writes that wait fail
# for want of space, others do not notice. Both devices grow in one go, and the
# pool writes again.
test_data_then_metadata()
{
	dmsetup create metadata --table "0 $((64 * 8)) linear $metadata_disk 0"
	pool_metadata=/dev/mapper/metadata
	full_pool
	start_small_io
	start_writer /dev/mapper/thin 8192 64 "waits"
	local before
	before=$(events)
	use_metadata
	writer_fails_with "No space left"
	order_in_log "switching pool to out-of-data-space (queue IO) mode" \
		"No free metadata blocks" "switching pool to read-only mode"
	if [[ $driver == rust ]]; then
		# One for the low water mark of the metadata, and one for the mode.
		expect "events" "$(events)" $((before + 2))
		expect_like "status" "$(pool_status)" " 64/64 - ro .* queue_if_no_space - 16 $"
	fi
	fails_with_error "Input/output error" write_text /dev/mapper/thin 8192 64 "new"
	fails_with_error "Operation not supported" message "create_thin 500"
	discard /dev/mapper/thin 2048 64
	has_text /dev/mapper/thin 2048 2048 "fits" 0
	has_zeroes /dev/mapper/thin 8192 64
	write_text /dev/mapper/thin 3072 1024 "over it"
	resume_table
	expect "mode" "$(pool_mode)" ro
	io_goes_on

	before=$(events)
	pool_sectors=$((128 * 128))
	dmsetup reload pool --table "$(pool_table)"
	resize_metadata 4096
	expect_like "status" "$(pool_status)" " [0-9]+/4096 64/128 - rw .* queue_if_no_space - 1024 $"
	expect "events" "$(events)" $((before + 1))
	order_in_log "No free metadata blocks" "switching pool to write mode" \
		"growing the data device from 64 to 128 blocks"
	[[ $driver != rust ]] ||
		order_in_log "growing the metadata device from 64 to 4096 blocks" \
			"growing the data device from 64 to 128 blocks"
	write_text /dev/mapper/thin 8192 4096 "fits now"
	expect "blocks in use" "$(used_blocks)" 128
	start_writer /dev/mapper/other 0 64 "waits again"
	discard /dev/mapper/thin 8192 64
	wait $writer
	has_text /dev/mapper/other 0 64 "waits again"
	has_text /dev/mapper/thin 3072 1024 "over it"
	eventually 20 mode_is rw
	stop_io
	dmsetup remove thin other pool
	check_metadata $pool_metadata
	dmsetup remove metadata
}

# A table with read_only for a pool without data space: writes that wait fail as any
# other that needs a block. The next table ends that, and writes wait again.
test_read_only_no_data()
{
	full_pool
	start_small_io
	start_writer /dev/mapper/thin 8192 64 "waits"
	local before
	before=$(events)
	load_table read_only
	# The pool was suspended: they had to come again, and then it was read-only.
	writer_fails_with "Input/output error"
	log_says "switching pool to read-only mode" || fail "log"
	expect_like "status" "$(pool_status)" " 64/64 - ro "
	expect "events" "$(events)" $((before + 1))
	fails_with_error "Input/output error" write_text /dev/mapper/thin 8192 64 "new"
	fails_with_error "Operation not supported" message "create_thin 2"
	discard /dev/mapper/thin 2048 64
	has_text /dev/mapper/thin 2048 2048 "fits" 0
	has_zeroes /dev/mapper/other 0 64
	resume_table
	expect "mode" "$(pool_mode)" ro
	expect "events" "$(events)" $((before + 1))
	io_goes_on

	load_table
	expect_like "status" "$(pool_status)" " 64/64 - rw .* queue_if_no_space "
	expect "events" "$(events)" $((before + 2))
	order_in_log "switching pool to read-only mode" "switching pool to write mode"
	start_writer /dev/mapper/thin 8192 64 "waits again"
	discard /dev/mapper/thin 2048 64
	wait $writer
	has_text /dev/mapper/thin 8192 64 "waits again"
	eventually 20 mode_is rw
	stop_io
	dmsetup remove thin other pool
	check_metadata
}

# A table with read_only for a pool without metadata space: it stays read-only,
# whatever size its metadata have, until the next table.
test_read_only_no_metadata()
{
	small_metadata 64
	write_text /dev/mapper/thin 0 $((33 * 1024)) "mapped"
	start_io --name=a --filename=/dev/mapper/thin
	use_metadata
	local before
	before=$(events)
	load_table read_only
	expect "mode" "$(pool_mode)" ro
	expect "events" "$(events)" $((before + 1))
	expect "lines" "$(count_log "switching pool to read-only mode")" 2
	fails_with_error "Input/output error" write_text /dev/mapper/thin $((64 * 1024)) 64 "new"
	fails_with_error "Operation not supported" message "create_thin 500"
	if [[ $driver == rust ]]; then # the one in C fails to grow then, and needs a check
		resize_metadata 4096
		expect_like "status" "$(pool_status)" " [0-9]+/64 .* ro .* - 1024 $"
		expect "events" "$(events)" $((before + 1))
		! log_says "growing the metadata device" || fail "it has not grown"
	fi
	has_text /dev/mapper/thin $((32 * 1024)) 1024 "mapped" 0
	io_goes_on

	dmsetup reload pool --table "$(pool_table)"
	resize_metadata 4096
	expect_like "status" "$(pool_status)" " [0-9]+/4096 .* rw .* - 1024 $"
	expect "events" "$(events)" $((before + 2))
	log_says "growing the metadata device from 64 to 4096 blocks" || fail "log"
	write_text /dev/mapper/thin $((64 * 1024)) 1024 "fits"
	has_text /dev/mapper/thin $((64 * 1024)) 1024 "fits"
	stop_io
	dmsetup remove thin pool
	check_metadata $pool_metadata
	dmsetup remove metadata
}

# A new table lets a pool write that has no metadata space: until it is found that
# there still is none, or for good if discards give some first.
test_new_table()
{
	small_metadata 128
	write_text /dev/mapper/thin 0 $((33 * 1024)) "mapped"
	write_text /dev/mapper/thin $((64 * 1024)) $((32 * 1024)) "to be discarded"
	start_io --name=a --filename=/dev/mapper/thin
	use_metadata
	local before
	before=$(events)
	load_table
	# With a flush, the status would commit, and find that there is no space.
	expect_like "status" "$(dmsetup status --noflush pool)" " rw "
	expect "events" "$(events)" $((before + 1))
	order_in_log "switching pool to read-only mode" "switching pool to write mode"
	fails_with_error "Input/output error" \
		write_text /dev/mapper/thin $((256 * 1024)) 64 "does not fit"
	expect "mode" "$(pool_mode)" ro
	expect "lines" "$(count_log "No free metadata blocks")" 2
	order_in_log "switching pool to write mode" "switching pool to read-only mode"
	# One for the low water mark of the metadata, and one for the mode.
	[[ $driver != rust ]] || expect "events" "$(events)" $((before + 3))
	io_goes_on

	load_table
	discard /dev/mapper/thin $((64 * 1024)) $((32 * 1024))
	expect "mode" "$(pool_mode)" rw
	expect "lines" "$(count_log "No free metadata blocks")" 2
	write_text /dev/mapper/thin $((256 * 1024)) 64 "fits"
	has_text /dev/mapper/thin $((256 * 1024)) 64 "fits"
	message "delete 100"
	stop_io
	dmsetup remove thin pool
	check_metadata $pool_metadata
	dmsetup remove metadata
}

# uses_more_than BLOCKS
uses_more_than()
{
	(($(used_blocks) > $1))
}

# keep_writing DEVICE STEP: 64 KiB, and flushes, each time STEP KiB further on,
# until it fails.
keep_writing()
{
	local place=0
	while write_text "$1" $place 64 "on and on" conv=fsync,notrunc; do
		place=$((place + $2))
	done 2>"/run/test/${1##*/}.log"
	grep -q "Input/output error" "/run/test/${1##*/}.log"
}

# keep_reading: what is mapped in `thin`, until it fails.
keep_reading()
{
	while read_range /dev/mapper/thin 0 4096 >/dev/null 2>/run/test/reader.log; do :; done
	grep -q "Input/output error" /run/test/reader.log
}

# fails_while_writing TABLE LINE: a commit fails in write mode, on metadata with
# that table, and the line in the log says why the pool fails. Nothing works then,
# whatever is loaded, until the pool is made anew.
fails_while_writing()
{
	modprobe dm-flakey
	failing metadata $metadata_disk $metadata_sectors
	pool_metadata=/dev/mapper/metadata
	new_pool
	create_thin thin 0 $((64 * MiB))
	create_thin other 1 $((768 * MiB))
	write_text /dev/mapper/thin 0 4096 "before the fault" conv=fsync,notrunc
	write_text /dev/mapper/other 0 64 "on and on" conv=fsync,notrunc
	keep_writing /dev/mapper/other 64 &
	local writer=$! before
	keep_reading &
	local reader=$!
	eventually 20 uses_more_than 64
	before=$(events)
	fails_with metadata "$1"
	eventually 30 mode_is Fail
	wait $writer || fail "the writer: $(cat /run/test/other.log)"
	wait $reader || fail "the reader: $(cat /run/test/reader.log)"
	expect "status" "$(pool_status)" "0 $data_sectors thin-pool Fail"
	expect "status" "$(dmsetup status thin)" "0 $((64 * MiB)) thin Fail"
	expect "events" "$(events)" $((before + 1))
	order_in_log "committing failed" "$2" "switching pool to fail mode"

	local n
	for n in 1 2 3; do
		fails_with_error "Input/output error" read_range /dev/mapper/thin 0 64
		fails_with_error "Input/output error" read_range /dev/mapper/thin $((32 * 1024)) 64
		fails_with_error "Input/output error" write_text /dev/mapper/thin 0 64 "lost"
		refused discard /dev/mapper/thin 0 64
		fails_with_error "Operation not supported" message "create_thin 2"
		refused activate_thin again 0 $((64 * MiB))
		case $n in
		1) resume_table ;;
		2) load_table read_only && works_again metadata && load_table ;;
		esac
		expect "status" "$(pool_status)" "0 $data_sectors thin-pool Fail"
	done
	expect "events" "$(events)" $((before + 1))
	dmsetup remove thin other pool

	check_metadata_after_fault $pool_metadata
	create_pool
	expect_like "status" "$(pool_status)" " rw .* - 1024 $"
	activate_thin thin 0 $((64 * MiB))
	has_text /dev/mapper/thin 0 4096 "before the fault"
	write_text /dev/mapper/thin 8192 1024 "after the fault"
	has_text /dev/mapper/thin 8192 1024 "after the fault"
	dmsetup remove thin pool
	check_metadata_after_fault $pool_metadata
	dmsetup remove metadata
}

# The metadata are gone while there are writes: they cannot go back to the last
# commit, and the pool fails.
test_not_aborted()
{
	fails_while_writing "0 $metadata_sectors error" "failed to abort metadata transaction"
}

# The metadata can only be read while there are writes: they go back, but do not
# take the mark that they need a check, and the pool fails.
test_not_marked()
{
	fails_while_writing "0 $metadata_sectors flakey $metadata_disk 0 0 60 1 error_writes" \
		"failed to set 'needs_check' flag in metadata"
}

# In read-only mode nothing is changed that could fail, but the next table enters write
# mode. Here the pool is to grow with it, on metadata that are gone.
test_fail_from_read_only()
{
	failing metadata $metadata_disk $metadata_sectors
	pool_metadata=/dev/mapper/metadata
	pool_sectors=$((128 * 128))
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 4096 "before the fault" conv=fsync,notrunc
	keep_reading &
	local reader=$! before
	load_table read_only
	before=$(events)
	fails_with metadata "0 $metadata_sectors error"
	refused write_text /dev/mapper/thin 8192 64 "new"
	refused message "create_thin 1"
	resume_table
	# What is mapped is known without reading it.
	expect_like "status" "$(pool_status)" " 64/128 - ro .* - 1024 $"
	kill -0 $reader || fail "the reads have ended"

	pool_sectors=$((256 * 128))
	load_table
	wait $reader || fail "the reader: $(cat /run/test/reader.log)"
	expect "status" "$(pool_status)" "0 $pool_sectors thin-pool Fail"
	expect "events" "$(events)" $((before + 2))
	order_in_log "switching pool to read-only mode" "switching pool to write mode" \
		"failed to abort metadata transaction" "switching pool to fail mode"
	works_again metadata
	dmsetup remove thin pool
	check_metadata $pool_metadata
	create_pool
	expect_like "status" "$(pool_status)" " 64/256 - rw .* - 1024 $"
	activate_thin thin 0 $((64 * MiB))
	has_text /dev/mapper/thin 0 4096 "before the fault"
	dmsetup remove thin pool
	check_metadata $pool_metadata
	dmsetup remove metadata
}

# The same while writes wait for data space: they fail for want of it.
test_not_marked_while_waiting()
{
	fragile_full_pool
	keep_reading &
	local reader=$! before
	before=$(events)
	fails_with metadata "0 $metadata_sectors flakey $metadata_disk 0 0 60 1 error_writes"
	message "set_transaction_id 1 2" || echo "(the message says so)"
	writer_fails_with "No space left"
	wait $reader || fail "the reader: $(cat /run/test/reader.log)"
	expect "status" "$(pool_status)" "0 8192 thin-pool Fail"
	expect "events" "$(events)" $((before + 1))
	order_in_log "failed to set 'needs_check' flag in metadata" "switching pool to fail mode"
	fails_with_error "Input/output error" write_text /dev/mapper/thin 0 64 "lost"
	works_again metadata
	dmsetup remove thin other pool
	check_metadata_after_fault $pool_metadata
	create_pool
	expect_like "status" "$(pool_status)" " 1 .*/64 - rw .* - 1024 $"
	activate_thin thin 0 $((64 * MiB))
	has_text /dev/mapper/thin 0 4096 "fits"
	dmsetup remove thin pool
	dmsetup remove metadata
}
