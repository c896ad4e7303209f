// SPDX-License-Identifier: GPL-2.0

//! What becomes of a bio when its task is over.

use super::{
    keep,
    per_bio::{
        set_stage,
        Stage, //
    },
    Serve, //
};
use crate::{
    bindings,
    bio::{
        Bio,
        BlockStatus, //
    },
    block_device::OpenBlockDevice,
    core::units::Sector, //
};
use core::ptr;

/// What is to become of a bio.
#[must_use]
pub(crate) enum Verdict<H> {
    /// Send it to `sector` of the data device, and keep `hook` until its I/O has ended.
    Remap {
        /// Where the bio starts on the data device.
        sector: Sector,
        /// Given to [`Serve::end_io`] in the end.
        hook: Option<H>,
    },
    /// Send its first `length` sectors, if it is longer, to `sector` of the origin device, and let the
    /// rest read as zeroes. It is a read.
    ReadOrigin {
        /// Where it starts on the origin device.
        sector: Sector,
        /// As far as the origin device reaches.
        length: Sector,
    },
    /// End it without I/O.
    Complete(BlockStatus),
    /// Fill the memory that it reads into with zeroes and end it.
    Zeroes,
}

/// Does with a bio what its verdict says.
///
/// # Safety
///
/// `bio` must belong to the caller, who gives it up, and its task be over.
pub(super) unsafe fn carry_out<T: Serve>(
    bio: *mut bindings::bio,
    target: &T,
    verdict: Verdict<T::Hook>,
) {
    // SAFETY: The task is over.
    unsafe { set_stage::<T>(bio, Stage::Empty) };
    // SAFETY: The bio is ours.
    let ours = unsafe { Bio::from_raw(bio) };

    match verdict {
        Verdict::Remap { sector, hook } => {
            if let Some(hook) = hook {
                // SAFETY: The task is over, and the bio has no I/O in flight.
                unsafe { keep::<T>(bio, hook) };
            }
            // SAFETY: The bio is ours. The target keeps the device open until its bios have ended.
            unsafe { submit(bio, target.data_device(), sector) };
        }
        Verdict::ReadOrigin { sector, length } => match target.origin_device() {
            Some(origin) => {
                ours.shorten_and_zero(length);
                // SAFETY: As above.
                unsafe { submit(bio, origin, sector) };
            }
            None => {
                ours.set_status(BlockStatus::IOERR);
                // SAFETY: The bio is ours to end.
                unsafe { bindings::bio_endio(bio) };
            }
        },
        Verdict::Complete(status) => {
            ours.set_status(status);
            // SAFETY: The bio is ours to end.
            unsafe { bindings::bio_endio(bio) };
        }
        Verdict::Zeroes => {
            ours.zero_fill();
            // SAFETY: The bio is ours to end.
            unsafe { bindings::bio_endio(bio) };
        }
    }
}

/// Submits a bio to `sector` of `device`.
///
/// # Safety
///
/// `bio` must be a clone of a target that serves bios and belong to the caller, who gives it up until
/// its I/O has ended; `device` must stay open until then.
pub(super) unsafe fn submit(bio: *mut bindings::bio, device: &OpenBlockDevice, sector: Sector) {
    // SAFETY: By the requirements of this function.
    let submitted = unsafe { Bio::from_raw(bio) };
    // SAFETY: By the requirements of this function.
    unsafe { submitted.set_device(device) };
    submitted.set_sector(sector);
    // SAFETY: The bio is ours to submit, and `accounts_remapped_io` is set for targets that serve bios.
    unsafe { bindings::dm_submit_bio_remap(bio, ptr::null_mut()) };
}
