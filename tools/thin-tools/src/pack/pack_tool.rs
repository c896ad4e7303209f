// SPDX-License-Identifier: GPL-2.0

//! thin_metadata_pack.

use super::archive::pack_chunk;
use super::archive::Writer;
use super::codec::BLOCK;
use super::confirm;
use crate::cli::status;
use crate::cli::Arguments;
use crate::cli::Command;
use crate::cli::Context;
use crate::cli::Failure;
use crate::cli::Opt;
use crate::device;
use crate::report;
use crate::report::Counter;
use crate::report::Progress;
use crate::report::Sink;
use std::fs::File;
use std::io::BufWriter;
use std::os::unix::fs::FileExt;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;

/// The command line.
pub static COMMAND: Command = Command {
    options: &[
        Opt::value("input", "DEV", "Metadata to pack: a device or a file")
            .short('i')
            .required(),
        Opt::value("output", "FILE", "Where to put the pack")
            .short('o')
            .required(),
        Opt::flag("force", "Overwrite the output without asking").short('f'),
        Opt::QUIET,
    ],
    details: "Every block that is not all zero is kept, damaged or not.\n\
              Exit status: 0, or 66 when some blocks could not be read and are not in the pack.",
    ..Command::new("thin_metadata_pack", "Pack thin metadata into a small file")
};

/// How many blocks a chunk holds.
const CHUNK: u64 = 1024;

/// Runs the tool.
pub fn run(args: &Arguments) -> Result<(), Failure> {
    let input = args.path("input").unwrap_or("".as_ref());
    let output = args.path("output").unwrap_or("".as_ref());
    device::check_input(input)?;
    confirm(output, args.given("force"))?;

    let source = device::open_exclusive(input)?;
    let nr_blocks = device::size(input)? / BLOCK as u64;
    let target = File::create(output).context(|| output.display())?;
    let progress = Progress::start("Packing", Sink::choose(args.given("quiet")));
    progress.stage("", nr_blocks);

    let packing = Packing {
        source: &source,
        nr_blocks,
        counter: &progress.counter(),
        turn: Mutex::new(Turn {
            writer: Some(Writer::new(BufWriter::new(target), nr_blocks)?),
            next_to_take: 0,
            next_to_write: 0,
            unreadable: 0,
            failure: None,
        }),
        turned: Condvar::new(),
    };
    let workers = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(64);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| packing.work());
        }
    });
    let turn = packing
        .turn
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(failure) = turn.failure {
        return Err(failure.within(output.display()));
    }
    let writer = turn.writer.ok_or_else(|| Failure::new("a worker died"))?;
    let (out, _) = writer.finish().context(|| output.display())?;
    let target = out
        .into_inner()
        .map_err(|error| Failure::from(error.into_error()))?;
    target.sync_all().context(|| output.display())?;
    drop(progress);
    if turn.unreadable > 0 {
        return Err(Failure::with_status(
            format!(
                "{} blocks could not be read and are not in the pack",
                turn.unreadable
            ),
            status::PARTIAL,
        ));
    }
    Ok(())
}

/// What the workers share.
struct Packing<'a> {
    source: &'a File,
    nr_blocks: u64,
    counter: &'a Counter,
    turn: Mutex<Turn>,
    turned: Condvar,
}

/// Chunks are taken in order, and written in the same order by whoever has packed them.
struct Turn {
    writer: Option<Writer<BufWriter<File>>>,
    next_to_take: u64,
    next_to_write: u64,
    unreadable: u64,
    failure: Option<Failure>,
}

impl Packing<'_> {
    fn work(&self) {
        let mut buffer = vec![0; CHUNK as usize * BLOCK];
        loop {
            let chunk = {
                let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
                let chunk = turn.next_to_take;
                if turn.failure.is_some() || chunk * CHUNK >= self.nr_blocks {
                    return;
                }
                turn.next_to_take += 1;
                chunk
            };
            let first = chunk * CHUNK;
            let count = CHUNK.min(self.nr_blocks - first);
            let unreadable = self.read(first, &mut buffer[..count as usize * BLOCK]);
            let mut blocks = Vec::new();
            for (at, block) in buffer[..count as usize * BLOCK]
                .chunks_exact(BLOCK)
                .enumerate()
            {
                let number = first + at as u64;
                let Some(block) = block.first_chunk::<BLOCK>() else {
                    continue;
                };
                if block.iter().any(|&byte| byte != 0) {
                    blocks.push((number, block));
                }
            }
            let packed = pack_chunk(&blocks);

            let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            while turn.next_to_write != chunk && turn.failure.is_none() {
                turn = self
                    .turned
                    .wait(turn)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            turn.next_to_write += 1;
            turn.unreadable += unreadable;
            if turn.failure.is_none() {
                let written = packed.and_then(|bytes| match &mut turn.writer {
                    Some(writer) if !blocks.is_empty() => {
                        Ok(writer.chunk(&bytes, blocks.len() as u64)?)
                    }
                    _ => Ok(()),
                });
                turn.failure = written.err();
            }
            drop(turn);
            self.turned.notify_all();
            self.counter.advance(count);
        }
    }

    /// Reads blocks; those that cannot be read become zeroes. Returns how many those are.
    fn read(&self, first: u64, buffer: &mut [u8]) -> u64 {
        let offset = |number: u64| number * BLOCK as u64;
        if self.source.read_exact_at(buffer, offset(first)).is_ok() {
            return 0;
        }
        let mut unreadable = 0;
        for (at, block) in buffer.chunks_exact_mut(BLOCK).enumerate() {
            let number = first + at as u64;
            if let Err(error) = self.source.read_exact_at(block, offset(number)) {
                block.fill(0);
                unreadable += 1;
                report::say(&format!("block {number}: {error}"));
            }
        }
        unreadable
    }
}
