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
    noio::NoIoScope, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        Mutex, //
    }, //
};

/// What stops the thin devices of a pool.
#[pin_data]
pub(crate) struct Drain {
    #[pin]
    tables: Mutex<Tables>,
    /// Whether the pool device is suspended, or has never been resumed.
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

/// The thin devices of a pool are stopped, and stay so as long as this exists.
pub(crate) struct Drained<'a>(#[expect(dead_code)] Guard<'a, Tables, MutexBackend>);

/// All who have a certain thin device open are stopped, and stay so as long as this exists.
pub(crate) struct DrainedThin<'a> {
    device: DeviceId,
    // Dropped before the list is unlocked: a table cannot go before its device was resumed.
    #[expect(dead_code)]
    suspended: KVec<Suspended>,
    #[expect(dead_code)]
    tables: Guard<'a, Tables, MutexBackend>,
}

impl DrainedThin<'_> {
    /// The device that is stopped.
    pub(crate) fn device(&self) -> DeviceId {
        self.device
    }
}

impl Drain {
    /// For a pool that has never been resumed.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            tables <- new_mutex!(Tables {
                tables: KVec::new(),
                suspended: KVec::new(),
            }),
            suspended: Atomic::new(true),
        })
    }

    /// Notes that a table has a thin device open.
    ///
    /// Fails with `EINVAL` while the pool is suspended: the device could not be stopped then.
    pub(crate) fn add(&self, device: DeviceId, table: TableHandle) -> Result {
        let mut tables = self.tables.lock();
        let tables = &mut *tables;

        // Whoever resumes the pool waits for this lock, so with it held memory must not depend on
        // I/O to a thin device that is stopped.
        let _noio = NoIoScope::new();
        if self.is_suspended() {
            return Err(Errno::EINVAL);
        }
        let missing = tables
            .tables
            .len()
            .saturating_add(1)
            .saturating_sub(tables.suspended.len());

        // INVARIANT: Room for one suspension more than before.
        tables.suspended.reserve(missing, GFP_KERNEL)?;
        Ok(tables.tables.push((device, table), GFP_KERNEL)?)
    }

    /// The opposite of [`Drain::add`]: the table is about to go.
    pub(crate) fn remove(&self, table: &TableHandle) {
        let mut tables = self.tables.lock();
        let found = tables
            .tables
            .iter()
            .position(|(_, other)| other.is_same(table));

        if let Some(index) = found {
            // It is there.
            let _ = tables.tables.remove(index);
        }
    }

    /// Whether the pool device is suspended, or has never been resumed.
    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended.load(Relaxed)
    }

    /// Stops all thin devices of the pool. Sleeps.
    ///
    /// The list stays locked meanwhile: a table cannot go before its device is stopped.
    pub(crate) fn stop(&self) {
        let mut tables = self.tables.lock();
        let tables = &mut *tables;
        let _noio = NoIoScope::new();

        self.suspended.store(true, Relaxed);
        for (_, table) in tables.tables.iter() {
            if let Some(suspended) = table.suspend_noflush() {
                // There is room for it.
                let _ = tables.suspended.push_within_capacity(suspended);
            }
        }
    }

    /// Lets the thin devices that [`Drain::stop`] stopped go on. Sleeps.
    pub(crate) fn resume(&self) {
        let mut tables = self.tables.lock();

        tables.suspended.clear();
        self.suspended.store(false, Relaxed);
    }

    /// Proof that all thin devices of the pool are stopped: `None` if they are not.
    pub(crate) fn drained(&self) -> Option<Drained<'_>> {
        let tables = self.tables.lock();

        self.is_suspended().then_some(Drained(tables))
    }

    /// Stops all who have a thin device open. Sleeps; fails with `ENOMEM`.
    pub(crate) fn stop_thin(&self, device: DeviceId) -> Result<DrainedThin<'_>> {
        let tables = self.tables.lock();
        let _noio = NoIoScope::new();
        let mut suspended = KVec::with_capacity(tables.tables.len(), GFP_KERNEL)?;

        for (id, table) in tables.tables.iter() {
            if *id == device {
                if let Some(stopped) = table.suspend_noflush() {
                    // There is room for it.
                    let _ = suspended.push_within_capacity(stopped);
                }
            }
        }
        Ok(DrainedThin {
            device,
            suspended,
            tables,
        })
    }
}
