// SPDX-License-Identifier: GPL-2.0
//! Reading all trees of the metadata together, each node exactly once.
//!
//! Snapshots share most of their nodes. Walking one device after the other reads shared nodes as
//! often as there are snapshots, in an order that suits no disk. A [`Forest`] goes down all trees
//! at once, layer by layer: the nodes of a layer are read in order of location by several threads,
//! and a node that two parents point to is in its layer once. What remains of a node is a summary
//! of a few bytes; key ranges and totals are then worked out upwards, when everything below is
//! known ([`Forest::sum_up`]).

use crate::block::{BlockBytes, BlockKind, MAX_METADATA_BLOCKS};
use crate::btree::{Child, Node, MAX_DEPTH};
use crate::counts::Counts;
use crate::error::{Error, Fault, Result};
use crate::io::{self, Store};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicU8, AtomicUsize, Ordering};
use std::sync::OnceLock;

/// What a metadata block is used as. A block used as two of them is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Use {
    /// A superblock, or the copy that a metadata snapshot is.
    Superblock = 1,
    /// A node of the tree of mapping trees.
    TopLevel,
    /// A node of a device's tree of mappings.
    Mapping,
    /// A node of the tree of device details.
    Details,
    /// A node of the tree that says where the data device's bitmaps are.
    DataIndex,
    /// A bitmap of the data device.
    DataBitmap,
    /// A node of the tree of the data device's large reference counts.
    DataCounts,
    /// The index block of the metadata device.
    MetadataIndex,
    /// A bitmap of the metadata device.
    MetadataBitmap,
    /// A node of the tree of the metadata device's large reference counts.
    MetadataCounts,
}

/// Nodes in a chunk of the table.
const CHUNK: usize = 1024;

/// Entries of internal nodes that are kept in memory, 12 bytes each; more are read again when they
/// are summed up.
const KEPT_ENTRIES: usize = 8 << 20;

/// What is known about the nodes in a run of blocks. Blocks that are not in use take no memory.
struct Chunk {
    first: Vec<AtomicU64>,
    last: Vec<AtomicU64>,
    entries: Vec<AtomicU32>,
    used_as: Vec<AtomicU8>,
    state: Vec<AtomicU8>,
    height: Vec<AtomicU8>,
}

/// The node was read and is a leaf or a sound internal node.
const READ: u8 = 1;
/// What is below the node is known: how many entries, and which keys.
const SUMMED: u8 = 2;
/// Something in the node, or below it, is wrong.
const TAINTED: u8 = 4;

impl Chunk {
    fn new() -> Chunk {
        fn zeroes<T: Default>() -> Vec<T> {
            (0..CHUNK).map(|_| T::default()).collect()
        }
        Chunk {
            first: zeroes(),
            last: zeroes(),
            entries: zeroes(),
            used_as: zeroes(),
            state: zeroes(),
            height: zeroes(),
        }
    }
}

/// The summary of a node.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// How many entries the leaves below it have.
    pub entries: u64,
    /// Levels below it; 0 for a leaf.
    pub height: u8,
    /// Whether something in it or below it is wrong, so that `entries` is only what could be read.
    pub tainted: bool,
    first: u64,
    last: u64,
    state: u8,
}

/// An internal node that waits to be summed up.
struct Pending {
    used_as: Use,
    block: u32,
    kept: Option<Kept>,
}

struct Kept {
    keys: Box<[u64]>,
    children: Box<[u32]>,
}

/// Whether a reference is the first to its block.
enum Claim {
    First,
    Again,
    Crossed,
}

/// All trees of a pool's metadata as they are read.
///
/// Memory: 23 bytes for each metadata block near one that is in use, 12 for each entry of an
/// internal node up to 96 MiB, and the metadata's own [`Counts`].
pub struct Forest<'a> {
    store: &'a dyn Store,
    limit: u64,
    threads: usize,
    chunks: Vec<OnceLock<Box<Chunk>>>,
    counts: Counts,
    pending: Vec<Pending>,
    kept: AtomicUsize,
    /// How many entries are kept at most.
    keep: usize,
    errors: Vec<Error>,
    error_count: u64,
    underfull: u64,
}

