# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# Deleting devices.

time_limit[others_go_on]=400

# While a device with many blocks is deleted, others write, and verify, and nobody waits for the end of it.
test_others_go_on()
{
	new_pool
	create_thin large 0 $((900 * MiB))
	create_thin thin 1 $((64 * MiB))
	dd if=/dev/zero of=/dev/mapper/large bs=1M count=800 oflag=direct status=none
	expect "blocks in use" "$(used_blocks)" 12800
	dmsetup remove large
	start_io --name=a --filename=/dev/mapper/thin
	message "delete 0"
	io_goes_on
	stop_io
	(($(used_blocks) <= 128)) || fail "$(used_blocks) blocks are in use"
	refused activate_thin large 0 8192
	dmsetup remove thin pool
	check_metadata
}

# What a device shares with others they keep, and its own is given back.
test_shared()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 4096 "shared"
	create_snapshot thin 0 1
	write_text /dev/mapper/thin 0 1024 "its own"
	expect "blocks in use" "$(used_blocks)" 80
	dmsetup remove thin
	message "delete 0"
	expect "blocks in use" "$(used_blocks)" 64
	activate_thin snap 1 $((64 * MiB))
	has_text /dev/mapper/snap 0 4096 "shared"
	dmsetup remove snap
	message "delete 1"
	expect "blocks in use" "$(used_blocks)" 0
	dmsetup remove pool
	check_metadata
}
