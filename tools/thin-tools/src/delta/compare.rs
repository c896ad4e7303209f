// SPDX-License-Identifier: GPL-2.0

//! Comparing two mapping trees.
//!
//! Both trees are taken apart level by level. A node that both have on one level has the same
//! mappings for both, whatever is around it, so nothing below it needs to be compared, nor even read,
//! unless somebody wants to know what the same mappings are. The leaves that are left are merged.

use crate::cli::Failure;
use crate::metadata;
use crate::report::Counter;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use thin_format::block::BlockKind;
use thin_format::btree;
use thin_format::btree::Child;
use thin_format::io;
use thin_format::io::Store;
use thin_format::records::PackedMapping;
use thin_format::thin::Run;
use thin_format::Error;
use thin_format::Fault;

/// How two devices differ at some place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Both map it to the same data blocks.
    Same,
    /// Both map it, but to different data blocks.
    Different,
    /// Only the first maps it.
    LeftOnly,
    /// Only the second maps it.
    RightOnly,
}

/// Thin blocks of which the same can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What can be said.
    pub kind: Kind,
    /// The first thin block.
    pub begin: u64,
    /// How many.
    pub length: u64,
    /// The data block that the first is mapped to by the first device; 0 if it is not.
    pub left: u64,
    /// The data block that the first is mapped to by the second device; 0 if it is not.
    pub right: u64,
}

/// How many leaves are read together.
const BATCH: usize = 1024;

/// Size of a mapping's value.
const VALUE: u32 = PackedMapping::BYTES as u32;

/// Compares the mapping trees at `left` and `right`; hands the differences to `visit` in order of
/// thin blocks. Without `with_same`, what is the same is left out, and most of it not read.
///
/// Memory: 32 bytes for each node on one level of each tree, and `BATCH` leaves of each.
///
/// # Errors
///
/// The first node of either tree that cannot be used, and whatever `visit` says.
pub fn compare(
    store: &dyn Store,
    left: u64,
    right: u64,
    with_same: bool,
    counter: &Counter,
    visit: &mut dyn FnMut(Difference) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (left, right) = leaves(store, left, right, with_same)?;
    counter.set_total((left.len() + right.iter().filter(|piece| !piece.common).count()) as u64);
    let mut merge = Merge {
        left: Leaves::new(store, left, true, counter),
        right: Leaves::new(store, right, false, counter),
        with_same,
        visit,
    };
    while merge.step()? {}
    Ok(())
}

/// A node of one of the trees.
#[derive(Clone, Copy)]
struct Piece {
    node: Child,
    /// Whether the other tree has it too.
    common: bool,
}

/// The leaves of both trees, in order of keys.
fn leaves(
    store: &dyn Store,
    left: u64,
    right: u64,
    with_same: bool,
) -> Result<(Vec<Piece>, Vec<Piece>), Failure> {
    let heights = (height(store, left)?, height(store, right)?);
    let whole = |block| {
        vec![Piece {
            node: Child::root(block),
            common: false,
        }]
    };
    let mut left = whole(left);
    let mut right = whole(right);
    for level in (0..=heights.0.max(heights.1)).rev() {
        let on_level = (level <= heights.0, level <= heights.1);
        if on_level == (true, true) {
            find_common(&mut left, &mut right);
            if !with_same {
                left.retain(|piece| !piece.common);
                right.retain(|piece| !piece.common);
            }
        }
        if level == 0 {
            break;
        }
        let here = |on_level, pieces: &[Piece]| {
            if on_level {
                pieces.to_vec()
            } else {
                Vec::new()
            }
        };
        let mut both = here(on_level.0, &left);
        both.extend(here(on_level.1, &right));
        let children = read_inner(store, &both)?;
        if on_level.0 {
            left = expand(&left, &children)?;
        }
        if on_level.1 {
            right = expand(&right, &children)?;
        }
    }
    Ok((left, right))
}

/// How many levels there are below a root.
fn height(store: &dyn Store, root: u64) -> Result<usize, Error> {
    let mut at = Child::root(root);
    for height in 0..btree::MAX_DEPTH {
        let bytes = store.read_block(at.block)?;
        let node = btree::verify_child(&at, &bytes, VALUE)?;
        let first = node.children(at.end).next();
        match first {
            Some(child) => at = child,
            None => return Ok(height),
        }
    }
    Err(Error::block(root, BlockKind::Node, Fault::TooDeep))
}

fn find_common(left: &mut [Piece], right: &mut [Piece]) {
    let in_right: HashSet<u64> = right.iter().map(|piece| piece.node.block).collect();
    let mut common = HashSet::new();
    for piece in left {
        if in_right.contains(&piece.node.block) {
            piece.common = true;
            common.insert(piece.node.block);
        }
    }
    for piece in right {
        piece.common = common.contains(&piece.node.block);
    }
}

