// SPDX-License-Identifier: GPL-2.0

//! Reading the internal nodes of trees, level by level, without reading the leaves.

use std::collections::HashMap;
use std::collections::HashSet;

use thin_format::block::BlockBytes;
use thin_format::block::BlockKind;
use thin_format::btree::Node;
use thin_format::btree::Value;
use thin_format::btree::MAX_DEPTH;
use thin_format::error::Error;
use thin_format::error::Fault;
use thin_format::io;
use thin_format::io::Store;

use super::BadNode;
use super::BlockNumber;
use super::Child;
use super::Forest;
use super::Internal;

/// What a node turned out to be.
enum Found {
    Leaf,
    Internal(Box<[Child]>),
    Bad(Error),
}

impl Forest {
    /// Reads the internal nodes of the trees at `roots`. Of the leaves, one in 252 is read.
    ///
    /// Bad nodes are returned, and missing from their parents.
    ///
    /// Memory: 16 bytes for each node.
    pub fn load(store: &dyn Store, roots: impl IntoIterator<Item = u64>) -> (Forest, Vec<BadNode>) {
        let mut nodes: HashMap<BlockNumber, Found> = HashMap::new();
        let mut level: Vec<u64> = roots.into_iter().collect();
        let mut known_leaves: HashSet<BlockNumber> = HashSet::new();
        let mut bad = Vec::new();
        for _ in 0..=MAX_DEPTH {
            level.sort_unstable();
            level.dedup();
            level.retain(|block| number(*block).is_none_or(|block| !nodes.contains_key(&block)));
            if level.is_empty() {
                break;
            }
            let mut parents = Vec::new();
            for (block, found) in read(store, &level) {
                let Some(number) = number(block) else {
                    if let Found::Bad(why) = found {
                        bad.push(BadNode { block, why });
                    }
                    continue;
                };
                if matches!(found, Found::Internal(_)) {
                    parents.push(number);
                }
                nodes.insert(number, found);
            }
            // Siblings are all of the same sort: look at one of them each time.
            let probes: Vec<u64> = parents
                .iter()
                .filter_map(|parent| first_child(&nodes, *parent))
                .collect();
            let mut sorted = probes.clone();
            sorted.sort_unstable();
            sorted.dedup();
            let leaves: HashSet<u64> = read(store, &sorted)
                .filter(|(_, found)| matches!(found, Found::Leaf))
                .map(|(block, _)| block)
                .collect();
            level.clear();
            for parent in parents {
                let Some(Found::Internal(children)) = nodes.get(&parent) else {
                    continue;
                };
                let are_leaves = children
                    .first()
                    .is_some_and(|child| leaves.contains(&child.block.into()));
                if are_leaves {
                    known_leaves.extend(children.iter().map(|child| child.block));
                } else {
                    level.extend(children.iter().map(|child| u64::from(child.block)));
                }
            }
        }
        for block in level {
            bad.push(BadNode {
                block,
                why: Error::block(block, BlockKind::Node, Fault::TooDeep),
            });
        }
        let forest = assemble(store, nodes, &known_leaves, &mut bad);
        (forest, bad)
    }
}

fn number(block: u64) -> Option<BlockNumber> {
    BlockNumber::try_from(block).ok()
}

fn first_child(nodes: &HashMap<BlockNumber, Found>, parent: BlockNumber) -> Option<u64> {
    match nodes.get(&parent) {
        Some(Found::Internal(children)) => children.first().map(|child| child.block.into()),
        _ => None,
    }
}

fn read(store: &dyn Store, blocks: &[u64]) -> impl Iterator<Item = (u64, Found)> {
    let visit = |found: &mut Vec<(u64, Found)>, block, bytes: thin_format::Result<&BlockBytes>| {
        found.push((
            block,
            bytes.map_or_else(Found::Bad, |bytes| classify(block, bytes)),
        ));
    };
    io::read_blocks(store, blocks, io::default_threads(), Vec::new, visit)
        .into_iter()
        .flatten()
}

