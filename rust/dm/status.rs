// SPDX-License-Identifier: GPL-2.0

//! Status lines.
//!
//! C header: [`include/linux/device-mapper.h`](srctree/include/linux/device-mapper.h)

use crate::bindings;
use core::{
    fmt,
    marker::PhantomData,
    ptr, //
};
use kernel::ffi::{
    c_char,
    c_uint, //
};

/// Set among the flags of a request if the caller does not want anything to be flushed for it; from
/// `drivers/md/dm.h`.
const NOFLUSH: c_uint = 1 << 0;

/// Which status line is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusRequest {
    /// How the target is.
    Info {
        /// Whether it may write anything out in order to say so.
        may_flush: bool,
    },
    /// The arguments that it was made from.
    Table,
    /// What the integrity measurement architecture wants to know.
    Ima,
}

impl StatusRequest {
    /// The request that device-mapper has for a `status` callback. `None`: an unknown one.
    pub(super) fn from_raw(kind: bindings::status_type_t, flags: c_uint) -> Option<Self> {
        match kind {
            bindings::status_type_t_STATUSTYPE_INFO => Some(Self::Info {
                may_flush: flags & NOFLUSH == 0,
            }),
            bindings::status_type_t_STATUSTYPE_TABLE => Some(Self::Table),
            bindings::status_type_t_STATUSTYPE_IMA => Some(Self::Ima),
            _ => None,
        }
    }
}

/// Where a status line is written to. What does not fit is cut off, as device-mapper expects it.
///
/// # Invariants
///
/// `next` points to `left` bytes that nobody else uses for `'a`. If there are some, the first of them
/// is zero.
pub(crate) struct StatusWriter<'a> {
    next: *mut u8,
    left: usize,
    _buffer: PhantomData<&'a mut [u8]>,
}

impl StatusWriter<'_> {
    /// The buffer that a `status` callback gets from device-mapper.
    ///
    /// # Safety
    ///
    /// `buffer` must point to `length` bytes that can be written, and that nobody else uses for the
    /// lifetime of the result.
    pub(super) unsafe fn from_raw(buffer: *mut c_char, length: c_uint) -> Self {
        let next = buffer.cast::<u8>();

        if length != 0 {
            // SAFETY: By the safety requirements.
            unsafe { next.write(0) };
        }
        // INVARIANT: By the safety requirements, and as was just written.
        Self {
            next,
            left: length as usize,
            _buffer: PhantomData,
        }
    }
}

impl fmt::Write for StatusWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // One byte stays for the zero at the end.
        let fitting = text.len().min(self.left.saturating_sub(1));

        if fitting != 0 {
            // SAFETY: There is room for more than that, and `text` lies elsewhere.
            unsafe { ptr::copy_nonoverlapping(text.as_ptr(), self.next, fitting) };
            // SAFETY: There are more bytes than that.
            self.next = unsafe { self.next.add(fitting) };
            self.left = self.left.saturating_sub(fitting);
            // INVARIANT: The first of what is left is zero.
            // SAFETY: There is at least one byte.
            unsafe { self.next.write(0) };
        }
        if fitting == text.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}
