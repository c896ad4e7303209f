// SPDX-License-Identifier: GPL-2.0

//! The records on the metadata device.
//!
//! Everything is little-endian and lies in blocks of 4096 bytes. The driver leaves most of this to the
//! kernel's dm-persistent-data and needs the superblock and the values of the trees only; the tools
//! in userspace need all.
//!
//! Reading a record fails never: fields that make no sense are for whoever asked for it to refuse.
//!
//! C: `drivers/md/dm-thin-metadata.c`, `drivers/md/persistent-data/`

use super::units::{
    DataBlock,
    MetadataBlock,
    SECTOR_SIZE, //
};

/// Bytes in a metadata block.
pub const BLOCK_BYTES: usize = 4096;

/// Sectors in a metadata block.
pub const BLOCK_SECTORS: u32 = BLOCK_BYTES as u32 / SECTOR_SIZE as u32;

/// The most blocks that metadata can have: as many as the index block of their space map has room for.
pub const MAX_METADATA_BLOCKS: u64 = INDEX_ENTRIES as u64 * BITMAP_ENTRIES as u64;

/// The last time that fits into a mapping.
pub const MAX_TIME: u32 = (1 << 24) - 1;

/// The last data block that fits into a mapping.
pub const MAX_DATA_BLOCK: DataBlock = DataBlock((1 << 40) - 1);

/// A metadata block in memory.
pub type Block = [u8; BLOCK_BYTES];

/// The bytes at `at`. Zeroes if there are none: all callers have room for what they ask for.
fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    match from.get(at..).and_then(<[u8]>::first_chunk) {
        Some(found) => *found,
        None => [0; N],
    }
}

/// The opposite of [`bytes`].
fn set_bytes<const N: usize>(to: &mut [u8], at: usize, bytes: [u8; N]) {
    if let Some(place) = to.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = bytes;
    }
}

fn u32_at(from: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(from, at))
}

fn u64_at(from: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(from, at))
}

/// What a block of the metadata is. Each kind has its own checksums, but the place of checksum and
/// location is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockKind {
    /// The first block, or the copy of it that a metadata snapshot is.
    Superblock,
    /// A node of a tree.
    Node,
    /// Reference counts of a space map.
    Bitmap,
    /// Where the bitmaps of the metadata's own space map are.
    Index,
}

/// What is wrong with a block as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// The checksum is another one.
    Checksum {
        /// In the block.
        found: u32,
        /// Of what is in the block.
        expected: u32,
    },
    /// It says that it belongs elsewhere.
    Location {
        /// Where it says that it belongs.
        found: MetadataBlock,
        /// Where it was read.
        expected: MetadataBlock,
    },
}

/// Where the location is in a block of any kind.
const LOCATION: usize = 8;

impl BlockKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Superblock, Self::Node, Self::Bitmap, Self::Index];

    /// What makes checksums of this kind different from those of others.
    pub const fn salt(self) -> u32 {
        match self {
            Self::Superblock => 160_774,
            Self::Node => 121_107,
            Self::Bitmap => 240_779,
            Self::Index => 160_478,
        }
    }

    /// The checksum that a block of this kind should have, given what `crc32c` makes of bytes: the
    /// CRC-32C of iSCSI, that is, of "123456789" it is 0xe3069283.
    pub fn checksum(self, block: &Block, crc32c: impl FnOnce(&[u8]) -> u32) -> u32 {
        let covered = block.get(size_of::<u32>()..).unwrap_or_default();
        // The kernel leaves the inversion at the end of the CRC out.
        !crc32c(covered) ^ self.salt()
    }

    /// Checks that a block is of this kind, whole, and was read where it belongs.
    pub fn check(
        self,
        block: &Block,
        location: MetadataBlock,
        crc32c: impl FnOnce(&[u8]) -> u32,
    ) -> Result<(), BlockError> {
        let expected = self.checksum(block, crc32c);
        let found = stored_checksum(block);
        if found != expected {
            return Err(BlockError::Checksum { found, expected });
        }
        let found = stored_location(block);
        if found != location {
            let expected = location;
            return Err(BlockError::Location { found, expected });
        }
        Ok(())
    }

    /// Makes a block ready to be written to `location`.
    pub fn seal(
        self,
        block: &mut Block,
        location: MetadataBlock,
        crc32c: impl FnOnce(&[u8]) -> u32,
    ) {
        set_bytes(block, LOCATION, location.0.to_le_bytes());
        let checksum = self.checksum(block, crc32c);
        set_bytes(block, 0, checksum.to_le_bytes());
    }
}

