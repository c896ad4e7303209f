// SPDX-License-Identifier: GPL-2.0

//! What trees tell the space maps when values are copied or dropped.

use super::{
    space_map::SpaceMap,
    to_result,
    transaction_manager::TransactionManager,
    BLOCK_SIZE, //
};
use crate::{
    bindings,
    core::errno::{
        Errno,
        Result, //
    }, //
};
use core::{
    cell::Cell,
    ptr, //
};
use kernel::ffi::{
    c_int,
    c_uint,
    c_void, //
};

/// Bytes of the values that references are counted for: numbers of blocks.
const REFERENCE_SIZE: usize = size_of::<u64>();

/// What a tree is to a call into the library.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// Values of so many bytes, which refer to nothing.
    Plain(u32),
    /// Values that refer to data blocks.
    References,
    /// Trees of such values.
    Nested,
    /// The same trees, of which the values are the roots of those in them.
    Roots,
}

impl Shape {
    const fn levels(self) -> u32 {
        match self {
            Self::Nested => 2,
            Self::Plain(_) | Self::References | Self::Roots => 1,
        }
    }

    const fn value_size(self) -> u32 {
        match self {
            Self::Plain(size) => size,
            Self::References | Self::Nested | Self::Roots => REFERENCE_SIZE as u32,
        }
    }

    /// What the library needs to look into such a tree.
    pub(super) fn to_read(
        self,
        manager: *mut bindings::dm_transaction_manager,
    ) -> bindings::dm_btree_info {
        bindings::dm_btree_info {
            tm: manager,
            levels: self.levels(),
            value_type: bindings::dm_btree_value_type {
                context: ptr::null_mut(),
                size: self.value_size(),
                inc: None,
                dec: None,
                equal: None,
            },
        }
    }

    /// What the library needs to change such a tree.
    fn to_change(self, context: &Context<'_>) -> bindings::dm_btree_info {
        let mut info = self.to_read(context.manager);

        info.value_type.context = ptr::from_ref(context).cast_mut().cast();
        match self {
            Self::Plain(_) => {}
            Self::References | Self::Nested => {
                info.value_type.inc = Some(inc_data);
                info.value_type.dec = Some(dec_data);
                info.value_type.equal = Some(same_data);
            }
            Self::Roots => {
                info.value_type.inc = Some(inc_roots);
                info.value_type.dec = Some(dec_roots);
                info.value_type.equal = Some(same_root);
            }
        }
        info
    }
}

/// What the callbacks use while a tree is being changed.
struct Context<'a> {
    manager: *mut bindings::dm_transaction_manager,
    data: &'a SpaceMap,
    metadata: &'a SpaceMap,
    /// Which data block a value refers to.
    data_block: fn([u8; REFERENCE_SIZE]) -> u64,
    /// What the library needs to delete trees that are values of others.
    trees: Cell<*mut bindings::dm_btree_info>,
    /// The first thing that went wrong. The library does not want to know.
    outcome: Cell<Result>,
}

impl Context<'_> {
    fn note(&self, outcome: Result) {
        if self.outcome.get().is_ok() {
            self.outcome.set(outcome);
        }
    }
}

/// Changes a tree by `change`, which returns what a function of the library did that was given the
/// pointer.
///
/// Fails as `change` does, or as updating reference counts does.
///
/// `data_block` says which data block a value refers to, if values of this tree refer to any.
pub(super) fn change(
    manager: &mut TransactionManager,
    shape: Shape,
    data_block: fn([u8; REFERENCE_SIZE]) -> u64,
    change: impl FnOnce(*mut bindings::dm_btree_info) -> c_int,
) -> Result {
    let context = Context {
        manager: manager.as_ptr(),
        data: manager.data_map(),
        metadata: manager.metadata_map(),
        data_block,
        trees: Cell::new(ptr::null_mut()),
        outcome: Cell::new(Ok(())),
    };
    let mut trees = Shape::References.to_change(&context);
    context.trees.set(&raw mut trees);
    let mut info = shape.to_change(&context);

    let outcome = to_result(change(&raw mut info));
    // What the library says is mere consequence if something went wrong before.
    context.outcome.get().and(outcome)
}

/// What the callbacks are given.
///
/// # Safety
///
/// `context` must be what [`Shape::to_change`] made of a context that lives for `'a`.
unsafe fn context<'a>(context: *mut c_void) -> &'a Context<'a> {
    // SAFETY: By the safety requirement. Nobody has it exclusively.
    unsafe { &*context.cast::<Context<'a>>() }
}

/// Passes over numbers in a node as runs of consecutive ones.
///
/// Fails with `EILSEQ` if there are more of them than the node has room for, and as `each` does.
///
/// # Safety
///
/// `values` must point into a node, of which the values can be read.
unsafe fn for_each_run(
    values: *const c_void,
    count: c_uint,
    number: impl Fn([u8; REFERENCE_SIZE]) -> u64,
    mut each: impl FnMut(u64, u64) -> Result,
) -> Result {
    let values = values.cast::<[u8; REFERENCE_SIZE]>();
    let count = count as usize;
    // Nodes are blocks, and blocks are aligned to their size in memory.
    let offset = values.addr() % BLOCK_SIZE;
    if count > (BLOCK_SIZE - offset) / REFERENCE_SIZE {
        return Err(Errno::EILSEQ);
    }

    let mut run = None;
    for index in 0..count {
        // SAFETY: By the safety requirement, and it lies within the node, as was just checked.
        let value = number(unsafe { values.wrapping_add(index).read() });
        let next = value.checked_add(1).ok_or(Errno::EILSEQ)?;
        run = Some(match run {
            Some((begin, end)) if end == value => (begin, next),
            Some((begin, end)) => {
                each(begin, end)?;
                (value, next)
            }
            None => (value, next),
        });
    }
    run.map_or(Ok(()), |(begin, end)| each(begin, end))
}

