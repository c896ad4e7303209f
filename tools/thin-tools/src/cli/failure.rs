// SPDX-License-Identifier: GPL-2.0

//! Why a tool stops, and the exit status that says so.

use std::fmt;
use std::io;

/// Exit statuses other than 0.
pub mod status {
    /// The command line makes no sense. Never the status of thin_check: lvm2 takes a 2 from it for
    /// "not installed" and activates the pool unchecked.
    pub const USAGE: u8 = 2;
    /// Every failure without a status of its own.
    pub const FAILURE: u8 = 64;
    /// The metadata is not good enough for what was asked.
    pub const BAD_METADATA: u8 = 65;
    /// Something was recovered, but not everything: the report says what is missing.
    pub const PARTIAL: u8 = 66;
}

/// Why a tool stops.
#[derive(Debug)]
pub enum Failure {
    /// The command line makes no sense; printed with the usage line.
    Usage(String),
    /// Whoever read the output has gone: nothing to say, but not a success either.
    ReaderGone,
    /// Anything else: what to tell the user, and the exit status.
    Failed {
        /// One or more lines without a newline at the end.
        message: String,
        /// The exit status.
        status: u8,
    },
    /// As `Failed`, but the tool has already said what there is to say.
    Reported {
        /// The exit status.
        status: u8,
    },
}

impl Failure {
    /// A failure with the common exit status.
    pub fn new(message: impl Into<String>) -> Self {
        Self::with_status(message, status::FAILURE)
    }

    /// A failure with an exit status of its own.
    pub fn with_status(message: impl Into<String>, status: u8) -> Self {
        Self::Failed {
            message: message.into(),
            status,
        }
    }

    /// A wrong command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => status::USAGE,
            Self::ReaderGone => status::FAILURE,
            Self::Failed { status, .. } | Self::Reported { status } => *status,
        }
    }

    /// What to print, if there is anything to print.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::Usage(text) => Some(text.clone()),
            Self::Failed { message, .. } => Some(message.clone()),
            Self::ReaderGone | Self::Reported { .. } => None,
        }
    }

    /// Puts `what: ` in front of the message.
    pub fn within(self, what: impl fmt::Display) -> Self {
        match self {
            Self::Failed { message, status } => Self::Failed {
                message: format!("{what}: {message}"),
                status,
            },
            other => other,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ReaderGone
        } else {
            Self::new(plain(&error))
        }
    }
}

impl From<thin_format::Error> for Failure {
    fn from(error: thin_format::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// An I/O error as `strerror` has it, without the number that std appends.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) if error.raw_os_error().is_some() => text[..end].to_string(),
        _ => text,
    }
}

/// Says what was being done when an error came.
pub trait Context<T> {
    /// Puts `what()` in front of the error's own words.
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> Context<T> for Result<T, E> {
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T, Failure> {
        self.map_err(|error| error.into().within(what()))
    }
}
