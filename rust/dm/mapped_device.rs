// SPDX-License-Identifier: GPL-2.0

//! The devices that device-mapper makes.

use crate::{
    bindings,
    block_device::OpenBlockDevice, //
};
use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// Tells devices apart, as long as they exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MappedDeviceId(usize);

/// A device that device-mapper has made.
///
/// # Invariants
///
/// The device is valid.
#[repr(transparent)]
pub(crate) struct MappedDevice(Opaque<bindings::mapped_device>);

// SAFETY: Mapped devices have locks of their own.
unsafe impl Sync for MappedDevice {}

impl MappedDevice {
    /// Uses a device of the C side.
    ///
    /// # Safety
    ///
    /// `device` must be valid for `'a`.
    pub(super) unsafe fn from_raw<'a>(device: *mut bindings::mapped_device) -> &'a Self {
        // SAFETY: `MappedDevice` is transparent.
        // INVARIANT: By the requirements of this function.
        unsafe { &*device.cast::<Self>() }
    }

    /// The mapped device behind a block device that was opened, unless it is another kind of device, or
    /// is being removed. Does not sleep.
    pub(crate) fn of(device: &OpenBlockDevice) -> Option<HeldMappedDevice> {
        // SAFETY: The device is open.
        let number = unsafe { (*device.as_raw()).bd_dev };
        // SAFETY: The function takes any number.
        let device = unsafe { bindings::dm_get_md(number) };

        // INVARIANT: The function has counted us.
        NonNull::new(device).map(HeldMappedDevice)
    }

    fn as_raw(&self) -> *mut bindings::mapped_device {
        self.0.get()
    }

    /// What tells this device from others.
    pub(crate) fn id(&self) -> MappedDeviceId {
        MappedDeviceId(self.as_raw().addr())
    }

    /// The number of the device as text: `253:0`.
    pub(crate) fn name(&self) -> &CStr {
        // SAFETY: By the type invariant.
        let name = unsafe { bindings::dm_device_name(self.as_raw()) };
        // SAFETY: The name is a string in the device, and never changes.
        unsafe { CStr::from_char_ptr(name) }
    }
}

/// A mapped device that is not removed as long as this exists.
///
/// Removing a device waits until nobody holds it, and only then destroys its targets. So a target
/// must not hold its own device, nor another for long.
///
/// # Invariants
///
/// The device is valid, and counts us as a holder.
pub(crate) struct HeldMappedDevice(NonNull<bindings::mapped_device>);

impl Deref for HeldMappedDevice {
    type Target = MappedDevice;

    fn deref(&self) -> &MappedDevice {
        // SAFETY: By the type invariant.
        unsafe { MappedDevice::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for HeldMappedDevice {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::dm_put(self.0.as_ptr()) };
    }
}
