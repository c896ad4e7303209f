// SPDX-License-Identifier: GPL-2.0

//! Writing JSON as it comes, without holding it.

use std::fmt::Display;
use std::io;
use std::io::Write;

/// Writes one JSON document, indented by two spaces per level.
///
/// Objects are written with `open_object`, then per member a call that takes a name, then `close`;
/// arrays likewise with an empty name for each element.
pub struct Json<W: Write> {
    out: W,
    /// For each open object or array: its closing bracket, and whether it has members.
    open: Vec<(char, bool)>,
}

impl<W: Write> Json<W> {
    /// A document to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            open: Vec::new(),
        }
    }

    fn begin(&mut self, name: &str) -> io::Result<()> {
        if let Some((bracket, filled)) = self.open.last_mut() {
            let comma = if *filled { "," } else { "" };
            *filled = true;
            let in_object = *bracket == '}';
            write!(self.out, "{comma}\n{:1$}", "", 2 * self.open.len())?;
            if in_object {
                self.quoted(name)?;
                self.out.write_all(b": ")?;
            }
        }
        Ok(())
    }

    fn quoted(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(b"\"")?;
        for letter in text.chars() {
            match letter {
                '"' => self.out.write_all(b"\\\"")?,
                '\\' => self.out.write_all(b"\\\\")?,
                '\n' => self.out.write_all(b"\\n")?,
                letter if letter < ' ' => write!(self.out, "\\u{:04x}", letter as u32)?,
                letter => write!(self.out, "{letter}")?,
            }
        }
        self.out.write_all(b"\"")
    }

    /// Opens an object.
    pub fn open_object(&mut self, name: &str) -> io::Result<()> {
        self.begin(name)?;
        self.open.push(('}', false));
        self.out.write_all(b"{")
    }

    /// Opens an array.
    pub fn open_array(&mut self, name: &str) -> io::Result<()> {
        self.begin(name)?;
        self.open.push((']', false));
        self.out.write_all(b"[")
    }

    /// Closes the innermost object or array; the last one ends the document.
    pub fn close(&mut self) -> io::Result<()> {
        if let Some((bracket, filled)) = self.open.pop() {
            if filled {
                write!(self.out, "\n{:1$}", "", 2 * self.open.len())?;
            }
            write!(self.out, "{bracket}")?;
            if self.open.is_empty() {
                self.out.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    /// A number.
    pub fn number(&mut self, name: &str, value: impl Display) -> io::Result<()> {
        self.begin(name)?;
        write!(self.out, "{value}")
    }

    /// A text.
    pub fn text(&mut self, name: &str, value: &str) -> io::Result<()> {
        self.begin(name)?;
        self.quoted(value)
    }

    /// true or false.
    pub fn truth(&mut self, name: &str, value: bool) -> io::Result<()> {
        self.number(name, value)
    }

    /// null.
    pub fn null(&mut self, name: &str) -> io::Result<()> {
        self.number(name, "null")
    }

    /// Closes what is open, flushes, and gives the output back.
    pub fn finish(mut self) -> io::Result<W> {
        while !self.open.is_empty() {
            self.close()?;
        }
        self.out.flush()?;
        Ok(self.out)
    }
}
