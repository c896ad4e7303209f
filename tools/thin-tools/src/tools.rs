// SPDX-License-Identifier: GPL-2.0

//! The table of tools.

use crate::cli::Tool;

/// Every tool, in the order the overview lists them.
pub const TOOLS: &[Tool] = &[];
