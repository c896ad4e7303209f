// SPDX-License-Identifier: GPL-2.0

//! thin_shrink: makes a pool fit a smaller data device.
//!
//! What lies beyond the new end is copied to free blocks below it, then metadata are written that say so, to
//! another place. Until those are in use the old metadata stay true: only blocks that are free for them have been
//! written. So it can be stopped, or fail, and be started again.

mod plan;

use crate::cli::Arguments;
use crate::cli::Command;
use crate::cli::Context;
use crate::cli::Failure;
use crate::cli::Opt;
use crate::device;
use crate::dump;
use crate::metadata;
use crate::report;
use crate::report::Progress;
use crate::report::Sink;
use crate::restore;
use crate::restore::Failed;
use crate::restore::Restorer;
use crate::xml;
use crate::xml::read;
use crate::xml::read::Stop;
use crate::xml::write;
use crate::xml::write::Format;
use crate::xml::Event;
use plan::Plan;
use plan::Used;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::BufWriter;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use thin_format::build;
use thin_format::io::Access;
use thin_format::io::Device;
use thin_format::superblock;
use thin_format::superblock::Demand;
use thin_format::thin::View;

/// The command line.
pub static COMMAND: Command = Command {
    options: &[
        Opt::value("input", "FILE", "The pool's metadata as XML; with --binary, the metadata itself")
            .short('i')
            .required(),
        Opt::value("output", "FILE", "Where to put the new metadata, in the same form")
            .short('o')
            .required(),
        Opt::value("data", "DEV", "The pool's data device").required(),
        Opt::value("nr-blocks", "N", "How many data blocks the pool is to have").required(),
        Opt::flag("no-copy", "Do not copy data: only write the metadata"),
        Opt::flag("binary", "Input and output are metadata, not XML"),
        Opt::flag("dry-run", "Say what would move; write nothing").conflicts(&["no-copy"]),
        Opt::QUIET,
    ],
    details: "The pool must not be active. The input is not changed; as long as it is in use, the pool is as it\n\
              was. Once the output is in use, the data device can be made smaller.",
    ..Command::new("thin_shrink", "Make a pool fit a smaller data device")
};

/// How much is copied at a time, in bytes.
const AT_ONCE: u64 = 4 << 20;

/// Where the metadata come from.
enum Source<'a> {
    Xml(&'a Path),
    Binary(Device),
}

/// Runs the tool.
pub fn run(args: &Arguments) -> Result<(), Failure> {
    let input = args.path("input").unwrap_or("".as_ref());
    let output = args.path("output").unwrap_or("".as_ref());
    let data_path = args.path("data").unwrap_or("".as_ref());
    let end: u64 = args.number("nr-blocks")?.unwrap_or(0);
    let is_binary = args.given("binary");
    let is_dry = args.given("dry-run");
    let is_quiet = args.given("quiet");

    let source = if is_binary {
        Source::Binary(metadata::open(input, View::Current)?)
    } else {
        device::check_file(input)?;
        Source::Xml(input)
    };
    if is_binary && !is_dry {
        device::check_output(output)?;
    }
    if is_same(input, output) {
        return Err(Failure::new(
            "the output must be another file or device than the input",
        ));
    }

    let progress = Progress::start("Shrinking", Sink::choose(is_quiet));
    progress.stage("reading metadata", 0);
    let mut used = Used::default();
    let mut head = None;
    events(&source, |event| {
        match event {
            Event::Superblock(superblock) => head = Some(*superblock),
            Event::Run(run) => used.add(&run),
            _ => {}
        }
        Ok(())
    })
    .context(|| input.display())?;
    let head = head.ok_or_else(|| Failure::new("the metadata have no superblock"))?;
    restore::check_block_size(head.data_block_size)?;
    if end == 0 || end > head.nr_data_blocks {
        return Err(Failure::new(format!(
            "the pool has {} data blocks: it cannot be shrunk to {end}",
            head.nr_data_blocks
        )));
    }
    let plan = Plan::new(used, end).map_err(|no| {
        Failure::new(format!(
            "Insufficient free space: {} blocks have to move, {} are free below block {end}",
            no.needed, no.free
        ))
    })?;
    let block_size = u64::from(head.data_block_size) * 512;

    if !is_dry {
        if !args.given("no-copy") {
            progress.stage("copying data", plan.blocks.saturating_mul(block_size));
            let data = open_data(data_path, &plan, block_size)?;
            copy(&data, &plan, block_size, &progress).context(|| data_path.display())?;
        }
        progress.stage("writing metadata", 0);
        if is_binary {
            write_binary(&source, output, &head, &plan, end).context(|| output.display())?;
        } else {
            write_xml(&source, output, &plan, end).context(|| output.display())?;
        }
    }
    drop(progress);
    if !is_quiet {
        let what = if is_dry { "would move" } else { "moved" };
        let mut out = report::stdout();
        writeln!(
            out,
            "{} blocks in {} pieces {what}; the pool then needs {} bytes of its data device",
            plan.blocks,
            plan.moves.len(),
            u128::from(end) * u128::from(block_size)
        )?;
        out.flush()?;
    }
    Ok(())
}

