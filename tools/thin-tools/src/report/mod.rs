// SPDX-License-Identifier: GPL-2.0

//! What tools write: their output, what they say on the side, and how far they are.

mod columns;
mod json;
mod progress;
mod syslog;

pub use columns::Columns;
pub use json::Json;
pub use progress::Counter;
pub use progress::Progress;
pub use progress::Sink;
pub use syslog::syslog;

use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::os::fd::AsFd;

/// How much output is gathered before it is written.
const BUFFER: usize = 1 << 16;

/// A buffered standard output that is not flushed at every line. Flush it: only then errors show.
pub fn stdout() -> BufWriter<Box<dyn Write + Send>> {
    buffered(io::stdout().as_fd())
}

/// A buffered standard error, for whole texts; [`say`] for lines.
pub fn stderr() -> BufWriter<Box<dyn Write + Send>> {
    buffered(io::stderr().as_fd())
}

fn buffered(fd: std::os::fd::BorrowedFd<'_>) -> BufWriter<Box<dyn Write + Send>> {
    let out: Box<dyn Write + Send> = match fd.try_clone_to_owned() {
        Ok(fd) => Box::new(File::from(fd)),
        Err(error) => Box::new(Closed(error.raw_os_error())),
    };
    BufWriter::with_capacity(BUFFER, out)
}

/// Stands in for an output that was closed before the tool started.
struct Closed(Option<i32>);

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(match self.0 {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::ErrorKind::BrokenPipe.into(),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a line to standard error, clear of a progress bar that may be there.
pub fn say(text: &str) {
    progress::beside_bar(|out| writeln!(out, "{text}"));
}

/// Text as an XML attribute's value.
pub fn xml_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}
