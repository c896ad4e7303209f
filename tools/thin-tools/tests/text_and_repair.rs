// SPDX-License-Identifier: GPL-2.0

//! thin_dump, thin_restore and thin_repair as their callers see them.
//!
//! With `DM_THIN_RS_PEER` naming the directory of the distribution's thin-provisioning-tools, results are
//! compared with those too.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use thin_format::btree;
use thin_format::btree::Visit;
use thin_format::io::Access;
use thin_format::io::Device;
use thin_format::io::Store;
use thin_format::records::DeviceDetails;
use thin_format::records::PackedMapping;
use thin_format::superblock;
use thin_format::superblock::Demand;
use thin_format::thin::Pool;
use thin_format::thin::View;
use thin_tools_dev::damage;
use thin_tools_dev::damage::Kind;
use thin_tools_dev::damage::Target;
use thin_tools_dev::generate::Shape;
use thin_tools_dev::random::Random;

/// A directory that is gone when the test is.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("thin-text-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file of so many metadata blocks, all zeroes.
    fn blank(&self, name: &str, blocks: u64) -> PathBuf {
        let path = self.path(name);
        fs::File::create(&path)
            .unwrap()
            .set_len(blocks * 4096)
            .unwrap();
        path
    }

    fn pool(&self, name: &str, shape: &Shape) -> PathBuf {
        let path = self.blank(name, shape.blocks());
        shape.write(&open(&path)).unwrap();
        path
    }

    fn text(&self, name: &str, text: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.0).unwrap().flatten() {
            let _ = fs::remove_file(entry.path());
        }
        let _ = fs::remove_dir(&self.0);
    }
}

fn open(path: &Path) -> Device {
    Device::open(path, Access::Write).unwrap()
}

fn tool<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_thin-tools"))
        .arg(name)
        .args(arguments)
        .output()
        .unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Output of a tool that has to succeed.
fn good<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Vec<u8> {
    let output = tool(name, arguments);
    assert_eq!(status(&output), 0, "{name}: {}", errors(&output));
    output.stdout
}

fn dump(path: &Path) -> Vec<u8> {
    good("thin_dump", [path])
}

