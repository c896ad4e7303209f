// SPDX-License-Identifier: GPL-2.0

//! What the status and table lines of both targets say.
//!
//! Programs read these, so every byte counts, also the blanks at their ends.

use super::{
    mode::PoolMode,
    table::{
        NoSpacePolicy,
        PoolFeatures,
        FEATURE_WORDS, //
    },
    units::{
        BlockSize,
        DeviceId,
        MetadataBlock,
        VirtualBlock, //
    },
};
use core::fmt;

/// How few free metadata blocks are to be reported, if there are so many in all.
pub(crate) fn metadata_low_water_mark(blocks: u64) -> u64 {
    // 4 MiB are enough for whatever has to be done until the device has grown.
    const AMPLE: u64 = 1024;
    AMPLE.min(blocks / 4)
}

/// How much there is of something, and how much of that is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    /// How many blocks there are.
    pub(crate) total: u64,
    /// How many of them are free.
    pub(crate) free: u64,
}

/// As used blocks of all.
impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.total.saturating_sub(self.free), self.total)
    }
}

/// How a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PoolInfo {
    /// It has failed.
    Fail,
    /// That could not be found out.
    Error,
    /// It works.
    Usage(PoolUsage),
}

/// How a pool is that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolUsage {
    /// The transaction id.
    pub(crate) transaction_id: u64,
    /// Metadata blocks; the reserve is not free.
    pub(crate) metadata: Space,
    /// Data blocks.
    pub(crate) data: Space,
    /// The metadata snapshot, if there is one.
    pub(crate) metadata_snapshot: Option<MetadataBlock>,
    /// The mode.
    pub(crate) mode: PoolMode,
    /// Whether there are discards.
    pub(crate) discard_enabled: bool,
    /// Whether discards go on to the data device.
    pub(crate) discard_passdown: bool,
    /// What is done without space.
    pub(crate) no_space: NoSpacePolicy,
    /// Whether the metadata must be checked before they are changed again.
    pub(crate) needs_check: bool,
    /// See [`metadata_low_water_mark`].
    pub(crate) metadata_low_water_mark: u64,
}

impl fmt::Display for PoolInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fail => f.write_str("Fail"),
            Self::Error => f.write_str("Error"),
            Self::Usage(usage) => usage.fmt(f),
        }
    }
}

impl fmt::Display for PoolUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} ",
            self.transaction_id, self.metadata, self.data
        )?;
        match self.metadata_snapshot {
            Some(block) => write!(f, "{} ", block.0)?,
            None => f.write_str("- ")?,
        }
        f.write_str(match self.mode {
            PoolMode::Write => "rw ",
            PoolMode::OutOfDataSpace => "out_of_data_space ",
            PoolMode::OutOfMetadataSpace | PoolMode::ReadOnly | PoolMode::Fail => "ro ",
        })?;
        f.write_str(match (self.discard_enabled, self.discard_passdown) {
            (false, _) => "ignore_discard ",
            (true, true) => "discard_passdown ",
            (true, false) => "no_discard_passdown ",
        })?;
        f.write_str(match self.no_space {
            NoSpacePolicy::Error => "error_if_no_space ",
            NoSpacePolicy::Queue => "queue_if_no_space ",
        })?;
        f.write_str(if self.needs_check {
            "needs_check "
        } else {
            "- "
        })?;
        write!(f, "{} ", self.metadata_low_water_mark)
    }
}

/// The table line of a pool, behind the name of the target. `D` shows devices as their numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolTableLine<D> {
    /// The metadata device.
    pub(crate) metadata_device: D,
    /// The data device.
    pub(crate) data_device: D,
    /// The size of the pool's blocks.
    pub(crate) block_size: BlockSize,
    /// How few free blocks are to be reported.
    pub(crate) low_water_mark: u64,
    /// What the table asked for.
    pub(crate) features: PoolFeatures,
}

impl<D: fmt::Display> fmt::Display for PoolTableLine<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = || {
            FEATURE_WORDS
                .iter()
                .filter(|feature| (feature.is_set)(&self.features))
        };
        write!(
            f,
            "{} {} {} {} {} ",
            self.metadata_device,
            self.data_device,
            self.block_size.sectors(),
            self.low_water_mark,
            words().count()
        )?;
        for feature in words() {
            write!(f, "{} ", feature.word)?;
        }
        Ok(())
    }
}

/// How a thin device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ThinStatus {
    /// Its pool has failed. Then its table line says so, too.
    Fail,
    /// That could not be found out.
    Error,
    /// It works.
    Info {
        /// The size of the pool's blocks.
        block_size: BlockSize,
        /// How many blocks are mapped.
        mapped_blocks: u64,
        /// The last one of them.
        highest_mapped: Option<VirtualBlock>,
    },
}

impl fmt::Display for ThinStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Fail => f.write_str("Fail"),
            Self::Error => f.write_str("Error"),
            Self::Info {
                block_size,
                mapped_blocks,
                highest_mapped,
            } => {
                let sectors = |blocks: u64| blocks.wrapping_mul(block_size.sectors());
                write!(f, "{} ", sectors(mapped_blocks))?;
                match highest_mapped {
                    Some(block) => {
                        let end = sectors(block.0.wrapping_add(1));
                        write!(f, "{}", end.wrapping_sub(1))
                    }
                    None => f.write_str("-"),
                }
            }
        }
    }
}

/// The table line of a thin device, behind the name of the target. `D` shows devices as their
/// numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThinTableLine<D> {
    /// The pool device.
    pub(crate) pool_device: D,
    /// The number of the thin device.
    pub(crate) device: DeviceId,
    /// The external origin.
    pub(crate) origin_device: Option<D>,
}

impl<D: fmt::Display> fmt::Display for ThinTableLine<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pool_device, self.device.key())?;
        match &self.origin_device {
            Some(origin) => write!(f, " {origin}"),
            None => Ok(()),
        }
    }
}
