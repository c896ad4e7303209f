// SPDX-License-Identifier: GPL-2.0

//! Trees from numbers to values of a fixed size.
//!
//! C header: [`drivers/md/persistent-data/dm-btree.h`](srctree/drivers/md/persistent-data/dm-btree.h)

use super::{
    node::Nodes,
    transaction_manager::TransactionManager,
    value_type::{
        change,
        Shape, //
    }, //
};
use crate::{
    bindings,
    core::errno::{
        Errno,
        Result, //
    }, //
};
use core::marker::PhantomData;

/// What a tree has as values: `N` bytes.
pub(crate) trait Value<const N: usize>: Copy {
    /// The value that is `bytes` in a leaf.
    fn from_bytes(bytes: [u8; N]) -> Self;

    /// The value as it is in a leaf.
    fn to_bytes(self) -> [u8; N];
}

/// A value that refers to a block of the data device, for which the space map counts it.
pub(crate) trait DataReference: Value<8> {
    /// The block.
    fn data_block(self) -> u64;
}

/// Bytes of a value that refers to something.
const REFERENCE_SIZE: u32 = size_of::<u64>() as u32;

/// Which data block a value refers to.
fn data_block<V: DataReference>(bytes: [u8; 8]) -> u64 {
    V::from_bytes(bytes).data_block()
}

/// A tree of values that refer to nothing.
///
/// All functions that take a transaction manager want the one that the tree was made with, or that
/// was opened with it. With another one they fail, or find nonsense.
pub(crate) struct Tree<V, const N: usize> {
    root: u64,
    _values: PhantomData<fn() -> V>,
}

impl<V: Value<N>, const N: usize> Tree<V, N> {
    const SHAPE: Shape = Shape::Plain(N as u32);

    /// The tree with this root.
    pub(crate) fn with_root(root: u64) -> Self {
        Self {
            root,
            _values: PhantomData,
        }
    }

    /// The block that the tree begins with.
    pub(crate) fn root(&self) -> u64 {
        self.root
    }

    /// The value of `key`, if there is one.
    pub(crate) fn get(&self, manager: &TransactionManager, key: u64) -> Result<Option<V>> {
        let value = manager.nodes().get(self.root, key)?;
        Ok(value.map(V::from_bytes))
    }

    /// Gives `key` a value, in place of the one that it may have.
    ///
    /// If that fails, the transaction has to be given up.
    pub(crate) fn insert(
        &mut self,
        manager: &mut TransactionManager,
        mut key: u64,
        value: V,
    ) -> Result {
        manager.nodes().check(self.root, key, N as u32)?;
        let mut root = 0;
        let mut value = value.to_bytes();
        // SAFETY: The transaction manager is borrowed exclusively, and the pointers lead to a key, a
        // value, and a root.
        change(manager, Self::SHAPE, u64::from_le_bytes, |info| unsafe {
            bindings::dm_btree_insert(
                info,
                self.root,
                &mut key,
                value.as_mut_ptr().cast(),
                &mut root,
            )
        })?;
        self.root = root;
        Ok(())
    }

    /// Takes the value of `key` away. Fails with `ENODATA` if it has none.
    ///
    /// If that fails, the transaction has to be given up.
    pub(crate) fn remove(&mut self, manager: &mut TransactionManager, mut key: u64) -> Result {
        manager.nodes().check(self.root, key, N as u32)?;
        let mut root = 0;
        // SAFETY: The transaction manager is borrowed exclusively, and the pointers lead to a key and
        // a root.
        change(manager, Self::SHAPE, u64::from_le_bytes, |info| unsafe {
            bindings::dm_btree_remove(info, self.root, &mut key, &mut root)
        })?;
        self.root = root;
        Ok(())
    }

    /// Deletes the tree, unless it is referenced more than once: then it is so once less.
    ///
    /// If that fails, the transaction has to be given up.
    pub(crate) fn delete(self, manager: &mut TransactionManager) -> Result {
        // SAFETY: The transaction manager is borrowed exclusively.
        change(manager, Self::SHAPE, u64::from_le_bytes, |info| unsafe {
            bindings::dm_btree_del(info, self.root)
        })
    }
}

/// A tree of trees of values that refer to data blocks: each has two keys, the first of which says in
/// which of the inner trees it is.
///
/// What was said of the transaction manager of a [`Tree`] holds here, too.
pub(crate) struct NestedTree<V> {
    root: u64,
    _values: PhantomData<fn() -> V>,
}

impl<V: DataReference> NestedTree<V> {
    /// The tree with this root.
    pub(crate) fn with_root(root: u64) -> Self {
        Self {
            root,
            _values: PhantomData,
        }
    }

