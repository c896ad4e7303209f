// SPDX-License-Identifier: GPL-2.0

//! The table of tools.

use crate::cli::Tool;
use crate::pack;
use crate::restore;

/// Every tool, in the order the overview lists them.
pub const TOOLS: &[Tool] = &[
    Tool {
        command: &pack::PACK,
        run: pack::run_pack,
    },
    Tool {
        command: &pack::UNPACK,
        run: pack::run_unpack,
    },
    Tool {
        command: &restore::COMMAND,
        run: restore::run,
    },
];
