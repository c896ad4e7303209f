// SPDX-License-Identifier: GPL-2.0

//! Looking up mappings beside the metadata queue.

use super::{
    device::Device,
    store::MappingTree, //
};
use crate::{
    core::{
        errno::{
            Errno,
            Result, //
        },
        mapping::Mapping,
        units::VirtualBlock, //
    },
    persistent_data::{
        new_rw_lock,
        NonBlocking,
        RwLock,
        TryError, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Why a mapping could not be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookupError {
    /// It has to be read from the metadata device, or somebody changes mappings just now.
    WouldBlock,
    /// It failed.
    Failed(Errno),
}

impl From<TryError> for LookupError {
    fn from(error: TryError) -> Self {
        match error {
            TryError::WouldBlock => Self::WouldBlock,
            TryError::Failed(errno) => Self::Failed(errno),
        }
    }
}

/// The mappings of all devices.
pub(super) struct Mappings {
    /// What others look them up with. Nothing once the metadata are closed.
    pub(super) clone: Option<NonBlocking>,
    pub(super) tree: MappingTree,
}

/// Looks up mappings, from any number of threads.
///
/// Only those that are in memory can be found so.
#[pin_data]
pub(crate) struct MappingReader {
    #[pin]
    pub(super) mappings: RwLock<Mappings>,
}

impl MappingReader {
    pub(super) fn new(mappings: Mappings) -> Result<Arc<Self>> {
        Ok(Arc::pin_init(
            pin_init!(Self {
                mappings <- new_rw_lock!(mappings, "MappingReader::mappings"),
            }),
            GFP_KERNEL,
        )?)
    }

    /// Where a block is; tells `found`, too, before anybody can change it. Sleeps, but not for I/O.
    pub(crate) fn lookup(
        &self,
        device: &Device,
        block: VirtualBlock,
        found: impl FnOnce(Option<Mapping>),
    ) -> core::result::Result<Option<Mapping>, LookupError> {
        self.mappings.read().lookup(device, block, found)
    }

    /// Where a block is; tells `found`, too, before anybody can change it. Does not wait for who
    /// changes mappings.
    pub(crate) fn try_lookup(
        &self,
        device: &Device,
        block: VirtualBlock,
        found: impl FnOnce(Option<Mapping>),
    ) -> core::result::Result<Option<Mapping>, LookupError> {
        self.mappings
            .try_read()
            .ok_or(LookupError::WouldBlock)?
            .lookup(device, block, found)
    }

    /// Makes all lookups fail from now on.
    pub(super) fn close(&self) {
        self.mappings.write().clone = None;
    }
}

impl Mappings {
    fn lookup(
        &self,
        device: &Device,
        block: VirtualBlock,
        found: impl FnOnce(Option<Mapping>),
    ) -> core::result::Result<Option<Mapping>, LookupError> {
        let clone = self.clone.as_ref().ok_or(LookupError::Failed(Errno::EIO))?;
        let mapping = clone
            .get(&self.tree, device.id().key(), block.0)?
            .map(|value| device.mapping(value));
        found(mapping);
        Ok(mapping)
    }
}
