// SPDX-License-Identifier: GPL-2.0

//! Deleting a large tree in parts.
//!
//! The library deletes a tree in one step, or value by value, which takes much longer. Between them is
//! this: a few leaves at a time are cut off, with all nodes that have nothing else below them, and
//! deleted as trees of their own. What other trees have, too, stays: in the end it goes in one step,
//! which is a short one, as nothing of it is really deleted.
//!
//! Nodes lose entries by that, and may have less than the library would leave them. It does not mind,
//! but for one thing: a node with a single child becomes that child when something is removed below it,
//! which is meant for roots. In other places leaves would come to be beside internal nodes. So all nodes
//! but the root keep two children, or none.

use super::{
    block_manager::WriteBlock,
    btree::{
        DataReference,
        InnerTree,
        NestedTree, //
    },
    node::{
        remove_children,
        set_child,
        MAX_DEPTH, //
    },
    transaction_manager::TransactionManager, //
};
use crate::core::errno::{
    Errno,
    Result, //
};
use kernel::prelude::*;

/// The most leaves that are cut off at once.
const MAX_LEAVES: usize = 16;

/// The most nodes of other trees that are passed over at once.
const MAX_SHARED: usize = 64;

/// What came of cutting off a part of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trimmed {
    /// How many values were in it.
    pub(crate) values: u64,
    /// Where to go on, if there may be more to cut off.
    pub(crate) next: Option<u64>,
}

/// An internal node, and some of its children.
#[derive(Clone, Copy)]
struct Cut {
    location: u64,
    entries: usize,
    begin: usize,
    end: usize,
}

impl Cut {
    /// How many children it is about.
    fn children(self) -> usize {
        self.end.saturating_sub(self.begin)
    }

    /// Whether the node has a single child left without them.
    fn leaves_one(self) -> bool {
        self.children().saturating_add(1) == self.entries
    }
}

/// What can be cut off.
enum Found {
    /// The children of the last node; the others lead to it, each with one child.
    Leaves {
        path: KVec<Cut>,
        values: u64,
        next: Option<u64>,
    },
    /// Nothing before this key.
    Shared(u64),
    /// Nothing.
    Nothing,
}

impl<V: DataReference> NestedTree<V> {
    /// Cuts some leaves off the tree `outer` and deletes them: those that no other tree has, from the
    /// key `position` on.
    ///
    /// Does nothing if so little would be left of the tree that it can as well be deleted. Fails with
    /// `ENODATA` if there is no such tree, and then nothing has happened. If it fails otherwise, the
    /// transaction has to be given up.
    pub(crate) fn trim(
        &mut self,
        manager: &mut TransactionManager,
        outer: u64,
        position: u64,
    ) -> Result<Trimmed> {
        let root = self.inner_root(manager, outer)?;
        let mut position = position;
        for _ in 0..MAX_SHARED {
            let (values, next) = match find(manager, root, position)? {
                Found::Leaves { path, values, next } => {
                    let cut = self.cut(manager, outer, path)?;
                    (if cut { values } else { 0 }, next)
                }
                Found::Shared(next) if next > position => {
                    position = next;
                    continue;
                }
                Found::Shared(_) | Found::Nothing => (0, None),
            };
            return Ok(Trimmed {
                values,
                // Else the keys are not in order.
                next: next.filter(|next| *next > position),
            });
        }
        Ok(Trimmed {
            values: 0,
            next: Some(position),
        })
    }

