// SPDX-License-Identifier: GPL-2.0
//! Changing metadata in place so that a crash at any moment leaves the old or the new.
//!
//! Nothing that the old superblock leads to is overwritten: new blocks go where nothing is, then
//! everything is made durable, then the superblock is written, and made durable too. Until that
//! last write the old metadata is whole, and after it the new.
//!
//! [`set_right`] replaces both space maps with true ones.

use crate::block::{BlockBytes, BlockKind, Buffer, BLOCK_SIZE};
use crate::btree::{self, Value, Visit};
use crate::check::Truth;
use crate::checksum;
use crate::counts::Counts;
use crate::error::{Error, Result};
use crate::io::{self, Store};
use crate::records::units::MetadataBlock;
use crate::records::{
    set_bitmap_count, IndexEntry, NodeHeader, SpaceMapRoot, Superblock, BITMAP_ENTRIES,
    INDEX_ENTRIES, MANY_REFERENCES,
};
use crate::space_map::{self, bitmaps_for, Bitmap, Which, PER_BITMAP};
use crate::superblock;
use std::ops::ControlFlow;

/// A change in the making. Dropped without [`Transaction::commit`], it leaves the metadata as it
/// was.
pub struct Transaction<'a> {
    store: &'a dyn Store,
    /// Blocks that neither the old nor, so far, the new metadata uses; the next one last.
    free: Vec<u32>,
    /// Neighbouring blocks that are not written yet.
    gathered: Buffer,
    first: u64,
    length: usize,
    written: u64,
}

