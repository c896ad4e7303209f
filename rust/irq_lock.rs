// SPDX-License-Identifier: GPL-2.0

//! Spin locks for what is used in interrupts, too.
//!
//! C header: [`include/linux/spinlock.h`](srctree/include/linux/spinlock.h)

use crate::{
    bindings,
    core::errno::{
        Errno,
        Result, //
    }, //
};
use core::pin::Pin;
use kernel::{
    ffi::{
        c_char,
        c_ulong, //
    },
    prelude::*,
    sync::{
        lock::{
            Backend,
            Guard,
            Lock, //
        },
        LockClassKey, //
    }, //
};

/// A spin lock that keeps interrupts off while it is held.
pub(crate) struct IrqLock<T>(Pin<KBox<Lock<T, IrqSave>>>);

/// Access to what an [`IrqLock`] protects.
pub(crate) type IrqGuard<'a, T> = Guard<'a, T, IrqSave>;

impl<T> IrqLock<T> {
    /// Puts `value` under a lock of the given lockdep class; see
    /// [`new_irq_lock!`](crate::irq_lock::new_irq_lock). Sleeps. Fails with `ENOMEM`.
    // Not inlined: values can be large, and the stack is small.
    #[inline(never)]
    pub(crate) fn with_class(
        value: T,
        name: &'static CStr,
        class: Pin<&'static LockClassKey>,
    ) -> Result<Self> {
        KBox::pin_init(Lock::new(value, name, class), GFP_KERNEL)
            .map(Self)
            .map_err(Errno::from)
    }

    /// Takes the lock. Any context.
    #[inline]
    pub(crate) fn lock(&self) -> IrqGuard<'_, T> {
        self.0.lock()
    }
}

/// Puts a value under an [`IrqLock`] with a lockdep class of its own: `new_irq_lock!(value, "name")`.
macro_rules! new_irq_lock {
    ($value:expr, $name:literal $(,)?) => {
        $crate::irq_lock::IrqLock::with_class(
            $value,
            ::kernel::c_str!($name),
            ::kernel::static_lock_class!(),
        )
    };
}
pub(crate) use new_irq_lock;

/// Spin locks, locked by `spin_lock_irqsave`.
pub(crate) struct IrqSave;

// SAFETY: A `spinlock_t` excludes everybody else between `lock` and `unlock`. `relock` is the
// default one.
unsafe impl Backend for IrqSave {
    type State = bindings::spinlock_t;
    /// Whether interrupts were on.
    type GuardState = c_ulong;

    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut bindings::lock_class_key) {
        // SAFETY: By the requirements of this function.
        unsafe { bindings::dm_thin_rs_spin_lock_init(ptr, name, key) };
    }

    #[inline]
    unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
        // SAFETY: By the requirements of this function the lock is initialised.
        unsafe { bindings::dm_thin_rs_spin_lock_irqsave(ptr) }
    }

    unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
        let mut state = 0;
        // SAFETY: By the requirements of this function the lock is initialised.
        let locked = unsafe { bindings::dm_thin_rs_spin_trylock_irqsave(ptr, &mut state) };

        locked.then_some(state)
    }

    #[inline]
    unsafe fn unlock(ptr: *mut Self::State, guard_state: &Self::GuardState) {
        // SAFETY: By the requirements of this function the lock is held, and was locked by `lock`,
        // which returned the state.
        unsafe { bindings::dm_thin_rs_spin_unlock_irqrestore(ptr, *guard_state) };
    }

    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // SAFETY: By the requirements of this function the lock is initialised.
        unsafe { bindings::dm_thin_rs_assert_spin_locked(ptr) };
    }
}