fn args<'a>(words: &'a [&'a str], input: &'a Path, output: &'a Path) -> Vec<&'a OsStr> {
    let words = words.iter().map(OsStr::new);
    words
        .chain([
            OsStr::new("-i"),
            input.as_os_str(),
            OsStr::new("-o"),
            output.as_os_str(),
        ])
        .collect()
}

fn assert_checks(path: &Path) {
    let output = tool("thin_check", [path]);
    assert_eq!(status(&output), 0, "{}", errors(&output));
    if let Some(output) = peer("thin_check", [path]) {
        assert_eq!(
            status(&output),
            0,
            "the distribution's thin_check: {}",
            errors(&output)
        );
    }
}

/// Runs the distribution's tool, if there is one.
fn peer<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Option<Output> {
    let directory = std::env::var_os("DM_THIN_RS_PEER")?;
    Some(
        Command::new(Path::new(&directory).join(name))
            .args(arguments)
            .output()
            .unwrap(),
    )
}

/// Per device its details and mappings, block by block.
type Model = BTreeMap<u64, (DeviceDetails, BTreeMap<u64, PackedMapping>)>;

fn model(path: &Path) -> Model {
    let store = open(path);
    let pool = Pool::open(&store, View::Current).unwrap();
    let mut model = Model::new();
    for device in pool.devices() {
        let (root, details) = device.complete().unwrap();
        let mut mappings = BTreeMap::new();
        btree::entries::<PackedMapping>(&store, root, 0, None, &mut |thin, mapping| {
            mappings.insert(thin, mapping);
            ControlFlow::Continue(())
        })
        .unwrap();
        model.insert(device.id, (details, mappings));
    }
    model
}

/// What is left of the model when these blocks are lost: mappings below them are not.
fn survivors(path: &Path, lost: &HashSet<u64>) -> BTreeMap<u64, BTreeMap<u64, PackedMapping>> {
    let store = open(path);
    let pool = Pool::open(&store, View::Current).unwrap();
    let mut left = BTreeMap::new();
    for device in pool.devices() {
        let mut mappings = BTreeMap::new();
        btree::walk(&store, device.root.unwrap(), 8, &mut |at| match at {
            Visit::Before(child) if lost.contains(&child.block) => ControlFlow::Break(()),
            Visit::Leaf(_, leaf) => {
                mappings.extend(leaf.entries::<PackedMapping>());
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        })
        .unwrap();
        left.insert(device.id, mappings);
    }
    left
}

fn shapes() -> Vec<Shape> {
    let usual = Shape::default();
    vec![
        Shape {
            devices: 0,
            mappings: 0,
            ..usual.clone()
        },
        Shape {
            devices: 3,
            mappings: 0,
            ..usual.clone()
        },
        Shape {
            devices: 1,
            mappings: 70_000,
            snapshots: 0,
            run_length: 1,
            ..usual.clone()
        },
        Shape {
            devices: 12,
            mappings: 60_000,
            diverged: 0,
            ..usual.clone()
        },
        Shape {
            devices: 40,
            mappings: 100_000,
            depth: 4,
            fill: 70,
            held: true,
            needs_check: true,
            ..usual.clone()
        },
        Shape {
            devices: 300,
            mappings: 30_000,
            snapshots: 900,
            depth: 3,
            ..usual
        },
    ]
}

#[test]
fn text_and_metadata_say_the_same() {
    let seed = Random::seed_of_test();
    for (index, shape) in shapes().into_iter().enumerate() {
        let shape = Shape {
            seed: seed.wrapping_add(index as u64),
            ..shape
        };
        let scratch = Scratch::new();
        let original = scratch.pool("original", &shape);
        let text = dump(&original);
        let xml = scratch.text("xml", &text);
        let restored = scratch.blank("restored", shape.blocks());
        let output = good("thin_restore", args(&[], &xml, &restored));
        assert!(output.is_empty());
        assert_checks(&restored);
        assert_eq!(model(&restored), model(&original), "shape {index}");

        // Once packed, the layout stays what it is, down to the names of what is shared.
        let packed = dump(&restored);
        let xml = scratch.text("xml", &packed);
        let again = scratch.blank("again", shape.blocks());
        good("thin_restore", args(&[], &xml, &again));
        assert_eq!(dump(&again), packed, "shape {index}");

        if let Some(output) = peer("thin_dump", [&original]) {
            assert!(
                output.stdout == text,
                "shape {index}: the distribution's thin_dump says something else"
            );
            let theirs = scratch.blank("theirs", shape.blocks());
            peer("thin_restore", args(&[], &xml, &theirs));
            assert!(
                dump(&theirs) == packed,
                "shape {index}: the distribution's thin_restore has another layout"
            );
        }
    }
}

#[test]
fn the_first_line_comes_before_damage_is_found() {
    let scratch = Scratch::new();
    let pool = scratch.pool("pool", &Shape::default());
    hurt(&pool, Kind::Zero, Target::TopLevel, 1, &mut Random::new(1));
    let output = tool("thin_dump", [&pool]);
    assert_eq!(status(&output), 64);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("<superblock uuid=\"\" time=\"5\" transaction=\"10\" version=\"2\""),
        "{text}"
    );
}

#[test]
fn a_dump_can_be_of_some_devices_or_without_mappings() {
    let scratch = Scratch::new();
    let shape = Shape {
        devices: 6,
        mappings: 20_000,
        ..Shape::default()
    };
    let pool = scratch.pool("pool", &shape);
    let some = good(
        "thin_dump",
        [OsStr::new("--dev-id"), OsStr::new("4"), pool.as_os_str()],
    );
    let some = String::from_utf8(some).unwrap();
    assert_eq!(some.matches("<device ").count(), 1);
    assert!(some.contains("dev_id=\"4\""));
    // Nobody to share with.
    assert!(!some.contains("<def") && !some.contains("<ref"));
    let none = String::from_utf8(good(
        "thin_dump",
        [OsStr::new("--skip-mappings"), pool.as_os_str()],
    ))
    .unwrap();
    assert_eq!(none.lines().count(), 1 + 6 * 2 + 1);
    for words in [
        &["--dev-id", "4"][..],
        &["--skip-mappings"],
        &["-f", "human_readable"],
    ] {
        let words: Vec<&OsStr> = words
            .iter()
            .map(OsStr::new)
            .chain([pool.as_os_str()])
            .collect();
        if let Some(output) = peer("thin_dump", &words) {
            assert!(output.stdout == good("thin_dump", &words));
        }
    }
}

/// Damages nodes and returns their blocks.
fn hurt(
    path: &Path,
    kind: Kind,
    target: Target,
    count: usize,
    random: &mut Random,
) -> HashSet<u64> {
    let store = open(path);
    let mut places = damage::places(&store, target).unwrap();
    let mut blocks = HashSet::new();
    for _ in 0..count {
        if let Some(done) = damage::damage(&store, kind, target, &places, random).unwrap() {
            blocks.insert(done.place.block);
            places.retain(|place| place.block != done.place.block);
        }
    }
    store.flush().unwrap();
    blocks
}

#[test]
fn damage_costs_what_is_below_it_and_nothing_else() {
    let seed = Random::seed_of_test();
    let mut random = Random::new(seed);
    let kinds = [
        Kind::Flip,
        Kind::Zero,
        Kind::Noise,
        Kind::Stale,
        Kind::KeyOrder,
        Kind::Entries,
    ];
    for round in 0..24 {
        let scratch = Scratch::new();
        let shape = Shape {
            devices: 1 + random.below(8),
            mappings: 30_000,
            depth: 1 + random.below(3),
            seed: random.next(),
            ..Shape::default()
        };
        let pool = scratch.pool("pool", &shape);
        let whole = scratch.path("whole");
        fs::copy(&pool, &whole).unwrap();
        let kind = *random.pick(&kinds).unwrap();
        let target = if random.chance(300) {
            Target::Internal
        } else {
            Target::Leaf
        };
        let lost = hurt(
            &pool,
            kind,
            target,
            1 + random.below(4) as usize,
            &mut random,
        );
        let context = format!("round {round}: {kind} {target} {lost:?}");

        let output = scratch.blank("output", shape.blocks());
        let refused = tool("thin_repair", args(&[], &pool, &output));
        let before = model(&whole);
        let expected = survivors(&whole, &lost);
        let is_lost = |device: &u64| expected[device].len() < before[device].1.len();
        if status(&refused) == 0 {
            // Nothing was shared, or what is below the damage was found again.
            let mappings = |model: Model| -> BTreeMap<_, _> {
                model
                    .into_iter()
                    .map(|(device, (_, mappings))| (device, mappings))
                    .collect()
            };
            assert_checks(&output);
            assert_eq!(mappings(model(&output)), mappings(before), "{context}");
            continue;
        }
        assert!(
            before.keys().any(is_lost),
            "{context}: {}",
            errors(&refused)
        );
        assert_eq!(status(&refused), 65, "{context}: {}", errors(&refused));
        assert!(
            fs::read(&output).unwrap().iter().all(|byte| *byte == 0),
            "{context}: written without being asked to"
        );
        let partial = tool("thin_repair", args(&["--allow-partial"], &pool, &output));
        assert_eq!(status(&partial), 66, "{context}: {}", errors(&partial));
        assert_checks(&output);
        let after = model(&output);
        assert_eq!(
            after.keys().collect::<Vec<_>>(),
            before.keys().collect::<Vec<_>>(),
            "{context}"
        );
        for (device, (details, mappings)) in &before {
            let (details_after, mappings_after) = &after[device];
            for (thin, mapping) in &expected[device] {
                assert_eq!(
                    mappings_after.get(thin),
                    Some(mapping),
                    "{context}: device {device} block {thin} is lost"
                );
            }
            for (thin, mapping) in mappings_after {
                assert_eq!(
                    mappings.get(thin),
                    Some(mapping),
                    "{context}: device {device} block {thin} is made up"
                );
            }
            if is_lost(device) {
                assert!(
                    errors(&partial).contains(&format!("Device {device}: ")),
                    "{context}: {}",
                    errors(&partial)
                );
            } else {
                assert_eq!(details_after, details, "{context}");
            }
        }
    }
}

#[test]
fn what_is_below_a_damaged_node_is_found_again() {
    let seed = Random::seed_of_test();
    let mut random = Random::new(seed);
    for snapshots in [0, 500] {
        let scratch = Scratch::new();
        let shape = Shape {
            devices: 4,
            snapshots,
            mappings: 300_000,
            seed: random.next(),
            ..Shape::default()
        };
        let pool = scratch.pool("pool", &shape);
        let before = model(&pool);
        hurt(&pool, Kind::Flip, Target::Internal, 1, &mut random);
        let output = scratch.blank("output", shape.blocks());
        let repaired = tool("thin_repair", args(&[], &pool, &output));
        if snapshots == 0 {
            assert_eq!(status(&repaired), 0, "{}", errors(&repaired));
            assert!(
                errors(&repaired).contains("found again"),
                "{}",
                errors(&repaired)
            );
            assert_checks(&output);
            assert_eq!(model(&output), before);
        } else if status(&repaired) == 0 {
            assert_eq!(model(&output), before);
        } else {
            // Leaves that a snapshot shares could be those of either device.
            assert_eq!(status(&repaired), 65, "{}", errors(&repaired));
        }
    }
}

#[test]
fn a_lost_superblock_costs_nothing() {
    let scratch = Scratch::new();
    let shape = Shape {
        devices: 30,
        mappings: 40_000,
        ..Shape::default()
    };
    let pool = scratch.pool("pool", &shape);
    let before = model(&pool);
    hurt(
        &pool,
        Kind::Zero,
        Target::Superblock,
        1,
        &mut Random::new(1),
    );
    let output = scratch.blank("output", shape.blocks());
    let ignorant = tool("thin_repair", args(&[], &pool, &output));
    assert_eq!(status(&ignorant), 64);
    assert!(
        errors(&ignorant).contains("data block size"),
        "{}",
        errors(&ignorant)
    );
    let words = ["--data-block-size", "128", "--set-transaction", "77"];
    let repaired = tool("thin_repair", args(&words, &pool, &output));
    assert_eq!(status(&repaired), 0, "{}", errors(&repaired));
    assert_checks(&output);
    assert_eq!(model(&output), before);
    let superblock = superblock::read(&open(&output), 0, Demand::Everything).unwrap();
    assert_eq!(superblock.transaction_id, 77);
    assert!(String::from_utf8(good("thin_dump", [&output]))
        .unwrap()
        .contains("transaction=\"77\""));
}

#[test]
fn lost_details_are_made_up() {
    let scratch = Scratch::new();
    let shape = Shape {
        devices: 9,
        mappings: 9_000,
        ..Shape::default()
    };
    let pool = scratch.pool("pool", &shape);
    let before = model(&pool);
    hurt(&pool, Kind::Flip, Target::Details, 1, &mut Random::new(1));
    let output = scratch.blank("output", shape.blocks());
    let repaired = tool("thin_repair", args(&[], &pool, &output));
    assert_eq!(status(&repaired), 0, "{}", errors(&repaired));
    assert_checks(&output);
    let time = superblock::read(&open(&output), 0, Demand::Everything)
        .unwrap()
        .time;
    for (device, (details, mappings)) in model(&output) {
        assert_eq!(mappings, before[&device].1);
        // The kernel must take every mapping for shared: it cannot know better.
        assert!(mappings
            .values()
            .all(|mapping| mapping.time() < details.snapshotted_time));
        assert!(details.snapshotted_time <= time);
    }
}

#[test]
fn a_fewer_number_of_mappings_than_known_is_not_passed_over() {
    let scratch = Scratch::new();
    let pool = scratch.pool("pool", &Shape::default());
    hurt(
        &pool,
        Kind::MappedBlocks,
        Target::Details,
        1,
        &mut Random::new(3),
    );
    let output = scratch.blank("output", 200);
    assert_eq!(status(&tool("thin_repair", args(&[], &pool, &output))), 65);
}

#[test]
fn older_states_are_listed_and_can_be_chosen() {
    let scratch = Scratch::new();
    let shape = Shape {
        devices: 20,
        mappings: 30_000,
        held: true,
        ..Shape::default()
    };
    let pool = scratch.pool("pool", &shape);
    let list = |path: &Path| {
        let words = [
            OsStr::new("--list-roots"),
            OsStr::new("-i"),
            path.as_os_str(),
        ];
        String::from_utf8(good("thin_repair", words)).unwrap()
    };
    let found = list(&pool);
    let rows: Vec<Vec<&str>> = found
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), 2, "{found}");
    assert_eq!((rows[0][3], rows[0][4]), ("superblock", "21"));
    assert_eq!(rows[1][4], "20");
    assert!(rows.iter().all(|row| row[8] == "none"), "{found}");
    let output = scratch.blank("output", shape.blocks());
    let old = tool("thin_repair", args(&["--root", rows[1][1]], &pool, &output));
    assert_eq!(status(&old), 0, "{}", errors(&old));
    assert_checks(&output);
    assert_ne!(model(&output), model(&pool));
    let chosen = tool(
        "thin_repair",
        args(&["--transaction", "21"], &pool, &output),
    );
    assert_eq!(status(&chosen), 0, "{}", errors(&chosen));
    assert_eq!(model(&output), model(&pool));
    assert_eq!(
        status(&tool(
            "thin_repair",
            args(&["--transaction", "5"], &pool, &output)
        )),
        64
    );

    // Without its tree of devices the pool's present is lost: an older state is taken on request only.
    hurt(&pool, Kind::Zero, Target::TopLevel, 1, &mut Random::new(1));
    assert_eq!(status(&tool("thin_repair", args(&[], &pool, &output))), 65);
    assert_eq!(
        status(&tool(
            "thin_repair",
            args(&["--allow-partial"], &pool, &output)
        )),
        66
    );
    assert_checks(&output);
}

