// SPDX-License-Identifier: GPL-2.0

//! thin_check: is the metadata consistent, and if not, how bad is it and what can be done.
//!
//! lvm2 runs it with `--quiet` at every activation and deactivation and looks at nothing but the
//! exit status, so the reason for any status but 0 also goes to the system log.

mod json;

use crate::cli::status;
use crate::cli::Arguments;
use crate::cli::Command;
use crate::cli::Failure;
use crate::cli::Operand;
use crate::cli::Opt;
use crate::device;
use crate::report;
use crate::report::Counter;
use crate::report::Progress;
use crate::report::Sink;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use thin_format::check::check;
use thin_format::check::Findings;
use thin_format::check::Options;
use thin_format::check::Scope;
use thin_format::check::Severity;
use thin_format::check::Truth;
use thin_format::check::Watch;
use thin_format::edit;
use thin_format::io::Access;
use thin_format::io::Device;
use thin_format::records::Superblock;
use thin_format::superblock;
use thin_format::superblock::Demand;
use thin_format::Fault;

/// The exit status if space is lost but data is not at risk.
const HARMLESS: u8 = 3;

/// The findings of one kind of severity that are printed one by one.
const PRINTED: usize = 100;

/// The command line.
pub static COMMAND: Command = Command {
    operands: &[Operand {
        name: "INPUT",
        required: true,
        help: "The metadata device or file",
    }],
    options: &[
        Opt::QUIET,
        Opt::flag(
            "metadata-snap",
            "Check the metadata snapshot of a pool that is in use",
        )
        .short('m'),
        Opt::flag("super-block-only", "Check the superblock and nothing else"),
        Opt::flag(
            "skip-mappings",
            "Check the superblock and the list of devices, not their mappings",
        ),
        Opt::flag(
            "ignore-non-fatal-errors",
            "Exit with 0 if all that was found is harmless",
        ),
        Opt::flag(
            "clear-needs-check-flag",
            "If all is well, clear the flag that keeps the pool read-only; also correct what is \
             harmless",
        )
        .conflicts(&[
            "metadata-snap",
            "override-mapping-root",
            "override-details-root",
        ]),
        Opt::flag(
            "auto-repair",
            "If all volumes are sound, correct everything else in place",
        )
        .conflicts(&[
            "metadata-snap",
            "ignore-non-fatal-errors",
            "override-mapping-root",
            "override-details-root",
            "super-block-only",
            "skip-mappings",
        ]),
        Opt::value(
            "override-mapping-root",
            "BLOCK",
            "Take this block for the root of the mapping trees",
        ),
        Opt::value(
            "override-details-root",
            "BLOCK",
            "Take this block for the root of the tree of device details",
        ),
        Opt::flag("json", "Print the result as JSON on standard output"),
        Opt::VERBOSE,
        Opt::IO_ENGINE,
    ],
    details: "Exit status:\n  \
        0   the metadata is consistent, or was made so\n  \
        3   harmless inconsistencies: space may be lost, data is not at risk\n  \
        65  damage: do not let the pool be written to\n  \
        64  the check could not be made (wrong command line, no such device, device in use)\n\n\
        Nothing is written without --auto-repair or --clear-needs-check-flag. Corrections are made\n\
        in free blocks and take effect with the superblock, so that an interrupted correction\n\
        leaves the metadata as it was. Volumes that cannot be read are for thin_repair.",
    // lvm2 takes a 2 for "not installed".
    usage_status: status::FAILURE,
    logs: true,
    ..Command::new("thin_check", "Check thin-provisioning metadata")
};

/// Passes the progress of a check on to the terminal.
struct Watcher<'a> {
    progress: &'a Progress,
    counter: Arc<Counter>,
}

impl Watch for Watcher<'_> {
    fn stage(&self, name: &str) {
        self.progress.note(name);
    }

    fn total(&self, blocks: u64) {
        self.counter.set_total(blocks);
    }

    fn advance(&self, blocks: u64) {
        self.counter.advance(blocks);
    }
}

/// What the command line asks for.
struct Wishes<'a> {
    path: &'a Path,
    quiet: bool,
    json: bool,
    scope: Scope,
    snapshot: bool,
    ignore_harmless: bool,
    clear: bool,
    repair: bool,
    options: Options,
}