    /// Cuts off what the last node of `path` says. Tells whether that could be done: not if too little
    /// would be left.
    fn cut(
        &mut self,
        manager: &mut TransactionManager,
        outer: u64,
        mut path: KVec<Cut>,
    ) -> Result<bool> {
        // A node that loses all its children goes with them.
        let last = loop {
            match path.pop() {
                Some(cut) if cut.children() < cut.entries => break cut,
                Some(_) => {}
                None => return Ok(false),
            }
        };
        if !path.is_empty() && last.leaves_one() {
            return Ok(false);
        }
        let mut trees = KVec::with_capacity(MAX_LEAVES, GFP_KERNEL)?;
        let node = manager.nodes().read(last.location, VALUE_SIZE)?;
        for index in last.begin..last.end {
            trees.push(node.child(index), GFP_KERNEL)?;
        }
        drop(node);

        // While the inner tree changes, it is no part of the outer one, which would delete its old
        // root.
        let _ = self.take(manager, outer)?;
        path.push(last, GFP_KERNEL)?;
        let root = change(manager, &path)?;
        self.set_inner_root(manager, outer, root)?;
        for tree in trees {
            InnerTree::<V>::with_root(tree).delete(manager)?;
        }
        Ok(true)
    }
}

/// Bytes of the values of trees that are in others.
const VALUE_SIZE: u32 = size_of::<u64>() as u32;

/// Looks for leaves of an inner tree that no other tree has.
fn find(manager: &TransactionManager, root: u64, position: u64) -> Result<Found> {
    let nodes = manager.nodes();
    let mut path = KVec::with_capacity(MAX_DEPTH, GFP_KERNEL)?;
    let mut location = root;
    // What comes behind the node.
    let mut above = None;

    if manager.references(root)? != 1 {
        return Ok(Found::Nothing);
    }
    let mut node = nodes.read(root, VALUE_SIZE)?;
    while !node.is_leaf() {
        let begin = node.position(position).unwrap_or(0);
        let mut cut = Cut {
            location,
            entries: node.entries(),
            begin,
            end: begin.saturating_add(1),
        };
        let behind = |end| (end < node.entries()).then(|| node.key(end)).or(above);

        let child_location = node.child(begin);
        if manager.references(child_location)? != 1 {
            return Ok(behind(cut.end).map_or(Found::Nothing, Found::Shared));
        }
        let child = nodes.read(child_location, VALUE_SIZE)?;
        if child.is_leaf() {
            let mut values = child.entries() as u64;
            let mut last_values = values;
            while cut.end < cut.entries && cut.children() < MAX_LEAVES {
                let neighbour = node.child(cut.end);
                if manager.references(neighbour)? != 1 {
                    break;
                }
                let leaf = nodes.read(neighbour, VALUE_SIZE)?;
                if !leaf.is_leaf() {
                    return Err(Errno::EILSEQ);
                }
                last_values = leaf.entries() as u64;
                values = values.saturating_add(last_values);
                cut.end = cut.end.saturating_add(1);
            }
            if !path.is_empty() && cut.leaves_one() {
                if cut.children() == 1 {
                    return Ok(behind(cut.end).map_or(Found::Nothing, Found::Shared));
                }
                cut.end = cut.end.saturating_sub(1);
                values = values.saturating_sub(last_values);
            }
            let next = behind(cut.end);
            path.push(cut, GFP_KERNEL)?;
            return Ok(Found::Leaves { path, values, next });
        }
        above = behind(cut.end);
        // There are no longer paths than that.
        path.push_within_capacity(cut).map_err(|_| Errno::EILSEQ)?;
        location = child_location;
        node = child;
    }
    Ok(Found::Nothing)
}

/// Removes the children that the last node of `path` says, and returns the new root of the tree.
fn change(manager: &mut TransactionManager, path: &[Cut]) -> Result<u64> {
    let nodes = manager.nodes();
    let mut root = None;
    let mut parent: Option<(WriteBlock<'_>, usize)> = None;

    for cut in path {
        // SAFETY: The transaction manager is borrowed exclusively. The nodes were found to be different
        // ones.
        let node = unsafe { nodes.shadow(cut.location) }?;
        match &mut parent {
            Some((parent, index)) => set_child(parent, *index, node.location()),
            None => root = Some(node.location()),
        }
        parent = Some((node, cut.begin));
    }
    if let (Some((node, _)), Some(last)) = (&mut parent, path.last()) {
        remove_children(node, last.begin, last.end);
    }
    root.ok_or(Errno::EILSEQ)
}
