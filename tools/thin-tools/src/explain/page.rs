// SPDX-License-Identifier: GPL-2.0

//! The page.

use super::family::Family;
use super::survey::Survey;
use super::FreeSpace;
use std::io;
use std::io::Write;
use std::path::Path;
use thin_format::records::DeviceDetails;
use thin_format::records::MAX_METADATA_BLOCKS;
use thin_format::records::MAX_TIME;
use thin_format::superblock;
use thin_format::thin::Pool;

/// How many complaints are listed.
const MOST_COMPLAINTS: usize = 10;
/// How many entries a leaf has room for.
const PER_LEAF: u64 = 252;
/// The greatest device number.
const MAX_DEVICE: u64 = (1 << 24) - 1;

/// All that is on the page.
pub struct Page<'a> {
    /// Where the metadata are.
    pub path: &'a Path,
    /// The pool.
    pub pool: &'a Pool<'a>,
    /// The volumes' numbers, in the order of all that follows.
    pub ids: &'a [u64],
    /// Their details.
    pub details: &'a [DeviceDetails],
    /// Their space.
    pub survey: &'a Survey,
    /// Which is a snapshot of which.
    pub family: Family,
    /// Free data space.
    pub free: FreeSpace,
    /// What cannot be read or is inconsistent.
    pub complaints: &'a [String],
    /// How many volumes are listed.
    pub most_volumes: usize,
}

