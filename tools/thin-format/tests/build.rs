// SPDX-License-Identifier: GPL-2.0

//! Metadata built from nothing: what a crash, a failing device or too little room leave.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::Mutex;

use thin_format::block::BLOCK_SIZE;
use thin_format::build;
use thin_format::build::Builder;
use thin_format::build::Pool;
use thin_format::error::Error;
use thin_format::error::Fault;
use thin_format::io::Memory;
use thin_format::io::Store;
use thin_format::records::DeviceDetails;
use thin_format::superblock;
use thin_format::superblock::Demand;
use thin_format::thin;
use thin_format::thin::Run;
use thin_format::thin::View;
use thin_format::Result;

const BLOCKS: u64 = 400;
const DATA_BLOCKS: u64 = 100_000;

/// Two devices that share some mappings.
fn fill(builder: &mut Builder<'_>) -> std::result::Result<Pool, build::Error> {
    let single = |index: u64| Run {
        thin: index * 2,
        data: index * 3,
        length: 1,
        time: 1,
    };
    let mut shared = builder.mappings();
    for index in 0..5_000 {
        builder.push(&mut shared, &single(index))?;
    }
    let shared = builder.shared(shared)?;
    for device in 0..2 {
        let mut mappings = builder.mappings();
        builder.push_shared(&mut mappings, &shared)?;
        builder.push(
            &mut mappings,
            &Run {
                thin: 20_000,
                data: 20_000 + device * 1_000,
                length: 700,
                time: 2,
            },
        )?;
        let details = DeviceDetails {
            mapped_blocks: 5_700,
            transaction_id: 3,
            creation_time: 1,
            snapshotted_time: 2,
        };
        builder.device(device, details, mappings)?;
    }
    builder.release(shared)?;
    Ok(Pool {
        time: 2,
        transaction_id: 4,
        data_block_size: 128,
        needs_check: false,
    })
}

fn mappings(store: &dyn Store) -> Vec<(u64, Vec<Run>)> {
    let pool = thin::Pool::open(store, View::Current).unwrap();
    let runs = |root: u64| {
        let mut runs = Vec::new();
        thin::mappings(store, root, 0, None, &mut |run| {
            runs.push(run);
            ControlFlow::Continue(())
        })
        .unwrap();
        runs
    };
    pool.devices()
        .iter()
        .map(|device| (device.id, runs(device.root.unwrap())))
        .collect()
}

/// Everything that was asked of a store, in order.
#[derive(Default)]
struct Log {
    writes: Vec<(u64, Vec<u8>)>,
    /// How many writes came before each flush.
    flushes: Vec<usize>,
}

/// A store that keeps a log, and fails at some write.
struct Recorder {
    memory: Memory,
    log: Mutex<Log>,
    fails_at: Option<usize>,
}

impl Recorder {
    fn new(memory: Memory, fails_at: Option<usize>) -> Recorder {
        Recorder {
            memory,
            log: Mutex::default(),
            fails_at,
        }
    }
}

impl Store for Recorder {
    fn blocks(&self) -> u64 {
        self.memory.blocks()
    }

    fn read(&self, first: u64, bytes: &mut [u8]) -> Result {
        self.memory.read(first, bytes)
    }

    fn write(&self, first: u64, bytes: &[u8]) -> Result {
        let mut log = self.log.lock().unwrap();
        log.writes.push((first, bytes.to_vec()));
        if self.fails_at == Some(log.writes.len()) {
            return Err(Error::Write {
                block: first,
                why: Arc::new(io::Error::other("made to fail")),
            });
        }
        self.memory.write(first, bytes)
    }

    fn flush(&self) -> Result {
        let mut log = self.log.lock().unwrap();
        let writes = log.writes.len();
        log.flushes.push(writes);
        Ok(())
    }
}

fn old_metadata() -> Memory {
    let memory = Memory::new(BLOCKS);
    build::build::<build::Error>(&memory, 50, |_| {
        Ok(Pool {
            data_block_size: 256,
            ..Pool::default()
        })
    })
    .unwrap();
    memory
}

#[test]
fn what_is_built_is_read_back() {
    let store = Memory::new(BLOCKS);
    let built = build::build(&store, DATA_BLOCKS, fill).unwrap();
    assert!(built.needed <= built.used);
    let found = mappings(&store);
    assert_eq!(found.len(), 2);
    for (device, runs) in found {
        assert_eq!(runs.len(), 5_001);
        let last = Run {
            thin: 20_000,
            data: 20_000 + device * 1_000,
            length: 700,
            time: 2,
        };
        assert_eq!(runs.last(), Some(&last));
    }
}

