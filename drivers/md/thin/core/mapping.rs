// SPDX-License-Identifier: GPL-2.0

//! Where virtual blocks are.

use super::units::{
    DataBlock,
    DataRange,
    VirtualRange, //
};

/// Where a virtual block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// In a data block that no other device has mapped: it can be written.
    Own(DataBlock),
    /// In a data block that a snapshot may have mapped, too: it must not be written.
    Shared(DataBlock),
}

impl Mapping {
    /// The data block.
    pub(crate) fn block(self) -> DataBlock {
        match self {
            Self::Own(block) | Self::Shared(block) => block,
        }
    }
}

/// Neighbouring virtual blocks that are mapped to neighbouring data blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The virtual blocks.
    pub(crate) blocks: VirtualRange,
    /// The data blocks: as many, and all of one region.
    pub(crate) data: DataRange,
    /// Whether a snapshot may have them mapped, too.
    pub(crate) shared: bool,
}
