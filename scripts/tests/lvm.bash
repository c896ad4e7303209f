# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# lvm2 as administrators use it, from the distribution. It finds its target by
# name and asks nobody which driver that is.

time_limit[dmeventd]=300
time_limit[pvmove]=300
time_limit[udev]=300

# The disks by the names that lvm2 knows them by.
first_pv()
{
	readlink -f $data_disk
}
second_pv()
{
	readlink -f $spare_disk
}

# new_vg [SETTING=VALUE...]: a volume group `vg` of the disks for data and for
# spare, 1 and 4 GiB, and the driver loaded.
new_vg()
{
	local setting
	load_driver
	# What the library says about the pool is about this one.
	pool_status() { dmsetup status vg-pool-tpool; }
	mkdir -p /run/test/lvm
	export LVM_SYSTEM_DIR=/run/test/lvm LVM_SUPPRESS_FD_WARNINGS=1
	cp "$tests/lvm.conf" /run/test/lvm/lvm.conf
	for setting in "$@" 'global/thin_check_executable="/run/test/lvm/thin_check"'; do
		sed -i "\\|^${setting%%=*}=|d" /run/test/lvm/lvm.conf
		echo "$setting" >>/run/test/lvm/lvm.conf
	done
	# Says that it was called, and with what result.
	cat >/run/test/lvm/thin_check <<-'END'
		#!/bin/sh
		thin_check "$@"
		status=$?
		[ "$1" = -V ] || echo $status >>/run/test/lvm/checks
		exit $status
	END
	chmod +x /run/test/lvm/thin_check
	: >/run/test/lvm/checks
	# A test that failed may have left its names; without udev they stay.
	rm -rf /dev/vg
	wipefs -qa $data_disk $spare_disk
	quietly vgcreate -s 1m vg "$(first_pv)" "$(second_pv)"
}

# new_lvm_pool SIZE: vg/pool, its data and metadata on the first disk.
new_lvm_pool()
{
	quietly lvcreate -L "$1" --poolmetadatasize 4m -T vg/pool "$(first_pv)"
}

# new_lvm_thin NAME SIZE
new_lvm_thin()
{
	quietly lvcreate -V "$2" -n "$1" -T vg/pool
}

# lv_says LV FIELD: as lvs has it.
lv_says()
{
	lvs --noheadings -o "$2" "$1" | tr -d ' '
}

# right_percentage: what lvs says of the pool is what the driver has said.
right_percentage()
{
	local said
	said=$(lv_says vg/pool data_percent)
	pool_status | awk -v said="$said" '{
		split($6, blocks, "/")
		off = said - 100 * blocks[1] / blocks[2]
		exit !(off < 0.02 && off > -0.02)
	}' || fail "lvs says $said % of the pool are used, the driver: $(pool_status)"
}

# checked: lvm2 has run thin_check since the last call, which was content.
checked()
{
	[ -s /run/test/lvm/checks ] || fail "lvm2 has not run thin_check"
	! grep -qv '^0$' /run/test/lvm/checks || fail "thin_check was not content"
	: >/run/test/lvm/checks
}

# remove_vg: thin_check comes with the deactivation of the pool.
remove_vg()
{
	quietly vgchange -an vg
	! grep -qv '^0$' /run/test/lvm/checks || fail "thin_check was not content"
	quietly vgremove -ff vg
	quietly pvremove "$(first_pv)" "$(second_pv)"
	expect "mapped devices left" "$(dmsetup ls)" "No devices found"
}

# lvcreate -T, snapshots of a mounted file system, snapshots of snapshots,
# vgchange, lvremove in any order.
test_snapshots()
{
	new_vg
	new_lvm_pool 192m
	new_lvm_thin thin 512m
	right_percentage
	mkfs.ext4 -q -E assume_storage_prezeroed=1 /dev/vg/thin
	mkdir -p /mnt/thin /mnt/snap
	mount /dev/vg/thin /mnt/thin
	some_files /mnt/thin/files
	sums_of /mnt/thin >/run/test/first
	quietly lvcreate -s -kn -n snap vg/thin
	rm /mnt/thin/files/file.aa*
	sums_of /mnt/thin >/run/test/second
	mount /dev/vg/snap /mnt/snap
	sums_of /mnt/snap | diff - /run/test/first
	echo more >/mnt/snap/files/more
	sums_of /mnt/snap >/run/test/third
	quietly lvcreate -s -kn -n snap2 vg/snap
	quietly lvcreate -s -kn -n snap3 vg/snap2
	echo even more >/mnt/snap/files/more
	umount /mnt/thin /mnt/snap
	right_percentage

	quietly vgchange -an vg
	checked
	quietly vgchange -ay vg
	checked
	local lv
	for lv in thin:second snap2:third snap3:third; do
		mount "/dev/vg/${lv%:*}" /mnt/snap
		sums_of /mnt/snap | diff - "/run/test/${lv#*:}"
		umount /mnt/snap
		e2fsck -fn "/dev/vg/${lv%:*}"
	done
	quietly lvremove -y vg/thin
	quietly lvremove -y vg/snap2
	quietly lvremove -y vg/snap
	e2fsck -fn /dev/vg/snap3
	mount /dev/vg/snap3 /mnt/snap
	sums_of /mnt/snap | diff - /run/test/third
	umount /mnt/snap
	quietly lvremove -y vg/snap3
	expect "percentage" "$(lv_says vg/pool data_percent)" 0.00
	quietly lvremove -y vg/pool
	remove_vg
}

