// SPDX-License-Identifier: GPL-2.0

//! The line that the requests of a shard stand in.
//!
//! The rule says that a request waits for those ahead of it that conflict with it. Each waiting
//! request counts them: when it enters the line it counts whom it finds, and everyone who leaves the
//! line, or changes while standing in it, is subtracted from the counts of those that waited for
//! it. Whose count falls to zero is granted. [`Claim::waits_for`] is the one place that says who
//! waits for whom.
//!
//! To enter, change or leave takes a look at the requests that may overlap: for a single block, those
//! in its bucket and those for ranges; for a range, all of the shard.

use core::iter;

use crate::facade::{
    PoolBox,
    WakeToken, //
};

use super::range::{
    LockRange,
    Mode, //
};

/// The number of lists that a line keeps requests for single blocks in. A line is on the stack while it is
/// being made, so not too many.
const BUCKETS: usize = 32;

/// A list of requests, or the rest of one.
type Link = Option<PoolBox<Cell>>;

/// Where a request stands: enough to find it, and different from that of every other request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    range: LockRange,
    ticket: u64,
}

impl Place {
    pub(super) fn range(self) -> LockRange {
        self.range
    }
}

/// How far a request has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Waits for its turn.
    Waiting,
    /// Holds the lock.
    Held,
    /// Holds the lock and waits for the readers to go, whom it excludes as well from now on.
    Promoting,
    /// Waits for an exclusive request ahead to finish, and is in nobody's way itself.
    Following,
    /// The exclusive request that it followed has finished.
    Told,
}

/// What a request asks for, and what others need to know to tell whether it is in their way.
#[derive(Clone, Copy)]
struct Claim {
    place: Place,
    mode: Mode,
    standing: Standing,
}

impl Claim {
    fn is_held(&self) -> bool {
        matches!(self.standing, Standing::Held | Standing::Promoting)
    }

    fn is_waiting_ahead_of(&self, other: &Self) -> bool {
        self.standing == Standing::Waiting && self.place.ticket < other.place.ticket
    }

    fn is_held_ahead_of(&self, other: &Self) -> bool {
        self.is_held() && self.place.ticket < other.place.ticket
    }

    /// Whether this request has to wait because of `other`.
    fn waits_for(&self, other: &Self) -> bool {
        self.place.range.overlaps(other.place.range)
            && match self.standing {
                // A conflicting lock held by somebody further back can only be a promoted one: it was
                // no conflict when it was granted.
                Standing::Waiting => {
                    self.mode.conflicts_with(other.mode)
                        && (other.is_held() || other.is_waiting_ahead_of(self))
                }
                Standing::Promoting => self.mode.conflicts_with(other.mode) && other.is_held(),
                Standing::Following => {
                    other.mode.is_exclusive()
                        && (other.is_held_ahead_of(self) || other.is_waiting_ahead_of(self))
                }
                Standing::Held | Standing::Told => false,
            }
    }
}

/// A request in the line.
pub(super) struct Cell {
    next: Link,
    claim: Claim,
    /// How many others the request waits for.
    obstacles: u32,
    /// Wakes the task that waits for the request; `None` before it has gone to sleep.
    sleeper: Option<WakeToken>,
}

impl Cell {
    /// A request that has not entered the line yet.
    pub(super) fn new(range: LockRange, mode: Mode) -> Self {
        Self {
            next: None,
            claim: Claim {
                place: Place { range, ticket: 0 },
                mode,
                standing: Standing::Waiting,
            },
            obstacles: 0,
            sleeper: None,
        }
    }

    /// Ends the waiting. The task may run at once: it finds the new standing under the line's lock.
    fn advance(&mut self, standing: Standing) {
        self.claim.standing = standing;
        if let Some(sleeper) = self.sleeper.take() {
            sleeper.wake();
        }
    }

    /// Something that the request waited for is out of its way.
    fn obstacle_gone(&mut self) {
        self.obstacles = self.obstacles.saturating_sub(1);
        match self.claim.standing {
            // The first one that finishes has changed the blocks.
            Standing::Following => self.advance(Standing::Told),
            _ if self.obstacles == 0 => self.advance(Standing::Held),
            _ => {}
        }
    }
}

