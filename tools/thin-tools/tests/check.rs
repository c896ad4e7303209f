// SPDX-License-Identifier: GPL-2.0

//! thin_check as its callers see it: exit status, streams, and what it leaves of the file.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use thin_format::io::Access;
use thin_format::io::Device;
use thin_format::io::Store;
use thin_format::records::Superblock;
use thin_format::superblock;
use thin_format::superblock::Demand;
use thin_tools_dev::damage::damage;
use thin_tools_dev::damage::places;
use thin_tools_dev::damage::Kind;
use thin_tools_dev::damage::Target;
use thin_tools_dev::generate::Shape;
use thin_tools_dev::random::Random;

/// A file that is gone when the test is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(bytes: &[u8]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("thin-check-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, bytes).unwrap();
        Self(path)
    }

    /// A pool of this shape.
    fn pool(shape: &Shape) -> Self {
        let file = Self::new(&vec![0; (shape.blocks() as usize + 100) * 4096]);
        shape.write(&file.open()).unwrap();
        file
    }

    fn open(&self) -> Device {
        Device::open(&self.0, Access::Write).unwrap()
    }

    fn damaged(self, kind: Kind, target: Target) -> Self {
        let store = self.open();
        let places = places(&store, target).unwrap();
        let done = damage(&store, kind, target, &places, &mut Random::new(7)).unwrap();
        assert!(done.is_some());
        self
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.0).unwrap()
    }

    fn superblock(&self) -> Superblock {
        superblock::read(&self.open(), 0, Demand::Everything).unwrap()
    }

    fn check(&self, args: &[&str]) -> Seen {
        thin_check(&[args, &[self.0.to_str().unwrap()]].concat())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

struct Seen {
    status: i32,
    out: String,
    err: String,
}

impl Seen {
    #[track_caller]
    fn is_silent(&self, status: i32) {
        assert_eq!((self.status, &*self.out, &*self.err), (status, "", ""));
    }
}

fn thin_check(args: &[&str]) -> Seen {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_thin-tools"))
        .arg("thin_check")
        .args(args)
        .output()
        .unwrap();
    Seen {
        status: output.status.code().expect("not killed"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn shape() -> Shape {
    Shape {
        devices: 6,
        mappings: 8000,
        ..Shape::default()
    }
}

#[test]
fn whole_metadata() {
    let file = Scratch::pool(&shape());
    let before = file.bytes();
    let superblock = file.superblock();
    let metadata = superblock::metadata_space_map(&superblock);
    let seen = file.check(&[]);
    assert_eq!(seen.status, 0, "{}", seen.err);
    let free = metadata.blocks - metadata.allocated;
    let id = superblock.transaction_id;
    assert_eq!(
        seen.out,
        format!("TRANSACTION_ID={id}\nMETADATA_FREE_BLOCKS={free}\n")
    );
    for args in [
        &["-q"][..],
        &["--quiet", "--skip-mappings"],
        &["-q", "--super-block-only"],
        &["-q", "--clear-needs-check-flag"],
        &["-q", "--auto-repair"],
        &["-q", "--ignore-non-fatal-errors"],
    ] {
        file.check(args).is_silent(0);
    }
    assert!(
        file.bytes() == before,
        "whole metadata must not be written to"
    );
}

#[test]
fn a_superblock_alone_is_enough_to_check_a_superblock() {
    let file = Scratch::pool(&shape());
    let alone = Scratch::new(&file.bytes()[..4096]);
    let seen = alone.check(&["--super-block-only"]);
    assert_eq!(seen.status, 0, "{}", seen.err);
    assert!(seen.out.starts_with("TRANSACTION_ID="));
    let seen = alone.check(&[]);
    assert_eq!(seen.status, 65, "{}", seen.err);
    assert!(seen.err.contains("it was cut off"), "{}", seen.err);
}

#[test]
fn a_wrong_command_line_never_looks_like_a_missing_tool() {
    let file = Scratch::pool(&shape());
    for args in [
        &["--no-such-thing"][..],
        &["--auto-repair", "-m"],
        &["--auto-repair", "--skip-mappings"],
        &["--auto-repair", "--ignore-non-fatal-errors"],
        &["--auto-repair", "--super-block-only"],
        &["--auto-repair", "--override-mapping-root", "5"],
        &["--auto-repair", "--override-details-root", "5"],
        &["--clear-needs-check-flag", "-m"],
        &["--clear-needs-check-flag", "--override-mapping-root", "5"],
        &["--override-mapping-root", "x"],
        &["-q", "-q"],
    ] {
        let seen = file.check(args);
        assert_eq!(seen.status, 64, "{args:?}");
        assert!(seen.err.starts_with("error: "), "{args:?}: {}", seen.err);
    }
    let seen = file.check(&["--no-such-thing"]);
    assert!(seen
        .err
        .contains("unexpected argument '--no-such-thing' found"));
    let seen = thin_check(&[]);
    assert_eq!(seen.status, 64);
    assert!(seen
        .err
        .contains("the following required arguments were not provided"));
    let seen = thin_check(&["-V"]);
    assert_eq!(seen.status, 0);
    assert_eq!(seen.out.trim().split('.').count(), 3, "{}", seen.out);
}

#[test]
fn what_is_no_metadata_is_refused_with_the_reason() {
    for (bytes, status, text) in [
        (&b"<superblock uuid=\"\">"[..], 64, "This looks like XML"),
        (
            &[1; 4095],
            64,
            "Metadata device/file too small.  Is this binary metadata?",
        ),
        (&[1; 8192], 65, "bad checksum in superblock"),
        (&[0; 8192], 65, "all zeroes"),
    ] {
        let seen = Scratch::new(bytes).check(&[]);
        assert_eq!(seen.status, status, "{}", seen.err);
        assert!(seen.err.contains(text), "{}", seen.err);
        assert_eq!(seen.out, "");
        Scratch::new(bytes).check(&["-q"]).is_silent(status);
    }
    for (path, text) in [
        ("/nonexistent/file", "Couldn't find input file"),
        ("/", "Not a block device or regular file"),
    ] {
        let seen = thin_check(&[path]);
        assert_eq!(seen.status, 64);
        assert!(seen.err.contains(text), "{}", seen.err);
    }
}

#[test]
fn harmless_inconsistencies() {
    for (kind, target) in [
        (Kind::CountHigh, Target::DataBitmap),
        (Kind::CountHigh, Target::MetadataBitmap),
        (Kind::NrFree, Target::MetadataIndex),
        (Kind::NrAllocated, Target::Superblock),
    ] {
        let file = Scratch::pool(&shape()).damaged(kind, target);
        let before = file.bytes();
        let seen = file.check(&[]);
        assert_eq!(seen.status, 3, "{kind} {target}: {}", seen.err);
        assert!(seen.err.contains("harmless: "), "{}", seen.err);
        assert!(seen.err.contains("--auto-repair"), "{}", seen.err);
        assert_eq!(file.check(&["--ignore-non-fatal-errors"]).status, 0);
        assert!(file.bytes() == before, "nobody asked for a correction");
        // As lvm2 calls it: the pool has to come up.
        file.check(&["-q", "--clear-needs-check-flag"]).is_silent(0);
        assert!(file.bytes() != before);
        file.check(&["-q"]).is_silent(0);
    }
}

#[test]
fn damage_that_can_be_corrected() {
    let file = Scratch::pool(&shape()).damaged(Kind::Noise, Target::DataBitmap);
    let before = file.bytes();
    let seen = file.check(&["--clear-needs-check-flag"]);
    assert_eq!(seen.status, 65, "{}", seen.err);
    assert!(
        seen.err.contains("thin_check --auto-repair"),
        "{}",
        seen.err
    );
    assert!(
        file.bytes() == before,
        "lvm2's call corrects nothing but what is harmless"
    );
    let seen = file.check(&["--auto-repair"]);
    assert_eq!(seen.status, 0, "{}", seen.err);
    file.check(&["-q"]).is_silent(0);
}

#[test]
fn damage_that_cannot_be_corrected_leaves_the_file_alone() {
    for (kind, target) in [
        (Kind::Zero, Target::Leaf),
        (Kind::Noise, Target::Details),
        (Kind::MappedBlocks, Target::Details),
        (Kind::CountLow, Target::DataBitmap),
    ] {
        let shape = Shape {
            needs_check: true,
            ..shape()
        };
        let file = Scratch::pool(&shape).damaged(kind, target);
        let before = file.bytes();
        for option in [
            "--auto-repair",
            "--clear-needs-check-flag",
            "--ignore-non-fatal-errors",
        ] {
            let seen = file.check(&[option]);
            assert_eq!(seen.status, 65, "{kind} {target} {option}: {}", seen.err);
            assert!(seen.err.contains("thin_repair"), "{}", seen.err);
        }
        assert!(file.bytes() == before, "{kind} {target}");
    }
}

#[test]
fn the_flag_is_cleared_when_asked_and_nothing_else_changes() {
    let file = Scratch::pool(&Shape {
        needs_check: true,
        ..shape()
    });
    let before = file.bytes();
    for args in [&["--skip-mappings"][..], &["--super-block-only"], &[]] {
        assert_eq!(file.check(args).status, 0);
    }
    assert!(file.bytes() == before);
    let seen = file.check(&["--clear-needs-check-flag"]);
    assert_eq!(seen.status, 0);
    assert!(
        seen.err.contains("Cleared needs_check flag"),
        "{}",
        seen.err
    );
    let after = file.bytes();
    let mut changed = (0..before.len()).filter(|at| before[*at] != after[*at]);
    // Checksum and flags.
    assert!(changed.all(|at| at < 8));
    assert!(!file.superblock().needs_check());
}

#[test]
fn metadata_of_a_newer_version() {
    for (read_only, read, write) in [(true, 0, 64), (false, 64, 64)] {
        let file = Scratch::pool(&shape());
        superblock::update(&file.open(), |superblock| {
            if read_only {
                superblock.read_only_compatible_features = 2;
            } else {
                superblock.incompatible_features = 2;
            }
        })
        .unwrap();
        let before = file.bytes();
        file.check(&["-q"]).is_silent(read);
        file.check(&["-q", "--auto-repair"]).is_silent(write);
        file.check(&["-q", "--clear-needs-check-flag"])
            .is_silent(write);
        assert!(file.bytes() == before);
    }
}

#[test]
fn the_metadata_snapshot() {
    let seen = Scratch::pool(&shape()).check(&["-m"]);
    assert_eq!((seen.status, &*seen.out), (64, ""));
    assert!(
        seen.err.contains("no current metadata snap"),
        "{}",
        seen.err
    );
    assert!(seen.err.contains("reserve_metadata_snap"), "{}", seen.err);

    let file = Scratch::pool(&Shape {
        held: true,
        ..shape()
    });
    assert_eq!(file.check(&["-m"]).status, 0);
    assert_eq!(file.check(&[]).status, 0);
    let held = file.superblock().metadata_snapshot.0;
    file.open().write_block(held, &[0; 4096]).unwrap();
    let seen = file.check(&["-m"]);
    assert_eq!((seen.status, &*seen.out), (65, ""), "{}", seen.err);
    assert!(seen.err.contains("metadata snap: "), "{}", seen.err);
    file.check(&["-q"]).is_silent(65);
}

#[test]
fn other_roots() {
    let file = Scratch::pool(&shape());
    let superblock = file.superblock();
    let mapping = superblock.mapping_root.0.to_string();
    let details = superblock.details_root.0.to_string();
    file.check(&["-q", "--override-mapping-root", &mapping])
        .is_silent(0);
    file.check(&["-q", "--override-details-root", &details])
        .is_silent(0);
    file.check(&["-q", "--override-mapping-root", &details])
        .is_silent(65);
}

#[test]
fn json() {
    let file = Scratch::pool(&shape()).damaged(Kind::Zero, Target::Leaf);
    let seen = file.check(&["--json"]);
    assert_eq!(seen.status, 65);
    for part in [
        "\"result\": \"damaged\"",
        "\"code\": \"mapping-nodes\"",
        "\"code\": \"device-damaged\"",
        "\"remedy\": \"salvage\"",
        "\"devices\": 6",
    ] {
        assert!(seen.out.contains(part), "{part} is not in {}", seen.out);
    }
    assert!(seen.out.starts_with('{') && seen.out.ends_with("}\n"));
    let seen = Scratch::new(&[1; 8192]).check(&["--json"]);
    assert_eq!(seen.status, 65);
    assert!(
        seen.out.contains("\"result\": \"unreadable\""),
        "{}",
        seen.out
    );
}
