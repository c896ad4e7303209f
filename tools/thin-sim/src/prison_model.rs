// SPDX-License-Identifier: GPL-2.0

//! The prison does what a naive model of it does, step by step, over long random sequences.
//!
//! The model is a list of requests in the order of their arrival, and says of each whether somebody is
//! in its way by looking at all the others.

use crate::{
    choices::{
        random,
        Choices, //
    },
    core::prison::{
        ExcludeAll,
        ExcludeWriters,
        Guard,
        HeldLock,
        Mode,
        Prison,
        Refused,
        Shared, //
    },
    executor::Stepper,
    facade,
    prison_fixtures::{
        conflict,
        new_prison,
        Blocks, //
    },
};

/// How far a request has come.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Held,
    /// Holds the lock, and waits for readers to go.
    Promoting,
    /// Waits until one of these is done.
    Following(Vec<u64>),
    /// One of them is.
    Told,
}

#[derive(Clone, Debug)]
struct Request {
    id: u64,
    blocks: Blocks,
    mode: Mode,
    state: State,
}

impl Request {
    fn is_held(&self) -> bool {
        matches!(self.state, State::Held | State::Promoting)
    }

    fn is_exclusive(&self) -> bool {
        matches!(self.mode, Mode::ExcludeWriters | Mode::ExcludeAll)
    }
}

#[derive(Default)]
struct Model {
    /// In the order of their arrival.
    line: Vec<Request>,
}

impl Model {
    fn find(&mut self, id: u64) -> &mut Request {
        self.line
            .iter_mut()
            .find(|request| request.id == id)
            .unwrap()
    }

    fn enter(&mut self, id: u64, blocks: Blocks, mode: Mode) {
        self.line.push(Request {
            id,
            blocks,
            mode,
            state: State::Waiting,
        });
        self.settle();
    }

    fn leave(&mut self, id: u64) -> Request {
        let at = self
            .line
            .iter()
            .position(|request| request.id == id)
            .unwrap();
        let request = self.line.remove(at);
        self.settle();
        request
    }

    fn weaken(&mut self, id: u64, mode: Mode) {
        self.find(id).mode = mode;
        self.settle();
    }

    fn promote(&mut self, id: u64) {
        let request = self.find(id);
        request.mode = Mode::ExcludeAll;
        request.state = State::Promoting;
        self.settle();
    }

    fn upgrade(&mut self, id: u64) {
        let mut request = self.leave(id);
        let leaders: Vec<_> = self
            .line
            .iter()
            .filter(|other| {
                let same = (request.blocks, Mode::ExcludeAll);
                other.is_exclusive()
                    && (other.is_held() || other.state == State::Waiting)
                    && conflict(same, (other.blocks, Mode::ExcludeAll))
            })
            .map(|other| other.id)
            .collect();
        request.mode = Mode::ExcludeWriters;
        request.state = if leaders.is_empty() {
            State::Waiting
        } else {
            State::Following(leaders)
        };
        self.line.push(request);
        self.settle();
    }

    fn is_blocked(&self, at: usize) -> bool {
        let request = &self.line[at];
        let conflicts =
            |other: &Request| conflict((request.blocks, request.mode), (other.blocks, other.mode));
        self.line.iter().enumerate().any(|(other_at, other)| {
            other_at != at
                && match &request.state {
                    State::Waiting => {
                        let ahead = other_at < at && other.state == State::Waiting;
                        conflicts(other) && (other.is_held() || ahead)
                    }
                    State::Promoting => conflicts(other) && other.is_held(),
                    _ => false,
                }
        })
    }

    /// Lets everybody go on who can.
    fn settle(&mut self) {
        let exclusive: Vec<_> = self
            .line
            .iter()
            .filter(|request| request.is_exclusive())
            .map(|request| request.id)
            .collect();
        for request in &mut self.line {
            if let State::Following(leaders) = &request.state {
                if leaders.iter().any(|leader| !exclusive.contains(leader)) {
                    request.state = State::Told;
                }
            }
        }
        while let Some(at) = (0..self.line.len()).find(|at| {
            matches!(self.line[*at].state, State::Waiting | State::Promoting)
                && !self.is_blocked(*at)
        }) {
            self.line[at].state = State::Held;
        }
    }
}

