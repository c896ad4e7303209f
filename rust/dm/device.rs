// SPDX-License-Identifier: GPL-2.0

//! Telling device-mapper which parts of which devices a target uses.

use super::attachments::Attachments;
use crate::{
    bindings,
    core::units::Sector, //
};
use core::{
    ffi::c_void,
    ops::ControlFlow,
    ptr::NonNull, //
};
use kernel::ffi::c_int;

pub(crate) use super::attachments::Attachment;

type Visit = unsafe extern "C" fn(
    *mut bindings::dm_target,
    *mut bindings::dm_dev,
    bindings::sector_t,
    bindings::sector_t,
    *mut c_void,
) -> c_int;

/// Wants to know what devices a target uses.
///
/// # Invariants
///
/// Calling `visit` with `target`, one of `attachments`, and `data` is sound.
pub(crate) struct DeviceVisitor<'a> {
    target: NonNull<bindings::dm_target>,
    attachments: &'a Attachments,
    visit: Visit,
    data: *mut c_void,
}

impl<'a> DeviceVisitor<'a> {
    /// `None`: nobody wants to know.
    ///
    /// # Safety
    ///
    /// For `'a`, calling `visit` with `target`, one of its `attachments`, and `data` must be sound.
    pub(super) unsafe fn from_raw(
        target: NonNull<bindings::dm_target>,
        attachments: &'a Attachments,
        visit: bindings::iterate_devices_callout_fn,
        data: *mut c_void,
    ) -> Option<Self> {
        // INVARIANT: By the requirements of this function.
        Some(Self {
            target,
            attachments,
            visit: visit?,
            data,
        })
    }

    /// Tells that the target uses `length` from `start` on of the device. `Break`: that is all there is
    /// to know.
    pub(crate) fn visit(
        &mut self,
        device: Attachment,
        start: Sector,
        length: Sector,
    ) -> ControlFlow<c_int> {
        let Some(device) = self.attachments.get(device) else {
            return ControlFlow::Continue(());
        };
        // SAFETY: By the type invariant.
        let result = unsafe {
            (self.visit)(
                self.target.as_ptr(),
                device.as_ptr(),
                start.0,
                length.0,
                self.data,
            )
        };
        match result {
            0 => ControlFlow::Continue(()),
            result => ControlFlow::Break(result),
        }
    }
}
