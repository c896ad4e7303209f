// SPDX-License-Identifier: GPL-2.0

//! A simulated pool: a disk, metadata, a mode, and a queue for what changes the metadata.
//!
//! It does in a few lines what `control.rs` does for the driver, with the same modes.

use std::{
    collections::{
        BTreeMap,
        VecDeque, //
    },
    future::poll_fn,
    sync::{
        Mutex,
        MutexGuard,
        OnceLock, //
    },
    task::Poll,
};

use crate::{
    choices::Choices,
    core::{
        errno::{
            Errno,
            Result, //
        },
        mode::{
            Input,
            MetadataAccess,
            PoolState,
            Recovery,
            Service,
            Waiting, //
        },
        prison::Prison,
        remap::{
            Discards,
            Space,
            Stop, //
        },
        table::{
            NoSpacePolicy,
            PoolFeatures, //
        },
        units::DataBlock,
    },
    executor::{
        park,
        yield_now,
        WakeToken, //
    },
    sim_bio::virtual_block,
    sim_disk::{
        Disk,
        Value,
        SECTORS,
        STALE, //
    },
    sim_metadata::{
        Metadata,
        Shortage, //
    },
    sim_oracle::{
        Oracle,
        Origin,
        Register, //
    },
};

/// Whether the environment variable `DM_THIN_RS_LOG` asks for everything that happens.
pub(crate) fn is_logging() -> bool {
    static LOGGING: OnceLock<bool> = OnceLock::new();
    *LOGGING.get_or_init(|| std::env::var_os("DM_THIN_RS_LOG").is_some())
}

macro_rules! log {
    ($($arguments:tt)*) => {
        if $crate::sim_pool::is_logging() {
            eprintln!($($arguments)*);
        }
    };
}
pub(crate) use log;

/// What a pool is to do, and what is to go wrong.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) zeroes_new_blocks: bool,
    pub(crate) discards: Discards,
    /// Filling a block fails once in so many times.
    pub(crate) fill_faults: Option<usize>,
    /// The same for commits.
    pub(crate) commit_faults: Option<usize>,
    /// Whether to look at what a crash would leave while blocks are being discarded.
    pub(crate) crash_when_discarding: bool,
    /// Whether looking up a block may take the metadata queue.
    pub(crate) slow_lookups: bool,
    /// Whether bios are served at once if that is possible.
    pub(crate) fast_path: bool,
    pub(crate) no_space: NoSpacePolicy,
}

/// A queue that takes one at a time.
#[derive(Default)]
struct Queue {
    is_taken: bool,
    waiting: VecDeque<WakeToken>,
}

/// A bio that waits for space.
struct Sleeper {
    device: u64,
    id: u64,
    token: WakeToken,
}

#[derive(Default)]
struct Sleepers {
    waiting: Vec<Sleeper>,
    answers: BTreeMap<u64, Space>,
    last_id: u64,
    /// Tasks that want to know when there is somebody else who waits.
    watchers: Vec<WakeToken>,
}

/// How a device is with regard to being suspended.
#[derive(Default)]
struct Traffic {
    /// How many have suspended it, or are about to.
    suspensions: usize,
    in_flight: usize,
    /// Bios that wait for the resume, and who waits for all in flight to end.
    waiting: Vec<WakeToken>,
}

pub(crate) struct Pool {
    pub(crate) prison: &'static Prison,
    pub(crate) settings: Settings,
    pub(crate) origin: Origin,
    choices: Choices,
    metadata: Mutex<Metadata>,
    disk: Mutex<Disk>,
    oracle: Mutex<Oracle>,
    state: Mutex<PoolState>,
    queue: Mutex<Queue>,
    sleepers: Mutex<Sleepers>,
    traffic: Mutex<BTreeMap<u64, Traffic>>,
}

/// The metadata queue does something for whoever holds this, and nothing else.
pub(crate) struct Turn<'a>(&'a Pool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        queue.is_taken = false;
        if let Some(next) = queue.waiting.pop_front() {
            queue.is_taken = true;
            next.wake();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.try_lock() {
        Ok(guard) => guard,
        // A test has failed already.
        Err(_) => panic!("somebody has it"),
    }
}

