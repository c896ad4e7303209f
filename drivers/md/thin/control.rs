// SPDX-License-Identifier: GPL-2.0

//! What belongs to a pool's metadata queue: the metadata, the mode, and all that changes them.
//!
//! The functions of [`Control`] run one at a time, in process context without being allowed to
//! start I/O for memory. Bios and ioctls come here by message, see
//! [`Owner`](crate::owner::Owner), and are served on that queue; a bio that allocates, frees or
//! maps a block does so in its own task if nobody else is here. What bios ask for is in this
//! file; what tables and messages ask for is in the files below.

mod ioctl;
mod messages;

use crate::{
    answer::Asker,
    block_device::OpenBlockDevice,
    core::{
        errno::{
            Errno,
            Result, //
        },
        mapping::{
            Mapping,
            Run, //
        },
        mode::{
            Effects,
            Input,
            MetadataAccess,
            PoolState,
            Recovery,
            Rules,
            Service,
            Timer,
            Waiting, //
        },
        remap::{
            Commit,
            Space,
            Stop, //
        },
        table::PoolFeatures,
        units::{
            BlockSize,
            DataBlock,
            DataRange,
            DeviceId,
            VirtualBlock,
            VirtualRange, //
        }, //
    },
    dm::link::TableHandle,
    log,
    mapping_cache::MappingCache,
    metadata::{
        AllocateError,
        Device,
        Metadata, //
    },
    owner::Owned,
    params,
    pool_object::PoolName,
    shared::Shared,
    waiting::Tables, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// A thin device that some table has open.
pub(crate) struct OpenThin {
    /// The device in the metadata.
    pub(crate) device: Arc<Device>,
    /// Mappings of the device that were looked up lately.
    pub(crate) cache: MappingCache,
}

impl OpenThin {
    /// The number of the device.
    pub(crate) fn id(&self) -> DeviceId {
        self.device.id()
    }

    /// Whether a flush has to commit, or to fail because there is something that cannot be made
    /// durable any more.
    pub(crate) fn is_changed(&self) -> bool {
        self.device.is_changed() || self.device.aborted_with_changes()
    }
}

/// What a pool's table says while it is in control of the pool.
#[derive(Clone, Copy)]
pub(crate) struct PoolSettings {
    /// What the table asks for, less what the data device cannot do.
    pub(crate) features: PoolFeatures,
    /// When to tell user space that data blocks get few.
    pub(crate) low_water_mark: u64,
    /// How many data blocks the pool has.
    pub(crate) data_blocks: u64,
}

/// The metadata and the mode of a pool.
pub(crate) struct Control {
    metadata: KBox<Metadata>,
    state: PoolState,
    settings: PoolSettings,
    block_size: BlockSize,
    data_device: OpenBlockDevice,
    metadata_device: OpenBlockDevice,
    name: PoolName,
    /// The table that is in control, or was last.
    table: Option<TableHandle>,
    low_water: LowWater,
    metadata_low_water: LowWater,
    /// After how many ticks writes that wait for space fail.
    ticks_left: Option<u32>,
    /// The tables of thin devices, and their bios that wait for space.
    tables: Tables,
    shared: Arc<Shared>,
}

/// Tells user space once that something gets short.
#[derive(Default)]
struct LowWater {
    reported: bool,
}

impl LowWater {
    /// There are `free` blocks. Returns whether to report that now.
    fn reaches(&mut self, free: u64, mark: u64) -> bool {
        free <= mark && !core::mem::replace(&mut self.reported, true)
    }
}

impl Owned for Control {
    /// Once a second, while the pool is not suspended.
    fn tick(&mut self) {
        match self.ticks_left {
            None => {}
            Some(0) => self.apply(Input::NoSpaceTimeout),
            Some(left) => self.ticks_left = Some(left.saturating_sub(1)),
        }
        self.commit_changes();
    }
}

impl Control {
    /// Takes charge of metadata that was just opened.
    pub(crate) fn new(
        metadata: KBox<Metadata>,
        settings: PoolSettings,
        block_size: BlockSize,
        data_device: OpenBlockDevice,
        metadata_device: OpenBlockDevice,
        name: PoolName,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            state: PoolState::new(metadata.needs_check()),
            metadata,
            settings,
            block_size,
            data_device,
            metadata_device,
            name,
            table: None,
            low_water: LowWater::default(),
            metadata_low_water: LowWater::default(),
            ticks_left: None,
            tables: Tables::new(),
            shared,
        }
    }

    fn rules(&self) -> Rules {
        self.state.rules()
    }

    fn is_read_only(&self) -> bool {
        self.rules().metadata == MetadataAccess::ReadOnly
    }

    /// Where a block is, even if that has to be read from the metadata device.
    pub(crate) fn lookup(
        &mut self,
        thin: &OpenThin,
        block: VirtualBlock,
    ) -> Result<Option<Mapping>> {
        admit(self.rules().mapped)?;
        let found = self.metadata.lookup(&thin.device, block).map_err(|error| {
            log::error_ratelimited!(
                self.name;
                "looking up block {} of thin device {} failed: error {}",
                block.0,
                thin.id().key(),
                error.to_return_value()
            );
            Errno::EIO
        })?;
        thin.cache.put(block, found);
        Ok(found)
    }

    /// Takes a free data block.
    pub(crate) fn allocate(&mut self) -> core::result::Result<DataBlock, Stop> {
        if self.rules().new_block == Service::Wait && self.may_have_freed() {
            // What was discarded since the last commit can be had after the next one.
            let _ = self.commit();
        }
        admit_new_block(self.rules().new_block)?;
        self.report_low_water();

        if matches!(self.metadata.metadata_usage(), Ok(usage) if usage.free == 0) {
            // Only a commit tells whether that is so.
            self.commit()?;
            admit_new_block(self.rules().new_block)?;
        }
        let mut allocated = self.metadata.allocate();
        if matches!(allocated, Err(AllocateError::CommitFirst)) {
            self.commit()?;
            admit_new_block(self.rules().new_block)?;
            allocated = self.metadata.allocate();
        }
        match allocated {
            Ok(block) => Ok(block),
            Err(AllocateError::Failed(error)) => {
                Err(self.failed("allocating a data block", error).into())
            }
            Err(AllocateError::NoSpace | AllocateError::CommitFirst) => {
                self.apply(Input::DataSpaceExhausted);
                admit_new_block(self.rules().new_block)?;
                // Not reached: the mode has just become one without new blocks.
                Err(Errno::ENOSPC.into())
            }
        }
    }

    /// Whether a commit may bring free data blocks.
    fn may_have_freed(&self) -> bool {
        self.metadata.is_changed()
            && matches!(self.metadata.data_usage(), Ok(usage) if usage.free > 0)
    }

    fn report_low_water(&mut self) {
        let Ok(usage) = self.metadata.data_usage() else {
            return;
        };
        if self
            .low_water
            .reaches(usage.free, self.settings.low_water_mark)
        {
            log::warn!(self.name; "reached low water mark for data device: sending event.");
            self.raise_event();
        }
    }

    /// A bio waits until it is worth allocating again, or not worth waiting any more.
    pub(crate) fn wait_for_space(&mut self, table: &TableHandle, asker: Asker<Space>) {
        match self.rules().new_block {
            Service::Serve => asker.answer(Space::TryAgain),
            Service::Wait => self.tables.wait(table, asker),
            Service::Ignore => asker.answer(Space::Fail(Errno::EIO)),
            Service::Fail(error) => asker.answer(Space::Fail(error)),
        }
    }

    /// Gives back a block that was allocated, but not inserted.
    pub(crate) fn free(&mut self, block: DataBlock) {
        if let Err(error) = self.metadata.free(block) {
            self.failed("freeing a data block", error);
        }
    }

    /// Maps a block, in place of what it was mapped to.
    pub(crate) fn insert(
        &mut self,
        thin: &OpenThin,
        block: VirtualBlock,
        data: DataBlock,
    ) -> Result {
        if let Err(error) = admit(self.rules().insert) {
            self.free(data);
            return Err(error);
        }
        self.metadata
            .insert(&thin.device, block, data)
            .map_err(|error| self.failed("inserting a mapping", error))?;
        thin.cache.put(block, Some(Mapping::Own(data)));
        Ok(())
    }

    /// The first run of mapped blocks in `range`.
    pub(crate) fn first_run(
        &mut self,
        thin: &OpenThin,
        range: VirtualRange,
    ) -> Result<Option<Run>> {
        admit(self.rules().mapped)?;
        self.metadata
            .find_run(&thin.device, range)
            .map_err(|error| {
                log::error_ratelimited!(
                    self.name;
                    "looking up blocks {}..{} of thin device {} failed: error {}",
                    range.begin().0,
                    range.end().0,
                    thin.id().key(),
                    error.to_return_value()
                );
                Errno::EIO
            })
    }

    /// Removes the mappings of blocks. `Ok(false)`: discards are ignored now.
    pub(crate) fn remove(&mut self, thin: &OpenThin, blocks: VirtualRange) -> Result<bool> {
        match self.rules().discard {
            Service::Serve => {}
            Service::Ignore => return Ok(false),
            refused => {
                admit(refused)?;
                return Ok(false);
            }
        }
        self.metadata
            .remove_range(&thin.device, blocks)
            .map_err(|error| self.failed("removing mappings", error))?;
        thin.cache.forget(blocks);
        Ok(true)
    }

    /// The first data blocks in `range` that nothing is mapped to; if `durably`, then not in the
    /// committed metadata either.
    pub(crate) fn first_unreferenced(
        &mut self,
        range: DataRange,
        durably: bool,
    ) -> Result<Option<DataRange>> {
        if durably && self.metadata.is_changed() && self.commit().is_err() {
            // The mappings may be back, so the blocks stay as they are.
            return Ok(None);
        }
        if self.is_read_only() {
            return Ok(None);
        }
        self.metadata.next_unreferenced(range)
    }

    /// Makes all changes durable, of whatever device. Fails if `thin` has lost some.
    pub(crate) fn commit_for(&mut self, thin: &OpenThin) -> Result<Commit> {
        let commit = if self.metadata.is_changed() {
            self.commit()?;
            Commit::Made
        } else {
            Commit::NotNeeded
        };
        if thin.device.aborted_with_changes() {
            return Err(Errno::EIO);
        }
        Ok(commit)
    }

    /// Commits what has changed.
    pub(crate) fn commit_changes(&mut self) {
        if !self.is_read_only() && self.metadata.is_changed() {
            // A failure has been reported, and has had its effect on the pool.
            let _ = self.commit();
        }
    }

    /// Commits what has changed and lets go of the metadata device.
    pub(crate) fn close(&mut self) {
        self.commit_changes();
        self.metadata.close();
    }

    /// Commits the transaction.
    fn commit(&mut self) -> Result {
        if self.is_read_only() {
            return Err(Errno::EIO);
        }
        // Mappings must not become durable before the data that they lead to.
        let data_device = &self.data_device;
        self.metadata
            .commit(|| data_device.issue_flush())
            .map_err(|error| self.failed("committing", error))?;

        let metadata = self.metadata.metadata_usage().map(|usage| usage.free);
        let data = self.metadata.data_usage().map(|usage| usage.free);
        if let Ok(free) = metadata {
            self.report_metadata_low_water(free);
        }
        self.apply(Input::Committed {
            free_metadata: metadata,
            free_data: data,
        });
        Ok(())
    }

    /// User space learns that metadata get few while there is time to do something about it, and
    /// again if that has helped for a while.
    fn report_metadata_low_water(&mut self, free: u64) {
        let mark = self.metadata_low_water_mark();
        if free > mark.saturating_mul(2) {
            self.metadata_low_water.reported = false;
        }
        if self.metadata_low_water.reaches(free, mark) {
            log::warn!(self.name; "reached low water mark for metadata device: sending event.");
            self.raise_event();
        }
    }

    /// An operation failed half-way: goes back to the last commit, and no further.
    ///
    /// Returns what the bio fails with.
    #[cold]
    fn failed(&mut self, operation: &str, error: Errno) -> Errno {
        log::error_ratelimited!(
            self.name;
            "{operation} failed: error {}; aborting the metadata transaction",
            error.to_return_value()
        );
        let recovery = if self.metadata.abort().is_err() {
            Recovery::NotAborted
        } else if self.metadata.set_needs_check().is_err() {
            Recovery::NotMarked
        } else {
            Recovery::Complete
        };
        for thin in self.tables.thins() {
            thin.cache.clear();
        }
        self.apply(Input::OperationFailed(recovery));
        Errno::EIO
    }

    /// Lets the pool's mode follow what happened.
    fn apply(&mut self, input: Input) {
        let Effects {
            reason,
            timer,
            metadata,
            waiting,
            switch,
        } = self.state.apply(input);

        if let Some(reason) = reason {
            log::error!(self.name; "{}", log::Text(reason));
        }
        match timer {
            None => {}
            Some(Timer::Start) => {
                // There is one tick a second, and the next one may come at once.
                self.ticks_left = params::no_space_timeout().map(|seconds| seconds.get());
            }
            Some(Timer::Stop) => self.ticks_left = None,
        }
        if let Some(access) = metadata {
            self.metadata
                .set_read_only(access == MetadataAccess::ReadOnly);
        }
        // Before anybody acts on it.
        self.publish();
        if let Some(switch) = switch {
            log::info!(self.name; "{}", log::Text(switch));
            self.raise_event();
        }
        match waiting {
            None => {}
            Some(Waiting::TryAgain) => self.tables.answer_all(Space::TryAgain),
            Some(Waiting::Fail(error)) => self.tables.answer_all(Space::Fail(error)),
        }
    }

    fn publish(&self) {
        self.shared.publish(&self.rules(), &self.settings.features);
    }

    fn raise_event(&self) {
        if let Some(table) = &self.table {
            table.raise_event();
        }
    }
}

/// Turns away what the mode of the pool does not allow.
fn admit(service: Service) -> Result {
    match service {
        Service::Serve => Ok(()),
        Service::Ignore => Err(Errno::EIO),
        Service::Wait => Err(Errno::ENOSPC),
        Service::Fail(error) => Err(error),
    }
}

/// The same for bios that need a block, and can wait for it.
fn admit_new_block(service: Service) -> core::result::Result<(), Stop> {
    match service {
        Service::Wait => Err(Stop::NoSpace),
        service => Ok(admit(service)?),
    }
}
