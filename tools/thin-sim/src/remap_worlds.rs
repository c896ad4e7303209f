// SPDX-License-Identifier: GPL-2.0

//! Small worlds around a pool: a few bios that get in each other's way, in all the orders that their
//! steps can come in. Here is what worlds are made of; the tests are in the files below.

mod at_once;
mod discards;
mod durability;
mod origins;
mod provisioning;
mod space;
mod zeroes;

use std::{
    cell::Cell,
    future::Future,
    rc::Rc,
    sync::Arc, //
};

use crate::{
    choices::{
        explore,
        Choices, //
    },
    core::{
        errno::Result, prison::Prison, remap::Discards, table::NoSpacePolicy, units::VirtualRange,
    },
    executor::Executor,
    prison_fixtures::new_prison,
    sim_bio::{
        virtual_block,
        Io, //
    },
    sim_disk::{
        Disk,
        Value,
        SECTORS, //
    },
    sim_metadata::Metadata,
    sim_oracle::{
        Oracle,
        Register, //
    },
    sim_pool::{
        Pool,
        Settings, //
    },
    sim_thin::SimThin, //
};

const THIN: u64 = 1;
const SNAPSHOT: u64 = 2;
const OTHER: u64 = 3;

/// Blocks of each thin device.
const VIRTUAL_BLOCKS: u64 = 4;

/// More than any of the worlds needs.
const AT_MOST: usize = 1_500_000;

/// The state that a world begins in.
struct Before {
    metadata: Metadata,
    disk: Disk,
    oracle: Oracle,
    last_value: Value,
}

impl Before {
    fn new(data_blocks: usize) -> Self {
        Self {
            metadata: Metadata::new(data_blocks),
            disk: Disk::new(data_blocks),
            oracle: Oracle::default(),
            last_value: 0,
        }
    }

    fn create(mut self, device: u64) -> Self {
        self.metadata.create(device);
        self.oracle.create(device, VIRTUAL_BLOCKS);
        self
    }

    /// Writes whole blocks.
    fn write(mut self, device: u64, blocks: impl IntoIterator<Item = u64>) -> Self {
        for block in blocks {
            let data = self.metadata.allocate().expect("there is space");
            self.metadata.map(device, virtual_block(block), data);
            for sector in 0..SECTORS {
                self.last_value += 1;
                let at = Register {
                    device,
                    block,
                    sector,
                };
                let start = self.oracle.write(at, Some(self.last_value));
                self.disk.put_durable(data.0, sector, self.last_value);
                self.oracle.written(at, start, true, true);
            }
        }
        self
    }

    fn discard(mut self, device: u64, block: u64) -> Self {
        let range = VirtualRange::new(virtual_block(block), virtual_block(block + 1));
        let run = self
            .metadata
            .first_run(device, range)
            .expect("it is mapped");
        self.metadata.remove(device, run);
        for sector in 0..SECTORS {
            let at = Register {
                device,
                block,
                sector,
            };
            let start = self.oracle.write(at, None);
            self.oracle.written(at, start, true, true);
        }
        self
    }

    /// Takes a snapshot of `THIN`.
    fn snapshot(mut self) -> Self {
        self.metadata.snapshot(SNAPSHOT, THIN);
        self.oracle.snapshot(SNAPSHOT, THIN);
        self
    }
}

struct World {
    pool: Arc<Pool>,
    executor: Rc<Executor<'static>>,
    last_value: Cell<Value>,
}

impl World {
    fn new(choices: &Choices, settings: Settings, before: Before, prison: &'static Prison) -> Self {
        let mut metadata = before.metadata;
        metadata.commit();
        Self {
            pool: Arc::new(Pool::new(
                prison,
                settings,
                choices,
                metadata,
                before.disk,
                before.oracle,
            )),
            executor: Rc::new(Executor::new(choices.clone())),
            last_value: Cell::new(before.last_value),
        }
    }

    fn thin(&self, device: u64) -> SimThin {
        SimThin {
            pool: self.pool.clone(),
            device,
        }
    }

    fn value(&self) -> Value {
        self.last_value.set(self.last_value.get() + 1);
        self.last_value.get()
    }

    /// A write of one sector.
    fn write(&self, block: u64, sector: usize) -> Io {
        let mut values = [None; SECTORS];
        values[sector] = Some(self.value());
        Io::Write {
            block,
            values,
            durable: false,
        }
    }

    /// A write of all sectors of a block.
    fn overwrite(&self, block: u64) -> Io {
        Io::Write {
            block,
            values: [(); SECTORS].map(|()| Some(self.value())),
            durable: false,
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(task);
    }

    /// Submits bios one after the other, each of which must succeed.
    fn submit(&self, device: u64, bios: impl IntoIterator<Item = Io>) {
        let expect = |result: Result| result.expect("nothing can go wrong");
        self.submit_expecting(device, bios, expect);
    }

    fn submit_expecting(
        &self,
        device: u64,
        bios: impl IntoIterator<Item = Io>,
        expect: impl Fn(Result) + 'static,
    ) {
        let thin = self.thin(device);
        let bios: Vec<_> = bios.into_iter().collect();
        self.spawn(async move {
            for io in bios {
                expect(thin.submit(io).await);
            }
        });
    }

    /// Looks at every moment at what a crash would leave.
    fn crash(&self) {
        let pool = self.pool.clone();
        self.executor.check_always(move || pool.check_crash());
    }

    /// Commits at any moment.
    fn commit(&self) {
        let pool = self.pool.clone();
        self.spawn(async move { pool.tick().await });
    }
}

fn zero(only: Option<usize>) -> Io {
    Io::Zero { block: 0, only }
}

fn durable(io: Io) -> Io {
    match io {
        Io::Write { block, values, .. } => Io::Write {
            block,
            values,
            durable: true,
        },
        io => io,
    }
}

/// Runs a world in all orders, and looks at what is left in the end.
fn world(settings: Settings, before: impl Fn() -> Before, build: impl Fn(&World)) -> usize {
    let prison = new_prison();
    explore(AT_MOST, |choices| {
        let world = World::new(choices, settings, before(), prison);
        build(&world);
        world.executor.run();
        world.pool.check_idle();
    })
}

/// Devices whose origin ends in the middle of block 0.
fn short_origin() -> Before {
    with_origin(1)
}

/// Devices whose origin ends where block 0 does.
fn long_origin() -> Before {
    with_origin(SECTORS)
}

fn with_origin(sectors: usize) -> Before {
    let mut before = Before::new(4);
    before.oracle.origin.sectors = sectors;
    before.create(THIN)
}

fn new_thin() -> Before {
    Before::new(6).create(THIN)
}

fn shared_block() -> Before {
    Before::new(4).create(THIN).write(THIN, [0]).snapshot()
}

fn mapped_block() -> Before {
    Before::new(4).create(THIN).write(THIN, [0])
}

const PLAIN: Settings = Settings {
    zeroes_new_blocks: true,
    discards: Discards::PassDown,
    fill_faults: None,
    commit_faults: None,
    crash_when_discarding: false,
    slow_lookups: false,
    fast_path: false,
    no_space: NoSpacePolicy::Error,
};

const READ: Io = Io::Read { block: 0 };
const DISCARD: Io = Io::Discard { begin: 0, end: 1 };