    /// The block that the tree begins with.
    pub(crate) fn root(&self) -> u64 {
        self.root
    }

    /// The value of `key` in the tree `outer`, if there are both.
    pub(crate) fn get(
        &self,
        manager: &TransactionManager,
        outer: u64,
        key: u64,
    ) -> Result<Option<V>> {
        self.find(manager.nodes(), outer, key)
    }

    /// What a transaction manager, or a clone of it, finds for `key` in the tree `outer`.
    pub(super) fn find(&self, nodes: Nodes<'_>, outer: u64, key: u64) -> Result<Option<V>> {
        let Some(root) = nodes.get(self.root, outer)? else {
            return Ok(None);
        };
        let value = nodes.get(u64::from_le_bytes(root), key)?;
        Ok(value.map(V::from_bytes))
    }

    /// The first value in the tree `outer` whose key is `key` or larger, with its key.
    pub(crate) fn get_next(
        &self,
        manager: &TransactionManager,
        outer: u64,
        key: u64,
    ) -> Result<Option<(u64, V)>> {
        let nodes = manager.nodes();
        let Some(root) = nodes.get(self.root, outer)? else {
            return Ok(None);
        };
        let next = nodes.next(u64::from_le_bytes(root), key)?;
        Ok(next.map(|(key, value)| (key, V::from_bytes(value))))
    }

    /// Reads and checks all nodes that [`NestedTree::insert`] looks at.
    ///
    /// Fails with `ENODATA` if there is no tree `outer`.
    pub(crate) fn check(&self, manager: &TransactionManager, outer: u64, key: u64) -> Result {
        let nodes = manager.nodes();
        let inner = self.inner_root(manager, outer)?;
        nodes.check(self.root, outer, REFERENCE_SIZE)?;
        nodes.check(inner, key, REFERENCE_SIZE)
    }

    /// The largest key in the tree `outer`, if that has any.
    ///
    /// Fails with `ENODATA` if there is no such tree.
    pub(crate) fn last_key(&self, manager: &TransactionManager, outer: u64) -> Result<Option<u64>> {
        let root = self.inner_root(manager, outer)?;
        manager.nodes().last_key(root, REFERENCE_SIZE)
    }

    /// The root of the tree `outer`. Fails with `ENODATA` if there is none.
    pub(super) fn inner_root(&self, manager: &TransactionManager, outer: u64) -> Result<u64> {
        let root = manager.nodes().get(self.root, outer)?;
        root.map(u64::from_le_bytes).ok_or(Errno::ENODATA)
    }

    /// Adds an empty tree, which there must not be yet.
    ///
    /// If that fails, the transaction has to be given up.
    pub(crate) fn add(&mut self, manager: &mut TransactionManager, outer: u64) -> Result {
        let mut root = 0;
        // SAFETY: The transaction manager is borrowed exclusively.
        change(manager, Shape::References, data_block::<V>, |info| unsafe {
            bindings::dm_btree_empty(info, &mut root)
        })?;
        self.set_inner_root(manager, outer, root)
    }

    /// Adds a tree, which there must not be yet, with the contents of another one.
    ///
    /// Fails with `ENODATA` if there is no such other one, and then nothing has happened. If it fails
    /// otherwise, the transaction has to be given up.
    pub(crate) fn add_clone(
        &mut self,
        manager: &mut TransactionManager,
        outer: u64,
        origin: u64,
    ) -> Result {
        let root = self.inner_root(manager, origin)?;
        manager.reference(root)?;
        self.set_inner_root(manager, outer, root)
    }

    /// Takes the tree `outer` out. Fails with `ENODATA` if there is none.
    ///
    /// If that fails, the transaction has to be given up.
    pub(crate) fn take(
        &mut self,
        manager: &mut TransactionManager,
        outer: u64,
    ) -> Result<InnerTree<V>> {
        let root = self.inner_root(manager, outer)?;
        // So that it is not deleted with its entry.
        manager.reference(root)?;
        manager.nodes().check(self.root, outer, REFERENCE_SIZE)?;

        let mut key = outer;
        let mut new_root = 0;
        // SAFETY: The transaction manager is borrowed exclusively, and the pointers lead to a key and
        // a root.
        change(manager, Shape::Roots, data_block::<V>, |info| unsafe {
            bindings::dm_btree_remove(info, self.root, &mut key, &mut new_root)
        })?;
        self.root = new_root;
        Ok(InnerTree::with_root(root))
    }

