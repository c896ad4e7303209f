// SPDX-License-Identifier: GPL-2.0

//! Numbers of sectors, blocks and devices, each of a type of its own.

use core::num::NonZeroU64;

/// Bytes in a sector.
pub const SECTOR_SIZE: usize = 512;

/// Blocks in a region: a piece of a device that begins at a multiple of this.
///
/// Locks are kept by region, and a bio's region says on which queue it is served.
pub const REGION_BLOCKS: u64 = 1024;

/// A position on a device, or a distance, in sectors of 512 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sector(pub u64);

impl Sector {
    /// The sum; `None` if there is no such sector.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference; `None` if `other` lies behind.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The number of sectors as bytes; `None` if that is more than fits.
    pub fn to_bytes(self) -> Option<u64> {
        self.0.checked_mul(SECTOR_SIZE as u64)
    }
}

/// The number of a block of a thin device. It begins at this many times the block size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualBlock(pub u64);

/// The number of a block of the data device. It begins at this many times the block size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataBlock(pub u64);

/// The number of a block of the metadata device, of 4096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetadataBlock(pub u64);

/// The number of a thin device in its pool, of 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(u32);

impl DeviceId {
    /// The largest number that a device can have.
    pub const MAX: Self = Self((1 << 24) - 1);

    /// The device with this number; `None` if it has more than 24 bits.
    pub fn new(number: u64) -> Option<Self> {
        match u32::try_from(number) {
            Ok(number) if number <= Self::MAX.0 => Some(Self(number)),
            _ => None,
        }
    }

    /// The number, as the metadata have it as a key.
    pub fn key(self) -> u64 {
        u64::from(self.0)
    }
}

macro_rules! block_range {
    ($(#[$doc:meta])* $range:ident, $block:ident) => {
        $(#[$doc])*
        ///
        /// # Invariants
        ///
        /// It does not end before it begins.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $range {
            begin: $block,
            end: $block,
        }

        impl $range {
            /// The blocks from `begin` up to `end`, which is not one of them. Without any if `end`
            /// is not behind `begin`.
            pub fn new(begin: $block, end: $block) -> Self {
                // INVARIANT: Not less than `begin`.
                Self { begin, end: end.max(begin) }
            }

            /// `length` blocks from `begin` on; `None` if the last one has no number.
            pub fn with_length(begin: $block, length: u64) -> Option<Self> {
                let end = $block(begin.0.checked_add(length)?);
                // INVARIANT: A sum that did not overflow is not less than `begin`.
                Some(Self { begin, end })
            }

            /// The first block, unless the range is empty.
            pub fn begin(self) -> $block {
                self.begin
            }

            /// The block behind the last.
            pub fn end(self) -> $block {
                self.end
            }

            /// How many blocks there are.
            pub fn len(self) -> u64 {
                self.end.0.saturating_sub(self.begin.0)
            }

            /// Whether there is no block in the range.
            pub fn is_empty(self) -> bool {
                self.begin == self.end
            }

            /// What is left of the range from `begin` on.
            pub fn from(self, begin: $block) -> Self {
                Self::new(begin.max(self.begin), self.end)
            }
        }
    };
}

block_range!(
    /// Neighbouring blocks of a thin device.
    VirtualRange,
    VirtualBlock
);
block_range!(
    /// Neighbouring blocks of the data device.
    DataRange,
    DataBlock
);

impl VirtualRange {
    /// Splits the range where its first region ends: the part within the region, and the rest.
    pub fn split_at_region(self) -> (Self, Self) {
        let border = (self.begin.0 | (REGION_BLOCKS - 1)).saturating_add(1);
        let middle = VirtualBlock(border.min(self.end.0));
        (Self::new(self.begin, middle), Self::new(middle, self.end))
    }
}

/// The size of the blocks of a pool.
///
/// # Invariants
///
/// A multiple of [`BlockSize::STEP`] from [`BlockSize::MIN`] to [`BlockSize::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSize(NonZeroU64);

impl BlockSize {
    /// The smallest size, in sectors: 64 KiB.
    pub const MIN: u64 = 128;
    /// The largest size, in sectors: 1 GiB.
    pub const MAX: u64 = 1 << 21;
    /// Sizes are multiples of this, in sectors: 64 KiB.
    pub const STEP: u64 = 128;

    /// Blocks of so many sectors; `None` if they cannot have that size.
    pub fn new(sectors: u64) -> Option<Self> {
        let valid = (Self::MIN..=Self::MAX).contains(&sectors) && sectors % Self::STEP == 0;
        // INVARIANT: Just checked.
        NonZeroU64::new(sectors).filter(|_| valid).map(Self)
    }

    /// The size in sectors.
    pub fn sectors(self) -> u64 {
        self.0.get()
    }

    /// The block that a sector lies in, and how far behind the start of the block.
    pub fn locate(self, sector: Sector) -> (u64, Sector) {
        let size = self.0;
        // Every bio comes here, most pools have such blocks, and dividing takes long.
        if size.is_power_of_two() {
            let offset = sector.0 & (size.get() - 1);
            (sector.0 >> size.trailing_zeros(), Sector(offset))
        } else {
            (sector.0 / size, Sector(sector.0 % size))
        }
    }

    /// How many sectors so many blocks are; `None` if there is no such number.
    pub fn length(self, blocks: u64) -> Option<Sector> {
        blocks.checked_mul(self.sectors()).map(Sector)
    }

    /// Where a block begins on the data device; `None` if there is no such sector.
    pub fn data_sector(self, block: DataBlock) -> Option<Sector> {
        self.length(block.0)
    }

    /// Where a block begins on its thin device; `None` if there is no such sector.
    pub fn virtual_sector(self, block: VirtualBlock) -> Option<Sector> {
        self.length(block.0)
    }

    /// How many whole blocks so many sectors are.
    pub fn whole_blocks(self, length: Sector) -> u64 {
        self.locate(length).0
    }

    /// How many blocks it takes for so many sectors.
    pub fn blocks_to_hold(self, length: Sector) -> u64 {
        let (blocks, rest) = self.locate(length);
        blocks.saturating_add(u64::from(rest.0 != 0))
    }

    /// The blocks that lie within `length` sectors from `begin` on as a whole.
    pub fn blocks_within(self, begin: Sector, length: Sector) -> VirtualRange {
        let end = Sector(begin.0.saturating_add(length.0));
        VirtualRange::new(
            VirtualBlock(self.blocks_to_hold(begin)),
            VirtualBlock(self.whole_blocks(end)),
        )
    }
}
