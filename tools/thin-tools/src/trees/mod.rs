// SPDX-License-Identifier: GPL-2.0

//! The trees of mappings of many devices at once, each node known once however many devices share it.
//!
//! Only internal nodes are kept: what leaves hold is read when it is needed, see [`emit`].

pub mod emit;
pub mod load;
pub mod sharing;

use std::collections::HashMap;

use thin_format::error::Error;
use thin_format::records::DeviceDetails;

/// A metadata block by number. There are fewer than 2^22 of them.
pub type BlockNumber = u32;

/// A child of an internal node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// The least key that may be below.
    pub key: u64,
    /// The child's block.
    pub block: BlockNumber,
}

/// An internal node.
#[derive(Clone, Debug)]
pub struct Internal {
    /// Its usable children, in order of keys.
    pub children: Box<[Child]>,
    /// How far above the leaves it is: 1 if its children are leaves.
    pub height: u8,
}

/// A device and its tree.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    /// The device.
    pub device: u64,
    /// What is known about it.
    pub details: DeviceDetails,
    /// The root of its mappings; `None` if nothing of them is left.
    pub root: Option<BlockNumber>,
}

/// A node that cannot be used.
#[derive(Clone, Debug)]
pub struct BadNode {
    /// The node's block.
    pub block: u64,
    /// Why.
    pub why: Error,
}

/// The internal nodes of trees.
///
/// # Invariants
///
/// A child of a node of height h > 1 is in `internals` with height h - 1; so there are no loops. Children of height 1 are
/// not in it.
#[derive(Default)]
pub struct Forest {
    internals: HashMap<BlockNumber, Internal>,
    /// Blocks that the metadata have.
    nr_blocks: usize,
}

impl Forest {
    /// A forest of these nodes. All numbers of nodes are below `end`.
    pub fn from_parts(internals: HashMap<BlockNumber, Internal>, end: usize) -> Forest {
        Forest {
            internals,
            nr_blocks: end,
        }
    }

    /// The internal node at `block`; `None` if that is a leaf.
    pub fn internal(&self, block: BlockNumber) -> Option<&Internal> {
        self.internals.get(&block)
    }

    /// How many internal nodes there are.
    pub fn len(&self) -> usize {
        self.internals.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.internals.is_empty()
    }

    /// The leaves below `root`, in order of keys.
    pub fn leaves(&self, root: BlockNumber) -> Leaves<'_> {
        let mut leaves = Leaves {
            forest: self,
            path: Vec::new(),
            only: None,
        };
        leaves.descend(Child {
            key: 0,
            block: root,
        });
        leaves
    }

    /// How many leaves are below `roots`, each counted once.
    pub fn leaf_count(&self, roots: &[BlockNumber]) -> u64 {
        let lowest = self.internals.values().filter(|node| node.height == 1);
        let below = lowest.map(|node| node.children.len() as u64).sum::<u64>();
        below.saturating_add(
            roots
                .iter()
                .filter(|root| self.internal(**root).is_none())
                .count() as u64,
        )
    }
}

/// See [`Forest::leaves`].
pub struct Leaves<'a> {
    forest: &'a Forest,
    path: Vec<std::slice::Iter<'a, Child>>,
    /// A leaf that is the whole tree.
    only: Option<Child>,
}

impl Leaves<'_> {
    fn descend(&mut self, child: Child) {
        match self.forest.internal(child.block) {
            Some(internal) => self.path.push(internal.children.iter()),
            None => self.only = Some(child),
        }
    }
}

impl Iterator for Leaves<'_> {
    type Item = BlockNumber;

    fn next(&mut self) -> Option<BlockNumber> {
        loop {
            if let Some(leaf) = self.only.take() {
                return Some(leaf.block);
            }
            let level = self.path.last_mut()?;
            match level.next().copied() {
                Some(child) => self.descend(child),
                None => {
                    self.path.pop();
                }
            }
        }
    }
}
