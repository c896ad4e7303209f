// SPDX-License-Identifier: GPL-2.0

//! The thin tools: one executable that is each tool by the name it is called under.
//!
//! A tool is a [`cli::Command`], which says what its command line looks like, and a `run` function.
//! Dispatch, parsing, help, exit statuses and the wording of failures are the same for all and live
//! in [`cli`]; what goes to the terminal besides a tool's output lives in [`report`].

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod check;
pub mod cli;
pub mod delta;
pub mod device;
pub mod dump;
pub mod explain;
pub mod forest;
pub mod ls;
pub mod metadata;
pub mod migrate;
pub mod ordered;
pub mod overrides;
pub mod owners;
pub mod pack;
pub mod repair;
pub mod report;
pub mod restore;
pub mod rmap;
pub mod shrink;
pub mod size;
mod tools;
pub mod trees;
pub mod trim;
pub mod xml;

use std::ffi::OsString;
use std::process::ExitCode;

/// The version every tool prints for `-V`: X.Y.Z and nothing else, because lvm2 parses it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the tool that `args` (the whole command line, program name first) asks for.
pub fn main(args: Vec<OsString>) -> ExitCode {
    ExitCode::from(cli::dispatch(tools::TOOLS, args))
}
