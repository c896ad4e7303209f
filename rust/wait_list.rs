// SPDX-License-Identifier: GPL-2.0

//! Tasks that wait until somebody puts something back.
//!
//! A waiting task is a node of a list; the node lies in the memory of the task.

use crate::{
    core::errno::Result,
    irq_lock::{
        new_irq_lock,
        IrqLock, //
    },
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
    ptr,
    task::{
        Context,
        Poll, //
    }, //
};
use kernel::sync::{
    atomic::{
        Atomic,
        Relaxed, //
    },
    barrier::smp_mb, //
};

/// Tasks that wait until an attempt of theirs succeeds, in the order in which they came.
pub(crate) struct WaitList {
    line: IrqLock<Line>,
    /// Whether the line may have somebody in it; written with the lock held.
    waiting: Atomic<bool>,
}

impl WaitList {
    /// A list with nobody in it. Sleeps. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            line: new_irq_lock!(Line::new(), "dm_thin_rs::WaitList")?,
            waiting: Atomic::new(false),
        })
    }

    /// Resolves to what `attempt` returns as soon as it returns something.
    ///
    /// Whoever lets an attempt succeed has to call [`Self::wake_one`] afterwards. Attempts are made
    /// with a spin lock held.
    pub(crate) fn wait_for<'a, R: Send + 'a>(
        &'a self,
        attempt: impl FnMut() -> Option<R> + Send + 'a,
    ) -> impl Future<Output = R> + Send + 'a {
        Wait {
            list: self,
            attempt,
            came: false,
            node: UnsafeCell::new(Node {
                next: ptr::null_mut(),
                sleeper: None,
            }),
            _pin: PhantomPinned,
        }
    }

    /// Lets the task that waits longest try again. Any context.
    #[inline]
    pub(crate) fn wake_one(&self) {
        // What was put back is there before we look who waits. Who comes to wait does it the other
        // way round.
        smp_mb();
        if self.waiting.load(Relaxed) {
            self.wake_first();
        }
    }

    #[cold]
    fn wake_first(&self) {
        let mut line = self.line.lock();
        let sleeper = line.pop();

        self.waiting.store(!line.is_empty(), Relaxed);
        drop(line);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }
}

/// A task in the line.
struct Node {
    next: *mut Node,
    /// Wakes the task; `None` when the node is not in the line.
    sleeper: Option<WakeToken>,
}

/// Those who wait.
///
/// # Invariants
///
/// A list of valid nodes, linked by `next` from `first` to `last`, and ended by null. Only the holder
/// of the lock accesses them. Whoever takes one out does not use it any more.
struct Line {
    first: *mut Node,
    last: *mut Node,
}

// SAFETY: The nodes are accessed by the holder of the line only.
unsafe impl Send for Line {}

impl Line {
    const fn new() -> Self {
        // INVARIANT: There is no node.
        Self {
            first: ptr::null_mut(),
            last: ptr::null_mut(),
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// Puts a node into the line, at its front or at its end.
    ///
    /// # Safety
    ///
    /// `node` must be in no line, and be valid until it was taken out.
    unsafe fn push(&mut self, node: *mut Node, sleeper: WakeToken, at_front: bool) {
        let next = if at_front {
            self.first
        } else {
            ptr::null_mut()
        };
        // SAFETY: By the requirements of this function.
        unsafe {
            *node = Node {
                next,
                sleeper: Some(sleeper),
            };
        }
        // INVARIANT: The node is valid, and the list stays linked.
        if self.is_empty() {
            (self.first, self.last) = (node, node);
        } else if at_front {
            self.first = node;
        } else {
            // SAFETY: By the type invariant the last node is valid.
            unsafe { (*self.last).next = node };
            self.last = node;
        }
    }

    /// Takes the first node out.
    fn pop(&mut self) -> Option<WakeToken> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: By the type invariant the first node is valid.
        let node = unsafe { &mut *self.first };

        // INVARIANT: The rest of the list is one, too.
        self.first = node.next;
        node.sleeper.take()
    }

    /// Takes `node` out, wherever it is.
    ///
    /// # Safety
    ///
    /// `node` must be in this line.
    unsafe fn remove(&mut self, node: *mut Node) {
        let mut before: *mut Node = ptr::null_mut();
        let mut at = self.first;

        while at != node {
            before = at;
            // SAFETY: `node` comes later, so this one is valid.
            at = unsafe { (*at).next };
        }
        // SAFETY: By the requirements of this function.
        let next = unsafe { (*node).next };
        // INVARIANT: What was before the node is linked with what comes behind it.
        if before.is_null() {
            self.first = next;
        } else {
            // SAFETY: It is in the line.
            unsafe { (*before).next = next };
        }
        if next.is_null() {
            self.last = before;
        }
    }
}

/// See [`WaitList::wait_for`].
///
/// # Invariants
///
/// `node` is in the line of `list` if its sleeper is there. Then only the holder of the line's lock
/// accesses it.
struct Wait<'a, A> {
    list: &'a WaitList,
    attempt: A,
    /// Whether the task has been in the line.
    came: bool,
    node: UnsafeCell<Node>,
    _pin: PhantomPinned,
}

// SAFETY: The node is accessed under a lock only.
unsafe impl<A: Send> Send for Wait<'_, A> {}

impl<R, A: FnMut() -> Option<R>> Future for Wait<'_, A> {
    type Output = R;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R> {
        // SAFETY: Nothing is moved out.
        let this = unsafe { self.get_unchecked_mut() };
        let mut line = this.list.line.lock();
        let is_next = this.came || line.is_empty();

        if is_next {
            if let Some(result) = (this.attempt)() {
                return Poll::Ready(result);
            }
        }
        this.list.waiting.store(true, Relaxed);
        if is_next {
            // Whoever has put something back after that attempt, and did not see that we wait, did
            // so before this one.
            smp_mb();
            if let Some(result) = (this.attempt)() {
                this.list.waiting.store(!line.is_empty(), Relaxed);
                return Poll::Ready(result);
            }
        }
        // The task was woken by who took its node out of the line, so the node is in no line, and
        // pinned; `drop` takes it out.
        // SAFETY: See above.
        unsafe { line.push(this.node.get(), park(context), this.came) };
        this.came = true;
        Poll::Pending
    }
}

impl<A> Drop for Wait<'_, A> {
    fn drop(&mut self) {
        if !self.came {
            return;
        }
        let node = self.node.get();
        let mut line = self.list.line.lock();
        // SAFETY: The lock is held.
        let is_waiting = unsafe { (*node).sleeper.is_some() };
        if is_waiting {
            // SAFETY: A node with a sleeper is in the line.
            unsafe { line.remove(node) };
        }
    }
}