impl<'a> Transaction<'a> {
    /// Begins a change that may use the blocks of `free`, in that order.
    ///
    /// Nothing that the present superblock leads to may be among them.
    pub fn begin(store: &'a dyn Store, free: Vec<u32>) -> Transaction<'a> {
        let mut free = free;
        free.reverse();
        Transaction {
            store,
            free,
            gathered: Buffer::new(io::READ_BLOCKS),
            first: 0,
            length: 0,
            written: 0,
        }
    }

    /// How many blocks it can still use.
    pub fn free(&self) -> u64 {
        self.free.len() as u64
    }

    /// A block to write to.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`] if there is none left.
    pub fn allocate(&mut self) -> Result<u64> {
        self.free
            .pop()
            .map(u64::from)
            .ok_or(Error::NoSpace { needed: 1, free: 0 })
    }

    /// Writes `bytes`, with location and checksum entered, to `block`, which was allocated here.
    ///
    /// # Errors
    ///
    /// [`Error::Write`], perhaps of a block written before.
    pub fn write(&mut self, kind: BlockKind, block: u64, bytes: &BlockBytes) -> Result {
        if self.first.checked_add(self.length as u64) != Some(block)
            || self.length == self.gathered.blocks()
        {
            self.write_gathered()?;
            self.first = block;
        }
        if let Some(place) = self.gathered.block_mut(self.length) {
            *place = *bytes;
            checksum::seal(kind, place, block);
            self.length = self.length.saturating_add(1);
        }
        Ok(())
    }

    fn write_gathered(&mut self) -> Result {
        let length = std::mem::take(&mut self.length);
        if length > 0 {
            self.written = self.written.saturating_add(length as u64);
            self.store
                .write(self.first, self.gathered.first_mut(length))?;
        }
        Ok(())
    }

    /// Makes everything written durable, then changes the superblock, then makes that durable.
    /// Returns how many blocks were written.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] and [`Error::Flush`]; the old metadata is then still in force, unless the
    /// superblock itself was being written.
    pub fn commit(mut self, change: impl FnOnce(&mut Superblock)) -> Result<u64> {
        self.write_gathered()?;
        self.store.flush()?;
        superblock::update(self.store, change)?;
        Ok(self.written.saturating_add(1))
    }

    /// Writes a tree of `count` entries, ascending by key, whose values have `value_size` bytes.
    /// Returns its root and notes its nodes in `used`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`], [`Error::Write`].
    pub fn write_tree(
        &mut self,
        value_size: u32,
        count: u64,
        fill: impl FnOnce(&mut Add<'_>) -> Result,
        used: &Counts,
    ) -> Result<u64> {
        let mut level = Level::new(NodeHeader::LEAF, value_size, count);
        fill(&mut |key, value| level.add(self, key, value, used))?;
        let mut above = level.finish(self, used)?;
        while above.len() > 1 {
            let mut level = Level::new(NodeHeader::INTERNAL, u64::BYTES, above.len() as u64);
            for (key, block) in above {
                level.add(self, key, &block.to_le_bytes(), used)?;
            }
            above = level.finish(self, used)?;
        }
        above
            .first()
            .map(|(_, root)| *root)
            .ok_or(Error::NoSpace { needed: 1, free: 0 })
    }
}

/// Takes the next entry of a tree that is being written: its key, and its value as bytes.
pub type Add<'a> = dyn FnMut(u64, &[u8]) -> Result + 'a;

/// How many nodes a tree of `count` entries has when it is written by [`Transaction::write_tree`].
pub fn tree_nodes(value_size: u32, count: u64) -> u64 {
    let nodes = |size: u32, count: u64| {
        count
            .div_ceil(u64::from(NodeHeader::capacity(size)).max(1))
            .max(1)
    };
    let mut level = nodes(value_size, count);
    let mut sum = level;
    while level > 1 {
        level = nodes(u64::BYTES, level);
        sum = sum.saturating_add(level);
    }
    sum
}

/// The nodes of one level of a tree that is being written, all about equally full.
struct Level {
    header: NodeHeader,
    /// Entries in the whole level, and how many nodes they are spread over.
    count: u64,
    nodes: u64,
    /// The node at work, its first key, and how many entries it gets.
    bytes: Box<BlockBytes>,
    first: u64,
    share: u64,
    done: Vec<(u64, u64)>,
}

impl Level {
    fn new(flags: u32, value_size: u32, count: u64) -> Level {
        let max_entries = NodeHeader::capacity(value_size);
        let nodes = count.div_ceil(u64::from(max_entries).max(1)).max(1);
        let mut level = Level {
            header: NodeHeader {
                flags,
                entries: 0,
                max_entries,
                value_size,
            },
            count,
            nodes,
            bytes: Box::new([0; BLOCK_SIZE]),
            first: 0,
            share: 0,
            done: Vec::new(),
        };
        level.share = level.share_of(0);
        level
    }

    /// How many entries node number `index` gets.
    fn share_of(&self, index: u64) -> u64 {
        let nodes = self.nodes.max(1);
        let more = u64::from(index < self.count % nodes);
        (self.count / nodes).saturating_add(more)
    }

    fn add(
        &mut self,
        transaction: &mut Transaction<'_>,
        key: u64,
        value: &[u8],
        used: &Counts,
    ) -> Result {
        if u64::from(self.header.entries) >= self.share {
            self.write(transaction, used)?;
        }
        let at = self.header.entries as usize;
        if at == 0 {
            self.first = key;
        }
        let put = |bytes: &mut BlockBytes, from: usize, what: &[u8]| {
            let to = from.saturating_add(what.len());
            if let Some(place) = bytes.get_mut(from..to) {
                place.copy_from_slice(what);
            }
        };
        let keys = NodeHeader::BYTES;
        let values = keys.saturating_add(
            (self.header.max_entries as usize).saturating_mul(NodeHeader::KEY_BYTES),
        );
        put(
            &mut self.bytes,
            keys.saturating_add(at.saturating_mul(NodeHeader::KEY_BYTES)),
            &key.to_le_bytes(),
        );
        put(
            &mut self.bytes,
            values.saturating_add(at.saturating_mul(value.len())),
            value,
        );
        self.header.entries = self.header.entries.saturating_add(1);
        Ok(())
    }

    fn write(&mut self, transaction: &mut Transaction<'_>, used: &Counts) -> Result {
        let block = transaction.allocate()?;
        used.add(block, 1);
        self.header.write(&mut self.bytes);
        transaction.write(BlockKind::Node, block, &self.bytes)?;
        self.done.push((self.first, block));
        self.bytes.fill(0);
        self.header.entries = 0;
        self.share = self.share_of(self.done.len() as u64);
        Ok(())
    }

    /// The first key and the block of each node.
    fn finish(
        mut self,
        transaction: &mut Transaction<'_>,
        used: &Counts,
    ) -> Result<Vec<(u64, u64)>> {
        if self.header.entries > 0 || self.done.is_empty() {
            self.write(transaction, used)?;
        }
        Ok(self.done)
    }
}

/// What [`set_right`] has done.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Blocks written.
    pub written: u64,
    /// Data blocks that are free now.
    pub free_data: u64,
    /// Metadata blocks that are free now.
    pub free_metadata: u64,
}

/// Makes both space maps say what [`crate::check::check`] found to be true, and the superblock's
/// time no earlier than any mapping's.
///
/// Bitmaps of the data device that are right already stay where they are. Of everything else a new
/// copy is written, in blocks that are free both in truth and in the present space map as far as
/// there are enough such.
///
/// # Errors
///
/// [`Error::NoSpace`] before anything is written. [`Error::Write`] and [`Error::Flush`] as for
/// [`Transaction::commit`].
pub fn set_right(store: &dyn Store, superblock: &Superblock, truth: Truth) -> Result<Change> {
    let data_root = superblock::data_space_map(superblock);
    let metadata_root = superblock::metadata_space_map(superblock);
    let blocks = metadata_root.blocks.min(truth.trees.blocks());
    let used = truth.trees;

    // What it takes, and what there is.
    let data_index = space_map::read_index(store, Which::Data, &data_root).unwrap_or_default();
    let kept = right_bitmaps(store, &data_index, &data_root, &truth.data, &truth.metadata);
    let bitmaps = bitmaps_for(data_root.blocks);
    let many_data = count_many(&truth.data);
    let old_counts = right_tree(store, &data_root, &truth.data);
    let many_metadata = count_many(&used);
    let metadata_bitmaps = bitmaps_for(blocks);
    let mut needed = bitmaps
        .saturating_sub(kept.iter().filter(|kept| **kept).count() as u64)
        .saturating_add(tree_nodes(IndexEntry::BYTES as u32, bitmaps))
        .saturating_add(metadata_bitmaps)
        .saturating_add(1)
        .saturating_add(tree_nodes(u32::BYTES, many_metadata));
    if old_counts.is_none() {
        needed = needed.saturating_add(tree_nodes(u32::BYTES, many_data));
    }
    let free = free_blocks(store, &metadata_root, blocks, &truth.metadata, needed);
    if (free.len() as u64) < needed {
        return Err(Error::NoSpace {
            needed,
            free: free.len() as u64,
        });
    }

    let mut transaction = Transaction::begin(store, free);
    let mut index = Vec::new();
    let mut allocated_data = 0u64;
    for place in 0..bitmaps {
        let at = usize::try_from(place).unwrap_or(usize::MAX);
        let (bytes, mut entry) = bitmap(&truth.data, place, data_root.blocks);
        let in_use = BITMAP_ENTRIES.saturating_sub(entry.free);
        allocated_data = allocated_data.saturating_add(in_use.into());
        let old = data_index
            .get(at)
            .filter(|_| kept.get(at).is_some_and(|kept| *kept));
        entry.bitmap = match old {
            Some(old) => {
                used.add(old.bitmap.0, 1);
                old.bitmap
            }
            None => {
                let block = transaction.allocate()?;
                used.add(block, 1);
                transaction.write(BlockKind::Bitmap, block, &bytes)?;
                MetadataBlock(block)
            }
        };
        index.push(entry);
    }
    let fill = |add: &mut Add<'_>| {
        (0u64..)
            .zip(&index)
            .try_for_each(|(place, entry)| add(place, &entry.to_bytes()))
    };
    let data_bitmap_root =
        transaction.write_tree(IndexEntry::BYTES as u32, bitmaps, fill, &used)?;
    let data_count_root = match old_counts {
        Some(nodes) => {
            nodes.iter().for_each(|node| used.add(*node, 1));
            data_root.reference_count_root.0
        }
        None => transaction.write_tree(u32::BYTES, many_data, many(&truth.data), &used)?,
    };

