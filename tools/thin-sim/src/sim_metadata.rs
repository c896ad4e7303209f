// SPDX-License-Identifier: GPL-2.0

//! Metadata in memory, as they are now and as they were committed.

use std::collections::{
    BTreeMap,
    BTreeSet, //
};

use crate::core::{
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
    },
};

#[derive(Clone, Copy)]
struct Entry {
    block: u64,
    time: u32,
}

#[derive(Clone, Default)]
struct Device {
    mappings: BTreeMap<u64, Entry>,
    snapshotted: u32,
}

/// The mappings of all devices at some moment.
#[derive(Clone, Default)]
pub(crate) struct Mappings {
    devices: BTreeMap<u64, Device>,
    time: u32,
}

impl Mappings {
    pub(crate) fn lookup(&self, device: u64, block: u64) -> Option<Mapping> {
        let device = self.devices.get(&device)?;
        let entry = device.mappings.get(&block)?;
        let data = DataBlock(entry.block);
        Some(if device.snapshotted > entry.time {
            Mapping::Shared(data)
        } else {
            Mapping::Own(data)
        })
    }

    pub(crate) fn has(&self, device: u64) -> bool {
        self.devices.contains_key(&device)
    }

    fn references(&self, block: u64) -> usize {
        let entries = self
            .devices
            .values()
            .flat_map(|device| device.mappings.values());
        entries.filter(|entry| entry.block == block).count()
    }

    /// What a device writes without a copy, nobody else may see.
    fn check(&self) {
        for device in self.devices.values() {
            for (virtual_block, entry) in &device.mappings {
                let own = entry.time >= device.snapshotted;
                assert!(
                    !own || self.references(entry.block) == 1,
                    "block {virtual_block} is written to data block {}, which others have mapped",
                    entry.block
                );
            }
        }
    }
}

/// Why there is no data block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// There will be some after the next commit.
    CommitFirst,
    /// There are none.
    NoSpace,
}

/// The metadata of a pool.
pub(crate) struct Metadata {
    pub(crate) current: Mappings,
    pub(crate) committed: Mappings,
    data_blocks: u64,
    /// Data blocks that belong to somebody who is about to map them.
    allocated: BTreeSet<u64>,
    /// Devices that have changed since the last commit.
    changed: BTreeSet<u64>,
    /// Devices whose changes were lost.
    pub(crate) lost: BTreeSet<u64>,
}

impl Metadata {
    pub(crate) fn new(data_blocks: usize) -> Self {
        Self {
            current: Mappings::default(),
            committed: Mappings::default(),
            data_blocks: data_blocks as u64,
            allocated: BTreeSet::new(),
            changed: BTreeSet::new(),
            lost: BTreeSet::new(),
        }
    }

    fn device(&mut self, device: u64) -> &mut Device {
        self.changed.insert(device);
        self.current.devices.get_mut(&device).expect("it exists")
    }

    pub(crate) fn create(&mut self, device: u64) {
        let before = self.current.devices.insert(device, Device::default());
        assert!(before.is_none());
        self.changed.insert(device);
    }

    pub(crate) fn snapshot(&mut self, device: u64, origin: u64) {
        self.current.time += 1;
        let time = self.current.time;
        let origin = self.device(origin);
        origin.snapshotted = time;
        let copy = origin.clone();
        let before = self.current.devices.insert(device, copy);
        assert!(before.is_none());
        self.changed.insert(device);
        self.current.check();
    }

    pub(crate) fn grow(&mut self, blocks: u64) {
        self.data_blocks += blocks;
    }

    /// Blocks that nothing is mapped to, and that nobody is about to map.
    pub(crate) fn free_blocks(&self) -> u64 {
        let is_free =
            |block: &u64| self.current.references(*block) == 0 && !self.allocated.contains(block);
        (0..self.data_blocks).filter(is_free).count() as u64
    }

    /// Takes a block that is free now and was when the metadata were committed.
    pub(crate) fn allocate(&mut self) -> Result<DataBlock, Shortage> {
        let found = (0..self.data_blocks).find(|block| {
            self.current.references(*block) == 0
                && self.committed.references(*block) == 0
                && !self.allocated.contains(block)
        });
        match found {
            Some(block) => {
                self.allocated.insert(block);
                Ok(DataBlock(block))
            }
            None if self.free_blocks() > 0 => Err(Shortage::CommitFirst),
            None => Err(Shortage::NoSpace),
        }
    }

    /// Gives back a block that was allocated.
    pub(crate) fn free(&mut self, block: DataBlock) {
        assert!(self.allocated.remove(&block.0), "a block is freed twice");
    }

    /// Maps a block that was allocated.
    pub(crate) fn map(&mut self, device: u64, block: VirtualBlock, data: DataBlock) {
        assert!(self.allocated.remove(&data.0), "a block is mapped twice");
        let entry = Entry {
            block: data.0,
            time: self.current.time,
        };
        self.device(device).mappings.insert(block.0, entry);
        self.current.check();
    }

    /// The first run of mapped blocks.
    pub(crate) fn first_run(&self, device: u64, range: VirtualRange) -> Option<Run> {
        let lookup = |block: u64| self.current.lookup(device, block);
        let mut blocks = range.begin().0..range.end().0;
        let begin = blocks.find(|block| lookup(*block).is_some())?;
        let first = lookup(begin)?;
        let data = first.block().0;
        let follows = |block: &u64| {
            let next = data + (block - begin);
            let expected = match first {
                Mapping::Own(_) => Mapping::Own(DataBlock(next)),
                Mapping::Shared(_) => Mapping::Shared(DataBlock(next)),
            };
            next / REGION_BLOCKS == data / REGION_BLOCKS && lookup(*block) == Some(expected)
        };
        let length = 1 + blocks.take_while(follows).count() as u64;
        Some(Run {
            blocks: VirtualRange::with_length(VirtualBlock(begin), length)?,
            data: DataRange::with_length(DataBlock(data), length)?,
            shared: matches!(first, Mapping::Shared(_)),
        })
    }

    /// Removes the mappings of a run, which must be as it says.
    pub(crate) fn remove(&mut self, device: u64, run: Run) {
        for at in 0..run.blocks.len() {
            let removed = self
                .device(device)
                .mappings
                .remove(&(run.blocks.begin().0 + at));
            let block = removed.map(|entry| entry.block);
            assert_eq!(block, Some(run.data.begin().0 + at), "{run:?} has changed");
        }
    }

    /// The first blocks that nothing is mapped to.
    pub(crate) fn first_unreferenced(&self, range: DataRange) -> Option<DataRange> {
        let is_free = |block: &u64| self.current.references(*block) == 0;
        let mut blocks = range.begin().0..range.end().0;
        let begin = blocks.find(is_free)?;
        let length = 1 + blocks.take_while(is_free).count() as u64;
        DataRange::with_length(DataBlock(begin), length)
    }

    pub(crate) fn is_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    pub(crate) fn has_changed(&self, device: u64) -> bool {
        self.changed.contains(&device)
    }

    pub(crate) fn commit(&mut self) {
        self.committed = self.current.clone();
        self.changed.clear();
    }

    /// Goes back to the last commit.
    pub(crate) fn abort(&mut self) {
        self.current = self.committed.clone();
        self.lost.append(&mut self.changed);
    }

    /// Checks that no block has got lost.
    pub(crate) fn check_idle(&self) {
        assert!(
            self.allocated.is_empty(),
            "data blocks {:?} leak",
            self.allocated
        );
        self.current.check();
    }
}
