// SPDX-License-Identifier: GPL-2.0

//! What a target can set while it is being constructed.

use super::{
    attachments::{
        Attachment,
        Attachments, //
    },
    link::TableHandle,
    mapped_device::MappedDevice,
    target_ref::TargetRef, //
};
use crate::{
    bindings,
    block_device::OpenBlockDevice,
    core::{
        errno::{
            Errno,
            Result, //
        },
        units::Sector, //
    }, //
};
use kernel::{
    error::to_result,
    prelude::*, //
};

/// What a device is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
    /// What the table is loaded for: only reading, or both.
    OfTable,
}

/// A target that is being constructed.
///
/// # Invariants
///
/// The target is valid, and nobody else accesses it.
pub(crate) struct Construct<'a> {
    target: TargetRef<'a>,
    attachments: &'a mut Attachments,
    table: &'a TableHandle,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident = $helper:ident;)*) => {
        $(
            $(#[$doc])*
            pub(crate) fn $name(&mut self, value: bool) {
                // SAFETY: By the type invariant the target is valid and nobody else accesses it.
                unsafe { bindings::$helper(self.target.as_raw(), value) };
            }
        )*
    };
}

impl<'a> Construct<'a> {
    /// # Safety
    ///
    /// Nobody else may access the target for `'a`; `attachments` must be its own, and `table` belong
    /// to its table.
    pub(super) unsafe fn new(
        target: TargetRef<'a>,
        attachments: &'a mut Attachments,
        table: &'a TableHandle,
    ) -> Self {
        // INVARIANT: By the requirements of this function.
        Self {
            target,
            attachments,
            table,
        }
    }

    /// How long the target is.
    pub(crate) fn length(&self) -> Sector {
        self.target.length()
    }

    /// The device that the table is loaded for.
    pub(crate) fn mapped_device(&self) -> &'a MappedDevice {
        self.target.mapped_device()
    }

    /// The table that the target is built for, as long as it exists.
    pub(crate) fn table_handle(&self) -> TableHandle {
        self.table.clone()
    }

    /// Opens the device that `path` names, by a path or by its number (`253:0`), and makes it one that
    /// the target's device depends on. Sleeps.
    pub(crate) fn open_device(
        &mut self,
        path: &CStr,
        mode: Mode,
    ) -> Result<(Attachment, OpenBlockDevice)> {
        let mode = match mode {
            Mode::Read => bindings::BLK_OPEN_READ,
            Mode::ReadWrite => bindings::BLK_OPEN_READ | bindings::BLK_OPEN_WRITE,
            Mode::OfTable => self.target.table_mode(),
        };
        self.attachments.open(path, mode)
    }

    /// What the log is to say if constructing fails.
    pub(crate) fn set_error(&mut self, text: &'static CStr) {
        // SAFETY: By the type invariant. Device-mapper only reads the text.
        unsafe { (*self.target.as_raw()).error = text.as_char_ptr().cast_mut() };
    }

    /// The longest bio that the target wants; bios do not go beyond a multiple of it.
    pub(crate) fn set_max_io_length(&mut self, length: Sector) -> Result {
        // SAFETY: By the type invariant.
        let result = unsafe { bindings::dm_set_target_max_io_len(self.target.as_raw(), length.0) };
        to_result(result).map_err(Errno::from)
    }

    /// How many bios the target gets for each flush.
    pub(crate) fn set_flush_bios(&mut self, number: u32) {
        // SAFETY: By the type invariant.
        unsafe { (*self.target.as_raw()).num_flush_bios = number };
    }

    /// How many bios the target gets for each part of a discard; 0: it takes no discards.
    pub(crate) fn set_discard_bios(&mut self, number: u32) {
        // SAFETY: By the type invariant.
        unsafe { (*self.target.as_raw()).num_discard_bios = number };
    }

    /// How many bios the target gets for each part of a write of zeroes without data; 0: it takes
    /// none.
    pub(crate) fn set_write_zeroes_bios(&mut self, number: u32) {
        // SAFETY: By the type invariant.
        unsafe { (*self.target.as_raw()).num_write_zeroes_bios = number };
    }

    setters! {
        /// Whether the target gets flushes even if no device below has a volatile cache.
        set_flush_supported = dm_thin_rs_target_set_flush_supported;
        /// Whether the target gets discards even if no device below takes them.
        set_discards_supported = dm_thin_rs_target_set_discards_supported;
        /// Whether discards are split at multiples of their largest size.
        set_max_discard_granularity = dm_thin_rs_target_set_max_discard_granularity;
        /// Whether only so many bios of the swap are sent to the target at the same time.
        set_limit_swap_bios = dm_thin_rs_target_set_limit_swap_bios;
    }
}
