// SPDX-License-Identifier: GPL-2.0

//! The table of tools.

use crate::check;
use crate::cli::tool;
use crate::cli::Tool;
use crate::delta;
use crate::dump;
use crate::explain;
use crate::ls;
use crate::migrate;
use crate::pack;
use crate::repair;
use crate::restore;
use crate::rmap;
use crate::shrink;
use crate::size;
use crate::trim;

/// Every tool, in the order the overview lists them.
pub const TOOLS: &[Tool] = &[
    tool(&check::COMMAND, check::run),
    tool(&dump::COMMAND, dump::run),
    tool(&repair::COMMAND, repair::run),
    tool(&restore::COMMAND, restore::run),
    tool(&ls::COMMAND, ls::run),
    tool(&delta::COMMAND, delta::run),
    tool(&rmap::COMMAND, rmap::run),
    tool(&shrink::COMMAND, shrink::run),
    tool(&migrate::COMMAND, migrate::run),
    tool(&trim::COMMAND, trim::run),
    tool(&size::COMMAND, size::run),
    tool(&explain::COMMAND, explain::run),
    tool(&pack::PACK, pack::run_pack),
    tool(&pack::UNPACK, pack::run_unpack),
];
