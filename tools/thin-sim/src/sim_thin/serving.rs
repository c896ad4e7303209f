// SPDX-License-Identifier: GPL-2.0

//! What a bio that is served by a task asks of its thin device and of the pool.

use std::{
    ops::Deref,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    }, //
};

use crate::{
    core::{
        errno::{
            Errno,
            Result, //
        },
        mapping::{
            Mapping,
            Run, //
        },
        prison::{
            ExcludeAll,
            ExcludeWriters,
            Guard,
            Prison,
            Shared, //
        },
        remap::{
            self,
            Commit,
            Discards,
            NewBlock,
            Place,
            Space,
            Stop,
            Thin, //
        },
        units::{
            DataBlock,
            DataRange,
            DeviceId,
            VirtualBlock,
            VirtualRange, //
        },
    },
    executor::yield_now,
    sim_bio::{
        number_of,
        Io, //
    },
    sim_disk::{
        DISCARDED,
        SECTORS,
        ZEROES, //
    },
    sim_pool::log, //
};

use super::SimThin;

/// A bio that a task serves.
pub(super) struct Serving<'a> {
    pub(super) thin: &'a SimThin,
    pub(super) io: Io,
    /// Whether it was submitted by [`remap::Service::overwrite`].
    pub(super) written: AtomicBool,
}

impl Deref for Serving<'_> {
    type Target = SimThin;

    fn deref(&self) -> &SimThin {
        self.thin
    }
}

impl remap::Thin for Serving<'_> {
    fn id(&self) -> DeviceId {
        self.thin.id()
    }

    fn prison(&self) -> &Prison {
        self.thin.prison()
    }

    fn is_changed(&self) -> bool {
        self.thin.is_changed()
    }

    fn origin_shows(&self, place: &Place) -> bool {
        self.thin.origin_shows(place)
    }

    fn origin_ends_in(&self, block: VirtualBlock) -> bool {
        self.thin.origin_ends_in(block)
    }

    fn lookup_now(&self, block: VirtualBlock) -> Option<Option<Mapping>> {
        self.thin.lookup_now(block)
    }
}

