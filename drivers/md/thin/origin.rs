// SPDX-License-Identifier: GPL-2.0

//! The external origin of a thin device: a device that shows where the thin one has no block.

use crate::{
    block_device::OpenBlockDevice,
    core::{
        origin::Extent,
        units::{
            BlockSize,
            Sector, //
        }, //
    }, //
};
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// An external origin.
pub(crate) struct Origin {
    /// The device.
    pub(crate) device: OpenBlockDevice,
    block_size: BlockSize,
    /// How many sectors it had when the thin device was resumed last.
    sectors: Atomic<u64>,
}

impl Origin {
    /// An origin that shows nothing before [`Origin::read_size`].
    pub(crate) fn new(device: OpenBlockDevice, block_size: BlockSize) -> Self {
        Self {
            device,
            block_size,
            sectors: Atomic::new(0),
        }
    }

    /// Goes by the size that the device has now. No bio may be in flight.
    pub(crate) fn read_size(&self) {
        self.sectors.store(self.device.size().0, Relaxed);
    }

    /// What there is of it.
    pub(crate) fn extent(&self) -> Extent {
        Extent {
            block_size: self.block_size,
            length: Sector(self.sectors.load(Relaxed)),
        }
    }
}
