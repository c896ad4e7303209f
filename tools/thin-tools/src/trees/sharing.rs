// SPDX-License-Identifier: GPL-2.0

//! Which leaves devices share, and the longest sequences of leaves that all who share them have in common.

use std::collections::HashMap;

use super::BlockNumber;
use super::Forest;

/// No leaf.
const NONE: BlockNumber = BlockNumber::MAX;

const IS_SHARED: u8 = 1;
/// Not all who have this leaf have the same shared one before it.
const BEGINS: u8 = 2;
/// Not all who have this leaf have the same shared one behind it.
const ENDS: u8 = 4;

/// The sequences of shared leaves. A sequence is known by its first leaf.
pub struct Sharing {
    flags: Vec<u8>,
    next: Vec<BlockNumber>,
}

impl Sharing {
    /// Nothing is shared.
    pub fn none() -> Sharing {
        Sharing {
            flags: Vec::new(),
            next: Vec::new(),
        }
    }

    /// What the trees at `roots` (one for each device) share.
    ///
    /// Memory: 9 bytes for each metadata block, and some for each internal node.
    pub fn new(forest: &Forest, roots: &[BlockNumber]) -> Sharing {
        let mut finder = Finder::new(forest);
        finder.mark_shared(roots);
        finder.link_neighbours(roots);
        Sharing {
            flags: finder.flags,
            next: finder.next,
        }
    }

    fn has(&self, leaf: BlockNumber, flag: u8) -> bool {
        self.flags
            .get(leaf as usize)
            .is_some_and(|flags| flags & flag != 0)
    }

    /// Whether several devices have the leaf.
    pub fn is_shared(&self, leaf: BlockNumber) -> bool {
        self.has(leaf, IS_SHARED)
    }

    /// Whether the leaf is the first of a sequence.
    pub fn is_first(&self, leaf: BlockNumber) -> bool {
        self.has(leaf, IS_SHARED) && self.has(leaf, BEGINS)
    }

    /// The first leaves of all sequences, ascending.
    pub fn firsts(&self) -> impl Iterator<Item = BlockNumber> + '_ {
        (0..self.flags.len() as BlockNumber).filter(|leaf| self.is_first(*leaf))
    }

    /// The leaves of the sequence that begins with `first`.
    pub fn sequence(&self, first: BlockNumber) -> impl Iterator<Item = BlockNumber> + '_ {
        std::iter::successors(Some(first), |leaf| {
            let next = self
                .next
                .get(*leaf as usize)
                .copied()
                .filter(|next| *next != NONE)?;
            let ends = self.has(*leaf, ENDS) || self.has(next, BEGINS) || !self.is_shared(next);
            (!ends).then_some(next)
        })
    }
}

struct Finder<'a> {
    forest: &'a Forest,
    flags: Vec<u8>,
    next: Vec<BlockNumber>,
    previous: Vec<BlockNumber>,
    /// Internal nodes in use, the lower ones first.
    nodes: Vec<BlockNumber>,
    /// The first and the last leaf below an internal node.
    ends: HashMap<BlockNumber, (BlockNumber, BlockNumber)>,
}

impl<'a> Finder<'a> {
    fn new(forest: &'a Forest) -> Finder<'a> {
        let size = forest.nr_blocks;
        Finder {
            forest,
            flags: vec![0; size],
            next: vec![NONE; size],
            previous: vec![NONE; size],
            nodes: Vec::new(),
            ends: HashMap::new(),
        }
    }

    /// Marks what more than one device, or more than one parent, points to, and everything below.
    fn mark_shared(&mut self, roots: &[BlockNumber]) {
        let mut pointers: Vec<u8> = vec![0; self.flags.len()];
        let mut left: Vec<BlockNumber> = Vec::new();
        let mut point_to = |block: BlockNumber| {
            let Some(count) = pointers.get_mut(block as usize) else {
                return false;
            };
            let is_new = *count == 0;
            *count = count.saturating_add(1);
            is_new
        };
        left.extend(roots.iter().copied().filter(|root| point_to(*root)));
        while let Some(block) = left.pop() {
            let Some(node) = self.forest.internal(block) else {
                continue;
            };
            self.nodes.push(block);
            left.extend(
                node.children
                    .iter()
                    .map(|child| child.block)
                    .filter(|child| point_to(*child)),
            );
        }
        for (flags, pointers) in self.flags.iter_mut().zip(&pointers) {
            if *pointers > 1 {
                *flags |= IS_SHARED;
            }
        }
        let forest = self.forest;
        self.nodes
            .sort_by_key(|block| forest.internal(*block).map(|node| node.height));
        for block in self.nodes.iter().rev() {
            if self
                .flags
                .get(*block as usize)
                .is_none_or(|flags| flags & IS_SHARED == 0)
            {
                continue;
            }
            for child in self
                .forest
                .internal(*block)
                .into_iter()
                .flat_map(|node| node.children.iter())
            {
                if let Some(flags) = self.flags.get_mut(child.block as usize) {
                    *flags |= IS_SHARED;
                }
            }
        }
    }

    /// Finds out which leaves always have the same neighbours. Neighbours are below one node, so it is enough to look
    /// at each node once.
    fn link_neighbours(&mut self, roots: &[BlockNumber]) {
        for block in std::mem::take(&mut self.nodes) {
            let Some(node) = self.forest.internal(block) else {
                continue;
            };
            let mut before = None;
            let mut first = None;
            for child in &node.children {
                let (begin, end) = self.ends_of(child.block);
                if let Some(before) = before {
                    self.link(before, begin);
                }
                first.get_or_insert(begin);
                before = Some(end);
            }
            if let Some(ends) = first.zip(before) {
                self.ends.insert(block, ends);
            }
        }
        for root in roots {
            let (begin, end) = self.ends_of(*root);
            self.mark(begin, BEGINS);
            self.mark(end, ENDS);
        }
        // Where one sequence ends the next begins, also if all who have the leaf behind have the same one before.
        for leaf in 0..self.previous.len() as BlockNumber {
            let previous = self.previous.get(leaf as usize).copied().unwrap_or(NONE);
            if self
                .flags
                .get(previous as usize)
                .is_some_and(|flags| flags & ENDS != 0)
            {
                self.mark(leaf, BEGINS);
            }
        }
    }

    fn ends_of(&self, block: BlockNumber) -> (BlockNumber, BlockNumber) {
        self.ends.get(&block).copied().unwrap_or((block, block))
    }

    fn mark(&mut self, leaf: BlockNumber, flag: u8) {
        if let Some(flags) = self.flags.get_mut(leaf as usize) {
            *flags |= flag;
        }
    }

    fn link(&mut self, before: BlockNumber, behind: BlockNumber) {
        let is_shared = |flags: &[u8], leaf: BlockNumber| {
            flags
                .get(leaf as usize)
                .is_some_and(|flags| flags & IS_SHARED != 0)
        };
        let (shared_before, shared_behind) = (
            is_shared(&self.flags, before),
            is_shared(&self.flags, behind),
        );
        if differs(&mut self.next, before, behind) || !shared_behind {
            self.mark(before, ENDS);
        }
        if differs(&mut self.previous, behind, before) || !shared_before {
            self.mark(behind, BEGINS);
        }
    }
}

/// Notes the neighbour of a leaf; whether it had another one before.
fn differs(neighbours: &mut [BlockNumber], leaf: BlockNumber, neighbour: BlockNumber) -> bool {
    match neighbours.get_mut(leaf as usize) {
        Some(place) if *place == NONE => {
            *place = neighbour;
            false
        }
        Some(place) => *place != neighbour,
        None => true,
    }
}
