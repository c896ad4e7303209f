// SPDX-License-Identifier: GPL-2.0

//! What every tool has in common: names, versions, help, exit statuses, and what goes where.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use thin_format::io::Memory;
use thin_tools_dev::generate::Shape;

const TOOLS: &str = env!("CARGO_BIN_EXE_thin-tools");

/// A directory that goes away with its value.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("thin-tools-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_string()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(args: &[&str]) -> Output {
    Command::new(TOOLS)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("ended by a signal")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn tools() -> Vec<String> {
    let overview = run(&["--help"]);
    assert_eq!(status(&overview), 0);
    text(&overview.stdout)
        .lines()
        .filter_map(|line| line.strip_prefix("  thin_"))
        .map(|line| format!("thin_{}", line.split_whitespace().next().unwrap()))
        .collect()
}

fn metadata(shape: Shape) -> Vec<u8> {
    let store = Memory::new(shape.blocks());
    shape
        .write(&store)
        .map_err(|_| "the generator failed")
        .unwrap();
    store.to_bytes()
}

#[test]
fn all_tools_are_there() {
    let found = tools();
    for tool in [
        "thin_check",
        "thin_delta",
        "thin_dump",
        "thin_explain",
        "thin_ls",
        "thin_metadata_pack",
        "thin_metadata_size",
        "thin_metadata_unpack",
        "thin_migrate",
        "thin_repair",
        "thin_shrink",
        "thin_restore",
        "thin_rmap",
        "thin_trim",
    ] {
        assert!(found.iter().any(|name| name == tool), "{tool} is missing");
    }
}

#[test]
fn a_link_is_the_tool_it_is_named_after() {
    let place = Place::new("link");
    let link = place.0.join("thin_ls");
    std::os::unix::fs::symlink(TOOLS, &link).unwrap();
    let output = Command::new(&link).arg("--help").output().unwrap();
    assert_eq!(status(&output), 0);
    assert!(text(&output.stdout).contains("Usage: thin_ls"));
}

#[test]
fn the_version_is_three_numbers_and_nothing_else() {
    for tool in tools() {
        for flag in ["-V", "--version"] {
            let output = run(&[&tool, flag]);
            assert_eq!(status(&output), 0);
            let version = text(&output.stdout);
            let numbers: Vec<u32> = version
                .strip_suffix('\n')
                .unwrap()
                .split('.')
                .map(|number| number.parse().unwrap())
                .collect();
            assert_eq!(numbers.len(), 3, "{tool}: {version}");
            assert!(output.stderr.is_empty());
        }
    }
}

#[test]
fn help_goes_to_standard_output() {
    for tool in tools() {
        for flag in ["-h", "--help"] {
            let output = run(&[&tool, flag]);
            assert_eq!(status(&output), 0);
            assert!(text(&output.stdout).contains(&format!("Usage: {tool}")));
            assert!(output.stderr.is_empty());
        }
    }
}

#[test]
fn wrong_command_lines_are_refused() {
    for tool in tools() {
        // lvm2 takes a 2 from thin_check for "not installed".
        let expected = if tool == "thin_check" { 64 } else { 2 };
        let unknown = run(&[&tool, "--xyz"]);
        assert_eq!(status(&unknown), expected, "{tool}");
        assert!(unknown.stdout.is_empty());
        let message = text(&unknown.stderr);
        assert!(
            message.starts_with("error: unexpected argument '--xyz' found"),
            "{message}"
        );

        let missing = run(&[&tool]);
        assert_ne!(status(&missing), 0, "{tool}");
        let message = text(&missing.stderr);
        assert!(
            message.contains("required arguments were not provided"),
            "{tool}: {message}"
        );

        let surplus = run(&[&tool, "a", "b", "c", "d"]);
        assert_eq!(status(&surplus), expected, "{tool}");
        assert!(
            text(&surplus.stderr).contains("unexpected argument"),
            "{tool}"
        );
    }
    let twice = run(&["thin_check", "-q", "-q", "x"]);
    assert_eq!(status(&twice), 64);
    assert!(text(&twice.stderr).contains("cannot be used multiple times"));
    let both = run(&["thin_check", "--auto-repair", "-m", "x"]);
    assert_eq!(status(&both), 64);
    assert!(text(&both.stderr).contains("cannot be used with"));
    assert_eq!(status(&run(&["thin_nothing"])), 64);
    assert_eq!(status(&run(&[])), 64);
}

