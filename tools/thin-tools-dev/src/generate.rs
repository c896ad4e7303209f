// SPDX-License-Identifier: GPL-2.0

//! Metadata of any size and shape.
//!
//! Snapshots share what the kernel would let them share: every subtree that was not written to since. Where
//! mappings point is spread over the data device the more, the shorter the runs are.

use thin_format::build;
use thin_format::build::Builder;
use thin_format::build::Built;
use thin_format::build::Error;
use thin_format::build::NodeRef;
use thin_format::build::Pool;
use thin_format::io::Store;
use thin_format::records::DeviceDetails;
use thin_format::thin::Run;

use crate::random::Random;

/// Entries of a full node of mappings.
const ROOM: u64 = 252;

/// Parts of the data device that blocks are allocated from at the same time.
const LANES: u64 = 64;

/// What the metadata are to look like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Number of devices, snapshots included.
    pub devices: u64,
    /// How many of 1000 devices are snapshots.
    pub snapshots: u64,
    /// Mappings of all devices together; those that devices share count once for each.
    pub mappings: u64,
    /// Mean length of the runs of mappings that are consecutive on both sides.
    pub run_length: u64,
    /// How many of 1000 leaves a snapshot does not share with its origin any more.
    pub diverged: u64,
    /// How many of 1000 mappings of such a leaf are other ones; the rest points to the same data still.
    pub changed: u64,
    /// How often a snapshot can be taken of a snapshot.
    pub depth: u64,
    /// How full nodes are, in percent; at least 67, or the kernel would merge them.
    pub fill: u64,
    /// Size of a data block in sectors.
    pub data_block_size: u32,
    /// Blocks of the data device; 0: somewhat more than are mapped.
    pub nr_data_blocks: u64,
    /// Whether the metadata want a check.
    pub needs_check: bool,
    /// Whether a metadata snapshot is held, of a time before the last changes.
    pub held: bool,
    /// What everything follows from.
    pub seed: u64,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            devices: 10,
            snapshots: 500,
            mappings: 10_000,
            run_length: 8,
            diverged: 100,
            changed: 250,
            depth: 1,
            fill: 100,
            data_block_size: 128,
            nr_data_blocks: 0,
            needs_check: false,
            held: false,
            seed: 1,
        }
    }
}

impl Shape {
    /// Metadata blocks that are surely enough.
    pub fn blocks(&self) -> u64 {
        let leaves = self.mappings / self.per_node() + self.devices * 2;
        let nodes = leaves + leaves / 50 + self.devices * 2;
        let bitmaps = self.data_blocks() / 16_000;
        64 + nodes + nodes / 4 + bitmaps + bitmaps / 8
    }

    /// The most entries of a node of mappings.
    fn per_node(&self) -> u64 {
        ROOM * self.fill.clamp(67, 100) / 100
    }

    fn data_blocks(&self) -> u64 {
        match self.nr_data_blocks {
            0 => self.mappings + self.mappings / 4 + LANES * 1024,
            blocks => blocks,
        }
    }

    /// Writes such metadata to `store`.
    ///
    /// # Errors
    ///
    /// If `store` or the data device are too small, or if writing fails.
    pub fn write(&self, store: &dyn Store) -> Result<Built, Error> {
        let data_blocks = self.data_blocks();
        build::build(store, data_blocks, |builder| {
            let mut pool = Generated {
                shape: self,
                builder,
                random: Random::new(self.seed),
                time: 0,
                transaction: 0,
                lanes: lanes(data_blocks),
                trees: Vec::new(),
            };
            pool.fill()?;
            Ok(Pool {
                time: pool.time,
                transaction_id: pool.transaction,
                data_block_size: self.data_block_size,
                needs_check: self.needs_check,
            })
        })
    }
}

fn lanes(data_blocks: u64) -> Vec<(u64, u64)> {
    let size = data_blocks / LANES;
    (0..LANES)
        .map(|lane| (lane * size, (lane + 1) * size))
        .collect()
}

/// A device's mappings, as far as later snapshots need them.
#[derive(Clone)]
struct Tree {
    device: u64,
    details: DeviceDetails,
    depth: u64,
    /// Per level, from the leaves up, the nodes; the last level is the root.
    levels: Vec<Vec<NodeRef>>,
}