/// Checks.
pub fn run(args: &Arguments) -> Result<(), Failure> {
    let wishes = wishes(args)?;
    let path = wishes.path;
    device::check_input(path)?;
    let writes = wishes.repair || wishes.clear;
    let access = match (wishes.snapshot, writes) {
        (true, _) => Access::ReadInUse,
        (false, true) => Access::Write,
        (false, false) => Access::Read,
    };
    let store = Device::open(path, access).map_err(failed)?;
    let main = superblock::read(&store, 0, Demand::Everything)
        .map_err(|error| superblock_failure(&wishes, &error))?;
    let held = (main.metadata_snapshot.0 != 0)
        .then(|| superblock::read(&store, main.metadata_snapshot.0, Demand::Everything));
    if writes && main.read_only_compatible_features != 0 {
        return Err(Failure::new(format!(
            "{}: was written by a newer version; this one must not write to it",
            path.display()
        )));
    }
    if wishes.snapshot {
        check_held(held.as_ref())?;
    }
    if wishes.tells() {
        print_for_lvm(&main)?;
    }
    let mut outcome = {
        let progress = Progress::start(
            "Checking thin metadata",
            Sink::choose(wishes.quiet || wishes.scope == Scope::Superblock),
        );
        progress.note("Checking thin metadata");
        let watcher = Watcher {
            counter: progress.counter(),
            progress: &progress,
        };
        check(&store, &main, held.clone(), &wishes.options, &watcher)
    };
    if wishes.tells() {
        print_findings(&outcome.findings);
    }
    let mut before = None;
    if wishes.wants_correction(&outcome.findings) {
        if let Some(truth) = outcome.truth.take() {
            correct(&wishes, &store, &main, truth)?;
            // The proof that it is right now.
            let main = superblock::read(&store, 0, Demand::Everything).map_err(failed)?;
            let now = check(&store, &main, held, &wishes.options, &());
            before = Some(std::mem::replace(&mut outcome, now));
        }
    }
    let good = outcome.findings.is_clean()
        || (wishes.ignore_harmless && outcome.findings.worst() == Some(Severity::Harmless));
    let mut cleared = false;
    if good && writes && main.needs_check() {
        superblock::update(&store, |superblock| {
            superblock.flags &= !Superblock::NEEDS_CHECK;
        })
        .map_err(failed)?;
        cleared = true;
        if wishes.tells() {
            report::say("Cleared needs_check flag");
        }
    }
    if wishes.json {
        json::print(&json::Result {
            path,
            superblock: &main,
            outcome: &outcome,
            before: before.as_ref(),
            cleared,
            advice: advice(&wishes, &outcome.findings),
        })?;
    }
    if good {
        return Ok(());
    }
    let status = status_of(&outcome.findings);
    let message = conclusion(&wishes, &outcome.findings);
    Err(Failure::with_status(message, status))
}

fn wishes(args: &Arguments) -> Result<Wishes<'_>, Failure> {
    let scope = if args.given("super-block-only") {
        Scope::Superblock
    } else if args.given("skip-mappings") {
        Scope::Devices
    } else {
        Scope::Everything
    };
    let snapshot = args.given("metadata-snap");
    Ok(Wishes {
        path: args.operand(0).unwrap_or(Path::new("")),
        quiet: args.given("quiet"),
        json: args.given("json"),
        scope,
        snapshot,
        ignore_harmless: args.given("ignore-non-fatal-errors"),
        clear: args.given("clear-needs-check-flag"),
        repair: args.given("auto-repair"),
        options: Options {
            scope,
            snapshot,
            mapping_root: args.number("override-mapping-root")?,
            details_root: args.number("override-details-root")?,
            ..Options::default()
        },
    })
}

impl Wishes<'_> {
    /// Whether words for people are wanted.
    fn tells(&self) -> bool {
        !self.quiet && !self.json
    }

    /// Whether what was found is to be corrected in place.
    fn wants_correction(&self, findings: &Findings) -> bool {
        let harmless = findings.worst() == Some(Severity::Harmless);
        findings.can_correct() && (self.repair || (self.clear && harmless && !self.ignore_harmless))
    }
}

fn failed(error: thin_format::Error) -> Failure {
    Failure::new(error.to_string())
}

/// Refuses to check a metadata snapshot that is not there.
fn check_held(held: Option<&thin_format::Result<Superblock>>) -> Result<(), Failure> {
    match held {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(Failure::with_status(
            format!("metadata snap: {error}"),
            status::BAD_METADATA,
        )),
        None => Err(Failure::new(
            "no current metadata snap. To make one, run: \
             dmsetup message POOL 0 reserve_metadata_snap",
        )),
    }
}

