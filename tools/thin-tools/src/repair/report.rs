// SPDX-License-Identifier: GPL-2.0

//! What was recovered and what was not, for people and for programs.

use std::io;
use std::io::Write;

use thin_format::build::Built;

use super::roots::Candidate;
use super::roots::Source;
use super::salvage::DeviceReport;
use super::salvage::LostRange;
use super::salvage::Salvage;
use crate::cli::Failure;
use crate::report;
use crate::report::Columns;
use crate::report::Json;
use crate::xml;

/// Bytes in a sector.
const SECTOR: u64 = 512;

/// The result of a repair.
pub struct Outcome<'a> {
    /// The roots that were taken.
    pub candidate: &'a Candidate,
    /// What they lead to.
    pub salvage: &'a Salvage,
    /// What the new superblock says.
    pub superblock: xml::Superblock,
    /// Whether the old superblock could be read.
    pub has_old: bool,
    /// Devices that are whole because nodes were found again that nobody points to.
    pub found_again: Vec<u64>,
    /// How much room it took, or would take.
    pub built: Option<Built>,
}

impl Outcome<'_> {
    /// Whether nothing is missing, and the roots are beyond doubt.
    pub fn is_complete(&self) -> bool {
        let is_complete = self.candidate.is_complete();
        match self.candidate.roots.source {
            Source::Superblock | Source::User => is_complete,
            // The superblock is right about its transaction: anything else is an older state of the pool.
            Source::Copy(_) | Source::Search if self.has_old => false,
            Source::Copy(_) => false,
            Source::Search => is_complete && self.candidate.is_consistent(),
        }
    }

    fn bytes(&self, blocks: u64) -> u64 {
        blocks
            .saturating_mul(self.superblock.data_block_size.into())
            .saturating_mul(SECTOR)
    }

    /// Mappings that are missing, as far as that is known.
    fn missing(&self) -> u64 {
        self.salvage
            .devices
            .iter()
            .filter_map(DeviceReport::missing)
            .fold(0, u64::saturating_add)
    }

    /// Tells people.
    pub fn say(&self, is_rehearsal: bool) {
        let roots = &self.candidate.roots;
        if !self.has_old {
            report::say("The superblock cannot be used; a new one is made.");
        }
        match roots.source {
            Source::Superblock => {}
            Source::User => report::say(&format!("Taking the devices of the tree at block {}.", roots.mapping)),
            Source::Copy(block) => report::say(&format!(
                "Taking the state that the metadata snapshot in block {block} holds: what was written since is missing."
            )),
            Source::Search if self.has_old => report::say(&format!(
                "The tree of devices is lost. Taking an older one, at block {}: what was written since is missing.",
                roots.mapping
            )),
            Source::Search => report::say(&format!(
                "Taking the tree of devices at block {}: the latest that was found.",
                roots.mapping
            )),
        }
        for device in &self.found_again {
            report::say(&format!(
                "Device {device}: a node is damaged, but all that was below it was found again; nothing is missing."
            ));
        }
        for lost in &self.salvage.lost_devices {
            report::say(&format!(
                "The devices {} are lost: {}",
                range(lost),
                lost.why
            ));
        }
        for device in self
            .salvage
            .devices
            .iter()
            .filter(|device| !device.is_healthy())
        {
            self.say_device(device);
        }
        if !self.is_complete() {
            let missing = self.missing();
            if missing > 0 {
                report::say(&format!(
                    "In all, {} mappings ({}) are missing.",
                    missing,
                    human(self.bytes(missing))
                ));
            }
        }
        if let (Some(built), true) = (self.built, is_rehearsal) {
            report::say(&format!(
                "The output needs {} blocks of 4096 bytes ({}).",
                built.needed,
                human(built.needed.saturating_mul(4096))
            ));
        }
        if self.built.is_some() && (!self.is_complete() || roots.source != Source::Superblock) {
            report::say(&format!(
                "The pool is at transaction {}; if the volume manager expects another one, say so with --set-transaction.",
                self.superblock.transaction
            ));
        }
    }

    fn say_device(&self, device: &DeviceReport) {
        let name = device.device;
        if device.has_new_details {
            report::say(&format!(
                "Device {name}: its details are lost; new ones are made up."
            ));
        }
        match device.missing() {
            Some(missing) if device.is_partial() => report::say(&format!(
                "Device {name}: {missing} of {} mappings are missing ({}):",
                device.expected.unwrap_or(0),
                human(self.bytes(missing))
            )),
            None if device.is_partial() => {
                report::say(&format!(
                    "Device {name}: mappings are missing, nobody knows how many:"
                ));
            }
            _ => {
                if let Some(expected) = device
                    .expected
                    .filter(|expected| *expected != device.mappings)
                {
                    report::say(&format!(
                        "Device {name}: has {} mappings, not {expected} as its details say; corrected.",
                        device.mappings
                    ));
                }
            }
        }
        for lost in &device.lost {
            let end = match lost.end {
                Some(end) => format!("{}", self.bytes(end)),
                None => "end".into(),
            };
            report::say(&format!(
                "  thin blocks {} (bytes {}..{end}): {}",
                range(lost),
                self.bytes(lost.begin),
                lost.why
            ));
        }
    }

    /// Tells programs. A rehearsal is one that wrote nothing.
    ///
    /// # Errors
    ///
    /// If writing fails.
    pub fn write_json(&self, is_rehearsal: bool) -> Result<(), Failure> {
        let mut json = begin()?;
        json.text(
            "status",
            if self.is_complete() {
                "complete"
            } else {
                "partial"
            },
        )?;
        json.truth("written", self.built.is_some() && !is_rehearsal)?;
        json.truth("superblock_was_usable", self.has_old)?;
        roots(&mut json, self.candidate)?;
        json.open_object("pool")?;
        json.number("transaction", self.superblock.transaction)?;
        json.number("time", self.superblock.time)?;
        json.number("data_block_size", self.superblock.data_block_size)?;
        json.number("nr_data_blocks", self.superblock.nr_data_blocks)?;
        json.close()?;
        json.number("missing_mappings", self.missing())?;
        json.number("missing_bytes", self.bytes(self.missing()))?;
        if let Some(built) = self.built {
            json.number("metadata_blocks_used", built.used)?;
            json.number("metadata_blocks_needed", built.needed)?;
        }
        json.open_array("found_again")?;
        for device in &self.found_again {
            json.number("", device)?;
        }
        json.close()?;
        json.open_array("lost_devices")?;
        for lost in &self.salvage.lost_devices {
            self.json_range(&mut json, lost, false)?;
        }
        json.close()?;
        json.open_array("devices")?;
        for device in &self.salvage.devices {
            json.open_object("")?;
            json.number("dev_id", device.device)?;
            json.number("mappings", device.mappings)?;
            match device.expected {
                Some(expected) => json.number("expected_mappings", expected)?,
                None => json.null("expected_mappings")?,
            }
            json.truth("details_made_up", device.has_new_details)?;
            json.open_array("lost")?;
            for lost in &device.lost {
                self.json_range(&mut json, lost, true)?;
            }
            json.close()?;
            json.close()?;
        }
        json.close()?;
        json.close()?;
        finish(json)
    }

    fn json_range<W: Write>(
        &self,
        json: &mut Json<W>,
        lost: &LostRange,
        in_bytes: bool,
    ) -> io::Result<()> {
        json.open_object("")?;
        json.number("begin", lost.begin)?;
        match lost.end {
            Some(end) => json.number("end", end)?,
            None => json.null("end")?,
        }
        if in_bytes {
            json.number("begin_byte", self.bytes(lost.begin))?;
            match lost.end {
                Some(end) => json.number("end_byte", self.bytes(end))?,
                None => json.null("end_byte")?,
            }
        }
        json.number("metadata_block", lost.block)?;
        json.text("why", &lost.why)?;
        json.close()
    }
}

