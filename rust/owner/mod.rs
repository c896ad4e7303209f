// SPDX-License-Identifier: GPL-2.0

//! Values that belong to one queue, and messages to them.
//!
//! An [`Owner`] keeps a value that is accessed by one function at a time. Whoever wants something of
//! it sends a function that is run on the owner's ordered queue: tasks wait for the answer by
//! [`Owner::call`], threads by [`Owner::call_and_wait`]. A message lies in the memory of who sends it,
//! so sending needs no memory and cannot fail, and takes no lock.
//!
//! What is done quickly need not go there and back if nobody else is at the value, see
//! [`Owner::call_at_once`]. That is why there is a lock; on the queue it is rarely waited for.
//!
//! Tasks are not dropped while they wait, see [`crate::task`], so a message stays valid until it was
//! answered. Should somebody drop a call that was sent, the machine is stopped.

mod ask;
mod call;
mod message;

use crate::{
    bindings,
    noio::NoIoScope,
    workqueue::OrderedQueue, //
};
use core::{
    marker::PhantomPinned,
    pin::Pin, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Mutex, //
    },
    types::Opaque, //
};
use message::{
    Message,
    Messages, //
};

/// A value that an [`Owner`] can keep.
pub(crate) trait Owned: Send + Unpin {
    /// Called once a second between [`Owner::start_ticking`] and [`Owner::stop_ticking`].
    fn tick(&mut self) {}
}

/// Keeps a value that only its queue accesses.
///
/// Dropping it waits for the queue, so that must not be done by what runs there. Functions run in
/// process context and may sleep, but their memory must not depend on I/O; they must not wait for
/// another function of the same owner.
///
/// # Invariants
///
/// - `work` and `ticker` are queued to `queue` only.
/// - The messages of both lists are valid until they are run. They are run after `work` was queued.
#[pin_data(PinnedDrop)]
pub(crate) struct Owner<S: Owned> {
    queue: OrderedQueue,
    #[pin]
    state: Mutex<S>,
    messages: Messages<S>,
    /// Those that are run when there are no others.
    last_messages: Messages<S>,
    #[pin]
    work: Opaque<bindings::work_struct>,
    #[pin]
    ticker: Opaque<bindings::delayed_work>,
    ticking: Atomic<bool>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: Messages can be run, and work items be cancelled, by any thread.
unsafe impl<S: Owned> Send for Owner<S> {}
// SAFETY: The state is behind a lock, and the lists are made for concurrent use.
unsafe impl<S: Owned> Sync for Owner<S> {}

impl<S: Owned> Owner<S> {
    /// Keeps `state` for `queue`.
    pub(crate) fn new(queue: OrderedQueue, state: S) -> impl PinInit<Self> {
        pin_init!(Self {
            queue,
            state <- new_mutex!(state),
            messages: Messages::new(),
            last_messages: Messages::new(),
            // SAFETY: `work` points to memory for a work item.
            work <- Opaque::ffi_init(|work| unsafe {
                bindings::dm_thin_rs_init_owner_work(work, Some(run::<S>));
            }),
            // SAFETY: `ticker` points to memory for a delayed work item.
            ticker <- Opaque::ffi_init(|ticker| unsafe {
                bindings::dm_thin_rs_init_ticker_work(ticker, Some(tick::<S>));
            }),
            ticking: Atomic::new(false),
            _pin: PhantomPinned,
        })
    }

    /// Puts a message on a list, and sees to it that it is run. Any context.
    ///
    /// # Safety
    ///
    /// As for [`Messages::push`].
    unsafe fn send(&self, list: &Messages<S>, message: *mut Message<S>) {
        // SAFETY: By the requirements of this function.
        unsafe { list.push(message) };
        // If it is queued already, it has not begun to run, and will see the message.
        // SAFETY: The work item was initialised, and stays valid until the queue is gone.
        unsafe { bindings::dm_thin_rs_queue_work(self.queue.as_ptr(), self.work.get()) };
    }

    /// Has [`Owned::tick`] called on the queue: now, and then once a second. Does not sleep.
    pub(crate) fn start_ticking(&self) {
        self.ticking.store(true, Relaxed);
        self.tick_in(0);
    }

    /// Ends that. Sleeps until the last tick is over.
    ///
    /// Must not be called by what runs on the queue, nor at the same time as [`Self::start_ticking`].
    pub(crate) fn stop_ticking(&self) {
        self.ticking.store(false, Relaxed);
        // SAFETY: The work item was initialised. Should it queue itself at this moment, the function
        // sees to it.
        unsafe { bindings::cancel_delayed_work_sync(self.ticker.get()) };
    }

    fn tick_in(&self, jiffies: usize) {
        // SAFETY: The work item was initialised. It is cancelled before the queue goes.
        unsafe {
            bindings::dm_thin_rs_queue_delayed_work(
                self.queue.as_ptr(),
                self.ticker.get(),
                jiffies,
            );
        }
    }
}

#[pinned_drop]
impl<S: Owned> PinnedDrop for Owner<S> {
    fn drop(self: Pin<&mut Self>) {
        // Destroying the queue, which comes next, does not wait for timers.
        self.stop_ticking();
    }
}

/// Runs all messages.
///
/// # Safety
///
/// Must be called by the workqueue only, for the `work` of an `Owner<S>`.
unsafe extern "C" fn run<S: Owned>(work: *mut bindings::work_struct) {
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "what `container_of!` consists of is not for us to see"
    )]
    // SAFETY: `work` is the field of that name of an `Owner<S>`.
    let owner = unsafe { kernel::container_of!(Opaque::cast_from(work), Owner<S>, work) };
    // SAFETY: An owner waits for its queue to be idle before it goes.
    let owner = unsafe { &*owner };
    let _noio = NoIoScope::new();
    let mut state = owner.state.lock();

    owner.messages.run(&mut state);
    owner.last_messages.run(&mut state);
}

/// Ticks.
///
/// # Safety
///
/// Must be called by the workqueue only, for the `ticker` of an `Owner<S>`.
unsafe extern "C" fn tick<S: Owned>(work: *mut bindings::work_struct) {
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "what `container_of!` consists of is not for us to see"
    )]
    // SAFETY: `work` lies within a delayed work item.
    let ticker = unsafe { kernel::container_of!(work, bindings::delayed_work, work) };
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "what `container_of!` consists of is not for us to see"
    )]
    // SAFETY: That one is the field of that name of an `Owner<S>`.
    let owner = unsafe { kernel::container_of!(Opaque::cast_from(ticker), Owner<S>, ticker) };
    // SAFETY: An owner waits for its ticker before it goes.
    let owner = unsafe { &*owner };
    let _noio = NoIoScope::new();

    if owner.ticking.load(Relaxed) {
        owner.state.lock().tick();
        owner.tick_in(bindings::HZ as usize);
    }
}
