# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# The tools on a pool that is in use, or was a moment ago.

# find_tools: sets bin.
find_tools()
{
	bin=$(realpath "$tests/../../build/bin")
	[[ -x $bin/thin_ls ]] || skip "the tools have not been built: make tools builds them"
}

# thin_ls, thin_delta and thin_dump on a metadata snapshot; without one they say how to make one.
test_live()
{
	local bin
	find_tools
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 6400 "both"
	create_snapshot thin 0 1
	write_text /dev/mapper/thin 640 640 "new"
	write_text /dev/mapper/thin 19200 192 "more"
	fails_with_error "use" $bin/thin_ls $metadata_disk
	fails_with_error "reserve_metadata_snap" $bin/thin_ls -m $metadata_disk
	message reserve_metadata_snap
	write_text /dev/mapper/thin 32000 640 "not in the snapshot"
	expect "thin_ls" "$($bin/thin_ls -m --no-headers -o DEV,MAPPED_BLOCKS,EXCLUSIVE_BLOCKS $metadata_disk | tr -s ' ')" \
		"0 103 13 "$'\n'"1 100 10 "
	expect "thin_delta" "$($bin/thin_delta -m --no-same --snap1 1 --snap2 0 $metadata_disk | grep begin)" \
		'    <different begin="10" length="10"/>'$'\n''    <right_only begin="300" length="3"/>'
	expect "thin_dump" "$($bin/thin_dump -m --dev-id 1 $metadata_disk | grep -c 'mapping origin')" 1
	message release_metadata_snap
	dmsetup remove thin pool
	quietly $bin/thin_check $metadata_disk
}

# A thin device is copied as far as it is mapped, then what has changed since.
test_migrate()
{
	local bin
	find_tools
	new_pool
	create_thin thin 0 $((32 * MiB))
	write_text /dev/mapper/thin 448 6400 "first"
	create_snapshot thin 0 1
	write_text /dev/mapper/thin 1280 640 "changed"
	discard /dev/mapper/thin 4096 640
	dmsetup create snap -r --table "0 $((32 * MiB)) thin /dev/mapper/pool 1"
	fails_with_error "not read-only" $bin/thin_migrate --source-dev /dev/mapper/thin --dest-file /run/test/copy
	quietly $bin/thin_migrate --source-dev /dev/mapper/snap --dest-file /run/test/copy
	cmp /run/test/copy /dev/mapper/snap
	dmsetup remove thin
	dmsetup create thin -r --table "0 $((32 * MiB)) thin /dev/mapper/pool 0"
	quietly $bin/thin_migrate --source-dev /dev/mapper/thin --dest-file /run/test/copy --delta-id 1
	cmp /run/test/copy /dev/mapper/thin
	# The metadata snapshot has been released.
	message reserve_metadata_snap
	message release_metadata_snap
	dmsetup remove thin snap pool
}

# What no device uses is discarded, everything else stays.
test_trim()
{
	local bin
	find_tools
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 6400 "stays"
	dmsetup remove thin
	refused $bin/thin_trim --metadata-dev $metadata_disk --data-dev $data_disk
	dmsetup remove pool
	quietly $bin/thin_trim --metadata-dev $metadata_disk --data-dev $data_disk
	create_pool
	activate_thin thin 0 $((64 * MiB))
	has_text /dev/mapper/thin 0 6400 "stays"
	dmsetup remove thin pool
	check_metadata
}
