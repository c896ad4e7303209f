// SPDX-License-Identifier: GPL-2.0

//! Damage to metadata, of every kind, where a seed says.

use std::fmt;
use std::ops::ControlFlow;

use thin_format::block::BlockBytes;
use thin_format::block::BlockKind;
use thin_format::block::BLOCK_SIZE;
use thin_format::btree;
use thin_format::btree::Node;
use thin_format::btree::Value;
use thin_format::btree::Visit;
use thin_format::checksum;
use thin_format::io::Store;
use thin_format::records;
use thin_format::records::DeviceDetails;
use thin_format::records::IndexEntry;
use thin_format::records::NodeHeader;
use thin_format::records::SpaceMapRoot;
use thin_format::records::Superblock;
use thin_format::space_map;
use thin_format::space_map::Which;
use thin_format::superblock;
use thin_format::superblock::Demand;
use thin_format::Result;

use crate::random::Random;

macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// The one of this name on the command line.
            pub fn from_name(name: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|one| one.name() == name)
            }

            /// The name on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(self.name())
            }
        }
    };
}

named! {
    /// What is damaged.
    Target {
        /// Block 0.
        Superblock = "superblock",
        /// A node of the tree of devices' roots.
        TopLevel = "top-level",
        /// A node of the tree of device details.
        Details = "details",
        /// A node of a device's tree that is not a leaf.
        Internal = "internal",
        /// A leaf of a device's tree.
        Leaf = "leaf",
        /// A bitmap of the data device's space map.
        DataBitmap = "data-bitmap",
        /// A node of the index of the data device's space map.
        DataIndex = "data-index",
        /// A bitmap of the metadata's space map.
        MetadataBitmap = "metadata-bitmap",
        /// The index of the metadata's space map.
        MetadataIndex = "metadata-index",
    }
}

named! {
    /// How it is damaged.
    Kind {
        /// One bit flips.
        Flip = "flip",
        /// The block is all zeroes.
        Zero = "zero",
        /// The block is all noise.
        Noise = "noise",
        /// The block holds what another of the same sort holds, and says so.
        Stale = "stale",
        /// The block holds what another of the same sort holds, with location and checksum of its own.
        Copied = "copied",
        /// Two keys of a node are exchanged; checksum right.
        KeyOrder = "key-order",
        /// A node claims to have more entries than it has room for; checksum right.
        Entries = "entries",
        /// A pointer of an internal node points to another block of the metadata; checksum right.
        CrossLink = "cross-link",
        /// A reference count is one too high; checksum right.
        CountHigh = "count-high",
        /// A reference count is one too low; checksum right.
        CountLow = "count-low",
        /// The index counts too few free blocks; checksum right.
        NrFree = "nr-free",
        /// The superblock counts too many allocated blocks; checksum right.
        NrAllocated = "nr-allocated",
        /// The details of a device count one mapping too many; checksum right.
        MappedBlocks = "mapped-blocks",
    }
}

/// A block that can be damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The block.
    pub block: u64,
    /// The device whose mappings are below, of a shared block the first.
    pub device: Option<u64>,
    /// First key that belongs into the block.
    pub begin: u64,
    /// Where those end; no end if `None`.
    pub end: Option<u64>,
}

/// What was done.
#[derive(Clone, Copy, Debug)]
pub struct Damage {
    /// How.
    pub kind: Kind,
    /// To what.
    pub target: Target,
    /// Where.
    pub place: Place,
}

impl fmt::Display for Damage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} {} block={}",
            self.kind, self.target, self.place.block
        )?;
        if let Some(device) = self.place.device {
            write!(out, " device={device} begin={}", self.place.begin)?;
            if let Some(end) = self.place.end {
                write!(out, " end={end}")?;
            }
        }
        Ok(())
    }
}

