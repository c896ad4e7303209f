// SPDX-License-Identifier: GPL-2.0

//! Functions whose return values are the answers.

use super::{
    message::{
        Message,
        Progress, //
    },
    Owned,
    Owner, //
};
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
    mem,
    pin::Pin,
    ptr::NonNull,
    task::{
        Context,
        Poll, //
    }, //
};
use kernel::sync::Completion;

impl<S: Owned> Owner<S> {
    /// Runs `function` on the state, and resolves to what it returns.
    pub(crate) fn call<'a, F, R>(&'a self, function: F) -> impl Future<Output = R> + Send + 'a
    where
        F: FnOnce(&mut S) -> R + Send + 'a,
        R: Send + 'a,
    {
        self.write(function, Progress::Written)
    }

    /// As [`Self::call`], but runs `function` when everything was run that has been sent before it, or
    /// is sent until it is its turn.
    ///
    /// So what many ask for at the same time can be done once for all of them.
    pub(crate) fn call_last<'a, F, R>(&'a self, function: F) -> impl Future<Output = R> + Send + 'a
    where
        F: FnOnce(&mut S) -> R + Send + 'a,
        R: Send + 'a,
    {
        self.write(function, Progress::WrittenLast)
    }

    /// As [`Self::call`], but runs `function` right here if nobody else is at the state at this moment.
    ///
    /// That is for functions that are done quickly, since the bios of the task's queue wait meanwhile.
    pub(crate) fn call_at_once<'a, F, R>(
        &'a self,
        function: F,
    ) -> impl Future<Output = R> + Send + 'a
    where
        F: FnOnce(&mut S) -> R + Send + 'a,
        R: Send + 'a,
    {
        self.write(function, Progress::WrittenForNow)
    }

    fn write<F, R>(&self, function: F, progress: Progress) -> Call<'_, S, F, R>
    where
        F: FnOnce(&mut S) -> R,
    {
        Call {
            owner: self,
            progress,
            letter: UnsafeCell::new(Letter::new(function)),
            _pin: PhantomPinned,
        }
    }

    /// Runs `function` on the state, and returns what it returns. Sleeps.
    ///
    /// Must not be called by what runs on the owner's queue, nor by a task.
    pub(crate) fn call_and_wait<F, R>(&self, function: F) -> R
    where
        F: FnOnce(&mut S) -> R + Send,
        R: Send,
    {
        pin_init::stack_pin_init!(let done = Completion::new());
        let letter = UnsafeCell::new(Letter::new(function));

        // SAFETY: Nobody else knows the letter yet.
        unsafe { (*letter.get()).sender = Some(Sender::Thread(NonNull::from(&*done))) };
        // SAFETY: The message is the first field of the letter, which is not touched before it was
        // answered.
        unsafe { self.send(&self.messages, letter.get().cast()) };
        done.wait_for_completion();
        match letter.into_inner().content {
            Content::Answer(answer) => answer,
            // The sender is told after the answer was written.
            Content::Function(_) | Content::Nothing => {
                // SAFETY: There is nothing that could go on.
                unsafe { bindings::BUG() }
            }
        }
    }
}

/// Who waits for an answer.
enum Sender {
    Task(WakeToken),
    /// A thread that keeps this valid until it is complete.
    Thread(NonNull<Completion>),
}

impl Sender {
    /// Tells the sender that there is an answer. The letter may be gone when this returns.
    ///
    /// # Safety
    ///
    /// If it is a thread, it must still wait.
    unsafe fn tell(self) {
        match self {
            Self::Task(sleeper) => sleeper.wake(),
            // SAFETY: The thread waits, so it keeps the completion.
            Self::Thread(done) => unsafe { done.as_ref() }.complete_all(),
        }
    }
}

/// What a letter says.
enum Content<F, R> {
    Function(F),
    Nothing,
    Answer(R),
}

/// A message with what to do, and room for the answer.
#[repr(C)]
pub(super) struct Letter<S, F, R> {
    message: Message<S>,
    sender: Option<Sender>,
    content: Content<F, R>,
}

impl<S, F: FnOnce(&mut S) -> R, R> Letter<S, F, R> {
    fn new(function: F) -> Self {
        Self {
            message: Message::new(Self::run),
            sender: None,
            content: Content::Function(function),
        }
    }

    /// Does what the letter says, and answers it.
    ///
    /// # Safety
    ///
    /// `message` must be the first field of a letter of this type that nobody else accesses before it
    /// was answered.
    unsafe fn run(message: *mut Message<S>, state: &mut S) {
        let letter = message.cast::<Self>();
        // SAFETY: By the requirements of this function.
        let letter = unsafe { &mut *letter };

        if let Content::Function(function) = mem::replace(&mut letter.content, Content::Nothing) {
            letter.content = Content::Answer(function(state));
        }
        if let Some(sender) = letter.sender.take() {
            // The letter is not ours any more.
            // SAFETY: The sender waits for this.
            unsafe { sender.tell() };
        }
    }
}

/// The answer to come. See [`Owner::call`].
///
/// # Invariants
///
/// From the moment it is sent until the task runs again, `letter` belongs to the owner.
struct Call<'a, S: Owned, F, R> {
    owner: &'a Owner<S>,
    progress: Progress,
    letter: UnsafeCell<Letter<S, F, R>>,
    _pin: PhantomPinned,
}

// SAFETY: The letter is passed to the owner, and comes back, with the waking of the task.
unsafe impl<S: Owned, F: Send, R: Send> Send for Call<'_, S, F, R> {}

impl<S: Owned, F: FnOnce(&mut S) -> R, R> Future for Call<'_, S, F, R> {
    type Output = R;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R> {
        // SAFETY: Nothing is moved that others point to.
        let this = unsafe { self.get_unchecked_mut() };
        let letter = this.letter.get();
        let list = match this.progress {
            Progress::Written => &this.owner.messages,
            Progress::WrittenForNow => {
                if let Some(mut state) = this.owner.state.try_lock() {
                    // SAFETY: The letter has not been sent.
                    let content = unsafe { &mut (*letter).content };
                    if let Content::Function(function) = mem::replace(content, Content::Nothing) {
                        this.progress = Progress::Answered;
                        return Poll::Ready(function(&mut state));
                    }
                }
                &this.owner.messages
            }
            Progress::WrittenLast => &this.owner.last_messages,
            Progress::Sent => {
                this.progress = Progress::Answered;
                // A task runs again when it was woken, and that is done after the letter was answered.
                // SAFETY: By the type invariant the letter is ours again.
                let content = unsafe { &mut (*letter).content };
                match mem::replace(content, Content::Nothing) {
                    Content::Answer(answer) => return Poll::Ready(answer),
                    // SAFETY: There is nothing that could go on.
                    Content::Function(_) | Content::Nothing => unsafe { bindings::BUG() },
                }
            }
            // SAFETY: As above.
            Progress::Answered => unsafe { bindings::BUG() },
        };

        // SAFETY: The letter has not been sent.
        unsafe { (*letter).sender = Some(Sender::Task(park(context))) };
        this.progress = Progress::Sent;
        // INVARIANT: The letter is passed to the owner.
        // SAFETY: The message is the first field of the letter, which is pinned, and which `drop` does
        // not let go before it was answered.
        unsafe { this.owner.send(list, letter.cast()) };
        Poll::Pending
    }
}

impl<S: Owned, F, R> Drop for Call<'_, S, F, R> {
    fn drop(&mut self) {
        if self.progress == Progress::Sent {
            // SAFETY: The owner would write to memory of somebody else. There is nothing that could
            // go on.
            unsafe { bindings::BUG() };
        }
    }
}
