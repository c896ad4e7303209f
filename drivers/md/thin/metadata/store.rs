// SPDX-License-Identifier: GPL-2.0

//! Opening and formatting metadata.

use super::{
    reader::Mappings,
    space::{
        reserve,
        usable_blocks, //
    }, //
};
use crate::{
    block_device::OpenBlockDevice,
    core::{
        errno::{
            Errno,
            Result, //
        },
        format::{
            BlockKind,
            DeviceDetails,
            PackedMapping,
            SpaceMapRoot,
            Superblock,
            BLOCK_SECTORS,
            MAX_DATA_BLOCK,
            MAX_METADATA_BLOCKS, //
        },
        units::{
            BlockSize,
            MetadataBlock, //
        }, //
    },
    persistent_data::{
        format,
        BlockBytes,
        BlockManager,
        DataReference,
        NestedTree,
        NonBlocking,
        Record,
        Roots,
        TransactionManager,
        Tree,
        Validator,
        Value, //
    }, //
};
use kernel::{
    fmt,
    prelude::*, //
};

impl Record for Superblock {
    const NAME: &'static CStr = c"superblock";
    const CHECKSUM_XOR: u32 = BlockKind::Superblock.salt();

    fn is_valid(block: &BlockBytes) -> bool {
        Superblock::read(block).magic == Superblock::MAGIC
    }
}

/// What the block manager knows superblocks by.
pub(super) static SUPERBLOCK: Validator<Superblock> = Validator::new();

impl Value<{ PackedMapping::BYTES }> for PackedMapping {
    fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self::from_bytes(bytes)
    }

    fn to_bytes(self) -> [u8; Self::BYTES] {
        self.to_bytes()
    }
}

impl DataReference for PackedMapping {
    fn data_block(self) -> u64 {
        self.block().0
    }
}

impl Value<{ DeviceDetails::BYTES }> for DeviceDetails {
    fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self::from_bytes(bytes)
    }

    fn to_bytes(self) -> [u8; Self::BYTES] {
        self.to_bytes()
    }
}

/// The mappings of all devices, by the numbers of device and virtual block.
pub(super) type MappingTree = NestedTree<PackedMapping>;

/// What is known of each device besides.
pub(super) type DetailsTree = Tree<DeviceDetails, { DeviceDetails::BYTES }>;

/// What to do about a device without metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Format it if its first block is all zeroes.
    IfZero,
    /// Do not open it.
    Never,
}

/// Why metadata cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// There are none, and they are not to be made.
    Unformatted,
    /// They are of a pool with blocks of another size.
    BlockSize {
        /// The size there, in sectors.
        found: u32,
        /// The size that was asked for.
        wanted: BlockSize,
    },
    /// They have features that we do not know.
    Features(u32),
    /// A part of them cannot be read, or makes no sense.
    Part {
        /// What part.
        part: &'static str,
        /// Why.
        errno: Errno,
    },
}

impl OpenError {
    pub(super) fn part(part: &'static str, errno: Errno) -> Self {
        Self::Part { part, errno }
    }

    /// The error for who asked for it.
    pub(crate) fn errno(self) -> Errno {
        match self {
            Self::Unformatted => Errno::EPERM,
            Self::BlockSize { .. } | Self::Features(_) => Errno::EINVAL,
            Self::Part { errno, .. } => errno,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unformatted => write!(f, "the metadata device is not formatted"),
            Self::BlockSize { found, wanted } => write!(
                f,
                "changing the data block size (from {found} to {}) is not supported",
                wanted.sectors()
            ),
            Self::Features(features) => write!(
                f,
                "could not access metadata due to unsupported optional features ({features:x})"
            ),
            Self::Part { part, errno } => write!(
                f,
                "could not open the metadata's {part}: error {}",
                errno.to_return_value()
            ),
        }
    }
}

