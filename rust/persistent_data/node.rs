// SPDX-License-Identifier: GPL-2.0

//! The nodes of trees, without the library.
//!
//! The library trusts nodes whose checksum is right. It follows trees that contain themselves for ever,
//! and writes behind the end of a block whose values are of another size than those of its tree. So
//! before it gets to see a part of a tree, that is walked here, where all of it is checked; and what is
//! only looked up is looked up here.
//!
//! The cache knows a block's kind by its validator, and the one of nodes is private to the library.
//! [`NodeKind::find`] gets at it by looking where the library keeps it, which is found out by how it
//! keeps one of ours.

use super::{
    block_manager::{
        BlockManager,
        ReadBlock,
        Record,
        Validator,
        WriteBlock, //
    },
    to_result,
    value_type::Shape, //
};
use crate::{
    bindings,
    core::{
        errno::{
            Errno,
            Result, //
        },
        format::{
            Block,
            NodeHeader, //
        }, //
    }, //
};
use core::{
    mem::MaybeUninit,
    ptr, //
};

/// More levels than any tree has that fits on a device.
pub(super) const MAX_DEPTH: usize = 16;

/// Bytes of the values of internal nodes.
const CHILD_SIZE: u32 = size_of::<u64>() as u32;

/// What the cache knows nodes by.
///
/// # Invariants
///
/// The validator of nodes that the library has.
#[derive(Clone, Copy)]
pub(super) struct NodeKind(*const bindings::dm_block_validator);

// SAFETY: The validator never changes.
unsafe impl Send for NodeKind {}
// SAFETY: As before.
unsafe impl Sync for NodeKind {}

/// What the library knows the kind of a locked block by.
///
/// # Safety
///
/// The block must be locked. The result is only right if the library keeps that where it did in the
/// versions that we know.
unsafe fn kind_of(block: *mut bindings::dm_block) -> *const bindings::dm_block_validator {
    // SAFETY: Blocks are buffers of the cache by another name, which have room for what their user
    // wants to remember.
    let remembered = unsafe { bindings::dm_bufio_get_aux_data(block.cast()) };
    // SAFETY: By that, there is room for a validator at least.
    unsafe {
        remembered
            .cast::<*const bindings::dm_block_validator>()
            .read()
    }
}

impl NodeKind {
    /// Finds it out by a block of the kind `R` and a tree.
    ///
    /// Fails with `EOPNOTSUPP` if the library is not as we know it.
    ///
    /// # Safety
    ///
    /// `manager` must point to a transaction manager that uses `blocks`, and be borrowed.
    // Not inlined, as the cursor is large.
    #[inline(never)]
    pub(super) unsafe fn find<R: Record>(
        manager: *mut bindings::dm_transaction_manager,
        blocks: &BlockManager,
        (known, validator): (u64, &'static Validator<R>),
        tree: u64,
    ) -> Result<Self> {
        let block = blocks.read(known, validator)?;
        // SAFETY: It is locked, and what it is known by is not used but compared.
        if unsafe { kind_of(block.as_ptr()) } != validator.as_ptr() {
            return Err(Errno::EOPNOTSUPP);
        }
        drop(block);

        let mut info = Shape::Roots.to_read(manager);
        let mut cursor = MaybeUninit::<bindings::dm_btree_cursor>::zeroed();
        let cursor = cursor.as_mut_ptr();
        // SAFETY: By the safety requirements; values of nodes of any tree have eight bytes or more, and
        // are not looked at.
        let begun = unsafe { bindings::dm_btree_cursor_begin(&mut info, tree, false, cursor) };
        // SAFETY: It was initialised, whatever came of it.
        let depth = unsafe { (*cursor).depth };
        let kind = if depth > 0 {
            // SAFETY: So many levels are there.
            let root = unsafe { (*cursor).nodes[0].b };
            // SAFETY: The cursor has it locked, and we know how the library keeps it.
            unsafe { kind_of(root) }
        } else {
            ptr::null()
        };
        // SAFETY: The cursor was begun.
        unsafe { bindings::dm_btree_cursor_end(cursor) };

        if kind.is_null() {
            // A tree is at least a node, so there was an error.
            to_result(begun)?;
            return Err(Errno::EOPNOTSUPP);
        }
        // INVARIANT: That is what the library knows the root of the tree by.
        Ok(Self(kind))
    }

    pub(super) fn as_ptr(self) -> *const bindings::dm_block_validator {
        self.0
    }
}

/// A transaction manager, or a clone of one, to read nodes with.
///
/// # Invariants
///
/// There is the transaction manager, `kind` is that of its library, and nobody changes a node of the
/// trees that are read as long as `'a`.
#[derive(Clone, Copy)]
pub(super) struct Nodes<'a> {
    manager: *mut bindings::dm_transaction_manager,
    kind: NodeKind,
    _manager: core::marker::PhantomData<&'a ()>,
}

