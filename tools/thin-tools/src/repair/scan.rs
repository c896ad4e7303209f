// SPDX-License-Identifier: GPL-2.0

//! One look at every block of the metadata: which of them are nodes, and of what sort.

use std::collections::HashMap;

use thin_format::block::BlockBytes;
use thin_format::block::BlockKind;
use thin_format::btree::Node;
use thin_format::checksum;
use thin_format::io;
use thin_format::io::Store;
use thin_format::records::DeviceDetails;
use thin_format::records::PackedMapping;
use thin_format::records::Superblock;
use thin_format::records::MAX_METADATA_BLOCKS;
use thin_format::superblock;
use thin_format::superblock::Demand;

use crate::trees::BlockNumber;
use crate::trees::Child;

/// What a leaf is, without what is in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leaf {
    /// Size of its values; 0 if the block is no leaf.
    pub value_size: u8,
    /// Whether its values may be roots of devices: they are numbers of metadata blocks.
    pub may_be_top_level: bool,
    /// How many entries it has.
    pub entries: u16,
    /// The latest time of its mappings, if they are mappings.
    pub max_time: u32,
    /// The first key; 0 without entries.
    pub first: u64,
    /// The last key; 0 without entries.
    pub last: u64,
    /// The last data block, if they are mappings.
    pub max_data: u64,
}

/// All nodes of the metadata.
pub struct Scan {
    /// By block.
    leaves: Vec<Leaf>,
    /// Internal nodes by block, with all of their children.
    pub internals: HashMap<BlockNumber, Box<[Child]>>,
    /// What block 0 and copies of it say, with their places.
    pub superblocks: Vec<(u64, Superblock)>,
    /// Blocks that could not be read.
    pub unreadable: u64,
}

#[derive(Default)]
struct Part {
    leaves: Vec<(BlockNumber, Leaf)>,
    internals: Vec<(BlockNumber, Box<[Child]>)>,
    superblocks: Vec<(u64, Superblock)>,
    unreadable: u64,
}

impl Scan {
    /// Reads every block of `store`, with several threads. `progress` hears how many were looked at.
    ///
    /// Memory: 40 bytes for each block, 4 KiB for each internal node at most.
    pub fn new(store: &dyn Store, progress: impl Fn(u64) + Sync) -> Scan {
        let blocks = store.blocks().min(MAX_METADATA_BLOCKS);
        let visit = |part: &mut Part, block: u64, bytes: thin_format::Result<&BlockBytes>| {
            match bytes {
                Ok(bytes) => part.look_at(block, bytes, blocks),
                Err(_) => part.unreadable += 1,
            }
            if block % 256 == 0 {
                progress(256);
            }
        };
        let parts = io::scan(
            store,
            0,
            blocks,
            io::default_threads(),
            Part::default,
            visit,
        );
        let mut scan = Scan {
            leaves: vec![Leaf::default(); usize::try_from(blocks).unwrap_or(0)],
            internals: HashMap::new(),
            superblocks: Vec::new(),
            unreadable: 0,
        };
        for part in parts {
            for (block, leaf) in part.leaves {
                if let Some(place) = scan.leaves.get_mut(block as usize) {
                    *place = leaf;
                }
            }
            scan.internals.extend(part.internals);
            scan.superblocks.extend(part.superblocks);
            scan.unreadable += part.unreadable;
        }
        scan.superblocks.sort_by_key(|(block, _)| *block);
        scan
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> u64 {
        self.leaves.len() as u64
    }

    /// The leaf at `block`, if that is one.
    pub fn leaf(&self, block: BlockNumber) -> Option<&Leaf> {
        self.leaves
            .get(block as usize)
            .filter(|leaf| leaf.value_size != 0)
    }

    /// All leaves with their blocks.
    pub fn leaves(&self) -> impl Iterator<Item = (BlockNumber, &Leaf)> {
        (0..)
            .zip(&self.leaves)
            .filter(|(_, leaf)| leaf.value_size != 0)
    }
}

impl Part {
    fn look_at(&mut self, block: u64, bytes: &BlockBytes, blocks: u64) {
        let Ok(number) = BlockNumber::try_from(block) else {
            return;
        };
        match checksum::kind(bytes) {
            Some(BlockKind::Node) => {}
            Some(BlockKind::Superblock) => {
                if let Ok(superblock) = superblock::verify(bytes, block, Demand::Everything) {
                    self.superblocks.push((block, superblock));
                }
                return;
            }
            _ => return,
        }
        let Ok(node) = Node::verify_any(block, bytes) else {
            return;
        };
        if node.is_leaf() {
            self.leaves.push((number, leaf(&node, blocks)));
            return;
        }
        let children = node.entries::<u64>().map(|(key, child)| Child {
            key,
            // What is no block number is no usable child, whatever else it is.
            block: BlockNumber::try_from(child).unwrap_or(BlockNumber::MAX),
        });
        self.internals.push((number, children.collect()));
    }
}

fn leaf(node: &Node<'_>, blocks: u64) -> Leaf {
    let mut leaf = Leaf {
        value_size: u8::try_from(node.header().value_size).unwrap_or(u8::MAX),
        entries: u16::try_from(node.len()).unwrap_or(u16::MAX),
        first: node.first_key().unwrap_or(0),
        last: node.last_key().unwrap_or(0),
        ..Leaf::default()
    };
    if node.header().value_size == PackedMapping::BYTES as u32 {
        leaf.may_be_top_level = true;
        for mapping in node.values::<PackedMapping>() {
            leaf.max_time = leaf.max_time.max(mapping.time());
            leaf.max_data = leaf.max_data.max(mapping.block().0);
        }
        // Block numbers are below 2^24: as mappings all of them would be of data block 0.
        leaf.may_be_top_level = leaf.max_data == 0
            && node
                .values::<u64>()
                .all(|value| value > 0 && value < blocks);
    }
    leaf
}

/// Value size of leaves of mappings and of roots.
pub const MAPPINGS: u8 = PackedMapping::BYTES as u8;

/// Value size of leaves of device details.
pub const DETAILS: u8 = DeviceDetails::BYTES as u8;
