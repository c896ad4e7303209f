// SPDX-License-Identifier: GPL-2.0
//! Btrees: nodes, and walking entries in order.
//!
//! A tree is made of nodes of one block each. An internal node has, for each child, a key that is
//! no greater than any key below that child; a leaf has keys and values. All leaves are equally far
//! from the root, but functions here do not need that: the key ranges that parents leave to their
//! children bound every walk, also through metadata made to trap us.

use crate::block::{BlockBytes, BlockKind};
use crate::checksum;
use crate::error::{Error, Fault, Result};
use crate::io::Store;
use crate::records::{DeviceDetails, IndexEntry, NodeError, NodeHeader, PackedMapping};
use std::ops::ControlFlow;

/// No tree is deeper: each level has at least twice the entries of the one above, and keys have 64
/// bits.
pub const MAX_DEPTH: usize = 64;

/// Something that the leaves of a tree have as values.
pub trait Value: Copy + 'static {
    /// Bytes of a value.
    const BYTES: u32;

    /// Takes a value out of exactly [`Value::BYTES`] bytes.
    fn unpack(bytes: &[u8]) -> Self;
}

impl Value for u64 {
    const BYTES: u32 = 8;
    fn unpack(bytes: &[u8]) -> u64 {
        crate::block::u64_at(bytes, 0)
    }
}

impl Value for u32 {
    const BYTES: u32 = 4;
    fn unpack(bytes: &[u8]) -> u32 {
        crate::block::u32_at(bytes, 0)
    }
}

impl Value for PackedMapping {
    const BYTES: u32 = PackedMapping::BYTES as u32;
    fn unpack(bytes: &[u8]) -> PackedMapping {
        PackedMapping::from_bytes(bytes.first_chunk().copied().unwrap_or_default())
    }
}

impl Value for DeviceDetails {
    const BYTES: u32 = DeviceDetails::BYTES as u32;
    fn unpack(bytes: &[u8]) -> DeviceDetails {
        DeviceDetails::from_bytes(bytes.first_chunk().copied().unwrap_or_default())
    }
}

impl Value for IndexEntry {
    const BYTES: u32 = IndexEntry::BYTES as u32;
    fn unpack(bytes: &[u8]) -> IndexEntry {
        IndexEntry::from_bytes(bytes.first_chunk().copied().unwrap_or_default())
    }
}

/// A verified node, still in its block.
///
/// # Invariants
///
/// The header describes entries that lie inside the block; exactly one of the two flags is set; the
/// keys ascend strictly; an internal node has at least one child and values of 8 bytes.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    header: NodeHeader,
    bytes: &'a BlockBytes,
}