# A read-only logical volume as the origin of thin snapshots.
test_external_origin()
{
	new_vg
	new_lvm_pool 192m
	quietly lvcreate -L 32m -Wn -n thick vg
	write_text /dev/vg/thick 0 $((32 * 1024)) "the origin"
	quietly lvchange -an vg/thick
	quietly lvchange -pr vg/thick
	quietly lvcreate -s --thinpool vg/pool -kn -n one vg/thick
	quietly lvcreate -s --thinpool vg/pool -kn -n two vg/thick
	expect "used blocks" "$(used_blocks)" 0
	has_text /dev/vg/one 0 $((32 * 1024)) "the origin"
	write_text /dev/vg/one 1024 4 "in one"
	write_text /dev/vg/one 2048 64 "in one"
	quietly lvcreate -s -kn -n three vg/one
	write_text /dev/vg/three 4096 64 "in three"
	expect "used blocks" "$(used_blocks)" 3
	# Larger than the origin.
	quietly lvextend -L 64m vg/two
	write_text /dev/vg/two $((33 * 1024)) 4 "behind the end"
	quietly vgchange -an vg
	quietly vgchange -ay vg
	has_text /dev/vg/one 1024 4 "in one"
	has_text /dev/vg/one 1028 1020 "the origin" 0
	has_text /dev/vg/one 2048 64 "in one"
	has_text /dev/vg/one 4096 64 "the origin" 0
	has_text /dev/vg/three 1024 4 "in one"
	has_text /dev/vg/three 4096 64 "in three"
	has_text /dev/vg/two 0 $((32 * 1024)) "the origin"
	has_zeroes /dev/vg/two $((32 * 1024)) 1024
	has_text /dev/vg/two $((33 * 1024)) 4 "behind the end"
	quietly lvremove -y vg/one
	quietly lvremove -y vg/two vg/three
	expect "percentage" "$(lv_says vg/pool data_percent)" 0.00
	quietly lvchange -ay vg/thick
	has_text /dev/vg/thick 0 $((32 * 1024)) "the origin"
	remove_vg
}

# busy_ext4: /dev/vg/thin mounted, a file in it written and verified.
busy_ext4() {
	mkfs.ext4 -q -E assume_storage_prezeroed=1 /dev/vg/thin
	mkdir -p /mnt/thin
	mount /dev/vg/thin /mnt/thin
	start_io --name=busy --filename=/mnt/thin/busy
}

# end_busy_ext4: that went well, and the file system is clean.
end_busy_ext4() {
	stop_io
	umount /mnt/thin
	e2fsck -fn /dev/vg/thin
}

