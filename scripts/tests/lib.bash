# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2119,SC2120,SC2154 # Topics use it, and tests/run has test_name.
#
# What tests in guests are written with. scripts/tests/run reads this, then a topic's file, and calls its
# functions test_*, each in a shell of its own that ends with the first command that fails.
#
# What they need of temporary files is in /run/test, which is empty when a test begins.
#
# Places and lengths in devices are in KiB, sizes of devices in sectors.

declare -A time_limit # [TEST]=SECONDS, where the usual limit is too short

{
	metadata_disk=/dev/disk/by-id/virtio-metadata metadata_sectors=32768
	data_disk=/dev/disk/by-id/virtio-data data_sectors=2097152
	spare_disk=/dev/disk/by-id/virtio-spare spare_sectors=8388608
	MiB=2048 # in sectors
}

# What the next pool is made of; a test sets what it wants to be different.
pool_metadata='' pool_data='' pool_sectors='' block_sectors=128 low_water=0

# --- Saying what is wrong

# fail TEXT: ends the test.
fail()
{
	printf '%s:%s: %s\n' "${BASH_SOURCE[1]##*/}" "${BASH_LINENO[0]}" "$*" >&2
	trap - ERR
	exit 1
}

# skip REASON: ends it, too.
skip()
{
	printf 'skipped: %s\n' "$*"
	trap - ERR
	exit 77
}

# expect WHAT IS SHOULD-BE
expect()
{
	if [[ $2 != "$3" ]]; then
		printf '%s:%s: %s is "%s" and should be "%s"\n' "${BASH_SOURCE[1]##*/}" "${BASH_LINENO[0]}" "$@" >&2
		trap - ERR
		exit 1
	fi
}

# expect_like WHAT IS EXTENDED-REGULAR-EXPRESSION
expect_like()
{
	if ! [[ $2 =~ $3 ]]; then
		printf '%s:%s: %s is "%s" and should be like "%s"\n' "${BASH_SOURCE[1]##*/}" "${BASH_LINENO[0]}" "$@" >&2
		trap - ERR
		exit 1
	fi
}

# refused COMMAND...: it must fail.
refused()
{
	if (
		trap - ERR
		"$@"
	) >/run/test/refused.log 2>&1; then
		fail "this should have failed: $*"
	fi
}

# fails_with_error TEXT COMMAND...: it must fail and say so.
fails_with_error()
{
	local text=$1
	shift
	if (
		trap - ERR
		"$@"
	) >/run/test/error.log 2>&1; then
		fail "this should have failed: $*"
	fi
	grep -q "$text" /run/test/error.log || fail "$*: not '$text' but '$(cat /run/test/error.log)'"
}

# quietly COMMAND...: without what it says, unless it fails.
quietly()
{
	local status=0
	"$@" >/run/test/quietly.log 2>&1 || status=$?
	if ((status)); then
		cat /run/test/quietly.log >&2
		fail "exit status $status: $*"
	fi
}

# eventually SECONDS COMMAND...: it must succeed within that time.
eventually()
{
	local end=$((SECONDS + $1))
	shift
	while ! "$@"; do
		((SECONDS < end)) || fail "not in time: $*"
		sleep 0.1
	done
}

# --- The kernel's log, as far as it is about this test

log()
{
	dmesg | sed -n "/dm-thin-rs: test $test_name\$/,\$p"
}

# log_says TEXT
log_says()
{
	log | grep -qF -- "$1"
}

# count_log TEXT: in how many lines it is.
count_log()
{
	log | grep -cF -- "$1" || :
}

# --- Drivers

module_of()
{
	case $1 in
	rust) echo dm_thin_rs ;;
	c) echo dm_thin_pool ;;
	esac
}

# load_driver [c|rust] [PARAMETER...]: by default the one that is tested.
load_driver()
{
	modprobe "$(module_of "${1:-$driver}")" "${@:2}"
}

