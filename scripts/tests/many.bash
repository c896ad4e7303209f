# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# Many of everything.

time_limit[pools]=300

# Eight pools with three devices each, all in use at once.
test_pools()
{
	local n id pids=()
	load_driver
	for n in {0..7}; do
		dmsetup create "metadata$n" --table "0 4096 linear $metadata_disk $((n * 4096))"
		dmsetup create "data$n" --table "0 $((64 * MiB)) linear $data_disk $((n * 64 * MiB))"
		dd if=/dev/zero of="/dev/mapper/metadata$n" bs=64k count=1 oflag=direct status=none
		dmsetup create "pool$n" --table "0 $((64 * MiB)) thin-pool /dev/mapper/metadata$n /dev/mapper/data$n 128 0"
		for id in 0 1 2; do
			dmsetup message "pool$n" 0 "create_thin $id"
			dmsetup create "thin$n.$id" --table "0 $((16 * MiB)) thin /dev/mapper/pool$n $id"
			write_text "/dev/mapper/thin$n.$id" 0 2048 "pool $n device $id" conv=fsync,notrunc &
			pids+=($!)
		done
	done
	for n in "${pids[@]}"; do
		wait $n
	done
	for n in {0..7}; do
		for id in 0 1 2; do
			has_text "/dev/mapper/thin$n.$id" 0 2048 "pool $n device $id"
		done
		dmsetup remove "thin$n.0" "thin$n.1" "thin$n.2" "pool$n"
		check_metadata "/dev/mapper/metadata$n"
		dmsetup remove "metadata$n" "data$n"
	done
}

# Loading and unloading the module many times, with and without having used it.
test_reload_module()
{
	local n
	for n in {1..10}; do
		load_driver
		unload_driver
	done
	for n in {1..5}; do
		load_driver
		format_pool
		create_pool
		create_thin thin 0 8192
		write_text /dev/mapper/thin 0 64 "round $n"
		dmsetup remove thin pool
		unload_driver
	done
}
