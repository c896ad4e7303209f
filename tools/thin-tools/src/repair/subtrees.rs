// SPDX-License-Identifier: GPL-2.0

//! What of each internal node can be used: children that are whole and where they belong.

use std::collections::HashMap;
use std::collections::HashSet;

use super::scan::Scan;
use super::scan::MAPPINGS;
use crate::trees::BlockNumber;
use crate::trees::Child;

/// Deeper than any tree: 64-bit keys, at least two children.
const MAX_DEPTH: usize = 64;

/// At most so many nodes are made without their edges: more are not damage but mockery.
const MOST_TRIMMED: u64 = 1 << 16;

/// What is known about everything below a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Below {
    /// Size of the leaves' values.
    pub value_size: u8,
    /// Distance from the leaves; 0 for a leaf.
    pub height: u8,
    /// First and last key, if there are entries.
    pub keys: Option<(u64, u64)>,
    /// Entries of all leaves.
    pub entries: u64,
    /// The latest time of mappings.
    pub max_time: u32,
    /// The last data block of mappings.
    pub max_data: u64,
    /// Nodes that cannot be used.
    pub bad: u64,
}

/// A child that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostChild {
    /// Its block.
    pub block: u64,
    /// The least key that was below.
    pub begin: u64,
    /// All keys below were less. `None`: where the parent ends.
    pub end: Option<u64>,
}

/// An internal node without the children that cannot be used.
#[derive(Clone, Debug, Default)]
pub struct Subtree {
    /// Everything below.
    pub below: Below,
    /// Usable children.
    pub children: Box<[Child]>,
    /// The other ones.
    pub lost: Box<[LostChild]>,
}

/// All internal nodes, as far as they can be used.
pub struct Subtrees<'a> {
    scan: &'a Scan,
    /// Data blocks that there are: leaves that map others are damaged.
    data_blocks: u64,
    known: HashMap<BlockNumber, Option<Subtree>>,
    /// Where the next node is put that is another one without some leaves at its edge.
    next_trimmed: BlockNumber,
}

