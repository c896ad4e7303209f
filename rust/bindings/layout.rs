// SPDX-License-Identifier: GPL-2.0

//! A check of the bindings.

use super::*;
use core::{
    mem::{
        offset_of,
        size_of, //
    },
    slice, //
};
use kernel::{
    error::{
        code::EINVAL,
        Result, //
    },
    pr_err, //
};

macro_rules! layout {
    ($($name:ident: [$($field:ident),* $(,)?];)*) => {
        &[$(
            (concat!("size of ", stringify!($name)), size_of::<$name>()),
            $((
                concat!(stringify!($name), ".", stringify!($field)),
                offset_of!($name, $field),
            ),)*
        )*]
    };
}

/// Sizes and offsets, in the order of rust/helpers/layout.c.
static LAYOUT: &[(&str, usize)] = layout! {
    dm_target: [table, type_, begin, len, max_io_len, num_flush_bios, num_discard_bios,
        num_write_zeroes_bios, per_io_data_size, private, error];
    target_type: [features, name, module, version, ctr, dtr, map, end_io, presuspend,
        presuspend_undo, postsuspend, preresume, resume, status, message, iterate_devices,
        io_hints];
    dm_dev: [bdev, bdev_file];
    dm_io_region: [bdev, sector, count];
    dm_kcopyd_throttle: [];
    bio: [bi_opf, bi_status, bi_iter, bi_end_io, bi_private];
    bio_set: [];
    mempool_t: [];
    queue_limits: [max_sectors, io_min, io_opt, discard_granularity, max_hw_discard_sectors];
    work_struct: [];
    delayed_work: [];
    spinlock_t: [];
};

/// Compares the layout of the types that we access with what the C compiler made of them.
///
/// Bindgen has them from another compiler than the one that built the kernel. Fails with `EINVAL`.
pub(crate) fn check_layout() -> Result {
    let mut count = 0;
    // SAFETY: `count` may be written.
    let theirs = unsafe { dm_thin_rs_layout(&mut count) };
    // SAFETY: That many numbers are there, and they never change.
    let theirs = unsafe { slice::from_raw_parts(theirs, count) };

    if theirs.len() != LAYOUT.len() {
        pr_err!(
            "{} types and fields are known in Rust, and {} in C\n",
            LAYOUT.len(),
            count
        );
        return Err(EINVAL);
    }
    for ((what, in_rust), in_c) in LAYOUT.iter().zip(theirs) {
        if in_rust != in_c {
            pr_err!("{what}: {in_rust} in Rust, {in_c} in C\n");
            return Err(EINVAL);
        }
    }
    Ok(())
}
