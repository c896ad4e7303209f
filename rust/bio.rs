// SPDX-License-Identifier: GPL-2.0

//! Requests to block devices.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use crate::{
    bindings,
    block_device::OpenBlockDevice,
    core::{
        errno::{
            Errno,
            Result, //
        },
        units::{
            Sector,
            SECTOR_SIZE, //
        }, //
    },
    outcome::{
        self,
        Outcome, //
    }, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// How a bio ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockStatus(bindings::blk_status_t);

impl BlockStatus {
    /// It succeeded.
    pub(crate) const OK: Self = Self(bindings::BLK_STS_OK as bindings::blk_status_t);
    /// It failed.
    pub(crate) const IOERR: Self = Self(bindings::BLK_STS_IOERR);
    /// The device does not do that.
    pub(crate) const NOTSUPP: Self = Self(bindings::BLK_STS_NOTSUPP);
    /// It would have to wait, and was not to.
    pub(crate) const AGAIN: Self = Self(bindings::BLK_STS_AGAIN);
    /// Device-mapper shall keep the bio and map it again later. Outside a suspend without flush it
    /// turns this into an error.
    pub(crate) const DM_REQUEUE: Self = Self(bindings::BLK_STS_DM_REQUEUE);

    /// A status as C functions have it.
    pub(crate) fn from_raw(status: bindings::blk_status_t) -> Self {
        Self(status)
    }

    /// The error, if it is one.
    pub(crate) fn to_result(self) -> Result {
        // SAFETY: The function looks into a table.
        to_result(unsafe { bindings::blk_status_to_errno(self.0) }).map_err(Errno::from)
    }
}

impl From<Errno> for BlockStatus {
    fn from(error: Errno) -> Self {
        // SAFETY: The function looks into a table.
        Self(unsafe { bindings::errno_to_blk_status(error.to_return_value()) })
    }
}

/// What a bio does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Says that nobody needs what is there.
    Discard,
    /// Writes zeroes without having them in memory.
    WriteZeroes,
    /// Flushes only: makes durable what was written.
    Flush,
    /// Something else.
    Other,
}

/// A bio of the block layer.
///
/// # Invariants
///
/// The bio is valid, and nobody else accesses it.
#[repr(transparent)]
pub(crate) struct Bio(Opaque<bindings::bio>);

impl Bio {
    /// Uses a bio of the C side.
    ///
    /// # Safety
    ///
    /// For `'a`, `bio` must be valid and nobody else access it.
    pub(crate) unsafe fn from_raw<'a>(bio: *mut bindings::bio) -> &'a Self {
        // SAFETY: `Bio` is transparent.
        // INVARIANT: By the requirements of this function.
        unsafe { &*bio.cast::<Self>() }
    }

    fn as_raw(&self) -> *mut bindings::bio {
        self.0.get()
    }

    fn opf(&self) -> bindings::blk_opf_t {
        // SAFETY: By the type invariant.
        unsafe { (*self.as_raw()).bi_opf }
    }

    /// What it does.
    pub(crate) fn op(&self) -> Op {
        let opf = self.opf();
        if opf & bindings::REQ_PREFLUSH != 0 && self.length() == Sector(0) {
            return Op::Flush;
        }
        match opf & bindings::REQ_OP_MASK {
            bindings::req_op_REQ_OP_READ => Op::Read,
            bindings::req_op_REQ_OP_WRITE => Op::Write,
            bindings::req_op_REQ_OP_FLUSH => Op::Flush,
            bindings::req_op_REQ_OP_DISCARD => Op::Discard,
            bindings::req_op_REQ_OP_WRITE_ZEROES => Op::WriteZeroes,
            _ => Op::Other,
        }
    }

    /// Whether what it writes is durable when it has ended (`REQ_FUA`).
    pub(crate) fn is_durable(&self) -> bool {
        self.opf() & bindings::REQ_FUA != 0
    }

    /// Whether blocks that it writes zeroes to may be given up (not `REQ_NOUNMAP`).
    pub(crate) fn may_unmap(&self) -> bool {
        self.opf() & bindings::REQ_NOUNMAP == 0
    }

    /// Whether it is to fail rather than wait (`REQ_NOWAIT`).
    pub(crate) fn is_nowait(&self) -> bool {
        self.opf() & bindings::REQ_NOWAIT != 0
    }

    /// Where it starts on its device.
    pub(crate) fn sector(&self) -> Sector {
        // SAFETY: By the type invariant.
        Sector(unsafe { (*self.as_raw()).bi_iter.bi_sector })
    }

    /// How long it is.
    pub(crate) fn length(&self) -> Sector {
        // SAFETY: By the type invariant.
        let bytes = unsafe { (*self.as_raw()).bi_iter.bi_size };
        Sector(u64::from(bytes) / const { SECTOR_SIZE as u64 })
    }

    /// Lets it go to `device`.
    ///
    /// # Safety
    ///
    /// The device must be open until the bio has ended.
    pub(crate) unsafe fn set_device(&self, device: &OpenBlockDevice) {
        // SAFETY: By the type invariant and the requirements of this function.
        unsafe { bindings::dm_thin_rs_bio_set_dev(self.as_raw(), device.as_raw()) };
    }

    /// Lets it start at `sector`.
    pub(crate) fn set_sector(&self, sector: Sector) {
        // SAFETY: By the type invariant.
        unsafe { (*self.as_raw()).bi_iter.bi_sector = sector.0 };
    }