/// The checksum that a block has, whatever its kind.
pub fn stored_checksum(block: &Block) -> u32 {
    u32_at(block, 0)
}

/// Where a block says that it belongs, whatever its kind.
pub fn stored_location(block: &Block) -> MetadataBlock {
    MetadataBlock(u64_at(block, LOCATION))
}

/// The block that a pool begins with.
///
/// Checksum and location are not part of this: see [`BlockKind::seal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// [`Superblock::NEEDS_CHECK`] or nothing.
    pub flags: u32,
    /// Nobody uses it.
    pub uuid: [u8; 16],
    /// [`Superblock::MAGIC`].
    pub magic: u64,
    /// The kernel writes [`Superblock::VERSION`], some tools 1, and nobody minds.
    pub version: u32,
    /// How many snapshots were taken.
    pub time: u32,
    /// For userspace, who sees if somebody else has changed the pool.
    pub transaction_id: u64,
    /// The block of the metadata snapshot, 0 if there is none.
    pub metadata_snapshot: MetadataBlock,
    /// The space map of the data device, see [`SpaceMapRoot`].
    pub data_space_map_root: [u8; SpaceMapRoot::ROOM],
    /// The space map of the metadata device, see [`SpaceMapRoot`].
    pub metadata_space_map_root: [u8; SpaceMapRoot::ROOM],
    /// The tree of the roots of the trees of mappings.
    pub mapping_root: MetadataBlock,
    /// The tree of [`DeviceDetails`].
    pub details_root: MetadataBlock,
    /// The size of the data blocks, in sectors.
    pub data_block_size: u32,
    /// [`BLOCK_SECTORS`].
    pub metadata_block_size: u32,
    /// The blocks of the metadata device when it was formatted. Nobody keeps it up to date.
    pub metadata_blocks: u64,
    /// Features that do no harm to those who do not know them.
    pub compatible_features: u32,
    /// Features that only those must know who write.
    pub read_only_compatible_features: u32,
    /// Features that everybody must know.
    pub incompatible_features: u32,
}

impl Superblock {
    /// Where it is.
    pub const LOCATION: MetadataBlock = MetadataBlock(0);
    /// What tells it from others.
    pub const MAGIC: u64 = 27_022_010;
    /// The version of the format.
    pub const VERSION: u32 = 2;
    /// The flag of metadata that may be inconsistent: they are not to be changed before they were
    /// checked.
    pub const NEEDS_CHECK: u32 = 1;
    /// The bytes of it that mean something. The rest of the block is zero.
    pub const BYTES: usize = 364;

    /// Whether a block is as empty as the first one of a device that is to be formatted.
    pub fn is_unformatted(block: &Block) -> bool {
        block.iter().all(|byte| *byte == 0)
    }

    /// Takes it out of its block.
    pub fn read(block: &Block) -> Self {
        Self {
            flags: u32_at(block, 4),
            uuid: bytes(block, 16),
            magic: u64_at(block, 32),
            version: u32_at(block, 40),
            time: u32_at(block, 44),
            transaction_id: u64_at(block, 48),
            metadata_snapshot: MetadataBlock(u64_at(block, 56)),
            data_space_map_root: bytes(block, 64),
            metadata_space_map_root: bytes(block, 192),
            mapping_root: MetadataBlock(u64_at(block, 320)),
            details_root: MetadataBlock(u64_at(block, 328)),
            data_block_size: u32_at(block, 336),
            metadata_block_size: u32_at(block, 340),
            metadata_blocks: u64_at(block, 344),
            compatible_features: u32_at(block, 352),
            read_only_compatible_features: u32_at(block, 356),
            incompatible_features: u32_at(block, 360),
        }
    }

