// SPDX-License-Identifier: GPL-2.0

//! Locks on blocks, version 2 of what device-mapper calls a bio prison.
//!
//! A lock is on one block or on several neighbouring ones, virtual or data blocks, and really covers
//! all of them. Modes say who gets on with whom:
//!
//! ```text
//!                   Read   Write   ExcludeWriters   ExcludeAll
//! Read               yes    yes         yes             no
//! Write              yes    yes         no              no
//! ExcludeWriters     yes    no          no              no
//! ExcludeAll         no     no          no              no
//! ```
//!
//! Whoever asks for a lock stands in line: a request waits for those ahead of it that it conflicts
//! with, whether they are held or wait themselves. So nobody is overtaken by somebody in his way, a
//! stream of readers does not keep a writer out, and there is no deadlock among requests for one
//! lock each. Who holds a lock on virtual blocks may ask for one on data blocks, but not the other
//! way round.
//!
//! To wait for those who use a block is to lock it for [`ExcludeAll`]; there is nothing else to wait
//! for.
//!
//! All blocks of a region are in the same of several *lines*, each with a spin lock of its own.
//! Requests are in memory that has a reserve, see [`cells`].

mod cells;
mod line;
mod range;

pub(crate) use self::range::{
    LockRange,
    Mode, //
};

use self::{
    cells::Cells,
    line::{
        Cell,
        Line,
        Place, //
    },
    range::Space, //
};
use super::errno::Result;
use crate::facade::{
    new_irq_lock,
    park,
    IrqLock,
    Slice, //
};
use core::{
    future::Future,
    marker::PhantomData,
    mem,
    pin::Pin,
    task::{
        Context,
        Poll, //
    }, //
};

/// A kind of lock, as a type.
pub(crate) trait LockMode: Copy + Send + Sync {
    /// The mode that it stands for.
    fn mode(self) -> Mode;
}

/// A lock that others can hold at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shared {
    /// For reading.
    Read,
    /// For writing.
    Write,
}

impl LockMode for Shared {
    fn mode(self) -> Mode {
        match self {
            Self::Read => Mode::Read,
            Self::Write => Mode::Write,
        }
    }
}

/// A lock that others can hold at the same time for reading only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExcludeWriters;

impl LockMode for ExcludeWriters {
    fn mode(self) -> Mode {
        Mode::ExcludeWriters
    }
}

/// A lock that nobody else can hold at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExcludeAll;

impl LockMode for ExcludeAll {
    fn mode(self) -> Mode {
        Mode::ExcludeAll
    }
}

/// Why a lock was not to be had at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Somebody is in the way.
    Busy,
    /// There is no memory at the moment.
    NoMemory,
}

/// The locks of a pool.
pub(crate) struct Prison {
    lines: Slice<IrqLock<Line>>,
    /// The line for what belongs to none of the others, so that there is always one.
    last_line: IrqLock<Line>,
    /// Memory for locks on virtual blocks, apart from that for data blocks: who holds a cell of the
    /// one kind may need one of the other kind in order to go on.
    virtual_cells: Cells,
    data_cells: Cells,
}

impl Prison {
    /// A prison of `shards` lines, at least one, with memory for as many locks of each kind even if
    /// memory is short. Sleeps; fails with `ENOMEM`.
    pub(crate) fn new(shards: usize) -> Result<Self> {
        let shards = shards.max(1);
        let line = |_| new_irq_lock!(Line::new(), "prison");
        Ok(Self {
            lines: Slice::try_from_fn(shards.saturating_sub(1), line)?,
            last_line: line(shards)?,
            virtual_cells: Cells::new(shards)?,
            data_cells: Cells::new(shards)?,
        })
    }

    /// Takes a lock if that is possible now. Does not sleep; process context.
    pub(crate) fn try_lock<M: LockMode>(
        &self,
        range: LockRange,
        mode: M,
    ) -> core::result::Result<Guard<'_, M>, Refused> {
        let cells = self.cells(range);
        let cell = cells
            .try_get(Cell::new(range, mode.mode()))
            .ok_or(Refused::NoMemory)?;
        let entered = self.line(range).lock().enter_if_free(cell);
        match entered {
            // INVARIANT: The request has been granted.
            Ok(place) => Ok(Guard::new(Request {
                prison: self,
                place,
            })),
            Err(cell) => {
                cells.put(cell);
                Err(Refused::Busy)
            }
        }
    }

    /// Takes a lock, as soon as those ahead who are in the way have gone.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` keeps its arguments twice, and a bio has no memory to spare"
    )]
    pub(crate) fn lock<'a, M: LockMode + 'a>(
        &'a self,
        range: LockRange,
        mode: M,
    ) -> impl Future<Output = Guard<'a, M>> + Send + 'a {
        async move {
            let cell = self
                .cells(range)
                .get(|| Cell::new(range, mode.mode()))
                .await;
            let (place, granted) = self.line(range).lock().enter(cell);
            let request = Request {
                prison: self,
                place,
            };
            Guard::new(Turn::new(request, granted).await)
        }
    }

    /// Gives back a lock that was [kept](Guard::keep). Any context.
    pub(crate) fn release(&self, lock: HeldLock) {
        self.leave(lock.0);
    }

    fn line(&self, range: LockRange) -> &IrqLock<Line> {
        let shards = self.lines.len().saturating_add(1);
        self.lines
            .get(range.shard(shards))
            .unwrap_or(&self.last_line)
    }

    fn cells(&self, range: LockRange) -> &Cells {
        if range.space() == Space::DATA {
            &self.data_cells
        } else {
            &self.virtual_cells
        }
    }

    fn leave(&self, place: Place) {
        let left = self.line(place.range()).lock().leave(place);
        if let Some(cell) = left {
            self.cells(place.range()).put(cell);
        }
    }

    /// Whether nobody holds a lock or waits for one.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        let mut lines = self.lines.iter().chain([&self.last_line]);
        lines.all(|line| line.lock().is_empty())
    }
}

