// SPDX-License-Identifier: GPL-2.0

//! Knows what may be read, now or after a crash.
//!
//! Each sector of a thin device is a register. Bios write and read it, each from its submission to
//! its end, and seem to do so at one moment in between. A bio that has failed may have had its
//! effect or not.

use std::collections::BTreeMap;

use crate::sim_disk::{
    Value,
    DISCARDED,
    SECTORS,
    ZEROES, //
};

/// When something happened.
pub(crate) type Moment = u64;

/// A sector of a thin device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Register {
    pub(crate) device: u64,
    pub(crate) block: u64,
    pub(crate) sector: usize,
}

/// An external origin that all devices of a pool have, if it is not empty.
#[derive(Clone, Copy, Default)]
pub(crate) struct Origin {
    /// How many sectors of it there are.
    pub(crate) sectors: usize,
}

impl Origin {
    pub(crate) fn shows(self, block: u64, sector: usize) -> bool {
        block as usize * SECTORS + sector < self.sectors
    }

    /// What is at a place where it shows.
    pub(crate) fn get(self, block: u64, sector: usize) -> Value {
        (1 << 40) + block * 1000 + sector as u64
    }
}

#[derive(Clone, Debug)]
struct Change {
    /// `None`: the sector is not to be mapped any more.
    value: Option<Value>,
    begin: Moment,
    /// Not yet, if it is under way.
    end: Option<Moment>,
    succeeded: bool,
    /// Whether somebody was promised that it survives a crash.
    durable: bool,
}

impl Change {
    /// Whether it was over before another one began.
    fn precedes(&self, other: &Self) -> bool {
        self.end.is_some_and(|end| end < other.begin)
    }
}

#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) origin: Origin,
    now: Moment,
    registers: BTreeMap<Register, Vec<Change>>,
    /// Whether changes that had not been committed may be gone.
    aborted: bool,
}

impl Oracle {
    /// All sectors of all devices.
    pub(crate) fn registers(&self) -> Vec<Register> {
        self.registers.keys().copied().collect()
    }

    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    pub(crate) fn create(&mut self, device: u64, blocks: u64) {
        let now = self.tick();
        for block in 0..blocks {
            for sector in 0..SECTORS {
                let at = Register {
                    device,
                    block,
                    sector,
                };
                let nothing = Change {
                    value: None,
                    begin: now,
                    end: Some(now),
                    succeeded: true,
                    durable: true,
                };
                self.registers.insert(at, vec![nothing]);
            }
        }
    }

    /// A snapshot was taken while nobody wrote to its origin, and is not committed.
    pub(crate) fn snapshot(&mut self, device: u64, origin: u64) {
        let copies: Vec<_> = self
            .registers
            .iter()
            .filter(|(at, _)| at.device == origin)
            .map(|(at, changes)| (Register { device, ..*at }, changes.clone()))
            .collect();
        self.registers.extend(copies);
    }

    /// What happens from now on is after this.
    pub(crate) fn moment(&mut self) -> Moment {
        self.tick()
    }

    /// A sector begins to be written, or to be discarded.
    pub(crate) fn write(&mut self, at: Register, value: Option<Value>) -> Moment {
        let begin = self.tick();
        self.registers
            .get_mut(&at)
            .expect("it exists")
            .push(Change {
                value,
                begin,
                end: None,
                succeeded: false,
                durable: false,
            });
        begin
    }

    /// That has ended.
    pub(crate) fn written(&mut self, at: Register, begin: Moment, succeeded: bool, durable: bool) {
        let end = self.tick();
        let changes = self.registers.get_mut(&at).expect("it exists");
        let change = changes.iter_mut().find(|change| change.begin == begin);
        let change = change.expect("it has begun");
        change.end = Some(end);
        change.succeeded = succeeded;
        change.durable = succeeded && durable;
    }

    /// A flush of a device has succeeded that began at `begin`.
    pub(crate) fn flushed(&mut self, device: u64, begin: Moment) {
        let changes = self
            .registers
            .iter_mut()
            .filter(|(at, _)| at.device == device)
            .flat_map(|(_, changes)| changes);
        for change in changes {
            if change.succeeded && change.end.is_some_and(|end| end < begin) {
                change.durable = true;
            }
        }
    }

    /// What was not durable may be gone.
    pub(crate) fn abort(&mut self) {
        self.aborted = true;
    }

    /// What is read where nothing is mapped.
    pub(crate) fn unmapped(&self, at: Register) -> Value {
        if self.origin.shows(at.block, at.sector) {
            self.origin.get(at.block, at.sector)
        } else {
            ZEROES
        }
    }

    /// Judges what a read has found that began at `begin` and ends now.
    pub(crate) fn check_read(&self, at: Register, begin: Moment, found: Value) {
        if self.aborted {
            // Whatever was not durable may be gone, as after a crash.
            return self.check_crash(at, found);
        }
        let changes = &self.registers[&at];
        let is_over = |change: &Change| {
            changes.iter().any(|later| {
                let is_done = later.succeeded && later.end.is_some_and(|end| end < begin);
                is_done && change.precedes(later)
            })
        };
        let possible = changes
            .iter()
            .filter(|change| !is_over(change))
            .any(|change| change.value.unwrap_or(self.unmapped(at)) == found);
        assert!(possible, "{at:?} reads {found}, of {changes:?}");
    }

    /// Judges what a crash may leave now.
    pub(crate) fn check_crash(&self, at: Register, found: Value) {
        let changes = &self.registers[&at];
        let is_over = |change: &Change| {
            let mut later = changes.iter();
            later.any(|later| later.durable && change.precedes(later))
        };
        let possible = changes
            .iter()
            .filter(|change| !is_over(change))
            .any(|change| match change.value {
                Some(value) => value == found,
                // A discard may have reached the data device first.
                None => found == self.unmapped(at) || (found == DISCARDED && !change.durable),
            });
        assert!(possible, "{at:?} may come to read {found}, of {changes:?}");
    }
}