#[test]
fn the_room_it_takes_is_known_before() {
    let scratch = Scratch::new();
    let shape = Shape {
        devices: 20,
        mappings: 60_000,
        ..Shape::default()
    };
    let pool = scratch.pool("pool", &shape);
    let words = [
        OsStr::new("--dry-run"),
        OsStr::new("--json"),
        OsStr::new("-i"),
        pool.as_os_str(),
    ];
    let report = String::from_utf8(good("thin_repair", words)).unwrap();
    assert!(report.contains("\"written\": false"), "{report}");
    let needed = report.split("\"metadata_blocks_needed\": ").nth(1).unwrap();
    let needed: u64 = needed.split(',').next().unwrap().trim().parse().unwrap();
    let output = scratch.blank("enough", needed);
    good("thin_repair", args(&[], &pool, &output));
    assert_checks(&output);
    let output = scratch.blank("less", needed - 1);
    let refused = tool("thin_repair", args(&[], &pool, &output));
    assert_eq!(status(&refused), 64);
    assert!(
        errors(&refused).contains(&format!("{needed} blocks are needed")),
        "{}",
        errors(&refused)
    );
}

#[test]
fn no_damage_makes_it_panic() {
    let seed = Random::seed_of_test();
    let mut random = Random::new(seed);
    let scratch = Scratch::new();
    let shape = Shape {
        devices: 12,
        mappings: 30_000,
        held: true,
        depth: 2,
        ..Shape::default()
    };
    let whole = scratch.pool("whole", &shape);
    let output = scratch.blank("output", shape.blocks());
    for round in 0..40 {
        let pool = scratch.path("pool");
        fs::copy(&whole, &pool).unwrap();
        for _ in 0..1 + random.below(3) {
            let kind = *random.pick(Kind::ALL).unwrap();
            let target = *random.pick(Target::ALL).unwrap();
            let store = open(&pool);
            // The damage before may already be too much for this one.
            let Ok(places) = damage::places(&store, target) else {
                continue;
            };
            let _ = damage::damage(&store, kind, target, &places, &mut random);
        }
        let repaired = tool(
            "thin_repair",
            args(
                &["--allow-partial", "--data-block-size", "128"],
                &pool,
                &output,
            ),
        );
        assert!(
            [0, 64, 66].contains(&status(&repaired)),
            "round {round}: {}",
            errors(&repaired)
        );
        if status(&repaired) != 64 {
            assert_checks(&output);
        }
        for words in [&["--repair"][..], &[]] {
            let words = words.iter().map(OsStr::new).chain([pool.as_os_str()]);
            let dumped = tool("thin_dump", words);
            assert!(
                [0, 64, 66].contains(&status(&dumped)),
                "round {round}: {}",
                errors(&dumped)
            );
        }
        let words = [
            OsStr::new("--list-roots"),
            OsStr::new("-i"),
            pool.as_os_str(),
        ];
        assert_eq!(status(&tool("thin_repair", words)), 0, "round {round}");
    }
}

