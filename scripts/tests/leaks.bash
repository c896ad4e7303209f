# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# Memory: after each test in this kernel kmemleak looks for what nobody refers to any more. Here is what
# uses all there is, errors included, in one go.
#
# kernels: test

time_limit[everything]=400

# Everything once: pools that are refused, messages, snapshots, I/O of each kind, failures.
test_everything()
{
	load_driver
	format_pool
	refused dmsetup create wrong --table "0 $data_sectors thin-pool $metadata_disk $data_disk 127 0"
	refused dmsetup create wrong --table "0 $data_sectors thin-pool $metadata_disk $data_disk 128 0 1 nonsense"
	dd if=/dev/urandom of=$metadata_disk bs=4k count=1 oflag=direct conv=notrunc status=none
	refused create_pool
	format_pool
	failing metadata $metadata_disk $metadata_sectors
	pool_metadata=/dev/mapper/metadata
	create_pool error_if_no_space
	refused activate_thin none 5 8192
	create_thin thin 0 $((64 * MiB))
	fio_verified --name=a --filename=/dev/mapper/thin
	create_snapshot thin 0 1
	activate_thin snap 1 $((64 * MiB))
	fio_verified --name=a --filename=/dev/mapper/thin
	discard /dev/mapper/snap 0 8192
	refused message "delete 1"
	refused message "nonsense"
	message reserve_metadata_snap
	message release_metadata_snap
	resume_table
	load_table
	dmsetup remove snap
	message "delete 1"
	fails_with metadata "0 $metadata_sectors error"
	refused write_text /dev/mapper/thin 60000 64 "lost" conv=fsync,notrunc
	works_again metadata
	dmsetup remove thin pool metadata
}
