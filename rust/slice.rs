// SPDX-License-Identifier: GPL-2.0

//! A slice on the heap whose length is fixed when it is made.

use crate::core::errno::{
    Errno,
    Result, //
};
use core::ops::Deref;
use kernel::prelude::*;

/// Any number of values in one piece of memory; the number never changes.
///
/// Big slices need no physically contiguous memory.
pub(crate) struct Slice<T>(KVVec<T>);

impl<T> Slice<T> {
    /// `length` values, made by `value` from their index. Sleeps.
    ///
    /// Fails with `ENOMEM`, or with the first error of `value`.
    pub(crate) fn try_from_fn(
        length: usize,
        mut value: impl FnMut(usize) -> Result<T>,
    ) -> Result<Self> {
        let mut values = KVVec::with_capacity(length, GFP_KERNEL).map_err(|_| Errno::ENOMEM)?;

        for index in 0..length {
            values
                .push(value(index)?, GFP_KERNEL)
                .map_err(|_| Errno::ENOMEM)?;
        }

        Ok(Self(values))
    }
}

impl<T> Deref for Slice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}
