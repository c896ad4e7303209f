// SPDX-License-Identifier: GPL-2.0

//! Registered kinds of target, and the functions that device-mapper calls for their targets.
//!
//! C header: [`include/linux/device-mapper.h`](srctree/include/linux/device-mapper.h)

use super::{
    arguments::Arguments,
    attachments::Attachments,
    construct::Construct,
    device::DeviceVisitor,
    limits::QueueLimits,
    link::TableHandle,
    status::{
        StatusRequest,
        StatusWriter, //
    },
    target::{
        MapBio,
        Target, //
    },
    target_ref::TargetRef, //
};
use crate::{
    bindings,
    bio::BlockStatus,
    core::errno::{
        Errno,
        Result, //
    },
    log,
    task::{
        self,
        Serve, //
    }, //
};
use core::{
    ffi::c_void,
    marker::PhantomData,
    ops::{
        BitOr,
        ControlFlow, //
    },
    pin::Pin,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    ffi::{
        c_char,
        c_int,
        c_uint, //
    },
    prelude::*,
    types::Opaque, //
};

/// What is special about a kind of target.
#[derive(Clone, Copy)]
pub(crate) struct Features(u64);

impl Features {
    /// Nothing.
    pub(crate) const NONE: Self = Self(0);
    /// A table with such a target has no other.
    pub(crate) const SINGLETON: Self = Self(bindings::DM_TARGET_SINGLETON as u64);
    /// It does not do for devices that are read-only.
    pub(crate) const ALWAYS_WRITEABLE: Self = Self(bindings::DM_TARGET_ALWAYS_WRITEABLE as u64);
    /// A device that has had such a target has no other kind of target later.
    pub(crate) const IMMUTABLE: Self = Self(bindings::DM_TARGET_IMMUTABLE as u64);
    /// What is written to it encrypted reads as it was written.
    pub(crate) const PASSES_CRYPTO: Self = Self(bindings::DM_TARGET_PASSES_CRYPTO as u64);
    /// It takes bios that are to fail rather than wait.
    pub(crate) const NOWAIT: Self = Self(bindings::DM_TARGET_NOWAIT as u64);
}

impl BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How a kind of target is known.
#[derive(Clone, Copy)]
pub(crate) struct Description {
    /// The name that tables call it by.
    pub(crate) name: &'static CStr,
    /// Its version, for user space: major, minor, patch level.
    pub(crate) version: [u32; 3],
    /// What is special about it.
    pub(crate) features: Features,
}

/// Keeps a kind of target registered.
///
/// Device-mapper counts the module's users while there are tables with such targets, so that the
/// module, and with it this, does not go before them.
///
/// # Invariants
///
/// The kind is registered.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: Target> {
    #[pin]
    kind: Opaque<bindings::target_type>,
    _target: PhantomData<T>,
}

// SAFETY: It can be unregistered by any thread.
unsafe impl<T: Target> Send for Registration<T> {}
// SAFETY: Nothing can be done with a reference to it.
unsafe impl<T: Target> Sync for Registration<T> {}

impl<T: Target> Registration<T> {
    /// Registers a kind of target of `module`. Fails with `EEXIST` if its name is taken.
    pub(crate) fn new(
        module: &'static ThisModule,
        description: Description,
    ) -> impl PinInit<Self, Error> {
        Self::register(bindings::target_type {
            features: description.features.0,
            name: description.name.as_char_ptr(),
            module: module.as_ptr(),
            version: description.version,
            ctr: Some(construct::<T>),
            dtr: Some(destroy::<T>),
            map: Some(map::<T>),
            presuspend: Some(presuspend::<T>),
            presuspend_undo: Some(presuspend_undo::<T>),
            postsuspend: Some(postsuspend::<T>),
            preresume: Some(preresume::<T>),
            resume: Some(resume::<T>),
            status: Some(status::<T>),
            message: Some(message::<T>),
            iterate_devices: Some(iterate_devices::<T>),
            io_hints: Some(io_hints::<T>),
            ..pin_init::zeroed()
        })
    }

