// SPDX-License-Identifier: GPL-2.0

//! The pool itself: what the tables of one pool and its thin devices share.
//!
//! A pool begins to exist when the first `thin-pool` table that names its metadata device is
//! loaded, and ends with the last table, of the pool or of a thin device, that uses it.

use crate::{
    bio::{
        BioSet,
        DiscardBio, //
    },
    block_device::OpenBlockDevice,
    control::{
        Control,
        OpenThin,
        PoolSettings, //
    },
    core::{
        errno::{
            Errno,
            Result, //
        },
        mapping::Mapping,
        prison::Prison,
        units::{
            BlockSize,
            DataRange,
            DeviceId,
            Sector,
            VirtualBlock,
            REGION_BLOCKS, //
        }, //
    },
    dm::mapped_device::MappedDevice,
    drain::Drain,
    kcopyd::Kcopyd,
    metadata::{
        LookupError,
        MappingReader,
        Metadata, //
    },
    owner::Owner,
    params,
    shared::Shared,
    slice::Slice,
    workqueue::OrderedQueue, //
};
use kernel::{
    fmt,
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// Locks of the prison, per CPU: so many that I/O to different regions rarely meets on one.
const SHARDS_PER_CPU: usize = 16;

/// How many discards are in flight to the data device, at least, when memory is short.
const DISCARD_RESERVE: u32 = 16;

/// A pool.
pub(crate) struct Pool {
    /// The device that the data is on.
    pub(crate) data_device: OpenBlockDevice,
    /// The size of the data blocks.
    pub(crate) block_size: BlockSize,
    /// What the log calls the pool.
    pub(crate) name: PoolName,
    /// The locks on virtual and data blocks.
    pub(crate) prison: Prison,
    /// What bios need to know of the mode.
    pub(crate) shared: Arc<Shared>,
    /// Copies and zeroes blocks.
    pub(crate) kcopyd: Kcopyd,
    reader: Arc<MappingReader>,
    discards: BioSet,
    zones: Slice<OrderedQueue>,
    /// The metadata and the mode, on a queue of their own.
    pub(crate) control: Pin<KBox<Owner<Control>>>,
    /// Stops the thin devices.
    pub(crate) drain: Pin<KBox<Drain>>,
    /// How many data blocks the table has that is in control; 0 before there is one.
    visible_blocks: Atomic<u64>,
    /// How many tables there are of the pool device.
    tables: Atomic<u32>,
}

/// What the log calls a pool: the number of its device.
#[derive(Clone)]
pub(crate) struct PoolName(Arc<CString>);

impl PoolName {
    /// The name of the pool on `device`. Fails with `ENOMEM`.
    pub(crate) fn new(device: &MappedDevice) -> Result<Self> {
        let name = CString::try_from(device.name()).map_err(|_| Errno::ENOMEM)?;
        Ok(Self(Arc::new(name, GFP_KERNEL)?))
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self.0, f)
    }
}

// The functions below are parts of what follows them. They are not inlined: what they need of the
// stack they need for a short time only.

#[inline(never)]
fn new_queue(name: fmt::Arguments<'_>) -> Result<OrderedQueue> {
    OrderedQueue::new(name)
}

#[inline(never)]
fn new_prison(cpus: usize) -> Result<Prison> {
    Prison::new(cpus.saturating_mul(SHARDS_PER_CPU))
}

#[inline(never)]
fn new_zones(name: &PoolName, cpus: usize) -> Result<Slice<OrderedQueue>> {
    let zones = params::zones().map_or(cpus, |zones| zones.get() as usize);

    Slice::try_from_fn(zones, |zone| new_queue(fmt!("dm-thin-{name}-{zone}")))
}

#[inline(never)]
fn new_drain(name: &PoolName) -> Result<Pin<KBox<Drain>>> {
    let queue = new_queue(fmt!("dm-thin-{name}-drain"))?;

    KBox::pin_init(Drain::new(queue), GFP_KERNEL).map_err(Errno::from)
}

#[inline(never)]
fn new_control(
    metadata: KBox<Metadata>,
    settings: PoolSettings,
    block_size: BlockSize,
    (metadata_device, data_device): (&OpenBlockDevice, &OpenBlockDevice),
    name: &PoolName,
    shared: &Arc<Shared>,
) -> Result<Pin<KBox<Owner<Control>>>> {
    let queue = new_queue(fmt!("dm-thin-{name}-metadata"))?;
    let control = Control::new(
        metadata,
        settings,
        block_size,
        data_device.clone(),
        metadata_device.clone(),
        name.clone(),
        shared.clone(),
    );

    KBox::pin_init(Owner::new(queue, control), GFP_KERNEL).map_err(Errno::from)
}

