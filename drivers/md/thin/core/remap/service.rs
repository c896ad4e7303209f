// SPDX-License-Identifier: GPL-2.0

//! What serving a bio asks for: of its thin device, of the pool, and of the bio itself.

use super::{
    NewBlock,
    Place, //
};
use crate::core::{
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
        Prison, //
    },
    units::{
        DataBlock,
        DataRange,
        DeviceId,
        VirtualBlock,
        VirtualRange, //
    }, //
};
use core::future::Future;

/// Why serving a bio stops before there is a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// There is no data block, and it is worth waiting for one.
    NoSpace,
    /// It failed.
    Failed(Errno),
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Self {
        Self::Failed(error)
    }
}

/// What came of waiting for space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// There may be some.
    TryAgain,
    /// The device is being suspended before there was any.
    Requeue,
    /// There was none in time, or the pool lost more than that.
    Fail(Errno),
}

/// What is done about discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discards {
    /// They succeed without effect: the metadata cannot change at present.
    Ignore,
    /// Blocks are given back to the pool.
    Unmap,
    /// Blocks are given back, and those that nobody else uses are discarded on the data device.
    PassDown,
}

/// What came of asking for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    /// All changes are durable, and so are all data that had been written before it was asked for.
    Made,
    /// There were no changes, perhaps since somebody else's commit. Nothing was done.
    NotNeeded,
}

/// The thin device that a bio was sent to, as far as it can be asked without waiting.
pub(crate) trait Thin: Sync {
    /// The device's number in its pool.
    fn id(&self) -> DeviceId;

    /// The locks of the pool.
    fn prison(&self) -> &Prison;

    /// Whether changes of this device are not durable: there were some since the last commit, or some
    /// were lost.
    fn is_changed(&self) -> bool;

    /// Whether an external origin shows at `place` as long as the block is mapped nowhere.
    ///
    /// If not, it does not show anywhere behind it, either.
    fn origin_shows(&self, place: &Place) -> bool;

    /// Whether an external origin shows in a part of a block only.
    fn origin_ends_in(&self, block: VirtualBlock) -> bool;

    /// Where a block is: `Some(None)` is nowhere yet, and `None` if that cannot be told now.
    fn lookup_now(&self, block: VirtualBlock) -> Option<Option<Mapping>>;
}

/// What serving a bio needs: the bio, and the thin device that it was sent to.
pub(crate) trait Service: Thin {
    /// Whether newly allocated blocks must read as zeroes.
    fn zeroes_new_blocks(&self) -> bool;

    /// What becomes of discards at present.
    fn discards(&self) -> Discards;

    /// Where a block is. `None`: nowhere yet.
    fn lookup(&self, block: VirtualBlock) -> impl Future<Output = Result<Option<Mapping>>> + Send;

    /// Takes a free data block. It is nobody else's until it is inserted or freed.
    fn allocate(&self) -> impl Future<Output = core::result::Result<DataBlock, Stop>> + Send;

    /// Waits until it is worth allocating again, or not worth waiting any more. To be called without
    /// any lock.
    fn space(&self) -> impl Future<Output = Space> + Send;

    /// Gives back a block that was allocated, but not inserted.
    fn free(&self, block: DataBlock) -> impl Future<Output = ()> + Send;

    /// Maps a virtual block, which is mapped nowhere, to a new data block.
    fn insert(
        &self,
        lock: &Guard<'_, ExcludeWriters>,
        block: VirtualBlock,
        new: &NewBlock<'_>,
    ) -> impl Future<Output = Result> + Send;

    /// Maps a virtual block to a new data block, in place of the one it is mapped to.
    fn replace(
        &self,
        lock: &Guard<'_, ExcludeAll>,
        block: VirtualBlock,
        new: &NewBlock<'_>,
    ) -> impl Future<Output = Result> + Send;

    /// The first run of mapped blocks in `range`.
    fn first_run(&self, range: VirtualRange) -> impl Future<Output = Result<Option<Run>>> + Send;

    /// Removes the mappings of a run. `Ok(false)`: not any more, discards are ignored now.
    fn remove(
        &self,
        lock: &Guard<'_, ExcludeAll>,
        run: &Run,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// The first data blocks in `range` that nothing is mapped to; if `durably`, then not in the
    /// committed metadata either.
    fn first_unreferenced(
        &self,
        range: DataRange,
        durably: bool,
    ) -> impl Future<Output = Result<Option<DataRange>>> + Send;

    /// Makes all changes of the pool durable, and before them the data that they refer to.
    ///
    /// Fails if this device has lost changes earlier.
    fn commit(&self) -> impl Future<Output = Result<Commit>> + Send;

    /// Fills a data block with zeroes.
    fn zero(&self, block: DataBlock) -> impl Future<Output = Result> + Send;

    /// Copies a data block.
    fn copy(&self, from: DataBlock, to: DataBlock) -> impl Future<Output = Result> + Send;

    /// Copies a virtual block of the external origin, as far as the origin reaches.
    fn copy_origin(&self, from: VirtualBlock, to: DataBlock)
        -> impl Future<Output = Result> + Send;

    /// Fills what [`Self::copy_origin`] leaves of a data block with zeroes.
    fn zero_behind_origin(
        &self,
        block: VirtualBlock,
        data: DataBlock,
    ) -> impl Future<Output = Result> + Send;

    /// Submits the bio itself to the start of a data block, and waits until it has been written.
    ///
    /// This can be done once; [`Verdict::Remap`](super::Verdict::Remap) must not follow.
    fn overwrite(&self, block: DataBlock) -> impl Future<Output = Result> + Send;

    /// Discards blocks of the data device. A device that refuses loses nothing but space.
    fn pass_down(&self, blocks: DataRange) -> impl Future<Output = ()> + Send;
}
