// SPDX-License-Identifier: GPL-2.0

//! Device-mapper's side of a target.

use super::mapped_device::MappedDevice;
use crate::{
    bindings,
    core::units::Sector, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

/// A target as device-mapper sees it.
///
/// # Invariants
///
/// For `'a`, the target and its table are valid.
#[derive(Clone, Copy)]
pub(crate) struct TargetRef<'a> {
    target: NonNull<bindings::dm_target>,
    _valid: PhantomData<&'a bindings::dm_target>,
}

impl<'a> TargetRef<'a> {
    /// # Safety
    ///
    /// For `'a`, `target` must be a valid target of a valid table.
    pub(super) unsafe fn from_raw(target: NonNull<bindings::dm_target>) -> Self {
        // INVARIANT: By the requirements of this function.
        Self {
            target,
            _valid: PhantomData,
        }
    }

    pub(super) fn as_raw(self) -> *mut bindings::dm_target {
        self.target.as_ptr()
    }

    /// Where the target begins in its device.
    pub(crate) fn begin(self) -> Sector {
        // SAFETY: By the type invariant.
        Sector(unsafe { (*self.as_raw()).begin })
    }

    /// How long the target is.
    pub(crate) fn length(self) -> Sector {
        // SAFETY: By the type invariant.
        Sector(unsafe { (*self.as_raw()).len })
    }

    fn table(self) -> *mut bindings::dm_table {
        // SAFETY: By the type invariant.
        unsafe { (*self.as_raw()).table }
    }

    /// The device that the table belongs to.
    pub(crate) fn mapped_device(self) -> &'a MappedDevice {
        // SAFETY: By the type invariant the table is valid.
        let device = unsafe { bindings::dm_table_get_md(self.table()) };
        // SAFETY: A table belongs to a device, and does not outlive it.
        unsafe { MappedDevice::from_raw(device) }
    }

    pub(super) fn table_mode(self) -> bindings::blk_mode_t {
        // SAFETY: By the type invariant the table is valid.
        unsafe { bindings::dm_table_get_mode(self.table()) }
    }

    /// Whether the target's device is suspended.
    pub(crate) fn is_suspended(self) -> bool {
        // SAFETY: By the type invariant.
        (unsafe { bindings::dm_suspended(self.as_raw()) }) != 0
    }

    /// Whether the target's device is being suspended without flush, so that bios may be handed back
    /// to device-mapper to keep.
    pub(crate) fn is_noflush_suspending(self) -> bool {
        // SAFETY: By the type invariant.
        (unsafe { bindings::dm_noflush_suspending(self.as_raw()) }) != 0
    }
}