impl remap::Service for Serving<'_> {
    fn zeroes_new_blocks(&self) -> bool {
        self.pool.settings.zeroes_new_blocks
    }

    fn discards(&self) -> Discards {
        self.pool.settings.discards
    }

    async fn lookup(&self, block: VirtualBlock) -> Result<Option<Mapping>> {
        if let Some(found) = self.lookup_now(block) {
            return Ok(found);
        }
        let _turn = self.pool.metadata_queue().await;
        Ok(self.pool.metadata().current.lookup(self.device, block.0))
    }

    async fn allocate(&self) -> std::result::Result<DataBlock, Stop> {
        let allocated = self.pool.allocate().await;
        log!("thin {} is given {allocated:?}", self.device);
        allocated
    }

    async fn space(&self) -> Space {
        self.pool.space(self.device).await
    }

    async fn free(&self, block: DataBlock) {
        let _turn = self.pool.metadata_queue().await;
        if !self.pool.is_read_only() {
            self.pool.metadata().free(block);
        }
    }

    async fn insert(
        &self,
        _lock: &Guard<'_, ExcludeWriters>,
        block: VirtualBlock,
        new: &NewBlock<'_>,
    ) -> Result {
        self.map_block(block, new.block(), Shared::Write).await
    }

    async fn replace(
        &self,
        _lock: &Guard<'_, ExcludeAll>,
        block: VirtualBlock,
        new: &NewBlock<'_>,
    ) -> Result {
        self.map_block(block, new.block(), Shared::Read).await
    }

    async fn first_run(&self, range: VirtualRange) -> Result<Option<Run>> {
        let _turn = self.pool.metadata_queue().await;
        Ok(self.pool.metadata().first_run(self.device, range))
    }

    async fn remove(&self, _lock: &Guard<'_, ExcludeAll>, run: &Run) -> Result<bool> {
        let _turn = self.pool.metadata_queue().await;
        for block in run.blocks.begin().0..run.blocks.end().0 {
            self.assert_locked(VirtualBlock(block), Shared::Read);
        }
        if self.pool.is_read_only() {
            return match self.io {
                Io::ZeroBlocks { .. } => Ok(false),
                // The driver ignores them, but the oracle would take that for a discard.
                _ => Err(Errno::EIO),
            };
        }
        let mut metadata = self.pool.metadata();
        log!("thin {} removes {run:?}", self.device);
        metadata.remove(self.device, *run);
        Ok(true)
    }

    async fn first_unreferenced(
        &self,
        range: DataRange,
        durably: bool,
    ) -> Result<Option<DataRange>> {
        let turn = self.pool.metadata_queue().await;
        if durably && self.pool.metadata().is_changed() {
            self.pool.commit(&turn).await?;
        }
        if self.pool.is_read_only() {
            return Ok(None);
        }
        Ok(self.pool.metadata().first_unreferenced(range))
    }

    async fn commit(&self) -> Result<Commit> {
        let turn = self.pool.metadata_queue().await;
        let needed = self.pool.metadata().is_changed();
        if needed {
            self.pool.commit(&turn).await?;
        }
        if self.pool.metadata().lost.contains(&self.device) {
            return Err(Errno::EIO);
        }
        Ok(if needed {
            Commit::Made
        } else {
            Commit::NotNeeded
        })
    }

    async fn zero(&self, block: DataBlock) -> Result {
        if self.pool.fails(self.pool.settings.fill_faults) {
            return self.pool.fail_to_fill(block).await;
        }
        for sector in 0..SECTORS {
            self.pool.write_sector(block.0, sector, ZEROES, false).await;
        }
        Ok(())
    }

    async fn copy(&self, from: DataBlock, to: DataBlock) -> Result {
        if self.pool.fails(self.pool.settings.fill_faults) {
            return self.pool.fail_to_fill(to).await;
        }
        for sector in 0..SECTORS {
            let value = self.pool.read_sector(from.0, sector).await;
            self.pool.disk().put(to.0, sector, value);
        }
        Ok(())
    }

    async fn copy_origin(&self, from: VirtualBlock, to: DataBlock) -> Result {
        if self.pool.fails(self.pool.settings.fill_faults) {
            return self.pool.fail_to_fill(to).await;
        }
        let block = number_of(from);
        for sector in (0..SECTORS).filter(|sector| self.pool.origin.shows(block, *sector)) {
            let value = self.pool.origin.get(block, sector);
            self.pool.write_sector(to.0, sector, value, false).await;
        }
        Ok(())
    }

    async fn zero_behind_origin(&self, block: VirtualBlock, data: DataBlock) -> Result {
        if self.pool.fails(self.pool.settings.fill_faults) {
            return self.pool.fail_to_fill(data).await;
        }
        let block = number_of(block);
        for sector in (0..SECTORS).filter(|sector| !self.pool.origin.shows(block, *sector)) {
            self.pool.write_sector(data.0, sector, ZEROES, false).await;
        }
        Ok(())
    }

    async fn overwrite(&self, block: DataBlock) -> Result {
        let before = self.written.swap(true, Ordering::SeqCst);
        assert!(!before, "{:?} is submitted twice", self.io);
        if self.pool.fails(self.pool.settings.fill_faults) {
            return self.pool.fail_to_fill(block).await;
        }
        for (sector, value) in self.io.values().into_iter().enumerate() {
            let value = value.expect("it covers the block");
            self.pool
                .write_sector(block.0, sector, value, self.io.is_durable())
                .await;
        }
        Ok(())
    }

    async fn pass_down(&self, blocks: DataRange) {
        assert_eq!(self.pool.settings.discards, Discards::PassDown);
        for block in blocks.begin().0..blocks.end().0 {
            self.assert_data_locked(DataBlock(block));
        }
        yield_now().await;
        log!("discarding data blocks {blocks:?}");
        for block in blocks.begin().0..blocks.end().0 {
            for sector in 0..SECTORS {
                self.pool.disk().put(block, sector, DISCARDED);
            }
        }
        if self.pool.settings.crash_when_discarding {
            self.pool.check_crash();
        }
        yield_now().await;
    }
}
