// SPDX-License-Identifier: GPL-2.0

//! The metadata of a pool: which devices there are, where their blocks are, and which blocks are free.
//!
//! They are on the disk as the C driver has them there, see Documentation/on-disk-format.rst, in trees
//! and space maps of the kernel's dm-persistent-data.
//!
//! [`Metadata`] is for the pool's metadata queue alone: all changes are made there, one after the
//! other, and all that has to be read from the metadata device is read there. Others can look up
//! mappings with a [`MappingReader`], as long as these are in memory.
//!
//! # Transactions
//!
//! Changes are in memory, and in blocks of the metadata device that nobody sees, until
//! [`Metadata::commit`]. After an operation that failed half-way, [`Metadata::must_abort`], nothing
//! else can be done to the metadata before [`Metadata::abort`] has given up all changes since the last
//! commit, those of what is in memory included.

mod allocated;
mod delete;
mod device;
mod mappings;
mod reader;
mod snapshot;
mod space;
mod store;
mod transaction;

pub(crate) use device::Device;
pub(crate) use reader::{
    LookupError,
    MappingReader, //
};
pub(crate) use space::{
    usable_blocks,
    AllocateError,
    Usage, //
};
pub(crate) use store::{
    Format,
    OpenError, //
};

use crate::{
    block_device::OpenBlockDevice,
    core::{
        errno::{
            Errno,
            Result, //
        },
        units::{
            BlockSize,
            MetadataBlock, //
        }, //
    }, //
};
use allocated::Allocated;
use delete::Deletions;
use device::Devices;
use kernel::sync::Arc;
use store::Store;

/// The metadata of a pool.
///
/// All functions sleep, and read from the metadata device what is not in memory.
pub(crate) struct Metadata {
    block_size: BlockSize,
    /// What is on the device. Nothing once that could not be made out after a failure, or was closed.
    store: Option<Store>,
    reader: Arc<MappingReader>,
    devices: Devices,
    allocated: Allocated,
    deletions: Deletions,
    /// Whether the metadata have to be checked before they can be trusted.
    needs_check: bool,
}

impl Metadata {
    /// Opens the metadata on `device`, of a pool with blocks of `block_size`.
    pub(crate) fn open(
        device: OpenBlockDevice,
        block_size: BlockSize,
        format: Format,
    ) -> core::result::Result<Self, OpenError> {
        let (store, mappings) = Store::open_new(&device, block_size, format)?;
        let part = |errno| OpenError::part("memory", errno);

        Ok(Self {
            needs_check: store.superblock.needs_check(),
            store: Some(store),
            reader: MappingReader::new(mappings).map_err(part)?,
            devices: Devices::new(),
            allocated: Allocated::new().map_err(part)?,
            deletions: Deletions::new(),
            block_size,
        })
    }

    /// Something to look up mappings with.
    pub(crate) fn reader(&self) -> Arc<MappingReader> {
        self.reader.clone()
    }

    /// Whether the metadata have to be checked, by userspace, before they change again.
    pub(crate) fn needs_check(&self) -> bool {
        self.needs_check
    }

    /// The number that userspace gave the last transaction of its own.
    pub(crate) fn transaction_id(&self) -> u64 {
        self.store
            .as_ref()
            .map_or(0, |store| store.superblock.transaction_id)
    }

    /// Changes [`Metadata::transaction_id`]. Fails with `EINVAL` if it is not `current`.
    pub(crate) fn set_transaction_id(&mut self, current: u64, new: u64) -> Result {
        let store = self.store_mut()?;
        if store.superblock.transaction_id != current {
            return Err(Errno::EINVAL);
        }
        store.superblock.transaction_id = new;
        store.changed = true;
        Ok(())
    }

    /// Where the metadata snapshot is, if there is one.
    pub(crate) fn held_root(&self) -> Option<MetadataBlock> {
        self.store
            .as_ref()
            .map(|store| store.superblock.metadata_snapshot)
            .filter(|block| block.0 != 0)
    }

    /// Says whether nothing may be written from now on. Changes fail with `EPERM` then.
    pub(crate) fn set_read_only(&mut self, read_only: bool) {
        if let Some(store) = &mut self.store {
            store.manager.blocks_mut().set_read_only(read_only);
        }
    }

    /// Writes what is dirty and lets go of the metadata device. Nothing works afterwards.
    pub(crate) fn close(&mut self) {
        self.reader.close();
        self.store = None;
    }

    /// What is on the device. Fails with `EIO` if nobody knows.
    fn store(&self) -> Result<&Store> {
        self.store.as_ref().ok_or(Errno::EIO)
    }

    /// What is on the device, to change it. Fails with `EIO` if nobody knows, or if the transaction
    /// has to be aborted, and with `EPERM` if nothing may be written.
    fn store_mut(&mut self) -> Result<&mut Store> {
        self.store.as_mut().ok_or(Errno::EIO)?.check_writable()
    }
}
