// SPDX-License-Identifier: GPL-2.0

//! thin_ls: a pool's devices, and the space they use.

mod field;
mod usage;

use crate::cli::status;
use crate::cli::Arguments;
use crate::cli::Command;
use crate::cli::Failure;
use crate::cli::Operand;
use crate::cli::Opt;
use crate::metadata;
use crate::report;
use crate::report::Columns;
use crate::report::Json;
use crate::report::Progress;
use crate::report::Sink;
use field::Field;
use field::Row;
use std::io::Write;
use thin_format::thin::Pool;

pub use usage::measure;
pub use usage::Usage;

/// The command line.
pub static COMMAND: Command = Command {
    operands: &[Operand {
        name: "INPUT",
        required: true,
        help: "The pool's metadata: a device or a file",
    }],
    options: &[
        metadata::SNAPSHOT,
        Opt::flag("no-headers", "Leave the header line out"),
        Opt::value("format", "FIELDS", "Comma-separated fields to show, in this order").short('o'),
        Opt::flag("json", "Print JSON, with all fields").conflicts(&["format", "no-headers"]),
        Opt::QUIET,
        Opt::VERBOSE,
        Opt::IO_ENGINE,
    ],
    details: "Fields: DEV, MAPPED, EXCLUSIVE, SHARED, HIGHEST_MAPPED (with units), TRANSACTION,\n\
              CREATE_TIME, SNAP_TIME; MAPPED_, EXCLUSIVE_, SHARED_ with BLOCKS, SECTORS, BYTES;\n\
              HIGHEST_ with BLOCK, SECTOR, BYTE. Default: DEV,MAPPED,CREATE_TIME,SNAP_TIME.\n\
              EXCLUSIVE is what comes free when the device is deleted.\n\n\
              A device that is damaged is shown with what can be read of it, marked by a '+' (at least)\n\
              or a '?' (unknown); the exit status is then 66.",
    ..Command::new("thin_ls", "List a pool's thin devices and the space they use")
};

/// Runs the tool.
pub fn run(args: &Arguments) -> Result<(), Failure> {
    let fields = match args.text("format")? {
        None => Field::DEFAULT.to_vec(),
        Some(text) => text
            .split(',')
            .map(|name| {
                Field::named(name).ok_or_else(|| {
                    args.invalid(
                        "format",
                        text.as_ref(),
                        &format!("there is no field '{name}'"),
                    )
                })
            })
            .collect::<Result<_, _>>()?,
    };
    let path = args.operand(0).unwrap_or("".as_ref());
    let view = metadata::view(args)?;
    let device = metadata::open(path, view)?;
    let pool = metadata::pool(&device, path, view)?;

    let as_json = args.given("json");
    let needs_walk = as_json || fields.iter().any(|field| field.needs_walk());
    let listing = listing(&pool, needs_walk, Sink::choose(args.given("quiet")));

    if as_json {
        write_json(&pool, &listing)?;
    } else {
        let mut table = Columns::default();
        if !args.given("no-headers") {
            table.row(
                fields
                    .iter()
                    .map(|field| field.name().to_string())
                    .collect(),
            );
        }
        for row in &listing.rows {
            table.row(fields.iter().map(|field| field.show(row)).collect());
        }
        let mut out = report::stdout();
        table.write(&mut out)?;
        out.flush()?;
    }
    if listing.complaints.is_empty() {
        return Ok(());
    }
    Err(Failure::with_status(
        listing.complaints.join("\n"),
        status::PARTIAL,
    ))
}

/// All devices, and what is wrong with them.
struct Listing {
    rows: Vec<Row>,
    complaints: Vec<String>,
}

fn listing(pool: &Pool<'_>, needs_walk: bool, sink: Sink) -> Listing {
    let mut complaints = Vec::new();
    let mut usages: Vec<Option<Usage>> = vec![None; pool.devices().len()];
    if needs_walk {
        let progress = Progress::start("Scanning data mappings", sink);
        progress.note("Scanning data mappings");
        let (places, roots): (Vec<usize>, Vec<u64>) = pool
            .devices()
            .iter()
            .enumerate()
            .filter_map(|(at, device)| Some((at, device.root?)))
            .unzip();
        let (measured, bad) = measure(
            pool.store(),
            &roots,
            pool.data_blocks(),
            &progress.counter(),
        );
        for (at, usage) in places.into_iter().zip(measured) {
            usages[at] = Some(usage);
        }
        complaints.extend(bad.into_iter().map(|(_, error)| error.to_string()));
    }
    let block_size = pool.superblock().data_block_size;
    let mut rows = Vec::new();
    for (device, usage) in pool.devices().iter().zip(usages) {
        let id = device.id;
        if device.details.is_none() {
            complaints.push(format!("device {id} has mappings but no details"));
        }
        if device.root.is_none() {
            complaints.push(format!("device {id} has details but no mappings"));
        }
        if let Some(usage) = &usage {
            if usage.lost_nodes > 0 {
                complaints.push(format!(
                    "device {id}: {} nodes cannot be read; what they map is not counted",
                    usage.lost_nodes
                ));
            }
            if usage.out_of_range > 0 {
                complaints.push(format!(
                    "device {id}: {} mappings point beyond the data device",
                    usage.out_of_range
                ));
            }
        }
        rows.push(Row {
            id,
            block_size,
            usage,
            details: device.details,
        });
    }
    Listing { rows, complaints }
}

fn write_json(pool: &Pool<'_>, listing: &Listing) -> Result<(), Failure> {
    let superblock = pool.superblock();
    let mut json = Json::new(report::stdout());
    json.open_object("")?;
    json.text("tool", "thin_ls")?;
    json.number("schema", 1)?;
    json.number("transaction", superblock.transaction_id)?;
    json.number("time", superblock.time)?;
    json.number("data_block_size_sectors", superblock.data_block_size)?;
    json.number("data_blocks", pool.data_blocks())?;
    json.open_array("devices")?;
    for row in &listing.rows {
        json.open_object("")?;
        json.number("dev_id", row.id)?;
        match &row.usage {
            None => json.null("mapped_blocks")?,
            Some(usage) => {
                json.number("mapped_blocks", usage.mapped)?;
                json.number("exclusive_blocks", usage.exclusive)?;
                json.number(
                    "shared_blocks",
                    usage.mapped.saturating_sub(usage.exclusive),
                )?;
                match usage.highest {
                    Some(block) => json.number("highest_block", block)?,
                    None => json.null("highest_block")?,
                }
                json.number("lost_nodes", usage.lost_nodes)?;
                json.number("out_of_range_mappings", usage.out_of_range)?;
            }
        }
        match &row.details {
            None => json.null("transaction")?,
            Some(details) => {
                json.number("transaction", details.transaction_id)?;
                json.number("creation_time", details.creation_time)?;
                json.number("snapshotted_time", details.snapshotted_time)?;
            }
        }
        json.close()?;
    }
    json.close()?;
    json.open_array("errors")?;
    for complaint in &listing.complaints {
        json.text("", complaint)?;
    }
    json.close()?;
    json.finish()?;
    Ok(())
}
