// SPDX-License-Identifier: GPL-2.0

//! `thin-tools-dev generate` and `thin-tools-dev damage`.

use std::collections::HashMap;
use std::env;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;
use std::str::FromStr;

use thin_format::block::BLOCK_BYTES;
use thin_format::io::Access;
use thin_format::io::Device;
use thin_format::io::Store;
use thin_tools_dev::damage;
use thin_tools_dev::damage::Kind;
use thin_tools_dev::damage::Target;
use thin_tools_dev::generate::Shape;
use thin_tools_dev::random::Random;

const USAGE: &str = "\
Usage: thin-tools-dev generate [--OPTION VALUE]... FILE
       thin-tools-dev damage [--OPTION VALUE]... FILE

generate makes thin metadata in FILE (made as large as it takes if it does not exist):
  --devices N           devices, snapshots included (10)
  --snapshots PERMILLE  how many of them are snapshots (500)
  --mappings N          mappings of all devices together (10000)
  --run-length N        mean length of runs of mappings (8)
  --diverged PERMILLE   leaves that a snapshot shares no more (100)
  --changed PERMILLE    mappings of such a leaf that are other ones (250)
  --depth N             snapshots of snapshots of ... (1)
  --fill PERCENT        how full nodes are (100)
  --data-block-size N   sectors (128)
  --nr-data-blocks N    blocks of the data device (somewhat more than mapped)
  --needs-check BOOL    set the flag (false)
  --held BOOL           hold a metadata snapshot (false)
  --blocks N            metadata blocks of a FILE that is made (as many as it takes)
  --seed N              what everything follows from (1)

damage damages whole metadata in FILE and prints what it did, one line each:
  --kind KIND           flip zero noise stale copied key-order entries cross-link count-high count-low nr-free
                        nr-allocated mapped-blocks (flip)
  --target TARGET       superblock top-level details internal leaf data-bitmap data-index metadata-bitmap
                        metadata-index (leaf)
  --count N             how many times (1)
  --seed N              what everything follows from (1)
  --zero FIRST          instead, overwrite --count blocks from block FIRST on with zeroes
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut words = env::args().skip(1);
    let command = words.next().ok_or(USAGE)?;
    let mut options = Options::parse(words)?;
    match command.as_str() {
        "generate" => generate(&mut options),
        "damage" => do_damage(&mut options),
        _ => Err(USAGE.into()),
    }
}

struct Options {
    values: HashMap<String, String>,
    file: String,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut values = HashMap::new();
        let mut file = None;
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                Some(name) => {
                    let (name, value) = match name.split_once('=') {
                        Some((name, value)) => (name.to_string(), Some(value.to_string())),
                        None => (name.to_string(), words.next()),
                    };
                    values.insert(name, value.ok_or(USAGE)?);
                }
                None => file = Some(word),
            }
        }
        Ok(Options {
            values,
            file: file.ok_or(USAGE)?,
        })
    }

    fn take<T: FromStr>(&mut self, name: &str, default: T) -> Result<T, String> {
        match self.values.remove(name) {
            Some(value) => value
                .parse()
                .map_err(|_| format!("--{name}: no sensible value: {value}")),
            None => Ok(default),
        }
    }

    fn done(&self) -> Result<(), String> {
        match self.values.keys().next() {
            Some(name) => Err(format!("unknown option --{name}\n{USAGE}")),
            None => Ok(()),
        }
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

fn generate(options: &mut Options) -> Result<(), String> {
    let usual = Shape::default();
    let shape = Shape {
        devices: options.take("devices", usual.devices)?,
        snapshots: options.take("snapshots", usual.snapshots)?,
        mappings: options.take("mappings", usual.mappings)?,
        run_length: options.take("run-length", usual.run_length)?,
        diverged: options.take("diverged", usual.diverged)?,
        changed: options.take("changed", usual.changed)?,
        depth: options.take("depth", usual.depth)?,
        fill: options.take("fill", usual.fill)?,
        data_block_size: options.take("data-block-size", usual.data_block_size)?,
        nr_data_blocks: options.take("nr-data-blocks", usual.nr_data_blocks)?,
        needs_check: options.take("needs-check", usual.needs_check)?,
        held: options.take("held", usual.held)?,
        seed: options.take("seed", usual.seed)?,
    };
    let blocks = options.take("blocks", shape.blocks())?;
    options.done()?;
    if let Ok(file) = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&options.file)
    {
        file.set_len(blocks * BLOCK_BYTES).map_err(text)?;
    }
    let store = Device::open(&options.file, Access::Write).map_err(text)?;
    let built = shape.write(&store).map_err(text)?;
    writeln!(
        std::io::stdout(),
        "{} of {} blocks used",
        built.used,
        store.blocks()
    )
    .map_err(text)
}

fn do_damage(options: &mut Options) -> Result<(), String> {
    let kind: String = options.take("kind", "flip".into())?;
    let target: String = options.take("target", "leaf".into())?;
    let kind = Kind::from_name(&kind).ok_or_else(|| format!("unknown kind {kind}"))?;
    let target = Target::from_name(&target).ok_or_else(|| format!("unknown target {target}"))?;
    let count: u64 = options.take("count", 1)?;
    let mut random = Random::new(options.take("seed", 1)?);
    let zero: Option<u64> = options
        .values
        .remove("zero")
        .and_then(|first| first.parse().ok());
    options.done()?;
    let store = Device::open(&options.file, Access::Write).map_err(text)?;
    if let Some(first) = zero {
        damage::zero_range(&store, first, count).map_err(text)?;
        return store.flush().map_err(text);
    }
    let mut places = damage::places(&store, target).map_err(text)?;
    for _ in 0..count {
        match damage::damage(&store, kind, target, &places, &mut random).map_err(text)? {
            Some(damage) => {
                places.retain(|place| *place != damage.place);
                writeln!(std::io::stdout(), "{damage}").map_err(text)?;
            }
            None => return Err(format!("{target} blocks cannot be damaged by {kind}")),
        }
    }
    store.flush().map_err(text)
}
