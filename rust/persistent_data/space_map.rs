// SPDX-License-Identifier: GPL-2.0

//! How often each block of a device is referenced.
//!
//! C header: [`drivers/md/persistent-data/dm-space-map.h`](srctree/drivers/md/persistent-data/dm-space-map.h)

use super::to_result;
use crate::{
    bindings,
    core::errno::{
        Errno,
        Result, //
    },
};
use core::ptr::NonNull;

/// What a space map needs to be opened again.
pub(crate) type SpaceMapRoot = [u8; 32];

/// A space map of the library.
///
/// It has no lock: it belongs to a transaction manager, and so does the right to use it.
///
/// # Invariants
///
/// The pointer leads to a space map, which is destroyed when this is dropped.
pub(super) struct SpaceMap(NonNull<bindings::dm_space_map>);

// SAFETY: A space map belongs to no thread.
unsafe impl Send for SpaceMap {}
// SAFETY: Whoever does something with it needs the right to.
unsafe impl Sync for SpaceMap {}

/// Calls an operation of a space map.
macro_rules! operation {
    ($map:expr, $operation:ident $(, $argument:expr)*) => {{
        let map: *mut bindings::dm_space_map = $map.as_ptr();
        // SAFETY: By the type invariant, the operations can be read.
        match unsafe { (*map).$operation } {
            // SAFETY: It is an operation of this space map, which the caller has the right to use;
            // pointers among the arguments are valid.
            Some(operation) => to_result(unsafe { operation(map $(, $argument)*) }),
            None => Err(Errno::EINVAL),
        }
    }};
}

impl SpaceMap {
    /// The owner of a space map.
    ///
    /// # Safety
    ///
    /// There is such a space map, and nobody else destroys it.
    pub(super) unsafe fn from_raw(map: NonNull<bindings::dm_space_map>) -> Self {
        // INVARIANT: By the safety requirement.
        Self(map)
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::dm_space_map {
        self.0.as_ptr()
    }

    /// How many blocks there were at the last commit.
    ///
    /// # Safety
    ///
    /// The transaction manager must be borrowed.
    pub(super) unsafe fn blocks(&self) -> Result<u64> {
        let mut count = 0;
        operation!(self, get_nr_blocks, &mut count).map(|()| count)
    }

    /// How many blocks had no reference at the last commit, less those that gained the first one
    /// since, and plus those that lost the last one.
    ///
    /// # Safety
    ///
    /// The transaction manager must be borrowed.
    pub(super) unsafe fn free_blocks(&self) -> Result<u64> {
        let mut count = 0;
        operation!(self, get_nr_free, &mut count).map(|()| count)
    }

    /// How often a block is referenced. Fails with `ENODATA` or `EINVAL` if there is no such block.
    ///
    /// # Safety
    ///
    /// The transaction manager must be borrowed.
    pub(super) unsafe fn count(&self, block: u64) -> Result<u32> {
        let mut count = 0;
        operation!(self, get_count, block, &mut count).map(|()| count)
    }

    /// References all blocks from `begin` up to `end` once more.
    ///
    /// # Safety
    ///
    /// The transaction manager must be borrowed exclusively.
    pub(super) unsafe fn increment(&self, begin: u64, end: u64) -> Result {
        operation!(self, inc_blocks, begin, end)
    }

    /// References all blocks from `begin` up to `end` once less. Fails with `EINVAL` if one of them is
    /// not referenced.
    ///
    /// # Safety
    ///
    /// The transaction manager must be borrowed exclusively.
    pub(super) unsafe fn decrement(&self, begin: u64, end: u64) -> Result {
        operation!(self, dec_blocks, begin, end)
    }

    /// References a block that is free, and was so at the last commit. Fails with `ENOSPC`.
    ///
    /// # Safety
    ///
    /// The transaction manager must be borrowed exclusively.
    pub(super) unsafe fn allocate(&self) -> Result<u64> {
        let mut block = 0;
        operation!(self, new_block, &mut block).map(|()| block)
    }

    /// Adds blocks behind the last one.
    ///
    /// # Safety
    ///
    /// The transaction manager must be borrowed exclusively.
    pub(super) unsafe fn extend(&self, blocks: u64) -> Result {
        operation!(self, extend, blocks)
    }

    /// Puts into blocks what is only in memory.
    ///
    /// # Safety
    ///
    /// The transaction manager must be borrowed exclusively.
    pub(super) unsafe fn commit(&self) -> Result {
        operation!(self, commit)
    }

    /// What the space map can be opened by. Includes what was not committed.
    ///
    /// # Safety
    ///
    /// The transaction manager must be borrowed.
    pub(super) unsafe fn root(&self) -> Result<SpaceMapRoot> {
        let mut root = [0; size_of::<SpaceMapRoot>()];
        let copied = operation!(self, copy_root, root.as_mut_ptr().cast(), root.len());
        copied.map(|()| root)
    }
}

impl Drop for SpaceMap {
    fn drop(&mut self) {
        let map = self.as_ptr();
        // SAFETY: By the type invariant, the operations can be read.
        if let Some(destroy) = unsafe { (*map).destroy } {
            // SAFETY: It is an operation of this space map, which nobody uses any more.
            unsafe { destroy(map) };
        }
    }
}
