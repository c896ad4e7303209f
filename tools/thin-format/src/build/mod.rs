// SPDX-License-Identifier: GPL-2.0
//! Writing metadata from nothing: trees bottom-up, then the space maps that describe them, the superblock last.
//!
//! [`build`] lets its caller add devices to a [`Builder`] and writes what is needed around them. Blocks are
//! allocated one after the other, so everything but the superblock is written in ascending order. The old superblock is
//! overwritten and that made durable before anything else: metadata that are half written never look whole.
//!
//! Mappings can be shared between devices: whole leaves ([`Builder::shared`]), as text formats say it, or any
//! subtree ([`Builder::share`]), as snapshots made by the kernel do.

mod counts;
mod pack;
mod space_map;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::thread;

use crate::block::BlockBytes;
use crate::block::BlockKind;
use crate::block::BLOCK_SIZE;
use crate::btree::Node;
use crate::btree::Value;
use crate::checksum;
use crate::error;
use crate::io::Store;
use crate::records::units::MetadataBlock;
use crate::records::DeviceDetails;
use crate::records::SpaceMapRoot;
use crate::records::Superblock;
use crate::records::BLOCK_SECTORS;
use crate::records::MAX_DATA_BLOCK;
use crate::records::MAX_METADATA_BLOCKS;
use crate::records::MAX_TIME;
use crate::thin::Run;

pub use pack::NodeRef;

use counts::Counts;
use pack::Packer;
use writer::Shared;
use writer::Writer;

/// Data blocks that mappings have room for.
pub const MAX_DATA_BLOCKS: u64 = MAX_DATA_BLOCK.0 + 1;

/// What the superblock says besides where the trees are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// The snapshot counter.
    pub time: u32,
    /// The volume manager's transaction.
    pub transaction_id: u64,
    /// Size of data blocks in sectors.
    pub data_block_size: u32,
    /// Whether the metadata want a check.
    pub needs_check: bool,
}

/// Why metadata could not be built.
#[derive(Clone, Debug)]
pub enum Error {
    /// Writing failed, or there is not enough room.
    Store(error::Error),
    /// A block of a thin device that does not come after the ones before it.
    KeyOrder {
        /// The block.
        key: u64,
    },
    /// A block behind the end of the data device.
    DataBlock {
        /// The block.
        block: u64,
    },
    /// A time that no mapping has room for.
    Time {
        /// The time.
        time: u32,
    },
    /// More data blocks than mappings can name.
    TooManyDataBlocks,
    /// The same device twice.
    DeviceTwice {
        /// Its id.
        device: u64,
    },
}

impl From<error::Error> for Error {
    fn from(error: error::Error) -> Error {
        Error::Store(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Store(error::Error::NoSpace { free, .. }) => {
                write!(
                    f,
                    "out of metadata space: more than {free} blocks are needed"
                )
            }
            Error::Store(error) => error.fmt(f),
            Error::KeyOrder { key } => write!(f, "keys out of order (thin block {key})"),
            Error::DataBlock { block } => write!(f, "block out of bounds (data block {block})"),
            Error::Time { time } => write!(f, "time out of bounds ({time})"),
            Error::TooManyDataBlocks => write!(f, "more data blocks than mappings have room for"),
            Error::DeviceTwice { device } => write!(f, "device {device} is there twice"),
        }
    }
}

impl std::error::Error for Error {}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// Metadata blocks that are used, freed ones below the last one included.
    pub used: u64,
    /// The fewest blocks that the metadata device can have for this.
    pub needed: u64,
}

/// The blocks that are allocated, and how many point to each.
struct Allocated<'a> {
    writer: Writer<'a>,
    counts: Vec<u32>,
}

impl Allocated<'_> {
    fn put(&mut self, kind: BlockKind, fill: impl FnOnce(&mut BlockBytes)) -> error::Result<u64> {
        let block = self.writer.put(kind, fill)?;
        self.counts.push(1);
        Ok(block)
    }

    fn count(&mut self, block: u64) -> Option<&mut u32> {
        self.counts.get_mut(usize::try_from(block).ok()?)
    }

    fn share(&mut self, block: u64) {
        if let Some(count) = self.count(block) {
            *count = count.saturating_add(1);
        }
    }

    /// Takes a pointer away; true if none is left.
    fn release(&mut self, block: u64) -> bool {
        match self.count(block) {
            Some(count) => {
                *count = count.saturating_sub(1);
                *count == 0
            }
            None => false,
        }
    }
}