/// Whether two paths are one file or device.
fn is_same(one: &Path, other: &Path) -> bool {
    let (Ok(one), Ok(other)) = (fs::metadata(one), fs::metadata(other)) else {
        return false;
    };
    let same_device = one.file_type().is_block_device()
        && other.file_type().is_block_device()
        && one.rdev() == other.rdev();
    same_device || (one.dev() == other.dev() && one.ino() == other.ino())
}

/// Hands the metadata to `take`, event by event.
fn events(source: &Source<'_>, take: impl FnMut(Event) -> Result<(), Stop>) -> Result<(), Failure> {
    match source {
        Source::Xml(path) => read::read(File::open(path)?, |_| {}, take),
        Source::Binary(store) => {
            let main = superblock::read(store, 0, Demand::Everything)?;
            let (ours, theirs) = UnixStream::pair()?;
            thread::scope(|scope| {
                let dumping = scope.spawn(move || {
                    let mut writer = dump::Writer {
                        out: Box::new(BufWriter::with_capacity(1 << 16, theirs)),
                        format: Format::Xml,
                    };
                    let blocks = superblock::data_space_map(&main).blocks;
                    let head = dump::head(&main, blocks);
                    writer.write(&Event::Superblock(Box::new(head)))?;
                    let everything = dump::Selection {
                        devices: Vec::new(),
                        skips_mappings: false,
                    };
                    let progress = Progress::start("", Sink::Quiet);
                    dump::dump(store, &main, &everything, &progress, &mut writer)?;
                    writer.write(&Event::SuperblockEnd)?;
                    writer.flush()
                });
                let taken = read::read(ours, |_| {}, take);
                let dumped = dumping
                    .join()
                    .unwrap_or_else(|_| Err(Failure::new("dumping failed")));
                match dumped {
                    // It was the reader who stopped.
                    Err(Failure::ReaderGone) | Ok(()) => taken,
                    Err(failure) => Err(failure),
                }
            })
        }
    }
}

fn open_data(path: &Path, plan: &Plan, block_size: u64) -> Result<File, Failure> {
    let kind = fs::metadata(path).context(|| path.display())?.file_type();
    let flags = if kind.is_block_device() {
        device::O_EXCL
    } else {
        0
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
        .context(|| path.display())?;
    let last = plan
        .moves
        .last()
        .map_or(0, |m| m.from.saturating_add(m.length));
    if device::size(path)? < last.saturating_mul(block_size) {
        return Err(Failure::new(format!(
            "{} is smaller than what the metadata refer to: is it the right device?",
            path.display()
        )));
    }
    Ok(file)
}

fn copy(data: &File, plan: &Plan, block_size: u64, progress: &Progress) -> Result<(), Failure> {
    let counter = progress.counter();
    let mut buffer = vec![0; AT_ONCE as usize];
    for m in &plan.moves {
        let bytes = m.length * block_size;
        let mut done = 0;
        while done < bytes {
            let length = AT_ONCE.min(bytes - done);
            let part = &mut buffer[..length as usize];
            let from = m.from * block_size + done;
            data.read_exact_at(part, from)
                .context(|| format!("reading at byte {from}"))?;
            let to = m.to * block_size + done;
            data.write_all_at(part, to)
                .context(|| format!("writing at byte {to}"))?;
            counter.advance(length);
            done += length;
        }
    }
    data.sync_all().context(|| "flushing")
}

/// The events as they are after the move.
fn after(
    source: &Source<'_>,
    plan: &Plan,
    end: u64,
    mut take: impl FnMut(Event) -> Result<(), Stop>,
) -> Result<(), Failure> {
    let mut has_ended = false;
    events(source, |event| match event {
        Event::Run(run) => {
            let mut outcome = Ok(());
            plan.moved(&run, |part| {
                if outcome.is_ok() {
                    outcome = take(Event::Run(part));
                }
            });
            outcome
        }
        Event::Superblock(mut superblock) => {
            superblock.nr_data_blocks = end;
            take(Event::Superblock(superblock))
        }
        Event::SuperblockEnd => {
            has_ended = true;
            take(Event::SuperblockEnd)
        }
        other => take(other),
    })?;
    if has_ended {
        Ok(())
    } else {
        Err(Failure::new("the metadata end too early"))
    }
}

fn write_xml(source: &Source<'_>, output: &Path, plan: &Plan, end: u64) -> Result<(), Failure> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(output)?);
    let mut text = Vec::new();
    after(source, plan, end, |event| {
        text.clear();
        write::append(&mut text, Format::Xml, &event);
        Ok(out.write_all(&text).map_err(Failure::from)?)
    })?;
    let file = out
        .into_inner()
        .map_err(|error| Failure::from(error.into_error()))?;
    Ok(file.sync_all()?)
}

fn write_binary(
    source: &Source<'_>,
    output: &Path,
    head: &xml::Superblock,
    plan: &Plan,
    end: u64,
) -> Result<(), Failure> {
    let store = Device::open(output, Access::Write)?;
    let built = build::build(&store, end, |builder| {
        let mut restorer = Restorer::inside(builder);
        after(source, plan, end, |event| match event {
            Event::Superblock(_) => Ok(()),
            event => restorer.take(event),
        })
        .map_err(Failed)?;
        Ok::<_, Failed>(restore::pool(head))
    });
    built.map(|_| ()).map_err(|Failed(failure)| failure)
}