#[test]
fn a_crash_leaves_no_metadata_or_the_whole() {
    let store = Recorder::new(old_metadata(), None);
    build::build(&store, DATA_BLOCKS, fill).unwrap();
    let expected = store.memory.to_bytes();
    let log = store.log.into_inner().unwrap();
    // Between two flushes writes reach the medium in any order: take each alone besides all in order.
    assert_eq!(
        log.flushes.first(),
        Some(&1),
        "the old superblock goes first, alone"
    );
    assert_eq!(log.flushes.last(), Some(&log.writes.len()));
    assert_eq!(
        log.flushes.iter().rev().nth(1),
        Some(&(log.writes.len() - 1)),
        "the new superblock comes last, alone"
    );
    for crash in 1..log.writes.len() {
        for lone in [false, true] {
            let memory = old_metadata();
            let lost = if lone { 1..crash } else { 0..0 };
            for (index, (first, bytes)) in log.writes.iter().take(crash + 1).enumerate() {
                let is_last = index + 1 == log.writes.len();
                if !is_last && !lost.contains(&index) {
                    memory.write(*first, bytes).unwrap();
                }
            }
            let error = superblock::read(&memory, 0, Demand::Checksum).unwrap_err();
            assert_eq!(
                error.fault(),
                Some(&Fault::Unformatted),
                "crash after write {crash}"
            );
        }
    }
    let memory = old_metadata();
    for (first, bytes) in &log.writes {
        memory.write(*first, bytes).unwrap();
    }
    assert!(memory.to_bytes() == expected);
}

#[test]
fn every_failing_write_is_reported() {
    let store = Recorder::new(old_metadata(), None);
    build::build(&store, DATA_BLOCKS, fill).unwrap();
    let writes = store.log.into_inner().unwrap().writes.len();
    assert!(writes >= 3);
    for fails_at in 1..=writes {
        let store = Recorder::new(old_metadata(), Some(fails_at));
        let error = build::build(&store, DATA_BLOCKS, fill).unwrap_err();
        assert!(
            error.to_string().contains("I/O error writing"),
            "write {fails_at}: {error}"
        );
        if fails_at > 1 {
            assert!(
                superblock::read(&store, 0, Demand::Checksum).is_err(),
                "write {fails_at}"
            );
        }
    }
}

#[test]
fn a_rehearsal_knows_the_room_it_takes() {
    let needed = build::rehearse(DATA_BLOCKS, fill).unwrap().needed;
    let store = Memory::new(needed);
    let built = build::build(&store, DATA_BLOCKS, fill).unwrap();
    assert_eq!((built.used, built.needed), (needed, needed));
    assert_eq!(mappings(&store).len(), 2);
    let store = Memory::new(needed - 1);
    let error = build::build(&store, DATA_BLOCKS, fill).unwrap_err();
    assert!(
        error.to_string().starts_with("out of metadata space"),
        "{error}"
    );
    assert_eq!(*store.read_block(0).unwrap(), [0; BLOCK_SIZE]);
}

#[test]
fn impossible_mappings_are_refused() {
    let refused = |runs: &[Run]| {
        let store = Memory::new(BLOCKS);
        let outcome = build::build(&store, 100, |builder| {
            let mut mappings = builder.mappings();
            for run in runs {
                builder.push(&mut mappings, run)?;
            }
            builder.device(1, DeviceDetails::from_bytes([0; 24]), mappings)?;
            Ok::<_, build::Error>(Pool::default())
        });
        outcome.unwrap_err()
    };
    let run = |thin, data, length, time| Run {
        thin,
        data,
        length,
        time,
    };
    assert!(matches!(
        refused(&[run(0, 99, 2, 0)]),
        build::Error::DataBlock { block: 100 }
    ));
    assert!(matches!(
        refused(&[run(0, u64::MAX, 1, 0)]),
        build::Error::DataBlock { .. }
    ));
    assert!(matches!(
        refused(&[run(u64::MAX, 0, 2, 0)]),
        build::Error::KeyOrder { .. }
    ));
    assert!(matches!(
        refused(&[run(5, 0, 2, 0), run(6, 3, 1, 0)]),
        build::Error::KeyOrder { key: 6 }
    ));
    assert!(matches!(
        refused(&[run(0, 0, 1, 1 << 24)]),
        build::Error::Time { .. }
    ));
    assert!(matches!(
        build::build::<build::Error>(&Memory::new(BLOCKS), u64::MAX, |_| Ok(Pool::default())),
        Err(build::Error::TooManyDataBlocks)
    ));
}