/// The fewest entries of a leaf beside others: half of a full one.
const FEW: usize = pack::ROOM / 2;

/// Metadata being built.
pub struct Builder<'a> {
    out: Allocated<'a>,
    data: Counts,
    devices: BTreeMap<u64, (u64, DeviceDetails)>,
    held: u64,
}

/// The mappings of a device, or mappings to be shared, being put together in ascending order.
pub struct Mappings {
    leaves: Packer<u64>,
    first: Option<u64>,
    last: Option<u64>,
}

/// Leaves that devices can share.
pub struct SharedMappings {
    leaves: Vec<NodeRef>,
    ends: Option<(u64, u64)>,
}

/// Writes metadata to `store`: `fill` adds the devices, the rest follows.
///
/// `nr_data_blocks` is the size of the data device. Nothing of what `store` held before survives, whether or not this works.
///
/// # Errors
///
/// What `fill` returns; [`Error::Store`] if writing fails or `store` is too small. `store` then has no superblock.
pub fn build<E: From<Error>>(
    store: &dyn Store,
    nr_data_blocks: u64,
    fill: impl FnOnce(&mut Builder<'_>) -> Result<Pool, E>,
) -> Result<Built, E> {
    let shared = Shared::default();
    let threads = thread::available_parallelism().map_or(2, |cpus| cpus.get().clamp(1, 4));
    store
        .write_block(0, &[0; BLOCK_SIZE])
        .map_err(Error::from)?;
    store.flush().map_err(Error::from)?;
    thread::scope(|scope| {
        let blocks = store.blocks().min(MAX_METADATA_BLOCKS);
        let writer = Writer::new(scope, store, &shared, 1..blocks, threads);
        let mut builder = Builder::new(writer, nr_data_blocks)?;
        let pool = fill(&mut builder)?;
        Ok(builder.finish(&pool)?)
    })
}

/// Finds out how much room [`build`] needs, and writes nothing.
///
/// # Errors
///
/// What `fill` returns.
pub fn rehearse<E: From<Error>>(
    nr_data_blocks: u64,
    fill: impl FnOnce(&mut Builder<'_>) -> Result<Pool, E>,
) -> Result<Built, E> {
    let shared = Shared::default();
    let nowhere = crate::io::Memory::new(0);
    let mut builder = Builder::new(Writer::rehearsal(&nowhere, &shared), nr_data_blocks)?;
    let pool = fill(&mut builder)?;
    Ok(builder.finish(&pool)?)
}

impl<'a> Builder<'a> {
    fn new(writer: Writer<'a>, nr_data_blocks: u64) -> Result<Builder<'a>, Error> {
        if nr_data_blocks > MAX_DATA_BLOCKS {
            return Err(Error::TooManyDataBlocks);
        }
        let out = Allocated {
            writer,
            counts: vec![1],
        };
        Ok(Builder {
            out,
            data: Counts::new(nr_data_blocks),
            devices: BTreeMap::new(),
            held: 0,
        })
    }

    /// Begins the mappings of a device, or mappings to be shared.
    pub fn mappings(&self) -> Mappings {
        Mappings {
            leaves: Packer::new(true),
            first: None,
            last: None,
        }
    }

    /// Adds mappings behind those that are there.
    ///
    /// # Errors
    ///
    /// If they are not behind, outside the data device, or if writing fails.
    pub fn push(&mut self, mappings: &mut Mappings, run: &Run) -> Result<(), Error> {
        if run.length == 0 {
            return Ok(());
        }
        let last = run
            .thin
            .checked_add(run.length - 1)
            .ok_or(Error::KeyOrder { key: run.thin })?;
        if mappings.last.is_some_and(|last| last >= run.thin) {
            return Err(Error::KeyOrder { key: run.thin });
        }
        if run.time > MAX_TIME {
            return Err(Error::Time { time: run.time });
        }
        if !self.data.increment_range(run.data, run.length) {
            return Err(Error::DataBlock {
                block: run.data.saturating_add(run.length - 1),
            });
        }
        let value = run.data << 24 | u64::from(run.time);
        self.fill_up_last(mappings)?;
        mappings
            .leaves
            .push_run(&mut self.out, run.thin, value, 1 << 24, run.length)?;
        mappings.first.get_or_insert(run.thin);
        mappings.last = Some(last);
        Ok(())
    }

    /// Finishes mappings that devices can then share with [`push_shared`](Self::push_shared).
    ///
    /// # Errors
    ///
    /// If writing fails.
    pub fn shared(&mut self, mappings: Mappings) -> Result<SharedMappings, Error> {
        let ends = mappings.first.zip(mappings.last);
        let leaves = mappings.leaves.finish(&mut self.out)?;
        Ok(SharedMappings { leaves, ends })
    }

    /// Adds shared mappings behind those that are there.
    ///
    /// Their leaves are shared as they are, but for those that would be, or would leave beside them, a leaf less
    /// than half full.
    ///
    /// # Errors
    ///
    /// If they are not behind, or if reading or writing fails.
    pub fn push_shared(
        &mut self,
        mappings: &mut Mappings,
        shared: &SharedMappings,
    ) -> Result<(), Error> {
        match (mappings.last, shared.ends) {
            (Some(last), Some((first, _))) if last >= first => {
                return Err(Error::KeyOrder { key: first })
            }
            _ => {}
        }
        for leaf in &shared.leaves {
            self.fill_up_last(mappings)?;
            let is_beside_few = (1..FEW).contains(&mappings.leaves.pending());
            if !is_beside_few {
                mappings.leaves.emit_all(&mut self.out)?;
            }
            let is_few = (leaf.entries as usize) < FEW && !mappings.leaves.nodes().is_empty();
            if is_beside_few || is_few {
                for (key, value) in self.entries(leaf)? {
                    mappings.leaves.push(&mut self.out, key, value)?;
                }
            } else {
                self.out.share(leaf.block);
                mappings.leaves.nodes().push(*leaf);
            }
        }
        if let Some((first, last)) = shared.ends {
            mappings.first.get_or_insert(first);
            mappings.last = Some(last);
        }
        Ok(())
    }

    /// Finishes the mappings of a device and adds it.
    ///
    /// # Errors
    ///
    /// If the device is there already, or if writing fails.
    pub fn device(
        &mut self,
        device: u64,
        details: DeviceDetails,
        mappings: Mappings,
    ) -> Result<NodeRef, Error> {
        let root = self.tree(mappings)?;
        self.device_with_root(device, details, root.block)?;
        Ok(root)
    }

    /// Finishes mappings as a tree of their own and returns its root.
    fn tree(&mut self, mut mappings: Mappings) -> Result<NodeRef, Error> {
        while (1..FEW).contains(&mappings.leaves.pending()) {
            let Some(last) = mappings.leaves.nodes().pop() else {
                break;
            };
            self.unshare_last(&mut mappings, &last)?;
        }
        let leaves = mappings.leaves.finish(&mut self.out)?;
        Ok(pack::internal_levels(&mut self.out, leaves)?)
    }

    /// Gives the last leaf's entries back to be packed again if it is one that must not stand beside others.
    fn fill_up_last(&mut self, mappings: &mut Mappings) -> Result<(), Error> {
        if mappings.leaves.pending() == 0 {
            let nodes = mappings.leaves.nodes();
            if let Some(last) = nodes
                .last()
                .copied()
                .filter(|leaf| (leaf.entries as usize) < FEW)
            {
                nodes.pop();
                self.unshare_last(mappings, &last)?;
            }
        }
        Ok(())
    }

    /// Puts the entries of `leaf`, which was the last shared one, in front of those that are in no leaf yet.
    fn unshare_last(&mut self, mappings: &mut Mappings, leaf: &NodeRef) -> Result<(), Error> {
        let entries = self.entries(leaf)?;
        mappings.leaves.prepend(entries);
        if self.out.release(leaf.block) {
            self.uncount(leaf)?;
        }
        Ok(())
    }

    /// Copies the entries of a leaf that was written before. The copies count as references of their own.
    fn entries(&mut self, leaf: &NodeRef) -> Result<Vec<(u64, u64)>, Error> {
        if self.out.writer.is_rehearsal() {
            return Ok(vec![(leaf.key, 0); leaf.entries as usize]);
        }
        let entries = self.read_entries(leaf)?;
        for (_, value) in &entries {
            self.data.increment(value >> 24);
        }
        Ok(entries)
    }

    /// Takes back what a leaf refers to that nobody points to any more.
    fn uncount(&mut self, leaf: &NodeRef) -> Result<(), Error> {
        if !self.out.writer.is_rehearsal() {
            for (_, value) in self.read_entries(leaf)? {
                self.data.decrement(value >> 24);
            }
        }
        Ok(())
    }

    fn read_entries(&mut self, leaf: &NodeRef) -> Result<Vec<(u64, u64)>, Error> {
        let bytes = self.out.writer.read_back(leaf.block)?;
        let node = Node::shape(&bytes, Some(<u64 as Value>::BYTES))
            .map_err(|fault| error::Error::block(leaf.block, BlockKind::Node, fault))?;
        Ok(node.entries::<u64>().collect())
    }

    /// Ends the sharing of mappings: leaves that no device shares are freed.
    ///
    /// # Errors
    ///
    /// If reading fails.
    pub fn release(&mut self, shared: SharedMappings) -> Result<(), Error> {
        for leaf in &shared.leaves {
            if self.out.release(leaf.block) {
                self.uncount(leaf)?;
            }
        }
        Ok(())
    }

    /// Adds a device whose tree of mappings was built already.
    ///
    /// # Errors
    ///
    /// If the device is there already.
    pub fn device_with_root(
        &mut self,
        device: u64,
        details: DeviceDetails,
        root: u64,
    ) -> Result<(), Error> {
        match self.devices.insert(device, (root, details)) {
            None => Ok(()),
            Some(_) => Err(Error::DeviceTwice { device }),
        }
    }

    /// Counts one more pointer to a node, for a parent or a device that shares it.
    pub fn share(&mut self, node: u64) {
        self.out.share(node);
    }

    /// Takes back one [`share`](Self::share) of a node that others still point to.
    pub fn unshare(&mut self, node: u64) {
        self.out.release(node);
    }

    /// Writes a leaf of its own: for shapes that packing does not make.
    ///
    /// # Errors
    ///
    /// If an entry is impossible, or if writing fails. There must be no more entries than fit, in order.
    pub fn leaf(&mut self, runs: &[Run]) -> Result<NodeRef, Error> {
        let mut mappings = self.mappings();
        for run in runs {
            self.push(&mut mappings, run)?;
        }
        let leaves = mappings.leaves.finish(&mut self.out)?;
        Ok(pack::internal_levels(&mut self.out, leaves)?)
    }

    /// Writes a copy of a leaf in which some blocks are mapped to elsewhere: `change` says to which data block and
    /// with which time. What the copy keeps has one more reference.
    ///
    /// # Errors
    ///
    /// If a mapping is impossible, or if reading or writing fails.
    pub fn copy_leaf(
        &mut self,
        leaf: &NodeRef,
        mut change: impl FnMut(u64) -> Option<(u64, u32)>,
    ) -> Result<NodeRef, Error> {
        let kept = |value: u64| (value >> 24, value as u32 & MAX_TIME);
        let runs = self.read_entries(leaf)?.into_iter().map(|(thin, value)| {
            let (data, time) = change(thin).unwrap_or_else(|| kept(value));
            Run {
                thin,
                data,
                length: 1,
                time,
            }
        });
        let runs: Vec<Run> = runs.collect();
        self.leaf(&runs)
    }

    /// Writes an internal node. Its children's counts stay what they are.
    ///
    /// # Errors
    ///
    /// If writing fails.
    pub fn internal(&mut self, children: &[NodeRef]) -> Result<NodeRef, Error> {
        let mut level = Packer::<u64>::new(false);
        for child in children {
            level.push(&mut self.out, child.key, child.block)?;
        }
        let nodes = level.finish(&mut self.out)?;
        Ok(pack::internal_levels(&mut self.out, nodes)?)
    }

    /// Takes a metadata snapshot of the devices so far. They can be replaced afterwards, see
    /// [`replace_device`](Self::replace_device).
    ///
    /// # Errors
    ///
    /// If writing fails.
    pub fn hold_snapshot(&mut self, pool: &Pool) -> Result<(), Error> {
        let roots: Vec<u64> = self.devices.values().map(|(root, _)| *root).collect();
        for root in roots {
            self.out.share(root);
        }
        let (mapping_root, details_root) = self.trees()?;
        let metadata_blocks = self.out.writer.blocks();
        let nothing = SpaceMapRoot::read(&[0; SpaceMapRoot::ROOM]);
        let roots = Roots {
            held: 0,
            data_space_map: nothing,
            metadata_space_map: nothing,
            mapping_root,
            details_root,
        };
        let superblock = superblock(pool, &roots, metadata_blocks);
        self.held = self
            .out
            .put(BlockKind::Superblock, |block| superblock.write(block))?;
        Ok(())
    }

    /// Gives a device another tree. The old one must be held by a snapshot.
    pub fn replace_device(&mut self, device: u64, details: DeviceDetails, root: u64) {
        if let Some((old, _)) = self.devices.insert(device, (root, details)) {
            self.out.release(old);
        }
    }

    /// Writes the tree of device details and the one of the devices' roots.
    fn trees(&mut self) -> Result<(u64, u64), Error> {
        let mut details = Packer::<[u8; 24]>::new(true);
        for (device, (_, of_device)) in &self.devices {
            details.push(&mut self.out, *device, of_device.to_bytes())?;
        }
        let details = details.finish(&mut self.out)?;
        let details = pack::internal_levels(&mut self.out, details)?;
        let mut roots = Packer::<u64>::new(true);
        for (device, (root, _)) in &self.devices {
            roots.push(&mut self.out, *device, *root)?;
        }
        let roots = roots.finish(&mut self.out)?;
        let roots = pack::internal_levels(&mut self.out, roots)?;
        Ok((roots.block, details.block))
    }

    /// Writes everything that is left, the superblock last.
    fn finish(mut self, pool: &Pool) -> Result<Built, Error> {
        let (mapping_root, details_root) = self.trees()?;
        let data_space_map = space_map::write_data(&mut self.out, &self.data)?;
        let is_rehearsal = self.out.writer.is_rehearsal();
        let used = self.out.writer.next();
        let metadata_blocks = match is_rehearsal {
            true => space_map::fewest_blocks(used, &self.out.counts),
            false => self.out.writer.blocks(),
        };
        let metadata_space_map = space_map::write_metadata(&mut self.out, metadata_blocks)?;
        let used = self.out.writer.next();
        let needed = space_map::fewest_blocks_behind(used, metadata_blocks);
        if is_rehearsal {
            return Ok(Built { used, needed });
        }
        self.out.writer.finish()?;
        let store = self.out.writer.store();
        store.flush()?;
        let roots = Roots {
            held: self.held,
            data_space_map,
            metadata_space_map,
            mapping_root,
            details_root,
        };
        let mut block = Box::new([0; BLOCK_SIZE]);
        superblock(pool, &roots, metadata_blocks).write(&mut block);
        checksum::seal(BlockKind::Superblock, &mut block, 0);
        store.write_block(0, &block)?;
        store.flush()?;
        Ok(Built { used, needed })
    }
}

/// Where everything is.
struct Roots {
    held: u64,
    data_space_map: SpaceMapRoot,
    metadata_space_map: SpaceMapRoot,
    mapping_root: u64,
    details_root: u64,
}

fn superblock(pool: &Pool, roots: &Roots, metadata_blocks: u64) -> Superblock {
    Superblock {
        flags: if pool.needs_check {
            Superblock::NEEDS_CHECK
        } else {
            0
        },
        uuid: [0; 16],
        magic: Superblock::MAGIC,
        version: Superblock::VERSION,
        time: pool.time,
        transaction_id: pool.transaction_id,
        metadata_snapshot: MetadataBlock(roots.held),
        data_space_map_root: roots.data_space_map.to_bytes(),
        metadata_space_map_root: roots.metadata_space_map.to_bytes(),
        mapping_root: MetadataBlock(roots.mapping_root),
        details_root: MetadataBlock(roots.details_root),
        data_block_size: pool.data_block_size,
        metadata_block_size: BLOCK_SECTORS,
        metadata_blocks,
        compatible_features: 0,
        read_only_compatible_features: 0,
        incompatible_features: 0,
    }
}
