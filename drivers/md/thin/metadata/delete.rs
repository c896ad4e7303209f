// SPDX-License-Identifier: GPL-2.0

//! Deleting devices.

use super::Metadata;
use crate::core::{
    errno::{
        Errno,
        Result, //
    },
    units::DeviceId, //
};
use kernel::prelude::*;

/// The devices that are being deleted.
pub(super) struct Deletions(KVVec<DeviceId>);

impl Deletions {
    pub(super) const fn new() -> Self {
        Self(KVVec::new())
    }

    /// Whether a device is being deleted.
    pub(super) fn contains(&self, id: DeviceId) -> bool {
        self.0.iter().any(|other| *other == id)
    }

    fn add(&mut self, id: DeviceId) -> Result {
        Ok(self.0.push(id, GFP_KERNEL)?)
    }

    fn remove(&mut self, id: DeviceId) {
        self.0.retain(|other| *other != id);
    }

    /// Everything since the last commit was given up, so no device is nearer to its end.
    pub(super) fn aborted(&mut self) {
        self.0.clear();
    }
}

impl Metadata {
    /// Deletes a device in one step, however long that takes.
    ///
    /// Fails with `ENODATA` if there is none, and with `EBUSY` if somebody has it open.
    pub(crate) fn delete(&mut self, id: DeviceId) -> Result {
        self.begin_delete(id)?;
        while !self.delete_part(id)? {}
        Ok(())
    }

    /// Begins to delete a device: nobody can open it any more.
    ///
    /// Fails with `ENODATA` if there is none, and with `EBUSY` if somebody has it open, or it is being
    /// deleted.
    pub(crate) fn begin_delete(&mut self, id: DeviceId) -> Result {
        if self.deletions.contains(id) {
            return Err(Errno::EBUSY);
        }
        self.store_mut()?;
        let store = self.store.as_ref().ok_or(Errno::EIO)?;
        let entry = self.devices.load(id, &store.manager, &store.details)?;
        if entry.is_open() {
            return Err(Errno::EBUSY);
        }
        self.deletions.add(id)
    }

    /// Goes on deleting a device, for a short time; tells whether it is gone now.
    ///
    /// Between the parts the metadata can be committed, and used for something else. If it fails, or
    /// the transaction is aborted, the device is not being deleted any more.
    pub(crate) fn delete_part(&mut self, id: DeviceId) -> Result<bool> {
        if !self.deletions.contains(id) {
            return Err(Errno::EIO);
        }
        let gone = self.delete_rest(id);
        self.deletions.remove(id);
        gone.map(|()| true)
    }

    /// Deletes what is left of a device.
    fn delete_rest(&mut self, id: DeviceId) -> Result {
        self.store_mut()?;
        let store = self.store.as_mut().ok_or(Errno::EIO)?;
        let removed = store.details.remove(&mut store.manager, id.key());
        store.note(removed)?;

        let mut mappings = self.reader.mappings.write();
        let taken = mappings.tree.take(&mut store.manager, id.key());
        // What is left is nobody else's business.
        drop(mappings);
        let deleted = taken.and_then(|tree| tree.delete(&mut store.manager));
        store.note(deleted)?;
        store.freed_data = true;
        self.devices.forget(id);
        Ok(())
    }
}
