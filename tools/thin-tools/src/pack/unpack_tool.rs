// SPDX-License-Identifier: GPL-2.0

//! thin_metadata_unpack.

use super::archive::Placed;
use super::archive::Reader;
use super::codec::BLOCK;
use super::confirm;
use crate::cli::Arguments;
use crate::cli::Command;
use crate::cli::Context;
use crate::cli::Failure;
use crate::cli::Opt;
use crate::device;
use crate::report;
use crate::report::Progress;
use crate::report::Sink;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The command line.
pub static COMMAND: Command = Command {
    options: &[
        Opt::value("input", "FILE", "The pack")
            .short('i')
            .required(),
        Opt::value(
            "output",
            "DEV",
            "Where to put the metadata: a device or a file",
        )
        .short('o')
        .required(),
        Opt::flag("force", "Overwrite the output without asking").short('f'),
        Opt::QUIET,
        Opt::IO_ENGINE,
    ],
    details:
        "The pack is checked to its end before the output is touched. Blocks that are not in the\n\
              pack become zeroes; the superblock is written last.",
    ..Command::new(
        "thin_metadata_unpack",
        "Unpack what thin_metadata_pack packed",
    )
};

/// Runs the tool.
pub fn run(args: &Arguments) -> Result<(), Failure> {
    let input = args.path("input").unwrap_or("".as_ref());
    let output = args.path("output").unwrap_or("".as_ref());
    device::check_file(input)?;
    let progress = Progress::start("Unpacking", Sink::choose(args.given("quiet")));

    progress.stage("checking", 0);
    let nr_blocks = check(input, &progress).context(|| input.display())?;
    confirm(output, args.given("force"))?;

    progress.stage("writing", nr_blocks);
    let target = Target::open(output, nr_blocks)?;
    target.write(input, &progress).context(|| output.display())
}

fn open(input: &Path) -> Result<Reader<BufReader<File>>, Failure> {
    Reader::new(BufReader::with_capacity(1 << 20, File::open(input)?))
}

/// Reads the pack to its end, so that nothing is written for a bad one: how many blocks the metadata has.
fn check(input: &Path, progress: &Progress) -> Result<u64, Failure> {
    let mut reader = open(input)?;
    if open(input)?.check_marks()? {
        return Ok(reader.nr_blocks);
    }
    progress.stage("checking", reader.nr_blocks);
    let mut seen = Seen::default();
    while let Some(blocks) = reader.next_chunk()? {
        for (number, _) in blocks {
            seen.add(number)?;
            progress.counter().set(number);
        }
    }
    report::say(
        "the pack was written by a program that marks no end: whether it is complete cannot be told",
    );
    Ok(reader.nr_blocks)
}

/// Which blocks are in the pack.
#[derive(Default)]
struct Seen(Vec<bool>);

impl Seen {
    fn add(&mut self, number: u64) -> Result<(), Failure> {
        let at = usize::try_from(number).map_err(|_| Failure::new("too many blocks"))?;
        if at >= self.0.len() {
            self.0.resize(at + 1, false);
        }
        if std::mem::replace(&mut self.0[at], true) {
            return Err(Failure::new(format!("block {number} is in the pack twice")));
        }
        Ok(())
    }

    fn has(&self, number: u64) -> bool {
        usize::try_from(number)
            .ok()
            .and_then(|at| self.0.get(at))
            .copied()
            .unwrap_or(false)
    }
}

struct Target {
    file: File,
    nr_blocks: u64,
    is_device: bool,
}

impl Target {
    /// Opens the output, which from now on is no metadata until all is written.
    fn open(path: &Path, nr_blocks: u64) -> Result<Self, Failure> {
        let is_device = fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device());
        let mut options = OpenOptions::new();
        options.write(true);
        let file = if is_device {
            let room = device::size(path)? / BLOCK as u64;
            if room < nr_blocks {
                return Err(Failure::new(format!(
                    "Output file too small: the metadata has {nr_blocks} blocks, {} has {room}",
                    path.display()
                )));
            }
            options.custom_flags(device::O_EXCL).open(path)
        } else {
            options.create(true).truncate(true).open(path)
        }
        .context(|| path.display())?;
        let target = Self {
            file,
            nr_blocks,
            is_device,
        };
        if is_device {
            target.put(0, &[0; BLOCK])?;
            target.file.sync_all()?;
        } else {
            let size = nr_blocks.checked_mul(BLOCK as u64);
            target
                .file
                .set_len(size.ok_or_else(|| Failure::new("too many blocks"))?)?;
        }
        Ok(target)
    }

    fn put(&self, number: u64, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.file.write_all_at(bytes, number * BLOCK as u64)?)
    }

    fn write(&self, input: &Path, progress: &Progress) -> Result<(), Failure> {
        let mut reader = open(input)?;
        let counter = progress.counter();
        let mut superblock = None;
        let mut seen = Seen::default();
        while let Some(mut blocks) = reader.next_chunk()? {
            blocks.sort_by_key(|(number, _)| *number);
            for (number, _) in &blocks {
                seen.add(*number)?;
            }
            if blocks.first().is_some_and(|(number, _)| *number == 0) {
                superblock = Some(blocks.remove(0).1);
            }
            counter.advance(blocks.len() as u64);
            self.write_runs(&blocks)?;
        }
        if self.is_device {
            self.zero_others(&seen)?;
        }
        self.file.sync_all()?;
        if let Some(superblock) = superblock {
            self.put(0, &*superblock)?;
            self.file.sync_all()?;
        }
        Ok(())
    }

    /// Writes blocks that follow one another together.
    fn write_runs(&self, blocks: &[Placed]) -> Result<(), Failure> {
        for run in blocks.chunk_by(|(number, _), (next, _)| *number + 1 == *next) {
            let bytes: Vec<u8> = run
                .iter()
                .flat_map(|(_, block)| &block[..])
                .copied()
                .collect();
            self.put(run[0].0, &bytes)?;
        }
        Ok(())
    }

    /// Clears what the pack does not have: on a device it is not zero already.
    fn zero_others(&self, seen: &Seen) -> Result<(), Failure> {
        const MOST: u64 = 256;
        let zeroes = vec![0; MOST as usize * BLOCK];
        let mut from = 1;
        while from < self.nr_blocks {
            let end = self.nr_blocks.min(from + MOST);
            let run = (from..end).take_while(|&number| !seen.has(number)).count();
            if run > 0 {
                self.put(from, &zeroes[..run * BLOCK])?;
            }
            from += (run as u64).max(1);
        }
        Ok(())
    }
}