impl<'a> Node<'a> {
    /// Verifies `bytes`, read from `block`, as a node of a tree whose leaves have values of
    /// `value_size` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Block`] with the first [`Fault`] found: checksum first, then location, then shape,
    /// then keys.
    pub fn verify(block: u64, bytes: &'a BlockBytes, value_size: u32) -> Result<Node<'a>> {
        checksum::check(BlockKind::Node, bytes, block)?;
        Node::shape(bytes, Some(value_size))
            .map_err(|fault| Error::block(block, BlockKind::Node, fault))
    }

    /// As [`Node::verify`], for a node of any tree.
    ///
    /// # Errors
    ///
    /// As for [`Node::verify`].
    pub fn verify_any(block: u64, bytes: &'a BlockBytes) -> Result<Node<'a>> {
        checksum::check(BlockKind::Node, bytes, block)?;
        Node::shape(bytes, None).map_err(|fault| Error::block(block, BlockKind::Node, fault))
    }

    /// Verifies shape and keys only.
    ///
    /// # Errors
    ///
    /// The first [`Fault`] found.
    pub fn shape(
        bytes: &'a BlockBytes,
        value_size: Option<u32>,
    ) -> std::result::Result<Node<'a>, Fault> {
        let header = NodeHeader::read(bytes);
        header.check().map_err(|error| match error {
            NodeError::TooLarge | NodeError::TooMany => Fault::Entries {
                entries: header.entries,
                room: header.max_entries,
            },
            NodeError::Kind => Fault::NodeFlags(header.flags),
        })?;
        if header.flags != NodeHeader::INTERNAL && header.flags != NodeHeader::LEAF {
            return Err(Fault::NodeFlags(header.flags));
        }
        let expected = if header.is_leaf() {
            value_size
        } else {
            Some(u64::BYTES)
        };
        if let Some(expected) = expected.filter(|expected| *expected != header.value_size) {
            return Err(Fault::ValueSize {
                found: header.value_size,
                expected,
            });
        }
        if !header.is_leaf() && header.entries == 0 {
            return Err(Fault::Childless);
        }
        let node = Node { header, bytes };
        // Without an early end the comparisons overlap: this is run over every key of a check.
        let ascends = |(before, key): (u64, u64)| before < key;
        let pairs = || node.keys().zip(node.keys().skip(1));
        if !pairs().fold(true, |so_far, pair| so_far & ascends(pair)) {
            let entry = pairs().take_while(|pair| ascends(*pair)).count();
            let entry = u32::try_from(entry).unwrap_or(u32::MAX).saturating_add(1);
            return Err(Fault::KeyOrder { entry });
        }
        Ok(node)
    }

    /// The node's header.
    pub fn header(&self) -> NodeHeader {
        self.header
    }

    /// Whether it is a leaf, rather than internal.
    pub fn is_leaf(&self) -> bool {
        self.header.is_leaf()
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.header.entries as usize
    }

    /// Whether it has no entries; only a leaf can be so.
    pub fn is_empty(&self) -> bool {
        self.header.entries == 0
    }

    /// Its keys, ascending.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = u64> + ExactSizeIterator + Clone + 'a {
        self.header
            .keys(self.bytes)
            .chunks_exact(NodeHeader::KEY_BYTES)
            .map(u64::unpack)
    }

    /// Its smallest key.
    pub fn first_key(&self) -> Option<u64> {
        self.keys().next()
    }

    /// Its greatest key.
    pub fn last_key(&self) -> Option<u64> {
        self.keys().next_back()
    }

    /// Its values, in the order of the keys; nothing if the node's values have another size than
    /// `V`.
    pub fn values<V: Value>(
        &self,
    ) -> impl DoubleEndedIterator<Item = V> + ExactSizeIterator + Clone + 'a {
        let values = self.header.values(self.bytes);
        let values = if self.header.value_size == V::BYTES {
            values
        } else {
            &[]
        };
        values
            .chunks_exact((V::BYTES as usize).max(1))
            .map(V::unpack)
    }

    /// Keys with their values; nothing if the node's values have another size than `V`.
    pub fn entries<V: Value>(
        &self,
    ) -> impl DoubleEndedIterator<Item = (u64, V)> + ExactSizeIterator + Clone + 'a {
        self.keys().zip(self.values())
    }

    /// The children of an internal node, each with the keys that belong below it: from the first,
    /// up to, not including, the second. `end` is where the node's own range ends, `None` for no
    /// end.
    pub fn children(&self, end: Option<u64>) -> impl Iterator<Item = Child> + 'a {
        let ends = self.keys().skip(1).map(Some).chain([end]);
        let entries = if self.is_leaf() { 0 } else { self.len() };
        self.entries::<u64>()
            .zip(ends)
            .take(entries)
            .map(|((begin, block), end)| Child { block, begin, end })
    }

    /// Checks that all keys lie in the range that the parent leaves to this node.
    ///
    /// # Errors
    ///
    /// [`Fault::KeyRange`].
    pub fn check_range(&self, begin: u64, end: Option<u64>) -> std::result::Result<(), Fault> {
        if let Some(key) = self.first_key().filter(|key| *key < begin) {
            return Err(Fault::KeyRange { key });
        }
        if let Some(key) = self
            .last_key()
            .filter(|key| end.is_some_and(|end| *key >= end))
        {
            return Err(Fault::KeyRange { key });
        }
        Ok(())
    }
}

/// A child of an internal node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its block.
    pub block: u64,
    /// No key below it is less.
    pub begin: u64,
    /// All keys below it are less, if there is such a bound.
    pub end: Option<u64>,
}

impl Child {
    /// The root of a tree, which may have any keys.
    pub fn root(block: u64) -> Child {
        Child {
            block,
            begin: 0,
            end: None,
        }
    }
}

