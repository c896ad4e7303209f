// SPDX-License-Identifier: GPL-2.0

//! thin_migrate: copies what a thin device has mapped, and nothing else, to another place.

mod dm;

use crate::cli::Arguments;
use crate::cli::Command;
use crate::cli::Context;
use crate::cli::Failure;
use crate::cli::Opt;
use crate::delta;
use crate::delta::Kind;
use crate::device;
use crate::metadata;
use crate::report;
use crate::report::Counter;
use crate::report::Progress;
use crate::report::Sink;
use dm::DeviceNumber;
use dm::Thin;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use thin_format::superblock;
use thin_format::superblock::Demand;
use thin_format::thin;
use thin_format::thin::Pool;
use thin_format::thin::View;

/// The command line.
pub static COMMAND: Command = Command {
    options: &[
        Opt::value("source-dev", "DEV", "The thin device to copy; it must be active and read-only")
            .required(),
        Opt::value("dest-dev", "DEV", "The block device to copy to, of the same size")
            .conflicts(&["dest-file"]),
        Opt::value("dest-file", "FILE", "The file to copy to; it is made anew"),
        Opt::value("buffer-size-meg", "N", "How much is copied at a time, in MiB (default: 64)"),
        Opt::value("delta-id", "ID", "Copy only what differs from this device of the same pool, which\nthe destination is a copy of already"),
        Opt::flag("zero-dest", "Write zeroes where the source has nothing mapped"),
        Opt::QUIET,
    ],
    details: "What the source has not mapped is left as it is at the destination, so that should be new or\n\
              discarded (or use --zero-dest). A metadata snapshot of the pool is reserved for as long as it\n\
              takes, if there is none. Needs dmsetup.",
    ..Command::new("thin_migrate", "Copy a thin device, only as much as it has mapped")
};

/// What is to be done with a range of the device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Copy,
    Zero,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Task {
    work: Work,
    begin: u64,
    end: u64,
}

/// Runs the tool.
pub fn run(args: &Arguments) -> Result<(), Failure> {
    let source_path = args.path("source-dev").unwrap_or("".as_ref());
    let delta_id: Option<u64> = args.number("delta-id")?;
    let buffer: u64 = args.number("buffer-size-meg")?.unwrap_or(64);
    if !(1..=4096).contains(&buffer) {
        return Err(Failure::usage("--buffer-size-meg must be from 1 to 4096"));
    }
    let to_device = args.path("dest-dev");
    let to_file = args.path("dest-file");
    if to_device.is_none() && to_file.is_none() {
        return Err(Failure::usage(
            "the following required arguments were not provided:\n  --dest-dev <DEV> or --dest-file <FILE>",
        ));
    }

    let number = DeviceNumber::of(source_path)?;
    let source = Thin::of(&number)?;
    if !number.is_read_only()? {
        return Err(Failure::new(format!(
            "{} is not read-only: it could change while it is copied. Make it so, with\n\
             'lvchange --permission r' or 'blockdev --setro'",
            source_path.display()
        )));
    }
    let bytes = source.sectors.saturating_mul(512);
    let from = File::open(source_path).context(|| source_path.display())?;

    let metadata_path = source.metadata_path()?;
    let store = metadata::open(&metadata_path, View::Snapshot)?;
    let main = superblock::read(&store, 0, Demand::Everything)?;
    let reserved = match main.metadata_snapshot.0 {
        0 => Some(source.reserve()?),
        _ => None,
    };
    let mut tasks = {
        let pool = metadata::pool(&store, &metadata_path, View::Snapshot)?;
        tasks(&pool, source.id, delta_id)?
    };
    drop(reserved);
    for task in &mut tasks {
        task.begin = task.begin.min(bytes);
        task.end = task.end.min(bytes);
    }
    tasks.retain(|task| task.begin < task.end);
    if args.given("zero-dest") && delta_id.is_none() {
        tasks = with_gaps(&tasks, bytes);
    }

    let to_path = to_device.or(to_file).unwrap_or("".as_ref());
    let to = match to_device {
        Some(path) => open_device(path, bytes)?,
        None => open_file(to_path, bytes, delta_id.is_some())?,
    };
    let progress = Progress::start("Copying", Sink::choose(args.given("quiet")));
    progress.stage("", tasks.iter().map(|task| task.end - task.begin).sum());
    let copied = copy(
        &from,
        &to,
        &tasks,
        (buffer << 20) as usize,
        &progress.counter(),
    )?;
    to.sync_all().context(|| to_path.display())?;
    drop(progress);
    if !args.given("quiet") {
        let mut out = report::stdout();
        writeln!(out, "{copied} of {bytes} bytes copied")?;
        out.flush()?;
    }
    Ok(())
}

