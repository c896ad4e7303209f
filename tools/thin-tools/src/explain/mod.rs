// SPDX-License-Identifier: GPL-2.0

//! thin_explain: a pool on one page, for people, and its data device as a picture.

mod family;
mod page;
mod picture;
mod survey;

use crate::cli::status;
use crate::cli::Arguments;
use crate::cli::Command;
use crate::cli::Context;
use crate::cli::Failure;
use crate::cli::Operand;
use crate::cli::Opt;
use crate::metadata;
use crate::report;
use crate::report::Progress;
use crate::report::Sink;
use family::Family;
use page::Page;
use picture::Picture;
use std::fs::File;
use std::io::BufWriter;
use std::io::Write;
use std::ops::ControlFlow;
use thin_format::space_map;
use thin_format::superblock;
use thin_format::thin::ThinDevice;

pub use survey::survey;
pub use survey::Survey;

/// The command line.
pub static COMMAND: Command = Command {
    operands: &[Operand {
        name: "METADATA",
        required: true,
        help: "The pool's metadata: a device or a file",
    }],
    options: &[
        metadata::SNAPSHOT,
        Opt::value("svg", "FILE", "Draw the data device: who has which part of it, and what is free"),
        Opt::flag("all", "List all volumes, not the largest ones only"),
        Opt::QUIET,
    ],
    details: "What is a snapshot of what is not recorded in the metadata: it is inferred from the times at\n\
              which volumes were made and from what they share.",
    ..Command::new("thin_explain", "Say on one page what a pool is and how it is doing")
};

/// What the space map says about free space.
#[derive(Clone, Copy, Default)]
pub struct FreeSpace {
    /// Free blocks.
    pub blocks: u64,
    /// In how many runs.
    pub runs: u64,
    /// The length of the longest.
    pub longest: u64,
}

/// Runs the tool.
pub fn run(args: &Arguments) -> Result<(), Failure> {
    let path = args.operand(0).unwrap_or("".as_ref());
    let view = metadata::view(args)?;
    let device = metadata::open(path, view)?;
    let pool = metadata::pool(&device, path, view)?;
    let progress = Progress::start("Reading", Sink::choose(args.given("quiet")));

    let volumes: Vec<&ThinDevice> = pool
        .devices()
        .iter()
        .filter(|device| device.complete().is_some())
        .collect();
    let (roots, details): (Vec<_>, Vec<_>) = volumes
        .iter()
        .filter_map(|device| device.complete())
        .unzip();
    let mut picture = args.given("svg").then(|| Picture::new(pool.data_blocks()));
    let survey = survey(
        &device,
        &roots,
        pool.data_blocks(),
        &progress.counter(),
        &mut |begin, end, owners, groups| {
            if let Some(picture) = &mut picture {
                picture.look(begin, end, owners, groups);
            }
        },
    );

    let mut complaints: Vec<String> = survey
        .bad
        .iter()
        .map(|(_, error)| error.to_string())
        .collect();
    complaints.extend(
        pool.devices()
            .iter()
            .filter(|device| device.complete().is_none())
            .map(|device| {
                format!(
                    "device {} is in one of the two trees of devices only",
                    device.id
                )
            }),
    );
    // A live pool's space maps do not hold still.
    let mut free = FreeSpace::default();
    let map = superblock::data_space_map(pool.main_superblock());
    let which = space_map::Which::Data;
    let walked = space_map::free_runs(&device, which, &map, &mut |first, length| {
        free.blocks = free.blocks.saturating_add(length);
        free.runs += 1;
        free.longest = free.longest.max(length);
        if let Some(picture) = &mut picture {
            picture.free(first, length);
        }
        ControlFlow::Continue(())
    });
    if let Err(error) = walked {
        complaints.push(error.to_string());
    }
    drop(progress);

    let ids: Vec<u64> = volumes.iter().map(|device| device.id).collect();
    if let (Some(picture), Some(file)) = (picture, args.path("svg")) {
        let mut out = BufWriter::new(File::create(file).context(|| file.display())?);
        let sizes: Vec<u64> = survey.spaces.iter().map(|space| space.mapped).collect();
        let title = format!("Data device of the pool of {}", path.display());
        picture
            .write(&mut out, &title, &ids, &sizes)
            .context(|| file.display())?;
        out.flush().context(|| file.display())?;
    }
    let page = Page {
        path,
        pool: &pool,
        ids: &ids,
        details: &details,
        survey: &survey,
        family: Family::infer(&details, &survey),
        free,
        complaints: &complaints,
        most_volumes: if args.given("all") { usize::MAX } else { 40 },
    };
    let mut out = report::stdout();
    page.write(&mut out)?;
    out.flush()?;
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(Failure::Reported {
            status: status::PARTIAL,
        })
    }
}
