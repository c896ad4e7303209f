// SPDX-License-Identifier: GPL-2.0

//! The result of a check for programs.
//!
//! One object; members are only ever added.
//!
//! ```text
//! tool, version         "thin_check", X.Y.Z
//! device                as named on the command line
//! result                "consistent", "harmless", "damaged" or "unreadable" (with only `error` after it)
//! error                 why the superblock cannot be read
//! corrected             whether something was corrected in place
//! needs_check_cleared   whether the needs_check flag was cleared
//! advice                what to do next, for people; null if nothing needs to be done
//! superblock            flags_needs_check, transaction_id, time, version, data_block_size (sectors),
//!                       metadata_snapshot (block, 0: none)
//! figures               devices, mapped_blocks, data_blocks, data_blocks_used, metadata_blocks,
//!                       metadata_blocks_used; as far as the check went, 0 otherwise
//! findings              of what is wrong now: code, severity ("note", "harmless", "damage"), remedy ("none",
//!                       "in-place", "salvage"), count, device (number or null), text
//! findings_left_out     how many more there are
//! corrected_findings    what was corrected, like `findings`
//! ```

use crate::cli::Failure;
use crate::report;
use crate::report::Json;
use std::io;
use std::io::Write;
use std::path::Path;
use thin_format::check::Findings;
use thin_format::check::Outcome;
use thin_format::check::Remedy;
use thin_format::check::Severity;
use thin_format::records::Superblock;

/// All there is to tell.
pub(super) struct Result<'a> {
    pub(super) path: &'a Path,
    pub(super) superblock: &'a Superblock,
    /// How it is now.
    pub(super) outcome: &'a Outcome,
    /// How it was before it was corrected.
    pub(super) before: Option<&'a Outcome>,
    pub(super) cleared: bool,
    pub(super) advice: Option<String>,
}

fn head<W: Write>(json: &mut Json<W>, path: &Path, result: &str) -> io::Result<()> {
    json.open_object("")?;
    json.text("tool", "thin_check")?;
    json.text("version", crate::VERSION)?;
    json.text("device", &path.to_string_lossy())?;
    json.text("result", result)
}

/// Prints that there is nothing to check.
pub(super) fn print_unreadable(path: &Path, error: &str) -> std::result::Result<(), Failure> {
    let mut json = Json::new(report::stdout());
    head(&mut json, path, "unreadable")?;
    json.text("error", error)?;
    json.finish()?;
    Ok(())
}

/// Prints the result.
pub(super) fn print(result: &Result<'_>) -> std::result::Result<(), Failure> {
    let mut json = Json::new(report::stdout());
    let verdict = match result.outcome.findings.worst() {
        Some(Severity::Damage) => "damaged",
        Some(Severity::Harmless) => "harmless",
        Some(Severity::Note) | None => "consistent",
    };
    head(&mut json, result.path, verdict)?;
    json.truth("corrected", result.before.is_some())?;
    json.truth("needs_check_cleared", result.cleared)?;
    match &result.advice {
        Some(advice) => json.text("advice", advice)?,
        None => json.null("advice")?,
    }
    let superblock = result.superblock;
    json.open_object("superblock")?;
    json.truth("flags_needs_check", superblock.needs_check())?;
    json.number("transaction_id", superblock.transaction_id)?;
    json.number("time", superblock.time)?;
    json.number("version", superblock.version)?;
    json.number("data_block_size", superblock.data_block_size)?;
    json.number("metadata_snapshot", superblock.metadata_snapshot.0)?;
    json.close()?;
    let figures = &result.outcome.figures;
    json.open_object("figures")?;
    json.number("devices", figures.devices)?;
    json.number("mapped_blocks", figures.mapped_blocks)?;
    json.number("data_blocks", figures.data_blocks)?;
    json.number("data_blocks_used", figures.data_blocks_used)?;
    json.number("metadata_blocks", figures.metadata_blocks)?;
    json.number("metadata_blocks_used", figures.metadata_blocks_used)?;
    json.close()?;
    list(&mut json, "findings", &result.outcome.findings)?;
    json.number("findings_left_out", result.outcome.findings.dropped())?;
    if let Some(before) = result.before {
        list(&mut json, "corrected_findings", &before.findings)?;
    }
    json.finish()?;
    Ok(())
}

fn list<W: Write>(json: &mut Json<W>, name: &str, findings: &Findings) -> io::Result<()> {
    json.open_array(name)?;
    for finding in findings.list() {
        json.open_object("")?;
        json.text("code", finding.code.name())?;
        json.text("severity", &finding.code.severity().to_string())?;
        let remedy = match finding.code.remedy() {
            Remedy::None => "none",
            Remedy::InPlace => "in-place",
            Remedy::Salvage => "salvage",
        };
        json.text("remedy", remedy)?;
        json.number("count", finding.count)?;
        match finding.device {
            Some(device) => json.number("device", device)?,
            None => json.null("device")?,
        }
        json.text("text", &finding.text)?;
        json.close()?;
    }
    json.close()
}