/// A lock of whatever kind.
enum Lock {
    Shared(Guard<'static, Shared>),
    Writers(Guard<'static, ExcludeWriters>),
    All(Guard<'static, ExcludeAll>),
    Kept(HeldLock),
}

/// Somebody who uses the prison.
struct Caller {
    id: u64,
    /// What it waits for.
    waits: Option<Stepper<Option<Lock>>>,
    lock: Option<Lock>,
}

struct World<'a> {
    choices: &'a Choices,
    prison: &'static Prison,
    model: Model,
    callers: Vec<Caller>,
    last_id: u64,
}

impl World<'_> {
    fn new_request(&mut self) -> (u64, Blocks, Mode) {
        self.last_id += 1;
        let below = |ways| self.choices.below(ways) as u64;
        // Two of these numbers are in the same bucket.
        let numbers = [0, 1, 2, 3, 64];
        let first = numbers[below(5) as usize];
        let last = if below(3) == 0 {
            numbers[below(5) as usize]
        } else {
            first
        };
        let blocks = Blocks {
            space: below(3),
            first: first.min(last),
            last: first.max(last),
        };
        let modes = [
            Mode::Read,
            Mode::Read,
            Mode::Write,
            Mode::Write,
            Mode::ExcludeWriters,
            Mode::ExcludeAll,
        ];
        (self.last_id, blocks, modes[below(6) as usize])
    }

    fn wait(&mut self, id: u64, lock: impl std::future::Future<Output = Option<Lock>> + 'static) {
        let mut caller = Caller {
            id,
            waits: Some(Stepper::new(lock)),
            lock: None,
        };
        World::poll(&mut caller);
        self.callers.push(caller);
    }

    /// Lets a caller go on that was woken.
    fn poll(caller: &mut Caller) {
        if let Some(task) = &mut caller.waits {
            if task.is_runnable() {
                if let Some(lock) = task.step() {
                    caller.waits = None;
                    caller.lock = lock;
                }
            }
        }
    }

    /// Somebody who holds a lock.
    fn caller(&mut self) -> Option<(u64, Lock)> {
        let holding: Vec<_> = (0..self.callers.len())
            .filter(|at| self.callers[*at].lock.is_some())
            .collect();
        if holding.is_empty() {
            return None;
        }
        let at = holding[self.choices.below(holding.len())];
        let caller = self.callers.remove(at);
        Some((caller.id, caller.lock?))
    }

    fn act(&mut self) {
        let prison = self.prison;
        let action = self.choices.below(10);
        if action < 4 {
            let (id, blocks, mode) = self.new_request();
            self.model.enter(id, blocks, mode);
            let range = blocks.range();
            match mode {
                Mode::Read => self.wait(id, async move {
                    Some(Lock::Shared(prison.lock(range, Shared::Read).await))
                }),
                Mode::Write => self.wait(id, async move {
                    Some(Lock::Shared(prison.lock(range, Shared::Write).await))
                }),
                Mode::ExcludeWriters => self.wait(id, async move {
                    Some(Lock::Writers(prison.lock(range, ExcludeWriters).await))
                }),
                Mode::ExcludeAll => self.wait(id, async move {
                    Some(Lock::All(prison.lock(range, ExcludeAll).await))
                }),
            }
        } else if action < 5 {
            let (id, blocks, mode) = self.new_request();
            self.model.enter(id, blocks, mode);
            let range = blocks.range();
            let got = match mode {
                Mode::Read => prison.try_lock(range, Shared::Read).map(Lock::Shared),
                Mode::Write => prison.try_lock(range, Shared::Write).map(Lock::Shared),
                Mode::ExcludeWriters => prison.try_lock(range, ExcludeWriters).map(Lock::Writers),
                Mode::ExcludeAll => prison.try_lock(range, ExcludeAll).map(Lock::All),
            };
            let expected = self.model.find(id).state == State::Held;
            match got {
                Ok(lock) => {
                    assert!(expected, "a lock was granted too early");
                    self.callers.push(Caller {
                        id,
                        waits: None,
                        lock: Some(lock),
                    });
                }
                Err(refused) => {
                    assert_eq!(refused, Refused::Busy);
                    assert!(!expected, "a lock was refused for nothing");
                    self.model.leave(id);
                }
            }
        } else if let Some((id, lock)) = self.caller() {
            let mode = [Shared::Read, Shared::Write][self.choices.below(2)];
            let model_mode = [Mode::Read, Mode::Write][usize::from(mode == Shared::Write)];
            let change = self.choices.below(3) != 0;
            match lock {
                Lock::Shared(guard) if change => {
                    self.model.upgrade(id);
                    self.wait(id, async move { guard.upgrade().await.map(Lock::Writers) });
                    return;
                }
                Lock::Shared(guard) if self.choices.below(2) == 0 => {
                    self.callers.push(Caller {
                        id,
                        waits: None,
                        lock: Some(Lock::Kept(guard.keep())),
                    });
                    return;
                }
                Lock::Writers(guard) if change && self.choices.below(2) == 0 => {
                    self.model.promote(id);
                    self.wait(id, async move { Some(Lock::All(guard.promote().await)) });
                    return;
                }
                Lock::Writers(guard) if change => {
                    self.model.weaken(id, model_mode);
                    let lock = Some(Lock::Shared(guard.downgrade(mode)));
                    self.callers.push(Caller {
                        id,
                        waits: None,
                        lock,
                    });
                    return;
                }
                Lock::All(guard) if change => {
                    self.model.weaken(id, model_mode);
                    let lock = Some(Lock::Shared(guard.downgrade(mode)));
                    self.callers.push(Caller {
                        id,
                        waits: None,
                        lock,
                    });
                    return;
                }
                Lock::Kept(lock) => prison.release(lock),
                guard => drop(guard),
            }
            self.model.leave(id);
        }
    }

    /// Compares who holds what. Who was told to look again holds nothing, and goes.
    fn check(&mut self) {
        for caller in &mut self.callers {
            World::poll(caller);
            let state = self.model.find(caller.id).state.clone();
            let expected = match state {
                State::Held => (false, true),
                State::Told => (false, false),
                _ => (true, false),
            };
            let found = (caller.waits.is_some(), caller.lock.is_some());
            let line = &self.model.line;
            assert_eq!(
                found, expected,
                "request {} is {state:?} in {line:?}",
                caller.id
            );
        }
        let told = |caller: &Caller| caller.waits.is_none() && caller.lock.is_none();
        while let Some(at) = self.callers.iter().position(told) {
            let caller = self.callers.remove(at);
            self.model.leave(caller.id);
        }
    }
}

fn compare(choices: &Choices, steps: usize) {
    let mut world = World {
        choices,
        prison: new_prison(),
        model: Model::default(),
        callers: Vec::new(),
        last_id: 0,
    };
    for _ in 0..steps {
        world.act();
        world.check();
        // Not too many, or all of them wait.
        while world.callers.len() > 12 {
            let Some((id, lock)) = world.caller() else {
                panic!("everybody waits");
            };
            match lock {
                Lock::Kept(lock) => world.prison.release(lock),
                guard => drop(guard),
            }
            world.model.leave(id);
            world.check();
        }
    }
    while let Some((id, lock)) = world.caller() {
        match lock {
            Lock::Kept(lock) => world.prison.release(lock),
            guard => drop(guard),
        }
        world.model.leave(id);
        world.check();
    }
    assert!(world.callers.is_empty(), "somebody waits for nobody");
    assert!(world.prison.is_empty());
}

#[test]
fn the_prison_is_like_its_model() {
    random(3000, |choices| compare(choices, 200));
}

#[test]
fn without_memory_try_lock_is_refused_and_leaves_nothing() {
    let prison = new_prison();
    let block = |first| {
        Blocks {
            space: 1,
            first,
            last: first,
        }
        .range()
    };
    facade::set_memory_is_short(true);
    let first = prison.try_lock(block(0), Shared::Read).ok();
    assert!(first.is_some());
    let second = prison.try_lock(block(1), Shared::Read).err();
    assert_eq!(second, Some(Refused::NoMemory));
    drop(first);
    drop(prison.try_lock(block(1), Shared::Read).ok());
    facade::set_memory_is_short(false);
    assert!(prison.is_empty());
}

#[test]
fn what_is_refused_gives_its_memory_back() {
    let prison = Prison::new(2).expect("there is memory");
    let block = |first| {
        Blocks {
            space: 1,
            first,
            last: first,
        }
        .range()
    };
    facade::set_memory_is_short(true);
    let held = prison.try_lock(block(0), ExcludeAll).ok();
    for _ in 0..3 {
        let refused = prison.try_lock(block(0), Shared::Read).err();
        assert_eq!(refused, Some(Refused::Busy));
    }
    assert!(prison.try_lock(block(1), Shared::Read).is_ok());
    facade::set_memory_is_short(false);
    drop(held);
}
