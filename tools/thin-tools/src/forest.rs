// SPDX-License-Identifier: GPL-2.0

//! The mapping trees of several devices as the one graph they are: snapshots share nodes.
//!
//! Inner nodes are read first, each once, level by level from the top. What remains are the leaves,
//! each with who owns it, to be read in order of location by as many threads as there are.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use thin_format::block::BlockBytes;
use thin_format::btree::Node;
use thin_format::io;
use thin_format::io::Store;
use thin_format::records::PackedMapping;
use thin_format::records::MAX_METADATA_BLOCKS;
use thin_format::Error;

/// The owner of a node that is not part of any tree, or of more than one, or of one more than once.
pub const SHARED: u32 = u32::MAX;

/// No node.
const NONE: u32 = u32::MAX;

/// Deeper trees than 64 bits of keys can need are not followed.
const MOST_LEVELS: u32 = 64;

/// A node, by its place in the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    /// As an index: below [`Forest::len`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

struct Place {
    block: u32,
    owner: u32,
    first_child: u32,
    children: u32,
}

/// The graph. Devices are named by their place among the roots it was made from.
///
/// Memory: 4 bytes for each block of metadata, 24 for each node, 4 for each child of an inner node.
pub struct Forest {
    nodes: Vec<Place>,
    edges: Vec<u32>,
    roots: Vec<u32>,
    leaves: Range<usize>,
    bad: HashMap<u32, Error>,
}

impl Forest {
    /// Reads the inner nodes below `roots`, the roots of the devices' mapping trees.
    ///
    /// Nodes that cannot be used are remembered, not reported: see [`Forest::lost`].
    pub fn read(store: &dyn Store, roots: &[u64], threads: usize) -> Self {
        let limit = store.blocks().min(MAX_METADATA_BLOCKS);
        let mut growing = Growing {
            store,
            threads,
            place_of: vec![NONE; usize::try_from(limit).unwrap_or(0)],
            forest: Self {
                nodes: Vec::new(),
                edges: Vec::new(),
                roots: vec![NONE; roots.len()],
                leaves: 0..0,
                bad: HashMap::new(),
            },
        };
        growing.grow(roots);
        growing.forest
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many leaves there are.
    pub fn leaves(&self) -> usize {
        self.leaves.len()
    }

    /// The device that alone has this node, or [`SHARED`].
    pub fn owner(&self, node: NodeId) -> u32 {
        self.nodes
            .get(node.index())
            .map_or(SHARED, |place| place.owner)
    }

    /// The root of a device's tree; none if it lies outside of the metadata.
    pub fn root(&self, device: usize) -> Option<NodeId> {
        self.roots
            .get(device)
            .filter(|&&node| node != NONE)
            .map(|&node| NodeId(node))
    }

    /// The children of a node, in order of keys. Those outside of the metadata are left out.
    pub fn children(&self, node: NodeId) -> impl DoubleEndedIterator<Item = NodeId> + '_ {
        let edges = self.nodes.get(node.index()).and_then(|place| {
            let first = place.first_child as usize;
            self.edges.get(first..first + place.children as usize)
        });
        edges
            .unwrap_or_default()
            .iter()
            .filter(|&&child| child != NONE)
            .map(|&child| NodeId(child))
    }

    /// How many children of a node lie outside of the metadata.
    fn outside(&self, node: NodeId) -> u64 {
        let children = self
            .nodes
            .get(node.index())
            .map_or(0, |place| u64::from(place.children));
        children - self.children(node).count() as u64
    }

    /// The inner nodes that cannot be used: their blocks, and why.
    pub fn bad(&self) -> impl Iterator<Item = (u64, &Error)> {
        self.bad.iter().filter_map(|(node, error)| {
            Some((u64::from(self.nodes.get(*node as usize)?.block), error))
        })
    }

