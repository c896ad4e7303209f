// SPDX-License-Identifier: GPL-2.0

//! A lock that many can hold to read, or one to write, and that is slept for.
//!
//! C header: [`include/linux/rwsem.h`](srctree/include/linux/rwsem.h)

use crate::bindings;
use core::{
    cell::UnsafeCell,
    ops::{
        Deref,
        DerefMut, //
    }, //
};
use kernel::{
    prelude::*,
    sync::LockClassKey,
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

/// Makes an initializer of an [`RwLock`] with a lock class of its own.
macro_rules! new_rw_lock {
    ($value:expr, $name:literal) => {
        $crate::persistent_data::RwLock::new(
            $value,
            ::kernel::c_str!($name),
            ::kernel::static_lock_class!(),
        )
    };
}
pub(crate) use new_rw_lock;

/// A value that many can read, or one can change.
///
/// # Invariants
///
/// `value` is only reached by who holds `semaphore`, which is initialised, accordingly.
#[pin_data]
pub(crate) struct RwLock<T> {
    #[pin]
    semaphore: Opaque<bindings::rw_semaphore>,
    value: UnsafeCell<T>,
}

// SAFETY: Whoever has the lock has the value.
unsafe impl<T: Send> Send for RwLock<T> {}
// SAFETY: References to the value are handed to several threads, and the value by reference to one
// that may replace it.
unsafe impl<T: Send + Sync> Sync for RwLock<T> {}

impl<T> RwLock<T> {
    /// A lock nobody holds. See [`new_rw_lock`].
    pub(crate) fn new(
        value: T,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: The memory is free, does not move, and name and key live for ever.
            semaphore <- Opaque::ffi_init(|semaphore| unsafe {
                bindings::__init_rwsem(semaphore, name.as_char_ptr(), key.as_ptr())
            }),
            value: UnsafeCell::new(value),
        })
    }

    /// Waits until nobody changes the value. Sleeps.
    pub(crate) fn read(&self) -> ReadGuard<'_, T> {
        // SAFETY: By the type invariant.
        unsafe { bindings::down_read(self.semaphore.get()) };
        // INVARIANT: It was just taken.
        ReadGuard {
            lock: self,
            _thread: NotThreadSafe,
        }
    }

    /// The value, unless somebody changes it or is about to.
    pub(crate) fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        // SAFETY: By the type invariant.
        let taken = unsafe { bindings::down_read_trylock(self.semaphore.get()) };
        // INVARIANT: It was just taken if that is what it says.
        (taken != 0).then(|| ReadGuard {
            lock: self,
            _thread: NotThreadSafe,
        })
    }

    /// Waits until nobody uses the value. Sleeps.
    pub(crate) fn write(&self) -> WriteGuard<'_, T> {
        // SAFETY: By the type invariant.
        unsafe { bindings::down_write(self.semaphore.get()) };
        // INVARIANT: It was just taken.
        WriteGuard {
            lock: self,
            _thread: NotThreadSafe,
        }
    }
}

/// The right to read.
///
/// # Invariants
///
/// This thread holds the lock to read.
#[must_use]
pub(crate) struct ReadGuard<'a, T> {
    lock: &'a RwLock<T>,
    _thread: NotThreadSafe,
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant nobody writes.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::up_read(self.lock.semaphore.get()) };
    }
}

/// The right to read and write.
///
/// # Invariants
///
/// This thread holds the lock to write.
#[must_use]
pub(crate) struct WriteGuard<'a, T> {
    lock: &'a RwLock<T>,
    _thread: NotThreadSafe,
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant nobody else has it.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: By the type invariant nobody else has it.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::up_write(self.lock.semaphore.get()) };
    }
}
