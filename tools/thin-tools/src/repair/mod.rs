// SPDX-License-Identifier: GPL-2.0

//! `thin_repair`: what is left of damaged metadata, written anew; and the same for `thin_dump --repair`.
//!
//! Every block is looked at. A damaged node costs the keys below it and nothing else; what cannot be saved is named. Which roots
//! are taken is never guessed silently: if those of the superblock lead to damage, or to nothing, the user has to say so.

mod orphans;
mod report;
mod roots;
mod salvage;
mod scan;
mod subtrees;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use thin_format::build;
use thin_format::build::Built;
use thin_format::io::Access;
use thin_format::io::Device as MetadataDevice;
use thin_format::io::Store;
use thin_format::records;
use thin_format::superblock;

use crate::cli::status;
use crate::cli::Arguments;
use crate::cli::Command;
use crate::cli::Failure;
use crate::cli::Operand;
use crate::cli::Opt;
use crate::device;
use crate::dump;
use crate::dump::Writer;
use crate::overrides::Overrides;
use crate::report::Progress;
use crate::report::Sink;
use crate::restore;
use crate::restore::Failed;
use crate::restore::Restorer;
use crate::trees::emit;
use crate::trees::emit::Stop;
use crate::trees::sharing::Sharing;
use crate::trees::BlockNumber;
use crate::xml;
use crate::xml::Event;

use report::Outcome;
use roots::Candidate;
use roots::Found;
use roots::Roots;
use roots::Source;
use salvage::Salvage;
use scan::Scan;
use subtrees::Subtrees;

/// The command line.
pub static COMMAND: Command = Command {
    details: "Exit status: 0 if nothing is missing, 66 if something was recovered but not everything (only\n\
              with --allow-partial), 65 if only a part could be recovered and nothing was written.\n\
              INPUT is never changed. OUTPUT has no superblock until everything else is written.",
    operands: &[Operand { name: "IGNORED", required: false, help: "" }],
    options: &[
        Opt::value("input", "FILE", "The damaged metadata").short('i').required(),
        Opt::value("output", "FILE", "The device or file to write to; it must be there and large enough").short('o'),
        Opt::flag("allow-partial", "Write what can be recovered if that is not everything"),
        Opt::flag("list-roots", "Show all pairs of roots that may be the pool's, the best first; write nothing"),
        Opt::value("root", "BLOCK", "Take this root of the tree of devices").conflicts(&["transaction"]),
        Opt::value("details-root", "BLOCK", "Take this root of the tree of device details, with --root"),
        Opt::value("transaction", "NUM", "Take the best pair of roots of this transaction"),
        Opt::flag("dry-run", "Say what would be recovered and how much room it takes; write nothing"),
        Opt::flag("json", "Report in JSON on standard output"),
        Overrides::TRANSACTION,
        Overrides::EXACT_TRANSACTION,
        Overrides::DATA_BLOCK_SIZE,
        Overrides::DATA_BLOCKS,
        Opt::QUIET,
        Opt::VERBOSE,
        Opt::IO_ENGINE,
    ],
    ..Command::new("thin_repair", "Write what is left of damaged thin metadata to another device")
};

/// Which roots to take.
enum Choice {
    /// Those of the superblock, or the best if there is none.
    Automatic,
    /// These.
    Roots(Roots),
    /// The best of a transaction.
    Transaction(u64),
}

impl Choice {
    fn from_arguments(arguments: &Arguments) -> Result<Choice, Failure> {
        let details = arguments.number("details-root")?;
        match (arguments.number("root")?, arguments.number("transaction")?) {
            (Some(mapping), _) => Ok(Choice::Roots(Roots {
                mapping,
                details,
                source: Source::User,
                transaction: None,
            })),
            (None, _) if details.is_some() => Err(Failure::usage(
                "--details-root makes sense with --root only",
            )),
            (None, Some(transaction)) => Ok(Choice::Transaction(transaction)),
            (None, None) => Ok(Choice::Automatic),
        }
    }
}

