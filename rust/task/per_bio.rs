// SPDX-License-Identifier: GPL-2.0

//! The memory that each bio of a target carries: for a task, or for what the target wants back.

use super::{
    Header,
    Serve,
    Task,
    TaskBio, //
};
use crate::{
    bindings,
    bio::BlockStatus,
    outcome::Outcome, //
};
use core::{
    mem::{
        self,
        align_of,
        offset_of,
        size_of,
        ManuallyDrop, //
    },
    ptr::{
        self,
        NonNull, //
    },
};

/// The most memory that a target may ask for with each bio, in bytes.
///
/// What lock debugging adds to a work item is not counted.
const PER_BIO_LIMIT: usize = 512 - 32 + size_of::<bindings::work_struct>();

/// What the per-bio data of a bio hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing.
    Empty,
    /// A task that serves the bio.
    Task,
    /// What the target wants back when the bio's I/O has ended.
    Hook,
}

/// The per-bio data of a target that serves bios.
///
/// # Invariants
///
/// `stage` is valid from the moment [`begin`] returns until the bio's memory is gone, and says which
/// field of `content` is. Both begin at the same place whatever `F` is.
#[repr(C)]
struct PerBio<H, F> {
    stage: Stage,
    content: Content<H, F>,
}

#[repr(C)]
union Content<H, F> {
    hook: ManuallyDrop<H>,
    task: ManuallyDrop<Task<F>>,
}

const fn future_size<A, B, C, Fut, F>(_serve: F) -> usize
where
    F: Copy + Fn(A, B, C) -> Fut,
{
    size_of::<Fut>()
}

const fn future_align<A, B, C, Fut, F>(_serve: F) -> usize
where
    F: Copy + Fn(A, B, C) -> Fut,
{
    align_of::<Fut>()
}

