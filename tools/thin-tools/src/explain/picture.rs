// SPDX-License-Identifier: GPL-2.0

//! The data device as a picture: cells, each for some blocks, in the colour of whoever has most of it.

use crate::forest::Groups;
use crate::owners::Owners;
use crate::report;
use std::io;
use std::io::Write;

/// Cells in a row.
const COLUMNS: usize = 256;
/// At most so many rows.
const ROWS: usize = 160;
/// A cell's width and height.
const CELL: usize = 4;
/// How many volumes the legend lists.
const LEGEND: usize = 36;

/// Who has a block or most of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Volume(u32),
    Shared,
}

#[derive(Clone, Default)]
struct Cell {
    /// Who has most of it, and how many blocks.
    holder: Option<(Holder, u64)>,
    referenced: u64,
    free: u64,
}

/// The picture.
pub struct Picture {
    data_blocks: u64,
    cells: Vec<Cell>,
}

impl Picture {
    /// An empty picture of so many blocks.
    pub fn new(data_blocks: u64) -> Self {
        let cells = usize::try_from(data_blocks)
            .unwrap_or(usize::MAX)
            .min(COLUMNS * ROWS);
        Self {
            data_blocks,
            cells: vec![Cell::default(); cells],
        }
    }

    /// The first block of a cell.
    fn begin(&self, cell: usize) -> u64 {
        let begin = u128::from(self.data_blocks) * cell as u128;
        begin
            .checked_div(self.cells.len() as u128)
            .map_or(0, |begin| begin as u64)
    }

    /// The cell of a block.
    fn cell_of(&self, block: u64) -> usize {
        let cell = (u128::from(block) * self.cells.len() as u128)
            .checked_div(u128::from(self.data_blocks))
            .map_or(0, |cell| cell as usize);
        // Where cells do not divide evenly, a block may belong to the next one.
        if self.begin(cell + 1) <= block {
            cell + 1
        } else {
            cell
        }
    }

    /// Takes in who has the blocks from `begin` up to, not including, `end`.
    pub fn look(&mut self, begin: u64, end: u64, owners: &Owners, groups: &Groups) {
        if self.cells.is_empty() {
            return;
        }
        let mut cell = self.cell_of(begin);
        let mut block = begin;
        while block < end && cell < self.cells.len() {
            let cell_end = self.begin(cell + 1).min(end);
            let mut counts: Vec<(Holder, u64)> = Vec::new();
            for at in block..cell_end {
                let Some((group, is_more)) = owners.of(at) else {
                    continue;
                };
                let holder = match groups.members(group) {
                    [volume] if !is_more => Holder::Volume(*volume),
                    _ => Holder::Shared,
                };
                match counts.iter_mut().find(|(other, _)| *other == holder) {
                    Some((_, count)) => *count += 1,
                    None => counts.push((holder, 1)),
                }
            }
            let place = &mut self.cells[cell];
            place.referenced += counts.iter().map(|(_, count)| count).sum::<u64>();
            let most = counts
                .into_iter()
                .chain(place.holder)
                .max_by_key(|(_, count)| *count);
            place.holder = most;
            block = cell_end;
            cell += 1;
        }
    }

    /// Takes in that blocks are free.
    pub fn free(&mut self, first: u64, length: u64) {
        if self.cells.is_empty() {
            return;
        }
        let end = first.saturating_add(length).min(self.data_blocks);
        let mut block = first;
        let mut cell = self.cell_of(first);
        while block < end && cell < self.cells.len() {
            let cell_end = self.begin(cell + 1).min(end);
            self.cells[cell].free += cell_end.saturating_sub(block);
            block = block.max(cell_end);
            cell += 1;
        }
    }

    /// What a cell looks like: style class, opacity in quarters. None for free space.
    fn look_of(&self, cell: usize) -> Option<(String, u64)> {
        let place = &self.cells[cell];
        let size = self.begin(cell + 1).saturating_sub(self.begin(cell)).max(1);
        let class = match place.holder {
            Some((Holder::Volume(volume), _)) => format!("v{volume}"),
            Some((Holder::Shared, _)) => "shared".to_string(),
            None if place.free < size => "other".to_string(),
            None => return None,
        };
        let used = if place.holder.is_some() {
            place.referenced
        } else {
            size - place.free.min(size)
        };
        Some((class, (used.saturating_mul(4)).div_ceil(size).clamp(1, 4)))
    }

