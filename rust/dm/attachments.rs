// SPDX-License-Identifier: GPL-2.0

//! The devices that a target has taken into its table.

use crate::{
    bindings,
    block_device::OpenBlockDevice,
    core::errno::{
        Errno,
        Result, //
    }, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    error::to_result,
    prelude::*, //
};

/// A device that a target has taken into its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attachment(usize);

/// The devices that a target has taken into its table. They go with it.
///
/// # Invariants
///
/// `devices` are what `dm_get_device` gave `target`, and were not put. The target is valid.
pub(super) struct Attachments {
    target: NonNull<bindings::dm_target>,
    devices: KVec<NonNull<bindings::dm_dev>>,
}

impl Attachments {
    /// No devices yet.
    ///
    /// # Safety
    ///
    /// `target` must be valid until this is dropped, and nobody else may take or put devices at the
    /// same time.
    pub(super) unsafe fn new(target: NonNull<bindings::dm_target>) -> Self {
        // INVARIANT: By the requirements of this function.
        Self {
            target,
            devices: KVec::new(),
        }
    }

    /// Opens the device that `path` names, by a path or by its number, and takes it into the table.
    /// Sleeps.
    pub(super) fn open(
        &mut self,
        path: &CStr,
        mode: bindings::blk_mode_t,
    ) -> Result<(Attachment, OpenBlockDevice)> {
        self.devices.reserve(1, GFP_KERNEL)?;

        let mut device = ptr::null_mut();
        // SAFETY: By the type invariant the target is valid; `path` is a string.
        let result = unsafe {
            bindings::dm_get_device(self.target.as_ptr(), path.as_char_ptr(), mode, &mut device)
        };
        to_result(result)?;
        let device = NonNull::new(device).ok_or(Errno::EINVAL)?;

        let attachment = Attachment(self.devices.len());
        // INVARIANT: The device was just taken. There is room for it.
        let _ = self.devices.push_within_capacity(device);
        // SAFETY: The device is valid as long as it is attached.
        let device = unsafe { device.as_ref() };
        let file = NonNull::new(device.bdev_file).ok_or(Errno::EINVAL)?;
        let bdev = NonNull::new(device.bdev).ok_or(Errno::EINVAL)?;
        // SAFETY: The file is that of the device.
        Ok((attachment, unsafe { OpenBlockDevice::new(file, bdev) }))
    }

    /// The device for C functions, if it is one of these. It is valid as long as `self`.
    pub(super) fn get(&self, attachment: Attachment) -> Option<NonNull<bindings::dm_dev>> {
        self.devices.get(attachment.0).copied()
    }
}

impl Drop for Attachments {
    fn drop(&mut self) {
        for device in self.devices.iter() {
            // SAFETY: By the type invariant.
            unsafe { bindings::dm_put_device(self.target.as_ptr(), device.as_ptr()) };
        }
    }
}
