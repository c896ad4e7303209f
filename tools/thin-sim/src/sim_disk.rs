// SPDX-License-Identifier: GPL-2.0

//! A data device with a cache that a crash may take, or a part of it.

/// What a sector holds.
pub(crate) type Value = u64;

/// What is in a sector that was zeroed.
pub(crate) const ZEROES: Value = 0;
/// What is in a sector that was discarded: nobody knows.
pub(crate) const DISCARDED: Value = Value::MAX;
/// What others have left on the disk.
pub(crate) const STALE: Value = Value::MAX - 1;

/// The sectors of a block.
pub(crate) const SECTORS: usize = 2;

#[derive(Clone)]
struct Sector {
    durable: Value,
    /// What was written later, the last value last.
    cached: Vec<Value>,
}

/// A data device.
pub(crate) struct Disk {
    blocks: Vec<[Sector; SECTORS]>,
}

impl Disk {
    pub(crate) fn new(blocks: usize) -> Self {
        let mut disk = Self { blocks: Vec::new() };
        disk.grow(blocks);
        disk
    }

    pub(crate) fn grow(&mut self, blocks: usize) {
        for _ in 0..blocks {
            self.blocks.push(std::array::from_fn(|_| Sector {
                durable: STALE,
                cached: Vec::new(),
            }));
        }
    }

    fn sector(&mut self, block: u64, sector: usize) -> &mut Sector {
        &mut self.blocks[block as usize][sector]
    }

    pub(crate) fn get(&self, block: u64, sector: usize) -> Value {
        let sector = &self.blocks[block as usize][sector];
        sector.cached.last().copied().unwrap_or(sector.durable)
    }

    pub(crate) fn put(&mut self, block: u64, sector: usize, value: Value) {
        self.sector(block, sector).cached.push(value);
    }

    /// Writes past the cache.
    pub(crate) fn put_durable(&mut self, block: u64, sector: usize, value: Value) {
        *self.sector(block, sector) = Sector {
            durable: value,
            cached: Vec::new(),
        };
    }

    pub(crate) fn flush(&mut self) {
        for sector in self.blocks.iter_mut().flatten() {
            if let Some(value) = sector.cached.pop() {
                sector.durable = value;
                sector.cached.clear();
            }
        }
    }

    /// Everything that may be in a sector after a crash.
    pub(crate) fn after_crash(
        &self,
        block: u64,
        sector: usize,
    ) -> impl Iterator<Item = Value> + '_ {
        let sector = &self.blocks[block as usize][sector];
        [sector.durable]
            .into_iter()
            .chain(sector.cached.iter().copied())
    }
}
