# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# Random I/O, verified by fio.

time_limit[across_a_snapshot]=300
time_limit[discards]=300

# Four jobs write random sizes, before and after a snapshot; the snapshot keeps what there was.
test_across_a_snapshot()
{
	local n sum
	new_pool
	create_thin thin 0 $((64 * MiB))
	fio_verified --name=first --filename=/dev/mapper/thin --numjobs=4 --offset_increment=16m
	sum=$(read_range /dev/mapper/thin 0 65536 | sha256sum)
	create_snapshot thin 0 1
	activate_thin snap 1 $((64 * MiB))
	fio_verified --name=second --filename=/dev/mapper/thin --numjobs=4 --offset_increment=16m
	expect "the snapshot" "$(read_range /dev/mapper/snap 0 65536 | sha256sum)" "$sum"
	fio_verified --name=third --filename=/dev/mapper/snap --numjobs=4 --offset_increment=16m &
	fio_verified --name=fourth --filename=/dev/mapper/thin --numjobs=4 --offset_increment=16m
	wait $!
	dmsetup remove thin snap pool
	check_metadata
}

# Two jobs verify what they write while two others discard, in the same blocks as each other.
test_discards()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	fio_verified --name=written --filename=/dev/mapper/thin --numjobs=2 --offset_increment=16m --size=16m &
	fio --output-format=terse --name=mixed --filename=/dev/mapper/thin --offset=32m --size=32m --ioengine=libaio \
		--iodepth=8 --direct=1 --rw=randtrimwrite --bs=64k --numjobs=2 --io_size=64m >/run/test/trim.log 2>&1 ||
		fail "$(cat /run/test/trim.log)"
	wait $!
	discard /dev/mapper/thin 32768 32768
	has_zeroes /dev/mapper/thin 32768 32768
	(($(used_blocks) <= 512)) || fail "$(used_blocks) blocks are in use"
	dmsetup remove thin pool
	check_metadata
}

# All jobs write to the same blocks, each to its own part of them.
test_same_blocks()
{
	local n
	new_pool
	create_thin thin 0 $((64 * MiB))
	for n in 0 1 2 3; do
		# Every fourth 4 KiB: a "zone" of 4 KiB in each 16.
		fio --output-format=terse --name="j$n" --filename=/dev/mapper/thin --ioengine=libaio --iodepth=8 --direct=1 \
			--rw=write --bs=4k --offset=$((n * 4))k --zonemode=strided --zonesize=4k --zonerange=16k --zoneskip=0 \
			--size=16m --io_size=4m --verify=crc32c --verify_fatal=1 >"/run/test/j$n" 2>&1 &
	done
	for n in 0 1 2 3; do
		wait -n || fail "$(cat /run/test/j*)"
	done
	expect "blocks in use" "$(used_blocks)" 256
	dmsetup remove thin pool
	check_metadata
}
