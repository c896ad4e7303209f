// SPDX-License-Identifier: GPL-2.0

//! The blocks of a metadata device, cached, and checked when they are read.
//!
//! C header: [`drivers/md/persistent-data/dm-block-manager.h`](srctree/drivers/md/persistent-data/dm-block-manager.h)

use super::to_result;
use crate::{
    bindings,
    block_device::OpenBlockDevice,
    core::errno::{
        Errno,
        Result, //
    },
};
use core::{
    marker::PhantomData,
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
    error::from_err_ptr,
    ffi::c_int,
    prelude::*,
    sync::Arc, //
};

/// Bytes in a block of a metadata device.
pub(crate) const BLOCK_SIZE: usize = 4096;

/// What is in a block.
pub(crate) type BlockBytes = [u8; BLOCK_SIZE];

/// Blocks that one thread may hold at once. Those that are deleting a tree hold one on each level.
const MAX_HELD: u32 = 6;

/// Where the checksum begins in every block that has one. It covers all that is behind it.
const CHECKSUM_OFFSET: usize = 0;
/// Where in such a block its own number is.
const LOCATION_OFFSET: usize = 8;
/// Behind the checksum.
const CHECKED_OFFSET: usize = CHECKSUM_OFFSET + size_of::<u32>();

/// A kind of block with a checksum at its start, and its own number eight bytes behind that.
pub(crate) trait Record: 'static {
    /// What the log calls it.
    const NAME: &'static CStr;

    /// What the checksum is combined with, so that no block passes for one of another kind.
    const CHECKSUM_XOR: u32;

    /// Whether a block that is at its own place, and whose checksum is right, is of this kind.
    fn is_valid(block: &BlockBytes) -> bool;
}

/// Checks blocks of the kind `R` when they are read, and completes them when they are written.
///
/// The block manager knows a block's kind by the address of its validator: there should be one
/// `static` for each.
///
/// # Invariants
///
/// The functions are those of `R`, and the name is a string that lives for ever.
#[repr(transparent)]
pub(crate) struct Validator<R>(bindings::dm_block_validator, PhantomData<fn() -> R>);

// SAFETY: It never changes.
unsafe impl<R> Sync for Validator<R> {}

impl<R: Record> Validator<R> {
    /// The validator of blocks of the kind `R`.
    pub(crate) const fn new() -> Self {
        // INVARIANT: So they are.
        Self(
            bindings::dm_block_validator {
                name: R::NAME.to_bytes_with_nul().as_ptr().cast(),
                prepare_for_write: Some(prepare_for_write::<R>),
                check: Some(check::<R>),
            },
            PhantomData,
        )
    }

    /// The validator, for functions of the library.
    pub(super) fn as_ptr(&'static self) -> *const bindings::dm_block_validator {
        &raw const self.0
    }
}

/// What the checksum of a block has to be.
fn checksum<R: Record>(block: &BlockBytes) -> u32 {
    const LENGTH: usize = BLOCK_SIZE - CHECKED_OFFSET;

    let covered = block.as_ptr().wrapping_add(CHECKED_OFFSET);
    // SAFETY: So many bytes are left of the block.
    unsafe { bindings::dm_bm_checksum(covered.cast(), LENGTH, R::CHECKSUM_XOR) }
}

fn put<const N: usize>(block: &mut BlockBytes, offset: usize, bytes: [u8; N]) {
    if let Some(place) = block.get_mut(offset..).and_then(<[u8]>::first_chunk_mut) {
        *place = bytes;
    }
}

fn get<const N: usize>(block: &BlockBytes, offset: usize) -> [u8; N] {
    block
        .get(offset..)
        .and_then(<[u8]>::first_chunk)
        .map_or([0; N], |bytes| *bytes)
}

/// Completes a block that is about to be written.
///
/// # Safety
///
/// Only to be called by the library, as an operation of a [`Validator`].
unsafe extern "C" fn prepare_for_write<R: Record>(
    _validator: *const bindings::dm_block_validator,
    block: *mut bindings::dm_block,
    _size: usize,
) {
    // SAFETY: The library hands in a block that it has.
    let location = unsafe { bindings::dm_block_location(block) };
    // SAFETY: As before.
    let bytes = unsafe { bindings::dm_block_data(block) }.cast::<BlockBytes>();
    // SAFETY: A block is that long, and nobody else has it while it is being written.
    let bytes = unsafe { &mut *bytes };

    put(bytes, LOCATION_OFFSET, location.to_le_bytes());
    put(bytes, CHECKSUM_OFFSET, checksum::<R>(bytes).to_le_bytes());
}

