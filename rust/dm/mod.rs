// SPDX-License-Identifier: GPL-2.0

//! Device-mapper targets.
//!
//! C header: [`include/linux/device-mapper.h`](srctree/include/linux/device-mapper.h)

pub(crate) mod arguments;
mod attachments;
pub(crate) mod construct;
pub(crate) mod device;
pub(crate) mod limits;
pub(crate) mod link;
pub(crate) mod mapped_device;
pub(crate) mod registration;
pub(crate) mod status;
pub(crate) mod target;
pub(crate) mod target_ref;
