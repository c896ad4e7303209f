// SPDX-License-Identifier: GPL-2.0

//! The transaction that is under way, and the space maps that belong to it.
//!
//! C header: [`drivers/md/persistent-data/dm-transaction-manager.h`](srctree/drivers/md/persistent-data/dm-transaction-manager.h)

use super::{
    block_manager::{
        self,
        BlockBytes,
        BlockManager,
        Record,
        Validator,
        WriteBlock, //
    },
    node::{
        NodeKind,
        Nodes, //
    },
    space_map::{
        SpaceMap,
        SpaceMapRoot, //
    },
    to_result,
    value_type::Shape, //
};
use crate::{
    bindings,
    core::errno::{
        Errno,
        Result, //
    }, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    error::from_err_ptr,
    prelude::*,
    sync::Arc, //
};

/// Where the superblock is.
const SUPERBLOCK: u64 = 0;

/// A transaction manager of the library, and the space map that was made with it.
///
/// # Invariants
///
/// `manager` points to a transaction manager that uses `blocks` and `metadata`, and is destroyed when
/// this is dropped.
pub(super) struct Library {
    manager: NonNull<bindings::dm_transaction_manager>,
    metadata: SpaceMap,
    _blocks: Arc<block_manager::Inner>,
}

// SAFETY: A transaction manager belongs to no thread.
unsafe impl Send for Library {}
// SAFETY: A reference only gives the pointers away.
unsafe impl Sync for Library {}

impl Library {
    /// Takes what the library made into possession.
    ///
    /// # Safety
    ///
    /// Both must just have been made by a function of the library that was given `blocks`.
    unsafe fn new(
        manager: *mut bindings::dm_transaction_manager,
        metadata: *mut bindings::dm_space_map,
        blocks: &BlockManager,
    ) -> Result<Self> {
        let manager = NonNull::new(manager).ok_or(Errno::ENOMEM)?;
        let metadata = NonNull::new(metadata).ok_or(Errno::ENOMEM)?;
        // INVARIANT: By the safety requirement.
        Ok(Self {
            manager,
            // SAFETY: By the safety requirement.
            metadata: unsafe { SpaceMap::from_raw(metadata) },
            _blocks: blocks.inner().clone(),
        })
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::dm_transaction_manager {
        self.manager.as_ptr()
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; nobody uses it any more. What it uses goes afterwards.
        unsafe { bindings::dm_tm_destroy(self.manager.as_ptr()) };
    }
}

/// What a transaction manager and its clones have in common.
///
/// # Invariants
///
/// `nodes` is what the library knows nodes by.
pub(super) struct Inner {
    pub(super) library: Library,
    pub(super) nodes: NodeKind,
}

/// The roots of both space maps.
pub(crate) struct Roots {
    /// Of the space map of the data device.
    pub(crate) data: SpaceMapRoot,
    /// Of the space map of the metadata device.
    pub(crate) metadata: SpaceMapRoot,
}

/// What changes metadata, from one commit to the next.
///
/// # Invariants
///
/// Of all values with the same `inner` there is one of this type. `data` is a space map that uses it.
pub(crate) struct TransactionManager {
    // Dropped in this order.
    data: SpaceMap,
    inner: Arc<Inner>,
    blocks: BlockManager,
}

impl TransactionManager {
    /// Goes on where the last commit left off, that had these roots.
    ///
    /// `superblock` is how the superblock is checked, and `tree` the root of any tree.
    // Not inlined, to keep the stack of whoever opens metadata short.
    #[inline(never)]
    pub(crate) fn open<R: Record>(
        blocks: BlockManager,
        superblock: &'static Validator<R>,
        mut roots: Roots,
        tree: u64,
    ) -> Result<Self> {
        const ROOT_SIZE: usize = size_of::<SpaceMapRoot>();

        let mut manager = ptr::null_mut();
        let mut metadata = ptr::null_mut();
        // SAFETY: There is the block manager, and it stays as long as the transaction manager. The
        // root is as long as is said.
        let opened = unsafe {
            bindings::dm_tm_open_with_sm(
                blocks.inner().as_ptr(),
                SUPERBLOCK,
                roots.metadata.as_mut_ptr().cast(),
                ROOT_SIZE,
                &mut manager,
                &mut metadata,
            )
        };
        to_result(opened)?;
        // SAFETY: Both were just made.
        let library = unsafe { Library::new(manager, metadata, &blocks) }?;
        let known = (SUPERBLOCK, superblock);
        // SAFETY: There is the transaction manager, and nobody else has it.
        let nodes = unsafe { NodeKind::find(library.as_ptr(), &blocks, known, tree) }?;
        // SAFETY: There is the transaction manager, and it stays as long as the space map. The root is
        // as long as is said.
        let data = unsafe {
            bindings::dm_sm_disk_open(library.as_ptr(), roots.data.as_mut_ptr().cast(), ROOT_SIZE)
        };
        let data = NonNull::new(from_err_ptr(data)?).ok_or(Errno::ENOMEM)?;
        // INVARIANT: It was just opened with `library`, of which nobody else knows, and for which
        // `nodes` was found.
        Ok(Self {
            // SAFETY: It was just opened.
            data: unsafe { SpaceMap::from_raw(data) },
            inner: Arc::new(Inner { library, nodes }, GFP_KERNEL)?,
            blocks,
        })
    }