/// What is on the metadata device, but for the mappings, which are where [`MappingReader`] finds them.
///
/// [`MappingReader`]: super::MappingReader
pub(super) struct Store {
    pub(super) manager: TransactionManager,
    pub(super) details: DetailsTree,
    /// As the next commit will write it, but for the roots of trees and space maps.
    pub(super) superblock: KBox<Superblock>,
    /// Metadata blocks that are kept for commits.
    pub(super) reserve: u64,
    /// Whether anything was changed since the last commit.
    pub(super) changed: bool,
    /// Whether data blocks may have lost their last reference since the last commit.
    pub(super) freed_data: bool,
    /// Whether an operation has failed half-way since the last commit.
    pub(super) must_abort: bool,
}

impl Store {
    /// Opens the metadata on a device that nobody else uses.
    pub(super) fn open_new(
        device: &OpenBlockDevice,
        block_size: BlockSize,
        format: Format,
    ) -> core::result::Result<(Self, Mappings), OpenError> {
        let mut blocks = BlockManager::new(device.clone())
            .map_err(|errno| OpenError::part("block manager", errno))?;
        let unformatted = blocks
            .read_any(Superblock::LOCATION.0)
            .map(|block| Superblock::is_unformatted(&block))
            .map_err(|errno| OpenError::part("superblock", errno))?;

        if unformatted {
            if format == Format::Never {
                return Err(OpenError::Unformatted);
            }
            make(&mut blocks, device, block_size)
                .map_err(|errno| OpenError::part("new trees", errno))?;
        }
        Self::open(blocks, block_size)
    }

    /// Opens the metadata that are there.
    pub(super) fn open(
        blocks: BlockManager,
        block_size: BlockSize,
    ) -> core::result::Result<(Self, Mappings), OpenError> {
        let superblock = read_superblock(&blocks, Superblock::LOCATION)
            .map_err(|errno| OpenError::part("superblock", errno))?;
        check_superblock(&superblock, block_size)?;
        let roots = checked_roots(&superblock)?;

        let mapping_root = superblock.mapping_root.0;
        let manager = TransactionManager::open(blocks, &SUPERBLOCK, roots, mapping_root)
            .map_err(|errno| OpenError::part("space maps", errno))?;
        let mappings = MappingTree::with_root(mapping_root);
        let details = DetailsTree::with_root(superblock.details_root.0);
        Self::new(manager, mappings, details, superblock)
            .map_err(|errno| OpenError::part("trees", errno))
    }

    fn new(
        manager: TransactionManager,
        mappings: MappingTree,
        details: DetailsTree,
        superblock: KBox<Superblock>,
    ) -> Result<(Self, Mappings)> {
        let mappings = Mappings {
            clone: Some(NonBlocking::new(&manager)?),
            tree: mappings,
        };
        let store = Self {
            reserve: reserve(manager.metadata_blocks()?),
            manager,
            details,
            superblock,
            changed: false,
            freed_data: false,
            must_abort: false,
        };
        Ok((store, mappings))
    }

    /// This, if it can be changed. Fails with `EIO` if the transaction has to be aborted, and with
    /// `EPERM` if nothing may be written.
    pub(super) fn check_writable(&mut self) -> Result<&mut Self> {
        if self.must_abort {
            return Err(Errno::EIO);
        }
        if self.manager.blocks().is_read_only() {
            return Err(Errno::EPERM);
        }
        Ok(self)
    }

    /// Notes that a change is being made, and whether it has failed half-way.
    pub(super) fn note<T>(&mut self, outcome: Result<T>) -> Result<T> {
        self.changed = true;
        self.must_abort |= outcome.is_err();
        outcome
    }

    /// Commits what is in the trees.
    pub(super) fn write(&mut self, mapping_root: u64) -> Result {
        self.manager.write_data_map()?;
        self.manager.pre_commit()?;
        let roots = self.manager.roots()?;

        self.superblock.mapping_root = MetadataBlock(mapping_root);
        self.superblock.details_root = MetadataBlock(self.details.root());
        self.superblock.data_space_map_root = padded(roots.data);
        self.superblock.metadata_space_map_root = padded(roots.metadata);
        let superblock = &self.superblock;
        self.manager
            .commit(&SUPERBLOCK, |block| superblock.write(block))
    }
}

