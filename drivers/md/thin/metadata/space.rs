// SPDX-License-Identifier: GPL-2.0

//! Which blocks are free.

use super::{
    store::Store,
    Metadata, //
};
use crate::{
    block_device::OpenBlockDevice,
    core::{
        errno::{
            Errno,
            Result, //
        },
        format::{
            BLOCK_SECTORS,
            MAX_DATA_BLOCK,
            MAX_METADATA_BLOCKS, //
        },
        units::{
            DataBlock,
            DataRange, //
        }, //
    }, //
};

/// The most metadata blocks that are kept for commits: 16 MiB.
const MAX_RESERVE: u64 = 4096;

/// How many blocks there are, and how many of them are free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// As many as there were at the last commit.
    pub(crate) total: u64,
    /// Those that can be used now, or after a commit.
    pub(crate) free: u64,
}

/// Why there is no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AllocateError {
    /// There may be one after a commit.
    CommitFirst,
    /// There is none.
    NoSpace,
    /// It failed.
    Failed(Errno),
}

impl From<Errno> for AllocateError {
    fn from(error: Errno) -> Self {
        Self::Failed(error)
    }
}

/// How many blocks of a metadata device can be used.
pub(crate) fn usable_blocks(device: &OpenBlockDevice) -> u64 {
    const SECTORS: u64 = BLOCK_SECTORS as u64;

    (device.size().0 / SECTORS).min(MAX_METADATA_BLOCKS)
}

/// How many of `blocks` metadata blocks are kept for commits.
pub(super) fn reserve(blocks: u64) -> u64 {
    (blocks / 10).min(MAX_RESERVE)
}

impl Metadata {
    /// How many metadata blocks there are. Those that are kept for commits are not free.
    pub(crate) fn metadata_usage(&self) -> Result<Usage> {
        let store = self.store()?;
        let total = store.manager.metadata_blocks()?;
        let free = store.manager.free_metadata_blocks()?.min(total);

        Ok(Usage {
            total,
            free: free.saturating_sub(store.reserve),
        })
    }

    /// How many data blocks there are.
    pub(crate) fn data_usage(&self) -> Result<Usage> {
        let manager = &self.store()?.manager;
        let total = manager.data_blocks()?;

        Ok(Usage {
            total,
            free: manager.free_data_blocks()?.min(total),
        })
    }

    /// Takes a data block that is free. It is the caller's until it is inserted or freed.
    ///
    /// A crash, or an abort, frees it.
    pub(crate) fn allocate(&mut self) -> core::result::Result<DataBlock, AllocateError> {
        let store = self.store_mut()?;
        match store.manager.allocate_data() {
            Ok(block) => {
                let block = DataBlock(block);
                self.allocated.add(block);
                Ok(block)
            }
            Err(Errno::ENOSPC) if store.manager.free_metadata_blocks()? > 0 => {
                Err(if store.freed_data {
                    AllocateError::CommitFirst
                } else {
                    AllocateError::NoSpace
                })
            }
            Err(error) => {
                store.must_abort = true;
                Err(error.into())
            }
        }
    }

    /// Gives back a data block that was allocated, and not inserted.
    ///
    /// If nothing may be written, that is done when there is a commit again. If the allocation was
    /// undone by an abort, there is nothing to do.
    pub(crate) fn free(&mut self, block: DataBlock) -> Result {
        if self.store()?.manager.blocks().is_read_only() {
            self.allocated.abandon(block);
            return Ok(());
        }
        let remembered = self.allocated.remove(block);
        let store = self.store_mut()?;
        if !remembered && store.manager.data_references(block.0)? == 0 {
            return Ok(());
        }
        let freed = store
            .manager
            .release_data(block.0, block.0.saturating_add(1));
        store.must_abort |= freed.is_err();
        // The last commit may have it if it was not remembered.
        store.changed |= !remembered;
        store.freed_data |= !remembered;
        freed
    }

    /// The first data blocks in `range` that are not referenced now.
    ///
    /// If nothing has changed since the last commit, they are not referenced by what is durable,
    /// either. Those that were allocated count as referenced.
    pub(crate) fn next_unreferenced(&self, range: DataRange) -> Result<Option<DataRange>> {
        let store = self.store()?;
        let end = range.end().0.min(store.current_data_blocks()?);
        let is_free = |block| -> Result<bool> { Ok(store.manager.data_references(block)? == 0) };

        let mut begin = range.begin().0;
        while begin < end && !is_free(begin)? {
            begin = begin.saturating_add(1);
        }
        let mut last = begin;
        while last < end && is_free(last)? {
            last = last.saturating_add(1);
        }
        let found = DataRange::new(DataBlock(begin), DataBlock(last));
        Ok((!found.is_empty()).then_some(found))
    }

    /// Makes the pool have `blocks` data blocks, with the next commit.
    ///
    /// Fails with `EINVAL` if it has more, or cannot have as many.
    pub(crate) fn resize_data(&mut self, blocks: u64) -> Result {
        const MOST: u64 = MAX_DATA_BLOCK.0 + 1;

        let store = self.store_mut()?;
        let added = blocks
            .checked_sub(store.current_data_blocks()?)
            .filter(|_| blocks <= MOST)
            .ok_or(Errno::EINVAL)?;
        if added == 0 {
            return Ok(());
        }
        let extended = store.manager.add_data_blocks(added);
        store.note(extended)?;
        // The new ones can be allocated at once, but do not count as free before the next commit.
        store.freed_data = true;
        Ok(())
    }

    /// Makes use of `blocks` metadata blocks, as far as metadata can have as many.
    ///
    /// Fails with `EINVAL` if there are more in use.
    pub(crate) fn resize_metadata(&mut self, blocks: u64) -> Result {
        let blocks = blocks.min(MAX_METADATA_BLOCKS);
        let store = self.store_mut()?;
        let added = blocks
            .checked_sub(store.manager.metadata_blocks()?)
            .ok_or(Errno::EINVAL)?;
        if added == 0 {
            return Ok(());
        }
        let extended = store.manager.add_metadata_blocks(added);
        store.note(extended)?;
        store.reserve = reserve(blocks);
        Ok(())
    }
}

impl Store {
    /// How many data blocks there will be after the next commit.
    fn current_data_blocks(&self) -> Result<u64> {
        let root = self.manager.roots()?.data;
        Ok(super::store::space_map_root(root).blocks)
    }
}
