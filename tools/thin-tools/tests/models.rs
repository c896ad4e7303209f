// SPDX-License-Identifier: GPL-2.0

//! What thin_ls, thin_delta, thin_rmap and thin_explain find, against models that take every mapping of every
//! device by itself.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use thin_format::block::BlockKind;
use thin_format::btree;
use thin_format::btree::Visit;
use thin_format::checksum;
use thin_format::io::Memory;
use thin_format::io::Store;
use thin_format::records::NodeHeader;
use thin_format::records::PackedMapping;
use thin_format::thin::Pool;
use thin_format::thin::View;
use thin_tools::delta;
use thin_tools::delta::Kind;
use thin_tools::explain;
use thin_tools::ls;
use thin_tools::report::Counter;
use thin_tools::rmap;
use thin_tools_dev::generate::Shape;
use thin_tools_dev::random::Random;

/// Where a device's blocks are.
type Mappings = BTreeMap<u64, u64>;

/// A leaf, and what it maps.
type Leaves = BTreeMap<u64, Mappings>;

fn leaves(store: &dyn Store, root: u64) -> Leaves {
    let mut leaves = Leaves::new();
    btree::walk(store, root, PackedMapping::BYTES as u32, &mut |at| {
        if let Visit::Leaf(child, leaf) = at {
            let entries = leaf.entries::<PackedMapping>();
            leaves.insert(
                child.block,
                entries.map(|(thin, to)| (thin, to.block().0)).collect(),
            );
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    leaves
}

fn mappings(leaves: &Leaves) -> Mappings {
    leaves
        .values()
        .flatten()
        .map(|(thin, data)| (*thin, *data))
        .collect()
}

struct Model {
    store: Memory,
    data_blocks: u64,
    /// Number, root, leaves.
    devices: Vec<(u64, u64, Leaves)>,
}

impl Model {
    fn random(random: &mut Random) -> Model {
        let shape = Shape {
            devices: 1 + random.below(12),
            snapshots: random.below(1001),
            mappings: random.below(30_000),
            run_length: 1 + random.below(20),
            diverged: random.below(1001),
            depth: 1 + random.below(4),
            fill: 67 + random.below(34),
            held: random.chance(300),
            seed: random.next(),
            ..Shape::default()
        };
        println!("{shape:?}");
        let store = Memory::new(shape.blocks());
        shape
            .write(&store)
            .map_err(|_| "the generator failed")
            .unwrap();
        let model = Model::of(store);
        model.share_data(random);
        Model::of(model.store)
    }

    /// Makes leaves map data blocks that other leaves map too, as a leaf does after it was copied.
    fn share_data(&self, random: &mut Random) {
        let all: Vec<u64> = self
            .devices
            .iter()
            .flat_map(|(_, _, leaves)| leaves.keys().copied())
            .collect();
        for _ in 0..random.below(20) {
            let (from, to) = (*random.pick(&all).unwrap(), *random.pick(&all).unwrap());
            let from = self.store.read_block(from).unwrap();
            let mut bytes = self.store.read_block(to).unwrap();
            let entries = NodeHeader::read(&from)
                .entries
                .min(NodeHeader::read(&bytes).entries);
            for entry in 0..entries as usize {
                if random.chance(500) {
                    let value = 32 + 8 * 252 + 8 * entry;
                    bytes[value..value + 8].copy_from_slice(&from[value..value + 8]);
                }
            }
            checksum::seal(BlockKind::Node, &mut bytes, to);
            self.store.write_block(to, &bytes).unwrap();
        }
    }

    fn of(store: Memory) -> Model {
        let pool = Pool::open(&store, View::Current).unwrap();
        let data_blocks = pool.data_blocks();
        let devices = pool
            .devices()
            .iter()
            .map(|device| {
                let root = device.root.unwrap();
                (device.id, root, leaves(&store, root))
            })
            .collect();
        Model {
            store,
            data_blocks,
            devices,
        }
    }

    fn roots(&self) -> Vec<u64> {
        self.devices.iter().map(|(_, root, _)| *root).collect()
    }

    /// How many devices have a leaf, and how many entries of different leaves refer to a data block.
    fn references(&self) -> (BTreeMap<u64, u64>, BTreeMap<u64, u64>) {
        let mut of_leaf: BTreeMap<u64, u64> = BTreeMap::new();
        let mut of_data: BTreeMap<u64, u64> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (_, _, leaves) in &self.devices {
            for (block, mappings) in leaves {
                *of_leaf.entry(*block).or_default() += 1;
                if seen.insert(*block) {
                    for data in mappings.values() {
                        *of_data.entry(*data).or_default() += 1;
                    }
                }
            }
        }
        (of_leaf, of_data)
    }

    /// Of each device, how many blocks no other leaf and no other device has.
    fn exclusive(&self) -> Vec<u64> {
        let (of_leaf, of_data) = self.references();
        let exclusive = |leaves: &Leaves| {
            let own = leaves.iter().filter(|(block, _)| of_leaf[block] == 1);
            own.flat_map(|(_, mappings)| mappings.values())
                .filter(|data| of_data[data] == 1)
                .count() as u64
        };
        self.devices
            .iter()
            .map(|(_, _, leaves)| exclusive(leaves))
            .collect()
    }
}

fn each_model(name: &str, rounds: usize, mut check: impl FnMut(&Model, &mut Random)) {
    let mut random = Random::new(Random::seed_of_test());
    for round in 0..rounds {
        println!("{name}: round {round}");
        let model = Model::random(&mut random);
        check(&model, &mut random);
    }
}

#[test]
fn usage_is_what_counting_gives() {
    each_model("usage", 10, |model, _| {
        let (usages, bad) = ls::measure(
            &model.store,
            &model.roots(),
            model.data_blocks,
            &Counter::default(),
        );
        assert!(bad.is_empty());
        let exclusive = model.exclusive();
        for (at, ((id, _, leaves), usage)) in model.devices.iter().zip(usages).enumerate() {
            let mappings = mappings(leaves);
            assert_eq!(usage.mapped, mappings.len() as u64, "device {id}");
            assert_eq!(
                usage.highest,
                mappings.keys().next_back().copied(),
                "device {id}"
            );
            assert_eq!(usage.exclusive, exclusive[at], "device {id}");
            assert_eq!((usage.lost_nodes, usage.out_of_range), (0, 0));
        }
    });
}

#[test]
fn a_bad_leaf_costs_its_owners_what_it_maps() {
    each_model("a bad leaf", 10, |model, random| {
        let all: BTreeSet<u64> = model
            .devices
            .iter()
            .flat_map(|(_, _, leaves)| leaves.keys().copied())
            .collect();
        let all: Vec<u64> = all.into_iter().collect();
        let victim = *random.pick(&all).unwrap();
        let mut bytes = model.store.read_block(victim).unwrap();
        bytes[100] ^= 1;
        model.store.write_block(victim, &bytes).unwrap();
        let (usages, bad) = ls::measure(
            &model.store,
            &model.roots(),
            model.data_blocks,
            &Counter::default(),
        );
        // A root that is a leaf is seen twice: on the way down, and as a leaf.
        assert!(!bad.is_empty() && bad.iter().all(|(block, _)| *block == victim));
        for ((id, _, leaves), usage) in model.devices.iter().zip(usages) {
            let lost = leaves
                .get(&victim)
                .map_or(0, |mappings| mappings.len() as u64);
            assert_eq!(
                usage.mapped,
                mappings(leaves).len() as u64 - lost,
                "device {id}"
            );
            assert_eq!(
                usage.lost_nodes,
                u64::from(leaves.contains_key(&victim)),
                "device {id}"
            );
        }
    });
}

fn compare(store: &dyn Store, left: u64, right: u64, with_same: bool) -> BTreeMap<u64, Kind> {
    let mut all = BTreeMap::new();
    let mut last = None;
    delta::compare(
        store,
        left,
        right,
        with_same,
        &Counter::default(),
        &mut |found| {
            assert!(last.is_none_or(|last| last < found.begin), "not in order");
            last = Some(found.begin + (found.length - 1));
            for at in 0..found.length {
                all.insert(found.begin + at, found.kind);
            }
            Ok(())
        },
    )
    .unwrap();
    all
}

fn compare_models(left: &Mappings, right: &Mappings) -> BTreeMap<u64, Kind> {
    let mut all: BTreeMap<u64, Kind> = BTreeMap::new();
    for (thin, data) in left {
        let kind = match right.get(thin) {
            Some(other) if other == data => Kind::Same,
            Some(_) => Kind::Different,
            None => Kind::LeftOnly,
        };
        all.insert(*thin, kind);
    }
    for thin in right.keys().filter(|thin| !left.contains_key(thin)) {
        all.insert(*thin, Kind::RightOnly);
    }
    all
}

#[test]
fn differences_are_what_comparing_every_block_gives() {
    each_model("differences", 10, |model, random| {
        for _ in 0..6 {
            let (_, left, left_leaves) = random.pick(&model.devices).unwrap();
            let (_, right, right_leaves) = random.pick(&model.devices).unwrap();
            let mut expected = compare_models(&mappings(left_leaves), &mappings(right_leaves));
            assert!(compare(&model.store, *left, *right, true) == expected);
            expected.retain(|_, kind| *kind != Kind::Same);
            assert!(compare(&model.store, *left, *right, false) == expected);
        }
    });
}

/// Counts the blocks that are read.
struct Counted<'a> {
    store: &'a Memory,
    reads: std::sync::atomic::AtomicU64,
}

impl Store for Counted<'_> {
    fn blocks(&self) -> u64 {
        self.store.blocks()
    }

    fn read(&self, first: u64, bytes: &mut [u8]) -> thin_format::Result {
        let blocks = bytes.len() as u64 / 4096;
        self.reads
            .fetch_add(blocks, std::sync::atomic::Ordering::Relaxed);
        self.store.read(first, bytes)
    }

    fn write(&self, first: u64, bytes: &[u8]) -> thin_format::Result {
        self.store.write(first, bytes)
    }

    fn flush(&self) -> thin_format::Result {
        self.store.flush()
    }
}

#[test]
fn what_is_shared_is_not_read() {
    let shape = Shape {
        devices: 2,
        mappings: 400_000,
        diverged: 10,
        ..Shape::default()
    };
    let store = Memory::new(shape.blocks());
    shape
        .write(&store)
        .map_err(|_| "the generator failed")
        .unwrap();
    let model = Model::of(store);
    let counted = Counted {
        store: &model.store,
        reads: Default::default(),
    };
    let (left, right) = (model.devices[0].1, model.devices[1].1);
    let found = compare(&counted, left, right, false);
    assert!(!found.is_empty());
    let reads = counted.reads.into_inner();
    let leaves = model.devices[0].2.len() as u64;
    assert!(
        reads < leaves / 4,
        "{reads} blocks read, of {leaves} leaves"
    );
}

#[test]
fn every_owner_is_listed() {
    each_model("owners", 10, |model, random| {
        let devices: Vec<(u64, u64)> = model
            .devices
            .iter()
            .map(|(id, root, _)| (*id, *root))
            .collect();
        let mut regions = Vec::new();
        for _ in 0..1 + random.below(4) {
            let begin = random.below(model.data_blocks);
            regions.push((begin, begin + 1 + random.below(model.data_blocks / 3 + 1)));
        }
        let (owned, bad) = rmap::owners(&model.store, &devices, &regions, &Counter::default());
        assert!(bad.is_empty());
        assert!(owned.is_sorted());
        let mut found = Vec::new();
        for run in owned {
            found.extend((0..run.length).map(|at| (run.data + at, run.device, run.thin + at)));
        }
        found.sort_unstable();
        let mut expected = Vec::new();
        for (id, _, leaves) in &model.devices {
            for (thin, data) in mappings(leaves) {
                if regions
                    .iter()
                    .any(|(begin, end)| (*begin..*end).contains(&data))
                {
                    expected.push((data, *id, thin));
                }
            }
        }
        expected.sort_unstable();
        assert!(found == expected);
    });
}

#[test]
fn the_survey_agrees_with_counting() {
    each_model("survey", 10, |model, _| {
        let survey = explain::survey(
            &model.store,
            &model.roots(),
            model.data_blocks,
            &Counter::default(),
            &mut |_, _, _, _| {},
        );
        let (_, of_data) = model.references();
        assert_eq!(survey.referenced, of_data.len() as u64);
        let mut own = 0;
        let exclusive = model.exclusive();
        for (at, ((id, _, leaves), space)) in model.devices.iter().zip(&survey.spaces).enumerate() {
            let all = mappings(leaves);
            let mut runs = 0;
            let mut before = None;
            for (thin, data) in &all {
                runs += u64::from(before != Some((thin.wrapping_sub(1), data.wrapping_sub(1))));
                before = Some((*thin, *data));
            }
            assert_eq!(space.mapped, all.len() as u64, "device {id}");
            assert_eq!(space.own, exclusive[at], "device {id}");
            assert_eq!(space.runs, runs, "device {id}");
            own += space.own;
        }
        assert_eq!(survey.shared_blocks, survey.referenced - own);
    });
}

/// Puts a node above `root`, as when a snapshot's origin has grown by a level. Returns its block.
fn grow(store: &Memory, root: u64, block: u64) -> u64 {
    let mut bytes = store.read_block(root).unwrap();
    bytes.fill(0);
    NodeHeader {
        flags: NodeHeader::INTERNAL,
        entries: 1,
        max_entries: 252,
        value_size: 8,
    }
    .write(&mut bytes);
    bytes[32 + 8 * 252..][..8].copy_from_slice(&root.to_le_bytes());
    checksum::seal(BlockKind::Node, &mut bytes, block);
    store.write_block(block, &bytes).unwrap();
    block
}

#[test]
fn trees_of_different_height_share_nodes() {
    let shape = Shape {
        devices: 1,
        mappings: 5000,
        ..Shape::default()
    };
    let small = Memory::new(shape.blocks());
    shape
        .write(&small)
        .map_err(|_| "the generator failed")
        .unwrap();
    let mut bytes = small.to_bytes();
    let end = bytes.len() as u64 / 4096;
    bytes.resize(bytes.len() + 2 * 4096, 0);
    let model = Model::of(Memory::from_bytes(bytes));
    let root = model.devices[0].1;
    let taller = grow(&model.store, root, end);
    let tallest = grow(&model.store, taller, end + 1);

    let all = compare(&model.store, root, tallest, true);
    assert_eq!(all.len(), mappings(&model.devices[0].2).len());
    assert!(all.values().all(|kind| *kind == Kind::Same));
    assert!(compare(&model.store, tallest, root, false).is_empty());

    let roots = [tallest, root, taller];
    let (usages, bad) = ls::measure(&model.store, &roots, model.data_blocks, &Counter::default());
    assert!(bad.is_empty());
    for usage in usages {
        assert_eq!((usage.mapped, usage.exclusive), (all.len() as u64, 0));
    }
    let devices: Vec<(u64, u64)> = (7..).zip(roots).collect();
    let everything = [(0, u64::MAX)];
    let (owned, _) = rmap::owners(&model.store, &devices, &everything, &Counter::default());
    let blocks: u64 = owned.iter().map(|run| run.length).sum();
    assert_eq!(blocks, 3 * all.len() as u64);
}