# grow_ext4 DIR BYTES: what resize2fs asks the kernel for, which needs a device that can be written to while it is
# mounted: not all kernels allow that.
grow_ext4()
{
	python3 - "$@" <<-'END'
		import fcntl, os, struct, sys
		directory, size = sys.argv[1], int(sys.argv[2])
		block = os.statvfs(directory).f_frsize
		EXT4_IOC_RESIZE_FS = 0x40086610
		fcntl.ioctl(os.open(directory, os.O_RDONLY), EXT4_IOC_RESIZE_FS, struct.pack("Q", size // block))
	END
}

# lvextend of the pool's data, and of a volume with its file system, which are
# being written to.
test_extend_data()
{
	local size
	new_vg
	new_lvm_pool 64m
	new_lvm_thin thin 128m
	busy_ext4
	quietly lvextend -L 192m vg/pool
	expect_like "pool's status" "$(pool_status)" " [0-9]+/3072 "
	quietly lvextend -L 256m vg/thin
	grow_ext4 /mnt/thin $((256 << 20))
	size=$(stat -fc '%b' /mnt/thin)
	[ "$size" -gt $((200 * 1024)) ] || [ $((size * $(stat -fc '%S' /mnt/thin))) -gt $((200 << 20)) ] ||
		fail "the file system has $size blocks"
	some_files /mnt/thin/files
	noise 80M >/mnt/thin/more
	sums_of /mnt/thin/files >/run/test/files
	end_busy_ext4
	[ "$(used_blocks)" -gt 1024 ] || fail "the new space is not in use"
	right_percentage
	quietly vgchange -an vg
	quietly vgchange -ay vg
	checked
	mount /dev/vg/thin /mnt/thin
	sums_of /mnt/thin/files | diff - /run/test/files
	noise 80M | cmp - /mnt/thin/more
	umount /mnt/thin
	remove_vg
}

# lvextend of the pool's metadata, under a file system that is being written to.
test_extend_metadata()
{
	new_vg
	new_lvm_pool 128m
	new_lvm_thin thin 128m
	expect_like "pool's status" "$(pool_status)" " [0-9]+/1024 "
	busy_ext4
	quietly lvextend --poolmetadatasize 12m vg/pool
	expect_like "pool's status" "$(pool_status)" " [0-9]+/3072 "
	some_files /mnt/thin/files
	sums_of /mnt/thin/files >/run/test/files
	quietly lvextend --poolmetadatasize +4m -L +64m vg/pool
	expect_like "pool's status" "$(pool_status)" " [0-9]+/4096 [0-9]+/3072 "
	end_busy_ext4
	quietly vgchange -an vg
	quietly vgchange -ay vg
	checked
	mount /dev/vg/thin /mnt/thin
	sums_of /mnt/thin/files | diff - /run/test/files
	umount /mnt/thin
	remove_vg
}

# pool_shows EXTENDED-REGULAR-EXPRESSION: in its status.
pool_shows()
{
	[[ $(pool_status) =~ $1 ]]
}

pool_has()
{
	expect_like "pool's status" "$(pool_status)" "$1"
}

# dmeventd extends a pool, again and again, that somebody writes to.
test_dmeventd()
{
	new_vg activation/monitoring=1 \
		activation/thin_pool_autoextend_threshold=70 \
		activation/thin_pool_autoextend_percent=50
	new_lvm_pool 64m
	new_lvm_thin thin 256m
	expect "monitoring" "$(lv_says vg/pool seg_monitor)" monitored
	# What lvm2 has asked for: an event when 30 % are left.
	expect_like "pool's table" "$(dmsetup table vg-pool-tpool)" " 128 30[78] "
	write_text /dev/vg/thin 0 $((40 * 1024)) "before the threshold"
	pool_has " 640/1024 "
	write_text /dev/vg/thin $((40 * 1024)) $((8 * 1024)) "beyond it"
	eventually 60 pool_shows " 768/1536 "
	write_text /dev/vg/thin $((48 * 1024)) $((32 * 1024)) "and once more"
	eventually 60 pool_shows " 1280/2304 "
	right_percentage
	has_text /dev/vg/thin 0 $((40 * 1024)) "before the threshold"
	has_text /dev/vg/thin $((40 * 1024)) $((8 * 1024)) "beyond it"
	has_text /dev/vg/thin $((48 * 1024)) $((32 * 1024)) "and once more"
	remove_vg
}

# lvm2 refuses a pool whose metadata are damaged; lvconvert --repair makes it
# whole, with the distribution's thin_repair.
test_repair()
{
	repair_a_pool
}

# The same with our tools in place of the distribution's.
test_repair_with_our_tools()
{
	local bin tool settings=()
	bin=$(realpath "$tests/../../build/bin")
	[ -x "$bin/thin_check" ] || skip "the tools have not been built: make tools builds them"
	for tool in thin_dump thin_repair thin_restore; do
		settings+=("global/${tool}_executable=\"$bin/$tool\"")
	done
	PATH=$bin:$PATH repair_a_pool "${settings[@]}"
}

# repair_a_pool [SETTING=VALUE...]
repair_a_pool()
{
	local metadata
	new_vg "$@"
	new_lvm_pool 128m
	new_lvm_thin thin 128m
	metadata=$(dmsetup table vg-pool_tmeta)
	write_text /dev/vg/thin 0 8192 "to be saved"
	quietly lvcreate -s -kn -n snap vg/thin
	write_text /dev/vg/thin 0 1024 "newer"
	quietly vgchange -an vg
	checked
	# lvm2 itself lets nobody write there.
	dmsetup create spoiled --table "$metadata"
	spoil_space_map /dev/mapper/spoiled
	dmsetup remove spoiled
	refused lvchange -ay vg/thin
	[ -s /run/test/lvm/checks ] || fail "lvm2 has not run thin_check"
	: >/run/test/lvm/checks
	quietly lvconvert -y --repair vg/pool
	quietly lvchange -ay vg/thin vg/snap
	checked
	has_text /dev/vg/thin 0 1024 "newer"
	has_text /dev/vg/thin 1024 7168 "to be saved" 0
	has_text /dev/vg/snap 0 8192 "to be saved"
	expect "used blocks" "$(used_blocks)" 144
	write_text /dev/vg/snap 0 1024 "after the repair"
	has_text /dev/vg/snap 0 1024 "after the repair"
	remove_vg
}

# spoil_space_map DEVICE: a block of the space map of data.
spoil_space_map()
{
	python3 - "$1" <<-'END'
		import struct, sys
		with open(sys.argv[1], "r+b") as device:
		    superblock = device.read(4096)
		    # The root of the space map of data: blocks, allocated, bitmap root.
		    number = struct.unpack_from("<3Q", superblock, 64)[2]
		    device.seek(4096 * number)
		    device.write(bytes(4096))
	END
}

# A logical volume becomes a thin one, fully mapped, with a pool of its own.
test_thick_to_thin()
{
	new_vg
	quietly lvcreate -L 32m -Wn -n thick vg
	write_text /dev/vg/thick 0 $((32 * 1024)) "thick"
	quietly lvconvert -y --type thin vg/thick
	has_text /dev/vg/thick 0 $((32 * 1024)) "thick"
	quietly lvcreate -s -kn -n snap vg/thick
	quietly lvextend -L +32m vg/thick_tpool0
	write_text /dev/vg/thick 1024 1024 "thin"
	has_text /dev/vg/snap 0 $((32 * 1024)) "thick"
	quietly vgchange -an vg
	quietly vgchange -ay vg
	checked
	has_text /dev/vg/thick 1024 1024 "thin"
	has_text /dev/vg/thick 2048 $((30 * 1024)) "thick" 0
	has_text /dev/vg/snap 0 $((32 * 1024)) "thick"
	remove_vg
}

# A logical volume becomes the read-only origin of a thin one in its place.
test_thick_to_origin()
{
	new_vg
	new_lvm_pool 64m
	quietly lvcreate -L 32m -Wn -n thick vg
	write_text /dev/vg/thick 0 $((32 * 1024)) "thick"
	quietly lvconvert -y --type thin --thinpool vg/pool --originname origin vg/thick
	expect "used blocks" "$(used_blocks)" 0
	write_text /dev/vg/thick 1024 1024 "thin"
	has_text /dev/vg/thick 1024 1024 "thin"
	has_text /dev/vg/thick 2048 $((30 * 1024)) "thick" 0
	expect "used blocks" "$(used_blocks)" 16
	quietly lvchange -ay vg/origin
	has_text /dev/vg/origin 0 $((32 * 1024)) "thick"
	remove_vg
}

# lvconvert --merge: at once, and when the origin is activated the next time.
test_merge()
{
	new_vg
	new_lvm_pool 128m
	new_lvm_thin thin 64m
	write_text /dev/vg/thin 0 8192 "as it was"
	quietly lvcreate -s -n snap vg/thin
	write_text /dev/vg/thin 1024 2048 "a mistake"
	quietly lvchange -an vg/thin
	quietly lvconvert --merge vg/snap
	quietly lvchange -ay vg/thin
	has_text /dev/vg/thin 0 8192 "as it was"
	refused lvs vg/snap
	expect "used blocks" "$(used_blocks)" 128

	quietly lvcreate -s -n snap vg/thin
	write_text /dev/vg/thin 1024 2048 "another mistake"
	exec 7</dev/vg/thin
	quietly lvconvert --merge vg/snap
	has_text /dev/vg/thin 1024 2048 "another mistake"
	exec 7<&-
	quietly lvchange -an vg/thin
	quietly lvchange -ay vg/thin
	has_text /dev/vg/thin 0 8192 "as it was"
	refused lvs vg/snap
	expect "used blocks" "$(used_blocks)" 128
	remove_vg
}

# lvchange --discards, --zero, --errorwhenfull and -p reach the driver.
test_lvchange()
{
	new_vg
	new_lvm_pool 64m
	new_lvm_thin thin 64m
	expect_like "table" "$(dmsetup table vg-pool-tpool)" " 128 [0-9]+ 0 $"
	write_text /dev/vg/thin 0 4096 "to be discarded"
	quietly lvchange --discards nopassdown vg/pool
	expect_like "table" "$(dmsetup table vg-pool-tpool)" " 1 no_discard_passdown $"
	pool_has " rw no_discard_passdown "
	discard /dev/vg/thin 0 1024
	has_zeroes /dev/vg/thin 0 1024
	expect "used blocks" "$(used_blocks)" 48
	quietly lvchange -Zn vg/pool
	expect_like "table" "$(dmsetup table vg-pool-tpool)" \
		" 2 skip_block_zeroing no_discard_passdown $"
	quietly lvchange --errorwhenfull y vg/pool
	pool_has " error_if_no_space "
	quietly lvchange -an vg/thin vg/pool
	quietly lvchange --discards ignore vg/pool
	quietly lvchange -Zy vg/pool
	quietly lvchange -ay vg/thin
	pool_has " rw ignore_discard error_if_no_space "
	expect_like "table" "$(dmsetup table vg-pool-tpool)" \
		" 2 ignore_discard error_if_no_space $"
	refused discard /dev/vg/thin 1024 1024
	has_text /dev/vg/thin 1024 3072 "to be discarded" 0
	quietly lvchange -pr vg/thin
	refused write_text /dev/vg/thin 0 4 "read only"
	quietly lvchange -prw vg/thin
	write_text /dev/vg/thin 0 4 "writable"
	remove_vg
}

# pvmove of the data and metadata of a pool in use, from one disk to the other.
test_pvmove()
{
	new_vg
	new_lvm_pool 96m
	new_lvm_thin thin 128m
	busy_ext4
	some_files /mnt/thin/files
	sums_of /mnt/thin/files >/run/test/files
	quietly pvmove -i 1 -n pool_tdata "$(first_pv)" "$(second_pv)"
	quietly pvmove -i 1 "$(first_pv)" "$(second_pv)"
	expect "extents left on the first disk" \
		"$(pvs --noheadings -o pv_used --units s --nosuffix "$(first_pv)" | tr -d ' ')" 0
	sums_of /mnt/thin/files | diff - /run/test/files
	end_busy_ext4
	quietly vgchange -an vg
	# Nothing of it is on the first disk.
	dd if=/dev/zero of=$data_disk bs=1M seek=1 count=256 oflag=direct status=none
	quietly vgchange -ay vg
	checked
	mount /dev/vg/thin /mnt/thin
	sums_of /mnt/thin/files | diff - /run/test/files
	umount /mnt/thin
	remove_vg
}

link_leads_to()
{
	[ "$(readlink -f "$1")" = "$(readlink -f "$2")" ] && [ -b "$1" ]
}

# With udev, its rules and lvm2's: the names appear and go, and nobody waits for
# an answer that does not come.
test_udev()
{
	local label
	/usr/lib/systemd/systemd-udevd --daemon
	unset DM_DISABLE_UDEV
	udevadm trigger --subsystem-match=block
	udevadm settle
	new_vg activation/udev_sync=1 activation/udev_rules=1 \
		devices/obtain_device_list_from_udev=1
	new_lvm_pool 128m
	new_lvm_thin thin 128m
	mkfs.ext4 -q -L thinly -E assume_storage_prezeroed=1 /dev/vg/thin
	eventually 30 link_leads_to /dev/disk/by-label/thinly /dev/vg/thin
	link_leads_to /dev/disk/by-id/dm-name-vg-thin /dev/vg/thin
	quietly lvcreate -s -kn -n snap vg/thin
	mkdir -p /mnt/thin
	mount LABEL=thinly /mnt/thin
	umount /mnt/thin
	# The pool itself is nobody's business.
	[ ! -e /dev/vg/pool ] || fail "the pool has a name in /dev/vg"
	quietly vgchange -an vg
	[ ! -e /dev/vg/thin ] || fail "/dev/vg/thin is still there"
	quietly vgchange -ay vg
	link_leads_to /dev/mapper/vg-thin /dev/vg/thin
	quietly lvremove -y vg/thin vg/snap
	expect_like "cookies" "$(dmsetup udevcookies)" "^Cookie +Semid[^0-9]*$"
	remove_vg
	udevadm control --exit
}