/// Runs the tool.
///
/// # Errors
///
/// If nothing, or only a part and that was not asked for, can be recovered; if reading or writing fails; and, with the
/// exit status that says so, if something is missing.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let input = arguments.path("input").unwrap_or(Path::new(""));
    let overrides = Overrides::from_arguments(arguments)?;
    let choice = Choice::from_arguments(arguments)?;
    let is_quiet = arguments.given("quiet");
    let only_looks = arguments.given("list-roots") || arguments.given("dry-run");
    let output = arguments.path("output");
    device::check_input(input)?;
    match output {
        Some(output) => {
            device::check_output(output)?;
            refuse_same(input, output)?;
        }
        None if only_looks => {}
        None => {
            return Err(Failure::usage(
                "the following required arguments were not provided:\n  --output <FILE>",
            ));
        }
    }
    let store = open(input, Access::Read)?;
    let progress = Progress::start("Repairing", Sink::choose(is_quiet));
    progress.stage("looking at every block", store.blocks());
    let counter = progress.counter();
    let scan = Scan::new(&store, |blocks| counter.advance(blocks));
    let mut found = found(&store, &scan, &overrides);
    if arguments.given("list-roots") {
        drop(progress);
        return report::list(&found.candidates(), arguments.given("json"));
    }
    let mut candidate = choose(&found, &choice, input)?;
    let found_again = found.adopt(&mut candidate);
    let superblock = new_superblock(&scan, &candidate, &overrides)?;
    let salvage = found.salvage(&candidate);
    let mut outcome = Outcome {
        candidate: &candidate,
        salvage: &salvage,
        superblock,
        has_old: has_old(&scan),
        built: None,
        found_again,
    };
    outcome.superblock.time = outcome.superblock.time.max(salvage.time);
    let may_write = outcome.is_complete() || arguments.given("allow-partial");
    if arguments.given("dry-run") {
        outcome.built = Some(rehearse(&store, &outcome)?);
    } else if let Some(output) = output.filter(|_| may_write) {
        let target = open(output, Access::Write)?;
        check_room(&store, &outcome, &target)?;
        progress.stage(
            "writing metadata",
            salvage.forest.leaf_count(&roots_of(&salvage)),
        );
        outcome.built = Some(write(&store, &outcome, &target, |leaves| {
            counter.advance(leaves)
        })?);
    }
    drop(progress);
    if arguments.given("json") {
        outcome.write_json(arguments.given("dry-run"))?;
    }
    if !is_quiet {
        outcome.say(arguments.given("dry-run"));
    }
    match (outcome.is_complete(), may_write) {
        (true, _) => Ok(()),
        (false, true) => Err(Failure::Reported { status: status::PARTIAL }),
        (false, false) if arguments.given("dry-run") => Err(Failure::Reported { status: status::PARTIAL }),
        (false, false) => Err(Failure::with_status(
            "not everything can be recovered, and nothing was written; --allow-partial writes what is left, \
             --list-roots shows other states of the pool",
            status::BAD_METADATA,
        )),
    }
}

fn open(path: &Path, access: Access) -> Result<MetadataDevice, Failure> {
    MetadataDevice::open(path, access).map_err(|error| Failure::new(error.to_string()))
}

fn refuse_same(input: &Path, output: &Path) -> Result<(), Failure> {
    let identity = |path: &Path| {
        fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino(), metadata.rdev()))
    };
    let is_same = match (identity(input)?, identity(output)?) {
        ((_, _, a), (_, _, b)) if a != 0 || b != 0 => a == b,
        (a, b) => a == b,
    };
    match is_same {
        true => Err(Failure::new("input and output are the same")),
        false => Ok(()),
    }
}

fn has_old(scan: &Scan) -> bool {
    old_superblock(scan).is_some()
}

fn old_superblock(scan: &Scan) -> Option<&records::Superblock> {
    scan.superblocks
        .iter()
        .find(|(block, _)| *block == 0)
        .map(|(_, superblock)| superblock)
}

fn found<'a>(store: &'a dyn Store, scan: &'a Scan, overrides: &Overrides) -> Found<'a> {
    let data_blocks = match old_superblock(scan) {
        Some(superblock) => superblock::data_space_map(superblock)
            .blocks
            .max(overrides.nr_data_blocks.unwrap_or(0)),
        None => build::MAX_DATA_BLOCKS,
    };
    Found {
        store,
        scan,
        subtrees: Subtrees::new(scan, data_blocks),
    }
}

