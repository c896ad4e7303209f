// SPDX-License-Identifier: GPL-2.0

//! The `thin-pool` target: it has the metadata and the data of thin devices.

use crate::{
    block_device::OpenBlockDevice,
    control::PoolSettings,
    core::{
        errno::{
            Errno,
            Result, //
        },
        limits::{
            no_passdown_because,
            pool_limits,
            RequestLimits, //
        },
        message::Message,
        status::PoolTableLine,
        table::{
            PoolFeatures,
            PoolTable,
            TableError, //
        },
        units::{
            BlockSize,
            Sector, //
        }, //
    },
    dm::{
        arguments::Arguments,
        construct::{
            Construct,
            Mode, //
        },
        device::{
            Attachment,
            DeviceVisitor, //
        },
        limits::QueueLimits,
        link::TableHandle,
        mapped_device::MappedDevice,
        status::{
            StatusRequest,
            StatusWriter, //
        },
        target::{
            MapBio,
            Mapped,
            Target, //
        },
        target_ref::TargetRef, //
    },
    log,
    metadata::{
        Format,
        Metadata, //
    },
    pool_object::{
        Pool,
        PoolName, //
    },
    registry::{
        self,
        PoolHandle,
        PoolKey, //
    }, //
};
use core::{
    fmt::Write,
    ops::ControlFlow, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// A table's pool.
pub(crate) struct PoolTarget {
    /// The table.
    table: TableHandle,
    features: PoolFeatures,
    low_water_mark: u64,
    data_blocks: u64,
    data_device: OpenBlockDevice,
    /// The data device, as device-mapper knows it.
    attachment: Attachment,
    metadata_device: OpenBlockDevice,
    /// Whether the table has been in control of the pool.
    was_resumed: Atomic<bool>,
    /// The pool. Dropped last, since that may close it.
    pool: PoolHandle,
}

impl PoolTarget {
    fn open(
        config: &mut Construct<'_>,
        arguments: Arguments<'_>,
    ) -> core::result::Result<Self, TableError> {
        let table = PoolTable::parse(arguments)?;
        let mode = if table.features.read_only {
            Mode::Read
        } else {
            Mode::ReadWrite
        };
        let (_, metadata_device) = config
            .open_device(table.metadata_device, mode)
            .map_err(|errno| TableError::OPEN_METADATA_DEVICE.with_errno(errno))?;
        let (attachment, data_device) = config
            .open_device(table.data_device, Mode::ReadWrite)
            .map_err(|errno| TableError::OPEN_DATA_DEVICE.with_errno(errno))?;
        let (block_size, low_water_mark) = table.sizes()?;

        let mapped_device = config.mapped_device();
        let key = PoolKey {
            pool_device: mapped_device.id(),
            metadata_device: metadata_device.number(),
            data_device: data_device.number(),
        };
        let (pool, made) = registry::find_or_make(key, || {
            new_pool(
                mapped_device,
                table.features,
                block_size,
                &metadata_device,
                &data_device,
            )
        })?;
        if !made && pool.shared.takes_discards() != table.features.discard_enabled {
            return Err(TableError::DISCARD_SUPPORT);
        }
        pool.add_table();

        config.set_flush_bios(1);
        config.set_limit_swap_bios(true);
        config.set_write_zeroes_bios(1);
        if table.features.discard_enabled && table.features.discard_passdown {
            config.set_discard_bios(1);
            config.set_discards_supported(true);
            config.set_max_discard_granularity(true);
        }
        Ok(Self {
            table: config.table_handle(),
            features: table.features,
            low_water_mark,
            // The pool may be older, and know better.
            data_blocks: pool.block_size.whole_blocks(config.length()),
            data_device,
            attachment,
            metadata_device,
            was_resumed: Atomic::new(false),
            pool,
        })
    }

    /// What the table asks for, less what the data device cannot do. Second, why.
    fn possible_features(&self) -> (PoolFeatures, Option<&'static str>) {
        let mut features = self.features;
        let longest = Sector(self.data_device.max_discard_sectors().into());
        let reason = if features.discard_enabled && features.discard_passdown {
            no_passdown_because(self.pool.block_size, longest)
        } else {
            None
        };
        features.discard_passdown &= reason.is_none();
        (features, reason)
    }

    fn settings(&self) -> PoolSettings {
        PoolSettings {
            features: self.possible_features().0,
            low_water_mark: self.low_water_mark,
            data_blocks: self.data_blocks,
        }
    }
}

/// Makes the pool of a table.
fn new_pool(
    mapped_device: &MappedDevice,
    features: PoolFeatures,
    block_size: BlockSize,
    metadata_device: &OpenBlockDevice,
    data_device: &OpenBlockDevice,
) -> core::result::Result<Arc<Pool>, TableError> {
    let no_pool = |errno| TableError::CREATE_POOL.with_errno(errno);
    let name = PoolName::new(mapped_device).map_err(no_pool)?;
    let metadata = open_metadata(&name, features, block_size, metadata_device)?;

    Pool::new(
        name,
        metadata,
        PoolSettings {
            features,
            low_water_mark: 0,
            data_blocks: 0,
        },
        block_size,
        metadata_device.clone(),
        data_device.clone(),
    )
    .map_err(no_pool)
}

// Not inlined: it moves large things, which want a part of the stack for a short time only.
#[inline(never)]
fn open_metadata(
    name: &PoolName,
    features: PoolFeatures,
    block_size: BlockSize,
    device: &OpenBlockDevice,
) -> core::result::Result<KBox<Metadata>, TableError> {
    let format = if features.read_only {
        Format::Never
    } else {
        Format::IfZero
    };
    let metadata = Metadata::open(device.clone(), block_size, format).map_err(|error| {
        log::error!(name; "{error}");
        TableError::CREATE_METADATA.with_errno(error.errno())
    })?;

    KBox::new(metadata, GFP_KERNEL).map_err(|_| TableError::CREATE_POOL)
}

impl Drop for PoolTarget {
    fn drop(&mut self) {
        self.pool.remove_table();
    }
}

impl Target for PoolTarget {
    fn construct(config: &mut Construct<'_>, arguments: Arguments<'_>) -> Result<Pin<KBox<Self>>> {
        match Self::open(config, arguments) {
            Ok(this) => Ok(KBox::pin(this, GFP_KERNEL)?),
            Err(error) => {
                config.set_error(error.text());
                Err(error.errno())
            }
        }
    }

    fn map(&self, bio: MapBio<'_, Self>) -> Mapped {
        bio.pass_to(&self.data_device)
    }

    fn presuspend(&self, _this: TargetRef<'_>) {
        self.pool.drain.stop();
    }

    fn presuspend_undo(&self, _this: TargetRef<'_>) {
        self.pool.drain.resume();
    }

    fn postsuspend(&self, _this: TargetRef<'_>) {
        self.pool.suspend();
    }

    fn preresume(&self, _this: TargetRef<'_>) -> Result {
        let first_time = !self.was_resumed.load(Relaxed);

        self.pool.drain.while_stopped(|drained| {
            self.pool.control.call_and_wait(|control| {
                control.resume(drained, self.settings(), self.table.clone(), first_time)
            })
        })?;
        self.was_resumed.store(true, Relaxed);
        Ok(())
    }

    fn resume(&self, _this: TargetRef<'_>) {
        self.pool.resume(self.data_blocks);
    }

    fn message(&self, _this: TargetRef<'_>, arguments: Arguments<'_>) -> Result {
        if !self
            .pool
            .control
            .call_and_wait(|control| control.takes_messages())
        {
            log::error!(
                self.pool.name;
                "unable to service pool target messages in READ_ONLY or FAIL mode"
            );
            return Err(Errno::EOPNOTSUPP);
        }
        match Message::parse(arguments) {
            Ok(message) => self.pool.execute(&message),
            Err(refusal) => {
                log::warn!(self.pool.name; "{}", log::Text(refusal));
                Err(Errno::EINVAL)
            }
        }
    }

    fn status(&self, this: TargetRef<'_>, request: StatusRequest, writer: &mut StatusWriter<'_>) {
        // What does not fit is cut off, and device-mapper sees that.
        let _ = match request {
            StatusRequest::Info { may_flush } => {
                let commit = may_flush && !this.is_suspended();
                let info = self
                    .pool
                    .control
                    .call_and_wait(|control| control.info(commit));
                write!(writer, "{info}")
            }
            StatusRequest::Table => write!(
                writer,
                "{}",
                PoolTableLine {
                    metadata_device: self.metadata_device.number(),
                    data_device: self.data_device.number(),
                    block_size: self.pool.block_size,
                    low_water_mark: self.low_water_mark,
                    features: self.features,
                }
            ),
            StatusRequest::Ima => Ok(()),
        };
    }

    fn iterate_devices(
        &self,
        this: TargetRef<'_>,
        visitor: &mut DeviceVisitor<'_>,
    ) -> ControlFlow<i32> {
        visitor.visit(self.attachment, Sector(0), this.length())
    }

    fn io_hints(&self, _this: TargetRef<'_>, limits: &mut QueueLimits) {
        let (features, reason) = self.possible_features();

        if let Some(reason) = reason {
            log::warn!(
                self.pool.name;
                "Data device ({}) {reason}: Disabling discard passdown.",
                log::Text(self.data_device.number())
            );
        }
        if !features.discard_enabled {
            // Or else device-mapper would take those of the data device.
            limits.set_discard_granularity(0);
        } else if !features.discard_passdown {
            limits.set_max_hw_discard_sectors(0);
        }
        let suitable = pool_limits(
            self.pool.block_size,
            RequestLimits {
                max_sectors: limits.max_sectors(),
                io_min: limits.io_min(),
                io_opt: limits.io_opt(),
            },
        );
        limits.set_max_sectors(suitable.max_sectors);
        limits.set_io_min(suitable.io_min);
        limits.set_io_opt(suitable.io_opt);
    }
}
