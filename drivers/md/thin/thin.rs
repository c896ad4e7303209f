// SPDX-License-Identifier: GPL-2.0

//! The `thin` target: a thin device of a pool.

use crate::{
    bio::{
        Bio,
        BlockStatus,
        Op, //
    },
    block_device::{
        DeviceNumber,
        OpenBlockDevice, //
    },
    control::OpenThin,
    core::{
        errno::{
            Errno,
            Result, //
        },
        limits,
        mapping::Mapping,
        mode::PoolMode,
        prison::{
            HeldLock,
            Prison, //
        },
        remap::{
            self,
            Place,
            Request,
            Thin,
            Write, //
        },
        status::{
            ThinStatus,
            ThinTableLine, //
        },
        table::{
            TableError,
            ThinTable, //
        },
        units::{
            DeviceId,
            Sector,
            VirtualBlock,
            VirtualRange, //
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
    mapping_cache::MappingCache,
    origin::Origin,
    registry::{
        self,
        PoolHandle, //
    },
    serve,
    task::{
        Serve,
        TaskBio,
        Verdict, //
    }, //
};
use core::{
    fmt::Write as _,
    future::Future,
    ops::ControlFlow, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// A table's thin device.
pub(crate) struct ThinTarget {
    /// The device in the metadata.
    pub(crate) thin: Arc<OpenThin>,
    /// The table.
    pub(crate) table: TableHandle,
    /// What shows where there is no block.
    pub(crate) origin: Option<Origin>,
    pool_device: DeviceNumber,
    /// The pool device, as device-mapper knows it.
    attachment: Attachment,
    /// The pool that it is a device of. Dropped last, since that may close the pool.
    pub(crate) pool: PoolHandle,
}

impl ThinTarget {
    fn open(
        config: &mut Construct<'_>,
        arguments: Arguments<'_>,
    ) -> core::result::Result<Self, TableError> {
        let table = ThinTable::parse(arguments)?;
        let origin_device = match table.origin_device {
            Some(path) => {
                let (_, device) = config
                    .open_device(path, Mode::Read)
                    .map_err(|errno| TableError::OPEN_ORIGIN_DEVICE.with_errno(errno))?;
                Some(device)
            }
            None => None,
        };
        let (attachment, pool_device) = config
            .open_device(table.pool_device, Mode::OfTable)
            .map_err(|errno| TableError::OPEN_POOL_DEVICE.with_errno(errno))?;
        let id = table.device()?;
        let mapped_device = MappedDevice::of(&pool_device).ok_or(TableError::NOT_MAPPED)?;
        let pool = registry::find(mapped_device.id()).ok_or(TableError::NO_POOL)?;

        let blocks = pool.block_size.blocks_to_hold(config.length());
        let cache = MappingCache::new(blocks)
            .map_err(|errno| TableError::OUT_OF_MEMORY.with_errno(errno))?;
        let handle = config.table_handle();
        let thin = pool.control.call_and_wait(|control| {
            if control.mode() == PoolMode::Fail {
                return Err(TableError::POOL_FAILED);
            }
            control
                .open_thin(id, handle.clone(), cache)
                .map_err(|errno| TableError::OPEN_DEVICE.with_errno(errno))
        })?;
        // From here on, dropping it closes the device.
        let block_size = pool.block_size;
        let this = Self {
            thin,
            table: handle,
            origin: origin_device.map(|device| Origin::new(device, block_size)),
            pool_device: pool_device.number(),
            attachment,
            pool,
        };
        config
            .set_max_io_length(Sector(block_size.sectors()))
            .map_err(|errno| TableError::OUT_OF_MEMORY.with_errno(errno))?;
        this.pool
            .drain
            .add(id, this.table.clone())
            .map_err(|errno| match errno {
                Errno::ENOMEM => TableError::OUT_OF_MEMORY,
                errno => TableError::POOL_SUSPENDED.with_errno(errno),
            })?;

        config.set_flush_bios(1);
        config.set_flush_supported(true);
        config.set_limit_swap_bios(true);
        config.set_write_zeroes_bios(1);
        if this.pool.shared.takes_discards() {
            config.set_discard_bios(1);
            config.set_discards_supported(true);
            config.set_max_discard_granularity(true);
        }
        Ok(this)
    }

    /// What a read gets that finds no block.
    pub(crate) fn read_origin(&self, place: &Place) -> Verdict<HeldLock> {
        let Some(origin) = &self.origin else {
            return Verdict::Zeroes;
        };
        let extent = origin.extent();
        match extent.sector(place) {
            Some(sector) => Verdict::ReadOrigin {
                sector,
                length: extent.visible(place, Sector(self.pool.block_size.sectors())),
            },
            None => Verdict::Zeroes,
        }
    }

    fn place(&self, sector: Sector) -> Place {
        let (block, offset) = self.pool.block_size.locate(sector);

        Place {
            block: VirtualBlock(block),
            offset,
        }
    }

    /// What a bio asks for; `None` if that is nothing for us. One that asks for more than can be asked
    /// for at once is shortened; device-mapper sends the rest as another.
    fn request(&self, bio: &mut MapBio<'_, Self>) -> Option<Request> {
        let block_size = self.pool.block_size;
        let place = self.place(bio.sector());

        Some(match bio.bio().op() {
            Op::Flush => Request::Flush,
            Op::Read => Request::Read(place),
            Op::Write => Request::Write(self.write(bio, place, false)),
            Op::Discard => {
                Request::Discard(block_size.blocks_within(bio.sector(), bio.bio().length()))
            }
            Op::WriteZeroes => {
                let blocks = block_size.blocks_within(bio.sector(), bio.bio().length());
                let (region, _) = blocks.split_at_region();
                if self.can_unmap(bio.bio(), &place, region) {
                    bio.shorten(block_size.length(region.len())?);
                    return Some(Request::ZeroBlocks(region));
                }
                // Device-mapper does not split such a bio where blocks end.
                bio.shorten(Sector(block_size.sectors().checked_sub(place.offset.0)?));
                Request::Write(self.write(bio, place, true))
            }
            Op::Other => return None,
        })
    }

    fn write(&self, bio: &MapBio<'_, Self>, place: Place, is_zeroes: bool) -> Write {
        Write {
            place,
            covers_block: bio.bio().length().0 == self.pool.block_size.sectors(),
            durable: bio.bio().is_durable(),
            is_zeroes,
        }
    }

    /// Whether a bio that writes zeroes from `place` on can have these blocks unmapped.
    fn can_unmap(&self, bio: &Bio, place: &Place, blocks: VirtualRange) -> bool {
        bio.may_unmap()
            && !bio.is_durable()
            && place.offset.0 == 0
            && !blocks.is_empty()
            && !self.origin_shows(place)
    }

    fn turn_away(&self, turns_away: bool) {
        self.pool
            .control
            .call_and_wait(|control| control.turn_away(&self.table, turns_away));
    }
}

impl Thin for ThinTarget {
    fn id(&self) -> DeviceId {
        self.thin.id()
    }

    fn prison(&self) -> &Prison {
        &self.pool.prison
    }

    fn is_changed(&self) -> bool {
        self.thin.is_changed()
    }

    fn origin_shows(&self, place: &Place) -> bool {
        matches!(&self.origin, Some(origin) if origin.extent().shows(place))
    }

    fn origin_ends_in(&self, block: VirtualBlock) -> bool {
        matches!(&self.origin, Some(origin) if origin.extent().ends_in(block))
    }

    fn lookup_now(&self, block: VirtualBlock) -> Option<Option<Mapping>> {
        self.pool.lookup_now(&self.thin, block).ok()
    }
}

impl Drop for ThinTarget {
    fn drop(&mut self) {
        self.pool.drain.remove(&self.table);
        self.pool
            .control
            .call_and_wait(|control| control.close_thin(&self.table));
    }
}

impl Serve for ThinTarget {
    type Request = Request;
    type Hook = HeldLock;

    fn serve<'a>(
        &'a self,
        bio: TaskBio<'a, Self>,
        request: Request,
    ) -> impl Future<Output = Verdict<HeldLock>> + Send + 'a {
        serve::serve(self, bio, request)
    }

    fn data_device(&self) -> &OpenBlockDevice {
        &self.pool.data_device
    }

    fn origin_device(&self) -> Option<&OpenBlockDevice> {
        self.origin.as_ref().map(|origin| &origin.device)
    }

    fn end_io(&self, hook: HeldLock) {
        self.pool.prison.release(hook);
    }
}

impl Target for ThinTarget {
    fn construct(config: &mut Construct<'_>, arguments: Arguments<'_>) -> Result<Pin<KBox<Self>>> {
        match Self::open(config, arguments) {
            Ok(this) => Ok(KBox::pin(this, GFP_KERNEL)?),
            Err(error) => {
                config.set_error(error.text());
                Err(error.errno())
            }
        }
    }

    fn map(&self, mut bio: MapBio<'_, Self>) -> Mapped {
        if self.pool.shared.fails() {
            return bio.complete(BlockStatus::IOERR);
        }
        let Some(request) = self.request(&mut bio) else {
            return bio.complete(BlockStatus::NOTSUPP);
        };
        if let Some(verdict) = remap::serve_now(self, &request) {
            return match self.carry_out(verdict) {
                Verdict::Remap { sector, hook } => bio.remap(sector, hook),
                Verdict::ReadOrigin { sector, length } => bio.read_origin(sector, length),
                Verdict::Zeroes => bio.zeroes(),
                Verdict::Complete(status) => bio.complete(status),
            };
        }
        if bio.bio().is_nowait() {
            return bio.complete(BlockStatus::AGAIN);
        }
        match self.pool.zone(self.id(), request.first_block()) {
            Some(queue) => bio.defer(queue, request),
            None => bio.complete(BlockStatus::IOERR),
        }
    }

    fn presuspend(&self, this: TargetRef<'_>) {
        // With a flush, all bios are to end, and those that wait for space do so as long as it takes.
        if this.is_noflush_suspending() {
            self.turn_away(true);
        }
    }

    fn presuspend_undo(&self, _this: TargetRef<'_>) {
        self.turn_away(false);
    }

    fn postsuspend(&self, _this: TargetRef<'_>) {
        self.turn_away(false);
    }

    fn preresume(&self, _this: TargetRef<'_>) -> Result {
        if let Some(origin) = &self.origin {
            origin.read_size();
        }
        Ok(())
    }

    fn status(&self, _this: TargetRef<'_>, request: StatusRequest, writer: &mut StatusWriter<'_>) {
        let info = || {
            self.pool
                .control
                .call_and_wait(|control| control.thin_info(&self.thin))
        };
        // What does not fit is cut off, and the caller sees that.
        let _ = match request {
            StatusRequest::Info { .. } => write!(writer, "{}", info()),
            // Whatever is asked for, programs want to see that.
            _ if self.pool.shared.has_failed() => write!(writer, "{}", ThinStatus::Fail),
            StatusRequest::Table => write!(
                writer,
                "{}",
                ThinTableLine {
                    pool_device: self.pool_device,
                    device: self.id(),
                    origin_device: self.origin.as_ref().map(|origin| origin.device.number()),
                }
            ),
            StatusRequest::Ima => Ok(()),
        };
    }

    fn iterate_devices(
        &self,
        _this: TargetRef<'_>,
        visitor: &mut DeviceVisitor<'_>,
    ) -> ControlFlow<i32> {
        match self.pool.visible_length() {
            Some(length) => visitor.visit(self.attachment, Sector(0), length),
            // No table is in control of the pool.
            None => ControlFlow::Continue(()),
        }
    }

    fn io_hints(&self, _this: TargetRef<'_>, limits: &mut QueueLimits) {
        if self.pool.shared.takes_discards() {
            let block_size = self.pool.block_size;
            limits.set_discard_granularity(limits::discard_granularity(block_size));
            limits.set_max_hw_discard_sectors(limits::max_discard_sectors(block_size));
        }
    }
}
