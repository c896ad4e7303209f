# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# File systems with real files on them.

# use_file_system MKFS CHECK: files, a snapshot, changes in both, and fstrim.
use_file_system()
{
	local before
	new_pool
	create_thin thin 0 $((512 * MiB))
	$1 /dev/mapper/thin
	mkdir -p /mnt/thin /mnt/snap
	mount /dev/mapper/thin /mnt/thin
	some_files /mnt/thin/files
	sums_of /mnt/thin >/run/test/first
	# Suspending freezes the file system, which makes the snapshot a clean one.
	create_snapshot thin 0 1
	activate_thin snap 1 $((512 * MiB))
	mount ${3-} /dev/mapper/snap /mnt/snap
	sums_of /mnt/snap | diff - /run/test/first
	rm /mnt/thin/files/file.aa*
	some_files /mnt/thin/more
	some_files /mnt/snap/others
	sums_of /mnt/thin >/run/test/thin
	sums_of /mnt/snap >/run/test/snap
	umount /mnt/thin /mnt/snap
	dmsetup remove thin snap pool
	check_metadata
	create_pool
	activate_thin thin 0 $((512 * MiB))
	activate_thin snap 1 $((512 * MiB))
	mount /dev/mapper/thin /mnt/thin
	mount ${3-} /dev/mapper/snap /mnt/snap
	sums_of /mnt/thin | diff - /run/test/thin
	sums_of /mnt/snap | diff - /run/test/snap
	rm -r /mnt/snap/others
	sync
	before=$(used_blocks)
	fstrim /mnt/snap
	(($(used_blocks) < before - 300)) || fail "fstrim gave nothing back: $before before, $(used_blocks) after"
	umount /mnt/thin /mnt/snap
	$2 /dev/mapper/thin
	$2 /dev/mapper/snap
	dmsetup remove thin snap pool
	check_metadata
}

# ext4.
test_ext4()
{
	use_file_system "mkfs.ext4 -q -E assume_storage_prezeroed=1" "e2fsck -fn"
}

# xfs.
test_xfs()
{
	use_file_system "mkfs.xfs -q" "xfs_repair -n" "-o nouuid"
}
