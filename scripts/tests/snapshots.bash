# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# Snapshots: of what is in use, of metadata.

time_limit[suspended_origin]=200

# Twenty snapshots of a device that is being written to, each taken while it is suspended for a moment.
test_live()
{
	local n
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 32768 1024 "from the beginning"
	start_io --name=a --filename=/dev/mapper/thin
	for n in {1..20}; do
		create_snapshot thin 0 $n
		write_text /dev/mapper/thin $((32768 + n * 64)) 64 "after $n"
	done
	stop_io
	for n in {1..20}; do
		activate_thin snap $n $((64 * MiB))
		if ((n > 1)); then
			has_text /dev/mapper/snap $((32768 + (n - 1) * 64)) 64 "after $((n - 1))"
		fi
		((n > 15)) || has_text /dev/mapper/snap $((32768 + n * 64)) 64 "from the beginning" 32768
		dmsetup remove snap
	done
	dmsetup remove thin pool
	check_metadata
}

# The origin may be suspended by its pool, be removed afterwards, or never have been active.
test_suspended_origin()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 1024 "origin"
	dmsetup suspend pool
	message "create_snap 1 0"
	dmsetup resume pool
	write_text /dev/mapper/thin 0 64 "later"
	dmsetup remove thin
	message "create_snap 2 0"
	message "delete 0"
	activate_thin snap 1 $((64 * MiB))
	has_text /dev/mapper/snap 0 1024 "origin"
	dmsetup remove snap
	activate_thin snap 2 $((64 * MiB))
	has_text /dev/mapper/snap 0 64 "later"
	has_text /dev/mapper/snap 64 960 "origin" 0
	dmsetup remove snap
	message "delete 1"
	message "delete 2"
	expect "blocks in use" "$(used_blocks)" 0
	dmsetup remove pool
	check_metadata
}

# A metadata snapshot can be read while the pool is used, and has what there was when it was taken.
test_metadata()
{
	local held
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 1024 "before"
	expect "metadata snapshot" "$(pool_field 4)" -
	message reserve_metadata_snap
	held=$(pool_field 4)
	expect_like "metadata snapshot" "$held" '^[0-9]+$'
	write_text /dev/mapper/thin 1024 1024 "after"
	message "create_thin 1"
	thin_dump --metadata-snap $metadata_disk >/run/test/dump
	grep -q 'dev_id="0" mapped_blocks="16"' /run/test/dump || fail "$(cat /run/test/dump)"
	! grep -q 'dev_id="1"' /run/test/dump || fail "it has what came later"
	message release_metadata_snap
	expect "metadata snapshot" "$(pool_field 4)" -
	dmsetup remove thin pool
	check_metadata
}

# What a metadata snapshot keeps is not given back before it is released.
test_metadata_keeps_blocks()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 1024 "kept"
	message reserve_metadata_snap
	discard /dev/mapper/thin 0 1024
	dmsetup remove thin
	message "delete 0"
	dmsetup remove pool
	check_metadata
	create_pool
	expect_like "metadata snapshot" "$(pool_field 4)" '^[0-9]+$'
	message release_metadata_snap
	expect "blocks in use" "$(used_blocks)" 0
	dmsetup remove pool
	check_metadata
}
