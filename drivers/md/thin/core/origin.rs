// SPDX-License-Identifier: GPL-2.0

//! How far an external origin reaches.

use super::{
    remap::Place,
    units::{
        BlockSize,
        Sector,
        VirtualBlock, //
    },
};

/// An external origin, seen from its thin device: the first `length` sectors of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The size of the pool's blocks.
    pub(crate) block_size: BlockSize,
    /// The length of the origin.
    pub(crate) length: Sector,
}

impl Extent {
    /// Where a place is on the origin: as far from its start as from that of the thin device.
    /// `None` if it does not reach there.
    pub(crate) fn sector(self, place: &Place) -> Option<Sector> {
        self.block_size
            .virtual_sector(place.block)?
            .checked_add(place.offset)
            .filter(|sector| *sector < self.length)
    }

    /// Whether the origin shows at a place.
    pub(crate) fn shows(self, place: &Place) -> bool {
        self.sector(place).is_some()
    }

    /// How much of the origin shows from a place on, and no further than `length`.
    pub(crate) fn visible(self, place: &Place, length: Sector) -> Sector {
        self.sector(place)
            .and_then(|begin| self.length.checked_sub(begin))
            .map_or(Sector(0), |rest| rest.min(length))
    }

    /// Where the part of the origin is that shows in a block, and how long that is. `None` if there is
    /// none.
    pub(crate) fn part_of(self, block: VirtualBlock) -> Option<(Sector, Sector)> {
        let place = Place::start_of(block);
        let begin = self.sector(&place)?;
        Some((
            begin,
            self.visible(&place, Sector(self.block_size.sectors())),
        ))
    }

    /// Whether the origin shows in a part of a block only.
    pub(crate) fn ends_in(self, block: VirtualBlock) -> bool {
        self.part_of(block)
            .is_some_and(|(_, length)| length.0 < self.block_size.sectors())
    }
}
