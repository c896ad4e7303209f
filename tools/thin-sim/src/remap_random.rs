// SPDX-License-Identifier: GPL-2.0

//! Long random runs: several devices, their snapshots, all kinds of bios, faults, suspensions, other
//! processors that come in between, and memory that is short.

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc, //
};

use crate::{
    choices::{
        random,
        Choices, //
    },
    core::{
        errno::{
            Errno,
            Result, //
        },
        remap::Discards,
        table::NoSpacePolicy,
    },
    executor::Executor,
    facade,
    prison_fixtures::new_prison,
    sim_bio::Io,
    sim_disk::{
        Disk,
        Value,
        SECTORS, //
    },
    sim_metadata::Metadata,
    sim_oracle::Oracle,
    sim_pool::{
        Pool,
        Settings, //
    },
    sim_thin::SimThin,
};

/// Blocks of each device.
const BLOCKS: u64 = 5;

const DEVICES: [u64; 2] = [1, 2];

/// What the bios of a run are made of.
struct Mix<'a> {
    choices: &'a Choices,
    last_value: &'a Cell<Value>,
}

impl Mix<'_> {
    fn below(&self, ways: usize) -> usize {
        self.choices.below(ways)
    }

    fn value(&self) -> Value {
        self.last_value.set(self.last_value.get() + 1);
        self.last_value.get()
    }

    fn blocks(&self) -> (u64, u64) {
        let begin = self.below(BLOCKS as usize) as u64;
        let length = 1 + self.below(3) as u64;
        (begin, BLOCKS.min(begin + length))
    }

    fn io(&self) -> Io {
        let block = self.below(BLOCKS as usize) as u64;
        match self.below(16) {
            0..4 => Io::Read { block },
            4..8 => {
                let mut values = [None; SECTORS];
                values[self.below(SECTORS)] = Some(self.value());
                Io::Write {
                    block,
                    values,
                    durable: self.below(4) == 0,
                }
            }
            8..10 => Io::Write {
                block,
                values: [(); SECTORS].map(|()| Some(self.value())),
                durable: self.below(4) == 0,
            },
            10..12 => {
                let (begin, end) = self.blocks();
                Io::Discard { begin, end }
            }
            12 => {
                let (begin, end) = self.blocks();
                Io::ZeroBlocks { begin, end }
            }
            13 => {
                let only = [None, Some(0), Some(1)][self.below(3)];
                Io::Zero { block, only }
            }
            _ => Io::Flush,
        }
    }
}

fn settings(choices: &Choices) -> Settings {
    let one_of = |ways: usize| choices.below(ways);
    Settings {
        zeroes_new_blocks: true,
        discards: [Discards::PassDown, Discards::PassDown, Discards::Unmap][one_of(3)],
        fill_faults: [None, None, Some(8)][one_of(3)],
        commit_faults: [None, None, None, Some(12)][one_of(4)],
        crash_when_discarding: one_of(2) == 0,
        slow_lookups: one_of(2) == 0,
        fast_path: one_of(2) == 0,
        no_space: [NoSpacePolicy::Error, NoSpacePolicy::Queue][one_of(2)],
    }
}

/// Nothing else can come of a bio.
fn expect(io: Io, result: Result) {
    let possible = matches!(result, Ok(()) | Err(Errno::EIO | Errno::ENOSPC));
    assert!(possible, "{io:?} fails: {result:?}");
}

fn run(choices: &Choices) {
    let settings = settings(choices);
    let data_blocks = 3 + choices.below(8);
    let mut metadata = Metadata::new(data_blocks);
    let mut oracle = Oracle::default();
    oracle.origin.sectors = [0, 0, 3, 4][choices.below(4)];
    for device in DEVICES {
        metadata.create(device);
        oracle.create(device, BLOCKS);
    }
    metadata.commit();
    let pool = Arc::new(Pool::new(
        new_prison(),
        settings,
        choices,
        metadata,
        Disk::new(data_blocks),
        oracle,
    ));
    facade::set_memory_is_short(choices.one_in(2));

    let executor = Rc::new(Executor::new(choices.clone()));
    let last_value = Cell::new(0);
    let mix = Mix {
        choices,
        last_value: &last_value,
    };
    let snapshot = 3;
    let running = Rc::new(Cell::new(0));
    let submitters = 2 + choices.below(3);
    for _ in 0..submitters {
        let device = DEVICES[choices.below(2)];
        let pool = pool.clone();
        let bios: Vec<_> = (0..1 + choices.below(8)).map(|_| mix.io()).collect();
        let running = running.clone();
        running.set(running.get() + 1);
        executor.spawn(async move {
            let thin = SimThin { pool, device };
            for io in bios {
                expect(io, thin.submit(io).await);
            }
            running.set(running.get() - 1);
            thin.pool.look_again();
        });
    }
    if choices.one_in(2) {
        let thin = SimThin {
            pool: pool.clone(),
            device: snapshot,
        };
        let bios: Vec<_> = (0..choices.below(6)).map(|_| mix.io()).collect();
        let running = running.clone();
        running.set(running.get() + 1);
        executor.spawn(async move {
            thin.pool.snapshot(snapshot, DEVICES[0]).await;
            if thin.pool.has(snapshot) {
                for io in bios {
                    expect(io, thin.submit(io).await);
                }
            }
            running.set(running.get() - 1);
            thin.pool.look_again();
        });
    }
    // Commits, suspensions and growth come at any moment, and whoever waits for space is helped.
    let helper = pool.clone();
    let actions: Vec<_> = (0..6).map(|_| choices.below(4)).collect();
    executor.spawn(async move {
        for action in actions {
            match action {
                0 | 1 => helper.tick().await,
                2 => {
                    helper.suspend_noflush(DEVICES[0]).await;
                    helper.resume(DEVICES[0]);
                }
                _ => helper.grow(1).await,
            }
        }
        while running.get() != 0 {
            helper
                .until(|pool| pool.waiting() != 0 || running.get() == 0)
                .await;
            helper.time_out().await;
        }
    });
    let crashes = pool.clone();
    executor.check_always(move || crashes.check_crash());
    executor.run_interrupted();
    facade::set_memory_is_short(false);
    pool.check_idle();
}

#[test]
fn nothing_is_lost_in_long_random_runs() {
    random(3000, run);
}
