// SPDX-License-Identifier: GPL-2.0

//! The decisions of the driver, built for the host and put through their paces.
//!
//! `core` consists of the very files that the kernel module is built of. There is nothing here but
//! tests, and what they need.

#![cfg(test)]

#[path = "../../../drivers/md/thin/core/mod.rs"]
#[allow(dead_code, reason = "some of it is for the driver only")]
mod core;

mod choices;
mod executor;
mod facade;
mod format_tests;
mod limits_tests;
mod message_tests;
mod mode_tests;
mod origin_tests;
mod prison_fixtures;
mod prison_model;
mod prison_worlds;
mod remap_random;
mod remap_worlds;
mod sim_bio;
mod sim_disk;
mod sim_metadata;
mod sim_oracle;
mod sim_pool;
mod sim_thin;
mod status_tests;
mod table_tests;
mod units_tests;
