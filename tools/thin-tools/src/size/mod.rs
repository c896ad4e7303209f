// SPDX-License-Identifier: GPL-2.0

//! thin_metadata_size: how large a metadata device a pool needs.
//!
//! What it prints without further options is the customary estimate, which other programs compute
//! with: leaves that are half full, and a block per device. With `--complete` everything else that
//! takes space is counted too.

mod estimate;
mod units;

use crate::cli::Arguments;
use crate::cli::Command;
use crate::cli::Failure;
use crate::cli::Opt;
use crate::report;
use estimate::Estimate;
use std::io::Write;
use units::Unit;

/// The command line.
pub static COMMAND: Command = Command {
    options: &[
        Opt::value("block-size", "SIZE", "Size of the pool's data blocks").short('b').required(),
        Opt::value("pool-size", "SIZE", "Size of the pool's data device").short('s').required(),
        Opt::value("max-thins", "N", "How many thin volumes and snapshots there will be")
            .short('m')
            .required(),
        Opt::value("unit", "UNIT", "Unit of the result (default: sector)").short('u'),
        Opt::optional("numeric-only", "short|long", "Print the number only, or with the unit's letter or name")
            .short('n'),
        Opt::flag("complete", "Count also the inner nodes, the space maps, and the\nleaves that snapshots do not share"),
        Opt::value("snapshots", "N", "How many of the volumes are snapshots (with --complete)"),
        Opt::value("changed", "PERCENT", "How much of a snapshot's tree becomes its own\n(default: 10)"),
        Opt::flag("detail", "Print what the space is for, in blocks"),
    ],
    details: "A SIZE is a number with a unit, or a number of sectors of 512 bytes.\n\
              Units: b s k m g t p e (powers of 1024), K M G T P E (powers of 1000), and their names.",
    ..Command::new("thin_metadata_size", "Estimate how large a metadata device a pool needs")
};

/// Runs the tool.
pub fn run(args: &Arguments) -> Result<(), Failure> {
    let size = |option: &str| -> Result<u64, Failure> {
        let text = args.text(option)?.unwrap_or_default();
        let bytes = units::size(text).ok_or_else(|| {
            args.invalid(
                option,
                text.as_ref(),
                "not a number with a unit that fits 64 bits",
            )
        })?;
        Ok(bytes)
    };
    let block_size = size("block-size")?;
    let pool_size = size("pool-size")?;
    let thins_text = args.text("max-thins")?.unwrap_or_default();
    let thins = units::count(thins_text)
        .ok_or_else(|| args.invalid("max-thins", thins_text.as_ref(), "not a number"))?;
    let unit = match args.text("unit")? {
        None => Unit::SECTOR,
        Some(text) => {
            Unit::named(text).ok_or_else(|| args.invalid("unit", text.as_ref(), "no such unit"))?
        }
    };
    let snapshots: u64 = args.number("snapshots")?.unwrap_or(0);
    let changed: u64 = args.number("changed")?.unwrap_or(10);

    const LARGEST: u64 = 1 << 30;
    const STEP: u64 = 64 << 10;
    if block_size == 0 || block_size % STEP != 0 {
        return Err(Failure::new("block size must be a multiple of 64 KiB"));
    }
    if block_size > LARGEST {
        return Err(Failure::new("block size must not be larger than 1 GiB"));
    }
    if pool_size < block_size {
        return Err(Failure::new("pool size must be larger than block size"));
    }
    if snapshots > thins {
        return Err(Failure::new("there are more snapshots than volumes"));
    }
    if changed > 100 {
        return Err(Failure::new("more than 100 percent cannot be changed"));
    }

    let estimate = Estimate::new(pool_size / block_size, thins, snapshots, changed);
    let mut out = report::stdout();
    if args.given("detail") {
        for (what, blocks) in estimate.parts() {
            writeln!(out, "{blocks:>12}  {what}")?;
        }
        writeln!(out, "{:>12}  in all", estimate.complete())?;
        writeln!(out, "{:>12}  customary estimate", estimate.customary())?;
    }
    let blocks = if args.given("complete") {
        estimate.complete()
    } else {
        estimate.customary()
    };
    if estimate.complete() > estimate::MOST && args.given("complete") {
        report::say(
            "this needs more metadata than there can be: use larger blocks or several pools",
        );
    }
    let number = unit.show(blocks.min(estimate::MOST).saturating_mul(4096));
    if !args.given("numeric-only") {
        writeln!(out, "{number} {}s", unit.name)?;
    } else {
        match args.text("numeric-only")? {
            None => writeln!(out, "{number}")?,
            Some("short") => writeln!(out, "{number}{}", unit.letter)?,
            Some("long") => writeln!(out, "{number}{}s", unit.name)?,
            Some(other) => {
                return Err(args.invalid("numeric-only", other.as_ref(), "neither short nor long"))
            }
        }
    }
    Ok(out.flush()?)
}
