// SPDX-License-Identifier: GPL-2.0

//! Copying and zeroing parts of block devices.
//!
//! C header: [`include/linux/dm-kcopyd.h`](srctree/include/linux/dm-kcopyd.h)

use crate::{
    bindings,
    block_device::OpenBlockDevice,
    core::{
        errno::{
            Errno,
            Result, //
        },
        units::Sector, //
    },
    outcome::{
        self,
        Outcome, //
    }, //
};
use core::{
    ffi::c_void,
    future::Future,
    ptr::NonNull, //
};
use kernel::{
    error::from_err_ptr,
    ffi::{
        c_int,
        c_ulong, //
    }, //
};

/// Copies and zeroes parts of block devices, throttled by the parameter `snapshot_copy_throttle`.
///
/// # Invariants
///
/// Points to a client that is destroyed when this is dropped.
pub(crate) struct Kcopyd(NonNull<bindings::dm_kcopyd_client>);

// SAFETY: A client can be used and destroyed by any thread.
unsafe impl Send for Kcopyd {}
// SAFETY: Clients have locks of their own.
unsafe impl Sync for Kcopyd {}

/// A part of a device.
#[derive(Clone, Copy)]
struct Region<'a> {
    device: &'a OpenBlockDevice,
    start: Sector,
    length: Sector,
}

impl Region<'_> {
    fn to_raw(self) -> bindings::dm_io_region {
        bindings::dm_io_region {
            bdev: self.device.as_raw(),
            sector: self.start.0,
            count: self.length.0,
        }
    }
}

impl Kcopyd {
    /// Makes a client with pages of its own, so that it needs no memory later. Sleeps.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: The function returns the address of a static variable.
        let throttle = unsafe { bindings::dm_thin_rs_kcopyd_throttle() };
        // SAFETY: The throttle is valid for ever.
        let client = unsafe { bindings::dm_kcopyd_client_create(throttle) };
        let client = from_err_ptr(client)?;

        // INVARIANT: It was just made.
        NonNull::new(client).map(Self).ok_or(Errno::ENOMEM)
    }

    /// Copies `length` from the sector `from.1` of the device `from.0` to the sector `to.1` of the
    /// device `to.0`. Resolves when the copy has been written, which does not make it durable.
    ///
    /// Fails with `EIO`.
    pub(crate) fn copy<'a>(
        &'a self,
        from: (&'a OpenBlockDevice, Sector),
        to: (&'a OpenBlockDevice, Sector),
        length: Sector,
    ) -> impl Future<Output = Result> + Send + 'a {
        let from = Region {
            device: from.0,
            start: from.1,
            length,
        };
        let to = Region {
            device: to.0,
            start: to.1,
            length,
        };
        let start = move |outcome: NonNull<Outcome<Result>>| {
            let mut from = from.to_raw();
            let mut to = to.to_raw();
            // SAFETY: By the type invariant the client is valid. It makes copies of the regions,
            // whose devices are open as long as the task waits. `done` is for such a context.
            unsafe {
                bindings::dm_kcopyd_copy(
                    self.0.as_ptr(),
                    &mut from,
                    1,
                    &mut to,
                    0,
                    Some(done),
                    outcome.as_ptr().cast(),
                );
            }
        };
        // SAFETY: `done` resolves the outcome, and it is called once.
        unsafe { outcome::wait(start) }
    }

    /// Fills `length` from the sector `to.1` of the device `to.0` on with zeroes. Resolves when they
    /// have been written, which does not make them durable.
    ///
    /// Fails with `EIO`.
    pub(crate) fn zero<'a>(
        &'a self,
        to: (&'a OpenBlockDevice, Sector),
        length: Sector,
    ) -> impl Future<Output = Result> + Send + 'a {
        let to = Region {
            device: to.0,
            start: to.1,
            length,
        };
        let start = move |outcome: NonNull<Outcome<Result>>| {
            let mut to = to.to_raw();
            // SAFETY: As in `copy`.
            unsafe {
                bindings::dm_kcopyd_zero(
                    self.0.as_ptr(),
                    1,
                    &mut to,
                    0,
                    Some(done),
                    outcome.as_ptr().cast(),
                );
            }
        };
        // SAFETY: `done` resolves the outcome, and it is called once.
        unsafe { outcome::wait(start) }
    }
}

impl Drop for Kcopyd {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is ours, and nobody uses it any more.
        unsafe { bindings::dm_kcopyd_client_destroy(self.0.as_ptr()) };
    }
}

/// # Safety
///
/// Must be called by kcopyd, once, for a job whose context is the outcome that a task waits for.
unsafe extern "C" fn done(read_err: c_int, write_err: c_ulong, context: *mut c_void) {
    let result = if read_err == 0 && write_err == 0 {
        Ok(())
    } else {
        Err(Errno::EIO)
    };
    if let Some(outcome) = NonNull::new(context.cast::<Outcome<Result>>()) {
        // SAFETY: By the requirements of this function.
        unsafe { Outcome::resolve(outcome, result) };
    }
}
