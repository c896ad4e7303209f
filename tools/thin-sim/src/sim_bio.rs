// SPDX-License-Identifier: GPL-2.0

//! A bio of the simulation, and what `core/remap.rs` is told about it.

use crate::{
    core::{
        remap::{
            Place,
            Request,
            Write, //
        },
        units::{
            Sector,
            VirtualBlock,
            VirtualRange,
            REGION_BLOCKS, //
        },
    },
    sim_disk::{
        Value,
        SECTORS,
        ZEROES, //
    },
};

/// The number of the first block that bios go to. The fourth is the first of another region.
const FIRST: u64 = REGION_BLOCKS - 3;

/// The number that a block has for the driver.
pub(crate) fn virtual_block(block: u64) -> VirtualBlock {
    VirtualBlock(FIRST + block)
}

/// The inverse of [`virtual_block`].
pub(crate) fn number_of(block: VirtualBlock) -> u64 {
    block.0 - FIRST
}

/// A bio: what it does to which blocks of a thin device, counted from [`virtual_block`] of 0.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Io {
    Read {
        block: u64,
    },
    /// Sectors without a value are not written.
    Write {
        block: u64,
        values: [Option<Value>; SECTORS],
        durable: bool,
    },
    Discard {
        begin: u64,
        end: u64,
    },
    /// Writes zeroes to a block or to one sector of it, without giving up space.
    Zero {
        block: u64,
        only: Option<usize>,
    },
    /// Writes zeroes to whole blocks.
    ZeroBlocks {
        begin: u64,
        end: u64,
    },
    Flush,
}

impl Io {
    pub(crate) fn request(&self) -> Request {
        match *self {
            Self::Read { block } => Request::Read(Place::start_of(virtual_block(block))),
            Self::Write { block, .. } | Self::Zero { block, .. } => {
                let values = self.values();
                Request::Write(Write {
                    place: Place {
                        block: virtual_block(block),
                        offset: self.offset(),
                    },
                    covers_block: values.iter().all(Option::is_some),
                    durable: self.is_durable(),
                    is_zeroes: matches!(self, Self::Zero { .. }),
                })
            }
            Self::ZeroBlocks { begin, end } => {
                Request::ZeroBlocks(VirtualRange::new(virtual_block(begin), virtual_block(end)))
            }
            Self::Discard { begin, end } => {
                Request::Discard(VirtualRange::new(virtual_block(begin), virtual_block(end)))
            }
            Self::Flush => Request::Flush,
        }
    }

    /// Where it starts in its first block.
    pub(crate) fn offset(&self) -> Sector {
        let first_written = self.values().iter().position(Option::is_some);
        Sector(first_written.unwrap_or(0) as u64)
    }

    /// What is written to each sector of a block, if anything.
    pub(crate) fn values(&self) -> [Option<Value>; SECTORS] {
        match *self {
            Self::Write { values, .. } => values,
            Self::Zero { only, .. } => std::array::from_fn(|sector| {
                only.is_none_or(|only| only == sector).then_some(ZEROES)
            }),
            Self::ZeroBlocks { .. } => [Some(ZEROES); SECTORS],
            _ => [None; SECTORS],
        }
    }

    pub(crate) fn is_durable(&self) -> bool {
        matches!(self, Self::Write { durable: true, .. })
    }
}
