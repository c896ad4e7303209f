// SPDX-License-Identifier: GPL-2.0

//! Functions that see to an answer, now or later.

use super::{
    message::{
        Message,
        Progress, //
    },
    Owned,
    Owner, //
};
use crate::{
    answer::{
        Asker,
        Place, //
    },
    bindings,
    task::park, //
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

impl<S: Owned> Owner<S> {
    /// Runs `function` on the state, and resolves to what the [`Asker`] that it is given gets as the
    /// answer. That may be much later, by another function that runs on the queue.
    pub(crate) fn ask<'a, F, R>(&'a self, function: F) -> impl Future<Output = R> + Send + 'a
    where
        F: FnOnce(&mut S, Asker<R>) + Send + 'a,
        R: Send + 'a,
    {
        Ask {
            owner: self,
            progress: Progress::Written,
            question: UnsafeCell::new(Question {
                message: Message::new(Question::<S, F, R>::run),
                function: Some(function),
                place: Place::new(),
            }),
            _pin: PhantomPinned,
        }
    }
}

/// A function on its way to the owner that has to see to an answer, and a place for that.
#[repr(C)]
pub(super) struct Question<S, F, R> {
    message: Message<S>,
    function: Option<F>,
    place: Place<R>,
}

impl<S, F: FnOnce(&mut S, Asker<R>), R> Question<S, F, R> {
    /// Passes the question on.
    ///
    /// # Safety
    ///
    /// `message` must be the first field of a question of this type that nobody else accesses before
    /// it was answered, and whose place is prepared.
    unsafe fn run(message: *mut Message<S>, state: &mut S) {
        let question = message.cast::<Self>();
        // SAFETY: By the requirements of this function.
        let function = unsafe { (*question).function.take() };
        // SAFETY: As above.
        let place = unsafe { NonNull::new_unchecked(&raw mut (*question).place) };
        // SAFETY: The place was prepared, and the task waits for it to be filled.
        let asker = unsafe { Asker::new(place) };

        if let Some(function) = function {
            function(state, asker);
        }
    }
}

/// The answer to come, perhaps much later.
///
/// # Invariants
///
/// From the moment it is sent until the task runs again, `question` belongs to the owner.
struct Ask<'a, S: Owned, F, R> {
    owner: &'a Owner<S>,
    progress: Progress,
    question: UnsafeCell<Question<S, F, R>>,
    _pin: PhantomPinned,
}

// SAFETY: The question is passed to the owner, and comes back, with the waking of the task.
unsafe impl<S: Owned, F: Send, R: Send> Send for Ask<'_, S, F, R> {}

impl<S: Owned, F: FnOnce(&mut S, Asker<R>), R> Future for Ask<'_, S, F, R> {
    type Output = R;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R> {
        // SAFETY: Nothing is moved that others point to.
        let this = unsafe { self.get_unchecked_mut() };
        let question = this.question.get();

        match this.progress {
            Progress::Written | Progress::WrittenForNow | Progress::WrittenLast => {
                // SAFETY: The question has not been sent.
                unsafe { (*question).place.prepare(park(context)) };
                this.progress = Progress::Sent;
                // INVARIANT: The question is passed to the owner.
                // SAFETY: The message is the first field of the question, which is pinned, and which
                // `drop` does not let go before it was answered.
                unsafe { this.owner.send(&this.owner.messages, question.cast()) };
                Poll::Pending
            }
            Progress::Sent => {
                this.progress = Progress::Answered;
                // A task runs again when it was woken, and that is done after the answer was written.
                // SAFETY: By the type invariant the question is ours again.
                let place = unsafe { &mut (*question).place };
                match place.take() {
                    Some(answer) => Poll::Ready(answer),
                    // SAFETY: There is nothing that could go on.
                    None => unsafe { bindings::BUG() },
                }
            }
            // SAFETY: As above.
            Progress::Answered => unsafe { bindings::BUG() },
        }
    }
}

impl<S: Owned, F, R> Drop for Ask<'_, S, F, R> {
    fn drop(&mut self) {
        if self.progress == Progress::Sent {
            // SAFETY: The owner would write to memory of somebody else. There is nothing that could
            // go on.
            unsafe { bindings::BUG() };
        }
    }
}
