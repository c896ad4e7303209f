// SPDX-License-Identifier: GPL-2.0

//! Small worlds around a prison, in all the orders that things can happen in.
//!
//! Whoever gets a lock says so, and it is checked that nobody holds one who must not at the same time.

use std::{
    cell::{
        Cell,
        RefCell, //
    },
    rc::Rc,
};

use crate::{
    choices::{
        explore,
        random, //
    },
    core::prison::{
        ExcludeAll,
        ExcludeWriters,
        Guard,
        LockMode,
        Mode,
        Prison,
        Shared, //
    },
    executor::{
        yield_now,
        Executor,
        Stepper, //
    },
    facade,
    prison_fixtures::{
        conflict,
        new_prison,
        Blocks, //
    },
};

/// More than any of the worlds needs.
const AT_MOST: usize = 3_000_000;

const fn block(number: u64) -> Blocks {
    Blocks {
        space: 1,
        first: number,
        last: number,
    }
}

const fn blocks(first: u64, last: u64) -> Blocks {
    Blocks {
        space: 1,
        first,
        last,
    }
}

const fn data(number: u64) -> Blocks {
    Blocks {
        space: 0,
        first: number,
        last: number,
    }
}

struct World {
    prison: &'static Prison,
    held: RefCell<Vec<(u64, Blocks, Mode)>>,
    last: Cell<u64>,
}

impl World {
    /// To be called when a lock has been granted.
    fn hold(&self, blocks: Blocks, mode: Mode) -> u64 {
        for (_, other, other_mode) in &*self.held.borrow() {
            let conflicts = conflict((blocks, mode), (*other, *other_mode));
            assert!(
                !conflicts,
                "{mode:?} on {blocks:?}, {other_mode:?} on {other:?}"
            );
        }
        self.last.set(self.last.get() + 1);
        self.held.borrow_mut().push((self.last.get(), blocks, mode));
        self.last.get()
    }

    /// To be called before it is given back.
    fn unhold(&self, id: u64) {
        self.held.borrow_mut().retain(|(other, _, _)| *other != id);
    }

    async fn share(&self, blocks: Blocks, mode: Shared) {
        let lock = self.prison.lock(blocks.range(), mode).await;
        let as_mode = if mode == Shared::Read {
            Mode::Read
        } else {
            Mode::Write
        };
        let id = self.hold(blocks, as_mode);
        yield_now().await;
        self.unhold(id);
        // As if the I/O ended somewhere else.
        self.prison.release(lock.keep());
    }

    async fn exclude(&self, blocks: Blocks) {
        let lock = self.prison.lock(blocks.range(), ExcludeAll).await;
        let id = self.hold(blocks, Mode::ExcludeAll);
        yield_now().await;
        self.unhold(id);
        drop(lock);
    }

    /// What a write to a block does that somebody else may provision or copy at the same time.
    async fn provision(&self, at: Blocks, mapped: &Cell<bool>, copy: bool) {
        loop {
            let lock = self.prison.lock(at.range(), Shared::Write).await;
            if mapped.get() {
                let id = self.hold(at, Mode::Write);
                yield_now().await;
                self.unhold(id);
                return;
            }
            let Some(lock) = lock.upgrade().await else {
                continue;
            };
            let id = self.hold(at, Mode::ExcludeWriters);
            if mapped.get() {
                self.unhold(id);
                drop(lock.downgrade(Shared::Write));
                return;
            }
            yield_now().await;
            self.unhold(id);
            let lock = if copy {
                let lock = lock.promote().await;
                let id = self.hold(at, Mode::ExcludeAll);
                assert!(!mapped.replace(true), "it is mapped twice");
                self.unhold(id);
                lock.downgrade(Shared::Write)
            } else {
                assert!(!mapped.replace(true), "it is mapped twice");
                lock.downgrade(Shared::Write)
            };
            let id = self.hold(at, Mode::Write);
            yield_now().await;
            self.unhold(id);
            drop(lock);
            return;
        }
    }
}

