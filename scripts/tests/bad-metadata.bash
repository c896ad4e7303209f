# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2086,SC2119,SC2120,SC2154 # see lib.bash
#
# Metadata that are damaged: refused, or used as far as they go, but never by an oops.

time_limit[mutations]=900 time_limit[nonsense]=900

# some_pool: metadata with three devices that share blocks, on the disk and in /run/test/metadata.
some_pool()
{
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 8192 "first"
	create_snapshot thin 0 1
	write_text /dev/mapper/thin 1024 2048 "second"
	message "create_thin 2"
	create_snapshot thin 0 3
	write_text /dev/mapper/thin 32768 4 "third"
	dmsetup remove thin pool
	read_range $metadata_disk 0 16384 >/run/test/metadata
}

# restore: the metadata as some_pool made them.
restore()
{
	dd if=/run/test/metadata of=$metadata_disk bs=1M oflag=direct conv=notrunc status=none
}

# damage PLACE LENGTH: random bytes there; both in bytes.
damage()
{
	openssl rand "$2" | dd of=$metadata_disk bs=1M oflag=seek_bytes,sync seek="$1" conv=notrunc,fsync status=none
}

# not_a_pool: it is refused, with a reason.
not_a_pool()
{
	local lines
	lines=$(dmesg | wc -l)
	refused create_pool
	(($(dmesg | wc -l) > lines)) || fail "not a word in the log"
	refused dmsetup info pool
}

# A superblock with another checksum, number, magic, version or block size.
test_superblock()
{
	local place
	some_pool
	# Checksum, block number, magic, version, and what the checksum covers.
	for place in 0 8 32 40 100 360; do
		damage $place 4
		not_a_pool
		restore
	done
	block_sectors=256 not_a_pool
	create_pool
	dmsetup remove pool
	check_metadata
}

# Everything but the superblock, and everything, is zeroes or noise.
test_all_but_superblock()
{
	some_pool
	dd if=/dev/zero of=$metadata_disk bs=4k seek=1 count=4095 oflag=direct conv=notrunc status=none
	not_a_pool
	damage 4096 1000000
	not_a_pool
	damage 0 1000000
	not_a_pool
	# Nothing but zeroes is a new pool.
	dd if=/dev/zero of=$metadata_disk bs=1M count=16 oflag=direct conv=notrunc status=none
	create_pool
	expect_like "status" "$(pool_status)" ' 0/16384 - rw '
	dmsetup remove pool
	check_metadata
}

# A metadata device that ends too early.
test_truncated()
{
	local sectors
	some_pool
	for sectors in 8 16 64 128; do
		dmsetup create short --table "0 $sectors linear $metadata_disk 0"
		(
			pool_metadata=/dev/mapper/short
			if create_pool 2>/dev/null; then
				pool_status || :
				dmsetup remove pool
			fi
		)
		dmsetup remove short
	done
	restore
	create_pool
	dmsetup remove pool
	check_metadata
}

# A pool that needs a check comes up read-only, and says so, until it was checked.
test_needs_check()
{
	modprobe dm-flakey
	failing metadata $metadata_disk $metadata_sectors
	pool_metadata=/dev/mapper/metadata
	new_pool
	create_thin thin 0 $((64 * MiB))
	write_text /dev/mapper/thin 0 1024 "there" conv=fsync,notrunc
	dmsetup remove thin pool
	# The flag, and the checksum that fits.
	python3 - $pool_metadata <<-'END'
		import struct, sys
		def crc32c(data, crc=0xFFFFFFFF):
		    for byte in data:
		        crc ^= byte
		        for _ in range(8):
		            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
		    return crc
		with open(sys.argv[1], "r+b") as device:
		    block = bytearray(device.read(4096))
		    block[4] |= 1
		    struct.pack_into("<I", block, 0, (crc32c(block[4:]) & 0xFFFFFFFF) ^ 160774)
		    device.seek(0)
		    device.write(block)
	END
	create_pool
	expect_like "status" "$(pool_status)" ' ro .* needs_check '
	activate_thin thin 0 $((64 * MiB))
	has_text /dev/mapper/thin 0 1024 "there"
	refused write_text /dev/mapper/thin 8192 64 "new"
	dmsetup remove thin pool
	quietly thin_check --clear-needs-check-flag $pool_metadata
	create_pool
	expect_like "status" "$(pool_status)" ' rw .* - 1024 $'
	dmsetup remove pool metadata
}

