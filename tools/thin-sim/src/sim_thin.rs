// SPDX-License-Identifier: GPL-2.0

//! A thin device of a simulated pool: it has its bios served, and does what the verdicts say.
//!
//! The oracle is told what bios do, and judges what they return.

mod serving;

use std::sync::{
    atomic::AtomicBool,
    Arc, //
};

use crate::{
    core::{
        errno::{
            Errno,
            Result, //
        },
        mapping::Mapping,
        mode::Service,
        prison::{
            HeldLock,
            LockRange,
            Prison,
            Shared, //
        },
        remap::{
            self,
            Discards,
            Place,
            Thin,
            Verdict, //
        },
        units::{
            DataBlock,
            DeviceId,
            VirtualBlock, //
        },
    },
    executor::yield_now,
    facade::interrupt,
    sim_bio::{
        number_of,
        virtual_block,
        Io, //
    },
    sim_disk::{
        SECTORS,
        ZEROES, //
    },
    sim_oracle::Moment,
    sim_pool::{
        log,
        Pool, //
    },
};
use serving::Serving;

/// A thin device of the pool.
#[derive(Clone)]
pub(crate) struct SimThin {
    pub(crate) pool: Arc<Pool>,
    pub(crate) device: u64,
}

impl Thin for SimThin {
    fn id(&self) -> DeviceId {
        DeviceId::new(self.device).expect("it is small")
    }

    fn prison(&self) -> &Prison {
        self.pool.prison
    }

    fn is_changed(&self) -> bool {
        interrupt();
        let metadata = self.pool.metadata();
        metadata.has_changed(self.device) || metadata.lost.contains(&self.device)
    }

    fn origin_shows(&self, place: &Place) -> bool {
        let sector = place.offset.0 as usize;
        self.pool.origin.shows(number_of(place.block), sector)
    }

    fn origin_ends_in(&self, block: VirtualBlock) -> bool {
        let shows = |sector: &usize| self.pool.origin.shows(number_of(block), *sector);
        let shown = (0..SECTORS).filter(shows).count();
        shown > 0 && shown < SECTORS
    }

    fn lookup_now(&self, block: VirtualBlock) -> Option<Option<Mapping>> {
        interrupt();
        if self.pool.settings.slow_lookups && self.pool.chooses(2) == 1 {
            return None;
        }
        let found = self.pool.metadata().current.lookup(self.device, block.0);
        interrupt();
        Some(found)
    }
}

impl SimThin {
    /// Whether a bio would be served at once.
    pub(crate) fn serve_now(&self, io: Io) -> bool {
        match remap::serve_now(self, &io.request()) {
            Some(Verdict::Remap { lock, .. }) => {
                self.pool.prison.release(lock);
                true
            }
            verdict => verdict.is_some(),
        }
    }

    /// Has a bio served, and waits for its end.
    pub(crate) async fn submit(&self, io: Io) -> Result {
        if let Io::ZeroBlocks { begin, end } = io {
            // The target cuts them into writes if forgetting them is not enough, or not possible.
            let origin_shows = self.pool.origin.shows(begin, 0);
            if origin_shows || self.pool.settings.discards == Discards::Ignore {
                for block in begin..end {
                    self.submit_one(Io::Zero { block, only: None }).await?;
                }
                return Ok(());
            }
        }
        self.submit_one(io).await
    }

    async fn submit_one(&self, io: Io) -> Result {
        let begun = self.begin(io);
        let start = self.pool.oracle().moment();
        log!("thin {}: {io:?}", self.device);
        let result = loop {
            self.pool.enter(self.device).await;
            let served = self.serve(io, start).await;
            self.pool.leave(self.device);
            if let Some(result) = served {
                break result;
            }
            log!("thin {}: {io:?} is requeued", self.device);
        };
        log!("thin {}: {io:?} ends: {result:?}", self.device);
        let mut oracle = self.pool.oracle();
        for (register, begin) in begun {
            oracle.written(register, begin, result.is_ok(), io.is_durable());
        }
        if matches!(io, Io::Flush) && result.is_ok() {
            oracle.flushed(self.device, start);
        }
        result
    }

    /// Tells the oracle what a bio is about to change.
    fn begin(&self, io: Io) -> Vec<(crate::sim_oracle::Register, Moment)> {
        let mut oracle = self.pool.oracle();
        let mut change = |block, sector, value| {
            let at = Pool::register(self.device, block, sector);
            (at, oracle.write(at, value))
        };
        let sectors = Pool::sectors;
        match io {
            Io::Read { .. } | Io::Flush => Vec::new(),
            Io::Write { block, .. } | Io::Zero { block, .. } => {
                let values = io.values().into_iter().enumerate();
                let written = values.filter_map(|(sector, value)| Some((sector, value?)));
                written
                    .map(|(sector, value)| change(block, sector, Some(value)))
                    .collect()
            }
            Io::ZeroBlocks { begin, end } => (begin..end)
                .flat_map(|block| sectors().map(move |sector| (block, sector)))
                .map(|(block, sector)| change(block, sector, Some(ZEROES)))
                .collect(),
            Io::Discard { .. } if self.pool.settings.discards == Discards::Ignore => Vec::new(),
            Io::Discard { begin, end } => (begin..end)
                .flat_map(|block| sectors().map(move |sector| (block, sector)))
                .map(|(block, sector)| change(block, sector, None))
                .collect(),
        }
    }