/// What has to be copied, in order.
fn tasks(pool: &Pool<'_>, id: u64, delta_id: Option<u64>) -> Result<Vec<Task>, Failure> {
    let root = |id: u64| {
        pool.device(id)
            .and_then(|device| device.root)
            .ok_or_else(|| {
                Failure::new(format!("there is no device {id} in the metadata snapshot"))
            })
    };
    let block_size = u64::from(pool.superblock().data_block_size) * 512;
    let mut tasks: Vec<Task> = Vec::new();
    let mut add = |work, first: u64, length: u64| {
        let begin = first.saturating_mul(block_size);
        let end = first.saturating_add(length).saturating_mul(block_size);
        match tasks.last_mut() {
            Some(last) if last.work == work && last.end == begin => last.end = end,
            _ => tasks.push(Task { work, begin, end }),
        }
    };
    match delta_id {
        None => thin::mappings(pool.store(), root(id)?, 0, None, &mut |run| {
            add(Work::Copy, run.thin, run.length);
            ControlFlow::Continue(())
        })?,
        Some(base) => {
            let (new, old) = (root(id)?, root(base)?);
            delta::compare(
                pool.store(),
                new,
                old,
                false,
                &Counter::default(),
                &mut |found| {
                    let work = if found.kind == Kind::RightOnly {
                        Work::Zero
                    } else {
                        Work::Copy
                    };
                    add(work, found.begin, found.length);
                    Ok(())
                },
            )?;
        }
    }
    Ok(tasks)
}

/// `tasks`, and zeroing of everything between them.
fn with_gaps(tasks: &[Task], end: u64) -> Vec<Task> {
    let mut all = Vec::new();
    let mut at = 0;
    let zero = |begin, end| Task {
        work: Work::Zero,
        begin,
        end,
    };
    for task in tasks {
        if at < task.begin {
            all.push(zero(at, task.begin));
        }
        all.push(*task);
        at = task.end;
    }
    if at < end {
        all.push(zero(at, end));
    }
    all
}

fn open_device(path: &Path, bytes: u64) -> Result<File, Failure> {
    DeviceNumber::of(path)?;
    let size = device::size(path)?;
    if size != bytes {
        return Err(Failure::new(format!(
            "{} has {size} bytes, but the source has {bytes}",
            path.display()
        )));
    }
    OpenOptions::new()
        .write(true)
        .custom_flags(device::O_EXCL)
        .open(path)
        .context(|| path.display())
}

fn open_file(path: &Path, bytes: u64, keeps: bool) -> Result<File, Failure> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(!keeps)
        .open(path)
        .context(|| path.display())?;
    file.set_len(bytes).context(|| path.display())?;
    Ok(file)
}

/// Does the tasks; how many bytes were copied.
fn copy(
    from: &File,
    to: &File,
    tasks: &[Task],
    at_once: usize,
    counter: &Counter,
) -> Result<u64, Failure> {
    let mut buffer = vec![0; at_once];
    let mut copied = 0;
    let mut is_zero = true;
    for task in tasks {
        let mut at = task.begin;
        while at < task.end {
            let length = (at_once as u64).min(task.end - at);
            let part = &mut buffer[..length as usize];
            match task.work {
                Work::Copy => {
                    from.read_exact_at(part, at)
                        .context(|| format!("reading at byte {at}"))?;
                    copied += length;
                    is_zero = false;
                }
                Work::Zero if !is_zero => {
                    buffer.fill(0);
                    is_zero = true;
                }
                Work::Zero => {}
            }
            to.write_all_at(&buffer[..length as usize], at)
                .context(|| format!("writing at byte {at}"))?;
            counter.advance(length);
            at += length;
        }
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_no_task_covers() {
        let copy = |begin, end| Task {
            work: Work::Copy,
            begin,
            end,
        };
        let all = with_gaps(&[copy(0, 2), copy(5, 7)], 9);
        let works: Vec<_> = all
            .iter()
            .map(|task| (task.work, task.begin, task.end))
            .collect();
        let expected = [
            (Work::Copy, 0, 2),
            (Work::Zero, 2, 5),
            (Work::Copy, 5, 7),
            (Work::Zero, 7, 9),
        ];
        assert_eq!(works, expected);
        assert_eq!(with_gaps(&[], 3).len(), 1);
    }
}
