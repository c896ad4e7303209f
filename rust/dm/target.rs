// SPDX-License-Identifier: GPL-2.0

//! Kinds of target.
//!
//! A driver implements [`Target`], and [`Serve`] as well if its bios may have to wait, and keeps a
//! [`Registration`](super::registration::Registration). Device-mapper then calls the functions of
//! the trait: [`Target::construct`] when a table is loaded; [`Target::preresume`] and
//! [`Target::resume`] when the table comes into effect, or its device is resumed; [`Target::map`] for
//! each bio; [`Target::presuspend`] before it stops sending bios and waits for those that are under
//! way, and [`Target::postsuspend`] afterwards. The target is dropped with its table.
//!
//! A table that is loaded and then replaced before it came into effect sees nothing of this but
//! `construct` and the drop.

use super::{
    arguments::Arguments,
    construct::Construct,
    device::DeviceVisitor,
    limits::QueueLimits,
    status::{
        StatusRequest,
        StatusWriter, //
    },
    target_ref::TargetRef, //
};
use crate::{
    bindings,
    bio::{
        Bio,
        BlockStatus, //
    },
    block_device::OpenBlockDevice,
    core::{
        errno::{
            Errno,
            Result, //
        },
        units::Sector, //
    },
    task::{
        self,
        Serve, //
    },
    workqueue::OrderedQueue, //
};
use core::{
    ops::ControlFlow,
    ptr::NonNull, //
};
use kernel::{
    ffi::{
        c_int,
        c_uint, //
    },
    prelude::*, //
};

