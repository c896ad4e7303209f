// SPDX-License-Identifier: GPL-2.0

//! The devices that are in use, or have changed since the last commit.

use super::{
    store::DetailsTree,
    Metadata, //
};
use crate::{
    core::{
        errno::{
            Errno,
            Result, //
        },
        format::{
            DeviceDetails,
            PackedMapping, //
        },
        mapping::Mapping,
        units::DeviceId, //
    },
    persistent_data::TransactionManager, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// A thin device of the pool.
///
/// What changes is changed by the metadata queue; anybody can ask for it.
pub(crate) struct Device {
    id: DeviceId,
    /// Mappings that are older than this are shared. Changes under the lock of the mappings.
    snapshotted_time: Atomic<u32>,
    changed: Atomic<bool>,
    aborted_with_changes: Atomic<bool>,
}

impl Device {
    fn new(id: DeviceId, details: &DeviceDetails) -> Result<Arc<Self>> {
        let device = Self {
            id,
            snapshotted_time: Atomic::new(details.snapshotted_time),
            changed: Atomic::new(false),
            aborted_with_changes: Atomic::new(false),
        };
        Ok(Arc::new(device, GFP_KERNEL)?)
    }

    /// Its number.
    pub(crate) fn id(&self) -> DeviceId {
        self.id
    }

    /// Whether it was changed since the last commit.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed.load(Relaxed)
    }

    /// Whether changes of it were given up since it was opened.
    pub(crate) fn aborted_with_changes(&self) -> bool {
        self.aborted_with_changes.load(Relaxed)
    }

    /// What a value in its tree of mappings means.
    pub(super) fn mapping(&self, value: PackedMapping) -> Mapping {
        if self.snapshotted_time.load(Relaxed) > value.time() {
            Mapping::Shared(value.block())
        } else {
            Mapping::Own(value.block())
        }
    }
}

/// A device that is in use or has changed.
pub(super) struct Entry {
    device: Arc<Device>,
    /// As the next commit will write them. Nothing if the device was made in a transaction that was
    /// aborted.
    details: Option<DeviceDetails>,
    /// How many users have it open.
    users: usize,
}

impl Entry {
    /// What is known of the device. Fails with `ENODATA` if it does not exist.
    pub(super) fn details(&self) -> Result<&DeviceDetails> {
        self.details.as_ref().ok_or(Errno::ENODATA)
    }

    /// Whether somebody has the device open.
    pub(super) fn is_open(&self) -> bool {
        self.users > 0
    }

    /// Changes what is known of the device.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut DeviceDetails)) {
        if let Some(details) = &mut self.details {
            change(details);
            let time = details.snapshotted_time;
            self.device.snapshotted_time.store(time, Relaxed);
        }
        self.device.changed.store(true, Relaxed);
    }
}

/// All that are in use or have changed.
///
/// # Invariants
///
/// They are in the order of their numbers.
pub(super) struct Devices(KVVec<Entry>);

impl Devices {
    pub(super) const fn new() -> Self {
        // INVARIANT: There is none.
        Self(KVVec::new())
    }

    /// Where the device is, or would be.
    fn position(&self, id: DeviceId) -> core::result::Result<usize, usize> {
        self.0.binary_search_by_key(&id, |entry| entry.device.id)
    }

    /// The device, if it is in use or has changed.
    pub(super) fn find(&self, id: DeviceId) -> Option<&Entry> {
        self.position(id).ok().and_then(|index| self.0.get(index))
    }

    /// The device, if it is in use or has changed.
    pub(super) fn find_mut(&mut self, id: DeviceId) -> Option<&mut Entry> {
        match self.position(id) {
            Ok(index) => self.0.get_mut(index),
            Err(_) => None,
        }
    }

    /// The device. Fails with `ENODATA` if it does not exist.
    pub(super) fn load(
        &mut self,
        id: DeviceId,
        manager: &TransactionManager,
        tree: &DetailsTree,
    ) -> Result<&mut Entry> {
        if self.find(id).is_none() {
            let details = tree.get(manager, id.key())?.ok_or(Errno::ENODATA)?;
            self.add(id, details)?;
        }
        let entry = self.find_mut(id).ok_or(Errno::ENODATA)?;
        entry.details()?;
        Ok(entry)
    }

    /// Adds a device that is not there. It counts as unchanged. Fails with `ENOMEM`.
    pub(super) fn add(&mut self, id: DeviceId, details: DeviceDetails) -> Result<&mut Entry> {
        let index = match self.position(id) {
            Ok(_) => return Err(Errno::EEXIST),
            Err(index) => index,
        };
        let entry = Entry {
            device: Device::new(id, &details)?,
            details: Some(details),
            users: 0,
        };
        self.0.reserve(1, GFP_KERNEL)?;
        // INVARIANT: It gets to its place. There is room for it.
        self.0
            .insert_within_capacity(index, entry)
            .map_err(|_| Errno::ENOMEM)?;
        self.0.get_mut(index).ok_or(Errno::ENOMEM)
    }

