// SPDX-License-Identifier: GPL-2.0

//! Writing differences.

use super::Chosen;
use super::Difference;
use super::Kind;
use crate::cli::Failure;
use crate::report::Json;
use std::io;
use std::io::Write;
use thin_format::thin::Pool;

/// What the output looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// XML: neighbouring thin blocks of one kind together.
    Simple,
    /// XML with the places of the data.
    Verbose,
    /// JSON with the places of the data.
    Json,
}

enum Out<W: Write> {
    Xml(W),
    Json(Json<W>),
}

/// Writes differences, joined as far as they belong together.
pub struct Output<W: Write> {
    out: Out<W>,
    form: Form,
    /// What is joined so far, not written yet.
    open: Option<Difference>,
    /// In verbose XML, the element that is open.
    element: Option<Kind>,
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Same => "same",
        Kind::Different => "different",
        Kind::LeftOnly => "left_only",
        Kind::RightOnly => "right_only",
    }
}

impl<W: Write> Output<W> {
    /// Writes what comes before the differences.
    pub fn start(
        mut out: W,
        form: Form,
        pool: &Pool<'_>,
        left: Chosen,
        right: Chosen,
    ) -> Result<Self, Failure> {
        let superblock = pool.superblock();
        let out = if form == Form::Json {
            let mut json = Json::new(out);
            json.open_object("")?;
            json.text("tool", "thin_delta")?;
            json.number("schema", 1)?;
            json.number("transaction", superblock.transaction_id)?;
            json.number("time", superblock.time)?;
            json.number("data_block_size_sectors", superblock.data_block_size)?;
            json.number("data_blocks", pool.data_blocks())?;
            for (side, chosen) in [("left", left), ("right", right)] {
                json.open_object(side)?;
                match chosen {
                    Chosen::Device(id) => json.number("dev_id", id)?,
                    Chosen::Root(block) => json.number("root", block)?,
                }
                json.close()?;
            }
            json.open_array("diff")?;
            Out::Json(json)
        } else {
            let flags = if superblock.needs_check() {
                " flags=\"1\""
            } else {
                ""
            };
            writeln!(
                out,
                "<superblock uuid=\"\" time=\"{}\" transaction=\"{}\"{flags} data_block_size=\"{}\" nr_data_blocks=\"{}\">",
                superblock.time,
                superblock.transaction_id,
                superblock.data_block_size,
                pool.data_blocks(),
            )?;
            let side = |name: &str, chosen| match chosen {
                Chosen::Device(id) => format!(" {name}=\"{id}\""),
                Chosen::Root(block) => format!(" {name}_root=\"{block}\""),
            };
            writeln!(
                out,
                "  <diff{}{}>",
                side("left", left),
                side("right", right)
            )?;
            Out::Xml(out)
        };
        Ok(Self {
            out,
            form,
            open: None,
            element: None,
        })
    }

    /// Adds a difference, in order of thin blocks.
    pub fn add(&mut self, next: Difference) -> Result<(), Failure> {
        if let Some(open) = &mut self.open {
            let follows = |at: u64, next: u64| at.checked_add(open.length) == Some(next);
            let same_data = self.form == Form::Simple
                || (open.kind == Kind::RightOnly || follows(open.left, next.left))
                    && (open.kind == Kind::LeftOnly || follows(open.right, next.right));
            if open.kind == next.kind && follows(open.begin, next.begin) && same_data {
                open.length = open.length.saturating_add(next.length);
                return Ok(());
            }
        }
        if let Some(done) = self.open.replace(next) {
            self.write(done)?;
        }
        Ok(())
    }

    fn write(&mut self, done: Difference) -> io::Result<()> {
        let Difference {
            kind,
            begin,
            length,
            left,
            right,
        } = done;
        match &mut self.out {
            Out::Json(json) => {
                json.open_object("")?;
                json.text("kind", name(kind))?;
                json.number("begin", begin)?;
                json.number("length", length)?;
                if kind != Kind::RightOnly {
                    json.number("left_data_begin", left)?;
                }
                if kind != Kind::LeftOnly {
                    json.number("right_data_begin", right)?;
                }
                json.close()
            }
            Out::Xml(out) if self.form == Form::Verbose => {
                if self.element != Some(kind) {
                    if let Some(before) = self.element.replace(kind) {
                        writeln!(out, "    </{}>", name(before))?;
                    }
                    writeln!(out, "    <{}>", name(kind))?;
                }
                let data = match kind {
                    Kind::Same | Kind::LeftOnly => format!("data_begin=\"{left}\""),
                    Kind::RightOnly => format!("data_begin=\"{right}\""),
                    Kind::Different => {
                        format!("left_data_begin=\"{left}\" right_data_begin=\"{right}\"")
                    }
                };
                writeln!(
                    out,
                    "      <range begin=\"{begin}\" {data} length=\"{length}\"/>"
                )
            }
            Out::Xml(out) => {
                writeln!(
                    out,
                    "    <{} begin=\"{begin}\" length=\"{length}\"/>",
                    name(kind)
                )
            }
        }
    }

    /// Writes the rest.
    pub fn finish(mut self) -> Result<(), Failure> {
        if let Some(last) = self.open.take() {
            self.write(last)?;
        }
        match self.out {
            Out::Json(json) => {
                json.finish()?;
            }
            Out::Xml(mut out) => {
                if let Some(element) = self.element {
                    writeln!(out, "    </{}>", name(element))?;
                }
                write!(out, "  </diff>\n</superblock>")?;
                out.flush()?;
            }
        }
        Ok(())
    }
}