/// Verifies a node as the child that its parent describes.
///
/// # Errors
///
/// [`Error::Block`] with the first [`Fault`] found.
pub fn verify_child<'a>(child: &Child, bytes: &'a BlockBytes, value_size: u32) -> Result<Node<'a>> {
    let node = Node::verify(child.block, bytes, value_size)?;
    node.check_range(child.begin, child.end)
        .map_err(|fault| Error::block(child.block, BlockKind::Node, fault))?;
    Ok(node)
}

/// What a visitor of [`walk`] is shown.
pub enum Visit<'a> {
    /// A node is about to be read. `Break` leaves it and all below it out.
    Before(&'a Child),
    /// A verified internal node, before its children.
    Internal(&'a Child, Node<'a>),
    /// A verified leaf, in order of keys.
    Leaf(&'a Child, Node<'a>),
    /// A node that cannot be used: the keys from `begin` to `end` of the child are lost. `Break`
    /// ends the walk with the error, `Continue` goes on with the next node.
    Bad(&'a Child, &'a Error),
}

/// Walks the tree at `root`, whose leaves have values of `value_size` bytes, in order of keys.
///
/// The children of an internal node are read together, so that neighbours come with one read.
/// Memory: the siblings of the nodes on the way down, at most one node's worth (1 MiB) per level.
///
/// `Break` from the visitor, other than for [`Visit::Before`], ends the walk.
///
/// # Errors
///
/// The error that the visitor broke off at.
pub fn walk(
    store: &dyn Store,
    root: u64,
    value_size: u32,
    visit: &mut dyn FnMut(Visit<'_>) -> ControlFlow<()>,
) -> Result {
    walk_below(store, &[Child::root(root)], value_size, 0, visit).map(|_| ())
}

fn walk_below(
    store: &dyn Store,
    children: &[Child],
    value_size: u32,
    depth: usize,
    visit: &mut dyn FnMut(Visit<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let wanted: Vec<Child> = children
        .iter()
        .filter(|child| visit(Visit::Before(child)).is_continue())
        .copied()
        .collect();
    for (child, bytes) in wanted.iter().zip(crate::io::read_together(
        store,
        wanted.iter().map(|child| child.block),
    )) {
        let node = match &bytes {
            _ if depth >= MAX_DEPTH => {
                Err(Error::block(child.block, BlockKind::Node, Fault::TooDeep))
            }
            Ok(bytes) => verify_child(child, bytes, value_size),
            Err(error) => Err(error.clone()),
        };
        let node = match node {
            Ok(node) => node,
            Err(error) => {
                if visit(Visit::Bad(child, &error)).is_break() {
                    return Err(error);
                }
                continue;
            }
        };
        if node.is_leaf() {
            if visit(Visit::Leaf(child, node)).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            continue;
        }
        if visit(Visit::Internal(child, node)).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let below: Vec<Child> = node.children(child.end).collect();
        if walk_below(store, &below, value_size, depth.saturating_add(1), visit)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Hands every entry of the tree at `root` with a key from `begin` up to, not including, `end` to
/// `visit`, in order of keys, until that breaks. Nodes outside of the range are not read.
///
/// # Errors
///
/// The first [`Error::Read`] or [`Error::Block`] of a node inside the range.
pub fn entries<V: Value>(
    store: &dyn Store,
    root: u64,
    begin: u64,
    end: Option<u64>,
    visit: &mut dyn FnMut(u64, V) -> ControlFlow<()>,
) -> Result {
    let before_end = |key: u64| end.is_none_or(|end| key < end);
    walk(store, root, V::BYTES, &mut |at| match at {
        Visit::Before(child)
            if !before_end(child.begin) || child.end.is_some_and(|end| end <= begin) =>
        {
            ControlFlow::Break(())
        }
        Visit::Leaf(_, leaf) => {
            for (key, value) in leaf
                .entries()
                .filter(|(key, _)| *key >= begin && before_end(*key))
            {
                visit(key, value)?;
            }
            ControlFlow::Continue(())
        }
        Visit::Bad(..) => ControlFlow::Break(()),
        Visit::Before(_) | Visit::Internal(..) => ControlFlow::Continue(()),
    })
}