fn classify(block: u64, bytes: &BlockBytes) -> Found {
    let node = match Node::verify(block, bytes, u64::BYTES) {
        Ok(node) => node,
        Err(error) => return Found::Bad(error),
    };
    if node.is_leaf() {
        return Found::Leaf;
    }
    let mut children = Vec::with_capacity(node.len());
    for (key, child) in node.entries::<u64>() {
        match number(child) {
            Some(block) => children.push(Child { key, block }),
            None => {
                return Found::Bad(Error::block(
                    block,
                    BlockKind::Node,
                    Fault::ChildOutOfRange { child },
                ))
            }
        }
    }
    Found::Internal(children.into())
}

/// A key of a child that does not belong below the child's place. Without such keys no node is below another
/// twice, so what hangs together as a tree is no larger than one.
fn key_outside(forest: &Forest, children: &[Child]) -> Option<u64> {
    let ends = children
        .iter()
        .skip(1)
        .map(|child| Some(child.key))
        .chain([None]);
    children.iter().zip(ends).find_map(|(child, end)| {
        let node = forest.internals.get(&child.block)?;
        let first = node
            .children
            .first()
            .map(|child| child.key)
            .filter(|first| *first < child.key);
        let last = node
            .children
            .last()
            .map(|child| child.key)
            .filter(|last| end.is_some_and(|end| *last >= end));
        first.or(last)
    })
}

/// Heights, from the bottom up; what does not fit together is bad.
fn assemble(
    store: &dyn Store,
    nodes: HashMap<BlockNumber, Found>,
    known_leaves: &HashSet<BlockNumber>,
    bad: &mut Vec<BadNode>,
) -> Forest {
    let mut forest = Forest {
        internals: HashMap::new(),
        nr_blocks: usize::try_from(store.blocks()).unwrap_or(usize::MAX),
    };
    // What the parent takes for a leaf because its siblings are leaves may be known better.
    let is_internal = |block: &BlockNumber| matches!(nodes.get(block), Some(Found::Internal(_)));
    let leaves = known_leaves.iter().filter(|leaf| !is_internal(leaf));
    let mut heights: HashMap<BlockNumber, u8> = leaves.map(|leaf| (*leaf, 0)).collect();
    let mut waiting: Vec<(BlockNumber, Box<[Child]>)> = Vec::new();
    for (block, found) in nodes {
        match found {
            Found::Leaf => {
                heights.insert(block, 0);
            }
            Found::Internal(children) => waiting.push((block, children)),
            Found::Bad(why) => bad.push(BadNode {
                block: block.into(),
                why,
            }),
        }
    }
    // Each round settles at least the lowest level that is left.
    loop {
        let before = waiting.len();
        waiting.retain_mut(|(block, children)| {
            let mut known = children.iter().map(|child| heights.get(&child.block));
            let Some(Some(first)) = known.next() else {
                return true;
            };
            if !known.all(|height| height == Some(first)) {
                return true;
            }
            if let Some(key) = key_outside(&forest, children) {
                let block = u64::from(*block);
                let why = Error::block(block, BlockKind::Node, Fault::KeyRange { key });
                bad.push(BadNode { block, why });
                return false;
            }
            let height = first.saturating_add(1);
            heights.insert(*block, height);
            forest.internals.insert(
                *block,
                Internal {
                    children: std::mem::take(children),
                    height,
                },
            );
            false
        });
        if waiting.len() == before {
            break;
        }
    }
    // Left are nodes above bad ones, or with branches of different lengths, or in a loop.
    let is_bad: HashSet<u64> = bad.iter().map(|bad| bad.block).collect();
    for (block, children) in waiting {
        if !children
            .iter()
            .any(|child| is_bad.contains(&child.block.into()))
        {
            let block = u64::from(block);
            bad.push(BadNode {
                block,
                why: Error::block(block, BlockKind::Node, Fault::Unbalanced),
            });
        }
    }
    forest
}