    /// Reads every leaf once. `visit` gets the thread's state, the leaf, and its node or why there is none.
    pub fn visit_leaves<S, M, V>(
        &self,
        store: &dyn Store,
        threads: usize,
        start: M,
        visit: V,
    ) -> Vec<S>
    where
        S: Send,
        M: Fn() -> S + Sync,
        V: Fn(&mut S, NodeId, Result<Node<'_>, Error>) + Sync,
    {
        let leaves = self.nodes.get(self.leaves.clone()).unwrap_or_default();
        let blocks: Vec<u32> = leaves.iter().map(|place| place.block).collect();
        let first = self.leaves.start as u32;
        io::read_blocks(store, &blocks, threads, start, |state, block, bytes| {
            let Ok(at) = blocks.binary_search_by_key(&block, |&other| u64::from(other)) else {
                return;
            };
            visit(state, NodeId(first + at as u32), leaf(block, bytes));
        })
    }

    /// For each node, what `of_leaf` has for the leaves at and below it, put together by `join` in
    /// order of keys. `bad_node` stands for each inner node that cannot be used.
    pub fn sum_up<T: Clone + Default>(
        &self,
        of_leaf: &mut [T],
        bad_node: &T,
        join: impl Fn(&mut T, &T),
    ) -> Vec<T> {
        let mut sums: Vec<T> = vec![T::default(); self.nodes.len()];
        for (sum, of_leaf) in sums.iter_mut().skip(self.leaves.start).zip(of_leaf) {
            *sum = std::mem::take(of_leaf);
        }
        // Children come after their parents.
        for at in (0..self.leaves.start).rev() {
            let node = NodeId(at as u32);
            let mut sum = T::default();
            for child in self.children(node) {
                join(&mut sum, &sums[child.index()]);
            }
            for _ in 0..self.outside(node) {
                join(&mut sum, bad_node);
            }
            if self.bad.contains_key(&node.0) {
                join(&mut sum, bad_node);
            }
            sums[at] = sum;
        }
        sums
    }

    /// For each node, which devices have it: see [`Groups`].
    pub fn groups(&self) -> Groups {
        let mut groups = Groups {
            of_node: vec![Groups::UNKNOWN; self.nodes.len()],
            members: (0..self.roots.len() as u32)
                .map(|device| vec![device].into())
                .collect(),
        };
        let mut known: HashMap<Arc<[u32]>, u32> = HashMap::new();
        let mut remembered = 0usize;
        let mut of_root: HashMap<u32, Vec<u32>> = HashMap::new();
        for (device, &root) in (0..).zip(&self.roots) {
            of_root.entry(root).or_default().push(device);
        }
        let parents = self.parents();
        for at in 0..self.nodes.len() {
            let node = NodeId(at as u32);
            let owner = self.owner(node);
            if owner != SHARED {
                groups.of_node[at] = owner;
                continue;
            }
            let roots = of_root.get(&node.0).map_or(&[][..], Vec::as_slice);
            let mut above: Vec<u32> = parents
                .of(node)
                .map(|parent| groups.of_node[parent.index()])
                .collect();
            above.sort_unstable();
            above.dedup();
            if let (&[one], true) = (&above[..], roots.is_empty()) {
                groups.of_node[at] = one;
                continue;
            }
            if above.contains(&Groups::UNKNOWN) {
                continue;
            }
            let mut members: Vec<u32> = roots.to_vec();
            for group in above {
                members.extend_from_slice(groups.members(group));
            }
            members.sort_unstable();
            members.dedup();
            if let Some(&group) = known.get(&members[..]) {
                groups.of_node[at] = group;
            } else if remembered + members.len() <= Groups::MOST_MEMBERS {
                remembered += members.len();
                let group = groups.members.len() as u32;
                let members: Arc<[u32]> = members.into();
                groups.members.push(Arc::clone(&members));
                known.insert(members, group);
                groups.of_node[at] = group;
            }
        }
        groups
    }

    /// A leaf's place among the leaves.
    pub fn leaf_index(&self, leaf: NodeId) -> usize {
        leaf.index().saturating_sub(self.leaves.start)
    }

    /// For each node, its parents. Memory: 4 bytes for each child of an inner node, and for each node.
    pub fn parents(&self) -> Parents {
        let mut first = vec![0u32; self.nodes.len() + 1];
        for &child in self.edges.iter().filter(|&&child| child != NONE) {
            first[child as usize + 1] += 1;
        }
        for at in 1..first.len() {
            first[at] += first[at - 1];
        }
        let mut next = first.clone();
        let mut parents = vec![0; first.last().map_or(0, |&last| last as usize)];
        for at in 0..self.nodes.len() {
            for child in self.children(NodeId(at as u32)) {
                let place = &mut next[child.index()];
                parents[*place as usize] = at as u32;
                *place += 1;
            }
        }
        Parents { first, parents }
    }
}

/// Sets of devices that have nodes in common. Those of a single device come first, by its number.
///
/// Memory: 4 bytes for each node, and at most [`Groups::MOST_MEMBERS`] members of 4 bytes in all.
pub struct Groups {
    of_node: Vec<u32>,
    members: Vec<Arc<[u32]>>,
}

impl Groups {
    /// The group of nodes whose devices are too many to remember.
    pub const UNKNOWN: u32 = crate::owners::MOST_CLAIMANTS;
    /// How many members all groups of more than one device can have together.
    pub const MOST_MEMBERS: usize = 1 << 24;

