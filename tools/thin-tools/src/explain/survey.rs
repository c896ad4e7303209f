// SPDX-License-Identifier: GPL-2.0

//! What is to be known about a pool: how its volumes use its space, and share it.

use crate::forest::Forest;
use crate::forest::Groups;
use crate::metadata;
use crate::owners::Claim;
use crate::owners::Owners;
use crate::owners::PER_PASS;
use crate::report::Counter;
use std::collections::HashMap;
use thin_format::btree::Node;
use thin_format::io::Store;
use thin_format::records::PackedMapping;
use thin_format::thin::Run;
use thin_format::Error;

/// How a volume uses the pool.
#[derive(Clone, Debug, Default)]
pub struct Space {
    /// Mapped blocks.
    pub mapped: u64,
    /// Blocks that no other volume has.
    pub own: u64,
    /// In how many pieces the mapped blocks lie: runs that are in order on both sides.
    pub runs: u64,
    /// How many nodes cannot be read.
    pub lost_nodes: u64,
}

/// What is known about a pool's space.
pub struct Survey {
    /// By volume, in the order of the roots.
    pub spaces: Vec<Space>,
    /// How many blocks pairs of volumes have in common, as far as it was seen; the lesser number first.
    pub shared: HashMap<(u32, u32), u64>,
    /// Data blocks that any volume has.
    pub referenced: u64,
    /// Of these, how many more than one volume has.
    pub shared_blocks: u64,
    /// Inner nodes of the mapping trees, and leaves; shared ones count once.
    pub inner_nodes: u64,
    /// See `inner_nodes`.
    pub leaves: u64,
    /// Entries of all leaves.
    pub entries: u64,
    /// Nodes that cannot be used.
    pub bad: Vec<(u64, Error)>,
}

/// A part of a tree: what is in it and how it begins and ends, to join it with the next.
#[derive(Clone, Default)]
struct Part {
    mapped: u64,
    runs: u64,
    lost_nodes: u64,
    ends: Option<(Run, Run)>,
}

impl Part {
    fn of(leaf: &Node<'_>) -> Self {
        let mut part = Self {
            mapped: leaf.len() as u64,
            ..Self::default()
        };
        metadata::runs_of(leaf, |run| {
            part.runs += 1;
            let first = part.ends.map_or(run, |(first, _)| first);
            part.ends = Some((first, run));
        });
        part
    }

    fn bad() -> Self {
        Self {
            lost_nodes: 1,
            ..Self::default()
        }
    }

    fn join(&mut self, next: &Self) {
        self.mapped = self.mapped.saturating_add(next.mapped);
        self.runs = self.runs.saturating_add(next.runs);
        self.lost_nodes = self.lost_nodes.saturating_add(next.lost_nodes);
        self.ends = match (self.ends, next.ends) {
            (Some((first, mut last)), Some((next_first, next_last))) => {
                if last.extend(&next_first) {
                    self.runs = self.runs.saturating_sub(1);
                }
                Some((first, next_last))
            }
            (one, other) => one.or(other),
        };
    }
}

/// What each thread finds.
#[derive(Default)]
struct Found {
    own: HashMap<u32, i64>,
    pairs: HashMap<(u32, u32), u64>,
    last_pair: Option<((u32, u32), u64)>,
    parts: Vec<(usize, Part)>,
    entries: u64,
    referenced: u64,
    bad: Vec<(u64, Error)>,
}

impl Found {
    fn pair(&mut self, pair: (u32, u32)) {
        match &mut self.last_pair {
            Some((last, count)) if *last == pair => *count += 1,
            last => {
                if let Some((done, count)) = last.replace((pair, 1)) {
                    *self.pairs.entry(done).or_default() += count;
                }
            }
        }
    }

    fn claim_all(&mut self, owners: &Owners, leaf: &Node<'_>, group: u32) {
        let mut first_claims = 0;
        for mapping in leaf.values::<PackedMapping>() {
            match owners.claim(mapping.block().0, group) {
                Claim::Outside => {}
                Claim::First => first_claims += 1,
                Claim::Second(first) => {
                    *self.own.entry(first).or_default() -= 1;
                    self.pair((first, group));
                }
                Claim::Later(first) => self.pair((first, group)),
            }
        }
        self.referenced += first_claims;
        *self.own.entry(group).or_default() += first_claims as i64;
    }
}