    /// Forgets the device.
    pub(super) fn forget(&mut self, id: DeviceId) {
        if let Ok(index) = self.position(id) {
            let _ = self.0.remove(index);
        }
    }

    /// Writes what is known of those that have changed to `tree`.
    pub(super) fn write_changed(
        &self,
        manager: &mut TransactionManager,
        tree: &mut DetailsTree,
    ) -> Result {
        for entry in self.0.iter() {
            if let (true, Some(details)) = (entry.device.is_changed(), entry.details) {
                tree.insert(manager, entry.device.id.key(), details)?;
            }
        }
        Ok(())
    }

    /// What has changed is durable now.
    pub(super) fn committed(&mut self) {
        for entry in self.0.iter() {
            entry.device.changed.store(false, Relaxed);
        }
        self.0.retain(|entry| entry.users > 0);
    }

    /// What had changed has not, after all: `tree` has all that is known.
    ///
    /// If that fails, what is known of the devices is not to be used.
    pub(super) fn aborted(&mut self, manager: &TransactionManager, tree: &DetailsTree) -> Result {
        self.lost();
        self.0.retain(|entry| entry.users > 0);
        for entry in self.0.iter_mut() {
            entry.details = tree.get(manager, entry.device.id.key())?;
            if let Some(details) = &entry.details {
                let time = details.snapshotted_time;
                entry.device.snapshotted_time.store(time, Relaxed);
            }
        }
        Ok(())
    }

    /// What had changed is lost.
    pub(super) fn lost(&mut self) {
        for entry in self.0.iter() {
            let device = &entry.device;
            if device.is_changed() {
                device.aborted_with_changes.store(true, Relaxed);
                device.changed.store(false, Relaxed);
            }
        }
    }
}

impl Metadata {
    /// Opens a device, which cannot be deleted then before it was closed as often.
    ///
    /// Fails with `ENODATA` if there is none, and with `EBUSY` if it is being deleted.
    pub(crate) fn open_device(&mut self, id: DeviceId) -> Result<Arc<Device>> {
        if self.deletions.contains(id) {
            return Err(Errno::EBUSY);
        }
        let store = self.store.as_ref().ok_or(Errno::EIO)?;
        let entry = self.devices.load(id, &store.manager, &store.details)?;
        entry.users = entry.users.saturating_add(1);
        Ok(entry.device.clone())
    }

    /// The opposite of [`Metadata::open_device`].
    pub(crate) fn close_device(&mut self, device: Arc<Device>) {
        let Some(entry) = self.devices.find_mut(device.id()) else {
            return;
        };
        entry.users = entry.users.saturating_sub(1);
        if entry.users > 0 {
            return;
        }
        if entry.device.is_changed() {
            // The next commit needs it. Who opens it next has lost nothing.
            entry.device.aborted_with_changes.store(false, Relaxed);
        } else {
            self.devices.forget(device.id());
        }
    }

    /// How many blocks of a device are mapped.
    pub(crate) fn mapped_blocks(&self, device: &Device) -> Result<u64> {
        self.store()?;
        Ok(self.entry(device)?.details()?.mapped_blocks)
    }

    /// A device that somebody has open.
    pub(super) fn entry(&self, device: &Device) -> Result<&Entry> {
        self.devices.find(device.id()).ok_or(Errno::ENODATA)
    }

    /// Makes a device without mappings.
    ///
    /// Fails with `EEXIST` if there is one of this number.
    pub(crate) fn create_thin(&mut self, id: DeviceId) -> Result {
        self.check_unused(id)?;
        let superblock = &self.store()?.superblock;
        let details = DeviceDetails {
            mapped_blocks: 0,
            transaction_id: superblock.transaction_id,
            creation_time: superblock.time,
            snapshotted_time: superblock.time,
        };

        self.devices.add(id, details)?;
        let store = self.store.as_mut().ok_or(Errno::EIO)?;
        let mut mappings = self.reader.mappings.write();
        let added = mappings.tree.add(&mut store.manager, id.key());
        drop(mappings);
        store.note(added)?;
        if let Some(entry) = self.devices.find_mut(id) {
            entry.change(|_| ());
        }
        Ok(())
    }

    /// Fails with `EEXIST` if there is a device of this number, with `EBUSY` if there was one and is
    /// not gone yet, and as [`Metadata::store_mut`] does.
    pub(super) fn check_unused(&mut self, id: DeviceId) -> Result {
        self.store_mut()?;
        if self.deletions.contains(id) {
            return Err(Errno::EBUSY);
        }
        if let Some(entry) = self.devices.find(id) {
            // One that an abort has undone is there as long as somebody has it open.
            return Err(entry.details.map_or(Errno::EBUSY, |_| Errno::EEXIST));
        }
        let store = self.store()?;
        match store.details.get(&store.manager, id.key())? {
            Some(_) => Err(Errno::EEXIST),
            None => Ok(()),
        }
    }
}
