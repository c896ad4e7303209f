// SPDX-License-Identifier: GPL-2.0

//! A bio while it is being served: what `core/remap.rs` asks for, and what becomes of its verdicts.

#![allow(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps its arguments twice, and a bio has no memory to spare"
)]

use crate::{
    bio::BlockStatus,
    block_device::OpenBlockDevice,
    control::Control,
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
            HeldLock,
            Prison, //
        },
        remap::{
            self,
            Commit,
            Discards,
            NewBlock,
            Place,
            Service,
            Space,
            Stop,
            Thin, //
        },
        units::{
            DataBlock,
            DataRange,
            DeviceId,
            Sector,
            VirtualBlock,
            VirtualRange, //
        }, //
    },
    owner::Owner,
    task::{
        TaskBio,
        Verdict, //
    },
    thin::ThinTarget, //
};
use core::future::Future;

/// A bio that a task serves.
struct Serving<'a> {
    thin: &'a ThinTarget,
    bio: TaskBio<'a, ThinTarget>,
}

/// Serves a bio.
// No `async fn`: those keep their arguments twice, and a bio has no memory to spare.
pub(crate) fn serve<'a>(
    thin: &'a ThinTarget,
    bio: TaskBio<'a, ThinTarget>,
    request: remap::Request,
) -> impl Future<Output = Verdict<HeldLock>> + Send + 'a {
    let serving = Serving { thin, bio };

    async move {
        let verdict = remap::serve(&serving, &request).await;
        serving.thin.carry_out(verdict)
    }
}

impl ThinTarget {
    /// What a verdict means to the executor.
    pub(crate) fn carry_out(&self, verdict: remap::Verdict) -> Verdict<HeldLock> {
        match verdict {
            remap::Verdict::Remap {
                block,
                offset,
                lock,
            } => match self.data_sector(block, offset) {
                Some(sector) => Verdict::Remap {
                    sector,
                    hook: Some(lock),
                },
                None => {
                    self.prison().release(lock);
                    Verdict::Complete(BlockStatus::IOERR)
                }
            },
            remap::Verdict::PassFlush => Verdict::Remap {
                sector: Sector(0),
                hook: None,
            },
            remap::Verdict::ReadOrigin(place) => self.read_origin(&place),
            remap::Verdict::Zeroes => Verdict::Zeroes,
            remap::Verdict::Complete => Verdict::Complete(BlockStatus::OK),
            remap::Verdict::Requeue => Verdict::Complete(BlockStatus::DM_REQUEUE),
            remap::Verdict::Fail(error) => Verdict::Complete(BlockStatus::from(error)),
        }
    }

    /// Where a place in a data block is on the data device.
    fn data_sector(&self, block: DataBlock, offset: Sector) -> Option<Sector> {
        self.pool.block_size.data_sector(block)?.checked_add(offset)
    }
}

impl Serving<'_> {
    fn control(&self) -> &Owner<Control> {
        &self.thin.pool.control
    }

    /// Where a block is, if that is known here; if looking it up fails, the metadata queue is to find
    /// that out, and to say so.
    fn lookup_in_memory(&self, block: VirtualBlock) -> Option<Option<Mapping>> {
        if self.thin.pool.shared.fails() {
            return None;
        }
        self.thin.pool.lookup_in_memory(&self.thin.thin, block).ok()
    }

    fn map_block(
        &self,
        block: VirtualBlock,
        data: DataBlock,
    ) -> impl Future<Output = Result> + Send + '_ {
        self.control()
            .call_at_once(move |control| control.insert(&self.thin.thin, block, data))
    }

    /// Where a data block begins, and how long it is. A block that cannot be on the data device is
    /// behind its end.
    fn data_block(&self, block: DataBlock) -> (Sector, Sector) {
        (
            self.thin
                .data_sector(block, Sector(0))
                .unwrap_or(Sector(u64::MAX)),
            Sector(self.thin.pool.block_size.sectors()),
        )
    }

    fn data_device(&self) -> &OpenBlockDevice {
        &self.thin.pool.data_device
    }
}

impl Thin for Serving<'_> {
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