    // The metadata's own space map counts its own blocks: so first get them all, then write. None
    // of these blocks has more than one reference, so that the tree of large counts does not change
    // any more.
    let metadata_many = used.clone();
    let metadata_count_root =
        transaction.write_tree(u32::BYTES, many_metadata, many(&metadata_many), &used)?;
    let index_block = transaction.allocate()?;
    used.add(index_block, 1);
    let places: Vec<u64> = (0..metadata_bitmaps)
        .map(|_| transaction.allocate())
        .collect::<Result<_>>()?;
    places.iter().for_each(|block| used.add(*block, 1));
    let mut index_bytes = [0; BLOCK_SIZE];
    let mut allocated_metadata = 0u64;
    for (place, block) in (0u32..INDEX_ENTRIES).zip(places) {
        let (bytes, mut entry) = bitmap(&used, place.into(), blocks);
        let in_use = BITMAP_ENTRIES.saturating_sub(entry.free);
        allocated_metadata = allocated_metadata.saturating_add(in_use.into());
        entry.bitmap = MetadataBlock(block);
        entry.write(&mut index_bytes, place);
        transaction.write(BlockKind::Bitmap, block, &bytes)?;
    }
    transaction.write(BlockKind::Index, index_block, &index_bytes)?;

    let data = SpaceMapRoot {
        blocks: data_root.blocks,
        allocated: allocated_data,
        bitmap_root: MetadataBlock(data_bitmap_root),
        reference_count_root: MetadataBlock(data_count_root),
    };
    let metadata = SpaceMapRoot {
        blocks,
        allocated: allocated_metadata,
        bitmap_root: MetadataBlock(index_block),
        reference_count_root: MetadataBlock(metadata_count_root),
    };
    let written = transaction.commit(|superblock| {
        superblock.data_space_map_root = data.to_bytes();
        superblock.metadata_space_map_root = metadata.to_bytes();
        superblock.time = superblock.time.max(truth.latest);
    })?;
    Ok(Change {
        written,
        free_data: data.blocks.saturating_sub(allocated_data),
        free_metadata: blocks.saturating_sub(allocated_metadata),
    })
}