    /// As [`Self::new`], for a kind of target whose bios are served by tasks.
    pub(crate) fn new_serving(
        module: &'static ThisModule,
        description: Description,
    ) -> impl PinInit<Self, Error>
    where
        T: Serve,
    {
        Self::register(bindings::target_type {
            features: description.features.0,
            name: description.name.as_char_ptr(),
            module: module.as_ptr(),
            version: description.version,
            ctr: Some(construct_serving::<T>),
            dtr: Some(destroy::<T>),
            map: Some(map_serving::<T>),
            end_io: Some(end_io::<T>),
            presuspend: Some(presuspend::<T>),
            presuspend_undo: Some(presuspend_undo::<T>),
            postsuspend: Some(postsuspend::<T>),
            preresume: Some(preresume::<T>),
            resume: Some(resume::<T>),
            status: Some(status::<T>),
            message: Some(message::<T>),
            iterate_devices: Some(iterate_devices::<T>),
            io_hints: Some(io_hints::<T>),
            ..pin_init::zeroed()
        })
    }

    fn register(kind: bindings::target_type) -> impl PinInit<Self, Error> {
        let name = kind.name;

        try_pin_init!(Self {
            kind <- Opaque::try_ffi_init(move |slot: *mut bindings::target_type| {
                // SAFETY: `slot` points to memory for it.
                unsafe { slot.write(kind) };
                // SAFETY: It stays where it is until it is unregistered, and its functions are for
                // targets of its own.
                to_result(unsafe { bindings::dm_register_target(slot) }).inspect_err(|_| {
                    // SAFETY: A description has a name, for ever.
                    let name = unsafe { CStr::from_char_ptr(name) };
                    log::error!(
                        log::Text(name.to_bytes().escape_ascii());
                        "cannot register this target: another module has it, unload that one first or use coexist=1"
                    );
                })
            }),
            _target: PhantomData,
        })
    }
}

#[pinned_drop]
impl<T: Target> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant it is registered. It is not in use, since those tables use the
        // module.
        unsafe { bindings::dm_unregister_target(self.kind.get()) };
    }
}

/// What is behind `private` of a target.
struct Private<T> {
    target: Pin<KBox<T>>,
    _table: RevokedOnDrop,
    attachments: Attachments,
}

/// The handle of a table that goes when this is dropped.
struct RevokedOnDrop(TableHandle);

impl Drop for RevokedOnDrop {
    fn drop(&mut self) {
        self.0.revoke();
    }
}

/// What `construct` made of a target, and device-mapper's side of it.
///
/// # Safety
///
/// For `'a`, `ti` must be a target that [`construct`] has succeeded for, with the same `T`, and that
/// was not passed to [`destroy`].
unsafe fn target_of<'a, T: Target>(
    ti: *mut bindings::dm_target,
) -> (&'a Private<T>, TargetRef<'a>) {
    // SAFETY: By the safety requirement.
    let private = unsafe { (*ti).private };
    // SAFETY: `construct` left a `Private<T>` there.
    let private = unsafe { &*private.cast::<Private<T>>() };
    // SAFETY: By the safety requirement.
    (private, unsafe { reference(ti) })
}

/// # Safety
///
/// `ti` must be a valid target of a valid table for `'a`.
unsafe fn reference<'a>(ti: *mut bindings::dm_target) -> TargetRef<'a> {
    // SAFETY: What is valid is not null.
    let ti = unsafe { NonNull::new_unchecked(ti) };
    // SAFETY: By the safety requirement.
    unsafe { TargetRef::from_raw(ti) }
}

// The functions below are for device-mapper, which calls them for targets of the kind that has them:
// `construct` first, `destroy` last.

