// SPDX-License-Identifier: GPL-2.0

//! Metadata for tests, and what is true about them, found out the slow way.

#![allow(dead_code, reason = "not every test uses everything")]

use std::collections::BTreeMap;
use std::collections::HashMap;
use thin_format::check::{check, Options, Outcome};
use thin_format::io::{Memory, Store};
use thin_format::records::Superblock;
use thin_format::superblock::{self, Demand};
use thin_tools_dev::generate::Shape;
use thin_tools_dev::random::Random;

/// Metadata of some small shape.
pub fn random_pool(random: &mut Random) -> Memory {
    let shape = Shape {
        devices: 1 + random.below(12),
        snapshots: random.below(900),
        mappings: random.below(30_000),
        run_length: 1 + random.below(40),
        diverged: random.below(1000),
        depth: 1 + random.below(4),
        fill: 67 + random.below(34),
        needs_check: random.chance(300),
        held: random.chance(400),
        seed: random.next(),
        ..Shape::default()
    };
    pool(&shape)
}

/// Metadata of this shape.
pub fn pool(shape: &Shape) -> Memory {
    let store = Memory::new(shape.blocks() + 200);
    shape
        .write(&store)
        .expect("metadata of any shape can be made");
    store
}

pub fn superblock_of(store: &dyn Store) -> Superblock {
    superblock::read(store, 0, Demand::Everything).expect("the superblock is whole")
}

/// Checks everything.
pub fn check_all(store: &dyn Store) -> Outcome {
    let main = superblock_of(store);
    let held = (main.metadata_snapshot.0 != 0)
        .then(|| superblock::read(store, main.metadata_snapshot.0, Demand::Everything));
    check(
        store,
        &main,
        held,
        &Options {
            threads: 1,
            ..Options::default()
        },
        &(),
    )
}

/// What was found, one line each.
pub fn told(outcome: &Outcome) -> String {
    let lines = outcome.findings.list().iter();
    let lines = lines.map(|finding| format!("{}: {}\n", finding.code.name(), finding.text));
    lines.collect::<Vec<_>>().concat()
}

/// The references of whole metadata, counted node by node from bytes, without the library's trees.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Model {
    pub data: HashMap<u64, u32>,
    pub trees: HashMap<u64, u32>,
    /// Of the pool itself: which thin block is where, by device.
    pub mappings: BTreeMap<u64, BTreeMap<u64, u64>>,
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn short(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// The entries of a node: whether it is a leaf, and each key with its value's bytes.
fn node(store: &dyn Store, block: u64) -> (bool, Vec<(u64, Vec<u8>)>) {
    let bytes = store.read_block(block).unwrap();
    let (entries, room, size) = (short(&*bytes, 16), short(&*bytes, 20), short(&*bytes, 24));
    let values = 32 + 8 * room;
    let entry = |at: usize| {
        let value = bytes[values + at * size..values + (at + 1) * size].to_vec();
        (number(&*bytes, 32 + 8 * at), value)
    };
    (short(&*bytes, 4) == 2, (0..entries).map(entry).collect())
}

impl Model {
    pub fn of(store: &dyn Store) -> Model {
        let mut model = Model::default();
        let bytes = store.read_block(0).unwrap();
        *model.trees.entry(0).or_default() += 1;
        model.roots(store, &*bytes);
        let held = number(&*bytes, 56);
        if held != 0 {
            *model.trees.entry(held).or_default() += 1;
            model.roots(store, &*store.read_block(held).unwrap());
        }
        for (id, root) in entries(store, number(&*bytes, 320)) {
            let mappings = entries(store, number(&root, 0)).into_iter();
            let mappings = mappings.map(|(thin, to)| (thin, number(&to, 0) >> 24));
            model.mappings.insert(id, mappings.collect());
        }
        model
    }

    fn roots(&mut self, store: &dyn Store, superblock: &[u8]) {
        self.refer(store, number(superblock, 320), 2);
        self.refer(store, number(superblock, 328), 0);
    }

    /// Notes a reference to a node. `below` says how many more trees hang from its leaves.
    fn refer(&mut self, store: &dyn Store, block: u64, below: u32) {
        let count = self.trees.entry(block).or_default();
        *count += 1;
        if *count > 1 {
            return;
        }
        let (leaf, entries) = node(store, block);
        for (_, value) in entries {
            match (leaf, below) {
                (false, _) => self.refer(store, number(&value, 0), below),
                (true, 2) => self.refer(store, number(&value, 0), 1),
                (true, 1) => *self.data.entry(number(&value, 0) >> 24).or_default() += 1,
                (true, _) => {}
            }
        }
    }
}

fn entries(store: &dyn Store, root: u64) -> Vec<(u64, Vec<u8>)> {
    let (leaf, here) = node(store, root);
    if leaf {
        return here;
    }
    here.into_iter()
        .flat_map(|(_, child)| entries(store, number(&child, 0)))
        .collect()
}
