// SPDX-License-Identifier: GPL-2.0

//! Every tool on inputs that nobody would write: no panic, no hang, no memory without bound.
//!
//! Metadata are changed below their checksums, so that what reads them gets to see it. A few rounds are run
//! with all other tests; DM_THIN_RS_FUZZ_SECONDS makes it as long as one likes, DM_THIN_RS_SEED repeats a run.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;
use thin_format::block::BlockKind;
use thin_format::checksum;
use thin_format::io::Memory;
use thin_tools_dev::generate::Shape;
use thin_tools_dev::random::Random;

const TOOLS: &str = env!("CARGO_BIN_EXE_thin-tools");

/// Address space that a tool may have for these inputs of a few hundred blocks, in KiB: what it states,
/// and room for the stacks of its threads.
const MEMORY: u64 = 2 << 20;
/// Far more time than any tool needs, even on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many rounds are run with the other tests.
const ROUNDS: u64 = 24;

const BLOCK: usize = 4096;

struct Place(PathBuf);

impl Place {
    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a tool within the bounds. What was wrong with how it ended, if anything was.
fn complaint(place: &Place, args: &[&str]) -> Option<String> {
    let errors = fs::File::create(place.path("stderr")).unwrap();
    let mut child = Command::new("sh")
        .args([
            "-c",
            &format!("ulimit -v {MEMORY}; exec \"$0\" \"$@\""),
            TOOLS,
        ])
        .args(args)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .unwrap();
    let start = Instant::now();
    let mut pause = Duration::from_micros(500);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            return Some("did not end".to_string());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    let errors = fs::read(place.path("stderr")).unwrap();
    let errors = String::from_utf8_lossy(&errors);
    match status.code() {
        Some(101) | None => Some(format!("{status}: {errors}")),
        Some(_) if errors.contains("panicked") => Some(errors.to_string()),
        Some(_) => None,
    }
}

/// A number of the kind that code forgets about.
fn odd_number(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => u64::MAX - random.below(300),
        3 => 1 << random.below(64),
        4 => (1 << random.below(64)) - 1,
        5 => random.below(300),
        6 => random.below(1 << 24) << 24 | random.below(1 << 24),
        _ => random.next(),
    }
}

fn kind_of(block: &[u8; BLOCK]) -> Option<BlockKind> {
    BlockKind::ALL.into_iter().find(|kind| {
        let location = u64::from_le_bytes(block[8..16].try_into().unwrap());
        checksum::check(*kind, block, location).is_ok()
    })
}

/// The blocks of each sort: there are far more leaves than anything else, and far fewer bugs in reading them.
fn sorts(bytes: &[u8]) -> Vec<Vec<usize>> {
    let mut sorts: BTreeMap<(u64, u8, u8), Vec<usize>> = BTreeMap::new();
    for (at, block) in bytes.chunks_exact(BLOCK).enumerate() {
        if let Some(kind) = kind_of(block.try_into().unwrap()) {
            let (flags, value_size) = (block[4], block[24]);
            let sort = match kind {
                BlockKind::Node => (u64::from(kind.salt()), flags, value_size),
                _ => (u64::from(kind.salt()), 0, 0),
            };
            sorts.entry(sort).or_default().push(at);
        }
    }
    sorts.into_values().collect()
}

/// Changes metadata; what is changed keeps a right checksum most of the time.
fn change(bytes: &mut Vec<u8>, random: &mut Random) {
    let sorts = sorts(bytes);
    for _ in 0..1 + random.below(4) {
        let blocks = bytes.len() / BLOCK;
        let at = random
            .pick(&sorts)
            .and_then(|sort| random.pick(sort))
            .copied()
            .unwrap_or(0);
        let Some(block) = bytes.get(at * BLOCK..(at + 1) * BLOCK) else {
            continue;
        };
        let mut block: [u8; BLOCK] = block.try_into().unwrap();
        let kind = kind_of(&block);
        match random.below(12) {
            0 => block[random.below(BLOCK as u64) as usize] ^= 1 << random.below(8),
            1 => block.fill(0),
            2 => {
                let other = random.below(blocks as u64) as usize;
                block.copy_from_slice(&bytes[other * BLOCK..(other + 1) * BLOCK]);
            }
            3 => {
                let value = odd_number(random) as u32;
                let place = 16 + 4 * random.below(4) as usize;
                block[place..place + 4].copy_from_slice(&value.to_le_bytes());
            }
            4 if random.chance(300) => {
                bytes.truncate((random.below(blocks as u64) as usize + 1) * BLOCK);
            }
            5..=8 if kind == Some(BlockKind::Node) => {
                change_entry(&mut block, blocks as u64, random)
            }
            _ => {
                for _ in 0..1 + random.below(5) {
                    let reach = if at == 0 || random.chance(300) {
                        400
                    } else {
                        BLOCK as u64 - 8
                    };
                    let place = 8 * (random.below(reach) / 8) as usize;
                    let value = odd_number(random);
                    block[place..place + 8].copy_from_slice(&value.to_le_bytes());
                }
            }
        }
        if let Some(kind) = kind.filter(|_| random.chance(950)) {
            checksum::seal(kind, &mut block, at as u64);
        }
        if let Some(place) = bytes.get_mut(at * BLOCK..(at + 1) * BLOCK) {
            place.copy_from_slice(&block);
        }
    }
}

