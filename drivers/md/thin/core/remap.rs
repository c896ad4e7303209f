// SPDX-License-Identifier: GPL-2.0

//! What happens to a bio.
//!
//! This file is the heart of the driver, and it is meant to be read from top to bottom. A bio that
//! finds its block mapped, and nobody in its way, is remapped on the spot by [`serve_now`]. Any other
//! is served by one of the functions below that one, from its first lock to its verdict.
//!
//! A lock is a value: what it protects stays as it is until the value is dropped, or, when it goes
//! into the verdict, until the I/O of the bio has ended.
//!
//! A virtual block is locked
//!
//! - for `Read` or `Write` by every bio that reads or writes the mapped block. These share.
//! - for `ExcludeWriters` while a block is allocated and filled for it. Readers go on.
//! - for `ExcludeAll` while its mapping is removed or replaced.
//!
//! The mode is part of a lock's type, and a mapping cannot be changed without the lock for it. So
//! whoever holds any lock on a virtual block can rely on its mapping, and the mapping keeps the
//! data block it names from being given to somebody else.
//!
//! Data blocks are locked, too, but only those that nobody has mapped: for as long as a discard of
//! theirs is on its way to the data device, and while they are filled for their new owner. Thus a
//! block cannot be handed out, written, and then be hit by a discard from its previous life.
//!
//! A bio that finds no data block gives all its locks up, so that discards can pass it, waits for
//! space, and starts anew.

mod service;

pub(crate) use self::service::{
    Commit,
    Discards,
    Service,
    Space,
    Stop,
    Thin, //
};

use super::{
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
        Guard,
        HeldLock,
        LockRange,
        Shared, //
    },
    units::{
        DataBlock,
        Sector,
        VirtualBlock,
        VirtualRange, //
    }, //
};
use core::future::Future;

/// What a bio asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    /// Read within one block.
    Read(Place),
    /// Write within one block.
    Write(Write),
    /// Forget whole blocks.
    Discard(VirtualRange),
    /// Let whole blocks read as zeroes, by forgetting them. No external origin shows in any of them.
    ZeroBlocks(VirtualRange),
    /// Make everything durable that was completed before.
    Flush,
}

impl Request {
    /// The block it begins in; any, if it is about none.
    pub(crate) fn first_block(&self) -> VirtualBlock {
        match self {
            Self::Read(place) | Self::Write(Write { place, .. }) => place.block,
            Self::Discard(range) | Self::ZeroBlocks(range) => range.begin(),
            Self::Flush => VirtualBlock(0),
        }
    }
}

/// Where in a thin device a bio starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The block it lies in.
    pub(crate) block: VirtualBlock,
    /// The distance from the start of the block.
    pub(crate) offset: Sector,
}

impl Place {
    /// Where a block starts.
    pub(crate) fn start_of(block: VirtualBlock) -> Self {
        Self {
            block,
            offset: Sector(0),
        }
    }
}

/// A write within one block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    /// Where it starts.
    pub(crate) place: Place,
    /// Whether it replaces the whole block, so that nothing of the old contents remains.
    pub(crate) covers_block: bool,
    /// Whether it must be durable when it completes (`REQ_FUA`).
    pub(crate) durable: bool,
    /// Whether it writes nothing but zeroes, without having them in memory (`REQ_OP_WRITE_ZEROES`).
    pub(crate) is_zeroes: bool,
}

/// What is to become of a bio.
#[must_use]
pub(crate) enum Verdict {
    /// Send it to the data device, and hold the lock until its I/O has ended.
    Remap {
        /// The data block.
        block: DataBlock,
        /// The distance from the start of the block.
        offset: Sector,
        /// The lock on the virtual block.
        lock: HeldLock,
    },
    /// Send it to the data device as it is: a flush.
    PassFlush,
    /// It reads a block that is mapped nowhere: send it to the same place of the external origin, as
    /// far as that reaches. Behind its end are zeroes.
    ReadOrigin(Place),
    /// It reads a block that is mapped nowhere, and no external origin is there, either.
    Zeroes,
    /// It is done.
    Complete,
    /// It is to be sent anew when the device, which is being suspended, is resumed.
    Requeue,
    /// It failed.
    Fail(Errno),
}

/// What the functions that serve a bio come to.
type Served = core::result::Result<Verdict, Stop>;

/// A data block that was allocated and holds what it is to hold, but is not mapped yet.
pub(crate) struct NewBlock<'prison> {
    block: DataBlock,
    /// Kept until the block is mapped.
    _lock: Guard<'prison, ExcludeAll>,
}

impl NewBlock<'_> {
    /// The number of the block.
    pub(crate) fn block(&self) -> DataBlock {
        self.block
    }
}

