// SPDX-License-Identifier: GPL-2.0

//! thin_trim: discards the data blocks that no thin device uses.

mod discard;

use crate::cli::status;
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
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use thin_format::check;
use thin_format::io::Access;
use thin_format::io::Device;
use thin_format::space_map;
use thin_format::superblock;
use thin_format::superblock::Demand;

/// The command line.
pub static COMMAND: Command = Command {
    options: &[
        Opt::value("metadata-dev", "DEV", "The pool's metadata device").required(),
        Opt::value("data-dev", "DEV", "The pool's data device").required(),
        Opt::flag(
            "dry-run",
            "Say what would be discarded, and discard nothing",
        ),
        Opt::QUIET,
        Opt::VERBOSE,
        Opt::IO_ENGINE,
    ],
    details:
        "The pool must not be active. Its metadata are checked first; when they are not in order,\n\
              nothing is discarded and the exit status is 65.",
    ..Command::new("thin_trim", "Discard the free space of a pool")
};

/// How much is discarded at a time, in bytes: so that progress shows, and a stop is not far.
const AT_ONCE: u64 = 1 << 30;

/// A range of the data device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    begin: u64,
    end: u64,
}

/// Runs the tool.
pub fn run(args: &Arguments) -> Result<(), Failure> {
    let metadata_path = args.path("metadata-dev").unwrap_or("".as_ref());
    let data_path = args.path("data-dev").unwrap_or("".as_ref());
    let is_dry = args.given("dry-run");
    let is_quiet = args.given("quiet");
    device::check_input(metadata_path)?;
    let store = Device::open(metadata_path, Access::Read)?;
    let main = superblock::read(&store, 0, Demand::Everything)?;

    let data = if is_dry {
        None
    } else {
        Some(open_data(data_path)?)
    };
    let map = superblock::data_space_map(&main);
    let block_size = u64::from(main.data_block_size) * 512;
    let needed = map
        .blocks
        .checked_mul(block_size)
        .filter(|_| block_size > 0);
    let needed = needed.ok_or_else(|| Failure::new("the superblock has an impossible size"))?;
    if device::size(data_path)? < needed {
        return Err(Failure::new(format!(
            "{} is smaller than the {needed} bytes that the metadata describe: is it the right device?",
            data_path.display()
        )));
    }

    let progress = Progress::start("Trimming", Sink::choose(is_quiet));
    progress.stage("checking metadata", 0);
    let held = (main.metadata_snapshot.0 != 0)
        .then(|| superblock::read(&store, main.metadata_snapshot.0, Demand::Everything));
    let outcome = check::check(&store, &main, held, &check::Options::default(), &());
    if !outcome.findings.is_clean() {
        let first = outcome
            .findings
            .list()
            .first()
            .map_or("", |finding| &finding.text);
        return Err(Failure::with_status(
            format!(
                "{}: the metadata are not in order: {}\n\
                 Nothing was discarded. See what thin_check says, and repair first.",
                metadata_path.display(),
                first
            ),
            status::BAD_METADATA,
        ));
    }

    let granularity = granularity(data_path);
    let mut ranges = Vec::new();
    space_map::free_runs(
        &store,
        space_map::Which::Data,
        &map,
        &mut |first, length| {
            let run = Range {
                begin: first.saturating_mul(block_size),
                end: first.saturating_add(length).saturating_mul(block_size),
            };
            ranges.extend(aligned(run, granularity));
            ControlFlow::Continue(())
        },
    )?;
    let total = ranges
        .iter()
        .fold(0u64, |sum, run| sum.saturating_add(run.end - run.begin));
    progress.stage("discarding", total);
    let counter = progress.counter();
    for range in &ranges {
        let mut begin = range.begin;
        while begin < range.end {
            let length = AT_ONCE.min(range.end - begin);
            if let Some(data) = &data {
                discard::discard(data, begin, length).context(|| {
                    format!(
                        "{}: cannot discard {length} bytes at {begin}",
                        data_path.display()
                    )
                })?;
            }
            counter.advance(length);
            begin += length;
        }
    }
    drop(progress);
    if !is_quiet {
        let mut out = report::stdout();
        let what = if is_dry {
            "would be discarded"
        } else {
            "discarded"
        };
        writeln!(
            out,
            "{total} bytes in {} ranges {what}, {} bytes are in use",
            ranges.len(),
            map.allocated.saturating_mul(block_size)
        )?;
        out.flush()?;
    }
    Ok(())
}

fn open_data(path: &Path) -> Result<File, Failure> {
    let kind = fs::metadata(path).context(|| path.display())?.file_type();
    if !kind.is_block_device() {
        return Err(Failure::new(format!(
            "Not a block device: {}",
            path.display()
        )));
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(device::O_EXCL)
        .open(path)
        .context(|| path.display())
}

/// What a device discards at least, in bytes; 1 if it does not say.
fn granularity(path: &Path) -> u64 {
    let Ok(found) = fs::metadata(path) else {
        return 1;
    };
    let (major, minor) = (major_of(found.rdev()), minor_of(found.rdev()));
    let of_device = format!("/sys/dev/block/{major}:{minor}");
    ["queue", "../queue"]
        .iter()
        .find_map(|queue| {
            let text =
                fs::read_to_string(format!("{of_device}/{queue}/discard_granularity")).ok()?;
            text.trim().parse().ok()
        })
        .filter(|&granularity| granularity > 0)
        .unwrap_or(1)
}

fn major_of(device: u64) -> u64 {
    (device >> 32 & 0xffff_f000) | (device >> 8 & 0xfff)
}

fn minor_of(device: u64) -> u64 {
    (device >> 12 & 0xffff_ff00) | (device & 0xff)
}

/// The part of a range that a device can discard.
fn aligned(range: Range, granularity: u64) -> Option<Range> {
    let begin = range.begin.checked_next_multiple_of(granularity)?;
    let end = range.end - range.end % granularity;
    (begin < end).then_some(Range { begin, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_grains_are_discarded() {
        let range = |begin, end| Range { begin, end };
        assert_eq!(aligned(range(0, 100), 1), Some(range(0, 100)));
        assert_eq!(aligned(range(1, 100), 10), Some(range(10, 100)));
        assert_eq!(aligned(range(10, 99), 10), Some(range(10, 90)));
        assert_eq!(aligned(range(11, 19), 10), None);
        assert_eq!(aligned(range(u64::MAX - 1, u64::MAX), 4096), None);
    }
}