fn begin() -> io::Result<Json<impl Write>> {
    let mut json = Json::new(report::stdout());
    json.open_object("")?;
    json.text("tool", "thin_repair")?;
    json.number("schema", 1)?;
    Ok(json)
}

fn finish<W: Write>(json: Json<W>) -> Result<(), Failure> {
    let mut out = json.finish()?;
    Ok(out.flush()?)
}

fn range(lost: &LostRange) -> String {
    match lost.end {
        Some(end) => format!("{}..{end}", lost.begin),
        None => format!("{}..end", lost.begin),
    }
}

fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} bytes"),
        _ => format!("{value:.1} {}", UNITS.get(unit).unwrap_or(&"")),
    }
}

fn source(candidate: &Candidate) -> String {
    match candidate.roots.source {
        Source::Superblock => "superblock".into(),
        Source::Copy(block) => format!("snapshot@{block}"),
        Source::Search => "search".into(),
        Source::User => "user".into(),
    }
}

fn damage(candidate: &Candidate) -> String {
    let partial = candidate
        .devices
        .values()
        .filter(|device| device.is_partial())
        .count();
    let missing = candidate
        .devices
        .values()
        .fold(0, |sum: u64, device| sum.saturating_add(device.missing()));
    let mut words = Vec::new();
    if candidate.bad_nodes() > 0 {
        words.push(format!("{} bad nodes", candidate.bad_nodes()));
    }
    if partial > 0 {
        words.push(format!("{partial} devices incomplete"));
    }
    if missing > 0 {
        words.push(format!("{missing} mappings missing"));
    }
    let unknown = candidate
        .devices
        .values()
        .filter(|device| device.details.is_none())
        .count();
    if unknown > 0 {
        words.push(format!("{unknown} devices without details"));
    }
    match words.is_empty() {
        true if candidate.is_consistent() => "none".into(),
        true => "counts disagree".into(),
        false => words.join(", "),
    }
}