    /// Fills a block with it. Location and checksum keep what they are.
    pub fn write(&self, block: &mut Block) {
        set_bytes(block, 4, self.flags.to_le_bytes());
        set_bytes(block, 16, self.uuid);
        set_bytes(block, 32, self.magic.to_le_bytes());
        set_bytes(block, 40, self.version.to_le_bytes());
        set_bytes(block, 44, self.time.to_le_bytes());
        set_bytes(block, 48, self.transaction_id.to_le_bytes());
        set_bytes(block, 56, self.metadata_snapshot.0.to_le_bytes());
        set_bytes(block, 64, self.data_space_map_root);
        set_bytes(block, 192, self.metadata_space_map_root);
        set_bytes(block, 320, self.mapping_root.0.to_le_bytes());
        set_bytes(block, 328, self.details_root.0.to_le_bytes());
        set_bytes(block, 336, self.data_block_size.to_le_bytes());
        set_bytes(block, 340, self.metadata_block_size.to_le_bytes());
        set_bytes(block, 344, self.metadata_blocks.to_le_bytes());
        set_bytes(block, 352, self.compatible_features.to_le_bytes());
        set_bytes(block, 356, self.read_only_compatible_features.to_le_bytes());
        set_bytes(block, 360, self.incompatible_features.to_le_bytes());
        if let Some(rest) = block.get_mut(Self::BYTES..) {
            rest.fill(0);
        }
    }

    /// Whether the metadata may be inconsistent.
    pub fn needs_check(&self) -> bool {
        self.flags & Self::NEEDS_CHECK != 0
    }
}

/// Where a space map is and how much of it is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceMapRoot {
    /// How many blocks there are.
    pub blocks: u64,
    /// How many of them have a reference.
    pub allocated: u64,
    /// The index block, if it is the metadata's own; for the data, a tree of [`IndexEntry`].
    pub bitmap_root: MetadataBlock,
    /// The tree of the reference counts that are too large for a bitmap.
    pub reference_count_root: MetadataBlock,
}

impl SpaceMapRoot {
    /// The bytes that the superblock keeps free for one.
    pub const ROOM: usize = 128;
    /// The bytes of one. Those behind may be anything.
    pub const BYTES: usize = 32;

    /// Takes it out of its place in the superblock.
    pub fn read(from: &[u8; Self::ROOM]) -> Self {
        Self {
            blocks: u64_at(from, 0),
            allocated: u64_at(from, 8),
            bitmap_root: MetadataBlock(u64_at(from, 16)),
            reference_count_root: MetadataBlock(u64_at(from, 24)),
        }
    }

    /// What belongs into the superblock.
    pub fn to_bytes(self) -> [u8; Self::ROOM] {
        let mut to = [0; Self::ROOM];
        set_bytes(&mut to, 0, self.blocks.to_le_bytes());
        set_bytes(&mut to, 8, self.allocated.to_le_bytes());
        set_bytes(&mut to, 16, self.bitmap_root.0.to_le_bytes());
        set_bytes(&mut to, 24, self.reference_count_root.0.to_le_bytes());
        to
    }
}

/// What a node of a tree begins with. Behind it are all keys, then all values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeHeader {
    /// [`NodeHeader::INTERNAL`] or [`NodeHeader::LEAF`].
    pub flags: u32,
    /// How many keys it has.
    pub entries: u32,
    /// How many keys it has room for.
    pub max_entries: u32,
    /// The bytes of a value.
    pub value_size: u32,
}

/// What is wrong with the shape of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeError {
    /// What it has room for does not fit into a block.
    TooLarge,
    /// It has more entries than room.
    TooMany,
    /// It is neither internal nor a leaf.
    Kind,
}

impl NodeHeader {
    /// The flag of nodes whose values are the blocks of others.
    pub const INTERNAL: u32 = 1;
    /// The flag of nodes whose values are what the tree is for.
    pub const LEAF: u32 = 2;
    /// Its bytes, after which the keys begin.
    pub const BYTES: usize = 32;
    /// The bytes of a key.
    pub const KEY_BYTES: usize = 8;

