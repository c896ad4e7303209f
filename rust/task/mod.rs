// SPDX-License-Identifier: GPL-2.0

//! One asynchronous task per bio, in memory that the bio already carries.
//!
//! A bio that cannot be remapped at once is served by an `async fn`, [`Serve::serve`]. The state
//! machine that the compiler makes of it is stored in the bio's per-bio data, next to a
//! `work_struct` that schedules it on a concurrency-1 workqueue. Nothing is allocated, nothing is
//! reference-counted, and there is no run list besides the workqueue's own.
//!
//! The future never owns its bio. It returns a [`Verdict`] that says what is to become of the bio,
//! and the executor carries that out after the future is gone, because handing a bio on may free
//! the memory that both live in before the function doing so returns.
//!
//! A future that has to wait *parks* its task: [`park`] gives out the one [`WakeToken`] that makes
//! the task run again. Whatever the future waits for keeps the token and uses it once.
//!
//! # Invariants
//!
//! - (One place) A task is queued, or being polled, or parked with its single [`WakeToken`] held
//!   by exactly one source of wake-ups. Only [`defer`] and [`WakeToken::wake`] queue it.
//! - (One queue) A task stays on the queue it was first put on. That queue runs one item at a time,
//!   so two polls of a task never overlap, although a wake-up may come before the poll that parked
//!   the task has returned.
//! - (Result first) A source writes its result before it wakes the task and does not touch the
//!   task's memory afterwards. `queue_work()` orders the two.
//! - (Last access) The future is dropped and everything that is still needed is moved out before
//!   the bio is handed on. Handing it on is the last access to the task.
//! - (No cancellation) A parked task is never dropped. What it waits for must end, with an error if
//!   need be. Device-mapper waits for every bio in flight before it destroys a target, so tasks
//!   may borrow their target.
//!
//! C headers: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h),
//! [`include/linux/device-mapper.h`](srctree/include/linux/device-mapper.h)

mod per_bio;
mod verdict;
mod wake;

pub(crate) use per_bio::{
    begin,
    end_io,
    keep,
    per_bio_size, //
};
pub(crate) use verdict::Verdict;
pub(crate) use wake::{
    park,
    WakeToken, //
};

use crate::{
    bindings,
    block_device::OpenBlockDevice,
    core::{
        errno::{
            Errno,
            Result, //
        },
        units::Sector, //
    },
    dm::target::Target,
    noio::NoIoScope,
    outcome::{
        self,
        Outcome, //
    },
    workqueue::OrderedQueue, //
};
use core::{
    cell::Cell,
    ffi::c_void,
    future::Future,
    marker::PhantomData,
    mem::ManuallyDrop,
    pin::Pin,
    ptr::{
        self,
        NonNull, //
    },
    task::{
        Context,
        Poll,
        Waker, //
    }, //
};
use kernel::{
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    types::Opaque, //
};
use per_bio::{
    bio_of,
    set_stage,
    task_of,
    Stage, //
};
use verdict::{
    carry_out,
    submit, //
};
use wake::raw_waker;

/// A target whose bios may need more than [`Target::map`] can do without sleeping.
pub(crate) trait Serve: Target {
    /// What a task is told about its bio.
    type Request: Send;

    /// What is kept with a remapped bio until its I/O has ended.
    type Hook: Send;

    /// Decides what becomes of a bio.
    ///
    /// Runs on the queue that was given to [`defer`], in process context, without being allowed to
    /// start I/O in order to get memory.
    fn serve<'a>(
        &'a self,
        bio: TaskBio<'a, Self>,
        request: Self::Request,
    ) -> impl Future<Output = Verdict<Self::Hook>> + Send + 'a;

    /// The device that remapped bios go to. Stays the same for the life of the target.
    fn data_device(&self) -> &OpenBlockDevice;

    /// The device that [`Verdict::ReadOrigin`] is about, if there is one. Stays the same, too.
    fn origin_device(&self) -> Option<&OpenBlockDevice> {
        None
    }

    /// The I/O of a bio that was remapped with `hook` has ended. May be called in any context.
    fn end_io(&self, hook: Self::Hook);
}

