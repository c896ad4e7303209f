// SPDX-License-Identifier: GPL-2.0

//! Snapshots: of a device, and of the metadata.

use super::{
    store::{
        read_superblock,
        DetailsTree,
        MappingTree,
        Store,
        SUPERBLOCK, //
    },
    Metadata, //
};
use crate::core::{
    errno::{
        Errno,
        Result, //
    },
    format::{
        DeviceDetails,
        SpaceMapRoot,
        Superblock,
        MAX_TIME, //
    },
    units::{
        DeviceId,
        MetadataBlock, //
    }, //
};

impl Metadata {
    /// Makes a device with the mappings of another one.
    ///
    /// Nobody may be about to write to blocks of the origin. Fails with `EEXIST` if there is a device
    /// of this number, with `ENODATA` if there is no origin, with `EBUSY` if one of them is being
    /// deleted, and with `EOVERFLOW` if there were too many snapshots.
    pub(crate) fn create_snap(&mut self, id: DeviceId, origin: DeviceId) -> Result {
        self.check_unused(id)?;
        if self.deletions.contains(origin) {
            return Err(Errno::EBUSY);
        }
        let store = self.store_mut()?;
        let time = store.superblock.time.checked_add(1);
        let time = time.filter(|time| *time <= MAX_TIME);
        let transaction_id = store.superblock.transaction_id;

        let store = self.store.as_mut().ok_or(Errno::EIO)?;
        let entry = self.devices.load(origin, &store.manager, &store.details)?;
        let mapped_blocks = entry.details()?.mapped_blocks;
        let time = time.ok_or(Errno::EOVERFLOW)?;
        self.devices.add(
            id,
            DeviceDetails {
                mapped_blocks,
                transaction_id,
                creation_time: time,
                snapshotted_time: time,
            },
        )?;

        let mut mappings = self.reader.mappings.write();
        let added = mappings
            .tree
            .add_clone(&mut store.manager, id.key(), origin.key());
        store.note(added)?;
        store.superblock.time = time;
        // Others learn that blocks are shared before they can look them up again.
        if let Some(entry) = self.devices.find_mut(origin) {
            entry.change(|details| details.snapshotted_time = time);
        }
        if let Some(entry) = self.devices.find_mut(id) {
            entry.change(|_| ());
        }
        Ok(())
    }

    /// Keeps the metadata as they are, for userspace to read; [`Metadata::held_root`] says where.
    ///
    /// They must just have been committed: fails with `EINVAL` if not. Fails with `EBUSY` if there is
    /// a metadata snapshot.
    pub(crate) fn reserve_metadata_snap(&mut self) -> Result {
        if self.held_root().is_some() {
            return Err(Errno::EBUSY);
        }
        let store = self.store_mut()?;
        if store.changed {
            return Err(Errno::EINVAL);
        }
        let kept = store.keep();
        store.superblock.metadata_snapshot = store.note(kept)?;
        Ok(())
    }

    /// Gives up what [`Metadata::reserve_metadata_snap`] has kept. Fails with `EINVAL` if there is
    /// nothing.
    pub(crate) fn release_metadata_snap(&mut self) -> Result {
        let held = self.held_root().ok_or(Errno::EINVAL)?;
        let store = self.store_mut()?;
        let snapshot = read_superblock(store.manager.blocks(), held)?;

        let dropped = store.drop_kept(held, &snapshot);
        store.note(dropped)?;
        store.superblock.metadata_snapshot = MetadataBlock(0);
        store.freed_data = true;
        Ok(())
    }
}

impl Store {
    /// Copies the superblock, and references all that it leads to but for the space maps.
    fn keep(&mut self) -> Result<MetadataBlock> {
        let copy = self
            .manager
            .copy_block(Superblock::LOCATION.0, &SUPERBLOCK, |block| {
                let mut copy = Superblock::read(block);
                // Readers of the copy have no use for them, and soon they are no longer right.
                copy.data_space_map_root = [0; SpaceMapRoot::ROOM];
                copy.metadata_space_map_root = [0; SpaceMapRoot::ROOM];
                copy.write(block);
            })?;
        self.manager.reference(self.superblock.mapping_root.0)?;
        self.manager.reference(self.superblock.details_root.0)?;
        Ok(MetadataBlock(copy))
    }

    /// The opposite of [`Store::keep`].
    fn drop_kept(&mut self, held: MetadataBlock, snapshot: &Superblock) -> Result {
        let manager = &mut self.manager;
        MappingTree::with_root(snapshot.mapping_root.0).delete(manager)?;
        DetailsTree::with_root(snapshot.details_root.0).delete(manager)?;
        manager.release(held.0)
    }
}
