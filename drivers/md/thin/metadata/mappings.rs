// SPDX-License-Identifier: GPL-2.0

//! Where blocks are, and changing that.

use super::{
    Device,
    Metadata, //
};
use crate::core::{
    errno::{
        Errno,
        Result, //
    },
    format::PackedMapping,
    mapping::{
        Mapping,
        Run, //
    },
    units::{
        DataBlock,
        DataRange,
        VirtualBlock,
        VirtualRange,
        REGION_BLOCKS, //
    }, //
};

impl Metadata {
    /// Where a block is. `None`: nowhere.
    pub(crate) fn lookup(&self, device: &Device, block: VirtualBlock) -> Result<Option<Mapping>> {
        let manager = &self.store()?.manager;
        let mappings = self.reader.mappings.read();
        let found = mappings.tree.get(manager, device.id().key(), block.0)?;
        Ok(found.map(|value| device.mapping(value)))
    }

    /// The highest block that is mapped, if there is one.
    pub(crate) fn highest_mapped(&self, device: &Device) -> Result<Option<VirtualBlock>> {
        let manager = &self.store()?.manager;
        let mappings = self.reader.mappings.read();
        let last = mappings.tree.last_key(manager, device.id().key())?;
        Ok(last.map(VirtualBlock))
    }

    /// The first blocks in `range` that are mapped, as many as follow each other on both devices, are
    /// equally shared, and are of one region on both devices.
    pub(crate) fn find_run(&self, device: &Device, range: VirtualRange) -> Result<Option<Run>> {
        let manager = &self.store()?.manager;
        let mappings = self.reader.mappings.read();
        let key = device.id().key();

        if range.is_empty() {
            return Ok(None);
        }
        let Some((begin, value)) = mappings.tree.get_next(manager, key, range.begin().0)? else {
            return Ok(None);
        };
        if begin >= range.end().0 {
            return Ok(None);
        }
        let first = device.mapping(value);
        let mut length = 1_u64;
        loop {
            let next = (
                begin.checked_add(length),
                first.block().0.checked_add(length),
            );
            let (Some(block), Some(data)) = next else {
                break;
            };
            let region_ends = block % REGION_BLOCKS == 0 || data % REGION_BLOCKS == 0;
            if block >= range.end().0 || region_ends {
                break;
            }
            let expected = match first {
                Mapping::Own(_) => Mapping::Own(DataBlock(data)),
                Mapping::Shared(_) => Mapping::Shared(DataBlock(data)),
            };
            let found = mappings.tree.get(manager, key, block)?;
            if found.map(|value| device.mapping(value)) != Some(expected) {
                break;
            }
            length = length.saturating_add(1);
        }
        let blocks = VirtualRange::with_length(VirtualBlock(begin), length);
        let data = DataRange::with_length(first.block(), length);
        Ok(blocks.zip(data).map(|(blocks, data)| Run {
            blocks,
            data,
            shared: matches!(first, Mapping::Shared(_)),
        }))
    }

    /// Maps a block to a data block that was allocated for it, in place of what it was mapped to.
    ///
    /// Fails with `ENODATA` if the device does not exist any more.
    pub(crate) fn insert(
        &mut self,
        device: &Device,
        block: VirtualBlock,
        data: DataBlock,
    ) -> Result {
        self.entry(device)?.details()?;
        // What has to be read is read now, when nobody waits for it.
        let mappings = self.reader.mappings.read();
        mappings
            .tree
            .check(&self.store()?.manager, device.id().key(), block.0)?;
        drop(mappings);

        let store = self.store_mut()?;
        let time = store.superblock.time;
        let value = PackedMapping::new(data, time).ok_or(Errno::EOVERFLOW)?;
        let store = self.store.as_mut().ok_or(Errno::EIO)?;
        let mut mappings = self.reader.mappings.write();
        let inserted = mappings
            .tree
            .insert(&mut store.manager, device.id().key(), block.0, value);
        drop(mappings);

        let is_new = store.note(inserted)?;
        store.freed_data |= !is_new;
        self.allocated.remove(data);
        if let Some(entry) = self.devices.find_mut(device.id()) {
            entry.change(|details| {
                let added = u64::from(is_new);
                details.mapped_blocks = details.mapped_blocks.saturating_add(added);
            });
        }
        Ok(())
    }

    /// Unmaps the blocks in `range` that are mapped, and tells how many there were.
    ///
    /// Fails with `ENODATA` if the device does not exist any more.
    pub(crate) fn remove_range(&mut self, device: &Device, range: VirtualRange) -> Result<u64> {
        self.entry(device)?.details()?;
        self.store_mut()?;
        if self.find_run(device, range)?.is_none() {
            return Ok(0);
        }

        let store = self.store.as_mut().ok_or(Errno::EIO)?;
        let mut mappings = self.reader.mappings.write();
        let removed = mappings.tree.remove_range(
            &mut store.manager,
            device.id().key(),
            range.begin().0,
            range.end().0,
        );
        drop(mappings);

        let removed = store.note(removed)?;
        store.freed_data = true;
        if let Some(entry) = self.devices.find_mut(device.id()) {
            entry.change(|details| {
                details.mapped_blocks = details.mapped_blocks.saturating_sub(removed);
            });
        }
        Ok(removed)
    }
}