/// Changes keys and values of a node that are in use.
fn change_entry(block: &mut [u8; BLOCK], blocks: u64, random: &mut Random) {
    let field = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap()) as usize;
    let (entries, room, size) = (field(16), field(20), field(24));
    for _ in 0..1 + random.below(3) {
        let entry = random.below(entries as u64) as usize;
        let place = if random.chance(300) {
            32 + 8 * entry
        } else {
            32 + 8 * room + size * entry
        };
        // A pointer to some block of the metadata is worse than one to nowhere.
        let value = if random.chance(400) {
            random.below(blocks)
        } else {
            odd_number(random)
        };
        if let Some(place) = block.get_mut(place..place + size.min(8)) {
            place.copy_from_slice(&value.to_le_bytes()[..place.len()]);
        }
    }
}

/// Changes text or a pack: bytes, numbers, pieces.
fn change_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len() as u64) as usize;
        let length = (random.below(40) as usize).min(bytes.len() - at);
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..at + length)),
            3 => {
                let piece = bytes[at..at + length].to_vec();
                let to = random.below(bytes.len() as u64) as usize;
                bytes.splice(to..to, piece);
            }
            4 => {
                let digits: Vec<usize> = (0..bytes.len())
                    .filter(|&at| bytes[at].is_ascii_digit())
                    .collect();
                if let Some(&at) = random.pick(&digits) {
                    let number = odd_number(random).to_string().into_bytes();
                    bytes.splice(at..at + 1, number);
                }
            }
            _ => {
                let number = odd_number(random).to_le_bytes();
                let length = length.min(8);
                bytes[at..at + length].copy_from_slice(&number[..length]);
            }
        }
    }
}

fn small(random: &mut Random) -> Vec<u8> {
    let shape = Shape {
        devices: 1 + random.below(6),
        snapshots: random.below(1001),
        mappings: random.below(20_000),
        diverged: random.below(1001),
        held: random.chance(300),
        needs_check: random.chance(300),
        seed: random.next(),
        ..Shape::default()
    };
    let store = Memory::new(shape.blocks());
    shape
        .write(&store)
        .map_err(|_| "the generator failed")
        .unwrap();
    store.to_bytes()
}

/// What is run on changed metadata. `{in}` is it, `{copy}` one that may be written to.
const ON_METADATA: &[&str] = &[
    "thin_check {in}",
    "thin_check --skip-mappings {in}",
    "thin_check -m --json {in}",
    "thin_check --auto-repair {copy}",
    "thin_check --clear-needs-check-flag {copy}",
    "thin_dump {in}",
    "thin_dump -m -f human_readable {in}",
    "thin_dump --repair {in}",
    "thin_dump --dev-id 0 --dev-id 1 {in}",
    "thin_repair --allow-partial -i {in} -o {out}",
    "thin_repair --list-roots --json -i {in}",
    "thin_ls -o DEV,MAPPED,EXCLUSIVE,HIGHEST_MAPPED,SNAP_TIME {in}",
    "thin_ls -m --json {in}",
    "thin_delta --thin1 0 --thin2 1 {in}",
    "thin_delta --thin1 1 --thin2 0 --no-same --json {in}",
    "thin_delta --root1 7 --thin2 0 --verbose {in}",
    "thin_rmap --region 0..18446744073709551615 {in}",
    "thin_rmap --json --region 5..10 --region 7..900 {in}",
    "thin_explain --svg {out} {in}",
    "thin_trim --dry-run --metadata-dev {in} --data-dev {data}",
    "thin_metadata_pack -f -i {in} -o {out}",
    "thin_shrink --binary -i {in} -o {out} --data {data} --nr-blocks 40000 --no-copy",
];