#[test]
fn a_node_below_itself_is_not_followed() {
    let scratch = Scratch::new();
    let shape = Shape {
        devices: 2,
        mappings: 30_000,
        snapshots: 0,
        ..Shape::default()
    };
    let whole = scratch.pool("whole", &shape);
    let output = scratch.blank("output", shape.blocks());
    for seed in 0..8 {
        let pool = scratch.path("pool");
        fs::copy(&whole, &pool).unwrap();
        let store = open(&pool);
        let places = damage::places(&store, Target::Internal).unwrap();
        let only = &places[..1];
        let mut random = Random::new(seed);
        damage::damage(&store, Kind::CrossLink, Target::Internal, only, &mut random).unwrap();
        let dumped = tool("thin_dump", [&pool]);
        assert_eq!(status(&dumped), 64);
        assert!(
            errors(&dumped).contains("(in device 0)"),
            "{}",
            errors(&dumped)
        );
        let repaired = tool("thin_repair", args(&["--allow-partial"], &pool, &output));
        assert!(
            [0, 66].contains(&status(&repaired)),
            "{}",
            errors(&repaired)
        );
        assert_checks(&output);
        let (before, after) = (model(&whole), model(&output));
        assert_eq!(before[&1], after[&1]);
        assert!(
            after[&0].1.len() + 252 >= before[&0].1.len(),
            "more is lost than one leaf"
        );
    }
}

