// SPDX-License-Identifier: GPL-2.0

//! The tables of thin devices that a pool has, and their bios that wait for space.
//!
//! A bio that waits is answered by whoever comes first: space, the end of the time for it, a failure
//! of the pool, or the suspension of its device. Until then it holds no lock.

use crate::{
    answer::{
        Asker,
        Askers, //
    },
    control::OpenThin,
    core::{
        errno::Result,
        remap::Space,
        units::DeviceId, //
    },
    dm::link::TableHandle, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The tables that have thin devices of the pool open.
pub(crate) struct Tables(KVec<Table>);

struct Table {
    handle: TableHandle,
    thin: Arc<OpenThin>,
    /// Whether its bios do not wait here, because the device is being suspended without a flush.
    turns_away: bool,
    waiting: Askers<Space>,
}

impl Tables {
    /// There are none.
    pub(crate) fn new() -> Self {
        Self(KVec::new())
    }

    /// Makes room for one table more.
    pub(crate) fn reserve(&mut self) -> Result {
        Ok(self.0.reserve(1, GFP_KERNEL)?)
    }

    /// Adds a table, for which there must be room.
    pub(crate) fn add(&mut self, handle: TableHandle, thin: Arc<OpenThin>) {
        // There is room.
        let _ = self.0.push_within_capacity(Table {
            handle,
            thin,
            turns_away: false,
            waiting: Askers::new(),
        });
    }

    /// The table is about to go: none of its bios waits. Returns what it had open.
    pub(crate) fn remove(&mut self, handle: &TableHandle) -> Option<Arc<OpenThin>> {
        let index = self
            .0
            .iter()
            .position(|table| table.handle.is_same(handle))?;
        let table = self.0.remove(index).ok()?;

        Some(table.thin)
    }

    /// The thin devices that are open; those with several tables several times.
    pub(crate) fn thins(&self) -> impl Iterator<Item = &Arc<OpenThin>> {
        self.0.iter().map(|table| &table.thin)
    }

    /// A thin device, if it is open.
    pub(crate) fn find(&self, id: DeviceId) -> Option<&Arc<OpenThin>> {
        self.thins().find(|thin| thin.id() == id)
    }

    /// A bio of a table waits for space.
    pub(crate) fn wait(&mut self, handle: &TableHandle, asker: Asker<Space>) {
        match self.get(handle) {
            Some(table) if !table.turns_away => table.waiting.push(asker),
            _ => asker.answer(Space::Requeue),
        }
    }

    /// Answers all bios that wait.
    pub(crate) fn answer_all(&mut self, space: Space) {
        for table in self.0.iter_mut() {
            table.waiting.answer_all(space);
        }
    }

    /// Bios of a table that wait, or come to wait, are to do so elsewhere; or, with `false`, here
    /// again.
    pub(crate) fn turn_away(&mut self, handle: &TableHandle, turns_away: bool) {
        if let Some(table) = self.get(handle) {
            table.turns_away = turns_away;
            if turns_away {
                table.waiting.answer_all(Space::Requeue);
            }
        }
    }

    fn get(&mut self, handle: &TableHandle) -> Option<&mut Table> {
        self.0.iter_mut().find(|table| table.handle.is_same(handle))
    }
}
