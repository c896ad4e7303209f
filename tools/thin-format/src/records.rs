// SPDX-License-Identifier: GPL-2.0
//! The on-disk records: the very files that the driver is built from.
//!
//! One definition for both: what the driver writes and what the tools read cannot drift apart.

#[path = "../../../drivers/md/thin/core/format.rs"]
mod format;

#[path = "../../../drivers/md/thin/core/units.rs"]
pub mod units;

pub use format::*;
