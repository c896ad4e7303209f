// SPDX-License-Identifier: GPL-2.0

//! Waiting in a task for a C function that calls back when it is done.

use crate::{
    bindings,
    task::{
        park,
        WakeToken, //
    }, //
};
use core::{
    cell::UnsafeCell,
    future::Future,
    marker::PhantomPinned,
    pin::Pin,
    ptr::NonNull,
    task::{
        Context,
        Poll, //
    }, //
};

/// What something comes to that was started, and who waits for it.
pub(crate) enum Outcome<R> {
    /// It has not been started.
    None,
    /// It is under way.
    Expected(WakeToken),
    /// It has come to this.
    Known(R),
}

impl<R> Outcome<R> {
    /// Tells the task what came of it. Any context.
    ///
    /// The outcome may be gone when this returns.
    ///
    /// # Safety
    ///
    /// Must be called once for each outcome that the function given to [`wait`] was called with.
    pub(crate) unsafe fn resolve(outcome: NonNull<Self>, result: R) {
        // SAFETY: By the requirements of this function the task waits, so the outcome is valid and
        // nobody else accesses it.
        let before = unsafe { outcome.replace(Self::Known(result)) };
        if let Self::Expected(sleeper) = before {
            sleeper.wake();
        }
    }
}

/// Calls `start`, and resolves to the outcome.
///
/// # Safety
///
/// `start` must see to it that [`Outcome::resolve`] is called once for the outcome it is given, at any
/// time and by anybody, and not touch the outcome otherwise.
pub(crate) unsafe fn wait<'a, R, F>(start: F) -> impl Future<Output = R> + Send + 'a
where
    R: Send + 'a,
    F: FnOnce(NonNull<Outcome<R>>) + Send + 'a,
{
    Wait {
        start: Some(start),
        outcome: UnsafeCell::new(Outcome::None),
        _pin: PhantomPinned,
    }
}

/// See [`wait`].
///
/// # Invariants
///
/// From the moment `start` is taken until the task is polled again, `outcome` belongs to who will
/// resolve it.
struct Wait<R, F> {
    start: Option<F>,
    outcome: UnsafeCell<Outcome<R>>,
    _pin: PhantomPinned,
}

// SAFETY: The outcome is passed on, and comes back, with the waking of the task.
unsafe impl<R: Send, F: Send> Send for Wait<R, F> {}

impl<R, F: FnOnce(NonNull<Outcome<R>>)> Future for Wait<R, F> {
    type Output = R;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R> {
        // SAFETY: Nothing is moved that others point to.
        let this = unsafe { self.get_unchecked_mut() };
        let outcome = NonNull::from(&this.outcome);
        let outcome: NonNull<Outcome<R>> = outcome.cast();

        if let Some(start) = this.start.take() {
            // SAFETY: Nobody else knows the outcome yet.
            unsafe { outcome.write(Outcome::Expected(park(context))) };
            // INVARIANT: It is passed on. It is pinned, and `drop` does not let it go before it was
            // resolved.
            start(outcome);
            return Poll::Pending;
        }
        // A task runs again when it was woken, and that is done after the outcome was resolved.
        // SAFETY: By the type invariant it is ours again.
        match unsafe { outcome.replace(Outcome::None) } {
            Outcome::Known(result) => Poll::Ready(result),
            // It was resolved and taken before.
            Outcome::None | Outcome::Expected(_) => {
                // SAFETY: There is nothing that could go on.
                unsafe { bindings::BUG() }
            }
        }
    }
}

impl<R, F> Drop for Wait<R, F> {
    fn drop(&mut self) {
        if matches!(self.outcome.get_mut(), Outcome::Expected(_)) {
            // Tasks are not dropped before they have finished. If this one was, somebody would write
            // to its memory later.
            // SAFETY: There is nothing that could go on.
            unsafe { bindings::BUG() };
        }
    }
}