    /// The group that has a node.
    pub fn of(&self, node: NodeId) -> u32 {
        self.of_node
            .get(node.index())
            .copied()
            .unwrap_or(Self::UNKNOWN)
    }

    /// The devices of a group, in order.
    pub fn members(&self, group: u32) -> &[u32] {
        self.members
            .get(group as usize)
            .map_or(&[], |members| members)
    }
}

/// The way from nodes up.
pub struct Parents {
    first: Vec<u32>,
    parents: Vec<u32>,
}

impl Parents {
    /// The parents of a node; one that has it twice comes twice.
    pub fn of(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let from = self.first.get(node.index()).map_or(0, |&at| at as usize);
        let to = self
            .first
            .get(node.index() + 1)
            .map_or(from, |&at| at as usize);
        self.parents
            .get(from..to)
            .unwrap_or_default()
            .iter()
            .map(|&parent| NodeId(parent))
    }
}

/// A leaf of a mapping tree, verified.
fn leaf(block: u64, bytes: Result<&BlockBytes, Error>) -> Result<Node<'_>, Error> {
    let node = Node::verify(block, bytes?, PackedMapping::BYTES as u32)?;
    if node.is_leaf() {
        return Ok(node);
    }
    Err(uneven(block))
}

/// An inner node where the other leaves are, or the other way round.
fn uneven(block: u64) -> Error {
    Error::block(
        block,
        thin_format::block::BlockKind::Node,
        thin_format::Fault::Unbalanced,
    )
}

/// What reading an inner node gave.
enum Found {
    Children(Vec<u64>),
    Leaf,
    Bad(Error),
}

fn found(block: u64, bytes: Result<&BlockBytes, Error>) -> Found {
    let verified = bytes.and_then(|bytes| {
        let node = Node::verify(block, bytes, PackedMapping::BYTES as u32)?;
        Ok(if node.is_leaf() {
            Found::Leaf
        } else {
            Found::Children(node.values::<u64>().collect())
        })
    });
    verified.unwrap_or_else(Found::Bad)
}

struct Growing<'a> {
    store: &'a dyn Store,
    threads: usize,
    /// For each block of metadata, the node that is there.
    place_of: Vec<u32>,
    forest: Forest,
}