    /// Gives the transaction up. The block manager still has its blocks.
    pub(crate) fn into_blocks(self) -> BlockManager {
        self.blocks
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::dm_transaction_manager {
        self.inner.library.as_ptr()
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Something to read nodes with.
    pub(super) fn nodes(&self) -> Nodes<'_> {
        // SAFETY: By the type invariants, and whoever changes nodes borrows this exclusively.
        unsafe { Nodes::new(self.as_ptr(), self.inner.nodes) }
    }

    pub(super) fn data_map(&self) -> &SpaceMap {
        &self.data
    }

    pub(super) fn metadata_map(&self) -> &SpaceMap {
        &self.inner.library.metadata
    }

    /// The blocks of the metadata device.
    pub(crate) fn blocks(&self) -> &BlockManager {
        &self.blocks
    }

    /// The blocks of the metadata device, to change them.
    pub(crate) fn blocks_mut(&mut self) -> &mut BlockManager {
        &mut self.blocks
    }

    /// References a data block that was free at the last commit, and still is.
    ///
    /// Fails with `ENOSPC` if there is none; if it fails otherwise, the transaction has to be given
    /// up.
    pub(crate) fn allocate_data(&mut self) -> Result<u64> {
        // SAFETY: This is borrowed exclusively.
        unsafe { self.data.allocate() }
    }

    /// References the data blocks from `begin` up to `end` once more.
    ///
    /// If that fails, the transaction has to be given up.
    pub(crate) fn reference_data(&mut self, begin: u64, end: u64) -> Result {
        // SAFETY: This is borrowed exclusively.
        unsafe { self.data.increment(begin, end) }
    }

    /// References the data blocks from `begin` up to `end` once less.
    ///
    /// If that fails, the transaction has to be given up.
    pub(crate) fn release_data(&mut self, begin: u64, end: u64) -> Result {
        // SAFETY: This is borrowed exclusively.
        unsafe { self.data.decrement(begin, end) }
    }

    /// How often a data block is referenced.
    pub(crate) fn data_references(&self, block: u64) -> Result<u32> {
        // SAFETY: This is borrowed.
        unsafe { self.data.count(block) }
    }

    /// How many data blocks there were at the last commit.
    pub(crate) fn data_blocks(&self) -> Result<u64> {
        // SAFETY: This is borrowed.
        unsafe { self.data.blocks() }
    }

    /// How many data blocks are free now, of those that there were at the last commit. Not all of them
    /// can be allocated before the next one.
    pub(crate) fn free_data_blocks(&self) -> Result<u64> {
        // SAFETY: This is borrowed.
        unsafe { self.data.free_blocks() }
    }

    /// Adds data blocks.
    ///
    /// If that fails, the transaction has to be given up.
    pub(crate) fn add_data_blocks(&mut self, blocks: u64) -> Result {
        // SAFETY: This is borrowed exclusively.
        unsafe { self.data.extend(blocks) }
    }

    /// How many metadata blocks there are.
    pub(crate) fn metadata_blocks(&self) -> Result<u64> {
        // SAFETY: This is borrowed.
        unsafe { self.metadata_map().blocks() }
    }

    /// How many metadata blocks were free at the last commit, less those that are not any more.
    pub(crate) fn free_metadata_blocks(&self) -> Result<u64> {
        // SAFETY: This is borrowed.
        unsafe { self.metadata_map().free_blocks() }
    }

    /// Adds metadata blocks.
    ///
    /// If that fails, the transaction has to be given up.
    pub(crate) fn add_metadata_blocks(&mut self, blocks: u64) -> Result {
        // SAFETY: This is borrowed exclusively.
        unsafe { self.metadata_map().extend(blocks) }
    }

    /// References a metadata block once more, which is referenced already.
    ///
    /// If that fails, the transaction has to be given up.
    pub(crate) fn reference(&mut self, block: u64) -> Result {
        let end = block.checked_add(1).ok_or(Errno::EILSEQ)?;
        // SAFETY: This is borrowed.
        if unsafe { self.metadata_map().count(block) }? == 0 {
            return Err(Errno::EILSEQ);
        }
        // SAFETY: This is borrowed exclusively.
        unsafe { self.metadata_map().increment(block, end) }
    }

    /// References a metadata block once less. It is not looked at what it refers to.
    ///
    /// If that fails, the transaction has to be given up.
    pub(crate) fn release(&mut self, block: u64) -> Result {
        let end = block.checked_add(1).ok_or(Errno::EILSEQ)?;
        // SAFETY: This is borrowed exclusively.
        unsafe { self.metadata_map().decrement(block, end) }
    }

    /// How often a metadata block is referenced.
    pub(crate) fn references(&self, block: u64) -> Result<u32> {
        // SAFETY: This is borrowed.
        unsafe { self.metadata_map().count(block) }
    }

    /// Copies a block to a place of its own, where `edit` gets to see it, and returns the place, which
    /// is referenced once. What the block refers to is not.
    ///
    /// If that fails, the transaction has to be given up.
    pub(crate) fn copy_block<R: Record>(
        &mut self,
        block: u64,
        validator: &'static Validator<R>,
        edit: impl FnOnce(&mut BlockBytes),
    ) -> Result<u64> {
        let mut copy = ptr::null_mut();
        let mut shared = 0;

        // Copying takes one reference away.
        self.reference(block)?;
        // SAFETY: This is borrowed exclusively, and the validator lives for ever.
        let copied = unsafe {
            bindings::dm_tm_shadow_block(
                self.as_ptr(),
                block,
                validator.as_ptr(),
                &mut copy,
                &mut shared,
            )
        };
        to_result(copied)?;
        // SAFETY: It was just locked, and nobody knows of it.
        let mut copy = unsafe { WriteBlock::new(copy) }?;
        edit(&mut copy);
        Ok(copy.location())
    }

    /// Puts what there is of the data device's space map in memory only into metadata blocks.
    ///
    /// If that fails, the transaction has to be given up.
    pub(crate) fn write_data_map(&mut self) -> Result {
        // SAFETY: This is borrowed exclusively.
        unsafe { self.data.commit() }
    }

    /// Writes all that was changed to blocks that were free at the last commit, and flushes the
    /// device.
    ///
    /// If that fails, the transaction has to be given up.
    pub(crate) fn pre_commit(&mut self) -> Result {
        // SAFETY: This is borrowed exclusively.
        to_result(unsafe { bindings::dm_tm_pre_commit(self.as_ptr()) })
    }

    /// What the space maps will have to be opened by.
    pub(crate) fn roots(&self) -> Result<Roots> {
        Ok(Roots {
            // SAFETY: This is borrowed.
            data: unsafe { self.data.root() }?,
            // SAFETY: This is borrowed.
            metadata: unsafe { self.metadata_map().root() }?,
        })
    }

    /// Makes everything durable that [`TransactionManager::pre_commit`] has written, by changing the
    /// superblock; and begins the next transaction.
    ///
    /// If that fails, the transaction has to be given up, but may come to be durable all the same.
    pub(crate) fn commit<R: Record>(
        &mut self,
        validator: &'static Validator<R>,
        edit: impl FnOnce(&mut BlockBytes),
    ) -> Result {
        let mut superblock = self.blocks.write(SUPERBLOCK, validator)?;
        edit(&mut superblock);
        let superblock = superblock.into_raw();
        // SAFETY: This is borrowed exclusively, and the superblock is locked. It is unlocked in any
        // case.
        to_result(unsafe { bindings::dm_tm_commit(self.as_ptr(), superblock) })
    }
}

/// What new metadata consist of.
pub(crate) struct NewRoots {
    /// The space maps: of no data block, and of all metadata blocks.
    pub(crate) maps: Roots,
    /// An empty [`NestedTree`](super::NestedTree).
    pub(crate) nested: u64,
    /// An empty [`Tree`](super::Tree) of values of `N` bytes.
    pub(crate) plain: u64,
}

/// Makes new metadata on a device; `edit` gets to see a superblock full of zeroes.
///
/// Fails with `ENOSPC` if the device is too small.
pub(crate) fn format<R: Record, const N: usize>(
    blocks: &mut BlockManager,
    validator: &'static Validator<R>,
    edit: impl FnOnce(&NewRoots, &mut BlockBytes),
) -> Result {
    let mut manager = ptr::null_mut();
    let mut metadata = ptr::null_mut();
    // SAFETY: There is the block manager, and it stays as long as the transaction manager.
    let created = unsafe {
        bindings::dm_tm_create_with_sm(
            blocks.inner().as_ptr(),
            SUPERBLOCK,
            &mut manager,
            &mut metadata,
        )
    };
    to_result(created)?;
    // SAFETY: Both were just made.
    let library = unsafe { Library::new(manager, metadata, blocks) }?;
    // SAFETY: There is the transaction manager, and it stays as long as the space map.
    let data = unsafe { bindings::dm_sm_disk_create(library.as_ptr(), 0) };
    let data = NonNull::new(from_err_ptr(data)?).ok_or(Errno::ENOMEM)?;
    // SAFETY: It was just made.
    let data = unsafe { SpaceMap::from_raw(data) };

    let empty = |shape: Shape| {
        let mut root = 0;
        let mut info = shape.to_read(library.as_ptr());
        // SAFETY: There is the transaction manager, and nobody else has it.
        let made = unsafe { bindings::dm_btree_empty(&mut info, &mut root) };
        to_result(made).map(|()| root)
    };
    let nested = empty(Shape::Nested)?;
    let plain = empty(Shape::Plain(N as u32))?;
    // SAFETY: Nobody else has the transaction manager.
    unsafe { data.commit() }?;
    // SAFETY: As before.
    to_result(unsafe { bindings::dm_tm_pre_commit(library.as_ptr()) })?;
    let maps = Roots {
        // SAFETY: As before.
        data: unsafe { data.root() }?,
        // SAFETY: As before.
        metadata: unsafe { library.metadata.root() }?,
    };

    let roots = NewRoots {
        maps,
        nested,
        plain,
    };
    let mut superblock = blocks.write_zeroed(SUPERBLOCK, validator)?;
    edit(&roots, &mut superblock);
    let superblock = superblock.into_raw();
    // SAFETY: Nobody else has the transaction manager, and the superblock is locked. It is unlocked in
    // any case.
    to_result(unsafe { bindings::dm_tm_commit(library.as_ptr(), superblock) })
}
