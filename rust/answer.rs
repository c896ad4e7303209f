// SPDX-License-Identifier: GPL-2.0

//! Answers that tasks wait for until somebody has one.
//!
//! The place for the answer lies in the task's memory, so as many tasks can wait as there are.

use crate::task::WakeToken;
use core::{
    marker::PhantomData,
    mem,
    ptr::{
        self,
        NonNull, //
    }, //
};

/// Where a task waits for an answer.
pub(crate) struct Place<R> {
    /// The place of who came next to the same list.
    next: *mut Place<R>,
    answer: Option<R>,
    sleeper: Option<WakeToken>,
}

impl<R> Place<R> {
    /// A place that nobody waits at.
    pub(crate) const fn new() -> Self {
        Self {
            next: ptr::null_mut(),
            answer: None,
            sleeper: None,
        }
    }

    /// Makes the task wait here that `sleeper` wakes.
    pub(crate) fn prepare(&mut self, sleeper: WakeToken) {
        self.sleeper = Some(sleeper);
    }

    /// Takes the answer, if there is one.
    pub(crate) fn take(&mut self) -> Option<R> {
        self.answer.take()
    }
}

/// A task that waits for an answer. It has to get one.
///
/// # Invariants
///
/// Points to a place that a task waits at, and that nobody else accesses before it got an answer.
#[must_use = "a task that gets no answer waits for ever"]
pub(crate) struct Asker<R>(NonNull<Place<R>>);

// SAFETY: An asker is a permission to write an `R` for another thread.
unsafe impl<R: Send> Send for Asker<R> {}

impl<R> Asker<R> {
    /// # Safety
    ///
    /// [`Place::prepare`] must have been called for `place`. It must be valid, and nobody else access
    /// it, until it got an answer.
    pub(crate) unsafe fn new(place: NonNull<Place<R>>) -> Self {
        // INVARIANT: By the requirements of this function.
        Self(place)
    }

    /// Gives the task its answer. Any context.
    pub(crate) fn answer(self, answer: R) {
        let mut place = self.0;

        mem::forget(self);
        // SAFETY: By the type invariant.
        let place = unsafe { place.as_mut() };
        place.answer = Some(answer);
        if let Some(sleeper) = place.sleeper.take() {
            sleeper.wake();
        }
    }
}

impl<R> Drop for Asker<R> {
    fn drop(&mut self) {
        // The task hangs now.
        kernel::warn_on!(true);
    }
}

/// Tasks that wait for an answer, in the order in which they came.
///
/// # Invariants
///
/// The list, linked by `next` from `first` to `last` and ended by null, consists of places that an
/// [`Asker`] could point to; those have become this list.
pub(crate) struct Askers<R> {
    first: *mut Place<R>,
    last: *mut Place<R>,
    _askers: PhantomData<Asker<R>>,
}

// SAFETY: The list is as good as those on it.
unsafe impl<R: Send> Send for Askers<R> {}

impl<R> Askers<R> {
    /// Nobody.
    pub(crate) const fn new() -> Self {
        // INVARIANT: The list is empty.
        Self {
            first: ptr::null_mut(),
            last: ptr::null_mut(),
            _askers: PhantomData,
        }
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// Lets one more task wait.
    pub(crate) fn push(&mut self, asker: Asker<R>) {
        let place = asker.0.as_ptr();

        mem::forget(asker);
        // SAFETY: By the type invariant of the asker, which is gone.
        unsafe { (*place).next = ptr::null_mut() };
        // INVARIANT: The place is linked behind the others.
        if self.is_empty() {
            self.first = place;
        } else {
            // SAFETY: By the type invariant.
            unsafe { (*self.last).next = place };
        }
        self.last = place;
    }

    /// Takes the one out that waits longest.
    pub(crate) fn pop(&mut self) -> Option<Asker<R>> {
        let first = NonNull::new(self.first)?;

        // INVARIANT: What is left is linked as before.
        // SAFETY: By the type invariant.
        self.first = unsafe { first.as_ref() }.next;
        // INVARIANT: It could be pointed to by an asker, by the type invariant, and is on no list now.
        Some(Asker(first))
    }

    /// Gives all who wait now the same answer.
    pub(crate) fn answer_all(&mut self, answer: R)
    where
        R: Clone,
    {
        // Who is woken may come back before this returns, but not to this list, which is borrowed.
        while let Some(asker) = self.pop() {
            asker.answer(answer.clone());
        }
    }
}

impl<R> Drop for Askers<R> {
    fn drop(&mut self) {
        // Each one warns.
        while self.pop().is_some() {}
    }
}