    /// How many entries the nodes have of trees with values of this size: a multiple of three.
    pub const fn capacity(value_size: u32) -> u32 {
        const ROOM: u32 = (BLOCK_BYTES - NodeHeader::BYTES) as u32;
        let Some(entry) = value_size.checked_add(Self::KEY_BYTES as u32) else {
            return 0;
        };
        // The compiler does not see that this is no division by zero.
        match ROOM.checked_div(entry) {
            Some(entries) => entries / 3 * 3,
            None => 0,
        }
    }

    /// Takes it out of its block.
    pub fn read(block: &Block) -> Self {
        Self {
            flags: u32_at(block, 4),
            entries: u32_at(block, 16),
            max_entries: u32_at(block, 20),
            value_size: u32_at(block, 24),
        }
    }

    /// Puts it into its block. Location, checksum, keys and values keep what they are.
    pub fn write(self, block: &mut Block) {
        set_bytes(block, 4, self.flags.to_le_bytes());
        set_bytes(block, 16, self.entries.to_le_bytes());
        set_bytes(block, 20, self.max_entries.to_le_bytes());
        set_bytes(block, 24, self.value_size.to_le_bytes());
        set_bytes(block, 28, [0; 4]);
    }

    /// Checks what the kernel checks: after this, all entries lie within the block.
    pub fn check(self) -> Result<(), NodeError> {
        let entry = u64::from(self.value_size).saturating_add(Self::KEY_BYTES as u64);
        let length = u64::from(self.max_entries).saturating_mul(entry);
        if length > (BLOCK_BYTES - Self::BYTES) as u64 {
            return Err(NodeError::TooLarge);
        }
        if self.entries > self.max_entries {
            return Err(NodeError::TooMany);
        }
        if self.flags & (Self::INTERNAL | Self::LEAF) == 0 {
            return Err(NodeError::Kind);
        }
        Ok(())
    }

    /// Whether its values are what the tree is for.
    pub fn is_leaf(self) -> bool {
        self.flags & Self::LEAF != 0
    }

    /// The keys of the node, each of 8 bytes. None if [`NodeHeader::check`] would fail.
    pub fn keys(self, block: &Block) -> &[u8] {
        self.part(block, Self::BYTES, Self::KEY_BYTES)
    }

    /// The values of the node, each of [`NodeHeader::value_size`] bytes. None if
    /// [`NodeHeader::check`] would fail.
    pub fn values(self, block: &Block) -> &[u8] {
        let keys = (self.max_entries as usize).saturating_mul(Self::KEY_BYTES);
        let begin = Self::BYTES.saturating_add(keys);
        self.part(block, begin, self.value_size as usize)
    }

    /// As many pieces of `size` bytes as there are entries, from `begin` on.
    fn part(self, block: &Block, begin: usize, size: usize) -> &[u8] {
        let length = (self.entries as usize).saturating_mul(size);
        block
            .get(begin..begin.saturating_add(length))
            .unwrap_or_default()
    }
}

/// Where a virtual block is: what the trees of mappings have as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedMapping(u64);

impl PackedMapping {
    /// Its bytes.
    pub const BYTES: usize = 8;

    /// A mapping to `block`, made at `time`; `None` if one of them is too large.
    pub fn new(block: DataBlock, time: u32) -> Option<Self> {
        let fits = block <= MAX_DATA_BLOCK && time <= MAX_TIME;
        fits.then_some(Self(block.0 << 24 | u64::from(time)))
    }

    /// Takes it out of a leaf.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }

    /// What belongs into a leaf.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        self.0.to_le_bytes()
    }

    /// The data block.
    pub fn block(self) -> DataBlock {
        DataBlock(self.0 >> 24)
    }

    /// How many snapshots had been taken when the mapping was made.
    pub fn time(self) -> u32 {
        self.0 as u32 & MAX_TIME
    }
}

/// What is known of a thin device besides its mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceDetails {
    /// How many blocks are mapped.
    pub mapped_blocks: u64,
    /// The transaction id of the pool when the device was made.
    pub transaction_id: u64,
    /// How many snapshots had been taken when it was made.
    pub creation_time: u32,
    /// The same for the last snapshot of it, or of which it is one. Mappings that are older are shared.
    pub snapshotted_time: u32,
}

