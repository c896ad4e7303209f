// SPDX-License-Identifier: GPL-2.0

//! Conversions between the kernel's errors and those of `core/`.

use crate::core::errno::Errno;
use kernel::{
    alloc::AllocError,
    error::Error, //
};

impl From<Error> for Errno {
    fn from(error: Error) -> Self {
        Self::from_return_value(error.to_errno())
    }
}

impl From<AllocError> for Errno {
    fn from(_: AllocError) -> Self {
        Self::ENOMEM
    }
}

impl From<Errno> for Error {
    fn from(error: Errno) -> Self {
        Self::from_errno(error.to_return_value())
    }
}
