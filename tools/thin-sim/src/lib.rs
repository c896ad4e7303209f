// SPDX-License-Identifier: GPL-2.0

//! The decisions of the driver, built for the host and put through their paces.
//!
//! `core` consists of the very files that the kernel module is built of.

#[path = "../../../drivers/md/thin/core/mod.rs"]
pub mod core;

#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod units_tests;
