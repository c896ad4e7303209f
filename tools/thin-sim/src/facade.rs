// SPDX-License-Identifier: GPL-2.0

//! What `core` needs from outside, for the host: the same names that `rust/facade.rs` has in the
//! kernel.
//!
//! Everything runs in one thread. What other processors might do meanwhile is done by
//! [`interrupt`], at each moment when it could make a difference: before a lock is taken, and after
//! it was released.

use std::{
    cell::{
        Cell,
        RefCell, //
    },
    collections::VecDeque,
    future::{
        poll_fn,
        Future, //
    },
    ops::{
        Deref,
        DerefMut, //
    },
    sync::{
        atomic::{
            AtomicUsize,
            Ordering, //
        },
        Mutex,
        MutexGuard, //
    },
    task::Poll,
};

use crate::core::errno::Result;
pub(crate) use crate::executor::{
    park,
    WakeToken, //
};

thread_local! {
    static INTERRUPT: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
    static MEMORY_IS_SHORT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body`, and `interrupt` whenever another processor could come in between. That is not
/// interrupted itself.
pub(crate) fn with_interrupts<R>(interrupt: impl FnMut() + 'static, body: impl FnOnce() -> R) -> R {
    INTERRUPT.set(Some(Box::new(interrupt)));
    let result = body();
    INTERRUPT.set(None);
    result
}

/// Another processor may do something now.
pub(crate) fn interrupt() {
    if let Some(mut run) = INTERRUPT.take() {
        run();
        INTERRUPT.set(Some(run));
    }
}

/// Lets there be no memory but that which is reserved, or ends this.
pub(crate) fn set_memory_is_short(short: bool) {
    MEMORY_IS_SHORT.set(short);
}

/// A value behind a lock that is held for a short time, with interrupts off.
pub(crate) struct IrqLock<T>(Mutex<T>);

impl<T> IrqLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Panics if the thread holds it already.
    pub(crate) fn lock(&self) -> IrqGuard<'_, T> {
        interrupt();
        IrqGuard {
            guard: Some(self.0.try_lock().expect("it would wait for itself")),
        }
    }
}

/// An [`IrqLock`] that is held.
pub(crate) struct IrqGuard<'a, T> {
    guard: Option<MutexGuard<'a, T>>,
}

impl<T> Deref for IrqGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("it is held until it is dropped")
    }
}

impl<T> DerefMut for IrqGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("it is held until it is dropped")
    }
}

impl<T> Drop for IrqGuard<'_, T> {
    fn drop(&mut self) {
        self.guard = None;
        if !std::thread::panicking() {
            interrupt();
        }
    }
}

/// A lock on a value. The name is for lockdep.
macro_rules! new_irq_lock {
    ($value:expr, $name:literal $(,)?) => {
        $crate::core::errno::Result::Ok($crate::facade::IrqLock::new($value))
    };
}
pub(crate) use new_irq_lock;

/// Values whose number does not change.
pub(crate) struct Slice<T>(Box<[T]>);

impl<T> Slice<T> {
    pub(crate) fn try_from_fn(
        length: usize,
        value: impl FnMut(usize) -> Result<T>,
    ) -> Result<Self> {
        (0..length).map(value).collect::<Result<_>>().map(Self)
    }
}

impl<T> Deref for Slice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

/// A value in memory of a [`CellPool`].
pub(crate) struct PoolBox<T>(Box<T>);

impl<T> Deref for PoolBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for PoolBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// Memory for values, of which some is in reserve.
pub(crate) struct CellPool<T> {
    reserve: usize,
    in_use: AtomicUsize,
    _values: std::marker::PhantomData<fn() -> T>,
}

impl<T> CellPool<T> {
    pub(crate) fn new(reserve: usize) -> Result<Self> {
        Ok(Self {
            reserve,
            in_use: AtomicUsize::new(0),
            _values: std::marker::PhantomData,
        })
    }

    pub(crate) fn try_get(&self, value: T) -> Option<PoolBox<T>> {
        if MEMORY_IS_SHORT.get() && self.in_use.load(Ordering::Relaxed) >= self.reserve {
            return None;
        }
        self.in_use.fetch_add(1, Ordering::Relaxed);
        Some(PoolBox(Box::new(value)))
    }

    pub(crate) fn put(&self, cell: PoolBox<T>) {
        let before = self.in_use.fetch_sub(1, Ordering::Relaxed);
        assert_ne!(before, 0, "a cell is put into a pool that it is not from");
        drop(cell);
    }
}

impl<T> Drop for CellPool<T> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(*self.in_use.get_mut(), 0, "a cell is lost");
        }
    }
}

/// Tasks that wait for something to be given back.
pub(crate) struct WaitList {
    state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    last_ticket: u64,
    sleepers: VecDeque<(u64, WakeToken)>,
}

impl WaitList {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            state: Mutex::default(),
        })
    }

    pub(crate) fn wait_for<'a, R>(
        &'a self,
        mut attempt: impl FnMut() -> Option<R> + Send + 'a,
    ) -> impl Future<Output = R> + Send + 'a {
        // When it began to wait; 0 before.
        let mut ticket = 0;
        poll_fn(move |context| {
            interrupt();
            let mut state = self.state.try_lock().expect("nobody waits in it");
            if let Some(result) = attempt() {
                return Poll::Ready(result);
            }
            if ticket == 0 {
                state.last_ticket += 1;
                ticket = state.last_ticket;
            }
            // Whoever has waited longest is the next, even if it has tried in vain before.
            let place = state.sleepers.partition_point(|(other, _)| *other < ticket);
            state.sleepers.insert(place, (ticket, park(context)));
            Poll::Pending
        })
    }

    pub(crate) fn wake_one(&self) {
        interrupt();
        let sleeper = self
            .state
            .try_lock()
            .expect("nobody waits in it")
            .sleepers
            .pop_front();
        if let Some((_, token)) = sleeper {
            token.wake();
        }
    }
}
