// SPDX-License-Identifier: GPL-2.0

//! Memory for requests: it never runs out for good.

use super::line::Cell;
use crate::{
    core::errno::Result,
    facade::{
        CellPool,
        PoolBox,
        WaitList, //
    }, //
};
use core::future::Future;

/// A reserve of cells, and those who wait until one is given back.
pub(super) struct Cells {
    pool: CellPool<Cell>,
    waiting: WaitList,
}

impl Cells {
    /// Memory for `reserve` requests at a time, even if there is no other. Sleeps.
    pub(super) fn new(reserve: usize) -> Result<Self> {
        Ok(Self {
            pool: CellPool::new(reserve)?,
            waiting: WaitList::new()?,
        })
    }

    /// Memory for a request, if there is some now.
    pub(super) fn try_get(&self, cell: Cell) -> Option<PoolBox<Cell>> {
        self.pool.try_get(cell)
    }

    /// Memory for a request.
    ///
    /// Cells that are in use are given back in the end without anybody needing another one of the
    /// same kind for it, so this does not wait for ever.
    pub(super) fn get<'a>(
        &'a self,
        cell: impl Fn() -> Cell + Send + 'a,
    ) -> impl Future<Output = PoolBox<Cell>> + Send + 'a {
        self.waiting.wait_for(move || self.pool.try_get(cell()))
    }

    /// Gives a cell back. Any context.
    pub(super) fn put(&self, cell: PoolBox<Cell>) {
        self.pool.put(cell);
        self.waiting.wake_one();
    }
}
