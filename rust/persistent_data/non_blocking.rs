// SPDX-License-Identifier: GPL-2.0

//! Looking into trees without I/O.

use super::{
    btree::{
        DataReference,
        NestedTree, //
    },
    node::Nodes,
    transaction_manager::{
        Inner,
        TransactionManager, //
    }, //
};
use crate::{
    bindings,
    core::errno::{
        Errno,
        Result, //
    }, //
};
use core::ptr::NonNull;
use kernel::sync::Arc;

/// Why something could not be looked up without I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TryError {
    /// It is not in memory.
    WouldBlock,
    /// It failed.
    Failed(Errno),
}

/// A way to look into trees while their transaction manager is busy.
///
/// # Invariants
///
/// `clone` is a non-blocking clone of `original`, and destroyed when this is dropped.
pub(crate) struct NonBlocking {
    clone: NonNull<bindings::dm_transaction_manager>,
    original: Arc<Inner>,
}

// SAFETY: It belongs to no thread.
unsafe impl Send for NonBlocking {}
// SAFETY: All that can be done with it is reading blocks that are in memory, which any number of
// threads can.
unsafe impl Sync for NonBlocking {}

impl NonBlocking {
    /// A clone of `original`. Fails with `ENOMEM`.
    pub(crate) fn new(original: &TransactionManager) -> Result<Self> {
        // SAFETY: There is the transaction manager, and the clone keeps it in existence.
        let clone = unsafe { bindings::dm_tm_create_non_blocking_clone(original.as_ptr()) };
        // INVARIANT: It was just made, unless the pointer is null.
        Ok(Self {
            clone: NonNull::new(clone).ok_or(Errno::ENOMEM)?,
            original: original.inner().clone(),
        })
    }

    /// The value of `key` in the tree `outer`, if there are both.
    ///
    /// Does no I/O, but may sleep for locks.
    pub(crate) fn get<V: DataReference>(
        &self,
        tree: &NestedTree<V>,
        outer: u64,
        key: u64,
    ) -> core::result::Result<Option<V>, TryError> {
        // SAFETY: By the type invariant; and whoever changes nodes of a tree borrows it exclusively.
        let nodes = unsafe { Nodes::new(self.clone.as_ptr(), self.original.nodes) };
        match tree.find(nodes, outer, key) {
            Ok(value) => Ok(value),
            Err(Errno::EAGAIN) => Err(TryError::WouldBlock),
            Err(error) => Err(TryError::Failed(error)),
        }
    }
}

impl Drop for NonBlocking {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, and nobody uses it any more. The original is still there.
        unsafe { bindings::dm_tm_destroy(self.clone.as_ptr()) };
    }
}
