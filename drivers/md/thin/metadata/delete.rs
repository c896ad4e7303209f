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

/// Devices with no more blocks than that are deleted in one step.
const ONE_STEP: u64 = 4096;

/// A device that is being deleted.
struct Deletion {
    id: DeviceId,
    /// The block at which to go on. Nothing: all that is left goes in one step.
    position: Option<u64>,
}

/// The devices that are being deleted.
pub(super) struct Deletions(KVVec<Deletion>);

impl Deletions {
    pub(super) const fn new() -> Self {
        Self(KVVec::new())
    }

    /// Whether a device is being deleted.
    pub(super) fn contains(&self, id: DeviceId) -> bool {
        self.0.iter().any(|deletion| deletion.id == id)
    }

    fn find(&mut self, id: DeviceId) -> Option<&mut Deletion> {
        self.0.iter_mut().find(|deletion| deletion.id == id)
    }

    fn remove(&mut self, id: DeviceId) {
        self.0.retain(|deletion| deletion.id != id);
    }

    /// Everything since the last commit was given up, so no device is nearer to its end.
    pub(super) fn aborted(&mut self) {
        self.0.clear();
    }
}

impl Metadata {
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
        let large = entry.details()?.mapped_blocks > ONE_STEP;
        let deletion = Deletion {
            id,
            position: large.then_some(0),
        };
        Ok(self.deletions.0.push(deletion, GFP_KERNEL)?)
    }

    /// Goes on deleting a device, for a short time; tells whether it is gone now.
    ///
    /// Between the parts the metadata can be committed, and used for something else. If it fails, or
    /// the transaction is aborted, the device is not being deleted any more.
    pub(crate) fn delete_part(&mut self, id: DeviceId) -> Result<bool> {
        let position = self.deletions.find(id).ok_or(Errno::EIO)?.position;
        let Some(position) = position else {
            let gone = self.delete_rest(id);
            self.deletions.remove(id);
            return gone.map(|()| true);
        };
        match self.trim(id, position) {
            Ok(next) => {
                if let Some(deletion) = self.deletions.find(id) {
                    deletion.position = next;
                }
                Ok(false)
            }
            Err(error) => {
                self.deletions.remove(id);
                Err(error)
            }
        }
    }

    /// Stops deleting a device: it can be used again, with the mappings that are left.
    pub(crate) fn give_up_delete(&mut self, id: DeviceId) {
        self.deletions.remove(id);
    }

    /// Deletes some mappings of a device, from `position` on. Returns where to go on, unless what is
    /// left is better deleted in one step.
    fn trim(&mut self, id: DeviceId, position: u64) -> Result<Option<u64>> {
        self.store_mut()?;
        let store = self.store.as_mut().ok_or(Errno::EIO)?;
        // The last commit may have forgotten it.
        self.devices.load(id, &store.manager, &store.details)?;

        let mut mappings = self.reader.mappings.write();
        let trimmed = mappings.tree.trim(&mut store.manager, id.key(), position);
        drop(mappings);

        let trimmed = store.note(trimmed)?;
        if trimmed.values > 0 {
            store.freed_data = true;
            if let Some(entry) = self.devices.find_mut(id) {
                entry.change(|details| {
                    let left = details.mapped_blocks.saturating_sub(trimmed.values);
                    details.mapped_blocks = left;
                });
            }
        }
        Ok(trimmed.next)
    }

    /// Deletes what is left of a device.
    fn delete_rest(&mut self, id: DeviceId) -> Result {
        self.store_mut()?;
        let store = self.store.as_mut().ok_or(Errno::EIO)?;
        // If the device is new, nothing was written of it yet.
        if store.details.get(&store.manager, id.key())?.is_some() {
            let removed = store.details.remove(&mut store.manager, id.key());
            store.note(removed)?;
        }

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