/// Serves a bio that can be served at once. `None`: it takes a task, see [`serve`].
pub(crate) fn serve_now<T: Thin>(thin: &T, request: &Request) -> Option<Verdict> {
    match request {
        Request::Read(place) => {
            let lock = thin
                .prison()
                .try_lock(this_block(thin, place), Shared::Read)
                .ok()?;
            Some(match thin.lookup_now(place.block)? {
                Some(mapping) => remap(mapping.block(), place, lock),
                None => unmapped(thin, place),
            })
        }
        Request::Write(request) => {
            let place = &request.place;
            let lock = thin
                .prison()
                .try_lock(this_block(thin, place), Shared::Write)
                .ok()?;
            match thin.lookup_now(place.block)? {
                Some(Mapping::Own(block)) => {
                    // Asked after the lookup: the mapping may have been made just before it.
                    let must_commit = request.durable && thin.is_changed();
                    (!must_commit).then(|| remap(block, place, lock))
                }
                None if reads_as_written(thin, request) => Some(Verdict::Complete),
                _ => None,
            }
        }
        Request::Discard(range) => range.is_empty().then_some(Verdict::Complete),
        Request::ZeroBlocks(_) => None,
        Request::Flush => (!thin.is_changed()).then_some(Verdict::PassFlush),
    }
}

/// Serves a bio.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps its arguments twice, and a bio has no memory to spare"
)]
pub(crate) fn serve<'a, T: Service>(
    thin: &'a T,
    request: &'a Request,
) -> impl Future<Output = Verdict> + Send + 'a {
    async move {
        loop {
            let served = match request {
                Request::Read(place) => read(thin, place).await,
                Request::Write(request) => write(thin, request).await,
                Request::Discard(range) => unmap(thin, range, Purpose::Discard).await,
                Request::ZeroBlocks(range) => unmap(thin, range, Purpose::Zero).await,
                Request::Flush => flush(thin).await,
            };
            match served {
                Ok(verdict) => return verdict,
                Err(Stop::Failed(error)) => return Verdict::Fail(error),
                // All locks have been given up.
                Err(Stop::NoSpace) => match thin.space().await {
                    Space::TryAgain => {}
                    Space::Requeue => return Verdict::Requeue,
                    Space::Fail(error) => return Verdict::Fail(error),
                },
            }
        }
    }
}

async fn read<T: Service>(thin: &T, place: &Place) -> Served {
    let lock = thin
        .prison()
        .lock(this_block(thin, place), Shared::Read)
        .await;

    Ok(match thin.lookup(place.block).await? {
        Some(mapping) => remap(mapping.block(), place, lock),
        // Writing leaves an origin as it is, so reading it needs no lock.
        None => unmapped(thin, place),
    })
}

#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps its arguments twice, and a bio has no memory to spare"
)]
fn write<'a, T: Service>(
    thin: &'a T,
    request: &'a Write,
) -> impl Future<Output = Served> + Send + 'a {
    async move {
        let (data, lock) = loop {
            let lock = thin
                .prison()
                .lock(this_block(thin, &request.place), Shared::Write)
                .await;
            if let Some(Mapping::Own(block)) = thin.lookup(request.place.block).await? {
                break (Data::At(block), lock);
            }

            // Somebody else may have held the block exclusively meanwhile, most likely in order to do
            // what we were about to do. Then look again, and share the block with the others.
            let Some(lock) = lock.upgrade().await else {
                continue;
            };

            // The shared lock had to be given up for the exclusive one: this is the lookup that counts.
            match thin.lookup(request.place.block).await? {
                Some(Mapping::Own(block)) => {
                    break (Data::At(block), lock.downgrade(Shared::Write));
                }
                None if reads_as_written(thin, request) => return Ok(Verdict::Complete),
                // Provision the block.
                None => {
                    let new = new_block(thin, request, None).await?;
                    // Readers read zeroes or the origin, so none of them is in our way.
                    thin.insert(&lock, request.place.block, &new).await?;
                    break (Data::of(request, new), lock.downgrade(Shared::Write));
                }
                // Break sharing. Nobody writes to the old block: everyone who has it mapped sees that it
                // is shared. And our own mapping keeps it from being freed. So it needs no lock.
                Some(Mapping::Shared(old)) => {
                    let new = new_block(thin, request, Some(old)).await?;
                    // Once replaced, the old block may be freed and written by its next owner: wait for
                    // those who still read it through this mapping.
                    let lock = lock.promote().await;
                    thin.replace(&lock, request.place.block, &new).await?;
                    break (Data::of(request, new), lock.downgrade(Shared::Write));
                }
            }
        };

        // A durable write is worth nothing if the mapping that leads to it is lost.
        if request.durable && thin.is_changed() {
            thin.commit().await?;
        }
        Ok(match data {
            Data::At(block) => remap(block, &request.place, lock),
            Data::Written => Verdict::Complete,
        })
    }
}

/// Where the data of a write belong.
enum Data {
    /// They have to be written to this block.
    At(DataBlock),
    /// They have been written: the bio was what filled a new block.
    Written,
}

impl Data {
    fn of(request: &Write, new: NewBlock<'_>) -> Self {
        if request.covers_block {
            Self::Written
        } else {
            Self::At(new.block)
        }
    }
}

/// Whether a block that is mapped nowhere reads already as a write would leave it.
fn reads_as_written<T: Thin>(thin: &T, request: &Write) -> bool {
    request.is_zeroes && !thin.origin_shows(&request.place)
}