impl DeviceDetails {
    /// Its bytes.
    pub const BYTES: usize = 24;

    /// Takes them out of a leaf.
    pub fn from_bytes(from: [u8; Self::BYTES]) -> Self {
        Self {
            mapped_blocks: u64_at(&from, 0),
            transaction_id: u64_at(&from, 8),
            creation_time: u32_at(&from, 16),
            snapshotted_time: u32_at(&from, 20),
        }
    }

    /// What belongs into a leaf.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut to = [0; Self::BYTES];
        set_bytes(&mut to, 0, self.mapped_blocks.to_le_bytes());
        set_bytes(&mut to, 8, self.transaction_id.to_le_bytes());
        set_bytes(&mut to, 16, self.creation_time.to_le_bytes());
        set_bytes(&mut to, 20, self.snapshotted_time.to_le_bytes());
        to
    }
}

/// How many blocks a bitmap counts the references of.
pub const BITMAP_ENTRIES: u32 = (BLOCK_BYTES - BITMAP_HEADER) as u32 * 4;

/// Where the counts begin in a bitmap.
pub const BITMAP_HEADER: usize = 16;

/// The count in a bitmap that stands for any larger one, too: the tree of reference counts says which.
pub const MANY_REFERENCES: u8 = 3;

/// The count in a bitmap for one of its blocks, at most [`MANY_REFERENCES`]. 0 if the bitmap has no
/// such block.
pub fn bitmap_count(bitmap: &Block, entry: u32) -> u8 {
    let place = BITMAP_HEADER.saturating_add(entry as usize / 4);
    let byte = bitmap.get(place).copied().unwrap_or_default();
    let pair = byte >> (entry % 4 * 2);
    // The bits of a count are the other way round.
    (pair & 1) << 1 | (pair >> 1 & 1)
}

/// The opposite of [`bitmap_count`]. More than [`MANY_REFERENCES`] counts as that.
pub fn set_bitmap_count(bitmap: &mut Block, entry: u32, count: u8) {
    let place = BITMAP_HEADER.saturating_add(entry as usize / 4);
    let shift = entry % 4 * 2;
    let count = count.min(MANY_REFERENCES);
    if let Some(byte) = bitmap.get_mut(place) {
        *byte = *byte & !(3 << shift) | ((count & 1) << 1 | count >> 1) << shift;
    }
}

/// How many bitmaps metadata can have.
pub const INDEX_ENTRIES: u32 = ((BLOCK_BYTES - INDEX_HEADER) / IndexEntry::BYTES) as u32;

/// Where the entries begin in an index block.
pub const INDEX_HEADER: usize = 16;

/// Where a bitmap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The block of the bitmap.
    pub bitmap: MetadataBlock,
    /// How many of its blocks have no reference. A hint: 0 says that it need not be searched.
    pub free: u32,
    /// All of its blocks that come before this one have references. A hint, too.
    pub none_free_before: u32,
}

impl IndexEntry {
    /// Its bytes.
    pub const BYTES: usize = 16;

    /// Takes it out of a leaf.
    pub fn from_bytes(from: [u8; Self::BYTES]) -> Self {
        Self {
            bitmap: MetadataBlock(u64_at(&from, 0)),
            free: u32_at(&from, 8),
            none_free_before: u32_at(&from, 12),
        }
    }

    /// What belongs into a leaf.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut to = [0; Self::BYTES];
        set_bytes(&mut to, 0, self.bitmap.0.to_le_bytes());
        set_bytes(&mut to, 8, self.free.to_le_bytes());
        set_bytes(&mut to, 12, self.none_free_before.to_le_bytes());
        to
    }

    /// Takes it out of an index block. All zero if the block has no such entry.
    pub fn read(index: &Block, entry: u32) -> Self {
        Self::from_bytes(bytes(index, Self::place(entry)))
    }

    /// Puts it into an index block, if that has such an entry.
    pub fn write(self, index: &mut Block, entry: u32) {
        set_bytes(index, Self::place(entry), self.to_bytes());
    }

    fn place(entry: u32) -> usize {
        INDEX_HEADER.saturating_add((entry as usize).saturating_mul(Self::BYTES))
    }
}