#[test]
fn thin_check_never_exits_with_2() {
    let place = Place::new("never-2");
    let empty = place.file("empty", b"");
    let short = place.file("short", &[7; 5000]);
    let zeroes = place.file("zeroes", &[0; 1 << 16]);
    for args in [
        &["thin_check"][..],
        &["thin_check", "--xyz"],
        &["thin_check", "-q"],
        &["thin_check", "-q", "/nonexistent/file"],
        &["thin_check", "-q", "/dev/null"],
        &["thin_check", "-q", "/"],
        &["thin_check", "-q", &empty],
        &["thin_check", "-q", &short],
        &["thin_check", "-q", "--clear-needs-check-flag", &zeroes],
        &["thin_check", "--override-mapping-root", "x", &zeroes],
    ] {
        let status = status(&run(args));
        assert!(status != 0 && status != 2, "{args:?}: {status}");
    }
}

#[test]
fn inputs_that_cannot_be_metadata_are_named() {
    let place = Place::new("inputs");
    let tiny = place.file("tiny", b"tiny");
    let xml = place.file(
        "xml",
        &[b"<superblock uuid=\"\">".to_vec(), vec![b' '; 8192]].concat(),
    );
    let mut label = vec![0; 1 << 16];
    label[512..520].copy_from_slice(b"LABELONE");
    let label = place.file("label", &label);
    let cases: [(&str, &str); 5] = [
        ("/nonexistent/file", "Couldn't find input file"),
        ("/dev/null", "Not a block device or regular file"),
        (
            &tiny,
            "Metadata device/file too small.  Is this binary metadata?",
        ),
        (
            &xml,
            "This looks like XML.  This tool only supports the binary metadata format.",
        ),
        (&label, "LVM physical volume"),
    ];
    for (input, message) in cases {
        for tool in ["thin_ls", "thin_check"] {
            let output = run(&[tool, input]);
            assert_ne!(status(&output), 0);
            let said = text(&output.stderr);
            assert!(said.contains(message), "{tool}: {said}");
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_no_reason_to_complain() {
    let place = Place::new("reader");
    let input = place.file(
        "metadata",
        &metadata(Shape {
            mappings: 200_000,
            run_length: 1,
            ..Shape::default()
        }),
    );
    for args in [
        &["thin_dump", &input][..],
        &["thin_rmap", "--region", "0..100000000", &input],
        &[
            "thin_delta",
            "--verbose",
            "--thin1",
            "0",
            "--thin2",
            "1",
            &input,
        ],
    ] {
        let mut child = Command::new(TOOLS)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_ne!(status(&output), 0, "{args:?}");
        assert_eq!(text(&output.stderr), "", "{args:?}");
    }
}

#[test]
fn damage_costs_a_row_not_the_table() {
    let place = Place::new("row");
    let mut bytes = metadata(Shape {
        snapshots: 0,
        ..Shape::default()
    });
    let whole = place.file("whole", &bytes);
    let before = run(&["thin_ls", "-o", "DEV,MAPPED_BLOCKS", &whole]);
    assert_eq!(status(&before), 0);
    // The tree of devices has ten entries, the leaves of mappings have more.
    let leaf = (1..bytes.len() / 4096)
        .rev()
        .find(|block| {
            bytes[block * 4096 + 4] == 2
                && bytes[block * 4096 + 24] == 8
                && bytes[block * 4096 + 16] > 20
        })
        .unwrap();
    bytes[leaf * 4096 + 1000] ^= 1;
    let bad = place.file("bad", &bytes);
    let after = run(&["thin_ls", "-o", "DEV,MAPPED_BLOCKS", &bad]);
    assert_eq!(status(&after), 66);
    let (before, after_text) = (text(&before.stdout), text(&after.stdout));
    let changed = before
        .lines()
        .zip(after_text.lines())
        .filter(|(a, b)| a.split_whitespace().ne(b.split_whitespace()));
    assert_eq!(before.lines().count(), after_text.lines().count());
    let changed: Vec<_> = changed.collect();
    assert!(
        changed.len() == 1 && changed[0].1.contains('+'),
        "{changed:?}"
    );
    assert!(text(&after.stderr).contains("cannot be read"));
}

#[test]
fn completions_know_every_tool() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["--completions", shell]);
        assert_eq!(status(&output), 0);
        let script = text(&output.stdout);
        for tool in tools() {
            assert!(script.contains(&tool), "{shell}: {tool}");
        }
    }
}

#[test]
fn manual_pages_have_every_option() {
    let pages = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../Documentation/man");
    for tool in tools() {
        let page = fs::read_to_string(pages.join(format!("{tool}.8")))
            .unwrap()
            .replace("\\-", "-");
        let help = text(&run(&[&tool, "--help"]).stdout);
        for word in help
            .split_whitespace()
            .filter(|word| word.starts_with("--"))
        {
            let option = word.split(['[', '=', ',', '.', ';', ')']).next().unwrap();
            assert!(page.contains(option), "{tool}.8 does not know {option}");
        }
    }
}
