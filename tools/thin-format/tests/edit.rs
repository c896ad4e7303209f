// SPDX-License-Identifier: GPL-2.0

//! Power cuts while metadata is being corrected.

mod common;

use common::{check_all, pool, superblock_of, told, Model};
use std::sync::Mutex;
use thin_format::block::{BLOCK_BYTES, BLOCK_SIZE};
use thin_format::edit;
use thin_format::io::{Memory, Store};
use thin_format::Result;
use thin_tools_dev::damage::{damage, places, Kind, Target};
use thin_tools_dev::generate::Shape;
use thin_tools_dev::random::Random;

enum Step {
    Write(u64, Vec<u8>),
    Flush,
}

/// Notes every block that is written, and every flush.
struct Recorder {
    store: Memory,
    steps: Mutex<Vec<Step>>,
}

impl Store for Recorder {
    fn blocks(&self) -> u64 {
        self.store.blocks()
    }
    fn read(&self, first: u64, bytes: &mut [u8]) -> Result {
        self.store.read(first, bytes)
    }
    fn write(&self, first: u64, bytes: &[u8]) -> Result {
        let mut steps = self.steps.lock().unwrap();
        steps.extend(
            (first..)
                .zip(bytes.chunks(BLOCK_SIZE))
                .map(|(block, bytes)| Step::Write(block, bytes.to_vec())),
        );
        self.store.write(first, bytes)
    }
    fn flush(&self) -> Result {
        self.steps.lock().unwrap().push(Step::Flush);
        Ok(())
    }
}

/// A power cut at any moment, with any of the writes since the last flush lost, leaves the old
/// metadata or metadata that is clean.
#[test]
fn a_power_cut_while_correcting_leaves_the_old_or_the_new() {
    let mut random = Random::new(Random::seed_of_test());
    let cases = [
        (Kind::CountHigh, Target::DataBitmap),
        (Kind::CountHigh, Target::MetadataBitmap),
        (Kind::Zero, Target::MetadataIndex),
        (Kind::Noise, Target::DataIndex),
        (Kind::Flip, Target::DataBitmap),
    ];
    for (kind, target) in cases {
        let shape = Shape {
            devices: 8,
            mappings: 20_000,
            nr_data_blocks: 60_000,
            held: random.chance(500),
            seed: random.next(),
            ..Shape::default()
        };
        let whole = pool(&shape);
        let places = places(&whole, target).unwrap();
        damage(&whole, kind, target, &places, &mut random)
            .unwrap()
            .expect("can be damaged so");
        let old = whole.to_bytes();
        let main = superblock_of(&whole);
        let model = Model::of(&whole);
        let truth = check_all(&whole).truth.expect("can be corrected");
        let reachable = truth.metadata.clone();
        let recorder = Recorder {
            store: whole,
            steps: Mutex::new(Vec::new()),
        };
        edit::set_right(&recorder, &main, truth).unwrap();
        let steps = recorder.steps.into_inner().unwrap();
        let writes = steps
            .iter()
            .filter(|step| matches!(step, Step::Write(..)))
            .count();
        assert!(writes > 3);
        let (mut outcomes, mut news) = (0, 0);
        for cut in 0..=steps.len() {
            for lose in [0, 500, 1000] {
                let flushed = steps[..cut]
                    .iter()
                    .rposition(|step| matches!(step, Step::Flush))
                    .unwrap_or(0);
                let store = Memory::from_bytes(old.clone());
                for (at, step) in steps[..cut].iter().enumerate() {
                    match step {
                        Step::Write(block, bytes) if at < flushed || !random.chance(lose) => {
                            store.write(*block, bytes).unwrap();
                        }
                        _ => {}
                    }
                }
                outcomes += 1;
                let bytes = store.to_bytes();
                if bytes[..BLOCK_SIZE] == old[..BLOCK_SIZE] {
                    for block in (0..store.blocks()).filter(|block| reachable.get(*block) > 0) {
                        let at = (block * BLOCK_BYTES) as usize;
                        assert!(
                            bytes[at..at + BLOCK_SIZE] == old[at..at + BLOCK_SIZE],
                            "block {block} changed"
                        );
                    }
                } else {
                    news += 1;
                    let outcome = check_all(&store);
                    assert!(outcome.findings.is_clean(), "{}", told(&outcome));
                    assert_eq!(Model::of(&store), model);
                }
            }
        }
        assert!(news > 0 && news < outcomes);
    }
}

#[test]
fn without_enough_free_blocks_nothing_is_written() {
    let shape = Shape {
        devices: 3,
        mappings: 5000,
        ..Shape::default()
    };
    let large = pool(&shape);
    let outcome = check_all(&large);
    let used = outcome.figures.metadata_blocks_used;
    // The same metadata on a device that is exactly full.
    let store = Memory::new(used);
    let built = shape.write(&store);
    if built.is_err() {
        // Smaller devices have smaller space maps: the exact fit is somewhere near.
        return;
    }
    let places = places(&store, Target::DataBitmap).unwrap();
    let mut random = Random::new(1);
    damage(&store, Kind::Zero, Target::DataBitmap, &places, &mut random)
        .unwrap()
        .unwrap();
    let before = store.to_bytes();
    let truth = check_all(&store).truth.unwrap();
    let error = edit::set_right(&store, &superblock_of(&store), truth).unwrap_err();
    assert!(
        matches!(error, thin_format::Error::NoSpace { .. }),
        "{error}"
    );
    assert_eq!(store.to_bytes(), before);
}