    /// Returns how it ended, unless it is to be submitted again.
    async fn serve(&self, io: Io, start: Moment) -> Option<Result> {
        if let Service::Fail(error) = self.pool.rules().mapped {
            return Some(Err(error));
        }
        if !self.pool.has(self.device) {
            // What made it was undone.
            return Some(Err(Errno::EIO));
        }
        let request = io.request();
        let at_once = if self.pool.settings.fast_path {
            remap::serve_now(self, &request)
        } else {
            None
        };
        let (verdict, written) = match at_once {
            Some(verdict) => (verdict, false),
            None => {
                let serving = Serving {
                    thin: self,
                    io,
                    written: AtomicBool::new(false),
                };
                let verdict = remap::serve(&serving, &request).await;
                (verdict, serving.written.into_inner())
            }
        };
        Some(match verdict {
            Verdict::Remap {
                block,
                offset,
                lock,
            } => {
                assert!(!written, "{io:?} is submitted twice");
                assert_eq!(offset, io.offset());
                self.remapped(io, block, lock, start).await;
                Ok(())
            }
            Verdict::PassFlush => {
                assert!(matches!(io, Io::Flush));
                yield_now().await;
                self.pool.disk().flush();
                Ok(())
            }
            Verdict::ReadOrigin(place) => {
                assert!(matches!(io, Io::Read { .. }));
                self.check_unmapped(place.block, start);
                Ok(())
            }
            Verdict::Zeroes => {
                let Io::Read { block } = io else {
                    panic!("{io:?} reads nothing");
                };
                assert!(!self.pool.origin.shows(block, 0), "the origin shows there");
                self.check_unmapped(virtual_block(block), start);
                Ok(())
            }
            Verdict::Complete => Ok(()),
            Verdict::Requeue => return None,
            Verdict::Fail(error) => Err(error),
        })
    }

    /// The I/O of a bio that was sent to the data device.
    async fn remapped(&self, io: Io, data: DataBlock, lock: HeldLock, start: Moment) {
        match io {
            Io::Read { block } => {
                for sector in Pool::sectors() {
                    let found = self.pool.read_sector(data.0, sector).await;
                    let at = Pool::register(self.device, block, sector);
                    self.pool.oracle().check_read(at, start, found);
                }
            }
            Io::Write { .. } | Io::Zero { .. } => {
                for (sector, value) in io.values().into_iter().enumerate() {
                    if let Some(value) = value {
                        let durable = io.is_durable();
                        self.pool.write_sector(data.0, sector, value, durable).await;
                    }
                }
            }
            _ => panic!("{io:?} is not for one block"),
        }
        self.pool.prison.release(lock);
    }

    /// A block has been read that is mapped nowhere.
    fn check_unmapped(&self, block: VirtualBlock, start: Moment) {
        let oracle = self.pool.oracle();
        for sector in Pool::sectors() {
            let at = Pool::register(self.device, number_of(block), sector);
            oracle.check_read(at, start, oracle.unmapped(at));
        }
    }

    /// Checks that nobody else can have a lock on a block.
    fn assert_locked(&self, block: VirtualBlock, mode: Shared) {
        let range = LockRange::virtual_block(self.id(), block);
        assert!(
            self.pool.prison.try_lock(range, mode).is_err(),
            "no lock is held"
        );
    }

    fn assert_data_locked(&self, block: DataBlock) {
        let range = LockRange::data_block(block);
        let lock = self.pool.prison.try_lock(range, Shared::Read);
        assert!(lock.is_err(), "no lock is held");
    }

    /// Maps a block while nobody else has a lock in this mode.
    async fn map_block(&self, block: VirtualBlock, data: DataBlock, excluded: Shared) -> Result {
        let _turn = self.pool.metadata_queue().await;
        self.assert_locked(block, excluded);
        self.assert_data_locked(data);
        if let Service::Fail(error) = self.pool.rules().insert {
            return Err(error);
        }
        let mut metadata = self.pool.metadata();
        let before = metadata.current.lookup(self.device, block.0);
        match excluded {
            Shared::Write => assert_eq!(before, None, "it is mapped already"),
            Shared::Read => assert!(matches!(before, Some(Mapping::Shared(_)))),
        }
        log!("thin {} maps {block:?} to {data:?}", self.device);
        metadata.map(self.device, block, data);
        Ok(())
    }
}