/// A request in the line of a prison. It leaves when this is dropped.
struct Request<'prison> {
    prison: &'prison Prison,
    place: Place,
}

impl Request<'_> {
    /// Changes the request where it stands.
    fn change<R>(&mut self, change: impl FnOnce(&mut Line, Place) -> (Place, R)) -> R {
        let mut line = self.prison.line(self.place.range()).lock();
        let (place, result) = change(&mut line, self.place);
        self.place = place;
        result
    }

    /// Takes the place out, for which the caller answers from now on.
    fn into_place(self) -> Place {
        let place = self.place;
        mem::forget(self);
        place
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.prison.leave(self.place);
    }
}

/// Waits until it is a request's turn.
struct Turn<'prison> {
    request: Option<Request<'prison>>,
    /// Whether there was nothing to wait for to begin with.
    granted: bool,
}

impl<'prison> Turn<'prison> {
    fn new(request: Request<'prison>, granted: bool) -> Self {
        Self {
            request: Some(request),
            granted,
        }
    }
}

impl<'prison> Future for Turn<'prison> {
    type Output = Request<'prison>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let (false, Some(request)) = (self.granted, &self.request) {
            let place = request.place;
            let mut line = request.prison.line(place.range()).lock();
            if line.wait(place, || park(context)) {
                return Poll::Pending;
            }
        }
        match self.request.take() {
            Some(request) => Poll::Ready(request),
            // Only for somebody who polls it again after that.
            None => Poll::Pending,
        }
    }
}

/// See [`Guard::upgrade`].
struct Upgrading<'prison> {
    turn: Turn<'prison>,
    /// Whether it is another's turn, in fact, after which this one gets nothing.
    look_again: bool,
}

impl<'prison> Future for Upgrading<'prison> {
    type Output = Option<Guard<'prison, ExcludeWriters>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let look_again = self.look_again;
        Pin::new(&mut self.turn)
            .poll(context)
            // INVARIANT: Who follows nobody has been granted the lock.
            .map(|request| (!look_again).then(|| Guard::new(request)))
    }
}

/// See [`Guard::promote`].
struct Promoting<'prison>(Turn<'prison>);

impl<'prison> Future for Promoting<'prison> {
    type Output = Guard<'prison, ExcludeAll>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // INVARIANT: When its turn has come, the lock excludes all.
        Pin::new(&mut self.0).poll(context).map(Guard::new)
    }
}

/// A lock. It is given back when this is dropped.
///
/// # Invariants
///
/// The request has been granted, with a mode that `M` stands for.
#[must_use]
pub(crate) struct Guard<'prison, M> {
    request: Request<'prison>,
    _mode: PhantomData<M>,
}

impl<'prison, M: LockMode> Guard<'prison, M> {
    /// The caller answers for the invariants.
    fn new(request: Request<'prison>) -> Self {
        Self {
            request,
            _mode: PhantomData,
        }
    }
}

impl<'prison> Guard<'prison, Shared> {
    /// Exchanges the lock for an exclusive one.
    ///
    /// That is not done at one stroke, since two who shared the block would wait for each other: the
    /// shared lock is given up, so what it protected may have changed. `None` if it probably has:
    /// somebody else has had, or was waiting for, the exclusive lock before, and is done with it.
    pub(crate) fn upgrade(
        mut self,
    ) -> impl Future<Output = Option<Guard<'prison, ExcludeWriters>>> + Send {
        let outcome = self.request.change(Line::upgrade);
        let granted = matches!(outcome, line::Upgrade::Granted);
        Upgrading {
            turn: Turn::new(self.request, granted),
            look_again: matches!(outcome, line::Upgrade::Following),
        }
    }

    /// Makes the lock one that lasts until it is [released](Prison::release), by anybody.
    pub(crate) fn keep(self) -> HeldLock {
        HeldLock(self.request.into_place())
    }
}

impl<'prison> Guard<'prison, ExcludeWriters> {
    /// Excludes readers as well: new ones from now on, and those who are there are waited for. Nobody
    /// else comes in between.
    pub(crate) fn promote(mut self) -> impl Future<Output = Guard<'prison, ExcludeAll>> + Send {
        let granted = self.request.change(Line::promote);
        Promoting(Turn::new(self.request, granted))
    }

    /// Exchanges the lock for a shared one, without letting go of the block.
    pub(crate) fn downgrade(self, mode: Shared) -> Guard<'prison, Shared> {
        weaken(self.request, mode)
    }
}

impl<'prison> Guard<'prison, ExcludeAll> {
    /// Exchanges the lock for a shared one, without letting go of the block.
    pub(crate) fn downgrade(self, mode: Shared) -> Guard<'prison, Shared> {
        weaken(self.request, mode)
    }
}

fn weaken(mut request: Request<'_>, mode: Shared) -> Guard<'_, Shared> {
    request.change(|line, place| {
        line.weaken(place, mode.mode());
        (place, ())
    });
    // INVARIANT: The lock was stronger.
    Guard::new(request)
}

/// A shared lock that nobody's scope holds. To be given to [`Prison::release`], or it stays for ever.
#[must_use]
pub(crate) struct HeldLock(Place);
