# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # see lib.bash
# kernels: uml
#
# The same is done to the driver in C and to this one. differential/main.py has more.

time_limit[random]=600

# Random steps have the same results on both drivers, except for differences with a name.
test_random()
{
	[[ $driver == rust ]] || skip "it is about both drivers"
	# Always the same ones; "make soak" looks for new ones.
	compare_drivers --seed 304 --seeds 11 --steps 40 --seconds 60
}

# compare_drivers ARGUMENT...: see differential/main.py
compare_drivers()
{
	load_driver c
	load_driver rust coexist=1
	modprobe null_blk nr_devices=0
	mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
	PYTHONDONTWRITEBYTECODE=1 python3 "$tests/differential/main.py" "$@"
}
