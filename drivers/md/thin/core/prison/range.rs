// SPDX-License-Identifier: GPL-2.0

//! What is locked, and how.

use crate::core::units::{
    DataBlock,
    DataRange,
    DeviceId,
    VirtualBlock,
    VirtualRange,
    REGION_BLOCKS, //
};

/// How a range is locked. The later ones are stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// Shared, by somebody who reads.
    Read,
    /// Shared, by somebody who writes.
    Write,
    /// Exclusive, but for those who read.
    ExcludeWriters,
    /// Exclusive.
    ExcludeAll,
}

impl Mode {
    /// Whether two locks of these modes cannot be held on the same block at the same time.
    pub(crate) fn conflicts_with(self, other: Self) -> bool {
        match self.max(other) {
            Self::Read | Self::Write => false,
            Self::ExcludeWriters => self.min(other) != Self::Read,
            Self::ExcludeAll => true,
        }
    }

    /// Whether only one such lock can be held on a block at a time.
    pub(crate) fn is_exclusive(self) -> bool {
        matches!(self, Self::ExcludeWriters | Self::ExcludeAll)
    }
}

/// What a block is one of, as small as can be: every lock has it, and every bio has locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space(u32);

impl Space {
    /// The data blocks of the pool. No device has this number.
    pub(super) const DATA: Self = Self(u32::MAX);

    /// The virtual blocks of a thin device.
    fn of_device(device: DeviceId) -> Self {
        // It has 24 bits.
        Self(device.key() as u32)
    }
}

/// Blocks to be locked: at least one, and all of one region.
///
/// # Invariants
///
/// The blocks are of the same region, and the last of them has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LockRange {
    space: Space,
    /// How many blocks come after the first.
    more: u32,
    first: u64,
}

impl LockRange {
    /// A block of a thin device.
    pub(crate) fn virtual_block(device: DeviceId, block: VirtualBlock) -> Self {
        Self::single(Space::of_device(device), block.0)
    }

    /// Blocks of a thin device; `None` if there are none or not all are of the same region.
    pub(crate) fn virtual_blocks(device: DeviceId, blocks: VirtualRange) -> Option<Self> {
        Self::within_region(Space::of_device(device), blocks.begin().0, blocks.end().0)
    }

    /// A block of the data device.
    pub(crate) fn data_block(block: DataBlock) -> Self {
        Self::single(Space::DATA, block.0)
    }

    /// Blocks of the data device; `None` if there are none or not all are of the same region.
    pub(crate) fn data_blocks(blocks: DataRange) -> Option<Self> {
        Self::within_region(Space::DATA, blocks.begin().0, blocks.end().0)
    }

    fn single(space: Space, block: u64) -> Self {
        // INVARIANT: It is one block.
        Self {
            space,
            more: 0,
            first: block,
        }
    }

    fn within_region(space: Space, first: u64, end: u64) -> Option<Self> {
        let last = end.checked_sub(1)?;
        let more = u32::try_from(last.checked_sub(first)?).ok()?;
        let valid = first / REGION_BLOCKS == last / REGION_BLOCKS;
        // INVARIANT: Just checked.
        valid.then_some(Self { space, more, first })
    }

    /// The last one of the blocks.
    fn last(self) -> u64 {
        self.first.saturating_add(self.more.into())
    }

    /// What the blocks are.
    pub(super) fn space(self) -> Space {
        self.space
    }

    /// Whether some block is in both.
    pub(super) fn overlaps(self, other: Self) -> bool {
        self.space == other.space && self.first <= other.last() && other.first <= self.last()
    }

    /// Whether it is one block.
    pub(super) fn is_single(self) -> bool {
        self.more == 0
    }

    /// Which one of `shards` pieces of a prison the blocks belong to: the same one for all blocks of a
    /// region. 0 if there are none.
    pub(super) fn shard(self, shards: usize) -> usize {
        // Multiplying by an odd number with bits all over mixes the numbers well enough.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let region = self.first / REGION_BLOCKS;
        let hash = (region.wrapping_shl(32) ^ u64::from(self.space.0)).wrapping_mul(SPREAD) >> 32;
        (hash as usize).checked_rem(shards).unwrap_or(0)
    }

    /// Which one of `buckets` lists a single block belongs to.
    pub(super) fn bucket(self, buckets: usize) -> usize {
        (self.first as usize).checked_rem(buckets).unwrap_or(0)
    }
}