# use_it: does with such a pool what can be done, whatever comes of it.
use_it()
{
	if create_pool 2>/dev/null; then
		activate_thin thin 0 $((64 * MiB)) 2>/dev/null &&
			{
				read_range /dev/mapper/thin 0 8192 >/dev/null 2>&1 || :
				write_text /dev/mapper/thin 0 1024 "over it" 2>/dev/null || :
				write_text /dev/mapper/thin 16384 1024 "new" 2>/dev/null || :
				discard /dev/mapper/thin 1024 4096 2>/dev/null || :
			}
		message "create_snap 4 0" 2>/dev/null || :
		message "delete 1" 2>/dev/null || :
		pool_status >/dev/null || :
		if dmsetup info thin >/dev/null 2>&1; then
			dmsetup remove thin
		fi
		message "delete 0" 2>/dev/null || :
		dmsetup remove pool
	fi
}

# Random damage to blocks in use: whatever is done with such a pool, the kernel goes on.
test_mutations()
{
	local n used block
	[[ $driver == rust ]] || skip "the driver in C is known to oops on some of them"
	some_pool
	openssl() { perl -e 'srand($ARGV[0]); print map { chr(int(rand(256))) } 1 .. $ARGV[1]' "$((DM_THIN_RS_SEED + n))" "$2"; }
	RANDOM=$DM_THIN_RS_SEED
	for n in {1..60}; do
		for ((used = RANDOM % 3 + 1; used > 0; used--)); do
			block=$((RANDOM % 24))
			damage $((block * 4096 + RANDOM % 4090)) $((RANDOM % 16 + 1))
		done
		use_it
		restore
	done
}

# nonsense SEED: blocks of some_pool's metadata get contents that make no sense, with checksums that fit.
nonsense()
{
	python3 - $metadata_disk "$1" <<-'END'
		import random, struct, sys

		table = []
		for byte in range(256):
		    for _ in range(8):
		        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
		    table.append(byte)

		def crc32c(data):
		    crc = 0xFFFFFFFF
		    for byte in data:
		        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
		    return crc

		# Of superblock, node, bitmap, and index.
		salts = [160774, 121107, 240779, 160478]
		choice = random.Random(int(sys.argv[2]))
		with open(sys.argv[1], "r+b") as device:
		    blocks = [bytearray(device.read(4096)) for _ in range(256)]
		    number_at = lambda block, place: struct.unpack_from("<Q", block, place)[0]

		    def walk(root, levels):
		        """The nodes of a tree, and of the trees in it if there are more levels."""
		        if root in nodes or root >= len(blocks):
		            return
		        nodes.append(root)
		        block = blocks[root]
		        flags, entries, room = (struct.unpack_from("<I", block, place)[0] for place in (4, 16, 20))
		        if flags == 1 or levels > 1:
		            for entry in range(entries):
		                walk(number_at(block, 32 + 8 * (room + entry)), levels - (flags != 1))

		    nodes = []
		    walk(number_at(blocks[0], 320), 2)
		    for place in 64 + 16, 64 + 24, 192 + 24, 328:
		        walk(number_at(blocks[0], place), 1)
		    kinds = {number: salts[1] for number in nodes}
		    kinds[0] = salts[0]
		    kinds[number_at(blocks[0], 192 + 16)] = salts[3]
		    for _ in range(choice.choice([1, 1, 2, 4])):
		        number = choice.choice(nodes * 3 + list(kinds))
		        block = blocks[number]
		        what = choice.randrange(5)
		        if what == 0:
		            value = choice.choice([0, 1, 2, 3, 4, 8, 24, 126, 251, 253, 336, 508, 0xFFFFFFFF])
		            struct.pack_into("<I", block, choice.choice([4, 16, 20, 24]), value)
		        elif what == 1:
		            value = choice.choice([0, number, choice.choice(nodes), 1 << 40, choice.getrandbits(64)])
		            struct.pack_into("<Q", block, 32 + 8 * 252 + 8 * choice.randrange(8), value)
		        elif what == 2:
		            struct.pack_into("<Q", block, 32 + 8 * choice.randrange(40), choice.getrandbits(20))
		        elif what == 3:
		            block[:] = blocks[choice.choice(nodes)]
		        else:
		            place = choice.randrange(16, 4000)
		            block[place:place + 64] = choice.randbytes(64)
		        struct.pack_into("<Q", block, 8, number)
		        struct.pack_into("<I", block, 0, crc32c(block[4:]) ^ kinds[number])
		        device.seek(number * 4096)
		        device.write(block)
	END
}

# Blocks that pass for what they are, and make no sense: nodes of another size, trees that contain
# themselves, reference counts that are wrong.
test_nonsense()
{
	local n
	[[ $driver == rust ]] || skip "the driver in C hangs, or worse, on some of them"
	some_pool
	for n in {1..30}; do
		nonsense $((DM_THIN_RS_SEED + n))
		use_it
		restore
	done
}
