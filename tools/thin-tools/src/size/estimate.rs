// SPDX-License-Identifier: GPL-2.0

//! What a pool's metadata consists of, when all its data blocks are mapped and nodes are half full.

/// The most blocks that metadata can have: what one index block describes.
pub const MOST: u64 = 255 * 16320;

/// Half of what a leaf of mappings, and any inner node, has room for.
const HALF_NODE: u64 = 126;
/// Half of what a leaf of device details has room for.
const HALF_DETAILS: u64 = 63;
/// Half of what a leaf of bitmap locations has room for.
const HALF_INDEX: u64 = 84;
/// Half of what a leaf of reference counts has room for.
const HALF_COUNTS: u64 = 168;
/// How many blocks a bitmap describes.
const PER_BITMAP: u64 = 16320;

/// How much metadata a pool needs, in blocks.
pub struct Estimate {
    mappings: u64,
    thins: u64,
    snapshots: u64,
    /// How much of a snapshot's tree is its own, in percent.
    changed: u64,
}

/// The inner nodes above `leaves` leaves.
fn above(leaves: u64) -> u64 {
    let mut level = leaves;
    let mut sum = 0u64;
    while level > 1 {
        level = level.div_ceil(HALF_NODE);
        sum = sum.saturating_add(level);
    }
    sum
}

/// A tree with so many entries.
fn tree(entries: u64, per_leaf: u64) -> u64 {
    let leaves = entries.div_ceil(per_leaf).max(1);
    leaves.saturating_add(above(leaves))
}

impl Estimate {
    /// For a data device of `mappings` blocks, and `thins` volumes of which some are snapshots.
    pub fn new(mappings: u64, thins: u64, snapshots: u64, changed: u64) -> Self {
        Self {
            mappings,
            thins,
            snapshots,
            changed,
        }
    }

    /// The estimate that other programs know: leaves, a block for each device, and the superblock.
    pub fn customary(&self) -> u64 {
        let leaves = self.mappings.div_ceil(HALF_NODE);
        leaves
            .saturating_add(self.thins)
            .saturating_add(1)
            .min(MOST)
    }

    /// Everything, by what it is for.
    pub fn parts(&self) -> Vec<(&'static str, u64)> {
        let origins = self.thins.saturating_sub(self.snapshots).max(1);
        let leaves = self.mappings.div_ceil(origins).div_ceil(HALF_NODE).max(1);
        let inner = above(leaves).saturating_add(u64::from(leaves == 1));
        let share = |blocks: u64| {
            let own = u128::from(blocks) * u128::from(self.changed);
            u64::try_from(own.div_ceil(100)).unwrap_or(u64::MAX).max(1)
        };
        let own_leaves = share(leaves);
        let shared_counts = match self.snapshots {
            0 => 0,
            snapshots => {
                let entries = own_leaves
                    .saturating_mul(2 * HALF_NODE)
                    .saturating_mul(snapshots);
                tree(entries.min(self.mappings), HALF_COUNTS)
            }
        };
        let mut parts = vec![
            ("superblock", 1),
            ("mappings: leaves", leaves.saturating_mul(origins)),
            ("mappings: inner nodes", inner.saturating_mul(origins)),
            (
                "snapshots: nodes of their own",
                own_leaves
                    .saturating_add(share(inner))
                    .saturating_mul(self.snapshots),
            ),
            ("tree of devices", tree(self.thins, HALF_NODE)),
            ("tree of device details", tree(self.thins, HALF_DETAILS)),
            (
                "data space map: bitmaps",
                self.mappings.div_ceil(PER_BITMAP),
            ),
            (
                "data space map: where the bitmaps are",
                tree(self.mappings.div_ceil(PER_BITMAP), HALF_INDEX),
            ),
            (
                "data space map: counts of shared blocks",
                shared_counts.max(1),
            ),
        ];
        let before = parts
            .iter()
            .fold(0u64, |sum, (_, blocks)| sum.saturating_add(*blocks));
        // The bitmaps describe themselves as well; one more of them than for the rest is enough.
        let bitmaps = before.div_ceil(PER_BITMAP).saturating_add(1);
        parts.push(("metadata space map", bitmaps.saturating_add(2)));
        // A transaction copies what it changes before it lets the old go.
        parts.push(("copies during a transaction", (before / 50).max(64)));
        parts
    }

    /// The sum of all parts.
    pub fn complete(&self) -> u64 {
        self.parts()
            .iter()
            .fold(0u64, |sum, (_, blocks)| sum.saturating_add(*blocks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_customary_numbers() {
        assert_eq!(
            Estimate::new(1 << 24, 1000, 0, 10).customary() * 8,
            1_073_232
        );
        assert_eq!(Estimate::new(16384, 1, 0, 10).customary() * 8, 1064);
        assert_eq!(Estimate::new(u64::MAX, u64::MAX, 0, 10).customary(), MOST);
    }

    #[test]
    fn nothing_overflows() {
        for changed in [0, 1, 100] {
            for snapshots in [0, 1, u64::MAX] {
                let estimate = Estimate::new(u64::MAX, u64::MAX, snapshots, changed);
                assert!(estimate.complete() >= estimate.customary());
            }
        }
    }

    #[test]
    fn complete_is_more_than_customary() {
        for blocks in [1, 100, 16320, 1 << 20, 1 << 24] {
            for thins in [1, 10, 1000] {
                let estimate = Estimate::new(blocks, thins, thins / 2, 10);
                assert!(
                    estimate.complete() > estimate.customary(),
                    "{blocks} {thins}"
                );
            }
        }
    }
}