    /// Writes it as SVG. `ids` and `sizes` (in blocks) are those of the volumes.
    pub fn write(
        &self,
        out: &mut impl Write,
        title: &str,
        ids: &[u64],
        sizes: &[u64],
    ) -> io::Result<()> {
        let rows = self.cells.len().div_ceil(COLUMNS);
        let mut by_size: Vec<usize> = (0..ids.len()).collect();
        by_size.sort_by_key(|&at| std::cmp::Reverse(sizes.get(at).copied().unwrap_or(0)));
        by_size.truncate(LEGEND);
        let (left, top) = (16, 48);
        let width = COLUMNS * CELL + 2 * left;
        let legend_top = top + rows * CELL + 24;
        let height = legend_top + (by_size.len() + 3).div_ceil(6) * 20 + 8;
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">"
        )?;
        writeln!(out, "<title>{}</title>", report::xml_escape(title))?;
        self.write_styles(out, ids.len())?;
        writeln!(
            out,
            "<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>"
        )?;
        writeln!(
            out,
            "<text x=\"{left}\" y=\"20\" font-size=\"15\">{}</text>",
            report::xml_escape(title)
        )?;
        let per_cell = self.data_blocks.div_ceil(self.cells.len().max(1) as u64);
        writeln!(
            out,
            "<text x=\"{left}\" y=\"38\">{} blocks, {per_cell} in each cell; paler cells are partly free</text>",
            self.data_blocks
        )?;
        writeln!(out, "<g transform=\"translate({left} {top})\">")?;
        writeln!(
            out,
            "<rect class=\"free\" width=\"{}\" height=\"{}\"/>",
            COLUMNS * CELL,
            rows * CELL
        )?;
        for row in 0..rows {
            self.write_row(out, row, ids)?;
        }
        writeln!(out, "</g>")?;
        let mut entries: Vec<(String, String)> = vec![
            ("free".into(), "free".into()),
            ("shared".into(), "shared by volumes".into()),
            ("other".into(), "used, but by no volume".into()),
        ];
        for &at in &by_size {
            entries.push((format!("v{at}"), format!("volume {}", ids[at])));
        }
        for (index, (class, text)) in entries.iter().enumerate() {
            let x = left + index % 6 * 172;
            let y = legend_top + index / 6 * 20;
            writeln!(
                out,
                "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" stroke=\"#888\"/>\
                 <text x=\"{}\" y=\"{}\">{text}</text>",
                x + 18,
                y + 11
            )?;
        }
        writeln!(out, "</svg>")
    }

    fn write_styles(&self, out: &mut impl Write, volumes: usize) -> io::Result<()> {
        writeln!(
            out,
            "<defs><pattern id=\"hatch\" width=\"4\" height=\"4\" patternUnits=\"userSpaceOnUse\">\
             <rect width=\"4\" height=\"4\" fill=\"#555\"/><path d=\"M0 4L4 0\" stroke=\"#ddd\"/></pattern></defs>"
        )?;
        writeln!(out, "<style>")?;
        writeln!(
            out,
            ".free{{fill:#f4f4f4}} .shared{{fill:url(#hatch)}} .other{{fill:#b00020}}"
        )?;
        let mut drawn = vec![false; volumes];
        for cell in &self.cells {
            if let Some((Holder::Volume(volume), _)) = cell.holder {
                if let Some(drawn) = drawn.get_mut(volume as usize) {
                    *drawn = true;
                }
            }
        }
        for volume in
            (0..volumes).filter(|&volume| drawn[volume] || volume < LEGEND || volumes <= 256)
        {
            // Turning by the golden angle keeps the colours of any few volumes apart.
            let hue = volume * 137_508 / 1000 % 360;
            let light = 42 + volume / 3 % 3 * 10;
            writeln!(out, ".v{volume}{{fill:hsl({hue},70%,{light}%)}}")?;
        }
        writeln!(out, "</style>")
    }

    fn write_row(&self, out: &mut impl Write, row: usize, ids: &[u64]) -> io::Result<()> {
        let end = self.cells.len().min((row + 1) * COLUMNS);
        let mut cell = row * COLUMNS;
        while cell < end {
            let look = self.look_of(cell);
            let run = (cell..end)
                .take_while(|&other| self.look_of(other) == look)
                .count();
            if let Some((class, opacity)) = look {
                let opacity = if opacity < 4 {
                    format!(" fill-opacity=\"{}\"", opacity as f64 / 4.0)
                } else {
                    String::new()
                };
                let who = match self.cells[cell].holder {
                    Some((Holder::Volume(volume), _)) => {
                        format!("volume {}", ids.get(volume as usize).copied().unwrap_or(0))
                    }
                    Some((Holder::Shared, _)) => "shared".to_string(),
                    None => "used by no volume".to_string(),
                };
                writeln!(
                    out,
                    "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{CELL}\"{opacity}>\
                     <title>{who}, blocks {} to {}</title></rect>",
                    (cell - row * COLUMNS) * CELL,
                    row * CELL,
                    run * CELL,
                    self.begin(cell),
                    self.begin(cell + run).saturating_sub(1)
                )?;
            }
            cell += run;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_in_the_cell_that_says_so() {
        for blocks in [1, 2, 255, 256, 40_960, 40_961, 100_000, 12_345_678_901] {
            let picture = Picture::new(blocks);
            for cell in [0, 1, picture.cells.len() / 2, picture.cells.len() - 1] {
                let cell = cell.min(picture.cells.len() - 1);
                let (begin, end) = (picture.begin(cell), picture.begin(cell + 1));
                assert!(begin < end);
                assert_eq!(picture.cell_of(begin), cell);
                assert_eq!(picture.cell_of(end - 1), cell);
            }
            assert_eq!(picture.begin(picture.cells.len()), blocks);
        }
    }

    #[test]
    fn an_empty_device_can_be_drawn() {
        let mut picture = Picture::new(0);
        picture.free(0, 10);
        let mut out = Vec::new();
        picture.write(&mut out, "<nothing>", &[], &[]).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("&lt;nothing&gt;"));
    }
}
