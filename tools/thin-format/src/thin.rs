// SPDX-License-Identifier: GPL-2.0
//! A pool's metadata as what it means: thin devices, and where their blocks are.

use crate::btree;
use crate::error::{Error, Result};
use crate::io::Store;
use crate::records::{DeviceDetails, PackedMapping, Superblock};
use crate::superblock::{self, Demand};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// A thin device, as the two trees of devices know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThinDevice {
    /// Its number in the pool.
    pub id: u64,
    /// The root of its tree of mappings; `None` if it has details but no mappings: an
    /// inconsistency.
    pub root: Option<u64>,
    /// What is known about it; `None` if it has mappings but no details: an inconsistency.
    pub details: Option<DeviceDetails>,
}

impl ThinDevice {
    /// Root and details; `None` if the device is an inconsistency.
    pub fn complete(&self) -> Option<(u64, DeviceDetails)> {
        self.root.zip(self.details)
    }
}

/// Which state of the pool is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The last committed one.
    Current,
    /// The one that the metadata snapshot holds.
    Snapshot,
    /// The one that the superblock copy in this block holds.
    SnapshotAt(u64),
}

/// The metadata of a pool, opened at one of its states.
pub struct Pool<'a> {
    store: &'a dyn Store,
    main: Superblock,
    superblock: Superblock,
    devices: Vec<ThinDevice>,
}

/// Why there is nothing to look at.
#[derive(Debug)]
pub enum OpenError {
    /// Something cannot be read or is wrong.
    Metadata(Error),
    /// There is no metadata snapshot: `dmsetup message POOL 0 reserve_metadata_snap` makes one.
    NoSnapshot,
}

impl From<Error> for OpenError {
    fn from(error: Error) -> OpenError {
        OpenError::Metadata(error)
    }
}

impl<'a> Pool<'a> {
    /// Reads the superblock and both trees of devices.
    ///
    /// Memory: 56 bytes for each device.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(store: &'a dyn Store, view: View) -> std::result::Result<Pool<'a>, OpenError> {
        let main = superblock::read(store, 0, Demand::Everything)?;
        let superblock = match view {
            View::Current => main.clone(),
            View::Snapshot if main.metadata_snapshot.0 == 0 => return Err(OpenError::NoSnapshot),
            View::Snapshot => {
                superblock::read(store, main.metadata_snapshot.0, Demand::Everything)?
            }
            View::SnapshotAt(block) => superblock::read(store, block, Demand::Everything)?,
        };
        let devices = devices(store, superblock.mapping_root.0, superblock.details_root.0)?;
        Ok(Pool {
            store,
            main,
            superblock,
            devices,
        })
    }

    /// Where the metadata is.
    pub fn store(&self) -> &'a dyn Store {
        self.store
    }

    /// Block 0. Only it has the space maps.
    pub fn main_superblock(&self) -> &Superblock {
        &self.main
    }

    /// The superblock of the state that is looked at.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// How many blocks the data device has.
    pub fn data_blocks(&self) -> u64 {
        superblock::data_space_map(&self.main).blocks
    }

    /// All devices, by number.
    pub fn devices(&self) -> &[ThinDevice] {
        &self.devices
    }

    /// The device with this number.
    pub fn device(&self, id: u64) -> Option<&ThinDevice> {
        let at = self
            .devices
            .binary_search_by_key(&id, |device| device.id)
            .ok()?;
        self.devices.get(at)
    }
}

/// The devices that either of the two trees has, by number.
///
/// # Errors
///
/// [`Error::Read`] and [`Error::Block`] for a node of either tree.
pub fn devices(store: &dyn Store, mapping_root: u64, details_root: u64) -> Result<Vec<ThinDevice>> {
    let mut devices = BTreeMap::new();
    btree::entries::<u64>(store, mapping_root, 0, None, &mut |id, root| {
        devices.insert(
            id,
            ThinDevice {
                id,
                root: Some(root),
                details: None,
            },
        );
        ControlFlow::Continue(())
    })?;
    btree::entries::<DeviceDetails>(store, details_root, 0, None, &mut |id, details| {
        devices
            .entry(id)
            .or_insert(ThinDevice {
                id,
                root: None,
                details: None,
            })
            .details = Some(details);
        ControlFlow::Continue(())
    })?;
    Ok(devices.into_values().collect())
}

/// Neighbouring thin blocks that are mapped to neighbouring data blocks at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first thin block.
    pub thin: u64,
    /// The data block that it is mapped to.
    pub data: u64,
    /// How many blocks; at least 1.
    pub length: u64,
    /// The snapshot counter when they were mapped.
    pub time: u32,
}

impl Run {
    /// One mapping as a run.
    pub fn one(thin: u64, mapping: PackedMapping) -> Run {
        Run {
            thin,
            data: mapping.block().0,
            length: 1,
            time: mapping.time(),
        }
    }

    /// Adds `next` if it goes on where this one ends, and says whether it does.
    pub fn extend(&mut self, next: &Run) -> bool {
        let fits = self.thin.checked_add(self.length) == Some(next.thin)
            && self.data.checked_add(self.length) == Some(next.data)
            && self.time == next.time;
        if fits {
            self.length = self.length.saturating_add(next.length);
        }
        fits
    }
}

/// Joins mappings that are added in order of thin blocks to runs.
#[derive(Default)]
pub struct Runs {
    run: Option<Run>,
}

impl Runs {
    /// Adds mappings; gives back the run before them if they do not go on with it.
    pub fn add(&mut self, next: Run) -> Option<Run> {
        if self.run.as_mut().is_some_and(|run| run.extend(&next)) {
            return None;
        }
        self.run.replace(next)
    }

    /// The last run.
    pub fn finish(&mut self) -> Option<Run> {
        self.run.take()
    }
}

/// Hands the mappings of the tree at `root` for the thin blocks from `begin` up to, not including,
/// `end` to `visit` as maximal runs, in order of thin blocks, until that breaks.
///
/// # Errors
///
/// The first [`Error::Read`] or [`Error::Block`] of a node; what came before it has been handed
/// out.
pub fn mappings(
    store: &dyn Store,
    root: u64,
    begin: u64,
    end: Option<u64>,
    visit: &mut dyn FnMut(Run) -> ControlFlow<()>,
) -> Result {
    let mut runs = Runs::default();
    let mut broken = false;
    let result = btree::entries::<PackedMapping>(store, root, begin, end, &mut |thin, mapping| {
        if let Some(run) = runs.add(Run::one(thin, mapping)) {
            let flow = visit(run);
            broken = flow.is_break();
            return flow;
        }
        ControlFlow::Continue(())
    });
    if let Some(run) = runs.finish().filter(|_| !broken) {
        let _ = visit(run);
    }
    result
}