/// Things put into as few groups as hold them, all of about the same size.
#[derive(Clone, Copy)]
struct Groups {
    things: u64,
    groups: u64,
}

impl Groups {
    fn new(things: u64, most: u64) -> Groups {
        Groups {
            things,
            groups: things.div_ceil(most),
        }
    }

    fn begin(&self, group: u64) -> u64 {
        (group * self.things).checked_div(self.groups).unwrap_or(0)
    }

    fn group_of(&self, thing: u64) -> u64 {
        ((thing + 1) * self.groups - 1)
            .checked_div(self.things)
            .unwrap_or(0)
    }
}

struct Generated<'a, 'b> {
    shape: &'a Shape,
    builder: &'a mut Builder<'b>,
    random: Random,
    time: u32,
    transaction: u64,
    lanes: Vec<(u64, u64)>,
    trees: Vec<Tree>,
}

impl Generated<'_, '_> {
    fn fill(&mut self) -> Result<(), Error> {
        let shape = self.shape;
        let snapshots =
            (shape.devices * shape.snapshots.min(1000) / 1000).min(shape.devices.saturating_sub(1));
        let origins = shape.devices - snapshots;
        let each = shape.mappings.checked_div(shape.devices).unwrap_or(0);
        for device in 0..origins {
            self.transaction += 1;
            let tree = self.origin(device, each)?;
            self.trees.push(tree);
        }
        for device in origins..shape.devices {
            self.transaction += 1;
            self.snapshot(device)?;
        }
        for tree in &self.trees {
            let root = tree.root();
            self.builder
                .device_with_root(tree.device, tree.details, root)?;
        }
        if shape.held {
            self.hold()?;
        }
        Ok(())
    }