fn choose(found: &Found<'_>, choice: &Choice, input: &Path) -> Result<Candidate, Failure> {
    let nothing = |hint: String| {
        let mistaken = device::mistaken(input)
            .map(|what| format!("\n{what}"))
            .unwrap_or_default();
        Failure::new(format!("no compatible roots found{hint}{mistaken}"))
    };
    match choice {
        Choice::Roots(roots) => {
            let mut roots = *roots;
            if roots.details.is_none() {
                let same = found
                    .candidates()
                    .into_iter()
                    .find(|other| other.roots.mapping == roots.mapping);
                roots.details = same.and_then(|other| other.roots.details);
            }
            let candidate = found.candidate(roots);
            match candidate.devices.is_empty() && !candidate.is_consistent() {
                true => Err(nothing(format!(
                    ": no tree of devices at block {}",
                    roots.mapping
                ))),
                false => Ok(candidate),
            }
        }
        Choice::Transaction(transaction) => {
            let mut candidates = found.candidates().into_iter();
            candidates
                .find(|candidate| candidate.transaction() == *transaction)
                .ok_or_else(|| {
                    nothing(format!(
                        " of transaction {transaction}; --list-roots shows what there is"
                    ))
                })
        }
        Choice::Automatic => {
            if let Some(superblock) = old_superblock(found.scan) {
                let candidate = found.candidate(Roots {
                    mapping: superblock.mapping_root.0,
                    details: Some(superblock.details_root.0),
                    source: Source::Superblock,
                    transaction: Some(superblock.transaction_id),
                });
                if candidate.lost_roots.is_empty()
                    || candidate
                        .devices
                        .values()
                        .any(|device| device.tree.is_some())
                {
                    return Ok(candidate);
                }
            }
            let candidate = found.candidates().into_iter().find(|candidate| {
                candidate
                    .devices
                    .values()
                    .any(|device| device.tree.is_some())
                    || candidate.is_consistent()
            });
            candidate.ok_or_else(|| nothing(String::new()))
        }
    }
}

/// The superblock to write: the old one's words as far as there is one.
fn new_superblock(
    scan: &Scan,
    candidate: &Candidate,
    overrides: &Overrides,
) -> Result<xml::Superblock, Failure> {
    let mapped = candidate
        .max_data()
        .map_or(0, |last| last.saturating_add(1));
    let is_own = candidate.roots.source == Source::Superblock;
    let old = old_superblock(scan);
    let copy = scan.superblocks.first().map(|(_, superblock)| superblock);
    let mut superblock = xml::Superblock {
        version: records::Superblock::VERSION,
        ..xml::Superblock::default()
    };
    if let Some(old) = old.or(copy) {
        superblock.data_block_size = old.data_block_size;
        superblock.time = if is_own { old.time } else { 0 };
        superblock.flags = if is_own {
            old.flags & records::Superblock::NEEDS_CHECK
        } else {
            0
        };
        superblock.transaction = if is_own { old.transaction_id } else { 0 };
    }
    if let Some(old) = old {
        superblock.nr_data_blocks = superblock::data_space_map(old).blocks;
    }
    if !is_own {
        let known = candidate.roots.transaction;
        let after = candidate.transaction().saturating_add(1);
        superblock.transaction = known.unwrap_or(after);
    }
    superblock.nr_data_blocks = superblock.nr_data_blocks.max(mapped);
    superblock.time = superblock.time.max(candidate.time());
    let superblock = overrides.raise(superblock);
    if superblock.data_block_size == 0 {
        return Err(Failure::new(
            "the superblock is lost, and with it the data block size: say it with --data-block-size SECTORS",
        ));
    }
    restore::check_block_size(superblock.data_block_size)?;
    Ok(superblock)
}

fn roots_of(salvage: &Salvage) -> Vec<BlockNumber> {
    salvage.trees.iter().filter_map(|tree| tree.root).collect()
}

/// Writes what `outcome` has to `target`.
fn write(
    store: &dyn Store,
    outcome: &Outcome<'_>,
    target: &dyn Store,
    progress: impl FnMut(u64),
) -> Result<Built, Failure> {
    build::build(target, outcome.superblock.nr_data_blocks, |builder| {
        fill(store, outcome, builder, progress)
    })
    .map_err(|Failed(failure)| failure)
}

/// How much room it takes.
fn rehearse(store: &dyn Store, outcome: &Outcome<'_>) -> Result<Built, Failure> {
    build::rehearse(outcome.superblock.nr_data_blocks, |builder| {
        fill(store, outcome, builder, |_| {})
    })
    .map_err(|Failed(failure)| failure)
}

