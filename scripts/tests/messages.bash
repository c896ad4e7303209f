# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# Messages to the pool.

# Messages that are wrong, or come at the wrong moment, change nothing.
test_wrong()
{
	local line before
	new_pool
	create_thin thin 5 8192
	write_text /dev/mapper/thin 0 64 "there"
	before=$(pool_status)
	while read -r line; do
		refused message "$line"
	done <<-END
		nonsense
		create_thin
		create_thin x
		create_thin -1
		create_thin 16777216
		create_thin 5
		create_thin 6 7
		create_snap
		create_snap 6
		create_snap 5 5
		create_snap 6 7
		create_snap 16777216 5
		create_snap 6 5 7
		delete
		delete x
		delete 6
		delete 5
		delete 5 6
		set_transaction_id
		set_transaction_id 0
		set_transaction_id 1 2
		set_transaction_id x 1
		set_transaction_id 0 x
		set_transaction_id 0 1 2
		release_metadata_snap
		release_metadata_snap 1
		reserve_metadata_snap 1
	END
	expect "status" "$(pool_status)" "$before"
	fails_with_error "File exists" message "create_thin 5"
	fails_with_error "No data available" message "delete 6"
	fails_with_error "Device or resource busy" message "delete 5"
	message reserve_metadata_snap
	fails_with_error "Device or resource busy" message reserve_metadata_snap
	message release_metadata_snap
	has_text /dev/mapper/thin 0 64 "there"
	dmsetup remove thin pool
	check_metadata
}

# Messages in capitals, large numbers, and to a pool that is suspended.
test_right()
{
	new_pool
	message "CREATE_THIN 1"
	message "Set_Transaction_Id 0 18446744073709551615"
	expect "transaction" "$(pool_field 1)" 18446744073709551615
	message "set_transaction_id 18446744073709551615 7"
	expect "transaction" "$(pool_field 1)" 7
	dmsetup suspend pool
	message "create_thin 2"
	message "create_snap 3 1"
	message "delete 2"
	dmsetup resume pool
	message "delete 3"
	message "delete 1"
	expect "transaction" "$(pool_field 1)" 7
	dmsetup remove pool
	check_metadata
	create_pool
	expect "transaction" "$(pool_field 1)" 7
	dmsetup remove pool
}

time_limit[under_io]=300

# 200 devices are made and deleted, snapshots of devices in use among them, while data are written and
# verified.
test_under_io()
{
	local n
	new_pool
	create_thin thin 0 $((64 * MiB))
	start_io --name=a --filename=/dev/mapper/thin
	for n in {1..50}; do
		message "create_thin $n"
		message "create_snap $((100 + n)) $n"
		create_snapshot thin 0 $((200 + n))
		message "create_snap $((300 + n)) $((200 + n))"
	done
	for n in {1..50}; do
		message "delete $n"
		message "delete $((200 + n))"
	done
	stop_io
	for n in {1..50}; do
		message "delete $((100 + n))"
		message "delete $((300 + n))"
	done
	dmsetup remove thin
	message "delete 0"
	expect "blocks in use" "$(used_blocks)" 0
	dmsetup remove pool
	check_metadata
}
