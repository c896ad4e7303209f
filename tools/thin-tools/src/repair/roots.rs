// SPDX-License-Identifier: GPL-2.0

//! Pairs of trees that a superblock may have pointed to: copy-on-write leaves those of older transactions behind.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;

use thin_format::btree::Node;
use thin_format::btree::Value;
use thin_format::io::Store;
use thin_format::records::units::DeviceId;
use thin_format::records::DeviceDetails;

use super::scan::Scan;
use super::scan::DETAILS;
use super::scan::MAPPINGS;
use super::subtrees::Below;
use super::subtrees::LostChild;
use super::subtrees::Subtrees;
use crate::trees::BlockNumber;

/// Everything that was found out about the metadata.
pub struct Found<'a> {
    /// Where they are.
    pub store: &'a dyn Store,
    /// All nodes.
    pub scan: &'a Scan,
    /// What of them can be used.
    pub subtrees: Subtrees<'a>,
}

/// Where a pair of roots comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Block 0 says so.
    Superblock,
    /// The copy of the superblock in this block says so.
    Copy(u64),
    /// The trees look as if they belong together.
    Search,
    /// The command line says so.
    User,
}

/// The roots of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roots {
    /// The tree of devices' roots.
    pub mapping: u64,
    /// The tree of device details, if there is one.
    pub details: Option<u64>,
    /// Who says so.
    pub source: Source,
    /// The transaction, if it is known.
    pub transaction: Option<u64>,
}

/// What became of a device.
#[derive(Clone, Debug, Default)]
pub struct DeviceState {
    /// Where its tree of mappings should be.
    pub root: Option<u64>,
    /// Its tree, as far as it can be used.
    pub tree: Option<(BlockNumber, Below)>,
    /// What is known about it.
    pub details: Option<DeviceDetails>,
}

impl DeviceState {
    /// How many mappings there are.
    pub fn mappings(&self) -> u64 {
        self.tree.map_or(0, |(_, below)| below.entries)
    }

    /// Whether mappings are missing.
    pub fn is_partial(&self) -> bool {
        match (&self.tree, self.root) {
            (Some((_, below)), _) => below.bad > 0 || self.missing() > 0,
            (None, Some(_)) => true,
            // No root: nothing is missing if nothing was mapped.
            (None, None) => self.details.is_none_or(|details| details.mapped_blocks > 0),
        }
    }

    /// How many mappings are missing, if the details know.
    pub fn missing(&self) -> u64 {
        self.details.map_or(0, |details| {
            details.mapped_blocks.saturating_sub(self.mappings())
        })
    }
}

/// What a pair of roots leads to.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The roots.
    pub roots: Roots,
    /// The devices, as far as they are known.
    pub devices: BTreeMap<u64, DeviceState>,
    /// Parts of the tree of devices' roots that cannot be used, as ranges of device ids.
    pub lost_roots: Vec<LostChild>,
    /// Parts of the tree of device details that cannot be used, as ranges of device ids.
    pub lost_details: Vec<LostChild>,
}

impl Candidate {
    /// The latest time of any mapping or snapshot.
    pub fn time(&self) -> u32 {
        let of_device = |device: &DeviceState| {
            let mapped = device.tree.map_or(0, |(_, below)| below.max_time);
            let details = device.details.map_or(0, |details| {
                details.snapshotted_time.max(details.creation_time)
            });
            mapped.max(details)
        };
        self.devices.values().map(of_device).max().unwrap_or(0)
    }

    /// The last data block that is mapped.
    pub fn max_data(&self) -> Option<u64> {
        let mapped = self
            .devices
            .values()
            .filter_map(|device| device.tree)
            .filter(|(_, below)| below.entries > 0);
        mapped.map(|(_, below)| below.max_data).max()
    }

    /// The transaction, or the latest one that a device was made in.
    pub fn transaction(&self) -> u64 {
        let made = self
            .devices
            .values()
            .filter_map(|device| device.details)
            .map(|details| details.transaction_id);
        self.roots.transaction.or(made.max()).unwrap_or(0)
    }

    /// Mappings of all devices.
    pub fn mappings(&self) -> u64 {
        self.devices
            .values()
            .fold(0, |sum: u64, device| sum.saturating_add(device.mappings()))
    }

    /// How many nodes cannot be used, those that several devices share counted once for each.
    pub fn bad_nodes(&self) -> u64 {
        let of_device = |device: &DeviceState| match (device.tree, device.root) {
            (Some((_, below)), _) => below.bad,
            (None, Some(_)) => 1,
            (None, None) => 0,
        };
        let devices = self
            .devices
            .values()
            .fold(0, |sum: u64, device| sum.saturating_add(of_device(device)));
        devices.saturating_add((self.lost_roots.len() + self.lost_details.len()) as u64)
    }