#[test]
fn no_input_makes_a_tool_panic_or_hang() {
    let seconds = std::env::var("DM_THIN_RS_FUZZ_SECONDS").ok();
    let seconds: Option<u64> = seconds.and_then(|seconds| seconds.parse().ok());
    let seed = Random::seed_of_test();
    let mut random = Random::new(seed);
    let place = Place(std::env::temp_dir().join(format!("thin-fuzz-{}", std::process::id())));
    fs::create_dir_all(&place.0).unwrap();
    let start = Instant::now();
    let mut round = 0;
    loop {
        match seconds {
            Some(seconds) if start.elapsed().as_secs() >= seconds => break,
            None if round >= ROUNDS => break,
            _ => round += 1,
        }
        let bytes = small(&mut random);
        let mut bad = Vec::new();
        match random.below(10) {
            0 => bad.extend(fuzz_xml(&place, &bytes, &mut random)),
            1 => bad.extend(fuzz_pack(&place, &bytes, &mut random)),
            _ => bad.extend(fuzz_metadata(&place, bytes, &mut random)),
        }
        if let Some((command, complaint)) = bad.first() {
            let keep = std::env::temp_dir().join(format!("thin-fuzz-finding-{seed}"));
            let _ = fs::copy(place.path("in"), &keep);
            panic!(
                "DM_THIN_RS_SEED={seed}, round {round}: {command}: {complaint}\nthe input is in {}",
                keep.display()
            );
        }
    }
    println!("{round} rounds");
}

type Complaints = Vec<(String, String)>;

fn run_all(place: &Place, commands: &[&str]) -> Complaints {
    let mut complaints = Vec::new();
    for command in commands {
        if command.contains("{copy}") {
            fs::copy(place.path("in"), place.path("copy")).unwrap();
        }
        if command.contains("{out}") {
            fs::write(place.path("out"), vec![0; 1 << 22]).unwrap();
        }
        let args: Vec<String> = command
            .split(' ')
            .map(
                |arg| match arg.strip_prefix('{').and_then(|arg| arg.strip_suffix('}')) {
                    Some(name) => place.path(name),
                    None => arg.to_string(),
                },
            )
            .collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if let Some(complaint) = complaint(place, &args) {
            complaints.push((command.to_string(), complaint));
        }
    }
    complaints
}

fn fuzz_metadata(place: &Place, mut bytes: Vec<u8>, random: &mut Random) -> Complaints {
    change(&mut bytes, random);
    fs::write(place.path("in"), &bytes).unwrap();
    let data = fs::File::create(place.path("data")).unwrap();
    data.set_len(1 << 43).unwrap();
    run_all(place, ON_METADATA)
}

fn fuzz_xml(place: &Place, bytes: &[u8], random: &mut Random) -> Complaints {
    fs::write(place.path("metadata"), bytes).unwrap();
    let text = Command::new(TOOLS)
        .args(["thin_dump", &place.path("metadata")])
        .output()
        .unwrap();
    let mut complaints = Vec::new();
    for _ in 0..8 {
        let mut text = text.stdout.clone();
        change_bytes(&mut text, random);
        fs::write(place.path("in"), &text).unwrap();
        complaints.extend(run_all(
            place,
            &[
                "thin_restore -i {in} -o {out}",
                "thin_check {in}",
                "thin_shrink -i {in} -o {out} --data {in} --nr-blocks 9000 --no-copy",
            ],
        ));
    }
    complaints
}

fn fuzz_pack(place: &Place, bytes: &[u8], random: &mut Random) -> Complaints {
    fs::write(place.path("metadata"), bytes).unwrap();
    let packed = Command::new(TOOLS)
        .args([
            "thin_metadata_pack",
            "-f",
            "-i",
            &place.path("metadata"),
            "-o",
            &place.path("pack"),
        ])
        .status()
        .unwrap();
    assert!(packed.success());
    let pack = fs::read(place.path("pack")).unwrap();
    let mut complaints = Vec::new();
    for _ in 0..8 {
        let mut pack = pack.clone();
        change_bytes(&mut pack, random);
        fs::write(place.path("in"), &pack).unwrap();
        complaints.extend(run_all(
            place,
            &["thin_metadata_unpack -f -i {in} -o {out}"],
        ));
    }
    complaints
}