/// All blocks of a sort. Metadata must be whole.
///
/// # Errors
///
/// If they are not.
pub fn places(store: &dyn Store, target: Target) -> Result<Vec<Place>> {
    let superblock = superblock::read(store, 0, Demand::Everything)?;
    let plain = |block| Place {
        block,
        device: None,
        begin: 0,
        end: None,
    };
    match target {
        Target::Superblock => Ok(vec![plain(0)]),
        Target::TopLevel => nodes(store, superblock.mapping_root.0, u64::BYTES, None, |_| true),
        Target::Details => nodes(
            store,
            superblock.details_root.0,
            DeviceDetails::BYTES as u32,
            None,
            |_| true,
        ),
        Target::Internal | Target::Leaf => {
            let mut roots = Vec::new();
            btree::entries::<u64>(
                store,
                superblock.mapping_root.0,
                0,
                None,
                &mut |device, root| {
                    roots.push((device, root));
                    ControlFlow::Continue(())
                },
            )?;
            let mut places: Vec<Place> = Vec::new();
            let mut seen = std::collections::HashSet::new();
            for (device, root) in roots {
                let wants_leaf = target == Target::Leaf;
                let found = nodes(store, root, u64::BYTES, Some(device), |is_leaf| {
                    is_leaf == wants_leaf
                })?;
                places.extend(found.into_iter().filter(|place| seen.insert(place.block)));
            }
            Ok(places)
        }
        Target::DataBitmap => bitmaps(store, Which::Data, &superblock::data_space_map(&superblock)),
        Target::MetadataBitmap => bitmaps(
            store,
            Which::Metadata,
            &superblock::metadata_space_map(&superblock),
        ),
        Target::DataIndex => {
            let root = superblock::data_space_map(&superblock).bitmap_root.0;
            nodes(store, root, IndexEntry::BYTES as u32, None, |_| true)
        }
        Target::MetadataIndex => Ok(vec![plain(
            superblock::metadata_space_map(&superblock).bitmap_root.0,
        )]),
    }
}

fn nodes(
    store: &dyn Store,
    root: u64,
    value_size: u32,
    device: Option<u64>,
    wanted: impl Fn(bool) -> bool,
) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    btree::walk(store, root, value_size, &mut |at| {
        let (child, is_leaf) = match at {
            Visit::Internal(child, _) => (child, false),
            Visit::Leaf(child, _) => (child, true),
            Visit::Before(_) => return ControlFlow::Continue(()),
            Visit::Bad(..) => return ControlFlow::Break(()),
        };
        if wanted(is_leaf) {
            places.push(Place {
                block: child.block,
                device,
                begin: child.begin,
                end: child.end,
            });
        }
        ControlFlow::Continue(())
    })?;
    Ok(places)
}

fn bitmaps(store: &dyn Store, which: Which, root: &SpaceMapRoot) -> Result<Vec<Place>> {
    let index = space_map::read_index(store, which, root)?;
    let place = |entry: &IndexEntry| Place {
        block: entry.bitmap.0,
        device: None,
        begin: 0,
        end: None,
    };
    Ok(index.iter().map(place).collect())
}

/// Damages one block of those in `places`, all of which are a `target`. `None` if that sort of block cannot be damaged so.
///
/// # Errors
///
/// If reading or writing fails.
pub fn damage(
    store: &dyn Store,
    kind: Kind,
    target: Target,
    places: &[Place],
    random: &mut Random,
) -> Result<Option<Damage>> {
    let Some(place) = random.pick(places).copied() else {
        return Ok(None);
    };
    let mut bytes = store.read_block(place.block)?;
    let block_kind = match target {
        Target::Superblock => BlockKind::Superblock,
        Target::DataBitmap | Target::MetadataBitmap => BlockKind::Bitmap,
        Target::MetadataIndex => BlockKind::Index,
        _ => BlockKind::Node,
    };
    let other = random
        .pick(places)
        .copied()
        .filter(|other| other.block != place.block);
    let is_done = match kind {
        Kind::Flip => {
            let at = random.below(Superblock::BYTES as u64) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
            true
        }
        Kind::Zero => {
            bytes.fill(0);
            true
        }
        Kind::Noise => {
            bytes.fill_with(|| random.next() as u8);
            true
        }
        Kind::Stale | Kind::Copied => match other {
            Some(other) => {
                bytes = store.read_block(other.block)?;
                if kind == Kind::Copied {
                    checksum::seal(block_kind, &mut bytes, place.block);
                }
                true
            }
            None => false,
        },
        _ => {
            let is_done = change(kind, target, block_kind, &mut bytes, places, random);
            checksum::seal(block_kind, &mut bytes, place.block);
            is_done
        }
    };
    if !is_done {
        return Ok(None);
    }
    store.write_block(place.block, &bytes)?;
    Ok(Some(Damage {
        kind,
        target,
        place,
    }))
}