/// Bitmap number `place` of a space map of `blocks` blocks with these `counts`, and its index entry
/// but for where it is.
fn bitmap(counts: &Counts, place: u64, blocks: u64) -> (BlockBytes, IndexEntry) {
    let start = place.saturating_mul(PER_BITMAP);
    let length = blocks.saturating_sub(start).min(PER_BITMAP) as u32;
    let mut bytes = [0; BLOCK_SIZE];
    let (mut used, mut first_free) = (0u32, None);
    for (entry, block) in (0..length).zip(start..) {
        let count = counts.get(block).min(MANY_REFERENCES.into());
        if count == 0 {
            first_free.get_or_insert(entry);
            continue;
        }
        used = used.saturating_add(1);
        set_bitmap_count(&mut bytes, entry, count as u8);
    }
    let entry = IndexEntry {
        bitmap: MetadataBlock(0),
        // As the kernel has it: what lies beyond the end counts as free.
        free: BITMAP_ENTRIES.saturating_sub(used),
        none_free_before: first_free.unwrap_or(length),
    };
    (bytes, entry)
}

/// Which bitmaps can stay: those that say the truth and are nothing else.
fn right_bitmaps(
    store: &dyn Store,
    index: &[IndexEntry],
    root: &SpaceMapRoot,
    truth: &Counts,
    metadata: &Counts,
) -> Vec<bool> {
    let blocks = index.iter().map(|entry| entry.bitmap.0);
    let read = io::read_together(store, blocks);
    let right = |place: u64, entry: &IndexEntry, bytes: Result<Box<BlockBytes>>| {
        let block = entry.bitmap.0;
        let Ok(bytes) = bytes else { return false };
        if metadata.get(block) != 1 || Bitmap::verify(block, &bytes).is_err() {
            return false;
        }
        let (mut wanted, _) = bitmap(truth, place, root.blocks);
        checksum::seal(BlockKind::Bitmap, &mut wanted, block);
        // Four bytes of the header have no meaning.
        wanted.get(16..) == bytes.get(16..)
    };
    (0..)
        .zip(index)
        .zip(read)
        .map(|((place, entry), bytes)| right(place, entry, bytes))
        .collect()
}