/// The keys and blocks of the children of each inner node.
type Children = HashMap<u64, Vec<(u64, u64)>>;

fn unique(blocks: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut blocks: Vec<u64> = blocks.collect();
    blocks.sort_unstable();
    blocks.dedup();
    blocks
}

fn read_inner(store: &dyn Store, pieces: &[Piece]) -> Result<Children, Error> {
    let blocks = unique(pieces.iter().map(|piece| piece.node.block));
    let of_threads = io::read_blocks(
        store,
        &blocks,
        metadata::threads(),
        Vec::new,
        |found, block, bytes| {
            let children = bytes.and_then(|bytes| {
                let node = btree::Node::verify(block, bytes, VALUE)?;
                if node.is_leaf() {
                    return Err(Error::block(block, BlockKind::Node, Fault::Unbalanced));
                }
                Ok(node.entries::<u64>().collect())
            });
            found.push(children.map(|children| (block, children)));
        },
    );
    of_threads.into_iter().flatten().collect()
}

/// The children of all `pieces`, each with the keys its parent leaves to it.
fn expand(pieces: &[Piece], children: &Children) -> Result<Vec<Piece>, Error> {
    let mut expanded = Vec::new();
    for piece in pieces {
        let block = piece.node.block;
        let of_node = children.get(&block).map_or(&[][..], Vec::as_slice);
        let ends = of_node
            .iter()
            .skip(1)
            .map(|(key, _)| Some(*key))
            .chain([piece.node.end]);
        for (&(begin, child), end) in of_node.iter().zip(ends) {
            let inside = begin >= piece.node.begin && end_within(end, piece.node.end);
            if !inside {
                let fault = Fault::KeyRange { key: begin };
                return Err(Error::block(block, BlockKind::Node, fault));
            }
            expanded.push(Piece {
                node: Child {
                    block: child,
                    begin,
                    end,
                },
                common: piece.common,
            });
        }
    }
    Ok(expanded)
}

fn end_within(end: Option<u64>, limit: Option<u64>) -> bool {
    match (end, limit) {
        (_, None) => true,
        (Some(end), Some(limit)) => end <= limit,
        (None, Some(_)) => false,
    }
}

/// The leaves of one tree with their mappings, read ahead in batches.
struct Leaves<'a> {
    store: &'a dyn Store,
    rest: VecDeque<Piece>,
    ready: VecDeque<(Piece, VecDeque<Run>)>,
    /// Whether leaves that both trees have are read for this one.
    reads_common: bool,
    counter: &'a Counter,
}

impl<'a> Leaves<'a> {
    fn new(
        store: &'a dyn Store,
        leaves: Vec<Piece>,
        reads_common: bool,
        counter: &'a Counter,
    ) -> Self {
        Self {
            store,
            rest: leaves.into(),
            ready: VecDeque::new(),
            reads_common,
            counter,
        }
    }

    /// The leaf that is next, and what is left of its mappings.
    fn head(&mut self) -> Result<Option<(Piece, &mut VecDeque<Run>)>, Error> {
        if self.ready.is_empty() {
            self.read_ahead()?;
        }
        Ok(self.ready.front_mut().map(|(piece, runs)| (*piece, runs)))
    }

    fn next(&mut self) {
        self.ready.pop_front();
    }

    fn read_ahead(&mut self) -> Result<(), Error> {
        let batch: Vec<Piece> = self.rest.drain(..BATCH.min(self.rest.len())).collect();
        let wanted = |piece: &&Piece| self.reads_common || !piece.common;
        let ranges: HashMap<u64, Child> = batch
            .iter()
            .filter(wanted)
            .map(|piece| (piece.node.block, piece.node))
            .collect();
        let blocks = unique(ranges.keys().copied());
        let of_threads = io::read_blocks(
            self.store,
            &blocks,
            metadata::threads(),
            Vec::new,
            |found, block, bytes| {
                self.counter.advance(1);
                let child = ranges.get(&block).copied().unwrap_or(Child::root(block));
                let runs = bytes.and_then(|bytes| {
                    let node = btree::verify_child(&child, bytes, VALUE)?;
                    if !node.is_leaf() {
                        return Err(Error::block(block, BlockKind::Node, Fault::Unbalanced));
                    }
                    let mut runs = VecDeque::new();
                    metadata::runs_of(&node, |run| runs.push_back(run));
                    Ok(runs)
                });
                found.push(runs.map(|runs| (block, runs)));
            },
        );
        let mut runs: HashMap<u64, VecDeque<Run>> =
            of_threads.into_iter().flatten().collect::<Result<_, _>>()?;
        for piece in batch {
            let block = piece.node.block;
            let runs = if wanted(&&piece) {
                // A block that a tree has twice cannot be in the ranges of both places.
                runs.remove(&block)
                    .ok_or_else(|| Error::block(block, BlockKind::Node, Fault::Crossed))?
            } else {
                VecDeque::new()
            };
            self.ready.push_back((piece, runs));
        }
        Ok(())
    }
}

