// SPDX-License-Identifier: GPL-2.0

//! How a task waits, and how it is woken.

use super::{
    queue_task,
    Header, //
};
use crate::bindings;
use core::{
    ptr::{
        self,
        NonNull, //
    },
    task::{
        Context,
        RawWaker,
        RawWakerVTable, //
    }, //
};

/// The permission to make a parked task run again, once.
///
/// A task that loses its token never runs again.
///
/// # Invariants
///
/// Points to the header of a task that is parked, or is being polled and will be when that poll
/// returns. There is no other token for it, so it neither runs nor ends before this one is used.
#[must_use = "the task never runs again if its token is lost"]
pub(crate) struct WakeToken(NonNull<Header>);

// SAFETY: A token does one thing, which any thread may do.
unsafe impl Send for WakeToken {}
// SAFETY: Nothing can be done with a reference to a token.
unsafe impl Sync for WakeToken {}

impl WakeToken {
    /// Makes the task run. Does not sleep; any context, also with spin locks held.
    ///
    /// The task may run, and its memory be gone, before this returns.
    pub(crate) fn wake(self) {
        // SAFETY: By the type invariant the task is parked, and this is the only token.
        unsafe { queue_task(self.0) };
    }
}

/// Parks the task that is being polled: gives out the token that makes it run again.
///
/// A future calls this in `poll`, gives the token to whoever ends the waiting, and returns `Pending`
/// without touching again what that one may use. Any context.
///
/// The task must not be parked already: it waits for one thing at a time. A future that violates that,
/// or returns something else than `Pending` afterwards, stops the machine, as the task's memory would
/// be used by nobody knows whom.
pub(crate) fn park(context: &mut Context<'_>) -> WakeToken {
    let waker = context.waker();
    let header = waker.data().cast_mut().cast::<Header>();
    let (true, Some(header)) = (ptr::eq(waker.vtable(), &TASK), NonNull::new(header)) else {
        // SAFETY: There is nothing that could go on.
        unsafe { bindings::BUG() };
    };
    // A waker with our functions is made by `run` only, for the task that is being polled; and a
    // context does not outlive the poll.
    // SAFETY: The header is valid. Only the worker that polls the task accesses `parked`.
    let parked = unsafe { header.as_ref().parked.replace(true) };
    if parked {
        // SAFETY: There is nothing that could go on.
        unsafe { bindings::BUG() };
    }
    // INVARIANT: The task is being polled, and was not parked.
    WakeToken(header)
}

/// The functions of the waker that a task's context has. It is good for nothing but [`park`].
static TASK: RawWakerVTable =
    RawWakerVTable::new(clone_waker, refuse_to_wake, refuse_to_wake, forget);

/// The functions of clones of it. They are good for nothing.
static CLONE: RawWakerVTable =
    RawWakerVTable::new(clone_waker, refuse_to_wake, refuse_to_wake, forget);

/// The waker of the task with this header, for the duration of a poll.
pub(super) fn raw_waker(header: *mut Header) -> RawWaker {
    RawWaker::new(header.cast_const().cast(), &TASK)
}

/// # Safety
///
/// None: it is `unsafe` because a [`RawWakerVTable`] wants it to be.
unsafe fn clone_waker(_: *const ()) -> RawWaker {
    kernel::warn_on!(true);
    // A clone may outlive the task, so it does not know it.
    RawWaker::new(ptr::null(), &CLONE)
}

/// # Safety
///
/// As for [`clone_waker`].
unsafe fn refuse_to_wake(_: *const ()) {
    kernel::warn_on!(true);
}

/// # Safety
///
/// As for [`clone_waker`].
unsafe fn forget(_: *const ()) {}
