// SPDX-License-Identifier: GPL-2.0

//! Functions on their way to an owner, on a lockless list.

use core::ptr;
use kernel::sync::atomic::{
    Atomic,
    Full,
    Relaxed, //
};

/// A function on its way.
pub(super) struct Message<S> {
    next: *mut Message<S>,
    run: unsafe fn(*mut Message<S>, &mut S),
}

impl<S> Message<S> {
    /// A message that is on no list. `run` will be given the message.
    pub(super) fn new(run: unsafe fn(*mut Self, &mut S)) -> Self {
        Self {
            next: ptr::null_mut(),
            run,
        }
    }
}

/// Messages on their way to the owner.
///
/// # Invariants
///
/// A list of valid messages, linked by `next`, the latest first. They belong to the list.
pub(super) struct Messages<S>(Atomic<*mut Message<S>>);

impl<S> Messages<S> {
    pub(super) fn new() -> Self {
        // INVARIANT: There is none.
        Self(Atomic::new(ptr::null_mut()))
    }

    /// Puts a message on the list. Any context.
    ///
    /// # Safety
    ///
    /// `message` must be the first field of what its function takes it for, a [`Letter`] or a
    /// [`Question`], which stays valid, and which nobody else accesses, until it was answered.
    ///
    /// [`Letter`]: super::call::Letter
    /// [`Question`]: super::ask::Question
    pub(super) unsafe fn push(&self, message: *mut Message<S>) {
        let mut latest = self.0.load(Relaxed);
        loop {
            // SAFETY: By the requirements of this function; it is not on the list yet.
            unsafe { (*message).next = latest };
            // INVARIANT: The message is linked with the others.
            match self.0.cmpxchg(latest, message, Full) {
                Ok(_) => return,
                Err(now) => latest = now,
            }
        }
    }

    /// Runs the messages, the earliest first, until there are none.
    pub(super) fn run(&self, state: &mut S) {
        loop {
            let mut earliest = self.take();
            if earliest.is_null() {
                return;
            }
            while !earliest.is_null() {
                let message = earliest;
                // SAFETY: The messages that were taken are valid.
                earliest = unsafe { (*message).next };
                // SAFETY: As above.
                let run = unsafe { (*message).run };
                // SAFETY: By the requirements of `push`, the message is the first field of what `run`
                // was made for. It is not used any more.
                unsafe { run(message, state) };
            }
        }
    }

    /// Takes all messages, as a list with the earliest first.
    fn take(&self) -> *mut Message<S> {
        // INVARIANT: Nothing is left.
        let mut latest = self.0.xchg(ptr::null_mut(), Full);
        let mut list = ptr::null_mut();

        while !latest.is_null() {
            // SAFETY: By the type invariant the messages are valid, and now they are ours.
            let next = unsafe { &mut (*latest).next };
            let earlier = *next;
            *next = list;
            list = latest;
            latest = earlier;
        }
        list
    }
}

/// How far the sender of a message has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The message is to be sent.
    Written,
    /// As above, unless it can be run at once.
    WrittenForNow,
    /// The message is to be sent to the list of those that are run last.
    WrittenLast,
    /// The owner has it, or has answered it since.
    Sent,
    /// The answer was received.
    Answered,
}