struct Merge<'a> {
    left: Leaves<'a>,
    right: Leaves<'a>,
    with_same: bool,
    visit: &'a mut dyn FnMut(Difference) -> Result<(), Failure>,
}

fn end(run: &Run) -> u128 {
    u128::from(run.thin) + u128::from(run.length)
}

/// Takes the first `length` blocks off a run, or off its queue with nothing left of it.
fn take(runs: &mut VecDeque<Run>, length: u64) -> Option<Run> {
    let front = runs.front_mut()?;
    if length >= front.length {
        return runs.pop_front();
    }
    let taken = Run { length, ..*front };
    front.thin = front.thin.saturating_add(length);
    front.data = front.data.saturating_add(length);
    front.length = front.length.saturating_sub(length);
    Some(taken)
}

fn one_side(kind: Kind, run: Run) -> Difference {
    let (left, right) = if kind == Kind::LeftOnly {
        (run.data, 0)
    } else {
        (0, run.data)
    };
    Difference {
        kind,
        begin: run.thin,
        length: run.length,
        left,
        right,
    }
}

impl Merge<'_> {
    /// Goes on by a run or a leaf; false at the end.
    fn step(&mut self) -> Result<bool, Failure> {
        let crossed = |piece: Piece| {
            Failure::from(Error::block(
                piece.node.block,
                BlockKind::Node,
                Fault::Crossed,
            ))
        };
        let difference = match (self.left.head()?, self.right.head()?) {
            (None, None) => return Ok(false),
            (Some((left, runs)), Some((right, _))) if left.common && right.common => {
                if left.node.block != right.node.block {
                    return Err(crossed(left));
                }
                if let Some(run) = runs.pop_front() {
                    Some(Difference {
                        kind: Kind::Same,
                        begin: run.thin,
                        length: run.length,
                        left: run.data,
                        right: run.data,
                    })
                } else {
                    self.left.next();
                    self.right.next();
                    None
                }
            }
            (Some((left, left_runs)), Some((right, right_runs)))
                if !left.common && !right.common =>
            {
                match (left_runs.front(), right_runs.front()) {
                    (None, _) => {
                        self.left.next();
                        None
                    }
                    (_, None) => {
                        self.right.next();
                        None
                    }
                    (Some(a), Some(b)) => overlap(*a, *b, left_runs, right_runs),
                }
            }
            // What one has before the next leaf that both have, the other does not have.
            (Some((left, runs)), _) if !left.common => match runs.pop_front() {
                Some(run) => Some(one_side(Kind::LeftOnly, run)),
                None => {
                    self.left.next();
                    None
                }
            },
            (_, Some((right, runs))) if !right.common => match runs.pop_front() {
                Some(run) => Some(one_side(Kind::RightOnly, run)),
                None => {
                    self.right.next();
                    None
                }
            },
            (Some((piece, _)), _) | (_, Some((piece, _))) => return Err(crossed(piece)),
        };
        match difference {
            Some(same) if same.kind == Kind::Same && !self.with_same => {}
            Some(difference) => (self.visit)(difference)?,
            None => {}
        }
        Ok(true)
    }
}

/// What can be said of the lesser beginning of two runs.
fn overlap(
    a: Run,
    b: Run,
    left: &mut VecDeque<Run>,
    right: &mut VecDeque<Run>,
) -> Option<Difference> {
    if a.thin < b.thin {
        let alone = if end(&a) <= u128::from(b.thin) {
            a.length
        } else {
            b.thin - a.thin
        };
        return take(left, alone).map(|run| one_side(Kind::LeftOnly, run));
    }
    if b.thin < a.thin {
        let alone = if end(&b) <= u128::from(a.thin) {
            b.length
        } else {
            a.thin - b.thin
        };
        return take(right, alone).map(|run| one_side(Kind::RightOnly, run));
    }
    let length = a.length.min(b.length);
    let (a, b) = (take(left, length)?, take(right, length)?);
    Some(Difference {
        kind: if a.data == b.data {
            Kind::Same
        } else {
            Kind::Different
        },
        begin: a.thin,
        length,
        left: a.data,
        right: b.data,
    })
}
