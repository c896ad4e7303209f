// SPDX-License-Identifier: GPL-2.0

//! Block devices that somebody has opened.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use crate::{
    bindings,
    core::{
        errno::{
            Errno,
            Result, //
        },
        units::Sector, //
    }, //
};
use core::{
    fmt,
    ptr::NonNull, //
};
use kernel::error::to_result;

/// The number of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceNumber(bindings::dev_t);

impl fmt::Display for DeviceNumber {
    /// As device-mapper's tables have it: `253:0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minor = self.0 & const { (1 << bindings::MINORBITS) - 1 };

        write!(f, "{}:{}", self.0 >> bindings::MINORBITS, minor)
    }
}

/// A block device, which stays open as long as this, or a clone, exists.
///
/// # Invariants
///
/// `file` is an open file of `device`, to which we have a reference.
pub(crate) struct OpenBlockDevice {
    file: NonNull<bindings::file>,
    device: NonNull<bindings::block_device>,
}

// SAFETY: Files can be put by any thread, and block devices used by any.
unsafe impl Send for OpenBlockDevice {}
// SAFETY: As above.
unsafe impl Sync for OpenBlockDevice {}

impl OpenBlockDevice {
    /// Keeps a device open that somebody has opened.
    ///
    /// # Safety
    ///
    /// `file` must be an open file of `device`.
    pub(crate) unsafe fn new(
        file: NonNull<bindings::file>,
        device: NonNull<bindings::block_device>,
    ) -> Self {
        // SAFETY: By the requirements of this function.
        unsafe { bindings::dm_thin_rs_get_file(file.as_ptr()) };
        // INVARIANT: The reference was just taken.
        Self { file, device }
    }

    /// The device, for C functions. It is open as long as `self`.
    pub(crate) fn as_raw(&self) -> *mut bindings::block_device {
        self.device.as_ptr()
    }

    /// The number of the device.
    pub(crate) fn number(&self) -> DeviceNumber {
        // SAFETY: By the type invariant the device is valid. Its number does not change.
        DeviceNumber(unsafe { (*self.as_raw()).bd_dev })
    }

    /// How large it is at present.
    pub(crate) fn size(&self) -> Sector {
        // SAFETY: By the type invariant the device is valid.
        Sector(unsafe { bindings::dm_thin_rs_bdev_nr_sectors(self.as_raw()) })
    }

    /// The longest discard that it takes; 0 if it takes none.
    pub(crate) fn max_discard_sectors(&self) -> u32 {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::dm_thin_rs_bdev_max_discard_sectors(self.as_raw()) }
    }

    /// Makes everything durable whose writing has ended. Sleeps.
    pub(crate) fn issue_flush(&self) -> Result {
        // SAFETY: By the type invariant the device is open.
        to_result(unsafe { bindings::blkdev_issue_flush(self.as_raw()) }).map_err(Errno::from)
    }
}

impl Clone for OpenBlockDevice {
    fn clone(&self) -> Self {
        // SAFETY: By the type invariant.
        unsafe { Self::new(self.file, self.device) }
    }
}

impl Drop for OpenBlockDevice {
    /// Sleeps if it is the last one: the device is closed when this returns.
    fn drop(&mut self) {
        // SAFETY: By the type invariant there is a reference to put.
        unsafe { bindings::dm_thin_rs_put_file(self.file.as_ptr()) };
    }
}