/// A size with a unit that leaves at most four digits before the point.
pub fn size(bytes: u128) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    let mut scale = 1u128;
    while bytes / scale >= 1024 && unit + 1 < UNITS.len() {
        scale <<= 10;
        unit += 1;
    }
    let tenths = bytes.saturating_mul(10) / scale;
    if unit == 0 || tenths >= 1000 || tenths % 10 == 0 {
        format!("{} {}", tenths / 10, UNITS[unit])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

fn percent(part: u64, whole: u64) -> String {
    let permille = u128::from(part)
        .saturating_mul(1000)
        .checked_div(u128::from(whole))
        .unwrap_or(0);
    format!("{}.{} %", permille / 10, permille % 10)
}

fn bar(part: u64, whole: u64) -> String {
    const WIDTH: usize = 30;
    let filled = u128::from(part.min(whole)) * WIDTH as u128;
    let filled = filled.checked_div(u128::from(whole)).unwrap_or(0) as usize;
    format!("[{:.<WIDTH$}]", "#".repeat(filled))
}

impl Page<'_> {
    fn block_size(&self) -> u128 {
        u128::from(self.pool.superblock().data_block_size) * 512
    }

    fn blocks(&self, blocks: u64) -> String {
        size(u128::from(blocks).saturating_mul(self.block_size()))
    }

    /// Writes the page.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.write_pool(out)?;
        self.write_volumes(out)?;
        self.write_limits(out)?;
        self.write_complaints(out)
    }

    fn write_pool(&self, out: &mut impl Write) -> io::Result<()> {
        let main = self.pool.main_superblock();
        let shown = self.pool.superblock();
        let metadata = superblock::metadata_space_map(main);
        let data_blocks = self.pool.data_blocks();
        let used = data_blocks.saturating_sub(self.free.blocks);
        writeln!(out, "Thin pool of {}", self.path.display())?;
        writeln!(out)?;
        writeln!(
            out,
            "  Data       {} in blocks of {}: {} used ({}), {} free in {} runs, the longest {}",
            self.blocks(data_blocks),
            size(self.block_size()),
            self.blocks(used),
            percent(used, data_blocks),
            self.blocks(self.free.blocks),
            self.free.runs,
            self.blocks(self.free.longest)
        )?;
        writeln!(
            out,
            "  Metadata   {} used of {} ({})",
            size(u128::from(metadata.allocated) * 4096),
            size(u128::from(metadata.blocks) * 4096),
            percent(metadata.allocated, metadata.blocks)
        )?;
        let state = if main.needs_check() {
            "needs a check: the pool stays read-only until thin_check clears that"
        } else {
            "needs no check"
        };
        writeln!(
            out,
            "  State      transaction {}, {} snapshots taken so far, {state}",
            shown.transaction_id, shown.time
        )?;
        match main.metadata_snapshot.0 {
            0 => writeln!(out, "  Held       no metadata snapshot"),
            block => writeln!(
                out,
                "  Held       a metadata snapshot, in block {block}: what it refers to is not free"
            ),
        }
    }

    fn write_volumes(&self, out: &mut impl Write) -> io::Result<()> {
        let snapshots = self.family.origins.iter().flatten().count();
        writeln!(out)?;
        writeln!(
            out,
            "Volumes: {}, of which {snapshots} are snapshots",
            self.ids.len()
        )?;
        if self.ids.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        let drawn = self.family.drawn();
        let listed = self.listed();
        let width = drawn
            .iter()
            .filter(|(at, _)| listed[*at])
            .map(|(at, branch)| branch.chars().count() + self.ids[*at].to_string().len())
            .max()
            .unwrap_or(0)
            .clamp(6, 40);
        writeln!(
            out,
            "  {:<width$} {:>10} {:>10} {:>10} {:>10}  made at",
            "volume", "mapped", "own", "shared", "per run"
        )?;
        for (at, branch) in drawn.iter().filter(|(at, _)| listed[*at]) {
            let space = &self.survey.spaces[*at];
            let mark = if space.lost_nodes > 0 { "+" } else { "" };
            let per_run = space.mapped.checked_div(space.runs).unwrap_or(0);
            writeln!(
                out,
                "  {:<width$} {:>10} {:>10} {:>10} {:>10}  {}",
                format!("{branch}{}", self.ids[*at]),
                self.blocks(space.mapped) + mark,
                self.blocks(space.own),
                self.blocks(space.mapped.saturating_sub(space.own)),
                self.blocks(per_run),
                self.details[*at].creation_time
            )?;
        }
        let left_out = listed.iter().filter(|&&listed| !listed).count();
        if left_out > 0 {
            writeln!(out, "  ... and {left_out} smaller ones (--all lists them)")?;
        }
        let own = self
            .survey
            .referenced
            .saturating_sub(self.survey.shared_blocks);
        writeln!(out)?;
        writeln!(
            out,
            "  \"own\" is what comes free when the volume is deleted. All volumes together: {} of their own,\n  \
             {} shared. \"per run\" is how much lies in one piece; less than a few blocks is fragmented.",
            self.blocks(own),
            self.blocks(self.survey.shared_blocks)
        )?;
        let used = self.pool.data_blocks().saturating_sub(self.free.blocks);
        let unreachable = used.saturating_sub(self.survey.referenced);
        if unreachable > 0 && self.survey.bad.is_empty() {
            writeln!(
                out,
                "  {} are used by no volume: by a metadata snapshot, or lost (thin_check tells which).",
                self.blocks(unreachable)
            )?;
        }
        Ok(())
    }

    /// Which volumes are listed: the largest.
    fn listed(&self) -> Vec<bool> {
        let mut by_size: Vec<usize> = (0..self.ids.len()).collect();
        by_size.sort_by_key(|&at| std::cmp::Reverse(self.survey.spaces[at].mapped));
        let mut listed = vec![false; self.ids.len()];
        for at in by_size.into_iter().take(self.most_volumes) {
            listed[at] = true;
        }
        listed
    }

    fn write_limits(&self, out: &mut impl Write) -> io::Result<()> {
        let main = self.pool.main_superblock();
        let metadata = superblock::metadata_space_map(main);
        let data_blocks = self.pool.data_blocks();
        let used = data_blocks.saturating_sub(self.free.blocks);
        let highest = self.ids.iter().copied().max().unwrap_or(0);
        writeln!(out)?;
        writeln!(out, "How close the limits are")?;
        writeln!(out)?;
        let mut limit = |what: &str, part: u64, whole: u64, then: &str| {
            writeln!(
                out,
                "  {what:<18} {} {:>8}  {then}",
                bar(part, whole),
                percent(part, whole)
            )
        };
        limit(
            "data",
            used,
            data_blocks,
            "full: writes wait or fail; add space",
        )?;
        limit(
            "metadata",
            metadata.allocated,
            metadata.blocks,
            "full: the pool turns read-only",
        )?;
        limit(
            "metadata size",
            metadata.blocks,
            MAX_METADATA_BLOCKS,
            "of 15.875 GiB: it cannot grow beyond",
        )?;
        limit(
            "snapshots taken",
            u64::from(main.time),
            u64::from(MAX_TIME),
            "of 16777215 in the pool's life",
        )?;
        limit(
            "volume numbers",
            highest,
            MAX_DEVICE,
            "of 16777215: the greatest in use",
        )?;
        let room = self.survey.leaves.saturating_mul(PER_LEAF);
        writeln!(out)?;
        writeln!(
            out,
            "  The mapping trees have {} leaves, {} full, and {} inner nodes.",
            self.survey.leaves,
            percent(self.survey.entries, room),
            self.survey.inner_nodes
        )
    }

    fn write_complaints(&self, out: &mut impl Write) -> io::Result<()> {
        if self.complaints.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        writeln!(
            out,
            "Damaged: what is said above is incomplete. thin_check tells what to do."
        )?;
        writeln!(out)?;
        for complaint in self.complaints.iter().take(MOST_COMPLAINTS) {
            writeln!(out, "  {complaint}")?;
        }
        let more = self.complaints.len().saturating_sub(MOST_COMPLAINTS);
        if more > 0 {
            writeln!(out, "  ... and {more} more")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_bars() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(65536), "64 KiB");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(150 << 30), "150 GiB");
        assert_eq!(size(u128::MAX).split(' ').nth(1), Some("EiB"));
        assert_eq!(percent(1, 3), "33.3 %");
        assert_eq!(percent(1, 0), "0.0 %");
        assert_eq!(bar(1, 0).len(), 32);
        assert_eq!(bar(5, 3), format!("[{}]", "#".repeat(30)));
    }
}