/// Runs a world in all orders.
fn world(build: impl Fn(&Executor<'static>, &Rc<World>)) {
    let prison = new_prison();
    let runs = explore(AT_MOST, |choices| {
        let executor = Executor::new(choices.clone());
        run(prison, &executor, &build, Executor::run);
    });
    println!("{runs} ways");
}

fn run(
    prison: &'static Prison,
    executor: &Executor<'static>,
    build: impl Fn(&Executor<'static>, &Rc<World>),
    run: impl Fn(&Executor<'static>),
) {
    let world = Rc::new(World {
        prison,
        held: RefCell::default(),
        last: Cell::new(0),
    });
    build(executor, &world);
    run(executor);
    assert!(world.held.borrow().is_empty());
    assert!(prison.is_empty());
}

macro_rules! spawn {
    ($executor:expr, $world:expr, |$w:ident| $body:expr) => {{
        let $w = $world.clone();
        $executor.spawn(async move {
            $body;
        });
    }};
}

#[test]
fn two_writers_upgrade_on_the_same_block() {
    for copy in [false, true] {
        world(|executor, world| {
            let mapped = Rc::new(Cell::new(false));
            for _ in 0..2 {
                let mapped = mapped.clone();
                spawn!(executor, world, |w| w
                    .provision(block(0), &mapped, copy)
                    .await);
            }
        });
    }
}

#[test]
fn three_writers_upgrade_on_the_same_block() {
    world(|executor, world| {
        let mapped = Rc::new(Cell::new(false));
        for _ in 0..3 {
            let mapped = mapped.clone();
            spawn!(executor, world, |w| w
                .provision(block(0), &mapped, false)
                .await);
        }
    });
}

#[test]
fn readers_go_on_during_a_copy_but_not_while_it_is_put_in_place() {
    world(|executor, world| {
        let mapped = Rc::new(Cell::new(false));
        spawn!(executor, world, |w| w
            .provision(block(0), &mapped, true)
            .await);
        spawn!(executor, world, |w| w.share(block(0), Shared::Read).await);
        spawn!(executor, world, |w| w.share(block(0), Shared::Read).await);
    });
}

#[test]
fn a_copy_excludes_writers_but_no_readers() {
    let prison = new_prison();
    let copy = prison.try_lock(block(0).range(), ExcludeWriters).ok();
    let reader = prison.try_lock(block(0).range(), Shared::Read);
    assert!(reader.is_ok());
    assert!(prison.try_lock(block(0).range(), Shared::Write).is_err());
    assert!(prison.try_lock(block(0).range(), ExcludeWriters).is_err());
    drop((copy, reader));
    assert!(prison.is_empty());
}

#[test]
fn a_discard_races_a_write() {
    world(|executor, world| {
        let mapped = Rc::new(Cell::new(true));
        spawn!(executor, world, |w| w.share(block(1), Shared::Write).await);
        spawn!(executor, world, |w| w.exclude(blocks(0, 3)).await);
        spawn!(executor, world, |w| w
            .provision(block(3), &mapped, false)
            .await);
    });
}

#[test]
fn ranges_exclude_what_they_cover_and_no_more() {
    world(|executor, world| {
        spawn!(executor, world, |w| w.exclude(blocks(0, 2)).await);
        spawn!(executor, world, |w| w.exclude(blocks(2, 4)).await);
        spawn!(executor, world, |w| w.exclude(block(5)).await);
    });
    let prison = new_prison();
    let lock = prison.try_lock(blocks(1, 3).range(), ExcludeAll).ok();
    for (at, free) in [(0, true), (1, false), (2, false), (3, false), (4, true)] {
        let single = prison.try_lock(block(at).range(), Shared::Read);
        assert_eq!(single.is_ok(), free, "block {at}");
        drop(single);
        let other = Blocks {
            space: 2,
            ..block(at)
        };
        assert!(prison.try_lock(other.range(), Shared::Read).is_ok());
        assert!(prison.try_lock(data(at).range(), Shared::Read).is_ok());
    }
    drop(lock);
    assert!(prison.is_empty());
}

/// A request that has to wait.
fn waiting<M: LockMode + 'static>(
    prison: &'static Prison,
    blocks: Blocks,
    mode: M,
) -> Stepper<Guard<'static, M>> {
    let mut request = Stepper::new(prison.lock(blocks.range(), mode));
    assert!(request.step().is_none());
    request
}

#[test]
fn a_stream_of_readers_does_not_keep_an_exclusive_lock_waiting() {
    let prison = new_prison();
    let first = prison.try_lock(block(0).range(), Shared::Read).ok();
    let mut exclusive = waiting(prison, block(0), ExcludeAll);
    let mut late = waiting(prison, block(0), Shared::Read);
    assert!(prison.try_lock(block(0).range(), Shared::Read).is_err());

    drop(first);
    assert!(exclusive.is_runnable() && !late.is_runnable());
    drop(exclusive.step().unwrap());
    drop(late.step().unwrap());
    assert!(prison.is_empty());
}

#[test]
fn nobody_overtakes_who_is_in_his_way() {
    let prison = new_prison();
    let held = prison.try_lock(block(0).range(), Shared::Write).ok();
    let mut range = waiting(prison, blocks(0, 3), ExcludeAll);
    // Nobody holds this block, but somebody ahead wants it.
    let mut behind = waiting(prison, block(3), Shared::Write);

    drop(held);
    assert!(range.is_runnable() && !behind.is_runnable());
    drop(range.step().unwrap());
    drop(behind.step().unwrap());
    assert!(prison.is_empty());
}

#[test]
fn who_waits_for_memory_gets_it() {
    facade::set_memory_is_short(true);
    world(|executor, world| {
        for number in 0..3 {
            spawn!(executor, world, |w| {
                let lock = w.prison.lock(block(number).range(), ExcludeWriters).await;
                // There is memory of the other kind, or will be, as nobody who has it needs more.
                let new = w.prison.lock(data(number).range(), ExcludeAll).await;
                drop(new);
                drop(lock);
            });
        }
    });
    facade::set_memory_is_short(false);
}

#[test]
fn other_processors_may_come_in_between() {
    let prison: &'static Prison = Box::leak(Box::new(Prison::new(4).expect("there is memory")));
    random(4000, |choices| {
        facade::set_memory_is_short(choices.one_in(2));
        let executor = Rc::new(Executor::new(choices.clone()));
        let build = |executor: &Executor<'static>, world: &Rc<World>| {
            let mapped = Rc::new(Cell::new(false));
            for _ in 0..2 {
                let mapped = mapped.clone();
                spawn!(executor, world, |w| w
                    .provision(block(0), &mapped, true)
                    .await);
                spawn!(executor, world, |w| w.share(block(0), Shared::Read).await);
                spawn!(executor, world, |w| w.share(block(1), Shared::Write).await);
            }
            spawn!(executor, world, |w| w.exclude(blocks(0, 1)).await);
            spawn!(executor, world, |w| w.exclude(data(7)).await);
        };
        let interrupted = executor.clone();
        run(prison, &executor, build, |_| interrupted.run_interrupted());
        facade::set_memory_is_short(false);
    });
}