    /// Whether no mapping is missing, as far as can be known.
    pub fn is_complete(&self) -> bool {
        self.lost_roots.is_empty() && self.devices.values().all(|device| !device.is_partial())
    }

    /// Whether details and mappings are of the same devices and agree on their sizes.
    pub fn is_consistent(&self) -> bool {
        let agrees = |device: &DeviceState| {
            device.tree.is_some()
                && device
                    .details
                    .is_some_and(|details| details.mapped_blocks == device.mappings())
        };
        self.is_complete() && self.lost_details.is_empty() && self.devices.values().all(agrees)
    }
}

impl Found<'_> {
    /// What `roots` lead to.
    pub fn candidate(&self, roots: Roots) -> Candidate {
        let mut devices: BTreeMap<u64, DeviceState> = BTreeMap::new();
        let (entries, lost_roots) = self.entries::<u64>(roots.mapping, MAPPINGS);
        for (device, root) in entries {
            let number = BlockNumber::try_from(root).ok();
            let below = number.and_then(|number| self.subtrees.below(number));
            let tree = number
                .zip(below)
                .filter(|(_, below)| below.value_size == MAPPINGS);
            let state = devices.entry(device).or_default();
            state.root = Some(root);
            state.tree = tree;
        }
        let mut lost_details = Vec::new();
        if let Some(root) = roots.details {
            let (entries, lost) = self.entries::<DeviceDetails>(root, DETAILS);
            for (device, details) in entries {
                devices.entry(device).or_default().details = Some(details);
            }
            lost_details = lost;
        }
        Candidate {
            roots,
            devices,
            lost_roots,
            lost_details,
        }
    }

    /// The entries of a tree of devices, as far as they can be used, and what cannot.
    fn entries<V: Value>(&self, root: u64, value_size: u8) -> (Vec<(u64, V)>, Vec<LostChild>) {
        let mut entries = Vec::new();
        let mut lost = Vec::new();
        let number = BlockNumber::try_from(root).ok();
        let below = number.and_then(|number| self.subtrees.below(number));
        match number
            .zip(below)
            .filter(|(_, below)| below.value_size == value_size)
        {
            Some((number, _)) => {
                self.subtrees.lost(number, None, &mut lost);
                self.collect(number, &mut entries);
            }
            None => lost.push(LostChild {
                block: root,
                begin: 0,
                end: None,
            }),
        }
        entries.retain(|(device, _)| *device <= DeviceId::MAX.key());
        (entries, lost)
    }

    fn collect<V: Value>(&self, block: BlockNumber, into: &mut Vec<(u64, V)>) {
        if let Some(subtree) = self.subtrees.internal(block) {
            for child in &subtree.children {
                self.collect(child.block, into);
            }
            return;
        }
        let Ok(bytes) = self.store.read_block(block.into()) else {
            return;
        };
        if let Ok(node) = Node::verify(block.into(), &bytes, V::BYTES) {
            into.extend(node.entries::<V>());
        }
    }

    /// All pairs of roots that may be those of a pool, the best first.
    pub fn candidates(&self) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let mut known = HashSet::new();
        for (block, superblock) in &self.scan.superblocks {
            let roots = Roots {
                mapping: superblock.mapping_root.0,
                details: Some(superblock.details_root.0),
                source: if *block == 0 {
                    Source::Superblock
                } else {
                    Source::Copy(*block)
                },
                transaction: Some(superblock.transaction_id),
            };
            if known.insert((roots.mapping, roots.details)) {
                candidates.push(self.candidate(roots));
            }
        }
        let details = self.details_trees();
        for mapping in self.top_level_trees() {
            let alone = Roots {
                mapping: mapping.into(),
                details: None,
                source: Source::Search,
                transaction: None,
            };
            let alone = self.candidate(alone);
            let details = best_details(&alone, &details).map(u64::from);
            let is_known = |candidate: &Candidate| {
                candidate.roots.mapping == u64::from(mapping)
                    && (details.is_none() || candidate.is_consistent())
            };
            if !candidates.iter().any(is_known) && known.insert((mapping.into(), details)) {
                candidates.push(self.candidate(Roots {
                    details,
                    ..alone.roots
                }));
            }
        }
        candidates.sort_by_key(|candidate| std::cmp::Reverse(rank(candidate)));
        candidates
    }

    /// Roots of trees of device details, with what is in them.
    fn details_trees(&self) -> Vec<(BlockNumber, BTreeMap<u64, DeviceDetails>)> {
        let mut roots: HashSet<BlockNumber> = self
            .scan
            .leaves()
            .filter(|(_, leaf)| leaf.value_size == DETAILS)
            .map(|(block, _)| block)
            .collect();
        let internals: Vec<_> = self
            .subtrees
            .internals()
            .filter(|(_, subtree)| subtree.below.value_size == DETAILS)
            .collect();
        roots.extend(
            internals
                .iter()
                .map(|(block, _)| *block)
                .filter(|block| u64::from(*block) < self.scan.blocks()),
        );
        for child in internals
            .iter()
            .flat_map(|(_, subtree)| subtree.children.iter())
        {
            roots.remove(&child.block);
        }
        let mut roots: Vec<BlockNumber> = roots.into_iter().collect();
        roots.sort_unstable();
        let details = |root: &BlockNumber| {
            self.entries::<DeviceDetails>((*root).into(), DETAILS)
                .0
                .into_iter()
                .collect()
        };
        roots.iter().map(|root| (*root, details(root))).collect()
    }

    /// Roots of trees whose values are roots of trees of mappings.
    fn top_level_trees(&self) -> Vec<BlockNumber> {
        let mut kinds: HashMap<BlockNumber, bool> = HashMap::new();
        for (block, leaf) in self
            .scan
            .leaves()
            .filter(|(_, leaf)| leaf.may_be_top_level && leaf.entries > 0)
        {
            let (entries, _) = self.entries::<u64>(block.into(), MAPPINGS);
            let is_root = |root: u64| {
                let below = BlockNumber::try_from(root)
                    .ok()
                    .and_then(|root| self.subtrees.below(root));
                below.is_some_and(|below| below.value_size == MAPPINGS)
            };
            let good = entries.iter().filter(|(_, root)| is_root(*root)).count();
            // A node of mappings of data block 0 looks the same, but leads nowhere.
            kinds.insert(block, good > 0 && good * 2 >= usize::from(leaf.entries));
        }
        let mut internals: Vec<_> = self
            .subtrees
            .internals()
            .filter(|(block, subtree)| {
                subtree.below.value_size == MAPPINGS && u64::from(*block) < self.scan.blocks()
            })
            .collect();
        internals.sort_by_key(|(block, subtree)| (subtree.below.height, *block));
        let mut has_parent = HashSet::new();
        for (block, subtree) in internals {
            let is_top = subtree
                .children
                .iter()
                .all(|child| kinds.get(&child.block) == Some(&true));
            if is_top {
                kinds.insert(block, true);
                has_parent.extend(subtree.children.iter().map(|child| child.block));
            }
        }
        let is_root = |(block, is_top): (BlockNumber, bool)| {
            (is_top && !has_parent.contains(&block)).then_some(block)
        };
        let mut roots: Vec<BlockNumber> = kinds.into_iter().filter_map(is_root).collect();
        roots.sort_unstable();
        roots
    }
}

