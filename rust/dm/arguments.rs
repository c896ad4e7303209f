// SPDX-License-Identifier: GPL-2.0

//! The words of a table line or a message.

use core::marker::PhantomData;
use kernel::{
    ffi::{
        c_char,
        c_uint, //
    },
    prelude::*, //
};

/// Words that came from user space, one by one.
///
/// # Invariants
///
/// `words` points to `left` pointers to strings, all of which stay as they are for `'a`.
#[derive(Clone)]
pub(crate) struct Arguments<'a> {
    words: *const *mut c_char,
    left: usize,
    _strings: PhantomData<&'a CStr>,
}

impl<'a> Arguments<'a> {
    /// The arguments that a callback gets from device-mapper.
    ///
    /// # Safety
    ///
    /// `words` must point to `count` pointers to strings that end with a zero byte, and for `'a`
    /// nobody may change them.
    pub(super) unsafe fn from_raw(count: c_uint, words: *mut *mut c_char) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            words,
            left: count as usize,
            _strings: PhantomData,
        }
    }
}

impl<'a> Iterator for Arguments<'a> {
    type Item = &'a CStr;

    fn next(&mut self) -> Option<&'a CStr> {
        self.left = self.left.checked_sub(1)?;
        // SAFETY: By the type invariants, there was one more.
        let word = unsafe { self.words.read() };
        // INVARIANT: One less is left behind it.
        // SAFETY: Behind the last of several pointers there is still the end of them.
        self.words = unsafe { self.words.add(1) };
        // SAFETY: By the type invariants.
        Some(unsafe { CStr::from_char_ptr(word) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Arguments<'_> {}