/// # Safety
///
/// `ti` must be a target that is being built and that nobody else accesses; `argc` and `argv` must
/// be as [`Arguments::from_raw`] wants them.
unsafe extern "C" fn construct<T: Target>(
    ti: *mut bindings::dm_target,
    argc: c_uint,
    argv: *mut *mut c_char,
) -> c_int {
    let make = || -> Result<KBox<Private<T>>> {
        // SAFETY: A target is not null.
        let this = unsafe { NonNull::new_unchecked(ti) };
        // SAFETY: By the safety requirements. The attachments are dropped below, or by `destroy`.
        let mut attachments = unsafe { Attachments::new(this) };
        // SAFETY: By the safety requirements.
        let table = NonNull::new(unsafe { (*ti).table }).ok_or(Errno::EINVAL)?;
        // SAFETY: The table is not destroyed before its targets. It is revoked below, or by `destroy`.
        let table = RevokedOnDrop(unsafe { TableHandle::new(table) }?);
        // SAFETY: By the safety requirements.
        let this = unsafe { reference(ti) };
        // SAFETY: By the safety requirements; the attachments were made for the target, and the handle
        // for its table.
        let mut config = unsafe { Construct::new(this, &mut attachments, &table.0) };
        // SAFETY: By the safety requirements.
        let arguments = unsafe { Arguments::from_raw(argc, argv) };
        let target = T::construct(&mut config, arguments)?;

        Ok(KBox::new(
            Private {
                target,
                _table: table,
                attachments,
            },
            GFP_KERNEL,
        )?)
    };
    match make() {
        Ok(private) => {
            // SAFETY: By the safety requirements.
            unsafe { (*ti).private = KBox::into_raw(private).cast() };
            0
        }
        Err(error) => error.to_return_value(),
    }
}

/// # Safety
///
/// As for [`construct`].
unsafe extern "C" fn construct_serving<T: Serve>(
    ti: *mut bindings::dm_target,
    argc: c_uint,
    argv: *mut *mut c_char,
) -> c_int {
    // SAFETY: By the safety requirements.
    unsafe {
        (*ti).per_io_data_size = const { task::per_bio_size::<T>() as c_uint };
    }
    // SAFETY: By the safety requirements.
    unsafe { bindings::dm_thin_rs_target_set_accounts_remapped_io(ti, true) };
    // SAFETY: By the safety requirements.
    unsafe { construct::<T>(ti, argc, argv) }
}

/// # Safety
///
/// As for [`target_of`]; nothing may use the target any more.
unsafe extern "C" fn destroy<T: Target>(ti: *mut bindings::dm_target) {
    // SAFETY: By the safety requirements.
    let private = unsafe { (*ti).private }.cast::<Private<T>>();
    // SAFETY: `construct` made it from a box, and nothing uses it any more.
    drop(unsafe { KBox::from_raw(private) });
}

/// # Safety
///
/// As for [`target_of`]; `bio` must be a clone that was made for the target and not submitted. If `T`
/// serves bios, [`task::begin`] must have been called for it.
unsafe extern "C" fn map<T: Target>(
    ti: *mut bindings::dm_target,
    bio: *mut bindings::bio,
) -> c_int {
    // SAFETY: By the safety requirements.
    let (private, this) = unsafe { target_of::<T>(ti) };
    // SAFETY: A bio is not null.
    let bio = unsafe { NonNull::new_unchecked(bio) };
    // SAFETY: By the safety requirements.
    let bio = unsafe { MapBio::new(bio, &*private.target, this.begin()) };

    private.target.map(bio).into_raw()
}

/// # Safety
///
/// As for [`map`].
unsafe extern "C" fn map_serving<T: Serve>(
    ti: *mut bindings::dm_target,
    bio: *mut bindings::bio,
) -> c_int {
    // SAFETY: The bio enters `map` here.
    unsafe { task::begin::<T>(bio) };
    // SAFETY: By the safety requirements.
    unsafe { map::<T>(ti, bio) }
}

/// # Safety
///
/// As for [`target_of`]; `bio` must have gone through [`map_serving`], and its I/O have ended with
/// `status`.
unsafe extern "C" fn end_io<T: Serve>(
    ti: *mut bindings::dm_target,
    bio: *mut bindings::bio,
    status: *mut bindings::blk_status_t,
) -> c_int {
    // SAFETY: By the safety requirements.
    let (private, _) = unsafe { target_of::<T>(ti) };
    // SAFETY: By the safety requirements.
    let status = BlockStatus::from_raw(unsafe { *status });
    // SAFETY: By the safety requirements.
    let done = unsafe { task::end_io::<T>(bio, &private.target, status) };

    if done {
        bindings::DM_ENDIO_DONE as c_int
    } else {
        bindings::DM_ENDIO_INCOMPLETE as c_int
    }
}

/// # Safety
///
/// As for [`target_of`].
unsafe extern "C" fn presuspend<T: Target>(ti: *mut bindings::dm_target) {
    // SAFETY: By the safety requirement.
    let (private, this) = unsafe { target_of::<T>(ti) };

    private.target.presuspend(this);
}