/// Allocates a data block and fills it: with a copy of `old`, or else of the external origin, or with
/// zeroes; or with the bio itself if that covers the block.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps its arguments twice, and a bio has no memory to spare"
)]
fn new_block<'a, T: Service>(
    thin: &'a T,
    request: &'a Write,
    old: Option<DataBlock>,
) -> impl Future<Output = core::result::Result<NewBlock<'a>, Stop>> + Send + 'a {
    async move {
        let block = thin.allocate().await?;
        // A discard of the block may still be on its way, from when it last was in use.
        let lock = thin
            .prison()
            .lock(LockRange::data_block(block), ExcludeAll)
            .await;

        let filled = match old {
            _ if request.covers_block => thin.overwrite(block).await,
            Some(old) => thin.copy(old, block).await,
            None if thin.origin_shows(&Place::start_of(request.place.block)) => {
                match thin.copy_origin(request.place.block, block).await {
                    Ok(()) if thin.origin_ends_in(request.place.block) => {
                        thin.zero_behind_origin(request.place.block, block).await
                    }
                    copied => copied,
                }
            }
            None if thin.zeroes_new_blocks() => thin.zero(block).await,
            None => Ok(()),
        };
        if let Err(error) = filled {
            thin.free(block).await;
            return Err(error.into());
        }
        Ok(NewBlock { block, _lock: lock })
    }
}

/// What blocks are unmapped for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Nobody needs what is in them.
    Discard,
    /// They have to read as zeroes.
    Zero,
}

#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps its arguments twice, and a bio has no memory to spare"
)]
fn unmap<'a, T: Service>(
    thin: &'a T,
    range: &'a VirtualRange,
    purpose: Purpose,
) -> impl Future<Output = Served> + Send + 'a {
    async move {
        let mut rest = *range;

        while !rest.is_empty() && thin.discards() != Discards::Ignore {
            let (mut region, _) = rest.split_at_region();
            let Some(blocks) = LockRange::virtual_blocks(thin.id(), region) else {
                return Err(Errno::EINVAL.into());
            };
            let lock = thin.prison().lock(blocks, ExcludeAll).await;

            while let Some(run) = thin.first_run(region).await? {
                region = region.from(run.blocks.end());
                if !unmap_run(thin, &lock, &run, purpose).await? {
                    return ignored(purpose);
                }
            }
            rest = range.from(region.end());
        }
        if rest.is_empty() {
            Ok(Verdict::Complete)
        } else {
            ignored(purpose)
        }
    }
}

/// What comes of unmapping when the metadata cannot change: there was no need for a discard.
fn ignored(purpose: Purpose) -> Served {
    match purpose {
        Purpose::Discard => Ok(Verdict::Complete),
        Purpose::Zero => Err(Errno::EIO.into()),
    }
}

/// Returns whether that could be done.
// No `async fn`: those keep their arguments twice.
fn unmap_run<'a, T: Service>(
    thin: &'a T,
    lock: &'a Guard<'_, ExcludeAll>,
    run: &'a Run,
    purpose: Purpose,
) -> impl Future<Output = Result<bool>> + Send + 'a {
    async move {
        if thin.discards() != Discards::PassDown {
            return thin.remove(lock, run).await;
        }

        let Some(blocks) = LockRange::data_blocks(run.data) else {
            return Err(Errno::EINVAL);
        };
        // From the moment the mapping is gone, only this lock keeps the blocks from being reused.
        let data_lock = thin.prison().lock(blocks, ExcludeAll).await;

        if !thin.remove(lock, run).await? {
            return Ok(false);
        }
        // If blocks were shared and nobody refers to them now, a crash or an abort may still bring
        // somebody back who does. And until zeroes are durable, a crash may show what was there
        // before, but nothing else.
        let durably = run.shared || purpose == Purpose::Zero;
        let mut rest = run.data;
        while let Some(unreferenced) = thin.first_unreferenced(rest, durably).await? {
            rest = rest.from(unreferenced.end());
            thin.pass_down(unreferenced).await;
        }
        drop(data_lock);
        Ok(true)
    }
}

async fn flush<T: Service>(thin: &T) -> Served {
    if !thin.is_changed() {
        return Ok(Verdict::PassFlush);
    }
    Ok(match thin.commit().await? {
        // Committing flushes the data device first.
        Commit::Made => Verdict::Complete,
        // That of the commit which came before us may have been too early.
        Commit::NotNeeded => Verdict::PassFlush,
    })
}

fn remap(block: DataBlock, place: &Place, lock: Guard<'_, Shared>) -> Verdict {
    Verdict::Remap {
        block,
        offset: place.offset,
        lock: lock.keep(),
    }
}

fn unmapped<T: Thin>(thin: &T, place: &Place) -> Verdict {
    if thin.origin_shows(place) {
        Verdict::ReadOrigin(*place)
    } else {
        Verdict::Zeroes
    }
}

fn this_block<T: Thin>(thin: &T, place: &Place) -> LockRange {
    LockRange::virtual_block(thin.id(), place.block)
}