# unload_driver [c|rust]
unload_driver()
{
	local module
	module=$(module_of "${1:-${driver}}")
	if (($# == 0)); then
		# Whichever is there.
		for module in dm_thin_rs dm_thin_pool; do
			[[ ! -e /sys/module/$module ]] || rmmod "$module"
		done
	else
		rmmod "$module"
	fi
}

# --- Pools and thin devices

# pool_table [FEATURE...]
pool_table()
{
	local metadata=${pool_metadata:-$metadata_disk} data=${pool_data:-$data_disk}
	printf '0 %s thin-pool %s %s %s %s' "${pool_sectors:-$data_sectors}" "$metadata" "$data" "$block_sectors" "$low_water"
	if (($#)); then
		printf ' %s %s' $# "$*"
	fi
}

# format_pool: the next activation finds no pool and makes one.
format_pool()
{
	dd if=/dev/zero of="${pool_metadata:-$metadata_disk}" bs=64k count=1 oflag=direct conv=notrunc status=none
}

create_pool()
{
	dmsetup create pool --table "$(pool_table "$@")"
}

# new_pool [FEATURE...]: the driver loaded, and an empty pool.
new_pool()
{
	load_driver
	format_pool
	create_pool "$@"
}

# load_table [FEATURE...]: a new table for the pool.
load_table()
{
	dmsetup reload pool --table "$(pool_table "$@")"
	resume_table
}

# resume_table: the one that there is, or was loaded.
resume_table()
{
	dmsetup suspend pool
	dmsetup resume pool
}

message()
{
	dmsetup message pool 0 "$*"
}

# activate_thin NAME ID SECTORS [ORIGIN]
activate_thin()
{
	dmsetup create "$1" --table "0 $3 thin /dev/mapper/pool $2${4:+ $4}"
}

# create_thin NAME ID SECTORS
create_thin()
{
	message "create_thin $2"
	activate_thin "$@"
}

# create_snapshot ORIGIN-NAME ORIGIN-ID ID: of a device that is active.
create_snapshot()
{
	dmsetup suspend "$1"
	message "create_snap $3 $2"
	dmsetup resume "$1"
}

pool_status()
{
	dmsetup status pool
}

# pool_field NUMBER: of the pool's status, where 1 is the transaction.
pool_field()
{
	local fields
	read -ra fields <<<"$(pool_status)"
	printf '%s\n' "${fields[$1 + 2]}"
}

used_blocks()
{
	local field
	field=$(pool_field 3)
	printf '%s\n' "${field%/*}"
}

used_metadata()
{
	local field
	field=$(pool_field 2)
	printf '%s\n' "${field%/*}"
}

# pool_mode: rw, ro, out_of_data_space or Fail. To ask makes the pool commit, and so leave a mode that has no
# reason any more.
pool_mode()
{
	case " $(dmsetup status pool) " in
	*" Fail "*) echo Fail ;;
	*" out_of_data_space "*) echo out_of_data_space ;;
	*" ro "*) echo ro ;;
	*" rw "*) echo rw ;;
	esac
}

mode_is()
{
	[[ $(pool_mode) == "$1" ]]
}

# events: how many the pool has had.
events()
{
	dmsetup info -c --noheadings -o events pool
}

# mapped_sectors NAME: of a thin device.
mapped_sectors()
{
	local fields
	read -ra fields <<<"$(dmsetup status "$1")"
	printf '%s\n' "${fields[3]}"
}

# check_metadata [DEVICE]: the distribution's thin_check finds nothing wrong.
check_metadata()
{
	quietly thin_check "${1:-${pool_metadata:-$metadata_disk}}"
}

# check_metadata_after_fault [DEVICE]: the same, but blocks may have leaked, and a check may be due: it is
# done, with repairs.
check_metadata_after_fault()
{
	quietly thin_check --auto-repair "${1:-${pool_metadata:-$metadata_disk}}"
}

# dump [DEVICE]: the metadata as XML.
dump()
{
	thin_dump "${1:-${pool_metadata:-$metadata_disk}}"
}

# --- Data

# text FROM LENGTH TEXT: KiB that say TEXT and, in each sector, where that is.
text()
{
	perl -e '
		my ($from, $length, $text) = @ARGV;
		for my $sector ($from * 2 .. ($from + $length) * 2 - 1) {
			print pack("A32", "$text") . sprintf("%031d\n", $sector) . ("." x 447) . "\n";
		}' "$@"
}

