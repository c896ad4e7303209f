// SPDX-License-Identifier: GPL-2.0

//! How many blocks each device has, and how many of them it has alone.
//!
//! A data block is exclusive to a device when a single leaf refers to it, once, and no other device
//! has that leaf. All leaves are read once: each data block remembers the device that was the first to
//! refer to it, and whoever refers to it next takes it away from that device.

use crate::forest::Forest;
use crate::owners::Claim;
use crate::owners::Owners;
use crate::owners::PER_PASS;
use crate::report::Counter;
use thin_format::io::Store;
use thin_format::records::PackedMapping;
use thin_format::Error;

/// What a device uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Mapped blocks.
    pub mapped: u64,
    /// Blocks that only this device has.
    pub exclusive: u64,
    /// The highest mapped block.
    pub highest: Option<u64>,
    /// How many nodes of its tree cannot be read: what is mapped there is not counted.
    pub lost_nodes: u64,
    /// How many of its mappings point beyond the data device.
    pub out_of_range: u64,
}

/// What is below a node.
#[derive(Clone, Default)]
struct Below {
    mapped: u64,
    highest: Option<u64>,
    lost_nodes: u64,
    out_of_range: u64,
}

impl Below {
    fn join(&mut self, next: &Self) {
        self.mapped = self.mapped.saturating_add(next.mapped);
        self.highest = self.highest.max(next.highest);
        self.lost_nodes = self.lost_nodes.saturating_add(next.lost_nodes);
        self.out_of_range = self.out_of_range.saturating_add(next.out_of_range);
    }
}

/// Notes that a leaf of `owner` refers to `data`; keeps `exclusive` right.
fn refer(owners: &Owners, data: u64, owner: u32, exclusive: &mut [i64]) {
    let (device, change) = match owners.claim(data, owner.min(SHARED_LEAF)) {
        Claim::First => (owner, 1),
        Claim::Second(first) => (first, -1),
        Claim::Later(_) | Claim::Outside => return,
    };
    if let Some(count) = exclusive.get_mut(device as usize) {
        *count += change;
    }
}

/// Claims a data block for a leaf that several devices have; no device has this number.
const SHARED_LEAF: u32 = crate::owners::MOST_CLAIMANTS;

/// What each of the devices with these roots uses of a data device of `data_blocks` blocks.
///
/// Memory: as for [`Forest`], 4 bytes for each data block but at most 1 GiB, 40 bytes for each node.
pub fn measure(
    store: &dyn Store,
    roots: &[u64],
    data_blocks: u64,
    counter: &Counter,
) -> (Vec<Usage>, Vec<(u64, Error)>) {
    let threads = crate::metadata::threads();
    let forest = Forest::read(store, roots, threads);
    let data_blocks = data_blocks.min(crate::metadata::most_data_blocks(store));
    let passes = data_blocks.div_ceil(PER_PASS).max(1);
    counter.set_total(passes.saturating_mul(forest.leaves() as u64));

    let mut usages = vec![Usage::default(); roots.len()];
    let mut bad: Vec<(u64, Error)> = forest
        .bad()
        .map(|(block, error)| (block, error.clone()))
        .collect();
    let mut below = vec![Below::default(); forest.leaves()];
    for pass in 0..passes {
        let begin = pass * PER_PASS;
        let owners = Owners::new(begin, data_blocks.min(begin.saturating_add(PER_PASS)));
        let start = || (vec![0i64; roots.len()], Vec::new(), Vec::new());
        let done = forest.visit_leaves(store, threads, start, |state, leaf, node| {
            let (exclusive, found, bad) = state;
            counter.advance(1);
            let node = match node {
                Ok(node) => node,
                Err(error) => {
                    let lost = Below {
                        lost_nodes: 1,
                        ..Below::default()
                    };
                    found.push((forest.leaf_index(leaf), lost));
                    bad.push((error.block_number().unwrap_or(0), error));
                    return;
                }
            };
            let owner = forest.owner(leaf);
            let mut out_of_range = 0;
            for mapping in node.values::<PackedMapping>() {
                let data = mapping.block().0;
                if data >= data_blocks {
                    out_of_range += 1;
                } else {
                    refer(&owners, data, owner, exclusive);
                }
            }
            if pass == 0 {
                let here = Below {
                    mapped: node.len() as u64,
                    highest: node.last_key(),
                    lost_nodes: 0,
                    out_of_range,
                };
                found.push((forest.leaf_index(leaf), here));
            }
        });
        for (exclusive, found, bad_here) in done {
            for (usage, more) in usages.iter_mut().zip(exclusive) {
                usage.exclusive = usage.exclusive.wrapping_add_signed(more);
            }
            if pass == 0 {
                for (leaf, what) in found {
                    below[leaf] = what;
                }
                bad.extend(bad_here);
            }
        }
    }

    let bad_node = Below {
        lost_nodes: 1,
        ..Below::default()
    };
    let sums = forest.sum_up(&mut below, &bad_node, Below::join);
    for (device, usage) in usages.iter_mut().enumerate() {
        let below = match forest.root(device) {
            Some(root) => &sums[root.index()],
            None => &bad_node,
        };
        usage.mapped = below.mapped;
        usage.highest = below.highest;
        usage.lost_nodes = below.lost_nodes;
        usage.out_of_range = below.out_of_range;
    }
    bad.sort_by_key(|(block, _)| *block);
    (usages, bad)
}
