// SPDX-License-Identifier: GPL-2.0

//! What `core/` needs from outside.
//!
//! On the host, where `core/` is tested, there are other implementations of the same names.

pub(crate) use crate::{
    irq_lock::{
        new_irq_lock,
        IrqLock, //
    },
    mempool::{
        CellPool,
        PoolBox, //
    },
    slice::Slice,
    task::{
        park,
        WakeToken, //
    },
    wait_list::WaitList, //
};