#[test]
fn what_lies_elsewhere_is_not_taken_for_what_should_be_here() {
    let seed = Random::seed_of_test();
    let mut random = Random::new(seed);
    for target in [
        Target::Leaf,
        Target::Leaf,
        Target::Internal,
        Target::Internal,
    ] {
        let scratch = Scratch::new();
        let shape = Shape {
            devices: 1,
            snapshots: 0,
            mappings: 200_000,
            seed: random.next(),
            ..Shape::default()
        };
        let pool = scratch.pool("pool", &shape);
        let whole = scratch.path("whole");
        fs::copy(&pool, &whole).unwrap();
        let before = model(&whole);
        let lost = hurt(&pool, Kind::Copied, target, 1, &mut random);
        let expected = survivors(&whole, &lost);
        let output = scratch.blank("output", shape.blocks());
        let repaired = tool("thin_repair", args(&["--allow-partial"], &pool, &output));
        assert!(
            [0, 66].contains(&status(&repaired)),
            "{}",
            errors(&repaired)
        );
        assert_checks(&output);
        let after = &model(&output)[&0].1;
        for (thin, mapping) in after {
            assert_eq!(
                before[&0].1.get(thin),
                Some(mapping),
                "block {thin} is made up"
            );
        }
        // A node that looks like the root may have taken its place: then everything may be lost.
        let has_root = !lost.contains(&root(&whole));
        assert!(!has_root || expected[&0].keys().all(|thin| after.contains_key(thin)));
    }
}

