// SPDX-License-Identifier: GPL-2.0

//! Telling a block device that a part of it is not needed: the one thing that std has no call for.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ffi::c_ulong;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

extern "C" {
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
}

/// `BLKDISCARD` of `include/uapi/linux/fs.h`, `_IO(0x12, 119)`; `_IO` has a bit set on a few architectures.
const BLKDISCARD: c_ulong = if cfg!(any(
    target_arch = "mips",
    target_arch = "mips64",
    target_arch = "powerpc",
    target_arch = "powerpc64",
    target_arch = "sparc64"
)) {
    0x2000_1277
} else {
    0x1277
};

/// Discards `length` bytes of a block device from byte `begin` on. What is there is lost.
///
/// # Errors
///
/// What the kernel says: not a block device, a device that cannot discard, a range beyond its end.
pub fn discard(device: &File, begin: u64, length: u64) -> io::Result<()> {
    let range = [begin, length];
    // SAFETY: the descriptor is open as long as `device` is borrowed, and BLKDISCARD reads two
    // 64-bit numbers from its argument, which is where `range` lives until after the call.
    let result = unsafe { ioctl(device.as_raw_fd(), BLKDISCARD, range.as_ptr()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
