// SPDX-License-Identifier: GPL-2.0

//! Opening metadata for the tools that only read it.

use crate::cli::Arguments;
use crate::cli::Failure;
use crate::cli::Opt;
use crate::device;
use std::path::Path;
use thin_format::btree::Node;
use thin_format::io::Access;
use thin_format::io::Device;
use thin_format::io::Store;
use thin_format::records::PackedMapping;
use thin_format::space_map::PER_BITMAP;
use thin_format::thin::OpenError;
use thin_format::thin::Pool;
use thin_format::thin::Run;
use thin_format::thin::Runs;
use thin_format::thin::View;
use thin_format::Fault;

/// `-m`: read the metadata snapshot, also of a live pool.
pub const SNAPSHOT: Opt = Opt::optional(
    "metadata-snap",
    "BLOCK",
    "Read the metadata snapshot, also while the pool is active;\nwith BLOCK, the one in that block",
)
.short('m');

/// Which state of the pool the command line asks for.
pub fn view(args: &Arguments) -> Result<View, Failure> {
    Ok(match args.number("metadata-snap")? {
        Some(block) => View::SnapshotAt(block),
        None if args.given("metadata-snap") => View::Snapshot,
        None => View::Current,
    })
}

/// Opens metadata for reading. The last committed state needs a pool that is not active.
pub fn open(path: &Path, view: View) -> Result<Device, Failure> {
    device::check_input(path)?;
    let access = match view {
        View::Current => Access::Read,
        View::Snapshot | View::SnapshotAt(_) => Access::ReadInUse,
    };
    Device::open(path, access).map_err(Failure::from)
}

/// Reads the superblock and the devices.
pub fn pool<'a>(device: &'a Device, path: &Path, view: View) -> Result<Pool<'a>, Failure> {
    Pool::open(device, view).map_err(|error| match error {
        OpenError::NoSnapshot => Failure::new(
            "no current metadata snap: make one with\n\
             'dmsetup message POOL 0 reserve_metadata_snap', and release it with\n\
             'dmsetup message POOL 0 release_metadata_snap' afterwards",
        ),
        OpenError::Metadata(error) => {
            let of_superblock = matches!(error.fault(), Some(Fault::Checksum | Fault::Magic(_)))
                && error.block_number() == Some(0);
            let hint = device::mistaken(path).filter(|_| of_superblock);
            match hint {
                Some(hint) => Failure::new(format!("{error}; {hint}")),
                None => error.into(),
            }
        }
    })
}

/// The mappings of a leaf as runs of neighbours, whatever time they were made at.
pub fn runs_of(leaf: &Node<'_>, mut visit: impl FnMut(Run)) {
    let mut runs = Runs::default();
    for (thin, mapping) in leaf.entries::<PackedMapping>() {
        let run = Run {
            time: 0,
            ..Run::one(thin, mapping)
        };
        if let Some(done) = runs.add(run) {
            visit(done);
        }
    }
    if let Some(done) = runs.finish() {
        visit(done);
    }
}

/// The most data blocks that there can be, whatever the superblock says: each needs a place in a bitmap.
pub fn most_data_blocks(store: &dyn Store) -> u64 {
    store.blocks().saturating_mul(PER_BITMAP)
}

/// How many threads read.
pub fn threads() -> usize {
    thin_format::io::default_threads()
}