impl<'a> Subtrees<'a> {
    /// Looks at all internal nodes that `scan` found.
    pub fn new(scan: &'a Scan, data_blocks: u64) -> Subtrees<'a> {
        let next_trimmed = BlockNumber::try_from(scan.blocks()).unwrap_or(BlockNumber::MAX);
        let mut subtrees = Subtrees {
            scan,
            data_blocks,
            known: HashMap::new(),
            next_trimmed,
        };
        let mut path = HashSet::new();
        let mut blocks: Vec<BlockNumber> = scan.internals.keys().copied().collect();
        blocks.sort_unstable();
        for block in blocks {
            subtrees.find(block, &mut path);
        }
        subtrees
    }

    /// One more than the largest number of a node, those included that are on no disk.
    pub fn end(&self) -> BlockNumber {
        self.next_trimmed
    }

    /// The internal node at `block`.
    pub fn internal(&self, block: BlockNumber) -> Option<&Subtree> {
        self.known.get(&block)?.as_ref()
    }

    /// All internal nodes that can be used.
    pub fn internals(&self) -> impl Iterator<Item = (BlockNumber, &Subtree)> {
        self.known
            .iter()
            .filter_map(|(block, subtree)| Some((*block, subtree.as_ref()?)))
    }

    /// What is below the node at `block`, if that can be used.
    pub fn below(&self, block: BlockNumber) -> Option<Below> {
        if let Some(known) = self.known.get(&block) {
            return known.as_ref().map(|subtree| subtree.below);
        }
        let leaf = self.scan.leaf(block)?;
        if leaf.value_size == MAPPINGS
            && leaf.entries > 0
            && leaf.max_data >= self.data_blocks.max(1)
        {
            return None;
        }
        Some(Below {
            value_size: leaf.value_size,
            height: 0,
            keys: (leaf.entries > 0).then_some((leaf.first, leaf.last)),
            entries: leaf.entries.into(),
            max_time: leaf.max_time,
            max_data: leaf.max_data,
            bad: 0,
        })
    }

    fn find(&mut self, block: BlockNumber, path: &mut HashSet<BlockNumber>) -> Option<Below> {
        let Some(children) = self.scan.internals.get(&block) else {
            return self.below(block);
        };
        if self.known.contains_key(&block) {
            return self.below(block);
        }
        if path.len() >= MAX_DEPTH || !path.insert(block) {
            return None;
        }
        let found: Vec<Option<Below>> = children
            .iter()
            .map(|child| self.find(child.block, path))
            .collect();
        path.remove(&block);
        let subtree = self.subtree(children, &found);
        let below = subtree.as_ref().map(|subtree| subtree.below);
        self.known.insert(block, subtree);
        below
    }

    /// Siblings are of one sort and have keys in their own part of the range: the others are lost.
    fn subtree(&mut self, children: &[Child], found: &[Option<Below>]) -> Option<Subtree> {
        let sort = most_common(found)?;
        let mut usable = Vec::new();
        let mut lost = Vec::new();
        let mut whole = Below {
            value_size: sort.0,
            height: sort.1.checked_add(1)?,
            ..Below::default()
        };
        let ends = children
            .iter()
            .skip(1)
            .map(|child| Some(child.key))
            .chain([None]);
        for ((child, below), end) in children.iter().zip(found).zip(ends) {
            let fitting = below.filter(|below| (below.value_size, below.height) == sort);
            let fitting = fitting.and_then(|below| match is_within(&below, child.key, end) {
                true => Some((child.block, below)),
                false => self.trimmed(child.block, child.key, end),
            });
            let Some((block, below)) = fitting else {
                lost.push(LostChild {
                    block: child.block.into(),
                    begin: child.key,
                    end,
                });
                whole.bad += 1;
                continue;
            };
            usable.push(Child {
                key: child.key,
                block,
            });
            whole.keys = match (whole.keys, below.keys) {
                (Some((first, _)), Some((_, last))) => Some((first, last)),
                (keys, None) => keys,
                (None, keys) => keys,
            };
            whole.entries = whole.entries.saturating_add(below.entries);
            whole.max_time = whole.max_time.max(below.max_time);
            whole.max_data = whole.max_data.max(below.max_data);
            whole.bad = whole.bad.saturating_add(below.bad);
        }
        (!usable.is_empty()).then(|| Subtree {
            below: whole,
            children: usable.into(),
            lost: lost.into(),
        })
    }

    /// The node at `block` without the nodes at its edges that have keys outside of a range; a new node, as others
    /// may use the old one for another range.
    fn trimmed(
        &mut self,
        block: BlockNumber,
        begin: u64,
        end: Option<u64>,
    ) -> Option<(BlockNumber, Below)> {
        if u64::from(self.next_trimmed).saturating_sub(self.scan.blocks()) >= MOST_TRIMMED {
            return None;
        }
        let subtree = self.internal(block)?;
        let lost_before = subtree.lost.clone();
        let mut children: Vec<Child> = subtree.children.to_vec();
        let before = children
            .iter()
            .skip(1)
            .take_while(|child| child.key <= begin);
        let before = before.count();
        children.drain(..before);
        if let Some(first) = children.first_mut() {
            first.key = first.key.max(begin);
        }
        children.retain(|child| end.is_none_or(|end| child.key < end));
        let mut found: Vec<Option<Below>> = children
            .iter()
            .map(|child| self.below(child.block))
            .collect();
        // Something without entries behind them says where the last one ends.
        let nothing = BlockNumber::MAX;
        if let Some(end) = end {
            children.push(Child {
                key: end,
                block: nothing,
            });
            found.push(None);
        }
        let mut trimmed = self.subtree(&children, &found)?;
        let lost = trimmed
            .lost
            .iter()
            .filter(|lost| lost.block != u64::from(nothing));
        trimmed.lost = lost_before.iter().chain(lost).copied().collect();
        let below_children = trimmed
            .children
            .iter()
            .filter_map(|child| self.below(child.block));
        let bad_below = below_children.fold(0, |sum: u64, below| sum.saturating_add(below.bad));
        trimmed.below.bad = bad_below.saturating_add(trimmed.lost.len() as u64);
        let below = trimmed.below;
        self.add(trimmed).map(|number| (number, below))
    }

    /// A new node above `parts`, which are whole trees of mappings in order of keys; they may be of different heights.
    pub fn join(&mut self, parts: Vec<Child>) -> Option<(BlockNumber, Below)> {
        let mut whole = Below {
            value_size: MAPPINGS,
            ..Below::default()
        };
        for part in &parts {
            let below = self.below(part.block)?;
            let (first, last) = below.keys?;
            if whole.keys.is_some_and(|(_, before)| before >= first) {
                return None;
            }
            whole.keys = Some((whole.keys.map_or(first, |(first, _)| first), last));
            whole.height = whole.height.max(below.height.checked_add(1)?);
            whole.entries = whole.entries.saturating_add(below.entries);
            whole.max_time = whole.max_time.max(below.max_time);
            whole.max_data = whole.max_data.max(below.max_data);
        }
        let subtree = Subtree {
            below: whole,
            children: parts.into(),
            lost: Box::default(),
        };
        self.add(subtree).map(|number| (number, whole))
    }

    /// Gives a node that is on no disk a number.
    fn add(&mut self, subtree: Subtree) -> Option<BlockNumber> {
        let number = self.next_trimmed;
        self.next_trimmed = number
            .checked_add(1)
            .filter(|next| *next != BlockNumber::MAX)?;
        self.known.insert(number, Some(subtree));
        Some(number)
    }

    /// Everything that is lost below `root`, as ranges of keys; `end` is where the tree ends.
    pub fn lost(&self, root: BlockNumber, end: Option<u64>, into: &mut Vec<LostChild>) {
        let Some(subtree) = self.internal(root).filter(|subtree| subtree.below.bad > 0) else {
            return;
        };
        let resolved = |lost: &LostChild| LostChild {
            end: lost.end.or(end),
            ..*lost
        };
        into.extend(subtree.lost.iter().map(resolved));
        for (index, child) in subtree.children.iter().enumerate() {
            let next = subtree.children.get(index + 1).map(|next| next.key);
            self.lost(child.block, next.or(end), into);
        }
    }
}

fn is_within(below: &Below, begin: u64, end: Option<u64>) -> bool {
    below
        .keys
        .is_none_or(|(first, last)| first >= begin && end.is_none_or(|end| last < end))
}

/// Value size and height that most of the children have.
fn most_common(found: &[Option<Below>]) -> Option<(u8, u8)> {
    let mut sorts: Vec<((u8, u8), usize)> = Vec::new();
    for below in found.iter().flatten() {
        let sort = (below.value_size, below.height);
        match sorts.iter_mut().find(|(other, _)| *other == sort) {
            Some((_, count)) => *count += 1,
            None => sorts.push((sort, 1)),
        }
    }
    sorts
        .iter()
        .rev()
        .max_by_key(|(_, count)| *count)
        .map(|(sort, _)| *sort)
}
