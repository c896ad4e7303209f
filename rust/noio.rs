// SPDX-License-Identifier: GPL-2.0

//! Parts of the code in which allocating memory must not start I/O.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::bindings;
use kernel::{
    ffi::c_uint,
    types::NotThreadSafe, //
};

/// As long as this lives, allocations of the current thread behave as with `GFP_NOIO`.
///
/// Bios are what gets memory free, so whoever serves them must not wait for memory that only bios
/// can free. Scopes may be nested.
#[must_use = "the scope ends when this is dropped"]
pub(crate) struct NoIoScope {
    before: c_uint,
    _of_this_thread: NotThreadSafe,
}

impl NoIoScope {
    /// Begins the scope.
    pub(crate) fn new() -> Self {
        Self {
            // SAFETY: The function changes a flag of the current thread.
            before: unsafe { bindings::dm_thin_rs_noio_save() },
            _of_this_thread: NotThreadSafe,
        }
    }
}

impl Drop for NoIoScope {
    fn drop(&mut self) {
        // SAFETY: `before` is what this thread, which the scope never left, had before.
        unsafe { bindings::dm_thin_rs_noio_restore(self.before) };
    }
}
