# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# This driver and the one in C use the same pools.

time_limit[ours_first]=300
time_limit[theirs_first]=300
time_limit[side_by_side]=300

# generation NUMBER: checks what those before have left, and changes it: thin device 0 is written to all the
# time; each generation takes a snapshot, and every third one deletes an old one.
generation()
{
	local n
	activate_thin thin 0 $((64 * MiB))
	for ((n = 1; n < $1; n++)); do
		has_text /dev/mapper/thin $((n * 256)) 256 "generation $n"
		if ((n % 3)) || (($1 <= n + 3)); then
			activate_thin snap $n $((64 * MiB))
			has_text /dev/mapper/snap $((n * 256)) 256 "generation $n"
			has_zeroes /dev/mapper/snap $(((n + 1) * 256)) 256
			dmsetup remove snap
		fi
	done
	write_text /dev/mapper/thin $(($1 * 256)) 256 "generation $1"
	create_snapshot thin 0 $1
	if (($1 > 3 && $1 % 3 == 0)); then
		message "delete $(($1 - 3))"
	fi
	write_text /dev/mapper/thin 0 100 "now $1"
	discard /dev/mapper/thin 0 64
	has_zeroes /dev/mapper/thin 0 64
	dmsetup remove thin
}

# in_turns DRIVER...: a pool through as many generations.
in_turns()
{
	local n=0 which
	[[ $driver == rust ]] || skip "there is only one driver"
	format_pool
	for which; do
		n=$((n + 1))
		load_driver $which
		create_pool
		((n > 1)) || message "create_thin 0"
		expect "transaction" "$(pool_field 1)" $((n - 1))
		generation $n
		message "set_transaction_id $((n - 1)) $n"
		dmsetup remove pool
		unload_driver $which
		check_metadata
	done
}

# A pool that this driver has made.
test_ours_first()
{
	in_turns rust c rust c c rust rust c rust
}

# A pool that the one in C has made.
test_theirs_first()
{
	in_turns c rust c rust rust c c rust c
}

# Both loaded, each with a pool of its own, and data that go from one to the other.
test_side_by_side()
{
	[[ $driver == rust ]] || skip "there is only one driver"
	load_driver c
	load_driver rust coexist=1
	expect_like "targets" "$(dmsetup targets)" 'thin-pool-rs +v1.24.0'
	expect_like "targets" "$(dmsetup targets)" 'thin-rs +v1.24.0'
	dmsetup create their_metadata --table "0 16384 linear $metadata_disk 0"
	dmsetup create our_metadata --table "0 16384 linear $metadata_disk 16384"
	dmsetup create their_data --table "0 $((512 * MiB)) linear $data_disk 0"
	dmsetup create our_data --table "0 $((512 * MiB)) linear $data_disk $((512 * MiB))"
	dd if=/dev/zero of=/dev/mapper/their_metadata bs=64k count=1 oflag=direct status=none
	dd if=/dev/zero of=/dev/mapper/our_metadata bs=64k count=1 oflag=direct status=none
	dmsetup create theirs --table "0 $((512 * MiB)) thin-pool /dev/mapper/their_metadata /dev/mapper/their_data 128 0"
	dmsetup create ours --table "0 $((512 * MiB)) thin-pool-rs /dev/mapper/our_metadata /dev/mapper/our_data 128 0"
	dmsetup message theirs 0 "create_thin 0"
	dmsetup message ours 0 "create_thin 0"
	dmsetup create their_thin --table "0 $((64 * MiB)) thin /dev/mapper/theirs 0"
	dmsetup create our_thin --table "0 $((64 * MiB)) thin-rs /dev/mapper/ours 0"
	refused dmsetup create wrong --table "0 $((64 * MiB)) thin /dev/mapper/ours 0"
	refused dmsetup create wrong --table "0 $((64 * MiB)) thin-rs /dev/mapper/theirs 0"
	fio_verified --name=theirs --filename=/dev/mapper/their_thin &
	fio_verified --name=ours --filename=/dev/mapper/our_thin
	wait $!
	dd if=/dev/mapper/their_thin of=/dev/mapper/our_thin bs=64k iflag=direct oflag=direct count=256 status=none
	cmp -n $((16 << 20)) /dev/mapper/their_thin /dev/mapper/our_thin
	dmsetup remove their_thin our_thin theirs ours
	check_metadata /dev/mapper/their_metadata
	check_metadata /dev/mapper/our_metadata
	dmsetup remove their_metadata our_metadata their_data our_data
}

# Loading the second driver without coexist=1 is refused, with a line that says why.
test_names_taken()
{
	[[ $driver == rust ]] || skip "there is only one driver"
	load_driver c
	refused load_driver rust
	log_says "coexist=1" || fail "the log does not say what to do"
	unload_driver c
	load_driver rust
	refused load_driver c
}