impl<'a> Nodes<'a> {
    /// # Safety
    ///
    /// By the type invariants.
    pub(super) unsafe fn new(
        manager: *mut bindings::dm_transaction_manager,
        kind: NodeKind,
    ) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            manager,
            kind,
            _manager: core::marker::PhantomData,
        }
    }

    /// Reads and checks a node of a tree whose leaves have values of `value_size` bytes.
    ///
    /// Fails with `EILSEQ` if it is none, and with `EAGAIN` if a clone does not find it in memory.
    pub(super) fn read(self, location: u64, value_size: u32) -> Result<Node<'a>> {
        let mut block = ptr::null_mut();
        // SAFETY: By the type invariants.
        let locked = unsafe {
            bindings::dm_tm_read_lock(self.manager, location, self.kind.as_ptr(), &mut block)
        };
        to_result(locked)?;
        // SAFETY: It was just locked.
        let block = unsafe { ReadBlock::new(block) }?;
        let header = checked_header(&block, value_size)?;
        Ok(Node { block, header })
    }

    /// Makes a node ready to be changed, which may be at another place then. Its parent has to be told.
    ///
    /// Fails with `EILSEQ` if it has more than one parent. If it fails, the transaction has to be given
    /// up.
    ///
    /// # Safety
    ///
    /// The transaction manager, which must not be a clone, must be borrowed exclusively, and nobody
    /// else may have the node locked.
    pub(super) unsafe fn shadow(self, location: u64) -> Result<WriteBlock<'a>> {
        let mut block = ptr::null_mut();
        let mut shared = 0;
        // SAFETY: By the safety requirements and type invariants.
        let shadowed = unsafe {
            bindings::dm_tm_shadow_block(
                self.manager,
                location,
                self.kind.as_ptr(),
                &mut block,
                &mut shared,
            )
        };
        to_result(shadowed)?;
        // SAFETY: It was just locked, and nobody else has it by the safety requirements.
        let block = unsafe { WriteBlock::new(block) }?;
        if shared == 0 {
            Ok(block)
        } else {
            Err(Errno::EILSEQ)
        }
    }

    /// The last entry of a tree whose key is not larger than `key`; `None` if all are.
    pub(super) fn find<const N: usize>(
        self,
        root: u64,
        key: u64,
    ) -> Result<Option<(u64, [u8; N])>> {
        let mut location = root;
        for _ in 0..MAX_DEPTH {
            let node = self.read(location, N as u32)?;
            let Some(index) = node.position(key) else {
                return Ok(None);
            };
            if node.is_leaf() {
                return Ok(Some((node.key(index), node.value(index))));
            }
            location = node.child(index);
        }
        Err(Errno::EILSEQ)
    }

    /// The value of a key in a tree, if there is one.
    pub(super) fn get<const N: usize>(self, root: u64, key: u64) -> Result<Option<[u8; N]>> {
        let found = self.find::<N>(root, key)?;
        Ok(found
            .filter(|(found_key, _)| *found_key == key)
            .map(|(_, value)| value))
    }

    /// The first entry of a tree whose key is `key` or larger.
    pub(super) fn next<const N: usize>(
        self,
        root: u64,
        key: u64,
    ) -> Result<Option<(u64, [u8; N])>> {
        let mut wanted = key;
        loop {
            let (leaf, behind) = self.leaf(root, wanted, N as u32)?;
            let index = leaf.first_from(wanted);
            if index < leaf.entries() {
                return Ok(Some((leaf.key(index), leaf.value(index))));
            }
            wanted = match behind {
                Some(behind) if behind > wanted => behind,
                Some(_) => return Err(Errno::EILSEQ),
                None => return Ok(None),
            };
        }
    }

    /// The largest key of a tree, if it has any.
    pub(super) fn last_key(self, root: u64, value_size: u32) -> Result<Option<u64>> {
        let (leaf, _) = self.leaf(root, u64::MAX, value_size)?;
        let last = leaf.entries().checked_sub(1);
        Ok(last.map(|index| leaf.key(index)))
    }

    /// The leaf that `key` is in, or would be; and the key that the next leaf begins with, or a smaller
    /// one that is not in this leaf.
    fn leaf(self, root: u64, key: u64, value_size: u32) -> Result<(Node<'a>, Option<u64>)> {
        let mut location = root;
        let mut behind = None;
        for _ in 0..MAX_DEPTH {
            let node = self.read(location, value_size)?;
            if node.is_leaf() {
                return Ok((node, behind));
            }
            // What is smaller than all keys gets below the first.
            let index = node.position(key).unwrap_or(0);
            location = node.child(index);
            let next = index.saturating_add(1);
            if next < node.entries() {
                behind = Some(node.key(next));
            }
        }
        Err(Errno::EILSEQ)
    }

    /// Checks the nodes that the library looks at to change, or find, the value of a key.
    pub(super) fn check(self, root: u64, key: u64, value_size: u32) -> Result {
        let mut location = root;
        for _ in 0..MAX_DEPTH {
            let node = self.read(location, value_size)?;
            if node.is_leaf() {
                return Ok(());
            }
            // What is smaller than all keys gets below the first.
            let index = node.position(key).unwrap_or(0);
            location = node.child(index);
            // Entries move between neighbours.
            for neighbour in [index.wrapping_sub(1), index.wrapping_add(1)] {
                if neighbour < node.entries() {
                    self.read(node.child(neighbour), value_size)?;
                }
            }
        }
        Err(Errno::EILSEQ)
    }
}

