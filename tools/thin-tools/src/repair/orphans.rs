// SPDX-License-Identifier: GPL-2.0

//! Whole nodes below a damaged one: nobody points to them any more, but they are there.
//!
//! They are put back only if nothing speaks against it: the space map says that they are in use, no tree has them, their keys lie
//! where mappings of exactly one device are missing, and together they are exactly as many as are missing there. Versions of
//! older transactions fail the first test, those of snapshots the last.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::ops::ControlFlow;

use thin_format::space_map;
use thin_format::space_map::Which;
use thin_format::superblock;

use super::roots::Candidate;
use super::roots::DeviceState;
use super::roots::Found;
use super::roots::Roots;
use super::roots::Source;
use super::scan::MAPPINGS;
use super::subtrees::LostChild;
use crate::trees::BlockNumber;
use crate::trees::Child;

/// A node without a parent.
#[derive(Clone, Copy)]
struct Orphan {
    block: BlockNumber,
    first: u64,
    last: u64,
    entries: u64,
}

impl Found<'_> {
    /// Puts back what can be found again of the devices of `candidate`. Returns the devices that are whole by that.
    pub fn adopt(&mut self, candidate: &mut Candidate) -> Vec<u64> {
        let is_wanting = |state: &DeviceState| state.is_partial() && state.missing() > 0;
        if candidate.roots.source != Source::Superblock
            || !candidate.devices.values().any(is_wanting)
        {
            return Vec::new();
        }
        let Some(orphans) = self.orphans(candidate) else {
            return Vec::new();
        };
        let mut found: BTreeMap<u64, Vec<Orphan>> = BTreeMap::new();
        let wanting = candidate
            .devices
            .iter()
            .filter(|(_, state)| is_wanting(state));
        let gaps: Vec<(u64, Vec<LostChild>)> = wanting
            .map(|(device, state)| (*device, self.gaps(state)))
            .collect();
        for orphan in orphans {
            let fits = |gap: &LostChild| {
                gap.begin <= orphan.first && gap.end.is_none_or(|end| orphan.last < end)
            };
            let mut owners = gaps.iter().filter(|(_, gaps)| gaps.iter().any(fits));
            if let (Some((device, _)), None) = (owners.next(), owners.next()) {
                found.entry(*device).or_default().push(orphan);
            }
        }
        let mut whole = Vec::new();
        for (device, mut orphans) in found {
            let Some(state) = candidate.devices.get_mut(&device) else {
                continue;
            };
            orphans.sort_by_key(|orphan| orphan.first);
            let is_disjoint = orphans
                .windows(2)
                .all(|two| two.first().map(|one| one.last) < two.last().map(|one| one.first));
            let entries = orphans
                .iter()
                .fold(0, |sum: u64, orphan| sum.saturating_add(orphan.entries));
            if is_disjoint && entries == state.missing() && self.put_back(state, &orphans) {
                whole.push(device);
            }
        }
        whole
    }

    /// Where mappings of a device are missing.
    fn gaps(&self, state: &DeviceState) -> Vec<LostChild> {
        let mut gaps = Vec::new();
        match state.tree {
            Some((root, _)) => self.subtrees.lost(root, None, &mut gaps),
            None => gaps.push(LostChild {
                block: 0,
                begin: 0,
                end: None,
            }),
        }
        gaps
    }

    fn put_back(&mut self, state: &mut DeviceState, orphans: &[Orphan]) -> bool {
        let mut parts: Vec<Child> = orphans
            .iter()
            .map(|orphan| Child {
                key: orphan.first,
                block: orphan.block,
            })
            .collect();
        if let Some((root, _)) = state.tree {
            self.undamaged(root, &mut parts);
        }
        parts.sort_by_key(|part| part.key);
        match self.subtrees.join(parts) {
            Some(tree) => {
                state.tree = Some(tree);
                true
            }
            None => false,
        }
    }

    /// The largest parts of a tree without damage.
    fn undamaged(&self, block: BlockNumber, into: &mut Vec<Child>) {
        match self.subtrees.internal(block) {
            Some(subtree) if subtree.below.bad > 0 => {
                for child in &subtree.children {
                    self.undamaged(child.block, into);
                }
            }
            _ => {
                if let Some((key, _)) = self.subtrees.below(block).and_then(|below| below.keys) {
                    into.push(Child { key, block });
                }
            }
        }
    }

    /// Whole nodes that are in use but in no tree, the highest of each kind; `None` if the space map cannot be read.
    fn orphans(&self, candidate: &Candidate) -> Option<Vec<Orphan>> {
        let (_, superblock) = self
            .scan
            .superblocks
            .iter()
            .find(|(block, _)| *block == 0)?;
        let root = superblock::metadata_space_map(superblock);
        let mut in_use = vec![true; usize::try_from(root.blocks.min(self.scan.blocks())).ok()?];
        space_map::free_runs(self.store, Which::Metadata, &root, &mut |first, length| {
            let first = usize::try_from(first).unwrap_or(usize::MAX);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let free = in_use.iter_mut().skip(first).take(length);
            free.for_each(|block| *block = false);
            ControlFlow::Continue(())
        })
        .ok()?;
        let mut owned = HashSet::new();
        self.own(candidate, &mut owned);
        for (block, copy) in self
            .scan
            .superblocks
            .iter()
            .filter(|(block, _)| *block != 0)
        {
            let roots = Roots {
                mapping: copy.mapping_root.0,
                details: None,
                source: Source::Copy(*block),
                transaction: None,
            };
            self.own(&self.candidate(roots), &mut owned);
        }
        let leaves = self.scan.leaves().map(|(block, _)| block);
        let internals = self.subtrees.internals().map(|(block, _)| block);
        let mut orphans = BTreeMap::new();
        for block in leaves
            .chain(internals)
            .filter(|block| u64::from(*block) < self.scan.blocks())
        {
            let below = self
                .subtrees
                .below(block)
                .filter(|below| below.value_size == MAPPINGS && below.bad == 0);
            let Some((below, (first, last))) = below.and_then(|below| Some((below, below.keys?)))
            else {
                continue;
            };
            if !owned.contains(&block) && in_use.get(block as usize) == Some(&true) {
                orphans.insert(
                    block,
                    Orphan {
                        block,
                        first,
                        last,
                        entries: below.entries,
                    },
                );
            }
        }
        let has_parent: HashSet<BlockNumber> = orphans
            .keys()
            .filter_map(|block| self.subtrees.internal(*block))
            .flat_map(|subtree| subtree.children.iter().map(|child| child.block))
            .collect();
        orphans.retain(|block, _| !has_parent.contains(block));
        Some(orphans.into_values().collect())
    }

    /// Notes all nodes that a candidate's trees have, the tree of devices itself among them.
    fn own(&self, candidate: &Candidate, owned: &mut HashSet<BlockNumber>) {
        let mut left: Vec<BlockNumber> = candidate
            .devices
            .values()
            .filter_map(|state| Some(state.tree?.0))
            .collect();
        left.extend(BlockNumber::try_from(candidate.roots.mapping));
        while let Some(block) = left.pop() {
            if owned.insert(block) {
                let children = self
                    .subtrees
                    .internal(block)
                    .into_iter()
                    .flat_map(|subtree| subtree.children.iter());
                left.extend(children.map(|child| child.block));
            }
        }
    }
}
