# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# Thin devices with an external origin: a device that shows where nothing was written.

# new_origin KIB: the device `origin`, with text.
new_origin()
{
	dmsetup create origin --table "0 $(($1 * 2)) linear $spare_disk 0"
	write_text /dev/mapper/origin 0 $1 "origin"
}

# The origin shows, takes no space, and stays as it is; what is written hides it, and only that.
test_shows()
{
	new_pool
	new_origin 16384
	message "create_thin 0"
	activate_thin thin 0 $((64 * MiB)) /dev/mapper/origin
	expect_like "table" "$(dmsetup table thin)" ' thin [0-9]+:[0-9]+ 0 [0-9]+:[0-9]+$'
	has_text /dev/mapper/thin 0 16384 "origin"
	has_zeroes /dev/mapper/thin 16384 1024
	expect "blocks in use" "$(used_blocks)" 0
	write_text /dev/mapper/thin 68 4 "part"
	write_text /dev/mapper/thin 1024 64 "block"
	has_text /dev/mapper/thin 0 68 "origin"
	has_text /dev/mapper/thin 68 4 "part"
	has_text /dev/mapper/thin 72 952 "origin" 0
	has_text /dev/mapper/thin 1024 64 "block"
	has_text /dev/mapper/thin 1088 4096 "origin" 0
	expect "blocks in use" "$(used_blocks)" 2
	has_text /dev/mapper/origin 0 16384 "origin"
	discard /dev/mapper/thin 1024 64
	has_text /dev/mapper/thin 1024 64 "origin" 0
	dmsetup remove thin origin pool
	check_metadata
}

# An origin that ends in the middle of a block, at a sector that no page ends at.
test_short()
{
	new_pool
	dmsetup create origin --table "0 $((1024 * 2 + 75)) linear $spare_disk 0"
	text 0 1100 "origin" | dd of=$spare_disk bs=64k iflag=fullblock oflag=direct conv=notrunc status=none
	message "create_thin 0"
	activate_thin thin 0 $((64 * MiB)) /dev/mapper/origin
	has_text /dev/mapper/thin 0 1061 "origin"
	has_zeroes /dev/mapper/thin 1062 512
	write_text /dev/mapper/thin 1080 4 "behind the end"
	has_text /dev/mapper/thin 1024 37 "origin" 0
	has_zeroes /dev/mapper/thin 1062 18
	has_text /dev/mapper/thin 1080 4 "behind the end"
	write_text /dev/mapper/thin 960 4 "before it"
	has_text /dev/mapper/thin 964 60 "origin" 0
	dmsetup remove thin origin pool
	check_metadata
}

# A snapshot of a thin device with an origin has that origin if its table says so.
test_snapshot()
{
	new_pool
	new_origin 4096
	message "create_thin 0"
	activate_thin thin 0 $((64 * MiB)) /dev/mapper/origin
	write_text /dev/mapper/thin 0 64 "written"
	create_snapshot thin 0 1
	activate_thin with 1 $((64 * MiB)) /dev/mapper/origin
	write_text /dev/mapper/thin 64 64 "later"
	has_text /dev/mapper/with 0 64 "written"
	has_text /dev/mapper/with 64 4032 "origin" 0
	dmsetup remove with
	activate_thin without 1 $((64 * MiB))
	has_text /dev/mapper/without 0 64 "written"
	has_zeroes /dev/mapper/without 64 4032
	dmsetup remove thin without origin pool
	check_metadata
}

# An origin that cannot be read gives errors, takes no space, and works again later.
test_failing()
{
	new_pool
	failing origin $spare_disk 32768
	write_text /dev/mapper/origin 0 16384 "origin"
	message "create_thin 0"
	activate_thin thin 0 $((64 * MiB)) /dev/mapper/origin
	fails_with origin "0 32768 error"
	fails_with_error "Input/output error" read_range /dev/mapper/thin 0 64
	fails_with_error "Input/output error" write_text /dev/mapper/thin 4 4 "part"
	write_text /dev/mapper/thin 64 64 "a whole block needs no origin"
	works_again origin
	# The block of a copy that has failed may be given back later.
	(($(used_blocks) <= 2)) || fail "$(used_blocks) blocks are in use"
	has_text /dev/mapper/thin 0 64 "origin"
	write_text /dev/mapper/thin 4 4 "part"
	has_text /dev/mapper/thin 8 56 "origin" 0
	dmsetup remove thin origin pool
	check_metadata
}