/// The nodes of the tree of large counts, if it says the truth.
fn right_tree(store: &dyn Store, root: &SpaceMapRoot, truth: &Counts) -> Option<Vec<u64>> {
    let mut nodes = Vec::new();
    let mut entries = 0u64;
    let mut right = true;
    btree::walk(store, root.reference_count_root.0, u32::BYTES, &mut |at| {
        match at {
            Visit::Before(_) => return ControlFlow::Continue(()),
            Visit::Internal(child, _) => nodes.push(child.block),
            Visit::Leaf(child, leaf) => {
                nodes.push(child.block);
                for (block, count) in leaf.entries::<u32>() {
                    entries = entries.saturating_add(1);
                    right &= count > 2 && truth.get(block) == count;
                }
            }
            Visit::Bad(..) => right = false,
        }
        if right {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })
    .ok()?;
    (right && entries == count_many(truth)).then_some(nodes)
}

fn count_many(counts: &Counts) -> u64 {
    let mut count = 0u64;
    counts.for_each(MANY_REFERENCES.into(), &mut |_, _| {
        count = count.saturating_add(1)
    });
    count
}

/// Hands the counts that are too large for a bitmap to a writer of a tree.
fn many(counts: &Counts) -> impl FnOnce(&mut Add<'_>) -> Result + '_ {
    |add| {
        let mut result = Ok(());
        counts.for_each(MANY_REFERENCES.into(), &mut |block, count| {
            if result.is_ok() {
                result = add(block, &count.to_le_bytes());
            }
        });
        result
    }
}

/// Up to `needed` blocks that nothing refers to: first those that the present space map has as free
/// too.
fn free_blocks(
    store: &dyn Store,
    root: &SpaceMapRoot,
    blocks: u64,
    reachable: &Counts,
    needed: u64,
) -> Vec<u32> {
    let needed = usize::try_from(needed).unwrap_or(usize::MAX);
    let index = space_map::read_index(store, Which::Metadata, root).unwrap_or_default();
    let bitmaps = io::read_together(store, index.iter().map(|entry| entry.bitmap.0));
    let (mut free, mut leaked) = (Vec::new(), Vec::new());
    let mut block = 0u64;
    let mut sort = |in_use: bool| {
        if block < blocks && reachable.get(block) == 0 {
            let list = if in_use { &mut leaked } else { &mut free };
            if list.len() < needed {
                list.push(block as u32);
            }
        }
        block = block.saturating_add(1);
    };
    let mut bitmaps = index.iter().zip(bitmaps);
    for _ in 0..bitmaps_for(blocks) {
        let found = bitmaps.next();
        let bytes = found.and_then(|(entry, bytes)| Some((entry.bitmap.0, bytes.ok()?)));
        let bitmap = bytes.as_ref().map(|(at, bytes)| Bitmap::verify(*at, bytes));
        match bitmap {
            Some(Ok(bitmap)) => bitmap.entries().for_each(|count| sort(count != 0)),
            Some(Err(_)) | None => (0..PER_BITMAP).for_each(|_| sort(true)),
        }
    }
    free.extend(leaked);
    free.truncate(needed);
    free
}