impl Growing<'_> {
    fn grow(&mut self, roots: &[u64]) {
        let heights = self.heights(roots);
        let top = heights.iter().copied().max().unwrap_or(0);
        // Blocks of the level that comes next, with their owners.
        let mut level: Vec<(u64, u32)> = Vec::new();
        // Where the blocks of the next level are children: to be filled in when they have a place.
        let mut edges: Vec<(usize, u64)> = Vec::new();
        for height in (0..=top).rev() {
            let here = (0u32..)
                .zip(&heights)
                .filter(|(_, h)| **h == height)
                .map(|(at, _)| at);
            let here: Vec<u32> = here.collect();
            level.extend(here.iter().map(|&at| (roots[at as usize], at)));
            let first = self.place(&mut level);
            for &at in &here {
                self.forest.roots[at as usize] = self.node_at(roots[at as usize]);
            }
            for (edge, block) in edges.drain(..) {
                self.forest.edges[edge] = self.node_at(block);
            }
            if height == 0 {
                self.forest.leaves = first..self.forest.nodes.len();
                return;
            }
            self.read_level(first, &mut level, &mut edges);
        }
    }

    /// Gives every block of `level` that has none a place, in order of location; empties `level`.
    /// Returns the first place given.
    fn place(&mut self, level: &mut Vec<(u64, u32)>) -> usize {
        let first = self.forest.nodes.len();
        level.sort_unstable();
        for (block, owner) in level.drain(..) {
            let Some(place) = usize::try_from(block)
                .ok()
                .and_then(|block| self.place_of.get_mut(block))
            else {
                continue;
            };
            match self.forest.nodes.get_mut(*place as usize) {
                Some(node) => node.owner = SHARED,
                None => {
                    *place = self.forest.nodes.len() as u32;
                    self.forest.nodes.push(Place {
                        block: block as u32,
                        owner,
                        first_child: 0,
                        children: 0,
                    });
                }
            }
        }
        first
    }

    fn node_at(&self, block: u64) -> u32 {
        let place = usize::try_from(block)
            .ok()
            .and_then(|block| self.place_of.get(block));
        place.copied().unwrap_or(NONE)
    }

    /// Reads the inner nodes from place `first` on; their children are the next level.
    fn read_level(
        &mut self,
        first: usize,
        level: &mut Vec<(u64, u32)>,
        edges: &mut Vec<(usize, u64)>,
    ) {
        let blocks: Vec<u32> = self.forest.nodes[first..]
            .iter()
            .map(|node| node.block)
            .collect();
        for (block, what) in self.read(&blocks) {
            let at = self.node_at(block) as usize;
            match what {
                Found::Children(children) => {
                    let first_child = self.forest.edges.len();
                    let Some(node) = self.forest.nodes.get_mut(at) else {
                        continue;
                    };
                    node.first_child = first_child as u32;
                    node.children = children.len() as u32;
                    let owner = node.owner;
                    for (edge, child) in (first_child..).zip(children) {
                        self.forest.edges.push(NONE);
                        // A child that is above already is no child of a tree.
                        if self.node_at(child) == NONE {
                            level.push((child, owner));
                            edges.push((edge, child));
                        }
                    }
                }
                Found::Leaf => {
                    self.forest.bad.insert(at as u32, uneven(block));
                }
                Found::Bad(error) => {
                    self.forest.bad.insert(at as u32, error);
                }
            }
        }
    }

    fn read(&self, blocks: &[u32]) -> Vec<(u64, Found)> {
        let of_threads = io::read_blocks(
            self.store,
            blocks,
            self.threads,
            Vec::new,
            |all, block, bytes| {
                all.push((block, found(block, bytes)));
            },
        );
        let mut all: Vec<_> = of_threads.into_iter().flatten().collect();
        all.sort_unstable_by_key(|(block, _)| *block);
        all
    }

    /// How many levels there are below each root: as many as on the left edge of its tree, or on
    /// the right one if that is cut off by a bad node and shorter.
    fn heights(&self, roots: &[u64]) -> Vec<u32> {
        let left = self.edge_lengths(roots, |children| children.first().copied());
        if left.iter().all(|(_, whole)| *whole) {
            return left.into_iter().map(|(length, _)| length).collect();
        }
        let right = self.edge_lengths(roots, |children| children.last().copied());
        left.into_iter()
            .zip(right)
            .map(|(left, right)| match (left.1, right.1) {
                (true, _) => left.0,
                (false, true) => right.0,
                (false, false) => left.0.max(right.0),
            })
            .collect()
    }

    /// Follows one edge of every tree, all trees at a time: how many levels until a leaf, and whether
    /// a leaf was reached.
    fn edge_lengths(
        &self,
        roots: &[u64],
        next: impl Fn(&[u64]) -> Option<u64>,
    ) -> Vec<(u32, bool)> {
        let mut lengths = vec![(0, false); roots.len()];
        let mut at: Vec<(usize, u64)> = roots.iter().copied().enumerate().collect();
        for level in 0..MOST_LEVELS {
            at.retain(|(_, block)| *block < self.place_of.len() as u64);
            if at.is_empty() {
                break;
            }
            let mut blocks: Vec<u32> = at.iter().map(|(_, block)| *block as u32).collect();
            blocks.sort_unstable();
            blocks.dedup();
            let nodes: HashMap<u64, Found> = self.read(&blocks).into_iter().collect();
            at.retain_mut(|(root, block)| {
                lengths[*root] = (level, false);
                match nodes.get(block) {
                    Some(Found::Children(children)) => match next(children) {
                        Some(child) => {
                            *block = child;
                            true
                        }
                        None => false,
                    },
                    Some(Found::Leaf) => {
                        lengths[*root] = (level, true);
                        false
                    }
                    Some(Found::Bad(_)) | None => false,
                }
            });
        }
        lengths
    }
}
