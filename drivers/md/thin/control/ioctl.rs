// SPDX-License-Identifier: GPL-2.0

//! What tables ask of a pool: to be taken over, opened, and shown.

use super::{
    Control,
    LowWater,
    OpenThin,
    PoolSettings, //
};
use crate::{
    core::{
        errno::{
            Errno,
            Result, //
        },
        mode::{
            Input,
            PoolMode, //
        },
        status::{
            metadata_low_water_mark,
            PoolInfo,
            PoolUsage,
            Space,
            ThinStatus, //
        },
        units::DeviceId, //
    },
    dm::link::TableHandle,
    drain::Drained,
    log,
    mapping_cache::MappingCache,
    metadata::{
        usable_blocks,
        Usage, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

impl Control {
    /// A table takes control of the pool, for the first time or again.
    pub(crate) fn resume(
        &mut self,
        drained: &Drained<'_>,
        settings: PoolSettings,
        table: TableHandle,
        first_time: bool,
    ) -> Result {
        if self.state.mode() != PoolMode::Fail {
            self.check_sizes(&settings)?;
        }
        self.settings = settings;
        self.table = Some(table);
        self.low_water = LowWater::default();
        self.metadata_low_water = LowWater::default();
        self.apply(if first_time {
            Input::TableLoaded(settings.features)
        } else {
            Input::TableResumed(settings.features)
        });

        match self.grow(drained) {
            // The thin devices have to be resumed, so that their bios can fail.
            Err(_) if self.state.mode() == PoolMode::Fail => Ok(()),
            grown => grown,
        }
    }

    /// Refuses devices that have lost blocks.
    fn check_sizes(&self, settings: &PoolSettings) -> Result {
        let data = self.metadata.data_usage()?.total;
        if settings.data_blocks < data {
            log::error!(
                self.name;
                "pool target ({} blocks) too small: expected {}",
                settings.data_blocks,
                data
            );
            return Err(Errno::EINVAL);
        }
        let usable = usable_blocks(&self.metadata_device);
        let metadata = self.metadata.metadata_usage()?.total;
        if usable < metadata {
            log::error!(
                self.name;
                "metadata device ({} blocks) too small: expected {}",
                usable,
                metadata
            );
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// Lets the pool grow to the size of its devices.
    fn grow(&mut self, drained: &Drained<'_>) -> Result {
        // Growing the data may take metadata blocks, so that comes second.
        let metadata = self.grow_metadata(drained)?;
        let data = self.grow_data(drained)?;

        if metadata || data {
            // A failure has had its effect.
            let _ = self.commit();
        }
        Ok(())
    }

    /// Returns whether there was something to grow.
    fn grow_metadata(&mut self, _drained: &Drained<'_>) -> Result<bool> {
        let (wanted, current) = match self.metadata.metadata_usage() {
            Ok(usage) => (usable_blocks(&self.metadata_device), usage.total),
            Err(_) if self.state.mode() == PoolMode::Fail => return Ok(false),
            Err(error) => return Err(error),
        };
        if wanted <= current {
            return Ok(false);
        }
        if self.state.needs_check() {
            log::error!(self.name; "unable to grow the metadata device until repaired.");
            return Ok(false);
        }
        self.apply(Input::MetadataGrown);
        if self.is_read_only() {
            return Ok(false);
        }
        log::info!(
            self.name;
            "growing the metadata device from {current} to {wanted} blocks"
        );
        if let Err(error) = self.metadata.resize_metadata(wanted) {
            self.failed("growing the metadata device", error);
            return Err(error);
        }
        Ok(true)
    }

    /// Returns whether there was something to grow.
    fn grow_data(&mut self, _drained: &Drained<'_>) -> Result<bool> {
        let wanted = self.settings.data_blocks;
        let current = match self.metadata.data_usage() {
            Ok(usage) => usage.total,
            Err(_) if self.state.mode() == PoolMode::Fail => return Ok(false),
            Err(error) => return Err(error),
        };
        if wanted <= current {
            return Ok(false);
        }
        if self.state.needs_check() {
            log::error!(self.name; "unable to grow the data device until repaired.");
            return Ok(false);
        }
        if self.is_read_only() {
            return Ok(false);
        }
        if current > 0 {
            log::info!(
                self.name;
                "growing the data device from {current} to {wanted} blocks"
            );
        }
        if let Err(error) = self.metadata.resize_data(wanted) {
            self.failed("growing the data device", error);
            return Err(error);
        }
        Ok(true)
    }

    /// The pool device has been suspended: bios that wait for space have been turned away.
    pub(crate) fn suspend(&mut self) {
        self.apply(Input::Suspended);
        self.commit_changes();
    }

    /// What the pool's status line shows. Commits before, if `commit` says so.
    pub(crate) fn info(&mut self, commit: bool) -> PoolInfo {
        if self.state.mode() == PoolMode::Fail {
            return PoolInfo::Fail;
        }
        if commit {
            self.commit_changes();
        }
        match self.usage() {
            _ if self.state.mode() == PoolMode::Fail => PoolInfo::Fail,
            Ok(usage) => PoolInfo::Usage(usage),
            Err(_) => PoolInfo::Error,
        }
    }

    fn usage(&self) -> Result<PoolUsage> {
        Ok(PoolUsage {
            transaction_id: self.metadata.transaction_id(),
            metadata: space(self.metadata.metadata_usage()?),
            data: space(self.metadata.data_usage()?),
            metadata_snapshot: self.metadata.held_root(),
            mode: self.state.mode(),
            discard_enabled: self.settings.features.discard_enabled,
            discard_passdown: self.settings.features.discard_passdown,
            no_space: self.state.no_space(),
            needs_check: self.state.needs_check(),
            metadata_low_water_mark: self.metadata_low_water_mark(),
        })
    }

    /// The number of free metadata blocks at which to tell user space.
    pub(super) fn metadata_low_water_mark(&self) -> u64 {
        metadata_low_water_mark(usable_blocks(&self.metadata_device))
    }

    /// What a thin device's status line shows.
    pub(crate) fn thin_info(&mut self, thin: &OpenThin) -> ThinStatus {
        if self.state.mode() == PoolMode::Fail {
            return ThinStatus::Fail;
        }
        match (
            self.metadata.mapped_blocks(&thin.device),
            self.metadata.highest_mapped(&thin.device),
        ) {
            (Ok(mapped_blocks), Ok(highest_mapped)) => ThinStatus::Info {
                block_size: self.block_size,
                mapped_blocks,
                highest_mapped,
            },
            _ => ThinStatus::Error,
        }
    }

    /// The mode that the pool is in.
    pub(crate) fn mode(&self) -> PoolMode {
        self.state.mode()
    }

    /// Opens a thin device for a table. It gets the cache if it was not open yet.
    pub(crate) fn open_thin(
        &mut self,
        id: DeviceId,
        table: TableHandle,
        cache: MappingCache,
    ) -> Result<Arc<OpenThin>> {
        self.tables.reserve()?;
        let thin = match self.tables.find(id) {
            Some(thin) => thin.clone(),
            None => {
                let device = self.metadata.open_device(id)?;
                Arc::new(
                    OpenThin {
                        device: device.clone(),
                        cache,
                    },
                    GFP_KERNEL,
                )
                .inspect_err(|_| self.metadata.close_device(device))?
            }
        };
        self.tables.add(table, thin.clone());
        Ok(thin)
    }

    /// A table does not need its thin device any more.
    pub(crate) fn close_thin(&mut self, table: &TableHandle) {
        if let Some(thin) = self.tables.remove(table) {
            if self.tables.find(thin.id()).is_none() {
                self.metadata.close_device(thin.device.clone());
            }
        }
    }

    /// Bios of a table that wait for space, or come to do so, are to be handed back, since their
    /// device is being suspended; or not any more.
    pub(crate) fn turn_away(&mut self, table: &TableHandle, turns_away: bool) {
        self.tables.turn_away(table, turns_away);
    }
}

fn space(usage: Usage) -> Space {
    Space {
        total: usage.total,
        free: usage.free,
    }
}