# write_text DEVICE PLACE LENGTH TEXT [DD-ARGUMENT...]
write_text()
{
	local size=1
	# dd leaves direct I/O for a last block that is shorter than the others.
	while ((size < 1024 && $3 % (size * 2) == 0)); do
		size=$((size * 2))
	done
	text 0 "$3" "$4" |
		dd of="$1" bs=${size}k iflag=fullblock oflag=direct,seek_bytes seek=$(($2 * 1024)) conv=notrunc status=none "${@:5}"
}

# read_range DEVICE PLACE LENGTH
read_range()
{
	dd if="$1" bs=1M iflag=direct,skip_bytes,count_bytes skip=$(($2 * 1024)) count=$(($3 * 1024)) status=none
}

# has_text DEVICE PLACE LENGTH TEXT [BEGIN]: what write_text wrote there, at or (BEGIN) before PLACE.
has_text()
{
	read_range "$1" "$2" "$3" | cmp - <(text $(($2 - ${5:-$2})) "$3" "$4") ||
		fail "$1 from $2 KiB on has not $3 KiB of '$4'"
}

# has_zeroes DEVICE PLACE LENGTH
has_zeroes()
{
	read_range "$1" "$2" "$3" | cmp -n $(($3 * 1024)) - /dev/zero || fail "$1 has no zeroes from $2 KiB on"
}

# discard DEVICE PLACE LENGTH
discard()
{
	blkdiscard -o $(($2 * 1024)) -l $(($3 * 1024)) "$1"
}

# noise SIZE: bytes without a pattern, always the same.
noise()
{
	openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 0 -nosalt -in /dev/zero 2>/dev/null |
		head -c "$1" || :
}

# some_files DIR: of several sizes, together 24 MiB.
some_files()
{
	mkdir -p "$1/deep/down"
	noise 16M | split -a 3 -b 100000 - "$1/file."
	noise 8M >"$1/deep/down/large"
	text 0 64 "$1" >"$1/deep/text"
	ln -s deep/text "$1/link"
}

# sums_of DIR: one line for each file in it.
sums_of()
{
	(cd "$1" && find . -type f ! -path './lost+found/*' -print0 | sort -z | xargs -0r sha256sum)
}

# fio_verified ARGUMENT...: random writes of random sizes that fio verifies.
fio_verified()
{
	quietly fio --output-format=terse --ioengine="${engine:-libaio}" --direct=1 --rw=randwrite --bsrange=4k-128k --iodepth=8 \
		--verify=crc32c --verify_fatal=1 --randseed="$DM_THIN_RS_SEED" --size=16m "$@"
}

# start_io ARGUMENT...: I/O in the background that fio verifies, until stop_io.
start_io()
{
	rm -f /run/test/io-end
	(
		trap - ERR
		set +e
		while [[ ! -e /run/test/io-end ]]; do
			fio --output-format=terse --ioengine=libaio --direct=1 --rw=randwrite --bsrange=4k-64k --iodepth=4 \
				--verify=crc32c --verify_fatal=1 --size=8m "$@" >/run/test/io.log 2>&1 || exit
			echo round >>/run/test/io-rounds
		done
	) &
	io_pid=$!
	: >/run/test/io-rounds
}

io_rounds_beyond()
{
	(($(wc -l </run/test/io-rounds) > $1))
}

# io_goes_on: it was not stopped by anything.
io_goes_on()
{
	local rounds
	kill -0 "$io_pid" 2>/dev/null || fail "the I/O in the background has failed: $(cat /run/test/io.log)"
	rounds=$(wc -l </run/test/io-rounds)
	eventually 60 io_rounds_beyond $((rounds + 1))
}

# stop_io: and it has gone well.
stop_io()
{
	: >/run/test/io-end
	wait "$io_pid" || fail "the I/O in the background has failed: $(cat /run/test/io.log)"
}

# --- Devices that fail

# failing NAME DISK SECTORS: a device that does not fail yet.
failing()
{
	dmsetup create "$1" --table "0 $3 linear $2 0"
	eval "failing_$1='0 $3 linear $2 0'"
}

# fails_with NAME TABLE: which may have several lines.
fails_with()
{
	dmsetup suspend --noflush --nolockfs "$1"
	dmsetup reload "$1" <<<"$2"
	dmsetup resume "$1"
}

# works_again NAME
works_again()
{
	local table=failing_$1
	fails_with "$1" "${!table}"
}