/// The bytes of per-bio data that a target needs.
///
/// Does not compile if that is more than the limit, or needs more alignment than per-bio data has.
pub(crate) const fn per_bio_size<T: Serve>() -> usize {
    // Device-mapper takes the bytes just below its own structure, which is aligned to 8.
    let align = align_of::<u64>();
    let future = future_size::<&T, TaskBio<'_, T>, T::Request, _, _>(T::serve);
    let task = size_of::<Task<()>>().saturating_add(future);
    let content = if task > size_of::<T::Hook>() {
        task
    } else {
        size_of::<T::Hook>()
    };
    let size =
        offset_of!(PerBio<T::Hook, ()>, content).saturating_add(content.next_multiple_of(align));

    assert!(align_of::<PerBio<T::Hook, ()>>() <= align);
    assert!(future_align::<&T, TaskBio<'_, T>, T::Request, _, _>(T::serve) <= align);
    assert!(size <= PER_BIO_LIMIT);
    size
}

/// Returns the per-bio data of `bio`, as if its task had a future of type `F`.
///
/// # Safety
///
/// `bio` must be a clone that belongs to a target of type `T`.
unsafe fn per_bio<T: Serve, F>(bio: *mut bindings::bio) -> *mut PerBio<T::Hook, F> {
    // SAFETY: `T`'s constructor asked for this many bytes with each bio.
    unsafe { bindings::dm_per_bio_data(bio, const { per_bio_size::<T>() }) }.cast()
}

/// Returns where the task of `bio` is, or is to be, as if its future were of type `F`. It begins with
/// the header.
///
/// # Safety
///
/// As for [`per_bio`].
pub(super) unsafe fn task_of<T: Serve, F>(bio: *mut bindings::bio) -> *mut Task<F> {
    const {
        assert!(size_of::<PerBio<T::Hook, F>>() <= per_bio_size::<T>());
    }
    // SAFETY: By the requirements of this function.
    let data = unsafe { per_bio::<T, F>(bio) };
    // SAFETY: `data` points to memory that `per_bio_size` made large enough.
    let content = unsafe { &raw mut (*data).content };
    content.cast()
}

/// Begins the life of a bio's per-bio data.
///
/// # Safety
///
/// Must be called once for each bio that enters `map` of a target of type `T`, before the other
/// functions here.
pub(crate) unsafe fn begin<T: Serve>(bio: *mut bindings::bio) {
    // SAFETY: By the requirements of this function.
    unsafe { set_stage::<T>(bio, Stage::Empty) };
}

/// # Safety
///
/// `bio` must be a clone that belongs to a target of type `T`, and nobody else use its memory.
pub(super) unsafe fn set_stage<T: Serve>(bio: *mut bindings::bio, stage: Stage) {
    // SAFETY: By the requirements of this function.
    let data = unsafe { per_bio::<T, ()>(bio) };
    // SAFETY: `data` points to memory that is large enough and that nobody else uses.
    unsafe { (*data).stage = stage };
}

/// Keeps `hook` with `bio` until its I/O has ended.
///
/// # Safety
///
/// [`begin`] must have been called for `bio`, it must not have a task, and its I/O not have been
/// started.
pub(crate) unsafe fn keep<T: Serve>(bio: *mut bindings::bio, hook: T::Hook) {
    // SAFETY: By the requirements of this function.
    let data = unsafe { per_bio::<T, ()>(bio) };
    // SAFETY: `data` is valid.
    let content = unsafe { &raw mut (*data).content };
    // SAFETY: There is no task, so the content is not in use. The hook begins where it does.
    unsafe { content.cast::<T::Hook>().write(hook) };
    // SAFETY: As above.
    unsafe { set_stage::<T>(bio, Stage::Hook) };
}

/// Ends the I/O of a bio: either the target is told, or the bio's own task.
///
/// Returns whether the bio is done. May be called in any context.
///
/// # Safety
///
/// Must be called from the `end_io` callback of a target of type `T`, for the bio that it was
/// called for.
pub(crate) unsafe fn end_io<T: Serve>(
    bio: *mut bindings::bio,
    target: &T,
    status: BlockStatus,
) -> bool {
    // SAFETY: By the requirements of this function.
    let data = unsafe { per_bio::<T, ()>(bio) };
    // SAFETY: `stage` was initialised by `begin`.
    match unsafe { (*data).stage } {
        Stage::Empty => true,
        Stage::Hook => {
            // SAFETY: `data` is valid.
            let content = unsafe { &raw const (*data).content };
            // SAFETY: The stage says that there is a hook. It begins where the content does.
            let hook = unsafe { content.cast::<T::Hook>().read() };
            target.end_io(hook);
            true
        }
        Stage::Task => {
            // The stage says that there is a task.
            // SAFETY: By the requirements of this function.
            let header = unsafe { task_of::<T, ()>(bio) }.cast::<Header>();
            // SAFETY: The task waits, so it does not touch its header.
            let outcome = unsafe { &mut (*header).outcome };
            let outcome = mem::replace(outcome, ptr::null_mut());
            if let Some(outcome) = NonNull::new(outcome) {
                // SAFETY: `submit` put the outcome there, and it was taken out just now.
                unsafe { Outcome::resolve(outcome, status.to_result()) };
            }
            false
        }
    }
}

/// The bio that a task belongs to.
///
/// # Safety
///
/// `header` must be that of a task of a bio of `T`.
pub(super) unsafe fn bio_of<T: Serve>(header: *mut Header) -> *mut bindings::bio {
    let content = header.cast::<Content<T::Hook, ()>>();
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "what `container_of!` consists of is not for us to see"
    )]
    // SAFETY: The header is where the content of the per-bio data begins.
    let data = unsafe { kernel::container_of!(content, PerBio<T::Hook, ()>, content) };
    // SAFETY: `T`'s constructor asked for this many bytes with each bio, and these are they.
    unsafe { bindings::dm_bio_from_per_bio_data(data.cast(), const { per_bio_size::<T>() }) }
}
