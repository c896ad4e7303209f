# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# Table lines: what is wrong is refused, with a reason in the log, and nothing is left.

# wrong REASON TARGET ARGUMENT...: a table of 1 GiB that must be refused, with this in the log.
wrong()
{
	local reason=$1 before
	shift
	before=$(count_log "$reason")
	refused dmsetup create wrong --table "0 $data_sectors $*"
	(($(count_log "$reason") == before + 1)) || fail "not '$reason' in the log once: $*"
	refused dmsetup info wrong
}

# Every kind of wrong line for a pool.
test_pool()
{
	local m=$metadata_disk d=$data_disk n
	load_driver
	format_pool
	wrong "Invalid argument count" thin-pool
	wrong "Invalid argument count" thin-pool $m
	wrong "Invalid argument count" thin-pool $m $d 128
	wrong "Error opening metadata block device" thin-pool /dev/nothing $d 128 0
	wrong "Error getting data device" thin-pool $m /dev/nothing 128 0
	wrong "Error setting metadata or data device" thin-pool $d $d 128 0
	for n in 0 64 127 129 130 2097280 4194304 -128 x 128x 99999999999999999999; do
		wrong "Invalid block size" thin-pool $m $d $n 0
	done
	for n in -1 x 1x 99999999999999999999; do
		wrong "Invalid low water mark" thin-pool $m $d 128 $n
	done
	wrong "Invalid number of pool feature arguments" thin-pool $m $d 128 0 x
	wrong "Invalid number of pool feature arguments" thin-pool $m $d 128 0 5 read_only read_only read_only read_only read_only
	wrong "Invalid number of pool feature arguments" thin-pool $m $d 128 0 1
	wrong "Invalid number of pool feature arguments" thin-pool $m $d 128 0 2 read_only
	wrong "Unrecognised pool feature requested" thin-pool $m $d 128 0 1 read_onl
	wrong "Unrecognised pool feature requested" thin-pool $m $d 128 0 2 read_only queue_if_no_space
	# Nothing was formatted by mistake, and a right one works.
	cmp -n 4096 $m /dev/zero
	create_pool
	dmsetup remove pool
}

# What device-mapper itself refuses on behalf of the pool.
test_pool_and_core()
{
	new_pool
	refused dmsetup create --readonly again --table "$(pool_table)"
	dmsetup remove pool
	refused dmsetup create --readonly again --table "$(pool_table)"
	refused dmsetup create mixed <<-END
		0 1048576 $(pool_table | cut -d ' ' -f 3-)
		1048576 8 error
	END
	# Longer than the data device.
	pool_sectors=$((data_sectors + 128)) refused create_pool
	dmsetup info pool 2>/dev/null && dmsetup remove pool
	create_pool
	refused dmsetup reload pool --table "0 $data_sectors linear $data_disk 0"
	dmsetup remove pool
}

# Pools that would take what another has, and tables that cannot follow the one before.
test_pool_conflicts()
{
	new_pool
	refused dmsetup create other --table "$(pool_table)"
	log_says "metadata device already in use by a pool" || fail "no reason in the log"
	dmsetup create spare --table "0 $metadata_sectors linear $spare_disk 0"
	pool_metadata=/dev/mapper/spare refused dmsetup reload pool --table "$(pool_metadata=/dev/mapper/spare pool_table)"
	log_says "different pool cannot replace a pool" || fail "no reason in the log"
	refused dmsetup reload pool --table "$(pool_data=$spare_disk pool_table)"
	log_says "data device already in use by a pool" || fail "no reason in the log"
	refused dmsetup reload pool --table "$(pool_table ignore_discard)"
	log_says "Discard support cannot be disabled once enabled" || fail "no reason in the log"
	# Smaller than what it has: refused when it would take effect.
	pool_sectors=$((data_sectors / 2))
	dmsetup reload pool --table "$(pool_table)"
	dmsetup suspend pool
	refused dmsetup resume pool
	pool_sectors=''
	dmsetup reload pool --table "$(pool_table)"
	dmsetup resume pool
	expect_like "status" "$(pool_status)" ' 0/16384 - rw '
	# Another block size than the metadata have.
	dmsetup remove pool
	block_sectors=256 refused create_pool
	create_pool
	dmsetup remove pool spare
	check_metadata
}

# wrong_thin REASON ARGUMENT...
wrong_thin()
{
	wrong "$1" thin "${@:2}"
}

# Every kind of wrong line for a thin device.
test_thin()
{
	local n
	new_pool
	message "create_thin 0"
	wrong_thin "Invalid argument count"
	wrong_thin "Invalid argument count" /dev/mapper/pool
	wrong_thin "Invalid argument count" /dev/mapper/pool 0 $spare_disk more
	wrong_thin "Error opening pool device" /dev/nothing 0
	for n in -1 x 0x0 16777216 99999999999999999999; do
		wrong_thin "Invalid device id" /dev/mapper/pool $n
	done
	wrong_thin "Couldn't open thin internal device" /dev/mapper/pool 1
	wrong_thin "Couldn't get pool mapped device" $spare_disk 0
	dmsetup create nopool --table "0 8192 linear $spare_disk 0"
	wrong_thin "Couldn't find pool object" /dev/mapper/nopool 0
	wrong_thin "Error setting origin device" /dev/mapper/pool 0 /dev/mapper/pool
	wrong_thin "Error opening origin device" /dev/mapper/pool 0 /dev/nothing
	dmsetup suspend pool
	wrong_thin "Unable to activate thin device while pool is suspended" /dev/mapper/pool 0
	dmsetup resume pool
	activate_thin thin 0 $data_sectors
	dmsetup remove thin nopool pool
}

# Features are taken in every order and case, and more than once.
test_features()
{
	load_driver
	format_pool
	create_pool Error_If_No_Space SKIP_BLOCK_ZEROING error_if_no_space
	expect_like "table" "$(dmsetup table pool)" ' 2 skip_block_zeroing error_if_no_space $'
	dmsetup remove pool
	create_pool no_discard_passdown ignore_discard
	expect_like "table" "$(dmsetup table pool)" ' 2 ignore_discard no_discard_passdown $'
	dmsetup remove pool
	# What follows the features is nobody's.
	dmsetup create pool --table "$(pool_table) 0 more"
	dmsetup remove pool
}
