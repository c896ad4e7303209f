// SPDX-License-Identifier: GPL-2.0

//! Bindings to the C side.
//!
//! Types and functions of the kernel at large come from [`kernel::bindings`]; those of device-mapper,
//! of its libraries, and of our own helpers are generated from `bindings_helper.h` when the module
//! is built.
//!
//! Only the modules of `rust/` use these; they make safe abstractions of them.

mod layout;

pub(crate) use layout::check_layout;

#[allow(
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::arithmetic_side_effects,
    clippy::cast_lossless,
    clippy::indexing_slicing,
    clippy::multiple_unsafe_ops_per_block,
    clippy::ptr_as_ptr,
    clippy::undocumented_unsafe_blocks,
    reason = "generated from C"
)]
mod generated {
    use kernel::bindings::*;
    use pin_init::MaybeZeroable;

    include!(concat!(
        env!("DM_THIN_RS_OBJ"),
        "/rust/bindings/bindings_generated.rs"
    ));
}

pub(crate) use generated::*;
pub(crate) use kernel::bindings::*;