fn root(path: &Path) -> u64 {
    let store = open(path);
    let pool = Pool::open(&store, View::Current).unwrap();
    pool.devices()[0].root.unwrap()
}

#[test]
fn bad_text_is_refused_with_its_place() {
    let scratch = Scratch::new();
    let head = "<superblock uuid=\"\" time=\"0\" transaction=\"0\" data_block_size=\"128\" nr_data_blocks=\"10\">\n";
    let device = "<device dev_id=\"1\" mapped_blocks=\"1\" transaction=\"0\" creation_time=\"0\" snap_time=\"0\">\n";
    let map = |thin: u64, data: u64| {
        format!("<single_mapping origin_block=\"{thin}\" data_block=\"{data}\" time=\"0\"/>\n")
    };
    let cases = [
        (
            format!("{head}{device}{}", map(5, 10)),
            "line 3, column 1: block out of bounds",
        ),
        (
            format!("{head}{device}{}{}", map(5, 1), map(5, 2)),
            "line 4, column 1: keys out of order",
        ),
        (
            format!("{head}{}", map(1, 1)),
            "line 2, column 1: element 'single_mapping' has no place here",
        ),
        (
            format!("{head}{device} <ref name=\"x\"/>"),
            "line 3, column 2: no def 'x' comes before this",
        ),
        (format!("{head}{device}"), "incomplete source metadata"),
        (
            format!("{head}{device}</device>\n{device}</device>"),
            "line 4, column 1: device 1 is there twice",
        ),
        (
            format!("{head}<dvice/>"),
            "line 2, column 1: unknown element 'dvice'",
        ),
        ("<superblock/>".into(), "lacks attribute 'time'"),
        (head.replace("128", "100"), "invalid data block size"),
        (String::new(), "incomplete source metadata"),
        (
            head.replace("\"10\"", "\"18446744073709551615\""),
            "more data blocks than",
        ),
    ];
    for (text, message) in cases {
        let xml = scratch.text("xml", text.as_bytes());
        let output = scratch.blank("output", 64);
        let refused = tool("thin_restore", args(&[], &xml, &output));
        assert_eq!(status(&refused), 64, "{text}");
        assert!(
            errors(&refused).contains(message),
            "{text}: {}",
            errors(&refused)
        );
        // Whatever was written, nobody takes it for metadata.
        assert!(superblock::read(&open(&output), 0, Demand::Checksum).is_err());
    }
}

