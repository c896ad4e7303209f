// SPDX-License-Identifier: GPL-2.0

//! Lines in the kernel's log, as device-mapper's targets write them.
//!
//! [`error!`](crate::log::error), [`warn!`](crate::log::warn) and [`info!`](crate::log::info) write
//! `device-mapper: thin: NAME: TEXT`, where `NAME` says which pool or device it is about.
//! [`error_ratelimited!`](crate::log::error_ratelimited) is for what many bios can run into. All can be
//! used in any context.
//!
//! C header: [`include/linux/printk.h`](srctree/include/linux/printk.h)

use crate::bindings;
use kernel::{
    fmt,
    prelude::*,
    print::{
        call_printk,
        format_strings, //
    },
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// What every line begins with.
const PREFIX: &[u8] = b"device-mapper: thin\0";

/// How important a line is.
#[derive(Clone, Copy)]
pub(crate) enum Level {
    /// Something failed.
    Error,
    /// Something may be wrong.
    Warning,
    /// Something has happened that is worth knowing.
    Info,
}

/// Writes a line. For the macros of this module.
pub(crate) fn write(level: Level, name: &dyn fmt::Display, text: fmt::Arguments<'_>) {
    let format = match level {
        Level::Error => &format_strings::ERR,
        Level::Warning => &format_strings::WARNING,
        Level::Info => &format_strings::INFO,
    };
    let print = |line: fmt::Arguments<'_>| {
        // SAFETY: The format is one of the kernel's, and the prefix ends with a null.
        unsafe { call_printk(format, PREFIX, line) }
    };
    print(fmt!("{}: {}\n", Name(name), text));
}

struct Name<'a>(&'a dyn fmt::Display);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Shows what implements [`core::fmt::Display`], like the types of `core/`, in a line.
pub(crate) struct Text<T>(pub(crate) T);

impl<T: core::fmt::Display> fmt::Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        core::fmt::Display::fmt(&self.0, f)
    }
}

/// How often a place in the code may write a line: [`Self::BURST`] times in [`Self::SECONDS`].
///
/// Threads that are here at the same time may get it slightly wrong.
pub(crate) struct RateLimit {
    /// When the present interval began, in jiffies.
    since: Atomic<usize>,
    /// How many lines there were since.
    lines: Atomic<u32>,
    /// How many lines were left out.
    left_out: Atomic<u32>,
}

impl RateLimit {
    const SECONDS: u32 = 5;
    const BURST: u32 = 10;

    /// A limit that nothing was counted for yet.
    pub(crate) const fn new() -> Self {
        Self {
            since: Atomic::new(0),
            lines: Atomic::new(0),
            left_out: Atomic::new(0),
        }
    }

    /// Whether a line may be written now; if so, says how many were left out before.
    pub(crate) fn admit(&self) -> Option<u32> {
        let now = jiffies();
        let interval = (bindings::HZ as usize).saturating_mul(Self::SECONDS as usize);
        let fresh = self.lines.load(Relaxed) == 0;

        if fresh || now.wrapping_sub(self.since.load(Relaxed)) > interval {
            self.since.store(now, Relaxed);
            self.lines.store(0, Relaxed);
        }
        if self.lines.fetch_add(1, Relaxed) < Self::BURST {
            Some(self.left_out.xchg(0, Relaxed))
        } else {
            self.left_out.add(1, Relaxed);
            None
        }
    }
}

/// The time since the machine was started, in units of 1/`HZ` s; it wraps.
fn jiffies() -> usize {
    let clock = &raw const bindings::jiffies;
    // SAFETY: The kernel's clock is there all the time. It is a word, and so never read while half of
    // it is written.
    unsafe { clock.read_volatile() }
}

/// Writes a line that tells of an error: `error!(name; "format", …)`.
macro_rules! error {
    ($name:expr; $($text:tt)+) => {
        $crate::log::write($crate::log::Level::Error, &$name, ::kernel::prelude::fmt!($($text)+))
    };
}

/// Writes a line that warns: `warn!(name; "format", …)`.
macro_rules! warning {
    ($name:expr; $($text:tt)+) => {
        $crate::log::write($crate::log::Level::Warning, &$name, ::kernel::prelude::fmt!($($text)+))
    };
}

/// Writes a line that informs: `info!(name; "format", …)`.
macro_rules! info {
    ($name:expr; $($text:tt)+) => {
        $crate::log::write($crate::log::Level::Info, &$name, ::kernel::prelude::fmt!($($text)+))
    };
}

/// As [`error!`](crate::log::error), but not too often; the next line says how many were left out.
macro_rules! error_ratelimited {
    ($name:expr; $($text:tt)+) => {
        $crate::log::limited!($crate::log::error, $name; $($text)+)
    };
}

macro_rules! limited {
    ($write:path, $name:expr; $($text:tt)+) => {{
        static LIMIT: $crate::log::RateLimit = $crate::log::RateLimit::new();

        if let Some(left_out) = LIMIT.admit() {
            if left_out != 0 {
                $write!($name; "{} lines like the next were left out", left_out);
            }
            $write!($name; $($text)+);
        }
    }};
}

pub(crate) use {
    error,
    error_ratelimited,
    info,
    limited,
    warning as warn, //
};
