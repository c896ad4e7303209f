// SPDX-License-Identifier: GPL-2.0

//! References to tables, which do not keep them from being destroyed.

use crate::{
    bindings,
    core::errno::{
        Errno,
        Result, //
    }, //
};
use core::ptr::NonNull;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// A table that one of our targets is in, as long as it exists.
///
/// All its functions sleep.
#[derive(Clone)]
pub(crate) struct TableHandle(Arc<Link>);

/// The table, under two locks: who suspends the device waits for what else happens to it, and that may
/// raise an event.
#[pin_data]
struct Link {
    #[pin]
    events: Mutex<Events>,
    #[pin]
    suspensions: Mutex<Suspensions>,
}

/// # Invariants
///
/// The table is valid. Whoever destroys it takes it out first.
struct Events(Option<NonNull<bindings::dm_table>>);

// SAFETY: Tables can be used by any thread.
unsafe impl Send for Events {}

/// # Invariants
///
/// - `table` is valid. Whoever destroys it takes it out first.
/// - Its device is suspended internally `number` times because of it.
struct Suspensions {
    table: Option<NonNull<bindings::dm_table>>,
    number: u32,
}

// SAFETY: Tables can be used by any thread.
unsafe impl Send for Suspensions {}

impl Suspensions {
    /// The device of the table, as long as that exists.
    fn device(&self) -> Option<NonNull<bindings::mapped_device>> {
        // SAFETY: By the type invariant the table is valid.
        NonNull::new(unsafe { bindings::dm_table_get_md(self.table?.as_ptr()) })
    }
}

impl TableHandle {
    /// # Safety
    ///
    /// `table` must be valid until [`Self::revoke`] has returned.
    pub(super) unsafe fn new(table: NonNull<bindings::dm_table>) -> Result<Self> {
        let link = Arc::pin_init(
            pin_init!(Link {
                // INVARIANT: By the requirements of this function.
                events <- new_mutex!(Events(Some(table))),
                // INVARIANT: As above, and nobody has suspended it yet.
                suspensions <- new_mutex!(Suspensions {
                    table: Some(table),
                    number: 0,
                }),
            }),
            GFP_KERNEL,
        )
        .map_err(Errno::from)?;
        Ok(Self(link))
    }

    /// Lets go of the table, which is about to be destroyed.
    ///
    /// If its device lives on, it is resumed as often as it was suspended through this table.
    pub(super) fn revoke(&self) {
        // INVARIANT: Nobody uses it any more.
        self.0.events.lock().0 = None;

        let mut suspensions = self.0.suspensions.lock();
        let Some(device) = suspensions.device() else {
            return;
        };
        let number = suspensions.number;
        // INVARIANT: The suspensions are undone, or go with the device.
        *suspensions = Suspensions {
            table: None,
            number: 0,
        };
        // A table does not outlive its device. If that is being destroyed, it is the reason why the
        // table is, and nobody will miss a resume.
        // SAFETY: See above.
        if number == 0 || unsafe { bindings::dm_hold(device.as_ptr()) } != 0 {
            return;
        }
        for _ in 0..number {
            // SAFETY: The device is suspended by us.
            unsafe { bindings::dm_thin_rs_internal_resume(device.as_ptr()) };
        }
        // SAFETY: We hold it.
        unsafe { bindings::dm_put(device.as_ptr()) };
    }

    /// Whether both are the same table.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Tells who waits for it that something has happened to the device, if the table still exists.
    pub(crate) fn raise_event(&self) {
        let events = self.0.events.lock();

        if let Some(table) = events.0 {
            // SAFETY: By the type invariant the table is valid.
            unsafe { bindings::dm_table_event(table.as_ptr()) };
        }
    }

    /// Suspends the device of the table, if that still exists: waits for its bios, or has them handed
    /// back, and stops new ones.
    ///
    /// Must not be called by what the device's bios wait for, nor in [`Target::message`] and the like,
    /// which device-mapper waits for when it suspends a device.
    ///
    /// [`Target::message`]: super::target::Target::message
    pub(crate) fn suspend_noflush(&self) -> Option<Suspended> {
        let mut suspensions = self.0.suspensions.lock();
        let device = suspensions.device()?;

        // SAFETY: The device is valid as long as the table, which cannot be destroyed meanwhile.
        unsafe { bindings::dm_thin_rs_internal_suspend_noflush(device.as_ptr()) };
        // INVARIANT: It is suspended once more.
        suspensions.number = suspensions.number.saturating_add(1);
        drop(suspensions);
        Some(Suspended(self.clone()))
    }
}

/// A device is suspended as long as this exists, or until the table through which it was suspended is
/// destroyed. Dropping it sleeps.
#[must_use = "the device is resumed when this is dropped"]
pub(crate) struct Suspended(TableHandle);

impl Drop for Suspended {
    fn drop(&mut self) {
        let mut suspensions = self.0 .0.suspensions.lock();
        let Some(device) = suspensions.device() else {
            return;
        };

        // INVARIANT: It is resumed once.
        suspensions.number = suspensions.number.saturating_sub(1);
        // SAFETY: The device is valid as long as the table, and suspended by us.
        unsafe { bindings::dm_thin_rs_internal_resume(device.as_ptr()) };
    }
}