/// The details that go with a tree: of the same devices, at best with the same numbers of mappings, the latest.
fn best_details(
    candidate: &Candidate,
    trees: &[(BlockNumber, BTreeMap<u64, DeviceDetails>)],
) -> Option<BlockNumber> {
    let agreement = |details: &BTreeMap<u64, DeviceDetails>| {
        if !details.keys().eq(candidate.devices.keys()) {
            return None;
        }
        let same = details.values().zip(candidate.devices.values());
        let same = same
            .filter(|(details, device)| details.mapped_blocks == device.mappings())
            .count();
        let transaction = details.values().map(|details| details.transaction_id).max();
        let time = details
            .values()
            .map(|details| details.snapshotted_time)
            .max();
        Some((same, transaction, time))
    };
    let rated = trees
        .iter()
        .filter_map(|(root, details)| Some((agreement(details)?, *root)));
    rated.max().map(|(_, root)| root)
}

/// The larger, the better.
fn rank(candidate: &Candidate) -> impl Ord {
    let is_superblocks =
        candidate.roots.source == Source::Superblock && !candidate.devices.is_empty();
    let is_superblocks = is_superblocks
        || (candidate.roots.source == Source::Superblock && candidate.is_consistent());
    let by_whom = match candidate.roots.source {
        Source::User => 2,
        Source::Superblock => 1,
        Source::Copy(_) | Source::Search => 0,
    };
    (
        is_superblocks,
        candidate.is_complete(),
        candidate.is_consistent(),
        candidate.time(),
        candidate.transaction(),
        candidate.mappings(),
        by_whom,
    )
}
