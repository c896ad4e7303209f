// SPDX-License-Identifier: GPL-2.0

//! Mappings of a thin device that were looked up lately.
//!
//! Most bios find their mapping here. That takes one read of memory, needs no lock on the metadata,
//! and works while a commit holds that lock. The cache has a fixed number of slots; each block has
//! one that it can be in, and drives out what was there.
//!
//! # Invariants
//!
//! - What the cache says about a block is true for everybody who holds a lock on the block, because
//!   the mapping of a block changes under an exclusive lock on it only, and whoever changes it tells
//!   the cache before giving the lock up.
//! - What was found in the metadata is put here under the lock that keeps the metadata from changing,
//!   so that it cannot replace what somebody puts here who has changed them since.

use crate::{
    core::{
        errno::{
            Errno,
            Result, //
        },
        mapping::Mapping,
        units::{
            DataBlock,
            VirtualBlock,
            VirtualRange, //
        }, //
    },
    slice::Slice, //
};
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// The most slots, as a power of two. They take 512 KiB then.
const MAX_SLOT_BITS: u32 = 16;

/// A cache of mappings.
pub(crate) struct MappingCache {
    /// As many as a power of two says. Each is 0, or a [`Entry`].
    slots: Slice<Atomic<u64>>,
    slot_bits: u32,
}

impl MappingCache {
    /// A cache for a device of `blocks` blocks. Sleeps; fails with `ENOMEM`.
    pub(crate) fn new(blocks: u64) -> Result<Self> {
        let slot_bits = match blocks.checked_next_power_of_two() {
            Some(power) => power.trailing_zeros().min(MAX_SLOT_BITS),
            None => MAX_SLOT_BITS,
        };
        let length = 1usize.checked_shl(slot_bits).ok_or(Errno::EINVAL)?;
        let slots = Slice::try_from_fn(length, |_| Ok(Atomic::new(0)))?;

        Ok(Self { slots, slot_bits })
    }

    /// What is known about a block: `Some(None)` is that it is mapped nowhere. To be called with a
    /// lock on the block.
    pub(crate) fn get(&self, block: VirtualBlock) -> Option<Option<Mapping>> {
        let (slot, tag) = self.slot(block)?;

        Entry(slot.load(Relaxed)).read(tag)
    }

    /// Remembers where a block is. The caller must either hold an exclusive lock on the block, or
    /// keep the metadata, where it just found this, from changing.
    pub(crate) fn put(&self, block: VirtualBlock, mapping: Option<Mapping>) {
        if let Some((slot, tag)) = self.slot(block) {
            // An entry that cannot be written down makes room, at least: it may replace one that was
            // true before.
            slot.store(Entry::new(tag, mapping).map_or(0, |entry| entry.0), Relaxed);
        }
    }

    /// Forgets about blocks.
    pub(crate) fn forget(&self, blocks: VirtualRange) {
        if blocks.len() >= self.slots.len() as u64 {
            return self.clear();
        }
        for block in blocks.begin().0..blocks.end().0 {
            if let Some((slot, _)) = self.slot(VirtualBlock(block)) {
                slot.store(0, Relaxed);
            }
        }
    }

    /// Forgets about all blocks.
    pub(crate) fn clear(&self) {
        for slot in self.slots.iter() {
            slot.store(0, Relaxed);
        }
    }

    /// The slot of a block, and what tells the block from others that have the same slot.
    fn slot(&self, block: VirtualBlock) -> Option<(&Atomic<u64>, u64)> {
        let tag = block.0.checked_shr(self.slot_bits)?;
        let index = block.0 ^ tag.checked_shl(self.slot_bits)?;

        (tag <= Entry::MAX_TAG).then_some(())?;
        Some((self.slots.get(index as usize)?, tag))
    }
}

/// What is known about a block, in one word: from the lowest bit on, that something is known; whether
/// the block is mapped, and whether that is shared; the data block; and the tag.
#[derive(Clone, Copy)]
struct Entry(u64);

impl Entry {
    const KNOWN: u64 = 1 << 0;
    const MAPPED: u64 = 1 << 1;
    const SHARED: u64 = 1 << 2;
    const DATA_SHIFT: u32 = 3;
    /// Data blocks have numbers of 40 bits on the disk.
    const MAX_DATA: u64 = (1 << 40) - 1;
    const TAG_SHIFT: u32 = 43;
    const MAX_TAG: u64 = (1 << (u64::BITS - Self::TAG_SHIFT)) - 1;

    /// `None`: the numbers are too large.
    fn new(tag: u64, mapping: Option<Mapping>) -> Option<Self> {
        let (flags, data) = match mapping {
            None => (0, 0),
            Some(Mapping::Own(data)) => (Self::MAPPED, data.0),
            Some(Mapping::Shared(data)) => (Self::MAPPED | Self::SHARED, data.0),
        };
        (tag <= Self::MAX_TAG && data <= Self::MAX_DATA).then_some(())?;
        Some(Self(
            Self::KNOWN | flags | (data << Self::DATA_SHIFT) | (tag << Self::TAG_SHIFT),
        ))
    }

    /// What it says about the block with this tag, if it is about that.
    fn read(self, tag: u64) -> Option<Option<Mapping>> {
        if self.0 & Self::KNOWN == 0 || self.0 >> Self::TAG_SHIFT != tag {
            return None;
        }
        let data = DataBlock((self.0 >> Self::DATA_SHIFT) & Self::MAX_DATA);

        Some(if self.0 & Self::MAPPED == 0 {
            None
        } else if self.0 & Self::SHARED == 0 {
            Some(Mapping::Own(data))
        } else {
            Some(Mapping::Shared(data))
        })
    }
}