impl Service for Serving<'_> {
    fn zeroes_new_blocks(&self) -> bool {
        self.thin.pool.shared.zeroes_new_blocks()
    }

    fn discards(&self) -> Discards {
        self.thin.pool.shared.discards()
    }

    fn lookup(&self, block: VirtualBlock) -> impl Future<Output = Result<Option<Mapping>>> + Send {
        async move {
            match self.lookup_in_memory(block) {
                Some(found) => Ok(found),
                None => {
                    self.control()
                        .call(|control| control.lookup(&self.thin.thin, block))
                        .await
                }
            }
        }
    }

    fn allocate(&self) -> impl Future<Output = core::result::Result<DataBlock, Stop>> + Send {
        self.control().call_at_once(Control::allocate)
    }

    fn space(&self) -> impl Future<Output = Space> + Send {
        self.control()
            .ask(|control, asker| control.wait_for_space(&self.thin.table, asker))
    }

    fn free(&self, block: DataBlock) -> impl Future<Output = ()> + Send {
        self.control()
            .call_at_once(move |control| control.free(block))
    }

    fn insert(
        &self,
        _lock: &Guard<'_, ExcludeWriters>,
        block: VirtualBlock,
        new: &NewBlock<'_>,
    ) -> impl Future<Output = Result> + Send {
        self.map_block(block, new.block())
    }

    fn replace(
        &self,
        _lock: &Guard<'_, ExcludeAll>,
        block: VirtualBlock,
        new: &NewBlock<'_>,
    ) -> impl Future<Output = Result> + Send {
        self.map_block(block, new.block())
    }

    fn first_run(&self, range: VirtualRange) -> impl Future<Output = Result<Option<Run>>> + Send {
        self.control()
            .call(move |control| control.first_run(&self.thin.thin, range))
    }

    fn remove(
        &self,
        _lock: &Guard<'_, ExcludeAll>,
        run: &Run,
    ) -> impl Future<Output = Result<bool>> + Send {
        let blocks = run.blocks;

        self.control()
            .call(move |control| control.remove(&self.thin.thin, blocks))
    }

    fn first_unreferenced(
        &self,
        range: DataRange,
        durably: bool,
    ) -> impl Future<Output = Result<Option<DataRange>>> + Send {
        self.control()
            .call(move |control| control.first_unreferenced(range, durably))
    }

    fn commit(&self) -> impl Future<Output = Result<Commit>> + Send {
        // After all else that waits, so that one commit does for all who ask for one.
        self.control()
            .call_last(|control| control.commit_for(&self.thin.thin))
    }

    fn zero(&self, block: DataBlock) -> impl Future<Output = Result> + Send {
        let (start, length) = self.data_block(block);

        self.thin
            .pool
            .kcopyd
            .zero((self.data_device(), start), length)
    }

    fn copy(&self, from: DataBlock, to: DataBlock) -> impl Future<Output = Result> + Send {
        let (from, length) = self.data_block(from);
        let (to, _) = self.data_block(to);
        let device = self.data_device();

        self.thin
            .pool
            .kcopyd
            .copy((device, from), (device, to), length)
    }

    fn copy_origin(
        &self,
        from: VirtualBlock,
        to: DataBlock,
    ) -> impl Future<Output = Result> + Send {
        async move {
            let (to, _) = self.data_block(to);
            let origin = self.thin.origin.as_ref().ok_or(Errno::EIO)?;
            let (start, length) = origin.extent().part_of(from).ok_or(Errno::EIO)?;

            self.thin
                .pool
                .kcopyd
                .copy((&origin.device, start), (self.data_device(), to), length)
                .await
        }
    }

    fn zero_behind_origin(
        &self,
        block: VirtualBlock,
        data: DataBlock,
    ) -> impl Future<Output = Result> + Send {
        async move {
            let (start, length) = self.data_block(data);
            let origin = self.thin.origin.as_ref().ok_or(Errno::EIO)?;
            let (_, copied) = origin.extent().part_of(block).ok_or(Errno::EIO)?;
            let (Some(start), Some(rest)) = (start.checked_add(copied), length.checked_sub(copied))
            else {
                return Err(Errno::EIO);
            };

            self.thin
                .pool
                .kcopyd
                .zero((self.data_device(), start), rest)
                .await
        }
    }

    fn overwrite(&self, block: DataBlock) -> impl Future<Output = Result> + Send {
        let (start, _) = self.data_block(block);

        self.bio.submit(self.thin, start)
    }

    fn pass_down(&self, blocks: DataRange) -> impl Future<Output = ()> + Send {
        self.thin.pool.pass_down(blocks)
    }
}