/// Surveys the volumes with these roots, on a data device of `data_blocks` blocks. `look` gets to
/// see each window of data blocks when all is known about it, with the groups that its claimants are.
///
/// Memory: as for [`Forest`] and [`Groups`], at most 1 GiB for data blocks, 80 bytes for each node.
pub fn survey(
    store: &dyn Store,
    roots: &[u64],
    data_blocks: u64,
    counter: &Counter,
    look: &mut dyn FnMut(u64, u64, &Owners, &Groups),
) -> Survey {
    let threads = metadata::threads();
    let forest = Forest::read(store, roots, threads);
    let groups = forest.groups();
    let data_blocks = data_blocks.min(metadata::most_data_blocks(store));
    let passes = data_blocks.div_ceil(PER_PASS).max(1);
    counter.set_total(passes.saturating_mul(forest.leaves() as u64));

    let mut bad: Vec<(u64, Error)> = forest
        .bad()
        .map(|(block, error)| (block, error.clone()))
        .collect();
    let mut parts = vec![Part::default(); forest.leaves()];
    let mut survey = Survey {
        spaces: vec![Space::default(); roots.len()],
        shared: HashMap::new(),
        referenced: 0,
        shared_blocks: 0,
        inner_nodes: (forest.len() - forest.leaves()) as u64,
        leaves: forest.leaves() as u64,
        entries: 0,
        bad: Vec::new(),
    };
    let mut pairs: HashMap<(u32, u32), u64> = HashMap::new();
    let mut own: HashMap<u32, i64> = HashMap::new();
    for pass in 0..passes {
        let begin = pass * PER_PASS;
        let end = data_blocks.min(begin.saturating_add(PER_PASS));
        let owners = Owners::new(begin, end);
        let of_threads =
            forest.visit_leaves(store, threads, Found::default, |found, leaf, node| {
                counter.advance(1);
                match node {
                    Ok(node) => {
                        let group = groups.of(leaf);
                        found.claim_all(&owners, &node, group);
                        if pass == 0 {
                            found.entries += node.len() as u64;
                            found.parts.push((forest.leaf_index(leaf), Part::of(&node)));
                        }
                    }
                    Err(error) => {
                        found.parts.push((forest.leaf_index(leaf), Part::bad()));
                        found.bad.push((error.block_number().unwrap_or(0), error));
                    }
                }
            });
        for found in of_threads {
            let last = found.last_pair.into_iter();
            for (pair, count) in found.pairs.into_iter().chain(last) {
                *pairs.entry(pair).or_default() += count;
            }
            for (group, count) in found.own {
                *own.entry(group).or_default() += count;
            }
            survey.entries += found.entries;
            survey.referenced += found.referenced;
            for (leaf, part) in found.parts {
                parts[leaf] = part;
            }
            if pass == 0 {
                bad.extend(found.bad);
            }
        }
        look(begin, end, &owners, &groups);
    }

    let exclusive: i64 = (0..roots.len() as u32)
        .filter_map(|device| own.get(&device))
        .sum();
    survey.shared_blocks = survey
        .referenced
        .saturating_sub(u64::try_from(exclusive).unwrap_or(0));
    // What is referred to by one leaf that a group shares, its members have in common.
    for (&group, &count) in &own {
        survey.add_shared(groups.members(group), u64::try_from(count).unwrap_or(0));
    }
    for ((first, second), count) in pairs {
        let mut members = groups.members(first).to_vec();
        members.extend_from_slice(groups.members(second));
        members.sort_unstable();
        members.dedup();
        survey.add_shared(&members, count);
    }

    let sums = forest.sum_up(&mut parts, &Part::bad(), Part::join);
    for (device, space) in survey.spaces.iter_mut().enumerate() {
        let lost = Part::bad();
        let part = forest
            .root(device)
            .map_or(&lost, |root| &sums[root.index()]);
        let own = own.get(&(device as u32)).copied().unwrap_or(0);
        *space = Space {
            mapped: part.mapped,
            own: u64::try_from(own).unwrap_or(0),
            runs: part.runs,
            lost_nodes: part.lost_nodes,
        };
    }
    bad.sort_by_key(|(block, _)| *block);
    survey.bad = bad;
    survey
}

impl Survey {
    /// Of a large group, neighbours only: it is enough to see who belongs together.
    const LARGE: usize = 64;

    fn add_shared(&mut self, members: &[u32], count: u64) {
        if count == 0 {
            return;
        }
        for (at, &one) in members.iter().enumerate() {
            let others = if members.len() > Self::LARGE {
                1
            } else {
                members.len()
            };
            for &other in members.iter().skip(at + 1).take(others) {
                let shared = self.shared.entry((one, other)).or_default();
                *shared = shared.saturating_add(count);
            }
        }
    }

    /// How many blocks two volumes have in common, as far as it was seen.
    pub fn shared_by(&self, one: u32, other: u32) -> u64 {
        let pair = (one.min(other), one.max(other));
        self.shared.get(&pair).copied().unwrap_or(0)
    }
}
