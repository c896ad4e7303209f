// SPDX-License-Identifier: GPL-2.0

//! Error numbers, as the rest of the kernel knows them.

use core::num::NonZeroU16;

/// Why an operation failed: a positive number from `errno.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(NonZeroU16);

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        impl Errno {
            $(
                $(#[$doc])*
                pub const $name: Self = Self(match NonZeroU16::new($number) {
                    Some(number) => number,
                    None => panic!("an error number is not zero"),
                });
            )*
        }
    };
}

errnos! {
    /// Operation not permitted: the metadata is read-only.
    EPERM = 1;
    /// Input/output error.
    EIO = 5;
    /// Not now: it would have to wait.
    EAGAIN = 11;
    /// Out of memory.
    ENOMEM = 12;
    /// A block is not where it belongs.
    ENOTBLK = 15;
    /// Device or resource busy.
    EBUSY = 16;
    /// The object exists.
    EEXIST = 17;
    /// Invalid argument.
    EINVAL = 22;
    /// No space left: no free data or metadata block.
    ENOSPC = 28;
    /// No such entry.
    ENODATA = 61;
    /// A number got too large.
    EOVERFLOW = 75;
    /// A checksum does not match.
    EILSEQ = 84;
    /// The operation is not supported in this state.
    EOPNOTSUPP = 95;
}

impl Errno {
    /// The error for a kernel return value; a value that is no error number counts as `EIO`.
    pub fn from_return_value(value: i32) -> Self {
        u16::try_from(value.unsigned_abs())
            .ok()
            .and_then(NonZeroU16::new)
            .map_or(Self::EIO, Self)
    }

    /// The number as functions of the kernel return it: negative.
    pub fn to_return_value(self) -> i32 {
        i32::from(self.0.get()).wrapping_neg()
    }
}

/// The outcome of an operation that can fail with an error number.
pub type Result<T = ()> = core::result::Result<T, Errno>;
