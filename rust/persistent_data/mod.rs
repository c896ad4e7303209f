// SPDX-License-Identifier: GPL-2.0

//! Metadata that change by transactions, on the kernel's `dm-persistent-data`.
//!
//! A [`BlockManager`] caches the blocks of a metadata device. A [`TransactionManager`] on top of it
//! has two space maps, which count how often each block of the metadata device and of a data device
//! is referenced, and is what trees change through: [`Tree`] and [`NestedTree`]. What a commit made
//! durable is never changed in place but for one block, the superblock; until the next commit, all
//! that was changed since can be given up.
//!
//! The library has no locks of its own. Here, whatever changes something borrows the transaction
//! manager exclusively, and whatever reads borrows it shared. The exception is [`NonBlocking`], which
//! looks into trees that it borrows, beside whatever else happens. That is sound for the reason that
//! only what borrows a tree exclusively changes the tree's nodes: those that trees have in common
//! count as referenced more than once, and are copied instead of being changed.
//!
//! All of this sleeps, and none of it may be called where bios are mapped, with the exception of
//! [`NonBlocking`], again, which does no I/O, and sleeps for locks only.
//!
//! # Damaged metadata
//!
//! Each block has a checksum and its own number in it, which are checked when it is read. Blocks that
//! pass, and still make no sense, are made out before the library gets to act on them: it stops the
//! kernel, or goes astray in its memory, over nodes of a wrong size, trees that contain themselves, and
//! reference counts that are missing. So the nodes of trees are checked here, too, and reference counts
//! before they are changed; and failures where the library's callbacks cannot report any are kept until
//! the call returns. What space maps consist of themselves is beyond that.
//!
//! C headers: [`drivers/md/persistent-data/`](srctree/drivers/md/persistent-data/)

mod block_manager;
mod btree;
mod node;
mod non_blocking;
mod rw_lock;
mod space_map;
mod transaction_manager;
mod trim;
mod value_type;

pub(crate) use block_manager::{
    BlockBytes,
    BlockManager,
    Record,
    Validator,
    BLOCK_SIZE, //
};
pub(crate) use btree::{
    DataReference,
    NestedTree,
    Tree,
    Value, //
};
pub(crate) use non_blocking::{
    NonBlocking,
    TryError, //
};
pub(crate) use rw_lock::{
    new_rw_lock,
    RwLock, //
};
pub(crate) use transaction_manager::{
    format,
    Roots,
    TransactionManager, //
};

use crate::core::errno::{
    Errno,
    Result, //
};
use kernel::ffi::c_int;

/// The outcome that a function of the library returned. Positive numbers are no errors.
fn to_result(value: c_int) -> Result {
    if value < 0 {
        Err(Errno::from_return_value(value))
    } else {
        Ok(())
    }
}