/// Changes the contents of a block whose checksum is made right afterwards.
fn change(
    kind: Kind,
    target: Target,
    block_kind: BlockKind,
    bytes: &mut BlockBytes,
    places: &[Place],
    random: &mut Random,
) -> bool {
    match kind {
        Kind::KeyOrder | Kind::Entries | Kind::CrossLink | Kind::MappedBlocks => {
            if block_kind != BlockKind::Node {
                return false;
            }
            let Ok(node) = Node::shape(bytes, None) else {
                return false;
            };
            let (header, length) = (node.header(), node.len() as u64);
            change_node(kind, target, header, length, bytes, places, random)
        }
        Kind::CountHigh | Kind::CountLow if block_kind == BlockKind::Bitmap => {
            change_count(kind, bytes, random)
        }
        Kind::NrFree if target == Target::MetadataIndex => {
            let mut entry = IndexEntry::read(bytes, 0);
            entry.free = entry.free.saturating_sub(1 + random.below(5) as u32);
            entry.write(bytes, 0);
            true
        }
        Kind::NrAllocated if target == Target::Superblock => {
            let mut superblock = Superblock::read(bytes);
            let mut root = SpaceMapRoot::read(&superblock.data_space_map_root);
            root.allocated += 1 + random.below(5);
            superblock.data_space_map_root = root.to_bytes();
            superblock.write(bytes);
            true
        }
        _ => false,
    }
}

fn change_node(
    kind: Kind,
    target: Target,
    mut header: NodeHeader,
    length: u64,
    bytes: &mut BlockBytes,
    places: &[Place],
    random: &mut Random,
) -> bool {
    let key_at = |index: u64| NodeHeader::BYTES + index as usize * NodeHeader::KEY_BYTES;
    let value_at = |index: u64| {
        key_at(header.max_entries.into()) + index as usize * header.value_size as usize
    };
    match kind {
        Kind::KeyOrder if length >= 2 => {
            let at = key_at(random.below(length - 1));
            let two = bytes
                .get_mut(at..at + 2 * NodeHeader::KEY_BYTES)
                .unwrap_or_default();
            two.rotate_left(NodeHeader::KEY_BYTES.min(two.len()));
            true
        }
        Kind::Entries => {
            header.entries = header.max_entries + 1 + random.below(1 << 20) as u32;
            header.write(bytes);
            true
        }
        Kind::CrossLink if !header.is_leaf() || target == Target::TopLevel => {
            let Some(to) = random.pick(places) else {
                return false;
            };
            put(bytes, value_at(random.below(length.max(1))), to.block)
        }
        Kind::MappedBlocks if target == Target::Details && header.is_leaf() && length > 0 => {
            let at = value_at(random.below(length));
            let mapped = thin_format::block::u64_at(bytes, at);
            put(bytes, at, mapped + 1)
        }
        _ => false,
    }
}

fn put(bytes: &mut BlockBytes, at: usize, number: u64) -> bool {
    match bytes
        .get_mut(at..)
        .and_then(|bytes| bytes.first_chunk_mut())
    {
        Some(place) => {
            *place = number.to_le_bytes();
            true
        }
        None => false,
    }
}

fn change_count(kind: Kind, bytes: &mut BlockBytes, random: &mut Random) -> bool {
    let first = random.below(records::BITMAP_ENTRIES.into()) as u32;
    for entry in (0..records::BITMAP_ENTRIES)
        .cycle()
        .skip(first as usize)
        .take(records::BITMAP_ENTRIES as usize)
    {
        let count = records::bitmap_count(bytes, entry);
        let changed = match kind {
            Kind::CountHigh if count == 1 => 2,
            Kind::CountLow if count == 1 || count == 2 => count - 1,
            _ => continue,
        };
        records::set_bitmap_count(bytes, entry, changed);
        return true;
    }
    false
}

/// Overwrites whole blocks, whatever they are.
///
/// # Errors
///
/// If writing fails.
pub fn zero_range(store: &dyn Store, first: u64, length: u64) -> Result {
    for block in first..first.saturating_add(length).min(store.blocks()) {
        store.write_block(block, &[0; BLOCK_SIZE])?;
    }
    Ok(())
}
