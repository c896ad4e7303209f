// SPDX-License-Identifier: GPL-2.0

//! The parameters of the module.
//!
//! They are C variables, since the kernel crate has no parameters that can be written later; see
//! `rust/helpers/params.c`.

use crate::bindings;
use core::num::NonZeroU32;

/// Whether to leave the targets' names to the driver in C, and use others.
pub(crate) fn coexist() -> bool {
    // SAFETY: The function reads one variable.
    unsafe { bindings::dm_thin_rs_coexist() }
}

/// How many queues a pool has for bios that cannot be remapped at once; `None`: one for each CPU.
pub(crate) fn zones() -> Option<NonZeroU32> {
    // SAFETY: The function reads one variable.
    NonZeroU32::new(unsafe { bindings::dm_thin_rs_zones() })
}

/// For how many seconds bios wait for space before they fail; `None`: for ever.
///
/// It can change at any time.
pub(crate) fn no_space_timeout() -> Option<NonZeroU32> {
    // SAFETY: The function reads one variable.
    NonZeroU32::new(unsafe { bindings::dm_thin_rs_no_space_timeout() })
}