/// Checks that each block from `begin` up to `end` exists, and is referenced.
///
/// The library must not be asked to count on if the bitmap says that there are many references, but
/// nothing says how many.
fn check_referenced(map: &SpaceMap, begin: u64, end: u64) -> Result {
    for block in begin..end {
        // SAFETY: The transaction manager is borrowed exclusively by `change`.
        match unsafe { map.count(block) } {
            Ok(0) | Err(Errno::ENODATA | Errno::EINVAL) => return Err(Errno::EILSEQ),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// References the data blocks of `count` values once more.
///
/// # Safety
///
/// Only to be called by the library, for an info that [`change`] made.
unsafe extern "C" fn inc_data(raw: *mut c_void, values: *const c_void, count: c_uint) {
    // SAFETY: By the safety requirement.
    let context = unsafe { context(raw) };
    let each = |begin, end| {
        check_referenced(context.data, begin, end)?;
        // SAFETY: The transaction manager is borrowed exclusively by `change`.
        unsafe { context.data.increment(begin, end) }
    };
    // SAFETY: The library hands in values of a node.
    context.note(unsafe { for_each_run(values, count, context.data_block, each) });
}

/// References the data blocks of `count` values once less.
///
/// # Safety
///
/// As that of [`inc_data`].
unsafe extern "C" fn dec_data(raw: *mut c_void, values: *const c_void, count: c_uint) {
    // SAFETY: By the safety requirement.
    let context = unsafe { context(raw) };
    let each = |begin, end| {
        check_referenced(context.data, begin, end)?;
        // SAFETY: The transaction manager is borrowed exclusively by `change`.
        unsafe { context.data.decrement(begin, end) }
    };
    // SAFETY: The library hands in values of a node.
    context.note(unsafe { for_each_run(values, count, context.data_block, each) });
}

/// Whether two values refer to the same data block.
///
/// # Safety
///
/// As that of [`inc_data`].
unsafe extern "C" fn same_data(
    raw: *mut c_void,
    one: *const c_void,
    other: *const c_void,
) -> c_int {
    // SAFETY: By the safety requirement.
    let context = unsafe { context(raw) };
    // SAFETY: The library hands in a value, and any alignment will do.
    let one = unsafe { one.cast::<[u8; REFERENCE_SIZE]>().read() };
    // SAFETY: As before.
    let other = unsafe { other.cast::<[u8; REFERENCE_SIZE]>().read() };

    c_int::from((context.data_block)(one) == (context.data_block)(other))
}

/// References the trees whose roots are in `count` values once more.
///
/// # Safety
///
/// As that of [`inc_data`].
unsafe extern "C" fn inc_roots(raw: *mut c_void, values: *const c_void, count: c_uint) {
    // SAFETY: By the safety requirement.
    let context = unsafe { context(raw) };
    let each = |begin, end| {
        check_referenced(context.metadata, begin, end)?;
        // SAFETY: The transaction manager is borrowed exclusively by `change`.
        unsafe { context.metadata.increment(begin, end) }
    };
    // SAFETY: The library hands in values of a node.
    context.note(unsafe { for_each_run(values, count, u64::from_le_bytes, each) });
}

/// References the trees whose roots are in `count` values once less, and deletes those that nobody
/// else refers to.
///
/// # Safety
///
/// As that of [`inc_data`].
unsafe extern "C" fn dec_roots(raw: *mut c_void, values: *const c_void, count: c_uint) {
    // SAFETY: By the safety requirement.
    let context = unsafe { context(raw) };
    let each = |begin, end| {
        check_referenced(context.metadata, begin, end)?;
        for root in begin..end {
            // SAFETY: `trees` describes the trees of the roots, and the transaction manager is
            // borrowed exclusively by `change`.
            let outcome = unsafe { bindings::dm_btree_del(context.trees.get(), root) };
            to_result(outcome)?;
        }
        Ok(())
    };
    // SAFETY: The library hands in values of a node.
    context.note(unsafe { for_each_run(values, count, u64::from_le_bytes, each) });
}

/// Whether two values are the same root.
///
/// # Safety
///
/// As that of [`inc_data`].
unsafe extern "C" fn same_root(
    _context: *mut c_void,
    one: *const c_void,
    other: *const c_void,
) -> c_int {
    // SAFETY: The library hands in a value, and any alignment will do.
    let one = unsafe { one.cast::<[u8; REFERENCE_SIZE]>().read() };
    // SAFETY: As before.
    let other = unsafe { other.cast::<[u8; REFERENCE_SIZE]>().read() };

    c_int::from(one == other)
}
