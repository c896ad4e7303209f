// SPDX-License-Identifier: GPL-2.0
//! The on-disk format of device-mapper thin provisioning metadata: reading, checking, building, and
//! changing it in place.
//!
//! From the bottom up: [`records`] are the bytes, [`checksum`] and [`block`] what every block has
//! in common, [`io`] how blocks get into memory, [`superblock`] where everything starts, [`btree`]
//! and [`space_map`] the two structures, [`thin`] what they mean: devices and their mappings.
//! [`edit`] changes metadata so that a crash at any moment leaves the old or the new.
//!
//! Nothing here trusts what it reads: any bytes lead to a result or an [`error::Error`], never to a
//! panic, a hang, or memory beyond what the function states.

#![warn(missing_docs)]

pub mod block;
pub mod btree;
pub mod build;
pub mod check;
pub mod checksum;
pub mod counts;
pub mod edit;
pub mod error;
pub mod forest;
pub mod io;
pub mod records;
pub mod space_map;
pub mod superblock;
pub mod thin;

pub use error::{Error, Fault, Result};