/// The header of a node, if it is as it has to be for the library to cope with it.
fn checked_header(block: &Block, value_size: u32) -> Result<NodeHeader> {
    let header = NodeHeader::read(block);
    let size = match header.flags {
        NodeHeader::LEAF => value_size,
        NodeHeader::INTERNAL if header.entries > 0 => CHILD_SIZE,
        _ => return Err(Errno::EILSEQ),
    };
    let valid = header.value_size == size
        && header.max_entries == NodeHeader::capacity(size)
        && header.entries <= header.max_entries;
    valid.then_some(header).ok_or(Errno::EILSEQ)
}

/// A node that was checked.
pub(super) struct Node<'a> {
    block: ReadBlock<'a>,
    header: NodeHeader,
}

impl Node<'_> {
    pub(super) fn is_leaf(&self) -> bool {
        self.header.is_leaf()
    }

    /// How many entries it has.
    pub(super) fn entries(&self) -> usize {
        self.header.entries as usize
    }

    /// The key of an entry.
    pub(super) fn key(&self, index: usize) -> u64 {
        let keys = self.header.keys(&self.block);
        u64::from_le_bytes(element(keys, index))
    }

    /// The value of an entry of a leaf.
    pub(super) fn value<const N: usize>(&self, index: usize) -> [u8; N] {
        element(self.header.values(&self.block), index)
    }

    /// Where a child of an internal node is.
    pub(super) fn child(&self, index: usize) -> u64 {
        u64::from_le_bytes(self.value(index))
    }

    /// The first entry whose key is `key` or larger.
    fn first_from(&self, key: u64) -> usize {
        self.first_behind(|other| other < key)
    }

    /// The last entry whose key is not larger than `key`; `None` if all are.
    pub(super) fn position(&self, key: u64) -> Option<usize> {
        self.first_behind(|other| other <= key).checked_sub(1)
    }

    /// The first entry whose key is not `before`. Keys are in ascending order.
    fn first_behind(&self, before: impl Fn(u64) -> bool) -> usize {
        let (mut begin, mut end) = (0, self.entries());
        while begin < end {
            let middle = begin.midpoint(end);
            if before(self.key(middle)) {
                begin = middle.saturating_add(1);
            } else {
                end = middle;
            }
        }
        begin
    }
}

/// Makes `child` the child of an entry of an internal node.
pub(super) fn set_child(node: &mut Block, index: usize, child: u64) {
    let header = NodeHeader::read(node);
    set_element(node, values_at(header), index, child.to_le_bytes());
}

/// Removes the entries of an internal node from `begin` up to `end`.
pub(super) fn remove_children(node: &mut Block, begin: usize, end: usize) {
    let mut header = NodeHeader::read(node);
    let entries = header.entries as usize;
    let (keys, values) = (NodeHeader::BYTES, values_at(header));
    let mut to = begin;

    for from in end..entries {
        for array in [keys, values] {
            let moved: [u8; 8] = element(node.get(array..).unwrap_or_default(), from);
            set_element(node, array, to, moved);
        }
        to = to.saturating_add(1);
    }
    // There were not more before.
    header.entries = to as u32;
    header.write(node);
}

/// Where the values of a node begin.
fn values_at(header: NodeHeader) -> usize {
    let keys = (header.max_entries as usize).saturating_mul(NodeHeader::KEY_BYTES);
    NodeHeader::BYTES.saturating_add(keys)
}

/// Changes one of the equal pieces that begin at `array`.
fn set_element<const N: usize>(node: &mut Block, array: usize, index: usize, bytes: [u8; N]) {
    let place = array.saturating_add(index.saturating_mul(N));
    if let Some(element) = node.get_mut(place..).and_then(<[u8]>::first_chunk_mut) {
        *element = bytes;
    }
}

/// One of equal pieces.
fn element<const N: usize>(bytes: &[u8], index: usize) -> [u8; N] {
    bytes
        .get(index.saturating_mul(N)..)
        .and_then(<[u8]>::first_chunk)
        .map_or([0; N], |element| *element)
}
