// SPDX-License-Identifier: GPL-2.0

//! Making changes durable, or giving them up.

use super::{
    store::{
        Store,
        SUPERBLOCK, //
    },
    Metadata, //
};
use crate::core::{
    errno::{
        Errno,
        Result, //
    },
    format::Superblock, //
};

impl Metadata {
    /// Whether there is anything to commit.
    pub(crate) fn is_changed(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.changed)
    }

    /// Whether an operation has failed half-way, so that nothing can be done but to abort.
    pub(crate) fn must_abort(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.must_abort)
    }

    /// Makes all changes durable, if there are any.
    ///
    /// `flush` is called first, and has to make durable what was written to data blocks.
    pub(crate) fn commit(&mut self, flush: impl FnOnce() -> Result) -> Result {
        if !self.store_mut()?.changed {
            return Ok(());
        }
        flush()?;
        let committed = self.commit_changes();
        if let Some(store) = &mut self.store {
            store.must_abort |= committed.is_err();
        }
        committed
    }

    fn commit_changes(&mut self) -> Result {
        let store = self.store.as_mut().ok_or(Errno::EIO)?;
        // Nobody else changes it, and commits do not, either: others may go on reading.
        let mapping_root = self.reader.mappings.read().tree.root();
        let manager = &mut store.manager;

        self.allocated
            .for_each_run(|begin, end| manager.release_data(begin, end))?;
        self.devices
            .write_changed(&mut store.manager, &mut store.details)?;
        store.write(mapping_root)?;

        store.changed = false;
        store.freed_data = false;
        self.devices.committed();
        self.allocated.forget_abandoned();
        let manager = &mut store.manager;
        self.allocated
            .for_each_run(|begin, end| manager.reference_data(begin, end))
    }

    /// Gives up all changes since the last commit.
    ///
    /// If that fails, nothing works any more.
    pub(crate) fn abort(&mut self) -> Result {
        // Allocations of blocks that are being filled are changes, too.
        self.allocated.clear();
        self.deletions.aborted();
        let reopened = self.reopen();
        if reopened.is_err() {
            self.close();
            self.devices.lost();
        }
        reopened
    }

    fn reopen(&mut self) -> Result {
        let mut mappings = self.reader.mappings.write();
        // The clone has to go before what it is a clone of.
        mappings.clone = None;
        let mut blocks = self.store.take().ok_or(Errno::EIO)?.manager.into_blocks();
        blocks.forget_blocks();

        let (store, reopened) =
            Store::open(blocks, self.block_size).map_err(|error| error.errno())?;
        self.devices.aborted(&store.manager, &store.details)?;
        self.needs_check |= store.superblock.needs_check();
        self.store = Some(store);
        *mappings = reopened;
        Ok(())
    }

    /// Notes on the metadata device that the metadata have to be checked. It is durable on return.
    ///
    /// Nothing else becomes durable by that. Fails with `EPERM` if nothing may be written.
    pub(crate) fn set_needs_check(&mut self) -> Result {
        self.needs_check = true;
        let store = self.store.as_mut().ok_or(Errno::EIO)?;
        store.superblock.flags |= Superblock::NEEDS_CHECK;
        // The first attempt may fail for what was written before.
        store
            .write_needs_check()
            .or_else(|_| store.write_needs_check())
    }
}

impl Store {
    fn write_needs_check(&mut self) -> Result {
        let blocks = self.manager.blocks_mut();
        let mut block = blocks.write(Superblock::LOCATION.0, &SUPERBLOCK)?;
        let mut superblock = Superblock::read(&block);

        superblock.flags |= Superblock::NEEDS_CHECK;
        superblock.write(&mut block);
        drop(block);
        blocks.flush()
    }
}