    fn origin(&mut self, device: u64, mapped: u64) -> Result<Tree, Error> {
        let mut nodes = Vec::new();
        let groups = Groups::new(mapped, self.shape.per_node());
        let mut begin = 0;
        for leaf in 0..groups.groups.max(1) {
            let count = groups.begin(leaf + 1) - groups.begin(leaf);
            let runs = self.runs(begin, count);
            let gap = self.random.below(3);
            begin = runs.last().map_or(begin, |run| run.thin + run.length) + gap;
            nodes.push(self.builder.leaf(&runs)?);
        }
        let mut levels = vec![nodes];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let groups = Groups::new(below.len() as u64, self.shape.per_node());
            let mut level = Vec::new();
            for group in 0..groups.groups {
                let children = groups.begin(group) as usize..groups.begin(group + 1) as usize;
                level.push(
                    self.builder
                        .internal(below.get(children).unwrap_or_default())?,
                );
            }
            levels.push(level);
        }
        let details = DeviceDetails {
            mapped_blocks: mapped,
            transaction_id: self.transaction,
            creation_time: self.time,
            snapshotted_time: self.time,
        };
        Ok(Tree {
            device,
            details,
            depth: 0,
            levels,
        })
    }

    /// The mappings of a leaf. Data blocks are allocated.
    fn runs(&mut self, begin: u64, count: u64) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut thin = begin;
        let mut left = count;
        while left > 0 {
            let length = (1 + self.random.below(self.shape.run_length.max(1) * 2 - 1)).min(left);
            let data = self.allocate(length);
            runs.push(Run {
                thin,
                data,
                length,
                time: self.time,
            });
            thin += length + u64::from(self.random.chance(250)) * self.random.below(16);
            left -= length;
        }
        runs
    }

    /// Takes consecutive data blocks from a random part of the device; the first that has room from there on.
    fn allocate(&mut self, length: u64) -> u64 {
        let first = self.random.below(LANES) as usize;
        for lane in (0..self.lanes.len())
            .cycle()
            .skip(first)
            .take(self.lanes.len())
        {
            if let Some((next, end)) = self.lanes.get_mut(lane) {
                if *end - *next >= length {
                    let data = *next;
                    *next += length + u64::from(data % 7 == 0);
                    *next = (*next).min(*end);
                    return data;
                }
            }
        }
        // No room: the builder says so.
        u64::MAX >> 25
    }

    fn snapshot(&mut self, device: u64) -> Result<(), Error> {
        let depth = self.shape.depth.max(1);
        let candidates: Vec<usize> = (0..self.trees.len())
            .filter(|&index| self.trees.get(index).is_some_and(|tree| tree.depth < depth))
            .collect();
        // One snapshot of each device before there are two of one.
        let index = candidates
            .get(device as usize % candidates.len().max(1))
            .copied()
            .unwrap_or(0);
        self.time += 1;
        let Some(origin) = self.trees.get_mut(index) else {
            return Ok(());
        };
        origin.details.snapshotted_time = self.time;
        let mut tree = origin.clone();
        tree.device = device;
        tree.depth += 1;
        tree.details.transaction_id = self.transaction;
        tree.details.creation_time = self.time;
        let tree = self.diverge(tree)?;
        self.trees.push(tree);
        Ok(())
    }

    /// Breaks the sharing of some leaves and of the nodes above them; shares the rest.
    fn diverge(&mut self, mut tree: Tree) -> Result<Tree, Error> {
        let mut changed = Vec::new();
        for index in 0..tree.levels.first().map_or(0, Vec::len) {
            if !self.random.chance(self.shape.diverged) {
                continue;
            }
            let Some(leaf) = tree
                .levels
                .first()
                .and_then(|leaves| leaves.get(index))
                .copied()
            else {
                break;
            };
            changed.push((index, self.copy_leaf(&leaf)?));
        }
        if changed.is_empty() {
            self.builder.share(tree.root());
            return Ok(tree);
        }
        for height in 0..tree.levels.len() {
            let Some(level) = tree.levels.get_mut(height) else {
                break;
            };
            for (index, node) in &changed {
                if let Some(place) = level.get_mut(*index) {
                    *place = *node;
                }
            }
            let level = level.clone();
            if level.len() == 1 {
                break;
            }
            let groups = Groups::new(level.len() as u64, self.shape.per_node());
            let mut above: Vec<u64> = changed
                .iter()
                .map(|(index, _)| groups.group_of(*index as u64))
                .collect();
            above.dedup();
            let is_new = |index: usize| {
                changed
                    .binary_search_by_key(&index, |(index, _)| *index)
                    .is_ok()
            };
            let mut next = Vec::new();
            for parent in above {
                let begin = groups.begin(parent) as usize;
                let end = groups.begin(parent + 1) as usize;
                let children = level.get(begin..end).unwrap_or_default();
                for (index, child) in (begin..).zip(children) {
                    if !is_new(index) {
                        self.builder.share(child.block);
                    }
                }
                next.push((parent as usize, self.builder.internal(children)?));
            }
            changed = next;
        }
        Ok(tree)
    }

    /// What a leaf becomes when some of its blocks are written to.
    fn copy_leaf(&mut self, leaf: &NodeRef) -> Result<NodeRef, Error> {
        let surely = self.random.below(leaf.entries.into());
        let mut index = 0;
        let mut changes = Vec::new();
        for entry in 0..u64::from(leaf.entries) {
            let is_changed = entry == surely || self.random.chance(self.shape.changed);
            changes.push(is_changed.then(|| self.allocate(1)));
        }
        let time = self.time;
        self.builder.copy_leaf(leaf, |_| {
            let change = changes.get(index).copied().flatten();
            index += 1;
            change.map(|data| (data, time))
        })
    }

    /// Takes a metadata snapshot, and changes some devices after it.
    fn hold(&mut self) -> Result<(), Error> {
        let pool = Pool {
            time: self.time,
            transaction_id: self.transaction,
            data_block_size: self.shape.data_block_size,
            needs_check: false,
        };
        self.builder.hold_snapshot(&pool)?;
        self.transaction += 1;
        self.time += 1;
        for index in (0..self.trees.len()).step_by(3) {
            let Some(tree) = self.trees.get(index).cloned() else {
                break;
            };
            let old = tree.root();
            let tree = self.diverge(tree)?;
            if tree.root() == old {
                // Shared as a whole: the device keeps its own pointer, no new one came.
                self.builder.unshare(old);
            } else {
                self.builder
                    .replace_device(tree.device, tree.details, tree.root());
            }
        }
        Ok(())
    }
}

impl Tree {
    fn root(&self) -> u64 {
        self.levels
            .last()
            .and_then(|level| level.first())
            .map_or(0, |root| root.block)
    }
}