    /// Says how it ended.
    pub(crate) fn set_status(&self, status: BlockStatus) {
        // SAFETY: By the type invariant.
        unsafe { (*self.as_raw()).bi_status = status.0 };
    }

    /// Fills the memory that it reads into with zeroes.
    pub(crate) fn zero_fill(&self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::zero_fill_bio(self.as_raw()) };
    }

    /// Makes it `length` long, if it is longer, and fills the memory that is left with zeroes.
    pub(crate) fn shorten_and_zero(&self, length: Sector) {
        if length < self.length() {
            // SAFETY: By the type invariant; the bio is longer than that.
            unsafe { bindings::dm_thin_rs_bio_shorten_and_zero(self.as_raw(), length.0) };
        }
    }
}

/// Bios of our own, which can be had even if there is no memory.
///
/// # Invariants
///
/// The set is initialised.
pub(crate) struct BioSet(Pin<KBox<Opaque<bindings::bio_set>>>);

// SAFETY: A set can be used by any thread.
unsafe impl Send for BioSet {}
// SAFETY: Sets have locks of their own.
unsafe impl Sync for BioSet {}

impl BioSet {
    /// Makes a set that keeps memory for `reserve` bios at hand. Sleeps. Fails with `ENOMEM`.
    pub(crate) fn new(reserve: u32) -> Result<Self> {
        let set = KBox::pin_init(
            // Initialising one expects zeroes.
            Opaque::try_ffi_init(|set: *mut bindings::bio_set| {
                // SAFETY: `set` points to memory for a set.
                unsafe { set.write_bytes(0, 1) };
                // SAFETY: As above; it does not move later.
                to_result(unsafe { bindings::dm_thin_rs_bioset_init(set, reserve) })
            }),
            GFP_KERNEL,
        )?;
        // INVARIANT: It was just initialised.
        Ok(Self(set))
    }

    /// A discard of a part of `device`, at most [`DiscardBio::MAX_LENGTH`] long. Sleeps until there is
    /// memory, for which no I/O is started. `None`: it is too long.
    pub(crate) fn discard<'a>(
        &'a self,
        device: &'a OpenBlockDevice,
        start: Sector,
        length: Sector,
    ) -> Option<DiscardBio<'a>> {
        if length > DiscardBio::MAX_LENGTH {
            return None;
        }
        let size = u32::try_from(length.to_bytes()?).ok()?;
        // SAFETY: By the type invariant the set is initialised. The device is open.
        let bio = unsafe {
            bindings::dm_thin_rs_bio_alloc(
                self.0.get(),
                device.as_raw(),
                bindings::req_op_REQ_OP_DISCARD,
            )
        };
        let bio = NonNull::new(bio)?;
        // SAFETY: The bio was just made.
        let iter = unsafe { &mut (*bio.as_ptr()).bi_iter };
        iter.bi_sector = start.0;
        iter.bi_size = size;

        // INVARIANT: It was just made.
        Some(DiscardBio {
            bio,
            _borrowed: PhantomData,
        })
    }
}

impl Drop for BioSet {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the set is initialised, and nobody uses it any more: bios of
        // it are waited for by tasks, which do not outlive what they use.
        unsafe { bindings::bioset_exit(self.0.get()) };
    }
}

/// A discard that has not been submitted.
///
/// # Invariants
///
/// The bio is ours.
pub(crate) struct DiscardBio<'a> {
    bio: NonNull<bindings::bio>,
    /// The set that it comes from, and the device that it goes to.
    _borrowed: PhantomData<(&'a BioSet, &'a OpenBlockDevice)>,
}

// SAFETY: A bio can be submitted, and given back, by any thread.
unsafe impl Send for DiscardBio<'_> {}
// SAFETY: Nothing can be done with a reference to it, but by the one who owns it.
unsafe impl Sync for DiscardBio<'_> {}

impl DiscardBio<'_> {
    /// The longest discard: the size of a bio is less than 4 GiB.
    pub(crate) const MAX_LENGTH: Sector = Sector(1 << 22);

    /// Submits the bio, and resolves to how it ended.
    pub(crate) async fn submit_and_wait(self) -> Result {
        let this = &self;
        let start = move |outcome: NonNull<Outcome<Result>>| {
            let bio = this.bio.as_ptr();
            // SAFETY: By the type invariant the bio is ours.
            let ours = unsafe { &mut *bio };
            ours.bi_end_io = Some(discard_ended);
            ours.bi_private = outcome.as_ptr().cast();
            // SAFETY: The bio is ours, and complete. It is given back when it has ended.
            unsafe { bindings::submit_bio(bio) };
        };
        // SAFETY: `discard_ended` resolves the outcome.
        unsafe { outcome::wait(start) }.await
    }
}

impl Drop for DiscardBio<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is ours, and it is not in flight.
        unsafe { bindings::bio_put(self.bio.as_ptr()) };
    }
}

/// # Safety
///
/// Must be called by the block layer, for a bio that [`DiscardBio::submit_and_wait`] submitted.
unsafe extern "C" fn discard_ended(bio: *mut bindings::bio) {
    // SAFETY: By the requirements of this function.
    let ended = unsafe { &*bio };
    let status = BlockStatus::from_raw(ended.bi_status);

    if let Some(outcome) = NonNull::new(ended.bi_private.cast::<Outcome<Result>>()) {
        // SAFETY: The bio ends once.
        unsafe { Outcome::resolve(outcome, status.to_result()) };
    }
}
