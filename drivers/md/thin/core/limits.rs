// SPDX-License-Identifier: GPL-2.0

//! The limits of the queues of pools and thin devices.

use super::units::{
    BlockSize,
    Sector,
    REGION_BLOCKS,
    SECTOR_SIZE, //
};

/// What a pool has a say in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestLimits {
    /// The longest request, in sectors.
    pub(crate) max_sectors: u32,
    /// The shortest one that makes sense, in bytes.
    pub(crate) io_min: u32,
    /// What to make of requests if there is a choice, in bytes.
    pub(crate) io_opt: u32,
}

/// What a pool makes of the limits of its data device.
pub(crate) fn pool_limits(block_size: BlockSize, below: RequestLimits) -> RequestLimits {
    let block = block_size.sectors();
    let mut limits = below;

    // Requests that end at every end of a block: that is good for stripes that are as long.
    let max_sectors = u64::from(limits.max_sectors);
    if max_sectors < block && !is_multiple(block, max_sectors) {
        let largest_power = 1 << max_sectors.checked_ilog2().unwrap_or(0);
        let divisor = 1 << block.trailing_zeros();
        limits.max_sectors = to_u32(divisor.min(largest_power));
    }
    let max_sectors = u64::from(limits.max_sectors);
    if !is_multiple(u64::from(limits.io_opt) / SECTOR_SIZE as u64, block) {
        let smallest = if is_multiple(block, max_sectors) {
            max_sectors
        } else {
            block
        };
        limits.io_min = in_bytes(smallest);
        limits.io_opt = in_bytes(block);
    }
    limits
}

/// Why discards cannot go on to a data device that takes discards of up to `longest`; `None` if they
/// can.
pub(crate) fn no_passdown_because(block_size: BlockSize, longest: Sector) -> Option<&'static str> {
    if longest.0 == 0 {
        Some("discard unsupported")
    } else if longest.0 < block_size.sectors() {
        Some("max discard sectors smaller than a block")
    } else {
        None
    }
}

/// The granularity of discards of a thin device, in bytes.
pub(crate) fn discard_granularity(block_size: BlockSize) -> u32 {
    in_bytes(block_size.sectors())
}

/// The longest discard of a thin device, in sectors.
pub(crate) fn max_discard_sectors(block_size: BlockSize) -> u32 {
    to_u32(block_size.sectors().saturating_mul(REGION_BLOCKS))
}

/// Whether `number` is at least one times `divisor`, and that is not nothing.
fn is_multiple(number: u64, divisor: u64) -> bool {
    number != 0 && number.checked_rem(divisor) == Some(0)
}

fn in_bytes(sectors: u64) -> u32 {
    to_u32(sectors.saturating_mul(SECTOR_SIZE as u64))
}

fn to_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