fn roots<W: Write>(json: &mut Json<W>, candidate: &Candidate) -> io::Result<()> {
    json.open_object("roots")?;
    roots_fields(json, candidate)?;
    json.close()
}

fn roots_fields<W: Write>(json: &mut Json<W>, candidate: &Candidate) -> io::Result<()> {
    json.text("source", &source(candidate))?;
    json.number("root", candidate.roots.mapping)?;
    match candidate.roots.details {
        Some(details) => json.number("details_root", details)?,
        None => json.null("details_root")?,
    }
    json.number("transaction", candidate.transaction())?;
    json.number("time", candidate.time())?;
    json.number("devices", candidate.devices.len())?;
    json.number("mappings", candidate.mappings())?;
    json.number("bad_nodes", candidate.bad_nodes())?;
    json.truth("complete", candidate.is_complete())?;
    json.truth("consistent", candidate.is_consistent())
}

/// Lists candidates, the best first.
///
/// # Errors
///
/// If writing fails.
pub fn list(candidates: &[Candidate], in_json: bool) -> Result<(), Failure> {
    if in_json {
        let mut json = begin()?;
        json.open_array("candidates")?;
        for candidate in candidates {
            json.open_object("")?;
            roots_fields(&mut json, candidate)?;
            json.close()?;
        }
        json.close()?;
        json.close()?;
        return finish(json);
    }
    let mut columns = Columns::default();
    let titles = [
        "RANK",
        "ROOT",
        "DETAILS",
        "FROM",
        "TRANSACTION",
        "TIME",
        "DEVICES",
        "MAPPINGS",
        "DAMAGE",
    ];
    columns.row(titles.iter().map(|title| title.to_string()).collect());
    for (rank, candidate) in (1..).zip(candidates) {
        columns.row(vec![
            rank.to_string(),
            candidate.roots.mapping.to_string(),
            candidate
                .roots
                .details
                .map_or("-".into(), |details| details.to_string()),
            source(candidate),
            candidate.transaction().to_string(),
            candidate.time().to_string(),
            candidate.devices.len().to_string(),
            candidate.mappings().to_string(),
            damage(candidate),
        ]);
    }
    let mut out = report::stdout();
    columns.write(&mut out)?;
    if candidates.is_empty() {
        writeln!(out, "no compatible roots found")?;
    }
    Ok(out.flush()?)
}
