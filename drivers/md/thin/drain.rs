// SPDX-License-Identifier: GPL-2.0

//! Stopping the thin devices of a pool, so that what bios rely on can be changed.
//!
//! A device is stopped by suspending it from inside the kernel, which nests with what the user does.
//! That refuses new bios first; those that wait for space are handed back to device-mapper, which
//! sends them again afterwards; the others are waited for. They end, because nothing that they wait
//! for is stopped: locks are given up when I/O ends, and the metadata queue goes on.
//!
//! Whatever changes the shape of a pool takes a [`Drained`] as an argument, and what changes that of a
//! thin device a [`DrainedThin`], so that it cannot be called without. Nothing of what a drain waits
//! for may change the shape: it has no token.
//!
//! All this is done on a queue of its own. So it is done one after the other, and not by those who
//! hold locks of the pool device, as everybody does who sends it a message.

use crate::{
    core::{
        errno::{
            Errno,
            Result, //
        },
        units::DeviceId, //
    },
    dm::link::{
        Suspended,
        TableHandle, //
    },
    owner::{
        Owned,
        Owner, //
    },
    workqueue::OrderedQueue, //
};
use core::marker::PhantomData;
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// What stops the thin devices of a pool.
#[pin_data]
pub(crate) struct Drain {
    #[pin]
    tables: Owner<Tables>,
    /// Whether the pool device is suspended, or has never been resumed. Changes on the queue.
    suspended: Atomic<bool>,
}

/// The tables that have thin devices of the pool open.
///
/// # Invariants
///
/// `suspended` has room for a suspension of each table.
struct Tables {
    tables: KVec<(DeviceId, TableHandle)>,
    /// The devices that are stopped because the pool is.
    suspended: KVec<Suspended>,
}

impl Owned for Tables {}

/// The thin devices of a pool are stopped, and stay so as long as this exists.
pub(crate) struct Drained<'a>(PhantomData<&'a Tables>);

/// All who have a certain thin device open are stopped, and stay so as long as this exists.
pub(crate) struct DrainedThin<'a> {
    device: DeviceId,
    _suspended: KVec<Suspended>,
    _tables: PhantomData<&'a Tables>,
}

impl DrainedThin<'_> {
    /// The device that is stopped.
    pub(crate) fn device(&self) -> DeviceId {
        self.device
    }
}

impl Drain {
    /// For a pool that has never been resumed; `queue` is for this alone.
    pub(crate) fn new(queue: OrderedQueue) -> impl PinInit<Self> {
        pin_init!(Self {
            tables <- Owner::new(
                queue,
                Tables {
                    tables: KVec::new(),
                    suspended: KVec::new(),
                },
            ),
            suspended: Atomic::new(true),
        })
    }

    /// Notes that a table has a thin device open. Sleeps.
    ///
    /// Fails with `EINVAL` while the pool is suspended: the device could not be stopped then.
    pub(crate) fn add(&self, device: DeviceId, table: TableHandle) -> Result {
        self.tables.call_and_wait(|tables| {
            if self.is_suspended() {
                return Err(Errno::EINVAL);
            }
            tables.add(device, table)
        })
    }

    /// The opposite of [`Drain::add`]: the table is about to go. Sleeps.
    pub(crate) fn remove(&self, table: &TableHandle) {
        self.tables.call_and_wait(|tables| tables.remove(table));
    }

    /// Whether the pool device is suspended, or has never been resumed.
    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended.load(Relaxed)
    }

    /// Stops all thin devices of the pool. Sleeps.
    pub(crate) fn stop(&self) {
        self.tables.call_and_wait(|tables| {
            self.suspended.store(true, Relaxed);
            tables.stop();
        });
    }

    /// Lets the thin devices that [`Drain::stop`] stopped go on. Sleeps.
    pub(crate) fn resume(&self) {
        self.tables.call_and_wait(|tables| {
            tables.suspended.clear();
            self.suspended.store(false, Relaxed);
        });
    }

    /// Does something while all thin devices of the pool are stopped. Sleeps.
    ///
    /// Fails with `EINVAL` if they are not.
    pub(crate) fn while_stopped<R: Send>(
        &self,
        function: impl FnOnce(&Drained<'_>) -> Result<R> + Send,
    ) -> Result<R> {
        self.tables.call_and_wait(|_| {
            if !self.is_suspended() {
                return Err(Errno::EINVAL);
            }
            function(&Drained(PhantomData))
        })
    }

    /// Does something while all who have a thin device open are stopped. Sleeps.
    pub(crate) fn with_thin_stopped<R: Send>(
        &self,
        device: DeviceId,
        function: impl FnOnce(&DrainedThin<'_>) -> Result<R> + Send,
    ) -> Result<R> {
        self.tables
            .call_and_wait(|tables| function(&tables.stop_thin(device)?))
    }
}

impl Tables {
    fn add(&mut self, device: DeviceId, table: TableHandle) -> Result {
        let missing = self
            .tables
            .len()
            .saturating_add(1)
            .saturating_sub(self.suspended.len());

        // INVARIANT: Room for one suspension more than before.
        self.suspended.reserve(missing, GFP_KERNEL)?;
        Ok(self.tables.push((device, table), GFP_KERNEL)?)
    }

    fn remove(&mut self, table: &TableHandle) {
        let found = self
            .tables
            .iter()
            .position(|(_, other)| other.is_same(table));

        if let Some(index) = found {
            // It is there.
            let _ = self.tables.remove(index);
        }
    }

    fn stop(&mut self) {
        for (_, table) in self.tables.iter() {
            if let Some(suspended) = table.suspend_noflush() {
                // There is room for it.
                let _ = self.suspended.push_within_capacity(suspended);
            }
        }
    }

    fn stop_thin(&mut self, device: DeviceId) -> Result<DrainedThin<'_>> {
        let mut suspended = KVec::with_capacity(self.tables.len(), GFP_KERNEL)?;

        for (id, table) in self.tables.iter() {
            if *id == device {
                if let Some(stopped) = table.suspend_noflush() {
                    // There is room for it.
                    let _ = suspended.push_within_capacity(stopped);
                }
            }
        }
        Ok(DrainedThin {
            device,
            _suspended: suspended,
            _tables: PhantomData,
        })
    }
}
