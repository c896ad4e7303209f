# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# Suspending, resuming and removing, with I/O under way.
#
# kernels: uml-test test

time_limit[pool_under_io]=200
time_limit[thin_under_io]=200

# A pool is suspended and resumed again and again, with the same table or another, under I/O.
test_pool_under_io()
{
	local n
	new_pool
	create_thin thin 0 $((64 * MiB))
	start_io --name=a --filename=/dev/mapper/thin
	for n in {1..15}; do
		dmsetup suspend pool
		dmsetup resume pool
		dmsetup suspend --noflush pool
		dmsetup resume pool
		load_table error_if_no_space
		load_table
	done
	io_goes_on
	stop_io
	dmsetup remove thin pool
	check_metadata
}

# A thin device is suspended and resumed again and again, with and without flushing, under I/O.
test_thin_under_io()
{
	local n
	new_pool
	create_thin thin 0 $((64 * MiB))
	start_io --name=a --filename=/dev/mapper/thin
	for n in {1..15}; do
		dmsetup suspend thin
		dmsetup resume thin
		dmsetup suspend --noflush --nolockfs thin
		dmsetup resume thin
		dmsetup reload thin --table "0 $((64 * MiB)) thin /dev/mapper/pool 0"
		dmsetup suspend thin
		dmsetup resume thin
	done
	io_goes_on
	stop_io
	dmsetup remove thin pool
	check_metadata
}

# A suspended pool holds all I/O, and nothing is lost of it.
test_pool_holds_io()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 64 "before"
	dmsetup suspend pool
	write_text /dev/mapper/thin 64 64 "meanwhile" &
	sleep 1
	kill -0 $! || fail "the write has not waited"
	dmsetup resume pool
	wait $!
	has_text /dev/mapper/thin 0 64 "before"
	has_text /dev/mapper/thin 64 64 "meanwhile"
	dmsetup remove thin pool
	check_metadata
}

gone()
{
	! dmsetup info "$1" >/dev/null 2>&1
}

# What is in use cannot be removed; a device that goes when its last user has gone, goes; and all of it can
# be done again.
test_remove()
{
	local n
	load_driver
	format_pool
	for n in {1..5}; do
		create_pool
		((n > 1)) || message "create_thin 0"
		activate_thin thin 0 $((64 * MiB))
		refused dmsetup remove pool
		exec 7<>/dev/mapper/thin
		refused dmsetup remove thin
		dmsetup remove --deferred thin
		write_text /dev/fd/7 0 64 "round $n"
		exec 7>&-
		eventually 10 gone thin
		eventually 10 dmsetup remove pool
		check_metadata
	done
	unload_driver
}

# The driver cannot be unloaded while it is in use.
test_unload_in_use()
{
	new_pool
	refused rmmod "$(module_of $driver)"
	dmsetup remove pool
	unload_driver
	load_driver
	create_pool
	dmsetup remove pool
}

# Tables that are loaded and never used, cleared or replaced, leave nothing.
test_unused_tables()
{
	new_pool
	message "create_thin 0"
	dmsetup reload pool --table "$(pool_table error_if_no_space)"
	dmsetup reload pool --table "$(pool_table no_discard_passdown)"
	dmsetup clear pool
	dmsetup create thin --notable
	dmsetup reload thin --table "0 8192 thin /dev/mapper/pool 0"
	dmsetup clear thin
	message "delete 0"
	message "create_thin 0"
	dmsetup reload thin --table "0 8192 thin /dev/mapper/pool 0"
	refused message "delete 0"
	dmsetup remove thin
	message "delete 0"
	dmsetup create unused --notable
	dmsetup remove pool
	dmsetup reload unused --table "$(pool_table)"
	dmsetup remove unused
	check_metadata
}
