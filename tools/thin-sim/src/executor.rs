// SPDX-License-Identifier: GPL-2.0

//! Runs tasks in any order, one step at a time.
//!
//! A step goes from where the task was woken to where it waits again. Which task makes the next one is
//! a choice.

use std::{
    cell::{
        Cell,
        RefCell, //
    },
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        atomic::{
            AtomicU8,
            Ordering, //
        },
        Arc, //
    },
    task::{
        Context,
        Poll,
        Wake,
        Waker, //
    },
};

use crate::{
    choices::Choices,
    facade, //
};

/// How a task stands with the executor.
struct Flag(AtomicU8);

/// It is to be run.
const RUNNABLE: u8 = 0;
/// It is being run, or has returned without a token to wake it.
const RUNNING: u8 = 1;
/// There is a token that wakes it.
const PARKED: u8 = 2;

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        let before = self.0.swap(RUNNABLE, Ordering::SeqCst);
        assert_eq!(before, PARKED, "only a parked task is woken");
    }
}

/// Wakes a task, once.
pub(crate) struct WakeToken(Option<Waker>);

impl WakeToken {
    pub(crate) fn wake(mut self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

impl Drop for WakeToken {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_none(), "a task will never be woken");
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Flag>>> = const { RefCell::new(None) };
}

/// What wakes the task that is being run. There can be one at a time.
pub(crate) fn park(context: &mut Context<'_>) -> WakeToken {
    let flag = CURRENT
        .with_borrow(Clone::clone)
        .expect("a task is being run");
    let before = flag.0.swap(PARKED, Ordering::SeqCst);
    assert_eq!(before, RUNNING, "there is one token for a task");
    WakeToken(Some(context.waker().clone()))
}

/// Lets others run, if they want to.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        park(context).wake();
        Poll::Pending
    })
    .await;
}

/// Makes a step of a task.
fn poll<T>(flag: &Arc<Flag>, future: Pin<&mut (impl Future<Output = T> + ?Sized)>) -> Poll<T> {
    flag.0.store(RUNNING, Ordering::SeqCst);
    let before = CURRENT.replace(Some(flag.clone()));
    let waker = Waker::from(flag.clone());
    let polled = future.poll(&mut Context::from_waker(&waker));
    CURRENT.set(before);
    if polled.is_pending() {
        let flag = flag.0.load(Ordering::SeqCst);
        assert_ne!(flag, RUNNING, "a task waits without a token");
    }
    polled
}

struct Task<'a> {
    flag: Arc<Flag>,
    /// Not there while it is being run, nor after its end.
    future: Cell<Option<Pin<Box<dyn Future<Output = ()> + 'a>>>>,
    ended: Cell<bool>,
}

/// Tasks, and the choice between them.
pub(crate) struct Executor<'a> {
    choices: Choices,
    tasks: RefCell<Vec<Rc<Task<'a>>>>,
    /// What is looked at after each step.
    checks: RefCell<Vec<Box<dyn Fn() + 'a>>>,
}

impl<'a> Executor<'a> {
    pub(crate) fn new(choices: Choices) -> Self {
        Self {
            choices,
            tasks: RefCell::default(),
            checks: RefCell::default(),
        }
    }

    /// Adds a task. It does nothing yet.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'a) {
        self.tasks.borrow_mut().push(Rc::new(Task {
            flag: Arc::new(Flag(AtomicU8::new(RUNNABLE))),
            future: Cell::new(Some(Box::pin(future))),
            ended: Cell::new(false),
        }));
    }

    /// Has something looked at after each step of any task.
    pub(crate) fn check_always(&self, check: impl Fn() + 'a) {
        self.checks.borrow_mut().push(Box::new(check));
    }

    /// A task that can be run; `None` if there is none.
    fn pick(&self) -> Option<Rc<Task<'a>>> {
        let tasks = self.tasks.borrow();
        let runnable: Vec<_> = tasks
            .iter()
            .filter(|task| !task.ended.get() && task.flag.0.load(Ordering::SeqCst) == RUNNABLE)
            .collect();
        if runnable.is_empty() {
            return None;
        }
        Some(runnable[self.choices.below(runnable.len())].clone())
    }

    fn poll(&self, task: &Task<'a>) {
        let Some(mut future) = task.future.take() else {
            // It was woken before the poll that parked it has returned.
            return;
        };
        match poll(&task.flag, future.as_mut()) {
            Poll::Ready(()) => task.ended.set(true),
            Poll::Pending => task.future.set(Some(future)),
        }
        for check in &*self.checks.borrow() {
            check();
        }
    }

    /// Runs until all tasks have ended. Panics if some never will.
    pub(crate) fn run(&self) {
        while let Some(task) = self.pick() {
            self.poll(&task);
        }
        self.expect_ended();
    }

    fn expect_ended(&self) {
        let tasks = self.tasks.borrow();
        let stuck: Vec<_> = (0..tasks.len())
            .filter(|task| !tasks[*task].ended.get())
            .collect();
        assert!(stuck.is_empty(), "tasks {stuck:?} wait for ever");
    }
}

impl Executor<'static> {
    /// The same, but other tasks may also make steps in the middle of a step.
    pub(crate) fn run_interrupted(self: &Rc<Self>) {
        while let Some(task) = self.pick() {
            let executor = self.clone();
            let interrupt = move || {
                while executor.choices.one_in(4) {
                    match executor.pick_other() {
                        Some(task) => executor.poll(&task),
                        None => break,
                    }
                }
            };
            facade::with_interrupts(interrupt, || self.poll(&task));
        }
        self.expect_ended();
    }

    /// As [`Self::pick`], but none that is in the middle of a step.
    fn pick_other(&self) -> Option<Rc<Task<'static>>> {
        self.pick().filter(|task| {
            let future = task.future.take();
            let is_there = future.is_some();
            task.future.set(future);
            is_there
        })
    }
}

/// A single task, whose steps somebody else orders.
pub(crate) struct Stepper<T> {
    flag: Arc<Flag>,
    future: Pin<Box<dyn Future<Output = T>>>,
}

impl<T> Stepper<T> {
    pub(crate) fn new(future: impl Future<Output = T> + 'static) -> Self {
        Self {
            flag: Arc::new(Flag(AtomicU8::new(RUNNABLE))),
            future: Box::pin(future),
        }
    }

    /// Whether it has not begun yet, or was woken.
    pub(crate) fn is_runnable(&self) -> bool {
        self.flag.0.load(Ordering::SeqCst) == RUNNABLE
    }

    /// Makes a step. Returns what it has come to, if that was the last.
    pub(crate) fn step(&mut self) -> Option<T> {
        assert!(self.is_runnable());
        match poll(&self.flag, self.future.as_mut()) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }
}
