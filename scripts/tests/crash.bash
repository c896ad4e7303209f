# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# A crash, at any moment: what was synced is there afterwards, and the metadata are whole.

time_limit[file_system]=300
time_limit[raw]=300

# fragile: a pool of 256 MiB on devices that can be stopped at once.
fragile()
{
	dmsetup create metadata --table "0 16384 linear $metadata_disk 0"
	dmsetup create data --table "0 $((256 * MiB)) linear $data_disk 0"
	pool_metadata=/dev/mapper/metadata
	pool_data=/dev/mapper/data
	pool_sectors=$((256 * MiB))
	new_pool
	create_thin thin 0 $((512 * MiB))
}

# crash: what is on the disks at this moment goes to the spare one, as after a power cut, and becomes the
# devices metadata2 and data2. The pool goes on.
crash()
{
	dmsetup suspend --noflush --nolockfs metadata
	dmsetup suspend --noflush --nolockfs data
	dd if=$metadata_disk of=$spare_disk bs=1M count=8 iflag=direct oflag=direct conv=notrunc status=none
	dd if=$data_disk of=$spare_disk bs=1M count=256 seek=8 iflag=direct oflag=direct conv=notrunc status=none
	dmsetup resume data
	dmsetup resume metadata
	dmsetup create metadata2 --table "0 16384 linear $spare_disk 0"
	dmsetup create data2 --table "0 $((256 * MiB)) linear $spare_disk 16384"
}

# after_crash: the pool that was found there.
after_crash()
{
	check_metadata_after_crash
	dmsetup create pool2 --table "0 $((256 * MiB)) thin-pool /dev/mapper/metadata2 /dev/mapper/data2 128 0"
	dmsetup create thin2 --table "0 $((512 * MiB)) thin /dev/mapper/pool2 0"
}

# A commit is all or nothing: nothing to repair.
check_metadata_after_crash()
{
	quietly thin_check /dev/mapper/metadata2
}

end_crash()
{
	dmsetup remove thin2 pool2
	check_metadata_after_crash
	dmsetup remove metadata2 data2
}

# Files that were synced are whole, whatever was going on; the file system replays its journal and is clean.
test_file_system()
{
	local round n writer
	fragile
	mkfs.ext4 -q -E assume_storage_prezeroed=1 /dev/mapper/thin
	mkdir -p /mnt/thin /mnt/after
	mount /dev/mapper/thin /mnt/thin
	(
		trap - ERR
		for ((n = 0; n < 1000; n++)); do
			text 0 $((n % 40 + 1)) "file $n" >/mnt/thin/file.$n
			sync /mnt/thin/file.$n
			echo $n >>/run/test/synced
			rm -f /mnt/thin/file.$((n - 60))
			[[ ! -e /run/test/end ]] || exit 0
		done
	) &
	writer=$!
	for round in 1 2 3 4; do
		sleep 2
		cp /run/test/synced /run/test/known
		crash
		after_crash
		mount /dev/mapper/thin2 /mnt/after
		for n in $(tail -n 40 /run/test/known); do
			text 0 $((n % 40 + 1)) "file $n" | cmp - /mnt/after/file.$n
		done
		umount /mnt/after
		quietly e2fsck -fn /dev/mapper/thin2
		end_crash
	done
	: >/run/test/end
	wait $writer
	umount /mnt/thin
	dmsetup remove thin pool metadata data
}

# The same on the bare device, with snapshots, discards and deletions going on.
test_raw()
{
	local round n last others
	fragile
	message "create_thin 1"
	(
		trap - ERR
		for ((n = 10; n < 400; n++)); do
			message "create_snap $n 1"
			activate_thin churn $n $((512 * MiB))
			write_text /dev/mapper/churn $((n % 50 * 256)) 256 "churn $n"
			discard /dev/mapper/churn $((n % 50 * 256)) 128
			dmsetup remove churn
			((n < 14)) || message "delete $((n - 4))"
			[[ ! -e /run/test/end ]] || exit 0
		done
	) &
	others=$!
	for round in 1 2 3 4; do
		for ((n = round * 20; n < round * 20 + 20; n++)); do
			write_text /dev/mapper/thin $((n * 100)) 100 "block $n" conv=fsync,notrunc
		done
		last=$n
		crash
		after_crash
		for ((n = 20; n < last; n++)); do
			has_text /dev/mapper/thin2 $((n * 100)) 100 "block $n"
		done
		end_crash
	done
	: >/run/test/end
	wait $others
	if dmsetup info churn >/dev/null 2>&1; then
		dmsetup remove churn
	fi
	dmsetup remove thin pool metadata data
}