#[test]
fn a_wrong_number_of_mappings_is_put_right() {
    let scratch = Scratch::new();
    let text = "<superblock uuid=\"\" time=\"0\" transaction=\"0\" data_block_size=\"128\" nr_data_blocks=\"10\">\
        <device dev_id=\"1\" mapped_blocks=\"9\" transaction=\"0\" creation_time=\"0\" snap_time=\"0\">\
        <range_mapping origin_begin=\"0\" data_begin=\"0\" length=\"3\" time=\"0\"/></device></superblock>";
    let xml = scratch.text("xml", text.as_bytes());
    let output = scratch.blank("output", 64);
    let restored = tool("thin_restore", args(&[], &xml, &output));
    assert_eq!(status(&restored), 0);
    assert!(
        errors(&restored).contains("mapped_blocks was 9"),
        "{}",
        errors(&restored)
    );
    assert_checks(&output);
    assert_eq!(model(&output)[&1].0.mapped_blocks, 3);
}

#[test]
fn files_that_cannot_be_are_refused() {
    let scratch = Scratch::new();
    let pool = scratch.pool("pool", &Shape::default());
    let small = scratch.blank("small", 9);
    let missing = scratch.path("missing");
    let cases: [(Vec<&OsStr>, &str); 5] = [
        (args(&[], &missing, &pool), "Couldn't find input file"),
        (args(&[], &pool, &missing), "Couldn't find output file"),
        (args(&[], &pool, &small), "Output file too small"),
        (
            args(&[], &pool, &scratch.0),
            "Not a block device or regular file",
        ),
        (args(&[], &pool, &pool), "input and output are the same"),
    ];
    for (arguments, message) in cases {
        let output = tool("thin_repair", arguments);
        assert_eq!(status(&output), 64);
        assert!(errors(&output).contains(message), "{}", errors(&output));
    }
    // lvm2 passes an empty word.
    let target = scratch.blank("target", 200);
    let mut arguments = args(&[], &pool, &target);
    arguments.push(OsStr::new(""));
    assert_eq!(status(&tool("thin_repair", arguments)), 0);
}
