// SPDX-License-Identifier: GPL-2.0

//! thin_delta: what differs between two thin devices.

mod compare;
mod output;

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
use output::Form;
use output::Output;
use thin_format::thin::Pool;

pub use compare::compare;
pub use compare::Difference;
pub use compare::Kind;

/// The command line.
pub static COMMAND: Command = Command {
    operands: &[Operand {
        name: "INPUT",
        required: true,
        help: "The pool's metadata: a device or a file",
    }],
    options: &[
        Opt::value("thin1", "ID", "The first device, by its number")
            .alias(&["snap1"])
            .conflicts(&["root1"]),
        Opt::value("thin2", "ID", "The second device, by its number")
            .alias(&["snap2"])
            .conflicts(&["root2"]),
        Opt::value("root1", "BLOCK", "The first device, by the root of its mapping tree"),
        Opt::value("root2", "BLOCK", "The second device, by the root of its mapping tree"),
        metadata::SNAPSHOT,
        Opt::flag("no-same", "Leave out what is the same in both: parts of the trees that\nthe devices share are then not even read"),
        Opt::flag("verbose", "Say also where the data is").conflicts(&["json"]),
        Opt::flag("json", "Print JSON"),
        Opt::QUIET,
        Opt::IO_ENGINE,
    ],
    details: "Differences are in where data is, not in what it is. Lengths and places are in data blocks.",
    ..Command::new("thin_delta", "Print what differs between two thin devices")
};

/// A device, as the command line names it.
#[derive(Clone, Copy)]
enum Chosen {
    Device(u64),
    Root(u64),
}

/// Runs the tool.
pub fn run(args: &Arguments) -> Result<(), Failure> {
    let left = chosen(args, "thin1", "root1")?;
    let right = chosen(args, "thin2", "root2")?;
    let path = args.operand(0).unwrap_or("".as_ref());
    let view = metadata::view(args)?;
    let device = metadata::open(path, view)?;
    let pool = metadata::pool(&device, path, view)?;
    let left_root = root(&pool, left, 1)?;
    let right_root = root(&pool, right, 2)?;

    let form = if args.given("json") {
        Form::Json
    } else if args.given("verbose") {
        Form::Verbose
    } else {
        Form::Simple
    };
    let with_same = !args.given("no-same");
    let progress = Progress::start("Comparing", Sink::choose(args.given("quiet")));
    let mut output = Output::start(report::stdout(), form, &pool, left, right)?;
    compare(
        &device,
        left_root,
        right_root,
        with_same,
        &progress.counter(),
        &mut |difference| output.add(difference),
    )
    .context(|| "cannot compare")?;
    output.finish()
}

fn chosen(args: &Arguments, thin: &str, root: &str) -> Result<Chosen, Failure> {
    let by_id = args.number(thin)?.map(Chosen::Device);
    let by_root = args.number(root)?.map(Chosen::Root);
    by_id
        .or(by_root)
        .ok_or_else(|| Failure::new(format!("--{thin} or --{root} not specified")))
}

fn root(pool: &Pool<'_>, chosen: Chosen, which: u32) -> Result<u64, Failure> {
    match chosen {
        Chosen::Root(block) => Ok(block),
        Chosen::Device(id) => pool
            .device(id)
            .and_then(|device| device.root)
            .ok_or_else(|| {
                Failure::new(format!(
                    "Unable to find mapping tree for snap{which} ({id})"
                ))
            }),
    }
}