/// The bio of a task, as long as the task has not returned its verdict.
///
/// # Invariants
///
/// Points to the bio whose per-bio data holds the task.
pub(crate) struct TaskBio<'a, T> {
    bio: NonNull<bindings::bio>,
    /// Whether it was submitted by the task.
    submitted: Atomic<bool>,
    _target: PhantomData<&'a T>,
}

// SAFETY: The workers that poll a task take turns, and only the task uses its bio.
unsafe impl<T: Sync> Send for TaskBio<'_, T> {}
// SAFETY: A task is polled by one worker at a time.
unsafe impl<T: Sync> Sync for TaskBio<'_, T> {}

impl<'a, T: Serve> TaskBio<'a, T> {
    /// Submits the bio to `sector` of the data device of `target`, whose bio it must be, and
    /// resolves to how that went.
    ///
    /// The bio can be submitted once only: another attempt fails, and [`Verdict::Remap`] must not
    /// follow.
    pub(crate) fn submit<'b>(
        &'b self,
        target: &'a T,
        sector: Sector,
    ) -> impl Future<Output = Result> + Send + 'b {
        let start = move |outcome: NonNull<Outcome<Result>>| {
            let bio = self.bio.as_ptr();
            if self.submitted.xchg(true, Relaxed) {
                // SAFETY: This is the one time that the outcome is resolved.
                unsafe { Outcome::resolve(outcome, Err(Errno::EIO)) };
                return;
            }
            // SAFETY: The bio has a task: the one that is being polled.
            let header = unsafe { task_of::<T, ()>(bio) }.cast::<Header>();
            // SAFETY: As above, and only the worker that polls it and `end_io`, which has not been
            // called yet, access the field.
            unsafe { (*header).outcome = outcome.as_ptr() };
            // SAFETY: The bio is ours; the target keeps its data device open until its bios have
            // ended. The task may be woken, but not be polled, before we return.
            unsafe { submit(bio, target.data_device(), sector) };
        };
        // SAFETY: `end_io` resolves the outcome, unless that was done at once.
        unsafe { outcome::wait(start) }
    }
}

/// A task: a future, and what it takes to run it.
///
/// # Invariants
///
/// `header` comes first.
#[repr(C)]
struct Task<F> {
    header: Header,
    future: F,
}

/// What the executor knows about a task.
///
/// # Invariants
///
/// `work` comes first.
#[repr(C)]
struct Header {
    /// What the queue runs; it calls [`run`].
    work: Opaque<bindings::work_struct>,
    /// The queue that the task stays on.
    queue: *mut bindings::workqueue_struct,
    /// The target that the bio belongs to.
    target: *const c_void,
    /// Who waits for the I/O of the bio; null if nobody does.
    outcome: *mut Outcome<Result>,
    /// Whether the task's token was given out since it was polled last.
    parked: Cell<bool>,
}

/// Queues a task.
///
/// # Safety
///
/// `header` must be that of a task that is neither queued nor, unless its token was given out, being
/// polled; and nobody else may queue it.
unsafe fn queue_task(header: NonNull<Header>) {
    let header = header.as_ptr();
    // SAFETY: The task exists. This field never changes.
    let queue = unsafe { (*header).queue };
    // The work item is the first field.
    let work = header.cast::<bindings::work_struct>();
    // SAFETY: The queue outlives its tasks, and the work item was initialised by `spawn`.
    let queued = unsafe { bindings::dm_thin_rs_queue_work(queue, work) };

    kernel::warn_on!(!queued);
}

/// Starts a task on `queue` that serves `bio`.
///
/// # Safety
///
/// - [`begin`] must have been called for `bio`, and `bio` must now belong to the target `target`
///   alone, that is, `map` must return `DM_MAPIO_SUBMITTED` and do nothing more with it.
/// - `queue` must outlive the target.
pub(crate) unsafe fn defer<T: Serve>(
    bio: NonNull<bindings::bio>,
    target: &T,
    queue: &OrderedQueue,
    request: T::Request,
) {
    let target: *const T = target;
    // SAFETY: Device-mapper keeps the target until all its bios have ended, and a task ends before
    // its bio does, so the reference outlives the future that gets it.
    let borrowed: &T = unsafe { &*target };
    // INVARIANT: The task is about to be put into the per-bio data of `bio`.
    let task_bio = TaskBio {
        bio,
        submitted: Atomic::new(false),
        _target: PhantomData,
    };
    // SAFETY: By the requirements of this function.
    unsafe {
        spawn::<T, _>(bio, target, queue, || borrowed.serve(task_bio, request));
    }
}