fn fill(
    store: &dyn Store,
    outcome: &Outcome<'_>,
    builder: &mut build::Builder<'_>,
    progress: impl FnMut(u64),
) -> Result<build::Pool, Failed> {
    let salvage = outcome.salvage;
    let sharing = Sharing::new(&salvage.forest, &roots_of(salvage));
    let mut restorer = Restorer::inside(builder);
    let consume = |events: Vec<Event>| -> Result<(), Failed> {
        for event in events {
            restorer.take(event).map_err(Failed::from)?;
        }
        Ok(())
    };
    emit::emit(
        store,
        &salvage.forest,
        &salvage.trees,
        &sharing,
        progress,
        consume,
    )
    .map_err(|stop| match stop {
        Stop::Leaf { why, .. } => Failed(Failure::new(why.to_string())),
        Stop::Consumer(failed) => failed,
    })?;
    restorer.take(Event::SuperblockEnd).map_err(Failed::from)?;
    Ok(restore::pool(&outcome.superblock))
}

/// Finds out before anything is written whether there may be too little room.
fn check_room(store: &dyn Store, outcome: &Outcome<'_>, target: &dyn Store) -> Result<(), Failure> {
    let leaves = outcome
        .salvage
        .forest
        .leaf_count(&roots_of(outcome.salvage));
    let nodes = leaves.saturating_add(outcome.salvage.forest.len() as u64);
    let bitmaps =
        (outcome.superblock.nr_data_blocks / u64::from(records::BITMAP_ENTRIES)).saturating_mul(2);
    let surely = nodes
        .saturating_mul(2)
        .saturating_add(bitmaps)
        .saturating_add(1024);
    if surely <= target.blocks() {
        return Ok(());
    }
    let needed = rehearse(store, outcome)?.needed;
    match needed <= target.blocks() {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "out of metadata space: {needed} blocks are needed, the output has {}; nothing was written",
            target.blocks()
        ))),
    }
}

/// Writes what can be salvaged as text: `thin_dump --repair`.
///
/// # Errors
///
/// If nothing can be salvaged, if reading or writing fails; and, with the exit status that says so, if something is missing.
pub fn dump(
    store: &dyn Store,
    input: &Path,
    overrides: &Overrides,
    only: &dump::Selection,
    is_quiet: bool,
    writer: &mut Writer,
) -> Result<(), Failure> {
    let progress = Progress::start("Dumping", Sink::choose(is_quiet));
    progress.stage("looking at every block", store.blocks());
    let counter = progress.counter();
    let scan = Scan::new(store, |blocks| counter.advance(blocks));
    let mut found = found(store, &scan, overrides);
    let mut candidate = choose(&found, &Choice::Automatic, input)?;
    let found_again = found.adopt(&mut candidate);
    let mut superblock = new_superblock(&scan, &candidate, overrides)?;
    let mut salvage = found.salvage(&candidate);
    salvage.trees.retain(|tree| only.wants(tree.device));
    superblock.time = superblock.time.max(salvage.time);
    let outcome = Outcome {
        candidate: &candidate,
        salvage: &salvage,
        superblock,
        has_old: has_old(&scan),
        built: None,
        found_again,
    };
    writer.write(&Event::Superblock(Box::new(outcome.superblock.clone())))?;
    if only.skips_mappings {
        for tree in &salvage.trees {
            writer.write(&Event::Device(Box::new(emit::device(tree))))?;
            writer.write(&Event::DeviceEnd)?;
        }
    } else {
        let roots = roots_of(&salvage);
        progress.stage("reading mappings", salvage.forest.leaf_count(&roots));
        let sharing = Sharing::new(&salvage.forest, &roots);
        writer
            .write_trees(store, &salvage.forest, &salvage.trees, &sharing, |leaves| {
                counter.advance(leaves)
            })
            .map_err(|stop| match stop {
                Stop::Leaf { why, .. } => Failure::new(why.to_string()),
                Stop::Consumer(failure) => failure,
            })?;
    }
    writer.write(&Event::SuperblockEnd)?;
    writer.flush()?;
    drop(progress);
    if !is_quiet {
        outcome.say(false);
    }
    match outcome.is_complete() {
        true => Ok(()),
        false => Err(Failure::Reported {
            status: status::PARTIAL,
        }),
    }
}
