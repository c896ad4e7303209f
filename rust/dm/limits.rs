// SPDX-License-Identifier: GPL-2.0

//! The limits of a device's queue, as far as targets have a say in them.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use crate::bindings;

/// The limits of a device that is being set up, stacked from those of the devices below.
///
/// # Invariants
///
/// Has the layout of the C structure.
#[repr(transparent)]
pub(crate) struct QueueLimits(bindings::queue_limits);

impl QueueLimits {
    /// The limits that an `io_hints` callback gets from device-mapper.
    ///
    /// # Safety
    ///
    /// For `'a`, `limits` must be valid, and nobody else may use it.
    pub(super) unsafe fn from_raw_mut<'a>(limits: *mut bindings::queue_limits) -> &'a mut Self {
        // SAFETY: By the safety requirements; the layout is the same.
        unsafe { &mut *limits.cast() }
    }

    /// The most sectors that a request of a file system has.
    pub(crate) fn max_sectors(&self) -> u32 {
        self.0.max_sectors
    }

    /// Sets [`QueueLimits::max_sectors`].
    pub(crate) fn set_max_sectors(&mut self, sectors: u32) {
        self.0.max_sectors = sectors;
    }

    /// The size that requests had best be a multiple of, in bytes; 0 if there is none.
    pub(crate) fn io_opt(&self) -> u32 {
        self.0.io_opt
    }

    /// Sets [`QueueLimits::io_opt`].
    pub(crate) fn set_io_opt(&mut self, bytes: u32) {
        self.0.io_opt = bytes;
    }

    /// The size that requests should have at least, in bytes.
    pub(crate) fn io_min(&self) -> u32 {
        self.0.io_min
    }

    /// Sets [`QueueLimits::io_min`].
    pub(crate) fn set_io_min(&mut self, bytes: u32) {
        self.0.io_min = bytes;
    }

    /// Sets the unit of discards, in bytes; 0 if they are not to be taken from the devices below.
    pub(crate) fn set_discard_granularity(&mut self, bytes: u32) {
        self.0.discard_granularity = bytes;
    }

    /// Sets the most sectors that a discard can have; 0 if there are no discards.
    pub(crate) fn set_max_hw_discard_sectors(&mut self, sectors: u32) {
        self.0.max_hw_discard_sectors = sectors;
    }
}