/// # Safety
///
/// As for [`defer`]; `make` must return the future of `T::serve`.
unsafe fn spawn<T: Serve, F: Future<Output = Verdict<T::Hook>> + Send>(
    bio: NonNull<bindings::bio>,
    target: *const T,
    queue: &OrderedQueue,
    make: impl FnOnce() -> F,
) {
    // SAFETY: By the requirements of this function.
    unsafe { set_stage::<T>(bio.as_ptr(), Stage::Task) };
    // SAFETY: By the requirements of this function.
    let task = unsafe { task_of::<T, F>(bio.as_ptr()) };
    // SAFETY: `task` points to memory that is large enough.
    let header = unsafe { &raw mut (*task).header };
    // SAFETY: As above.
    let future = unsafe { &raw mut (*task).future };

    // SAFETY: Nobody uses the memory of the future yet.
    unsafe { future.write(make()) };
    // SAFETY: Nobody uses the memory of the header yet.
    unsafe {
        header.write(Header {
            work: Opaque::uninit(),
            queue: queue.as_ptr(),
            target: target.cast(),
            outcome: ptr::null_mut(),
            parked: Cell::new(false),
        });
    }
    // SAFETY: The header was just written, and the work item in it is not in use.
    unsafe { bindings::dm_thin_rs_init_task_work(header.cast(), Some(run::<T, F>)) };
    // SAFETY: The header lies within the per-bio data.
    let header = unsafe { NonNull::new_unchecked(header) };
    // SAFETY: The header is initialised and the task neither queued nor running.
    unsafe { queue_task(header) };
}

/// Polls a task once, and carries its verdict out when it has come to one.
///
/// # Safety
///
/// Must be called by the workqueue only, for a work item that [`spawn`] set up with the same types.
unsafe extern "C" fn run<T: Serve, F: Future<Output = Verdict<T::Hook>> + Send>(
    work: *mut bindings::work_struct,
) {
    let header = work.cast::<Header>();
    let task = header.cast::<Task<F>>();
    // SAFETY: The header is the first field of the task.
    let future = unsafe { &raw mut (*task).future };
    // The verdict's hand-over may allocate, too.
    let _noio = NoIoScope::new();

    // SAFETY: The task is being run, so the header is valid and only we touch `parked`.
    unsafe { (*header).parked.set(false) };
    // SAFETY: The waker's functions touch nothing, so any data pointer will do.
    let waker = ManuallyDrop::new(unsafe { Waker::from_raw(raw_waker(header)) });
    let mut context = Context::from_waker(&waker);

    // SAFETY: Only the worker that runs the task refers to the future.
    let pinned = unsafe { &mut *future };
    // SAFETY: Until it is dropped below, the future stays where `spawn` put it.
    let pinned = unsafe { Pin::new_unchecked(pinned) };
    let verdict = match pinned.poll(&mut context) {
        Poll::Ready(verdict) => {
            // SAFETY: As above.
            if unsafe { (*header).parked.get() } {
                // Somebody has a token for memory that is about to go.
                // SAFETY: There is nothing that could go on.
                unsafe { bindings::BUG() };
            }
            verdict
        }
        Poll::Pending => {
            // SAFETY: The task cannot be run by anybody else before this function returns, even
            // if it was woken already.
            let parked = unsafe { (*header).parked.get() };
            kernel::warn_on!(!parked);
            return;
        }
    };

    // SAFETY: The future has finished and will not be used again.
    unsafe { ptr::drop_in_place(future) };
    // SAFETY: The header is that of a task of `T`.
    let bio = unsafe { bio_of::<T>(header) };
    // SAFETY: The header is valid as long as the bio.
    let target = unsafe { (*header).target };
    // SAFETY: `target` was set from a `&T` that outlives the bio.
    let target = unsafe { &*target.cast::<T>() };
    // SAFETY: The future is gone, and this is the last thing done with the bio.
    unsafe { carry_out::<T>(bio, target, verdict) };
}
