// SPDX-License-Identifier: GPL-2.0

//! Boxes that can be had even if there is no memory.
//!
//! C header: [`include/linux/mempool.h`](srctree/include/linux/mempool.h)

use crate::{
    bindings,
    core::errno::{
        Errno,
        Result, //
    }, //
};
use core::{
    marker::PhantomData,
    mem::{
        self,
        align_of,
        size_of, //
    },
    ops::{
        Deref,
        DerefMut, //
    },
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    error::to_result,
    ffi::c_int,
    prelude::*,
    types::Opaque, //
};

/// A `T` in memory that [`CellPool`]s of this type have to do with.
///
/// Dropping it frees the memory, any context; [`CellPool::put`] refills a pool's reserve.
///
/// # Invariants
///
/// Points to a valid `T` that nobody else refers to, in memory from `kmalloc`.
pub(crate) struct PoolBox<T>(NonNull<T>);

// SAFETY: A box is as good as what is in it.
unsafe impl<T: Send> Send for PoolBox<T> {}
// SAFETY: As above.
unsafe impl<T: Sync> Sync for PoolBox<T> {}

impl<T> Deref for PoolBox<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for PoolBox<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for PoolBox<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, and nobody will refer to it again.
        unsafe { ptr::drop_in_place(self.0.as_ptr()) };
        // SAFETY: By the type invariant the memory is from `kmalloc`.
        unsafe { bindings::kfree(self.0.as_ptr().cast()) };
    }
}

/// A reserve of memory for [`PoolBox`]es.
///
/// # Invariants
///
/// The pool is initialised, and its elements are from `kmalloc` and have room for a `T`.
pub(crate) struct CellPool<T> {
    pool: Pin<KBox<Opaque<bindings::mempool_t>>>,
    _elements: PhantomData<fn() -> T>,
}

// SAFETY: A pool can be used by any thread; nothing of `T` is in it.
unsafe impl<T> Send for CellPool<T> {}
// SAFETY: Pools have locks of their own.
unsafe impl<T> Sync for CellPool<T> {}

impl<T> CellPool<T> {
    /// Makes a pool that keeps memory for `reserve` boxes at hand. Sleeps. Fails with `ENOMEM`.
    pub(crate) fn new(reserve: usize) -> Result<Self> {
        const {
            // What `kmalloc` gives is aligned to that.
            assert!(align_of::<T>() <= align_of::<u64>());
            assert!(size_of::<T>() != 0);
        }
        let reserve = c_int::try_from(reserve).map_err(|_| Errno::EINVAL)?;
        let pool = KBox::pin_init(
            // Initialising one expects zeroes.
            Opaque::try_ffi_init(|pool: *mut bindings::mempool_t| {
                // SAFETY: `pool` points to memory for a pool.
                unsafe { pool.write_bytes(0, 1) };
                // SAFETY: As above; it does not move later.
                let result =
                    unsafe { bindings::dm_thin_rs_mempool_init(pool, reserve, size_of::<T>()) };
                to_result(result)
            }),
            GFP_KERNEL,
        )?;

        // INVARIANT: It was just initialised so.
        Ok(Self {
            pool,
            _elements: PhantomData,
        })
    }

    /// Puts `value` in a box if there is memory, else drops it. Does not sleep.
    #[inline]
    pub(crate) fn try_get(&self, value: T) -> Option<PoolBox<T>> {
        // SAFETY: By the type invariant the pool is initialised.
        let memory = unsafe { bindings::dm_thin_rs_mempool_try_alloc(self.pool.get()) };
        let memory = NonNull::new(memory.cast::<T>())?;

        // SAFETY: By the type invariant there is room for a `T`, and nobody else uses it.
        unsafe { memory.write(value) };
        // INVARIANT: It was just written.
        Some(PoolBox(memory))
    }

    /// Takes a box, of this pool or another, and drops what is in it. Any context.
    #[inline]
    pub(crate) fn put(&self, cell: PoolBox<T>) {
        let memory = cell.0;

        mem::forget(cell);
        // SAFETY: By the type invariant of the box, which is gone.
        unsafe { ptr::drop_in_place(memory.as_ptr()) };
        // SAFETY: The pool is initialised; the memory is from `kmalloc` and as large as that of its
        // elements.
        unsafe { bindings::mempool_free(memory.as_ptr().cast(), self.pool.get()) };
    }
}

impl<T> Drop for CellPool<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the pool is initialised, and nobody uses it any more. Boxes
        // do not need it.
        unsafe { bindings::mempool_exit(self.pool.get()) };
    }
}