/// What came of asking for an upgrade.
pub(super) enum Upgrade {
    /// The exclusive lock is held.
    Granted,
    /// It will be held when those ahead have gone.
    Waiting,
    /// It will not: another exclusive request comes first, and the blocks have to be looked up again
    /// when that has finished.
    Following,
}

/// The line of a shard.
///
/// # Invariants
///
/// - Requests with the same [`LockRange`] are in the same list, those that wait in the order of
///   their tickets.
/// - The `obstacles` of a request are the number of requests in the line that it
///   [waits for](Claim::waits_for). If there are none it does not wait.
pub(super) struct Line {
    /// The ticket of the last request that entered.
    last_ticket: u64,
    /// Requests for a single block.
    buckets: [Link; BUCKETS],
    /// Requests for more than one block.
    ranges: Link,
}

impl Line {
    /// A line with nobody in it.
    pub(super) const fn new() -> Self {
        Self {
            last_ticket: 0,
            buckets: [const { None }; BUCKETS],
            ranges: None,
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_none() && self.buckets.iter().all(Option::is_none)
    }

    /// Puts a request at the end of the line. Returns whether it is granted.
    pub(super) fn enter(&mut self, cell: PoolBox<Cell>) -> (Place, bool) {
        let cell = self.ticketed(cell);
        let obstacles = self.obstacles_of(&cell.claim);
        self.insert(cell, obstacles)
    }

    /// Puts a request at the end of the line if it is granted there, else gives it back.
    pub(super) fn enter_if_free(&mut self, cell: PoolBox<Cell>) -> Result<Place, PoolBox<Cell>> {
        let cell = self.ticketed(cell);
        if self.obstacles_of(&cell.claim) != 0 {
            return Err(cell);
        }
        let (place, _granted) = self.insert(cell, 0);
        Ok(place)
    }

    /// Takes a request out of the line, granted or not, and lets those in who waited for it.
    pub(super) fn leave(&mut self, place: Place) -> Option<PoolBox<Cell>> {
        let cell = self.remove(place)?;
        self.changed(&cell.claim, None);
        Some(cell)
    }

    /// Whether the request waits. If it does, `park` has been called for the task to be woken later.
    pub(super) fn wait(&mut self, place: Place, park: impl FnOnce() -> WakeToken) -> bool {
        match find(self.list(place.range), place) {
            Some(cell) if !matches!(cell.claim.standing, Standing::Held | Standing::Told) => {
                cell.sleeper = Some(park());
                true
            }
            _ => false,
        }
    }

    /// Makes a lock that is held weaker.
    pub(super) fn weaken(&mut self, place: Place, mode: Mode) {
        if let Some(mut cell) = self.remove(place) {
            let before = cell.claim;
            cell.claim.mode = before.mode.min(mode);
            self.changed(&before, Some(&cell.claim));
            self.insert(cell, 0);
        }
    }

    /// Gives a shared lock up and puts it at the end of the line as an exclusive request.
    pub(super) fn upgrade(&mut self, place: Place) -> (Place, Upgrade) {
        let Some(mut cell) = self.remove(place) else {
            return (place, Upgrade::Granted);
        };
        if cell.claim.mode.is_exclusive() {
            self.insert(cell, 0);
            return (place, Upgrade::Granted);
        }
        self.changed(&cell.claim, None);

        cell.claim.mode = Mode::ExcludeWriters;
        cell.claim.standing = Standing::Following;
        let mut cell = self.ticketed(cell);
        let leaders = self.obstacles_of(&cell.claim);
        if leaders != 0 {
            let (place, _granted) = self.insert(cell, leaders);
            return (place, Upgrade::Following);
        }
        cell.claim.standing = Standing::Waiting;
        match self.enter(cell) {
            (place, true) => (place, Upgrade::Granted),
            (place, false) => (place, Upgrade::Waiting),
        }
    }

    /// Lets an exclusive lock exclude readers, too, from where it stands; puts a shared one at the
    /// end of the line as a request that does. Returns whether it is granted.
    pub(super) fn promote(&mut self, place: Place) -> (Place, bool) {
        let Some(mut cell) = self.remove(place) else {
            return (place, true);
        };
        let before = cell.claim;
        cell.claim.mode = Mode::ExcludeAll;
        if before.mode.is_exclusive() {
            cell.claim.standing = Standing::Promoting;
            self.changed(&before, Some(&cell.claim));
            let readers = self.obstacles_of(&cell.claim);
            self.insert(cell, readers)
        } else {
            self.changed(&before, None);
            cell.claim.standing = Standing::Waiting;
            self.enter(cell)
        }
    }

    /// Gives a request the last place in the line.
    fn ticketed(&mut self, mut cell: PoolBox<Cell>) -> PoolBox<Cell> {
        // A shard does not live to see 2^64 requests.
        self.last_ticket = self.last_ticket.wrapping_add(1);
        cell.claim.place.ticket = self.last_ticket;
        cell
    }

    /// How many requests in the line `claim` waits for.
    fn obstacles_of(&mut self, claim: &Claim) -> u32 {
        let mut obstacles: u32 = 0;
        self.for_each_near(claim.place.range, |other| {
            if claim.waits_for(&other.claim) {
                obstacles = obstacles.saturating_add(1);
            }
        });
        obstacles
    }

    /// Appends a request that has `obstacles` in its way to its list; without any it is held. Returns
    /// whether it is.
    fn insert(&mut self, mut cell: PoolBox<Cell>, obstacles: u32) -> (Place, bool) {
        let place = cell.claim.place;
        let held = obstacles == 0;
        cell.obstacles = obstacles;
        if held {
            cell.claim.standing = Standing::Held;
        }
        *end(self.list(place.range)) = Some(cell);
        (place, held)
    }

    /// Takes a request out of its list; nobody is told.
    fn remove(&mut self, place: Place) -> Option<PoolBox<Cell>> {
        let link = find(self.list(place.range), place);
        let mut cell = link.take()?;
        *link = cell.next.take();
        Some(cell)
    }

    /// Corrects the counts of the others, and grants those whose last obstacle is gone, after a
    /// request that was `before` has become `after`. It is in none of the lists meanwhile.
    fn changed(&mut self, before: &Claim, after: Option<&Claim>) {
        self.for_each_near(before.place.range, |other| {
            let waited = other.claim.waits_for(before);
            let waits = after.is_some_and(|after| other.claim.waits_for(after));
            match (waited, waits) {
                (true, false) => other.obstacle_gone(),
                (false, true) => other.obstacles = other.obstacles.saturating_add(1),
                _ => {}
            }
        });
    }

    /// The list that a request for `range` is in.
    fn list(&mut self, range: LockRange) -> &mut Link {
        if range.is_single() {
            // A bucket for each index below `BUCKETS`.
            self.buckets
                .get_mut(range.bucket(BUCKETS))
                .unwrap_or(&mut self.ranges)
        } else {
            &mut self.ranges
        }
    }

    /// Shows `visit` all requests that overlap `range`, and others.
    fn for_each_near(&mut self, range: LockRange, mut visit: impl FnMut(&mut Cell)) {
        let buckets = if range.is_single() {
            let bucket = range.bucket(BUCKETS);
            self.buckets.get_mut(bucket..=bucket).unwrap_or_default()
        } else {
            &mut self.buckets
        };
        for mut link in buckets.iter_mut().chain(iter::once(&mut self.ranges)) {
            while let Some(cell) = link {
                visit(cell);
                link = &mut cell.next;
            }
        }
    }
}

/// The link that the request at `place` hangs on; the last link of the list if it is not there.
fn find(mut link: &mut Link, place: Place) -> &mut Link {
    while link.as_ref().is_some_and(|cell| cell.claim.place != place) {
        match link {
            Some(cell) => link = &mut cell.next,
            None => break,
        }
    }
    link
}

/// The last link of a list.
fn end(mut link: &mut Link) -> &mut Link {
    while let Some(cell) = link {
        link = &mut cell.next;
    }
    link
}