/// Errors that are kept one by one; of more, only the number is known.
const MAX_ERRORS: usize = 1000;

/// What a thread brings back from a layer.
struct Layer<S> {
    state: S,
    next: Vec<u32>,
    pending: Vec<Pending>,
    errors: Vec<Error>,
    error_count: u64,
    underfull: u64,
}

impl<S> Layer<S> {
    fn fail(&mut self, error: Error) {
        self.error_count = self.error_count.saturating_add(1);
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        }
    }
}

impl<'a> Forest<'a> {
    /// Nothing read yet. `threads` is how many read at a time.
    pub fn new(store: &'a dyn Store, threads: usize) -> Forest<'a> {
        let limit = store.blocks().min(MAX_METADATA_BLOCKS);
        let chunks = limit.div_ceil(CHUNK as u64);
        Forest {
            store,
            limit,
            threads,
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
            counts: Counts::new(limit),
            pending: Vec::new(),
            kept: AtomicUsize::new(0),
            keep: KEPT_ENTRIES,
            errors: Vec::new(),
            error_count: 0,
            underfull: 0,
        }
    }

    /// How many references each metadata block has, from all that was read so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What was wrong with nodes since this was last asked: the first 1000, and how many in all.
    pub fn take_errors(&mut self) -> (Vec<Error>, u64) {
        (
            std::mem::take(&mut self.errors),
            std::mem::take(&mut self.error_count),
        )
    }

    /// How many nodes other than roots are less than a third full. The kernel does not leave such
    /// nodes behind, but reads them.
    pub fn underfull(&self) -> u64 {
        self.underfull
    }

    /// Notes a reference to a block, and returns whether it is the first. References to nodes are
    /// noted by [`Forest::read`].
    ///
    /// # Errors
    ///
    /// [`Fault::ChildOutOfRange`], [`Fault::Crossed`].
    pub fn refer(&mut self, used_as: Use, block: u64) -> std::result::Result<bool, Fault> {
        if block >= self.limit {
            return Err(Fault::ChildOutOfRange { child: block });
        }
        self.counts.add(block, 1);
        match self.claim(used_as, block) {
            Claim::First => Ok(true),
            Claim::Again => Ok(false),
            Claim::Crossed => Err(Fault::Crossed),
        }
    }

    /// Reads the trees at `roots` (one reference for each), whose leaves have values of
    /// `value_size` bytes, as far as they were not read before.
    ///
    /// Each thread makes a state with `start` and hands each leaf, once, to `leaf`, which says
    /// whether the leaf's contents are right. `advance` is told how many more nodes were read. The
    /// states are given back.
    pub fn read<S, M, L>(
        &mut self,
        used_as: Use,
        value_size: u32,
        roots: &[u64],
        advance: &(dyn Fn(u64) + Sync),
        start: M,
        leaf: L,
    ) -> Vec<S>
    where
        S: Send,
        M: Fn() -> S + Sync,
        L: Fn(&mut S, u64, Node<'_>) -> bool + Sync,
    {
        let mut layer = Vec::new();
        for root in roots {
            match self.refer(used_as, *root) {
                Ok(true) => layer.push(*root as u32),
                Ok(false) => {}
                Err(fault) => self.fail(Error::block(*root, BlockKind::Node, fault)),
            }
        }
        let mut states = Vec::new();
        for depth in 0.. {
            if layer.is_empty() {
                break;
            }
            layer.sort_unstable();
            if depth > MAX_DEPTH {
                for block in layer {
                    self.taint(block.into());
                    self.fail(Error::block(block.into(), BlockKind::Node, Fault::TooDeep));
                }
                break;
            }
            let forest = &*self;
            let begin = || Layer {
                state: start(),
                next: Vec::new(),
                pending: Vec::new(),
                errors: Vec::new(),
                error_count: 0,
                underfull: 0,
            };
            let results = io::read_blocks(
                self.store,
                &layer,
                self.threads,
                begin,
                |layer: &mut Layer<S>, block, bytes| {
                    advance(1);
                    let node = match &bytes {
                        Ok(bytes) => Node::verify(block, bytes, value_size),
                        Err(error) => Err(error.clone()),
                    };
                    match node {
                        Ok(node) => {
                            let third = node.header().max_entries / 3;
                            if depth > 0 && node.header().entries < third {
                                layer.underfull = layer.underfull.saturating_add(1);
                            }
                            if node.is_leaf() {
                                let right = leaf(&mut layer.state, block, node);
                                forest.note_leaf(block, &node, right);
                            } else {
                                forest.note_internal(used_as, block, &node, layer);
                            }
                        }
                        Err(error) => {
                            forest.taint(block);
                            layer.fail(error);
                        }
                    }
                },
            );
            layer.clear();
            for result in results {
                states.push(result.state);
                layer.extend(result.next);
                self.pending.extend(result.pending);
                self.underfull = self.underfull.saturating_add(result.underfull);
                self.error_count = self.error_count.saturating_add(result.error_count);
                let room = MAX_ERRORS.saturating_sub(self.errors.len());
                self.errors.extend(result.errors.into_iter().take(room));
            }
        }
        states
    }

    /// Works out what is below each internal node that was read, and checks that key ranges, and
    /// the lengths of branches, fit together.
    pub fn sum_up(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        // One layer of each tree is summed up per round.
        for _ in 0..=MAX_DEPTH {
            if pending.is_empty() {
                break;
            }
            let before = pending.len();
            let mut later = Vec::new();
            let mut unread = Vec::new();
            for node in pending {
                match &node.kept {
                    Some(kept) => {
                        let children = kept
                            .keys
                            .iter()
                            .copied()
                            .zip(kept.children.iter().map(|child| u64::from(*child)));
                        match self.sum_up_node(node.used_as, node.block.into(), children) {
                            Ok(()) => {}
                            Err(NotYet) => later.push(node),
                        }
                    }
                    None => unread.push(node),
                }
            }
            later.extend(self.sum_up_unread(unread));
            pending = later;
            if pending.len() == before {
                break;
            }
        }
        self.kept.store(0, Relaxed);
        // Only nodes that are below themselves are left.
        for node in pending {
            self.taint(node.block.into());
            self.fail(Error::block(
                node.block.into(),
                BlockKind::Node,
                Fault::Crossed,
            ));
        }
    }

    /// The summary of a node that was read and summed up, or is tainted; `None` if the block is not
    /// used as such.
    pub fn summary(&self, used_as: Use, block: u64) -> Option<Summary> {
        let (chunk, at) = self.place(block)?;
        let chunk = chunk.get()?;
        let used_so = chunk.used_as.get(at)?.load(Relaxed);
        if used_so != used_as as u8 {
            return None;
        }
        let state = chunk.state.get(at)?.load(Ordering::Acquire);
        Some(Summary {
            entries: chunk.entries.get(at)?.load(Relaxed).into(),
            height: chunk.height.get(at)?.load(Relaxed),
            tainted: state & TAINTED != 0,
            first: chunk.first.get(at)?.load(Relaxed),
            last: chunk.last.get(at)?.load(Relaxed),
            state,
        })
    }

    /// Whether everything in and below a node is right, and its keys are those that its parent
    /// leaves to it.
    pub fn is_sound(&self, used_as: Use, child: &Child) -> bool {
        self.summary(used_as, child.block).is_some_and(|summary| {
            let fits =
                summary.first >= child.begin && child.end.is_none_or(|end| summary.last < end);
            let empty = summary.entries == 0 && summary.height == 0;
            !summary.tainted && (fits || empty)
        })
    }

    fn fail(&mut self, error: Error) {
        self.error_count = self.error_count.saturating_add(1);
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        }
    }

    fn place(&self, block: u64) -> Option<(&OnceLock<Box<Chunk>>, usize)> {
        let chunk = self.chunks.get(usize::try_from(block).ok()? / CHUNK)?;
        Some((chunk, (block % CHUNK as u64) as usize))
    }

    /// The chunk of a block that is in use, made if need be.
    fn chunk(&self, block: u64) -> Option<(&Chunk, usize)> {
        let (chunk, at) = self.place(block)?;
        Some((chunk.get_or_init(|| Box::new(Chunk::new())), at))
    }

    fn claim(&self, used_as: Use, block: u64) -> Claim {
        let place = self
            .chunk(block)
            .and_then(|(chunk, at)| chunk.used_as.get(at));
        let Some(place) = place else {
            return Claim::Crossed;
        };
        match place.compare_exchange(0, used_as as u8, Relaxed, Relaxed) {
            Ok(_) => Claim::First,
            Err(before) if before == used_as as u8 => Claim::Again,
            Err(_) => Claim::Crossed,
        }
    }

    fn note(&self, block: u64, first: u64, last: u64, entries: u64, height: u8, state: u8) {
        let Some((chunk, at)) = self.chunk(block) else {
            return;
        };
        fn set<T>(places: &[T], at: usize, set: impl FnOnce(&T)) {
            if let Some(place) = places.get(at) {
                set(place);
            }
        }
        set(&chunk.first, at, |place| place.store(first, Relaxed));
        set(&chunk.last, at, |place| place.store(last, Relaxed));
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        set(&chunk.entries, at, |place| place.store(entries, Relaxed));
        set(&chunk.height, at, |place| place.store(height, Relaxed));
        set(&chunk.state, at, |place| {
            // Whoever sees that the node is summed up has to see what it was summed up to.
            place.fetch_or(state, Ordering::Release);
        });
    }

    fn taint(&self, block: u64) {
        if let Some(state) = self
            .chunk(block)
            .and_then(|(chunk, at)| chunk.state.get(at))
        {
            state.fetch_or(TAINTED, Relaxed);
        }
    }

    fn note_leaf(&self, block: u64, node: &Node<'_>, right: bool) {
        let state = READ | SUMMED | if right { 0 } else { TAINTED };
        let (first, last) = (node.first_key().unwrap_or(0), node.last_key().unwrap_or(0));
        self.note(block, first, last, node.len() as u64, 0, state);
    }

    fn note_internal<S>(&self, used_as: Use, block: u64, node: &Node<'_>, layer: &mut Layer<S>) {
        let first = node.first_key().unwrap_or(0);
        self.note(block, first, node.last_key().unwrap_or(0), 0, 0, READ);
        for child in node.values::<u64>() {
            if child >= self.limit {
                self.taint(block);
                layer.fail(Error::block(
                    block,
                    BlockKind::Node,
                    Fault::ChildOutOfRange { child },
                ));
                continue;
            }
            self.counts.add(child, 1);
            match self.claim(used_as, child) {
                Claim::First => layer.next.push(child as u32),
                Claim::Again => {}
                Claim::Crossed => {
                    self.taint(block);
                    layer.fail(Error::block(child, BlockKind::Node, Fault::Crossed));
                }
            }
        }
        let keep = self.kept.fetch_add(node.len(), Relaxed) < self.keep;
        let kept = keep.then(|| Kept {
            keys: node.keys().collect(),
            // Blocks beyond the limit were reported; no block has this number.
            children: node
                .values::<u64>()
                .map(|child| u32::try_from(child).unwrap_or(u32::MAX))
                .collect(),
        });
        layer.pending.push(Pending {
            used_as,
            block: block as u32,
            kept,
        });
    }

    /// Sums up internal nodes that were not kept. Returns those for which it is too early.
    fn sum_up_unread(&mut self, mut nodes: Vec<Pending>) -> Vec<Pending> {
        nodes.sort_unstable_by_key(|node| node.block);
        let blocks: Vec<u32> = nodes.iter().map(|node| node.block).collect();
        let used_as = |block: u64| {
            let at = nodes.partition_point(|node| u64::from(node.block) < block);
            nodes.get(at).map_or(Use::Mapping, |node| node.used_as)
        };
        let forest = &*self;
        let read = io::read_blocks(
            self.store,
            &blocks,
            self.threads,
            || (Vec::new(), Vec::new()),
            |(later, errors): &mut (Vec<Pending>, Vec<Error>),
             block,
             bytes: Result<&BlockBytes>| {
                let node = match bytes {
                    Ok(bytes) => Node::verify_any(block, bytes),
                    Err(error) => Err(error),
                };
                let node = match node {
                    Ok(node) => node,
                    // It was sound a moment ago: the device is failing.
                    Err(error) => {
                        forest.note(block, 0, 0, 0, 1, SUMMED | TAINTED);
                        errors.push(error);
                        return;
                    }
                };
                let used_as = used_as(block);
                match forest.sums(used_as, block, node.entries::<u64>()) {
                    Ok(found) => errors.extend(found),
                    Err(NotYet) => later.push(Pending {
                        used_as,
                        block: block as u32,
                        kept: None,
                    }),
                }
            },
        );
        let mut again = Vec::new();
        for (later, errors) in read {
            again.extend(later);
            errors.into_iter().for_each(|error| self.fail(error));
        }
        again
    }

    fn sum_up_node(
        &mut self,
        used_as: Use,
        block: u64,
        children: impl Iterator<Item = (u64, u64)> + Clone,
    ) -> std::result::Result<(), NotYet> {
        let errors = self.sums(used_as, block, children)?;
        errors.into_iter().for_each(|error| self.fail(error));
        Ok(())
    }

    /// Sums up one internal node from its keys and children, if all of those are summed up.
    fn sums(
        &self,
        used_as: Use,
        block: u64,
        children: impl Iterator<Item = (u64, u64)> + Clone,
    ) -> std::result::Result<Vec<Error>, NotYet> {
        let known = |summary: &Summary| summary.state & SUMMED != 0;
        let settled = |child: u64| match self.summary(used_as, child) {
            // A tainted node that was not even read stays as it is.
            Some(summary) => known(&summary) || (summary.tainted && summary.state & READ == 0),
            None => true,
        };
        if !children.clone().all(|(_, child)| settled(child)) {
            return Err(NotYet);
        }
        let mut errors = Vec::new();
        let mut tainted = false;
        let (mut entries, mut last, mut height) = (0u64, 0u64, None);
        let first = children.clone().next().map_or(0, |(key, _)| key);
        let ends = children
            .clone()
            .skip(1)
            .map(|(key, _)| Some(key))
            .chain([None]);
        for ((begin, child), end) in children.zip(ends) {
            last = last.max(begin);
            let Some(summary) = self.summary(used_as, child).filter(known) else {
                tainted = true;
                continue;
            };
            let mut wrong = |fault| {
                tainted = true;
                if errors.len() < MAX_ERRORS {
                    errors.push(Error::block(child, BlockKind::Node, fault));
                }
            };
            if summary.entries > 0 || summary.height > 0 {
                if summary.first < begin {
                    wrong(Fault::KeyRange { key: summary.first });
                } else if end.is_some_and(|end| summary.last >= end) {
                    wrong(Fault::KeyRange { key: summary.last });
                }
                last = last.max(summary.last);
            }
            if *height.get_or_insert(summary.height) != summary.height {
                wrong(Fault::Unbalanced);
            }
            tainted |= summary.tainted;
            entries = entries.saturating_add(summary.entries);
        }
        let height = height.unwrap_or(0).saturating_add(1);
        let state = READ | SUMMED | if tainted { TAINTED } else { 0 };
        self.note(block, first, last, entries, height, state);
        Ok(errors)
    }
}

/// Something below the node is not summed up yet.
struct NotYet;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BLOCK_SIZE;
    use crate::checksum;
    use crate::io::Memory;
    use crate::records::NodeHeader;