impl Pool {
    /// Makes a pool of metadata that was just opened. Sleeps.
    #[inline(never)]
    pub(crate) fn new(
        name: PoolName,
        metadata: KBox<Metadata>,
        settings: PoolSettings,
        block_size: BlockSize,
        metadata_device: OpenBlockDevice,
        data_device: OpenBlockDevice,
    ) -> Result<Arc<Self>> {
        let cpus = kernel::cpu::nr_cpu_ids() as usize;
        let shared = Arc::new(Shared::new(&settings.features), GFP_KERNEL)?;
        let reader = metadata.reader();
        let prison = new_prison(cpus)?;
        let zones = new_zones(&name, cpus)?;
        let kcopyd = Kcopyd::new()?;
        let discards = BioSet::new(DISCARD_RESERVE)?;
        let drain = new_drain(&name)?;
        let control = new_control(
            metadata,
            settings,
            block_size,
            (&metadata_device, &data_device),
            &name,
            &shared,
        )?;

        Ok(Arc::new(
            Self {
                data_device,
                block_size,
                name,
                prison,
                shared,
                kcopyd,
                reader,
                discards,
                zones,
                control,
                drain,
                visible_blocks: Atomic::new(0),
                tables: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }

    /// Where a block is, if that can be told without waiting. The caller must hold a lock on it.
    pub(crate) fn lookup_now(
        &self,
        thin: &OpenThin,
        block: VirtualBlock,
    ) -> core::result::Result<Option<Mapping>, LookupError> {
        if let Some(known) = thin.cache.get(block) {
            return Ok(known);
        }
        self.reader.try_lookup(&thin.device, block, |found| {
            thin.cache.put(block, found);
        })
    }

    /// Where a block is, if that can be told without I/O. Sleeps; the caller must hold a lock on the
    /// block.
    pub(crate) fn lookup_in_memory(
        &self,
        thin: &OpenThin,
        block: VirtualBlock,
    ) -> core::result::Result<Option<Mapping>, LookupError> {
        if let Some(known) = thin.cache.get(block) {
            return Ok(known);
        }
        self.reader.lookup(&thin.device, block, |found| {
            thin.cache.put(block, found);
        })
    }

    /// The queue that serves the bios of a block. All blocks of a region have the same.
    pub(crate) fn zone(&self, device: DeviceId, block: VirtualBlock) -> Option<&OrderedQueue> {
        // Multiplying by an odd number with bits all over mixes the numbers well enough.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let region = block.0 / REGION_BLOCKS;
        let hash = (region.wrapping_shl(24) | device.key()).wrapping_mul(SPREAD) >> 32;
        let zones = core::num::NonZeroU64::new(self.zones.len() as u64)?;

        self.zones.get((hash % zones) as usize)
    }

    /// Discards blocks of the data device, as far as the device does.
    pub(crate) async fn pass_down(&self, blocks: DataRange) {
        let (Some(mut start), Some(mut rest)) = (
            self.block_size.data_sector(blocks.begin()),
            self.block_size.length(blocks.len()),
        ) else {
            return;
        };
        while rest.0 > 0 {
            let length = rest.min(DiscardBio::MAX_LENGTH);
            if let Some(bio) = self.discards.discard(&self.data_device, start, length) {
                // A discard is a hint: nothing is lost but the hint if it fails.
                let _ = bio.submit_and_wait().await;
            }
            let (Some(next), Some(left)) = (start.checked_add(length), rest.checked_sub(length))
            else {
                return;
            };
            (start, rest) = (next, left);
        }
    }

    /// Notes that there is one more table of the pool device.
    pub(crate) fn add_table(&self) {
        self.tables.fetch_add(1, Relaxed);
    }

    /// Notes that a table of the pool device is gone. Sleeps.
    ///
    /// Its thin devices can outlive the last one, if that was replaced by a table of another kind:
    /// they are suspended then, and nobody is left to resume them. They get errors instead.
    pub(crate) fn remove_table(&self) {
        if self.tables.fetch_sub(1, Relaxed) == 1 {
            self.shared.set_gone(true);
            self.drain.resume();
        }
    }

    /// How much of the pool device thin devices use, if a table is in control.
    pub(crate) fn visible_length(&self) -> Option<Sector> {
        match self.visible_blocks.load(Relaxed) {
            0 => None,
            blocks => self.block_size.length(blocks),
        }
    }

    /// A table is in control now that has so many data blocks: thin devices go on. Sleeps.
    pub(crate) fn resume(&self, data_blocks: u64) {
        self.visible_blocks.store(data_blocks, Relaxed);
        self.shared.set_gone(false);
        self.drain.resume();
        self.control.start_ticking();
    }

    /// The pool device is suspended, and so are all thin devices: nothing happens any more once this
    /// returns. Sleeps.
    pub(crate) fn suspend(&self) {
        self.control.stop_ticking();
        self.wait_for_tasks();
        self.control.call_and_wait(Control::suspend);
    }

    /// Commits what has changed, and lets go of the metadata: nothing works any more. Sleeps.
    pub(crate) fn close(&self) {
        self.wait_for_tasks();
        self.control.call_and_wait(Control::close);
    }

    /// Sleeps.
    fn wait_for_tasks(&self) {
        for zone in self.zones.iter() {
            zone.flush();
        }
    }
}