/// Makes the space maps right.
fn correct(
    wishes: &Wishes<'_>,
    store: &Device,
    main: &Superblock,
    truth: Truth,
) -> Result<(), Failure> {
    let change = edit::set_right(store, main, truth).map_err(|error| {
        let text = format!("{}: could not be corrected: {error}", wishes.path.display());
        Failure::with_status(text, status::BAD_METADATA)
    })?;
    if wishes.tells() {
        report::say(&format!(
            "Corrected: {} blocks were written; {} data blocks and {} metadata blocks are free now",
            change.written, change.free_data, change.free_metadata
        ));
    }
    Ok(())
}

/// What lvm2 and scripts read.
fn print_for_lvm(main: &Superblock) -> Result<(), Failure> {
    let metadata = superblock::metadata_space_map(main);
    let free = metadata.blocks.saturating_sub(metadata.allocated);
    let mut out = report::stdout();
    writeln!(out, "TRANSACTION_ID={}", main.transaction_id)?;
    writeln!(out, "METADATA_FREE_BLOCKS={free}")?;
    out.flush()?;
    Ok(())
}

fn superblock_failure(wishes: &Wishes<'_>, error: &thin_format::Error) -> Failure {
    let mut text = error.to_string();
    if let Some(hint) = device::mistaken(wishes.path) {
        text = format!("{text}. {hint}");
    } else if error.fault() == Some(&Fault::Checksum) {
        text.push_str(
            ". If this is the right device, thin_repair can look for the volumes without the superblock",
        );
    }
    let status = match error.fault() {
        Some(Fault::Features(_)) => status::FAILURE,
        _ => status::BAD_METADATA,
    };
    if wishes.json {
        let _ = json::print_unreadable(wishes.path, &text);
    }
    Failure::with_status(text, status)
}

fn print_findings(findings: &Findings) {
    for severity in [Severity::Damage, Severity::Harmless, Severity::Note] {
        let of_it = || {
            let list = findings.list().iter();
            list.filter(move |finding| finding.code.severity() == severity)
        };
        for finding in of_it().take(PRINTED) {
            report::say(&format!("{severity}: {}", finding.text));
        }
        let more = of_it().count().saturating_sub(PRINTED);
        if more > 0 {
            report::say(&format!("{severity}: {more} more of this severity"));
        }
    }
}

fn status_of(findings: &Findings) -> u8 {
    match findings.worst() {
        Some(Severity::Damage) => status::BAD_METADATA,
        Some(Severity::Harmless) => HARMLESS,
        Some(Severity::Note) | None => 0,
    }
}

/// What to do next.
fn advice(wishes: &Wishes<'_>, findings: &Findings) -> Option<String> {
    let path = wishes.path.display();
    if findings.is_clean() {
        return None;
    }
    Some(if findings.need_salvage() {
        format!(
            "Do not write to the pool. Keep a copy (thin_metadata_pack -i {path} -o FILE), then salvage \
             into new metadata: lvconvert --repair VG/POOL, or thin_repair -i {path} -o OTHER"
        )
    } else if findings.worst() == Some(Severity::Damage) {
        format!(
            "All volumes are sound, only the space maps are not. To correct them in place: \
             thin_check --auto-repair {path}"
        )
    } else {
        format!(
            "No data is at risk. To get lost space back: thin_check --auto-repair {path}; to go on as it \
             is: thin_check --ignore-non-fatal-errors {path}"
        )
    })
}

/// One line for the terminal and the system log.
fn conclusion(wishes: &Wishes<'_>, findings: &Findings) -> String {
    let worst = findings.worst().unwrap_or(Severity::Note);
    let mut of_it = findings
        .list()
        .iter()
        .filter(|finding| finding.code.severity() == worst);
    let first = of_it.next().map_or("", |finding| finding.text.as_str());
    let more = (of_it.count() as u64).saturating_add(findings.dropped());
    let verdict = match worst {
        Severity::Damage => "metadata is damaged",
        Severity::Harmless | Severity::Note => "metadata has harmless inconsistencies",
    };
    let more = match more {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let advice = advice(wishes, findings).unwrap_or_default();
    let path = wishes.path.display();
    format!("{path}: {verdict}: {first}{more}. {advice}")
}