    /// Writes a node with these entries.
    fn node(store: &Memory, block: u64, flags: u32, entries: &[(u64, u64)]) {
        let mut bytes = [0; BLOCK_SIZE];
        let header = NodeHeader {
            flags,
            entries: entries.len() as u32,
            max_entries: 252,
            value_size: 8,
        };
        header.write(&mut bytes);
        for (at, (key, value)) in entries.iter().enumerate() {
            bytes[32 + 8 * at..][..8].copy_from_slice(&key.to_le_bytes());
            bytes[32 + 8 * (252 + at)..][..8].copy_from_slice(&value.to_le_bytes());
        }
        checksum::seal(BlockKind::Node, &mut bytes, block);
        store.write_block(block, &bytes).unwrap();
    }

    fn read<'a>(store: &'a Memory, keep: usize, roots: &[u64]) -> (Forest<'a>, Vec<u64>) {
        let mut forest = Forest::new(store, 2);
        forest.keep = keep;
        let note = |seen: &mut Vec<u64>, block, _: Node<'_>| {
            seen.push(block);
            true
        };
        let seen = forest.read(Use::Mapping, 8, roots, &|_| {}, Vec::new, note);
        forest.sum_up();
        let mut seen: Vec<u64> = seen.into_iter().flatten().collect();
        seen.sort_unstable();
        (forest, seen)
    }

    #[test]
    fn shared_nodes_are_read_once_and_summed_up_for_each_tree() {
        let store = Memory::new(20);
        for (block, first) in [(10, 0), (11, 100), (12, 200), (13, 200)] {
            let entries: Vec<_> = (0..90).map(|at| (first + at, at << 24)).collect();
            node(&store, block, NodeHeader::LEAF, &entries);
        }
        node(
            &store,
            2,
            NodeHeader::INTERNAL,
            &[(0, 10), (100, 11), (200, 12)],
        );
        node(
            &store,
            3,
            NodeHeader::INTERNAL,
            &[(0, 10), (100, 11), (200, 13)],
        );
        node(&store, 4, NodeHeader::INTERNAL, &[(0, 3)]);
        // Whether internal nodes are kept or read again makes no difference.
        for keep in [0, 5, 1000] {
            let (mut forest, seen) = read(&store, keep, &[2, 3, 4, 2]);
            assert_eq!(seen, [10, 11, 12, 13]);
            assert_eq!(forest.take_errors().1, 0);
            for (root, height) in [(2, 1), (3, 1), (4, 2)] {
                let summary = forest.summary(Use::Mapping, root).unwrap();
                assert_eq!((summary.entries, summary.height), (270, height));
                assert!(!summary.tainted);
            }
            let counts = [2, 3, 4, 10, 11, 12, 13].map(|block| forest.counts().get(block));
            assert_eq!(counts, [2, 2, 1, 2, 2, 1, 1]);
        }
    }

    #[test]
    fn trees_without_a_bottom_are_errors() {
        // One that is its own child, two that are each other's, and one that goes on and on.
        let store = Memory::new(300);
        node(&store, 1, NodeHeader::INTERNAL, &[(0, 1)]);
        node(&store, 2, NodeHeader::INTERNAL, &[(0, 3)]);
        node(&store, 3, NodeHeader::INTERNAL, &[(0, 2)]);
        for block in 10..290 {
            node(&store, block, NodeHeader::INTERNAL, &[(0, block + 1)]);
        }
        for keep in [0, 1000] {
            for root in [1, 2, 10] {
                let (mut forest, seen) = read(&store, keep, &[root]);
                assert!(seen.is_empty());
                assert!(forest.take_errors().1 > 0);
                assert!(forest.summary(Use::Mapping, root).unwrap().tainted);
            }
        }
    }

    #[test]
    fn a_block_is_only_one_thing() {
        let store = Memory::new(20);
        node(&store, 5, NodeHeader::LEAF, &[]);
        let (mut forest, _) = read(&store, 100, &[5]);
        assert_eq!(forest.refer(Use::DataBitmap, 5), Err(Fault::Crossed));
        assert!(forest.summary(Use::Details, 5).is_none());
        let beyond = Fault::ChildOutOfRange { child: 20 };
        assert_eq!(forest.refer(Use::DataBitmap, 20), Err(beyond));
    }
}