/// A kind of target.
///
/// All functions but [`Self::map`] run in process context and may sleep.
pub(crate) trait Target: Send + Sync + Sized + 'static {
    /// Makes a target of a line of a table.
    fn construct(config: &mut Construct<'_>, arguments: Arguments<'_>) -> Result<Pin<KBox<Self>>>;

    /// Decides what becomes of a bio.
    ///
    /// Runs in the context of who submitted the bio; must not wait for other bios of that one.
    fn map(&self, bio: MapBio<'_, Self>) -> Mapped;

    /// The device is about to be suspended, or removed.
    fn presuspend(&self, _this: TargetRef<'_>) {}

    /// It will not be suspended, after all.
    fn presuspend_undo(&self, _this: TargetRef<'_>) {}

    /// The device is suspended: no bios are under way.
    fn postsuspend(&self, _this: TargetRef<'_>) {}

    /// The device is about to be resumed. If this fails, it is not.
    fn preresume(&self, _this: TargetRef<'_>) -> Result {
        Ok(())
    }

    /// Bios are about to come.
    fn resume(&self, _this: TargetRef<'_>) {}

    /// Does what somebody asks the target for.
    fn message(&self, _this: TargetRef<'_>, _arguments: Arguments<'_>) -> Result {
        Err(Errno::EINVAL)
    }

    /// Answers what somebody wants to know of the target.
    fn status(&self, this: TargetRef<'_>, request: StatusRequest, writer: &mut StatusWriter<'_>);

    /// Shows `visitor` what parts of what devices the target uses.
    fn iterate_devices(
        &self,
        this: TargetRef<'_>,
        visitor: &mut DeviceVisitor<'_>,
    ) -> ControlFlow<c_int>;

    /// Adapts the limits of the device's queue, which are those of the devices that it uses.
    fn io_hints(&self, _this: TargetRef<'_>, _limits: &mut QueueLimits) {}
}

/// What was decided about a bio. Comes of what is done with a [`MapBio`].
#[must_use]
pub(crate) struct Mapped(c_int);

impl Mapped {
    const SUBMITTED: Self = Self(bindings::DM_MAPIO_SUBMITTED as c_int);
    const REMAPPED: Self = Self(bindings::DM_MAPIO_REMAPPED as c_int);

    /// What the C callback `map` is to return.
    pub(super) fn into_raw(self) -> c_int {
        self.0
    }
}

/// A bio that a target is to map.
///
/// # Invariants
///
/// The bio is a clone that was made for `target` and not submitted, and nobody else accesses it.
pub(crate) struct MapBio<'a, T> {
    bio: NonNull<bindings::bio>,
    target: &'a T,
    begin: Sector,
}

impl<'a, T: Target> MapBio<'a, T> {
    /// Wraps the bio that the C callback `map` was called with, for `target`, which begins at
    /// `begin` of its table.
    ///
    /// # Safety
    ///
    /// `bio` must be a clone that was made for the target and not submitted, and nobody else may
    /// access it. If `T` serves bios, [`task::begin`] must have been called for it.
    pub(super) unsafe fn new(bio: NonNull<bindings::bio>, target: &'a T, begin: Sector) -> Self {
        // INVARIANT: By the safety requirements.
        Self { bio, target, begin }
    }

    /// The bio.
    pub(crate) fn bio(&self) -> &Bio {
        // SAFETY: By the type invariant.
        unsafe { Bio::from_raw(self.bio.as_ptr()) }
    }

    /// Where the bio starts in the target.
    pub(crate) fn sector(&self) -> Sector {
        // Device-mapper sends a target no bios for what lies before it.
        self.bio()
            .sector()
            .checked_sub(self.begin)
            .unwrap_or(Sector(0))
    }

    /// Makes the bio `length` long, if it is longer; device-mapper sends the rest as another one. Not
    /// for flushes.
    pub(crate) fn shorten(&mut self, length: Sector) {
        let bio_length = self.bio().length();

        if length < bio_length && length.0 != 0 {
            // Not more than the bio has, and that is a `u32` in bytes.
            let sectors = length.0 as c_uint;
            // SAFETY: By the type invariant. It is in `map`, of a target that gets one bio for each
            // part, and not so short.
            unsafe { bindings::dm_accept_partial_bio(self.bio.as_ptr(), sectors) };
        }
    }

    /// Sends the bio to `sector` of `device`.
    pub(crate) fn remap_to(self, device: &'a OpenBlockDevice, sector: Sector) -> Mapped {
        // A reference that lives as long as one to the target is to something that the target keeps,
        // and it is kept until all bios have ended.
        // SAFETY: See above.
        unsafe { self.bio().set_device(device) };
        self.bio().set_sector(sector);
        Mapped::REMAPPED
    }

    /// Sends the bio to the same place of `device` that it has in the target.
    pub(crate) fn pass_to(self, device: &'a OpenBlockDevice) -> Mapped {
        let sector = self.sector();
        self.remap_to(device, sector)
    }

    /// Ends the bio without I/O.
    pub(crate) fn complete(self, status: BlockStatus) -> Mapped {
        self.bio().set_status(status);
        // SAFETY: By the type invariant the bio is ours to end.
        unsafe { bindings::bio_endio(self.bio.as_ptr()) };
        Mapped::SUBMITTED
    }

    /// Fills the memory that the bio reads into with zeroes, and ends it.
    pub(crate) fn zeroes(self) -> Mapped {
        self.bio().zero_fill();
        self.complete(BlockStatus::OK)
    }
}

impl<T: Serve> MapBio<'_, T> {
    /// Sends the bio to `sector` of the data device, and keeps `hook` until its I/O has ended.
    pub(crate) fn remap(self, sector: Sector, hook: Option<T::Hook>) -> Mapped {
        if let Some(hook) = hook {
            // SAFETY: By the type invariant the I/O of the bio has not been started; it has no task.
            unsafe { task::keep::<T>(self.bio.as_ptr(), hook) };
        }
        // SAFETY: The target keeps its data device open until its bios have ended.
        unsafe { self.bio().set_device(self.target.data_device()) };
        self.bio().set_sector(sector);
        Mapped::REMAPPED
    }

    /// Sends the first `length` sectors of the bio, which reads, to `sector` of the origin device, and
    /// lets the rest read as zeroes.
    pub(crate) fn read_origin(self, sector: Sector, length: Sector) -> Mapped {
        let Some(origin) = self.target.origin_device() else {
            return self.complete(BlockStatus::IOERR);
        };
        self.bio().shorten_and_zero(length);
        // SAFETY: The target keeps its origin device open until its bios have ended.
        unsafe { self.bio().set_device(origin) };
        self.bio().set_sector(sector);
        Mapped::REMAPPED
    }

    /// Has the bio served by a task on `queue`, which the target must keep until its bios have ended.
    pub(crate) fn defer(self, queue: &OrderedQueue, request: T::Request) -> Mapped {
        // SAFETY: By the type invariant the bio is ours, and given up here. The type's users keep the
        // queue, as they are told.
        unsafe { task::defer::<T>(self.bio, self.target, queue, request) };
        Mapped::SUBMITTED
    }
}