/// Checks a block that was just read.
///
/// # Safety
///
/// Only to be called by the library, as an operation of a [`Validator`].
unsafe extern "C" fn check<R: Record>(
    _validator: *const bindings::dm_block_validator,
    block: *mut bindings::dm_block,
    _size: usize,
) -> c_int {
    // SAFETY: The library hands in a block that it has.
    let location = unsafe { bindings::dm_block_location(block) };
    // SAFETY: As before.
    let bytes = unsafe { bindings::dm_block_data(block) }.cast::<BlockBytes>();
    // SAFETY: A block is that long, and nobody changes it before it has passed.
    let bytes = unsafe { &*bytes };

    let outcome = if get(bytes, LOCATION_OFFSET) != location.to_le_bytes() {
        Err(Errno::ENOTBLK)
    } else if get(bytes, CHECKSUM_OFFSET) != checksum::<R>(bytes).to_le_bytes()
        || !R::is_valid(bytes)
    {
        Err(Errno::EILSEQ)
    } else {
        Ok(())
    };
    outcome.map_or_else(Errno::to_return_value, |()| 0)
}

/// The block manager of the library, for as long as somebody uses it.
///
/// # Invariants
///
/// `manager` points to a block manager of `device` with blocks of [`BLOCK_SIZE`] bytes, which is
/// destroyed when this is dropped.
pub(super) struct Inner {
    manager: NonNull<bindings::dm_block_manager>,
    _device: OpenBlockDevice,
}

// SAFETY: A block manager belongs to no thread.
unsafe impl Send for Inner {}
// SAFETY: A reference only gives the pointer away.
unsafe impl Sync for Inner {}

impl Inner {
    pub(super) fn as_ptr(&self) -> *mut bindings::dm_block_manager {
        self.manager.as_ptr()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; nobody uses it any more.
        unsafe { bindings::dm_block_manager_destroy(self.as_ptr()) };
    }
}

/// Reads and writes the blocks of a metadata device, and caches them.
///
/// Dropping it writes what is dirty.
///
/// # Invariants
///
/// Of all values with the same `inner` there is one of this type.
pub(crate) struct BlockManager {
    inner: Arc<Inner>,
}

impl BlockManager {
    /// A block manager of `device`, of which it should be the only one.
    ///
    /// Fails with `ENOMEM`, or as far as the device does.
    pub(crate) fn new(device: OpenBlockDevice) -> Result<Self> {
        const SIZE: u32 = BLOCK_SIZE as u32;

        // SAFETY: The device is open, and stays so as long as there is the block manager.
        let manager = unsafe { bindings::dm_block_manager_create(device.as_raw(), SIZE, MAX_HELD) };
        let manager = from_err_ptr(manager)?;
        let manager = NonNull::new(manager).ok_or(Errno::ENOMEM)?;
        // INVARIANT: It was just made.
        let inner = Inner {
            manager,
            _device: device,
        };
        // INVARIANT: This is the first value of this type.
        Ok(Self {
            inner: Arc::new(inner, GFP_KERNEL)?,
        })
    }

    /// Something that keeps the block manager of the library in existence.
    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Reads a block of the kind `R`.
    ///
    /// Fails with `EILSEQ` or `ENOTBLK` if there is none at this place, with `EINVAL` if the block is
    /// in use as one of another kind, and as far as the device does.
    pub(crate) fn read<R: Record>(
        &self,
        location: u64,
        validator: &'static Validator<R>,
    ) -> Result<ReadBlock<'_>> {
        self.read_as(location, validator.as_ptr())
    }

    /// Reads a block of which nothing is known. Nobody must have used it before.
    pub(crate) fn read_any(&self, location: u64) -> Result<ReadBlock<'_>> {
        self.read_as(location, ptr::null())
    }

    fn read_as(
        &self,
        location: u64,
        validator: *const bindings::dm_block_validator,
    ) -> Result<ReadBlock<'_>> {
        let mut block = ptr::null_mut();
        // SAFETY: By the type invariant of `Inner`; the validator is null or lives for ever.
        let outcome = unsafe {
            bindings::dm_bm_read_lock(self.inner.as_ptr(), location, validator, &mut block)
        };
        to_result(outcome)?;
        // SAFETY: It was just locked.
        unsafe { ReadBlock::new(block) }
    }

    /// Reads a block of the kind `R` to change it. Fails as [`BlockManager::read`] does, and with
    /// `EPERM` if nothing may be written.
    pub(crate) fn write<R: Record>(
        &mut self,
        location: u64,
        validator: &'static Validator<R>,
    ) -> Result<WriteBlock<'_>> {
        let mut block = ptr::null_mut();
        // SAFETY: By the type invariant of `Inner`; the validator lives for ever.
        let outcome = unsafe {
            bindings::dm_bm_write_lock(
                self.inner.as_ptr(),
                location,
                validator.as_ptr(),
                &mut block,
            )
        };
        to_result(outcome)?;
        // SAFETY: It was just locked.
        unsafe { WriteBlock::new(block) }
    }

    /// A block full of zeroes in place of whatever is there. Fails with `EPERM` if nothing may be
    /// written.
    pub(super) fn write_zeroed<R: Record>(
        &mut self,
        location: u64,
        validator: &'static Validator<R>,
    ) -> Result<WriteBlock<'_>> {
        let mut block = ptr::null_mut();
        // SAFETY: By the type invariant of `Inner`; the validator lives for ever.
        let outcome = unsafe {
            bindings::dm_bm_write_lock_zero(
                self.inner.as_ptr(),
                location,
                validator.as_ptr(),
                &mut block,
            )
        };
        to_result(outcome)?;
        // SAFETY: It was just locked.
        unsafe { WriteBlock::new(block) }
    }

    /// Writes what is dirty, and flushes the device. Fails with `EPERM` if nothing may be written.
    pub(crate) fn flush(&mut self) -> Result {
        // SAFETY: By the type invariant of `Inner`.
        to_result(unsafe { bindings::dm_bm_flush(self.inner.as_ptr()) })
    }

    /// Forgets all blocks. What is dirty may be written before.
    pub(crate) fn forget_blocks(&mut self) {
        // SAFETY: By the type invariant of `Inner`. Locked blocks borrow the block manager, so there
        // are none.
        unsafe { bindings::dm_block_manager_reset(self.inner.as_ptr()) };
    }

    /// Whether nothing may be written.
    pub(crate) fn is_read_only(&self) -> bool {
        // SAFETY: By the type invariant of `Inner`.
        unsafe { bindings::dm_bm_is_read_only(self.inner.as_ptr()) }
    }

    /// Says whether nothing may be written from now on.
    pub(crate) fn set_read_only(&mut self, read_only: bool) {
        if read_only {
            // SAFETY: By the type invariant of `Inner`.
            unsafe { bindings::dm_bm_set_read_only(self.inner.as_ptr()) }
        } else {
            // SAFETY: By the type invariant of `Inner`.
            unsafe { bindings::dm_bm_set_read_write(self.inner.as_ptr()) }
        }
    }
}