/// # Safety
///
/// As for [`target_of`].
unsafe extern "C" fn presuspend_undo<T: Target>(ti: *mut bindings::dm_target) {
    // SAFETY: By the safety requirement.
    let (private, this) = unsafe { target_of::<T>(ti) };

    private.target.presuspend_undo(this);
}

/// # Safety
///
/// As for [`target_of`].
unsafe extern "C" fn postsuspend<T: Target>(ti: *mut bindings::dm_target) {
    // SAFETY: By the safety requirement.
    let (private, this) = unsafe { target_of::<T>(ti) };

    private.target.postsuspend(this);
}

/// # Safety
///
/// As for [`target_of`].
unsafe extern "C" fn preresume<T: Target>(ti: *mut bindings::dm_target) -> c_int {
    // SAFETY: By the safety requirement.
    let (private, this) = unsafe { target_of::<T>(ti) };

    match private.target.preresume(this) {
        Ok(()) => 0,
        Err(error) => error.to_return_value(),
    }
}

/// # Safety
///
/// As for [`target_of`].
unsafe extern "C" fn resume<T: Target>(ti: *mut bindings::dm_target) {
    // SAFETY: By the safety requirement.
    let (private, this) = unsafe { target_of::<T>(ti) };

    private.target.resume(this);
}

/// # Safety
///
/// As for [`target_of`]; `argc` and `argv` must be as [`Arguments::from_raw`] wants them.
unsafe extern "C" fn message<T: Target>(
    ti: *mut bindings::dm_target,
    argc: c_uint,
    argv: *mut *mut c_char,
    _result: *mut c_char,
    _maxlen: c_uint,
) -> c_int {
    // SAFETY: By the safety requirements.
    let (private, this) = unsafe { target_of::<T>(ti) };
    // SAFETY: By the safety requirements.
    let arguments = unsafe { Arguments::from_raw(argc, argv) };

    match private.target.message(this, arguments) {
        Ok(()) => 0,
        Err(error) => error.to_return_value(),
    }
}

/// # Safety
///
/// As for [`target_of`]; `result` and `maxlen` must be as [`StatusWriter::from_raw`] wants them.
unsafe extern "C" fn status<T: Target>(
    ti: *mut bindings::dm_target,
    kind: bindings::status_type_t,
    flags: c_uint,
    result: *mut c_char,
    maxlen: c_uint,
) {
    // SAFETY: By the safety requirements.
    let (private, this) = unsafe { target_of::<T>(ti) };
    // SAFETY: By the safety requirements.
    let mut writer = unsafe { StatusWriter::from_raw(result, maxlen) };

    if let Some(request) = StatusRequest::from_raw(kind, flags) {
        private.target.status(this, request, &mut writer);
    }
}

/// # Safety
///
/// As for [`target_of`]; calling `visit` with the target, one of its devices and `data` must be
/// sound during the call.
unsafe extern "C" fn iterate_devices<T: Target>(
    ti: *mut bindings::dm_target,
    visit: bindings::iterate_devices_callout_fn,
    data: *mut c_void,
) -> c_int {
    // SAFETY: By the safety requirements.
    let (private, this) = unsafe { target_of::<T>(ti) };
    // SAFETY: A target is not null.
    let ti = unsafe { NonNull::new_unchecked(ti) };
    // SAFETY: By the safety requirements.
    let visitor = unsafe { DeviceVisitor::from_raw(ti, &private.attachments, visit, data) };

    let Some(mut visitor) = visitor else {
        return 0;
    };
    match private.target.iterate_devices(this, &mut visitor) {
        ControlFlow::Continue(()) => 0,
        ControlFlow::Break(result) => result,
    }
}

/// # Safety
///
/// As for [`target_of`]; `limits` must be valid, and nobody else access it during the call.
unsafe extern "C" fn io_hints<T: Target>(
    ti: *mut bindings::dm_target,
    limits: *mut bindings::queue_limits,
) {
    // SAFETY: By the safety requirements.
    let (private, this) = unsafe { target_of::<T>(ti) };
    // SAFETY: By the safety requirements.
    let limits = unsafe { QueueLimits::from_raw_mut(limits) };

    private.target.io_hints(this, limits);
}