/// Reads the superblock, or a copy of it.
// Not inlined, as it is large; so are the functions below that have one on the stack.
#[inline(never)]
pub(super) fn read_superblock(
    blocks: &BlockManager,
    location: MetadataBlock,
) -> Result<KBox<Superblock>> {
    let block = blocks.read(location.0, &SUPERBLOCK)?;
    Ok(KBox::new(Superblock::read(&block), GFP_KERNEL)?)
}

/// Makes metadata without devices or data blocks.
#[inline(never)]
fn make(blocks: &mut BlockManager, device: &OpenBlockDevice, block_size: BlockSize) -> Result {
    format::<_, { DeviceDetails::BYTES }>(blocks, &SUPERBLOCK, |roots, block| {
        let superblock = Superblock {
            flags: 0,
            uuid: [0; 16],
            magic: Superblock::MAGIC,
            version: Superblock::VERSION,
            time: 0,
            transaction_id: 0,
            metadata_snapshot: MetadataBlock(0),
            data_space_map_root: padded(roots.maps.data),
            metadata_space_map_root: padded(roots.maps.metadata),
            mapping_root: MetadataBlock(roots.nested),
            details_root: MetadataBlock(roots.plain),
            // Sizes of blocks have 22 bits at most.
            data_block_size: block_size.sectors() as u32,
            metadata_block_size: BLOCK_SECTORS,
            metadata_blocks: usable_blocks(device),
            compatible_features: 0,
            read_only_compatible_features: 0,
            incompatible_features: 0,
        };
        superblock.write(block);
    })
}

/// Fills what the superblock has room for with zeroes.
fn padded(root: [u8; SpaceMapRoot::BYTES]) -> [u8; SpaceMapRoot::ROOM] {
    let mut padded = [0; SpaceMapRoot::ROOM];
    for (to, from) in padded.iter_mut().zip(root) {
        *to = from;
    }
    padded
}

/// The part of the room in the superblock that means something.
fn unpadded(root: &[u8; SpaceMapRoot::ROOM]) -> [u8; SpaceMapRoot::BYTES] {
    root.first_chunk()
        .copied()
        .unwrap_or([0; SpaceMapRoot::BYTES])
}

/// What a root of the library's means.
pub(super) fn space_map_root(root: [u8; SpaceMapRoot::BYTES]) -> SpaceMapRoot {
    SpaceMapRoot::read(&padded(root))
}

/// Checks what does not take another block to be checked.
fn check_superblock(
    superblock: &Superblock,
    wanted: BlockSize,
) -> core::result::Result<(), OpenError> {
    if u64::from(superblock.data_block_size) != wanted.sectors() {
        return Err(OpenError::BlockSize {
            found: superblock.data_block_size,
            wanted,
        });
    }
    let unknown = superblock.incompatible_features | superblock.read_only_compatible_features;
    if unknown != 0 {
        return Err(OpenError::Features(unknown));
    }
    Ok(())
}

/// The roots of the space maps. The library does not check them.
fn checked_roots(superblock: &Superblock) -> core::result::Result<Roots, OpenError> {
    let metadata = SpaceMapRoot::read(&superblock.metadata_space_map_root);
    let data = SpaceMapRoot::read(&superblock.data_space_map_root);
    let valid =
        |root: &SpaceMapRoot, most: u64| root.blocks <= most && root.allocated <= root.blocks;

    if !valid(&metadata, MAX_METADATA_BLOCKS) {
        return Err(OpenError::part("metadata space map root", Errno::EILSEQ));
    }
    if !valid(&data, MAX_DATA_BLOCK.0.saturating_add(1)) {
        return Err(OpenError::part("data space map root", Errno::EILSEQ));
    }
    Ok(Roots {
        data: unpadded(&superblock.data_space_map_root),
        metadata: unpadded(&superblock.metadata_space_map_root),
    })
}
