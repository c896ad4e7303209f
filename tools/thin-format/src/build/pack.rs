// SPDX-License-Identifier: GPL-2.0
//! Entries packed into nodes: as full as possible, the last two nodes of a level evenly.

use crate::block::BlockBytes;
use crate::block::BlockKind;
use crate::error::Result;
use crate::records::NodeHeader;

use super::counts::Counts;
use super::Allocated;

/// Entries that a node of mappings, or one that is not a leaf, has room for.
pub(super) const ROOM: usize = NodeHeader::capacity(8) as usize;

/// A value of a tree.
pub(super) trait Value: Copy {
    /// Bytes on disk.
    const BYTES: usize;
    /// Puts the value into its `BYTES` bytes.
    fn write(self, to: &mut [u8]);

    /// How many entries a node of such values has room for.
    fn room() -> usize {
        NodeHeader::capacity(Self::BYTES as u32) as usize
    }
}

impl Value for u64 {
    const BYTES: usize = 8;
    fn write(self, to: &mut [u8]) {
        to.copy_from_slice(&self.to_le_bytes());
    }
}

impl Value for u32 {
    const BYTES: usize = 4;
    fn write(self, to: &mut [u8]) {
        to.copy_from_slice(&self.to_le_bytes());
    }
}

impl<const N: usize> Value for [u8; N] {
    const BYTES: usize = N;
    fn write(self, to: &mut [u8]) {
        to.copy_from_slice(&self);
    }
}

/// A node, as its parent needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRef {
    /// The node's first key.
    pub key: u64,
    /// Where the node is.
    pub block: u64,
    /// How many entries it has.
    pub entries: u32,
}

/// Entries of a level that are not in a node yet, at most two nodes full of them.
pub(super) struct Packer<V> {
    is_leaf: bool,
    keys: Vec<u64>,
    values: Vec<V>,
    nodes: Vec<NodeRef>,
}

impl<V: Value> Packer<V> {
    pub(super) fn new(is_leaf: bool) -> Packer<V> {
        let room = V::room() * 2;
        Packer {
            is_leaf,
            keys: Vec::with_capacity(room),
            values: Vec::with_capacity(room),
            nodes: Vec::new(),
        }
    }

    /// Entries that are not in a node yet.
    pub(super) fn pending(&self) -> usize {
        self.keys.len()
    }

    /// The nodes so far.
    pub(super) fn nodes(&mut self) -> &mut Vec<NodeRef> {
        &mut self.nodes
    }

    /// How many more entries fit before a node has to be written.
    fn free(&self) -> usize {
        (V::room() * 2).saturating_sub(self.keys.len())
    }

    pub(super) fn push(&mut self, out: &mut Allocated<'_>, key: u64, value: V) -> Result {
        if self.free() == 0 {
            self.emit(out, V::room())?;
        }
        self.keys.push(key);
        self.values.push(value);
        Ok(())
    }

    /// Puts the first `count` pending entries into a node.
    fn emit(&mut self, out: &mut Allocated<'_>, count: usize) -> Result {
        let flags = if self.is_leaf {
            NodeHeader::LEAF
        } else {
            NodeHeader::INTERNAL
        };
        let keys = self.keys.get(..count).unwrap_or(&self.keys);
        let values = self.values.get(..count).unwrap_or(&self.values);
        let block = out.put(BlockKind::Node, |block| {
            write_node(block, flags, keys, values)
        })?;
        let key = keys.first().copied().unwrap_or(0);
        self.nodes.push(NodeRef {
            key,
            block,
            entries: keys.len() as u32,
        });
        self.keys.drain(..count.min(self.keys.len()));
        self.values.drain(..count.min(self.values.len()));
        Ok(())
    }

    /// Puts all pending entries into nodes, halves if they need two.
    pub(super) fn emit_all(&mut self, out: &mut Allocated<'_>) -> Result {
        let count = self.keys.len();
        if count > V::room() {
            self.emit(out, count / 2)?;
        }
        if !self.keys.is_empty() {
            self.emit(out, self.keys.len())?;
        }
        Ok(())
    }

    /// The nodes of the level; there is always one.
    pub(super) fn finish(mut self, out: &mut Allocated<'_>) -> Result<Vec<NodeRef>> {
        self.emit_all(out)?;
        if self.nodes.is_empty() {
            self.emit(out, 0)?;
        }
        Ok(self.nodes)
    }
}

impl Packer<u64> {
    /// Puts entries in front of the pending ones. Together they fit into two nodes.
    pub(super) fn prepend(&mut self, entries: Vec<(u64, u64)>) {
        self.keys.splice(0..0, entries.iter().map(|(key, _)| *key));
        self.values
            .splice(0..0, entries.iter().map(|(_, value)| *value));
    }

    /// Pushes `length` mappings of consecutive blocks to consecutive data blocks at once.
    pub(super) fn push_run(
        &mut self,
        out: &mut Allocated<'_>,
        key: u64,
        value: u64,
        step: u64,
        length: u64,
    ) -> Result {
        let mut done = 0;
        while done < length {
            if self.free() == 0 {
                self.emit(out, ROOM)?;
            }
            let part = (length - done).min(self.free() as u64);
            self.keys
                .extend((done..done + part).map(|index| key.wrapping_add(index)));
            self.values.extend(
                (done..done + part).map(|index| value.wrapping_add(index.wrapping_mul(step))),
            );
            done += part;
        }
        Ok(())
    }
}

/// Builds the levels above `nodes` and returns the root.
pub(super) fn internal_levels(out: &mut Allocated<'_>, mut nodes: Vec<NodeRef>) -> Result<NodeRef> {
    loop {
        if let [root] = nodes.as_slice() {
            return Ok(*root);
        }
        let mut level = Packer::<u64>::new(false);
        for node in &nodes {
            level.push(out, node.key, node.block)?;
        }
        nodes = level.finish(out)?;
    }
}

/// How many blocks the tree of `entries` entries takes, with values of type `V`.
pub(super) fn tree_blocks<V: Value>(entries: u64) -> u64 {
    let mut level = entries.div_ceil(V::room() as u64).max(1);
    let mut blocks = level;
    while level > 1 {
        level = level.div_ceil(ROOM as u64);
        blocks = blocks.saturating_add(level);
    }
    blocks
}

/// Fills a zeroed block with a node. Location and checksum are for the writer.
fn write_node<V: Value>(block: &mut BlockBytes, flags: u32, keys: &[u64], values: &[V]) {
    let room = V::room();
    let entries = keys.len() as u32;
    NodeHeader {
        flags,
        entries,
        max_entries: room as u32,
        value_size: V::BYTES as u32,
    }
    .write(block);
    let (key_bytes, value_bytes) = block
        .get_mut(NodeHeader::BYTES..)
        .unwrap_or_default()
        .split_at_mut(room * 8);
    for (place, key) in key_bytes.chunks_exact_mut(8).zip(keys) {
        place.copy_from_slice(&key.to_le_bytes());
    }
    for (place, value) in value_bytes.chunks_exact_mut(V::BYTES).zip(values) {
        value.write(place);
    }
}

/// Writes the tree of the counts above 2.
pub(super) fn large_counts(out: &mut Allocated<'_>, counts: &Counts) -> Result<u64> {
    let mut leaves = Packer::<u32>::new(true);
    for (block, count) in counts.large() {
        leaves.push(out, *block, *count)?;
    }
    let leaves = leaves.finish(out)?;
    Ok(internal_levels(out, leaves)?.block)
}
