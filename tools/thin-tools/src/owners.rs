// SPDX-License-Identifier: GPL-2.0

//! Who was the first to refer to each data block, noted by several threads at a time.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::sync::OnceLock;

/// How many data blocks are looked at in one pass over the metadata: bounds the memory to 1 GiB. For
/// most pools one pass is enough.
pub const PER_PASS: u64 = 1 << 28;
/// How many data blocks get memory together, once one of them is referred to.
const PER_REGION: u64 = 1 << 16;

/// The greatest number that a claimant can have.
pub const MOST_CLAIMANTS: u32 = (1 << 31) - 2;

/// No one has claimed the block yet; otherwise there is the number of the first, plus one.
const NOBODY: u32 = 0;
/// Set once there has been a second claim.
const AGAIN: u32 = 1 << 31;

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the first for this block.
    First,
    /// It is the second; who had the first.
    Second(u32),
    /// There were two before; who had the first.
    Later(u32),
    /// The block is not in the window.
    Outside,
}

/// The first claimants of the data blocks in a window.
pub struct Owners {
    begin: u64,
    end: u64,
    regions: Vec<OnceLock<Box<[AtomicU32]>>>,
}

impl Owners {
    /// For the data blocks from `begin` up to, not including, `end`, which are at most [`PER_PASS`].
    ///
    /// Memory: 4 bytes for each block near one that is claimed.
    pub fn new(begin: u64, end: u64) -> Self {
        let end = end.min(begin.saturating_add(PER_PASS));
        let regions = end.saturating_sub(begin).div_ceil(PER_REGION);
        Self {
            begin,
            end,
            regions: (0..regions).map(|_| OnceLock::new()).collect(),
        }
    }

    fn region(&self, data: u64) -> Option<(&OnceLock<Box<[AtomicU32]>>, usize)> {
        let at = data.checked_sub(self.begin).filter(|_| data < self.end)?;
        let region = self.regions.get(usize::try_from(at / PER_REGION).ok()?)?;
        Some((region, (at % PER_REGION) as usize))
    }

    /// Claims `data` for `claimant`, at most [`MOST_CLAIMANTS`].
    pub fn claim(&self, data: u64, claimant: u32) -> Claim {
        let Some((region, at)) = self.region(data) else {
            return Claim::Outside;
        };
        let places =
            region.get_or_init(|| (0..PER_REGION).map(|_| AtomicU32::new(NOBODY)).collect());
        let Some(place) = places.get(at) else {
            return Claim::Outside;
        };
        let known = place.load(Ordering::Relaxed);
        if known & AGAIN != 0 {
            return Claim::Later((known & !AGAIN).wrapping_sub(1));
        }
        let mark = claimant.min(MOST_CLAIMANTS) + 1;
        let order = Ordering::Relaxed;
        if known == NOBODY && place.compare_exchange(NOBODY, mark, order, order).is_ok() {
            return Claim::First;
        }
        let before = place.fetch_or(AGAIN, order);
        let first = (before & !AGAIN).wrapping_sub(1);
        if before & AGAIN == 0 {
            Claim::Second(first)
        } else {
            Claim::Later(first)
        }
    }

    /// The first claimant of `data`, and whether there were more.
    pub fn of(&self, data: u64) -> Option<(u32, bool)> {
        let (region, at) = self.region(data)?;
        let known = region.get()?.get(at)?.load(Ordering::Relaxed);
        let first = (known & !AGAIN).checked_sub(1)?;
        Some((first, known & AGAIN != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_remembered() {
        let owners = Owners::new(100, 300);
        assert_eq!(owners.claim(99, 1), Claim::Outside);
        assert_eq!(owners.claim(300, 1), Claim::Outside);
        assert_eq!(owners.of(100), None);
        assert_eq!(owners.claim(100, 0), Claim::First);
        assert_eq!(owners.of(100), Some((0, false)));
        assert_eq!(owners.claim(100, 5), Claim::Second(0));
        assert_eq!(owners.claim(100, 6), Claim::Later(0));
        assert_eq!(owners.of(100), Some((0, true)));
        assert_eq!(owners.claim(299, MOST_CLAIMANTS), Claim::First);
        assert_eq!(owners.of(299), Some((MOST_CLAIMANTS, false)));
    }
}
