// SPDX-License-Identifier: GPL-2.0

//! Tables of right-aligned columns.

use std::io;
use std::io::Write;

/// Rows whose cells line up on the right, each cell followed by one space.
#[derive(Default)]
pub struct Columns {
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// Appends a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Writes all rows.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut widths = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &self.rows {
            for (width, cell) in widths.iter().zip(row) {
                write!(out, "{cell:>width$} ")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}