impl Pool {
    pub(crate) fn new(
        prison: &'static Prison,
        settings: Settings,
        choices: &Choices,
        metadata: Metadata,
        disk: Disk,
        oracle: Oracle,
    ) -> Self {
        let mut state = PoolState::new(false);
        let _ = state.apply(Input::TableLoaded(features(&settings)));
        Self {
            prison,
            settings,
            origin: oracle.origin,
            choices: choices.clone(),
            metadata: Mutex::new(metadata),
            disk: Mutex::new(disk),
            oracle: Mutex::new(oracle),
            state: Mutex::new(state),
            queue: Mutex::default(),
            sleepers: Mutex::default(),
            traffic: Mutex::default(),
        }
    }

    pub(crate) fn metadata(&self) -> MutexGuard<'_, Metadata> {
        lock(&self.metadata)
    }

    pub(crate) fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }

    pub(crate) fn oracle(&self) -> MutexGuard<'_, Oracle> {
        lock(&self.oracle)
    }

    pub(crate) fn rules(&self) -> crate::core::mode::Rules {
        lock(&self.state).rules()
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.rules().metadata == MetadataAccess::ReadOnly
    }

    /// Whether something goes wrong now that does so once in so many times.
    pub(crate) fn fails(&self, faults: Option<usize>) -> bool {
        faults.is_some_and(|times| self.choices.one_in(times))
    }

    /// One of several things.
    pub(crate) fn chooses(&self, ways: usize) -> usize {
        self.choices.below(ways)
    }

    /// Waits for the metadata queue.
    pub(crate) async fn metadata_queue(&self) -> Turn<'_> {
        // Others may come first even if it is free.
        yield_now().await;
        let mut has_waited = false;
        poll_fn(|context| {
            let mut queue = lock(&self.queue);
            if has_waited || !queue.is_taken {
                queue.is_taken = true;
                return Poll::Ready(());
            }
            has_waited = true;
            queue.waiting.push_back(park(context));
            Poll::Pending
        })
        .await;
        Turn(self)
    }

    fn apply(&self, input: Input) {
        let effects = lock(&self.state).apply(input);
        log!("{input:?}: {effects:?}");
        let answer = match effects.waiting {
            Some(Waiting::TryAgain) => Space::TryAgain,
            Some(Waiting::Fail(error)) => Space::Fail(error),
            None => return,
        };
        self.answer(|_| true, answer);
    }

    /// Answers those who wait for space.
    fn answer(&self, who: impl Fn(&Sleeper) -> bool, answer: Space) {
        let mut sleepers = lock(&self.sleepers);
        let waiting = std::mem::take(&mut sleepers.waiting);
        for sleeper in waiting {
            if who(&sleeper) {
                sleepers.answers.insert(sleeper.id, answer);
                sleeper.token.wake();
            } else {
                sleepers.waiting.push(sleeper);
            }
        }
    }

    fn admit(&self) -> std::result::Result<(), Stop> {
        match self.rules().new_block {
            Service::Serve => Ok(()),
            Service::Wait => Err(Stop::NoSpace),
            Service::Ignore => unreachable!("no write is ignored"),
            Service::Fail(error) => Err(error.into()),
        }
    }

    pub(crate) async fn allocate(&self) -> std::result::Result<DataBlock, Stop> {
        let turn = self.metadata_queue().await;
        let may_gain = {
            let metadata = self.metadata();
            metadata.is_changed() && metadata.free_blocks() > 0
        };
        if may_gain && self.rules().new_block != Service::Serve && !self.is_read_only() {
            self.commit(&turn).await?;
        }
        self.admit()?;
        let mut allocated = self.metadata().allocate();
        if allocated == Err(Shortage::CommitFirst) {
            self.commit(&turn).await?;
            self.admit()?;
            allocated = self.metadata().allocate();
        }
        allocated.map_err(|_| {
            self.apply(Input::DataSpaceExhausted);
            self.admit().expect_err("there is no space")
        })
    }

    /// Waits for space on behalf of a bio of a device.
    pub(crate) async fn space(&self, device: u64) -> Space {
        let turn = self.metadata_queue().await;
        let id = {
            let mut sleepers = lock(&self.sleepers);
            sleepers.last_id += 1;
            sleepers.last_id
        };
        let mut turn = Some(turn);
        poll_fn(|context| {
            if let Some(turn) = turn.take() {
                // Asked on the metadata queue, so that nothing changes meanwhile.
                let answer = match self.rules().new_block {
                    _ if self.is_suspended(device) => Some(Space::Requeue),
                    Service::Serve => Some(Space::TryAgain),
                    Service::Wait => None,
                    Service::Ignore => unreachable!("no write is ignored"),
                    Service::Fail(error) => Some(Space::Fail(error)),
                };
                if answer.is_none() {
                    let mut sleepers = lock(&self.sleepers);
                    let token = park(context);
                    sleepers.waiting.push(Sleeper { device, id, token });
                    sleepers.watchers.drain(..).for_each(WakeToken::wake);
                }
                drop(turn);
                return answer.map_or(Poll::Pending, Poll::Ready);
            }
            let answer = lock(&self.sleepers).answers.remove(&id);
            Poll::Ready(answer.expect("it is woken with an answer"))
        })
        .await
    }

    /// How many bios wait for space.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.sleepers).waiting.len()
    }

    /// Whether there is a device.
    pub(crate) fn has(&self, device: u64) -> bool {
        self.metadata().current.has(device)
    }

    /// What somebody waits for with [`Self::until`] may be the case now.
    pub(crate) fn look_again(&self) {
        lock(&self.sleepers)
            .watchers
            .drain(..)
            .for_each(WakeToken::wake);
    }

    /// Waits until `condition` holds; it is looked at whenever somebody begins to wait for space.
    pub(crate) async fn until(&self, condition: impl Fn(&Self) -> bool) {
        poll_fn(|context| {
            if condition(self) {
                return Poll::Ready(());
            }
            lock(&self.sleepers).watchers.push(park(context));
            Poll::Pending
        })
        .await;
    }

    /// Makes everything durable.
    pub(crate) async fn commit(&self, _turn: &Turn<'_>) -> Result {
        if self.is_read_only() {
            return Err(Errno::EIO);
        }
        self.disk().flush();
        yield_now().await;
        if self.fails(self.settings.commit_faults) {
            log!("a commit fails");
            self.metadata().abort();
            self.oracle().abort();
            self.apply(Input::OperationFailed(Recovery::Complete));
            return Err(Errno::EIO);
        }
        self.metadata().commit();
        log!("committed");
        let free_data = self.metadata().free_blocks();
        self.apply(Input::Committed {
            free_metadata: Ok(1),
            free_data: Ok(free_data),
        });
        Ok(())
    }

    /// What happens once a second.
    pub(crate) async fn tick(&self) {
        let turn = self.metadata_queue().await;
        if self.metadata().is_changed() {
            // A failure has its effect.
            let _ = self.commit(&turn).await;
        }
    }

    /// The data device grows.
    pub(crate) async fn grow(&self, blocks: usize) {
        let turn = self.metadata_queue().await;
        self.disk().grow(blocks);
        self.metadata().grow(blocks as u64);
        let _ = self.commit(&turn).await;
    }

    /// Those who wait for space have waited for long enough.
    pub(crate) async fn time_out(&self) {
        let _turn = self.metadata_queue().await;
        self.apply(Input::NoSpaceTimeout);
    }

    /// The pool is resumed with the same table.
    pub(crate) async fn resume_pool(&self) {
        let _turn = self.metadata_queue().await;
        self.apply(Input::TableResumed(features(&self.settings)));
    }

    /// Takes a snapshot of a device, whose bios wait meanwhile.
    pub(crate) async fn snapshot(&self, device: u64, origin: u64) {
        self.suspend_noflush(origin).await;
        {
            let _turn = self.metadata_queue().await;
            if !self.is_read_only() {
                self.metadata().snapshot(device, origin);
                self.oracle().snapshot(device, origin);
                log!("{device} is a snapshot of {origin}");
            }
        }
        self.resume(origin);
    }

    fn is_suspended(&self, device: u64) -> bool {
        let mut traffic = lock(&self.traffic);
        traffic.entry(device).or_default().suspensions != 0
    }

    /// A bio goes to a device, as soon as that is not suspended.
    pub(crate) async fn enter(&self, device: u64) {
        poll_fn(|context| {
            let mut traffic = lock(&self.traffic);
            let traffic = traffic.entry(device).or_default();
            if traffic.suspensions != 0 {
                traffic.waiting.push(park(context));
                return Poll::Pending;
            }
            traffic.in_flight += 1;
            Poll::Ready(())
        })
        .await;
    }

    /// It is done with, or comes back later.
    pub(crate) fn leave(&self, device: u64) {
        let mut traffic = lock(&self.traffic);
        let traffic = traffic.entry(device).or_default();
        traffic.in_flight -= 1;
        if traffic.in_flight == 0 {
            traffic.waiting.drain(..).for_each(WakeToken::wake);
        }
    }

    /// No bio of a device waits for space any longer.
    pub(crate) async fn begin_to_suspend(&self, device: u64) {
        let _turn = self.metadata_queue().await;
        lock(&self.traffic).entry(device).or_default().suspensions += 1;
        self.answer(|sleeper| sleeper.device == device, Space::Requeue);
    }

    /// The same, and all others have ended.
    pub(crate) async fn suspend_noflush(&self, device: u64) {
        self.begin_to_suspend(device).await;
        poll_fn(|context| {
            let mut traffic = lock(&self.traffic);
            let traffic = traffic.entry(device).or_default();
            if traffic.in_flight == 0 {
                return Poll::Ready(());
            }
            traffic.waiting.push(park(context));
            Poll::Pending
        })
        .await;
    }

    pub(crate) fn resume(&self, device: u64) {
        let mut traffic = lock(&self.traffic);
        let traffic = traffic.entry(device).or_default();
        traffic.suspensions -= 1;
        traffic.waiting.drain(..).for_each(WakeToken::wake);
    }

    pub(crate) async fn write_sector(
        &self,
        block: u64,
        sector: usize,
        value: Value,
        durable: bool,
    ) {
        yield_now().await;
        let mut disk = self.disk();
        log!("data block {block}, sector {sector}: {value}");
        if durable {
            disk.put_durable(block, sector, value);
        } else {
            disk.put(block, sector, value);
        }
    }

    pub(crate) async fn read_sector(&self, block: u64, sector: usize) -> Value {
        yield_now().await;
        self.disk().get(block, sector)
    }

    /// Fills a part of a block.
    pub(crate) async fn fail_to_fill(&self, block: DataBlock) -> Result {
        self.write_sector(block.0, 0, STALE, false).await;
        Err(Errno::EIO)
    }

    /// Looks at what a crash would leave.
    pub(crate) fn check_crash(&self) {
        let (metadata, disk, oracle) = (self.metadata(), self.disk(), self.oracle());
        let committed = &metadata.committed;
        for at in oracle.registers() {
            // A device that was not committed is not there.
            if !committed.has(at.device) {
                continue;
            }
            match committed.lookup(at.device, virtual_block(at.block).0) {
                Some(mapping) => {
                    for found in disk.after_crash(mapping.block().0, at.sector) {
                        oracle.check_crash(at, found);
                    }
                }
                None => oracle.check_crash(at, oracle.unmapped(at)),
            }
        }
    }

    /// Looks at what there is in the end, when nobody does anything any more.
    pub(crate) fn check_idle(&self) {
        assert!(self.prison.is_empty(), "a lock is left");
        assert_eq!(self.waiting(), 0);
        let is_read_only = self.is_read_only();
        let (metadata, disk) = (self.metadata(), self.disk());
        let mut oracle = self.oracle();
        if !is_read_only {
            metadata.check_idle();
        }
        let now = oracle.moment();
        for at in oracle.registers() {
            if !metadata.current.has(at.device) {
                continue;
            }
            let found = match metadata
                .current
                .lookup(at.device, virtual_block(at.block).0)
            {
                Some(mapping) => disk.get(mapping.block().0, at.sector),
                None => oracle.unmapped(at),
            };
            oracle.check_read(at, now, found);
        }
    }

    /// How many sectors there are in a block.
    pub(crate) fn sectors() -> std::ops::Range<usize> {
        0..SECTORS
    }

    pub(crate) fn register(device: u64, block: u64, sector: usize) -> Register {
        Register {
            device,
            block,
            sector,
        }
    }
}

fn features(settings: &Settings) -> PoolFeatures {
    PoolFeatures {
        no_space: settings.no_space,
        ..PoolFeatures::default()
    }
}
