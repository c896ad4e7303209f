# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# Writing zeroes without having them in memory: thin devices take that if their data device does. The driver
# in C does not, and gets zeroes as data.
#
# kernels: uml-test

# zero DEVICE PLACE LENGTH: as data that stay allocated.
zero()
{
	blkdiscard -z -o $(($2 * 1024)) -l $(($3 * 1024)) "$1"
}

# Where nothing is mapped, nothing has to be done.
test_unmapped()
{
	new_pool
	create_thin thin 0 $((256 * MiB))
	zero /dev/mapper/thin 0 $((256 * 1024))
	if [[ $driver == rust && $(cat /sys/block/dm-1/queue/write_zeroes_max_bytes) != 0 ]]; then
		expect "mapped sectors" "$(mapped_sectors thin)" 0
	fi
	has_zeroes /dev/mapper/thin 0 1024
	dmsetup remove thin pool
	check_metadata
}

# What is mapped reads as zeroes, and what is beside it stays; a snapshot keeps what it has.
test_mapped()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 4096 "text"
	create_snapshot thin 0 1
	activate_thin snapshot 1 $((64 * MiB))
	zero /dev/mapper/thin 100 1000
	has_text /dev/mapper/thin 0 100 "text"
	has_zeroes /dev/mapper/thin 100 1000
	has_text /dev/mapper/thin 1100 500 "text" 0
	has_text /dev/mapper/snapshot 0 4096 "text"
	zero /dev/mapper/snapshot 0 4096
	has_zeroes /dev/mapper/snapshot 0 4096
	has_text /dev/mapper/thin 1100 500 "text" 0
	dmsetup remove thin snapshot pool
	check_metadata
}

# An external origin does not show where zeroes were written.
test_origin()
{
	new_pool
	create_thin origin 0 $((8 * MiB))
	write_text /dev/mapper/origin 0 8192 "origin"
	message "create_thin 1"
	activate_thin thin 1 $((8 * MiB)) /dev/mapper/origin
	zero /dev/mapper/thin 32 1000
	has_text /dev/mapper/thin 0 32 "origin"
	has_zeroes /dev/mapper/thin 32 1000
	has_text /dev/mapper/thin 1032 1000 "origin" 0
	has_text /dev/mapper/origin 0 8192 "origin"
	dmsetup remove thin origin pool
	check_metadata
}

# In a pool that cannot change its metadata, zeroes go to blocks that are mapped and to none else.
test_read_only()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 1024 "text"
	load_table read_only
	zero /dev/mapper/thin 64 64
	has_text /dev/mapper/thin 0 64 "text"
	has_zeroes /dev/mapper/thin 64 64
	has_text /dev/mapper/thin 128 64 "text" 0
	dmsetup remove thin pool
	check_metadata
}