    /// Gives `key` in the tree `outer` a value, in place of the one that it may have. Tells whether it
    /// had none.
    ///
    /// Fails with `ENODATA` if there is no such tree, and then nothing has happened. If it fails
    /// otherwise, the transaction has to be given up.
    pub(crate) fn insert(
        &mut self,
        manager: &mut TransactionManager,
        outer: u64,
        key: u64,
        value: V,
    ) -> Result<bool> {
        self.check(manager, outer, key)?;
        let mut keys = [outer, key];
        let mut value = value.to_bytes();
        let mut root = 0;
        let mut inserted = 0;
        // SAFETY: The transaction manager is borrowed exclusively, and the pointers lead to two keys, a
        // value, a root, and a number.
        change(manager, Shape::Nested, data_block::<V>, |info| unsafe {
            bindings::dm_btree_insert_notify(
                info,
                self.root,
                keys.as_mut_ptr(),
                value.as_mut_ptr().cast(),
                &mut root,
                &mut inserted,
            )
        })?;
        self.root = root;
        Ok(inserted != 0)
    }

    /// Takes away all values in the tree `outer` whose keys go from `begin` up to `end`, and tells how
    /// many there were.
    ///
    /// Fails with `ENODATA` if there is no such tree, and then nothing has happened. If it fails
    /// otherwise, the transaction has to be given up.
    pub(crate) fn remove_range(
        &mut self,
        manager: &mut TransactionManager,
        outer: u64,
        begin: u64,
        end: u64,
    ) -> Result<u64> {
        let mut removed = 0_u64;
        let mut position = begin;
        // While the inner tree changes, it is no part of the outer one, which would delete its old
        // root.
        let mut root = self.take(manager, outer)?.root;

        while let Some((first, _)) = manager
            .nodes()
            .next::<{ REFERENCE_SIZE as usize }>(root, position)?
        {
            if first >= end {
                break;
            }
            position = first;
            manager.nodes().check(root, first, REFERENCE_SIZE)?;
            // This stops at the first key that has no value.
            let mut count = 0;
            let mut new_root = 0;
            // SAFETY: The transaction manager is borrowed exclusively, and the pointers lead to a
            // key, a root, and a number.
            change(manager, Shape::References, data_block::<V>, |info| unsafe {
                bindings::dm_btree_remove_leaves(
                    info,
                    root,
                    &mut position,
                    end,
                    &mut new_root,
                    &mut count,
                )
            })?;
            root = new_root;
            removed = removed.saturating_add(u64::from(count));
            if count == 0 {
                // It was there just now.
                return Err(Errno::EILSEQ);
            }
        }
        self.set_inner_root(manager, outer, root)?;
        Ok(removed)
    }

    /// Deletes the tree with all that is in it, as far as it is not referenced more than once.
    ///
    /// If that fails, the transaction has to be given up.
    pub(crate) fn delete(self, manager: &mut TransactionManager) -> Result {
        // SAFETY: The transaction manager is borrowed exclusively.
        change(manager, Shape::Nested, data_block::<V>, |info| unsafe {
            bindings::dm_btree_del(info, self.root)
        })
    }

    /// Makes the tree `outer` the one with this root.
    pub(super) fn set_inner_root(
        &mut self,
        manager: &mut TransactionManager,
        outer: u64,
        inner: u64,
    ) -> Result {
        manager.nodes().check(self.root, outer, REFERENCE_SIZE)?;
        let mut key = outer;
        let mut value = inner.to_le_bytes();
        let mut root = 0;
        // SAFETY: The transaction manager is borrowed exclusively, and the pointers lead to a key, a
        // value, and a root.
        change(manager, Shape::Roots, data_block::<V>, |info| unsafe {
            bindings::dm_btree_insert(
                info,
                self.root,
                &mut key,
                value.as_mut_ptr().cast(),
                &mut root,
            )
        })?;
        self.root = root;
        Ok(())
    }
}

/// A tree that was taken out of a [`NestedTree`]. It leaks if it is not deleted.
#[must_use]
pub(crate) struct InnerTree<V> {
    root: u64,
    _values: PhantomData<fn() -> V>,
}

impl<V: DataReference> InnerTree<V> {
    /// The tree with this root, to which nothing refers any more.
    pub(super) fn with_root(root: u64) -> Self {
        Self {
            root,
            _values: PhantomData,
        }
    }

    /// Deletes the tree, as far as it is not referenced more than once.
    ///
    /// If that fails, the transaction has to be given up.
    pub(crate) fn delete(self, manager: &mut TransactionManager) -> Result {
        // SAFETY: The transaction manager is borrowed exclusively.
        change(manager, Shape::References, data_block::<V>, |info| unsafe {
            bindings::dm_btree_del(info, self.root)
        })
    }
}
