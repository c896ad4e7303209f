// SPDX-License-Identifier: GPL-2.0

//! What the driver decides: without pointers, time or I/O.
//!
//! All of this depends on nothing but [`crate::facade`], so the same files are built for the host,
//! where `tools/thin-sim` runs them through schedules and failures that are hard to come by in a
//! kernel.

#[allow(
    unreachable_pub,
    reason = "the userspace tools share it, for whom it is public"
)]
pub mod errno;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the userspace tools share it, who need more than the driver does"
)]
pub mod format;
pub(crate) mod limits;
pub(crate) mod mapping;
pub(crate) mod message;
pub(crate) mod mode;
pub(crate) mod origin;
pub(crate) mod prison;
pub(crate) mod remap;
pub(crate) mod status;
pub(crate) mod table;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the userspace tools share it, who need more than the driver does"
)]
pub mod units;
