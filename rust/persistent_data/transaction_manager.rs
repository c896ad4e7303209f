// SPDX-License-Identifier: GPL-2.0

//! The transaction that is under way, and the space maps that belong to it.
//!
//! C header: [`drivers/md/persistent-data/dm-transaction-manager.h`](srctree/drivers/md/persistent-data/dm-transaction-manager.h)

use super::{
    block_manager::{
        self,
        raw_validator,
        BlockBytes,
        BlockManager,
        Record,
        Validator,
        WriteBlock, //
    },
    space_map::{
        SpaceMap,
        SpaceMapRoot, //
    },
    to_result, //
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

/// The transaction manager of the library, for as long as somebody uses it.
///
/// # Invariants
///
/// `manager` points to a transaction manager that uses `blocks` and `metadata`, and is destroyed when
/// this is dropped.
pub(super) struct Inner {
    manager: NonNull<bindings::dm_transaction_manager>,
    metadata: SpaceMap,
    _blocks: Arc<block_manager::Inner>,
}

// SAFETY: A transaction manager belongs to no thread.
unsafe impl Send for Inner {}
// SAFETY: A reference only gives the pointers away.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; nobody uses it any more. What it uses goes afterwards.
        unsafe { bindings::dm_tm_destroy(self.manager.as_ptr()) };
    }
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
    /// Begins anew, with a space map of the whole device, but for the superblock, and one of no data
    /// blocks.
    ///
    /// Fails with `ENOSPC` if the device is too small for that.
    pub(crate) fn create(blocks: BlockManager) -> Result<Self> {
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
        let inner = unsafe { Self::own(manager, metadata, &blocks) }?;
        // SAFETY: There is the transaction manager, and it stays as long as the space map.
        let data = unsafe { bindings::dm_sm_disk_create(inner.manager.as_ptr(), 0) };
        // SAFETY: It was just made with it.
        unsafe { Self::with_data_map(inner, data, blocks) }
    }

    /// Goes on where the last commit left off, that had these roots.
    pub(crate) fn open(blocks: BlockManager, mut roots: Roots) -> Result<Self> {
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
        let inner = unsafe { Self::own(manager, metadata, &blocks) }?;
        // SAFETY: There is the transaction manager, and it stays as long as the space map. The root is
        // as long as is said.
        let data = unsafe {
            bindings::dm_sm_disk_open(
                inner.manager.as_ptr(),
                roots.data.as_mut_ptr().cast(),
                ROOT_SIZE,
            )
        };
        // SAFETY: It was just made with it.
        unsafe { Self::with_data_map(inner, data, blocks) }
    }

    /// Takes what the library made into possession.
    ///
    /// # Safety
    ///
    /// Both must just have been made by a function of the library that was given `blocks`.
    unsafe fn own(
        manager: *mut bindings::dm_transaction_manager,
        metadata: *mut bindings::dm_space_map,
        blocks: &BlockManager,
    ) -> Result<Arc<Inner>> {
        let manager = NonNull::new(manager).ok_or(Errno::ENOMEM)?;
        let metadata = NonNull::new(metadata).ok_or(Errno::ENOMEM)?;
        // INVARIANT: By the safety requirement.
        let inner = Inner {
            manager,
            // SAFETY: By the safety requirement.
            metadata: unsafe { SpaceMap::from_raw(metadata) },
            _blocks: blocks.inner().clone(),
        };
        Ok(Arc::new(inner, GFP_KERNEL)?)
    }

    /// Puts everything together.
    ///
    /// # Safety
    ///
    /// `data` must be what a function of the library returned that made a space map with `inner`; and
    /// `inner` must be new.
    unsafe fn with_data_map(
        inner: Arc<Inner>,
        data: *mut bindings::dm_space_map,
        blocks: BlockManager,
    ) -> Result<Self> {
        let data = NonNull::new(from_err_ptr(data)?).ok_or(Errno::ENOMEM)?;
        // INVARIANT: By the safety requirement.
        Ok(Self {
            // SAFETY: By the safety requirement.
            data: unsafe { SpaceMap::from_raw(data) },
            inner,
            blocks,
        })
    }

    /// Gives the transaction up. The block manager still has its blocks.
    pub(crate) fn into_blocks(self) -> BlockManager {
        self.blocks
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::dm_transaction_manager {
        self.inner.manager.as_ptr()
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    pub(super) fn data_map(&self) -> &SpaceMap {
        &self.data
    }

    pub(super) fn metadata_map(&self) -> &SpaceMap {
        &self.inner.metadata
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
                raw_validator(validator),
                &mut copy,
                &mut shared,
            )
        };
        to_result(copied)?;
        let mut copy = WriteBlock::new(copy)?;
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
    /// superblock, or making it if it is `new`; and begins the next transaction.
    ///
    /// If that fails, the transaction has to be given up, but may come to be durable all the same.
    pub(crate) fn commit<R: Record>(
        &mut self,
        validator: &'static Validator<R>,
        new: bool,
        edit: impl FnOnce(&mut BlockBytes),
    ) -> Result {
        let mut superblock = if new {
            self.blocks.write_zeroed(SUPERBLOCK, validator)?
        } else {
            self.blocks.write(SUPERBLOCK, validator)?
        };
        edit(&mut superblock);
        let superblock = superblock.into_raw();
        // SAFETY: This is borrowed exclusively, and the superblock is locked. It is unlocked in any
        // case.
        to_result(unsafe { bindings::dm_tm_commit(self.as_ptr(), superblock) })
    }
}