/// A block that is held in the cache.
///
/// # Invariants
///
/// `block` is locked, and unlocked when this is dropped.
struct Locked<'a> {
    block: NonNull<bindings::dm_block>,
    _manager: PhantomData<&'a BlockManager>,
}

impl Locked<'_> {
    fn bytes(&self) -> *mut BlockBytes {
        // SAFETY: By the type invariant.
        unsafe { bindings::dm_block_data(self.block.as_ptr()) }.cast()
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::dm_bm_unlock(self.block.as_ptr()) };
    }
}

/// A block to read.
pub(crate) struct ReadBlock<'a>(Locked<'a>);

impl ReadBlock<'_> {
    /// A block that was locked.
    ///
    /// # Safety
    ///
    /// The block, if the pointer is not null, must have been locked to be read. Nobody may change it
    /// before this is dropped.
    pub(super) unsafe fn new(block: *mut bindings::dm_block) -> Result<Self> {
        // INVARIANT: By the safety requirement.
        Ok(Self(Locked {
            block: NonNull::new(block).ok_or(Errno::EIO)?,
            _manager: PhantomData,
        }))
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::dm_block {
        self.0.block.as_ptr()
    }
}

impl Deref for ReadBlock<'_> {
    type Target = BlockBytes;

    fn deref(&self) -> &BlockBytes {
        // SAFETY: The block is locked, and whoever writes to one borrows the block manager or its
        // transaction manager exclusively.
        unsafe { &*self.0.bytes() }
    }
}

/// A block to change. It is dirty when this is dropped.
pub(crate) struct WriteBlock<'a>(Locked<'a>);

impl WriteBlock<'_> {
    /// A block that was locked.
    ///
    /// # Safety
    ///
    /// The block, if the pointer is not null, must have been locked to be written. Nobody else may use
    /// it before this is dropped.
    pub(super) unsafe fn new(block: *mut bindings::dm_block) -> Result<Self> {
        // INVARIANT: By the safety requirement.
        Ok(Self(Locked {
            block: NonNull::new(block).ok_or(Errno::EIO)?,
            _manager: PhantomData,
        }))
    }

    /// Where the block is on the device.
    pub(super) fn location(&self) -> u64 {
        // SAFETY: By the type invariant of `Locked`.
        unsafe { bindings::dm_block_location(self.0.block.as_ptr()) }
    }

    /// Gives the block away without unlocking it.
    pub(super) fn into_raw(self) -> *mut bindings::dm_block {
        core::mem::ManuallyDrop::new(self).0.block.as_ptr()
    }
}

impl Deref for WriteBlock<'_> {
    type Target = BlockBytes;

    fn deref(&self) -> &BlockBytes {
        // SAFETY: The block is locked, and nobody else has it.
        unsafe { &*self.0.bytes() }
    }
}

impl DerefMut for WriteBlock<'_> {
    fn deref_mut(&mut self) -> &mut BlockBytes {
        // SAFETY: The block is locked, and nobody else has it.
        unsafe { &mut *self.0.bytes() }
    }
}
