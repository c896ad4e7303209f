// SPDX-License-Identifier: GPL-2.0

//! Data blocks that are being filled.
//!
//! They are allocated, so that nobody else gets them, but nothing is mapped to them yet. Commits leave
//! them out: if the machine crashes after one, or the next transaction is aborted, they are free.

use crate::core::{
    errno::Result,
    units::DataBlock, //
};
use kernel::{
    alloc::flags::__GFP_NOWARN,
    prelude::*, //
};

/// How many there is always room for.
const ROOM: usize = 512;

/// A block that is being filled.
struct Block {
    block: DataBlock,
    /// Nobody fills it any more, but it could not be freed.
    abandoned: bool,
}

/// The data blocks that are being filled, as far as there is memory to remember them.
///
/// # Invariants
///
/// They are in ascending order.
pub(super) struct Allocated(KVVec<Block>);

impl Allocated {
    /// Fails with `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        // INVARIANT: There is none.
        Ok(Self(KVVec::with_capacity(ROOM, GFP_KERNEL)?))
    }

    fn position(&self, block: DataBlock) -> core::result::Result<usize, usize> {
        self.0.binary_search_by_key(&block, |entry| entry.block)
    }

    /// Remembers a block, if there is memory. Does not wait for any.
    pub(super) fn add(&mut self, block: DataBlock) {
        let Err(index) = self.position(block) else {
            return;
        };
        let entry = Block {
            block,
            abandoned: false,
        };
        // What is not remembered leaks if the machine crashes, and that is all.
        let _ = self.0.reserve(1, GFP_NOWAIT | __GFP_NOWARN);
        // INVARIANT: It gets to its place.
        let _ = self.0.insert_within_capacity(index, entry);
    }

    /// Forgets a block; tells whether it was remembered.
    pub(super) fn remove(&mut self, block: DataBlock) -> bool {
        self.position(block)
            .is_ok_and(|index| self.0.remove(index).is_ok())
    }

    /// Notes that a block is to be freed with the next commit, if it is remembered.
    pub(super) fn abandon(&mut self, block: DataBlock) {
        if let Ok(index) = self.position(block) {
            if let Some(entry) = self.0.get_mut(index) {
                entry.abandoned = true;
            }
        }
    }

    /// Forgets those that are not being filled any more.
    pub(super) fn forget_abandoned(&mut self) {
        self.0.retain(|entry| !entry.abandoned);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Passes over all of them as runs, from the first to behind the last block.
    pub(super) fn for_each_run(&self, mut each: impl FnMut(u64, u64) -> Result) -> Result {
        let mut run = None;
        for block in self.0.iter().map(|entry| entry.block.0) {
            let next = block.saturating_add(1);
            run = Some(match run {
                Some((begin, end)) if end == block => (begin, next),
                Some((begin, end)) => {
                    each(begin, end)?;
                    (block, next)
                }
                None => (block, next),
            });
        }
        run.map_or(Ok(()), |(begin, end)| each(begin, end))
    }
}
