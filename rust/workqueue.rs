// SPDX-License-Identifier: GPL-2.0

//! Workqueues that run one item at a time.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::{
    bindings,
    core::errno::{
        Errno,
        Result, //
    }, //
};
use core::ptr::NonNull;
use kernel::{
    fmt,
    prelude::*,
    str::CString, //
};

/// A workqueue that runs its items one after the other, in the order in which they were queued.
///
/// It makes progress even if there is no memory (`WQ_MEM_RECLAIM`).
///
/// Dropping it waits for all items, so it must not be dropped by one of them. There must be no
/// delayed work for it that has still to be queued.
///
/// # Invariants
///
/// Points to an ordered workqueue that is destroyed when this is dropped.
pub(crate) struct OrderedQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A workqueue can be used and destroyed by any thread.
unsafe impl Send for OrderedQueue {}
// SAFETY: Workqueues have locks of their own.
unsafe impl Sync for OrderedQueue {}

impl OrderedQueue {
    /// Makes a queue, whose workers have `name` as long as they serve it. Sleeps.
    ///
    /// Fails with `ENOMEM`.
    pub(crate) fn new(name: fmt::Arguments<'_>) -> Result<Self> {
        let name = CString::try_from_fmt(name)?;
        // SAFETY: The name is a valid string, which the function makes a copy of.
        let queue = unsafe { bindings::dm_thin_rs_alloc_ordered_queue(name.as_char_ptr()) };

        // INVARIANT: The queue was just made.
        NonNull::new(queue).map(Self).ok_or(Errno::ENOMEM)
    }

    /// Waits for everything that has been queued so far. Sleeps.
    ///
    /// Must not be called by an item of the queue.
    pub(crate) fn flush(&self) {
        // SAFETY: By the type invariant the queue is valid.
        unsafe { bindings::__flush_workqueue(self.as_ptr()) };
    }

    /// The queue, for C functions. It is valid as long as `self`.
    pub(crate) fn as_ptr(&self) -> *mut bindings::workqueue_struct {
        self.0.as_ptr()
    }
}

impl Drop for OrderedQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the queue is ours, and nobody uses it any more.
        unsafe { bindings::destroy_workqueue(self.as_ptr()) };
    }
}
