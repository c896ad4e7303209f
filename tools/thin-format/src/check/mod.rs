// SPDX-License-Identifier: GPL-2.0
//! Checking a pool's metadata: everything that must hold between its parts.
//!
//! All trees are read together ([`crate::forest`]), references to data and metadata blocks are
//! counted on the way, and then the two space maps are compared with the counts as their bitmaps
//! come in. Each block is read once. [`check`] only reads. What it returns is enough to set the
//! space maps right ([`crate::edit`]), if all trees are sound.

mod devices;
mod finding;
mod space;

pub use finding::{Code, Finding, Findings, Remedy, Severity};

use crate::block::MAX_METADATA_BLOCKS;
use crate::counts::Counts;
use crate::forest::{Forest, Use};
use crate::io::{default_threads, Store};
use crate::records::units::BlockSize;
use crate::records::{Superblock, MAX_TIME};
use crate::space_map::{Which, PER_BITMAP};
use crate::superblock::{data_space_map, metadata_space_map};
use devices::Devices;
use space::SpaceMap;

/// How much is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The superblock.
    Superblock,
    /// Also the two trees of devices.
    Devices,
    /// Also all mappings and both space maps.
    Everything,
}

/// What to check, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// How much.
    pub scope: Scope,
    /// Only the metadata snapshot, which must exist: nothing else holds still while the pool is in
    /// use.
    pub snapshot: bool,
    /// A root of the tree of mapping trees other than the superblock's.
    pub mapping_root: Option<u64>,
    /// A root of the tree of device details other than the superblock's.
    pub details_root: Option<u64>,
    /// How many threads read.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            scope: Scope::Everything,
            snapshot: false,
            mapping_root: None,
            details_root: None,
            threads: default_threads(),
        }
    }
}

/// Is told how far a check is; all by default go nowhere.
pub trait Watch: Sync {
    /// A part of the work begins.
    fn stage(&self, _name: &str) {}

    /// In all, `blocks` blocks have to be read.
    fn total(&self, _blocks: u64) {}

    /// So many more were read. Called from several threads.
    fn advance(&self, _blocks: u64) {}
}

/// Nobody watches.
impl Watch for () {}

/// Figures that a check comes by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Devices of the pool.
    pub devices: u64,
    /// Mapped blocks of all devices; shared blocks count for each.
    pub mapped_blocks: u64,
    /// Data blocks with a reference.
    pub data_blocks_used: u64,
    /// Blocks of the data device.
    pub data_blocks: u64,
    /// Metadata blocks with a reference.
    pub metadata_blocks_used: u64,
    /// Blocks of the metadata device.
    pub metadata_blocks: u64,
}

/// How many references each block has in truth, as far as trees of devices and mappings go.
pub struct Truth {
    /// Of data blocks.
    pub data: Counts,
    /// Of metadata blocks, without those that the space maps themselves are made of.
    pub trees: Counts,
    /// Of metadata blocks, with the present space maps.
    pub metadata: Counts,
    /// The latest time that any mapping or device has.
    pub latest: u32,
}

/// What a check came to.
pub struct Outcome {
    /// What was found.
    pub findings: Findings,
    /// Figures, as far as the check went.
    pub figures: Figures,
    /// The true counts, if everything was checked and nothing but the space maps may be wrong.
    pub truth: Option<Truth>,
}

/// Checks the metadata on `store`, whose superblock is `superblock`; `held` is the superblock copy
/// of its metadata snapshot, or why that cannot be used.
///
/// Memory: see [`Forest`] and [`Counts`], and about 100 bytes for each device; in all about 0.5 GiB
/// for a full metadata device of 15.875 GiB.
pub fn check(
    store: &dyn Store,
    superblock: &Superblock,
    held: Option<crate::Result<Superblock>>,
    options: &Options,
    watch: &dyn Watch,
) -> Outcome {
    let mut findings = Findings::default();
    let data_root = data_space_map(superblock);
    let metadata_root = metadata_space_map(superblock);
    let mut figures = Figures {
        data_blocks: data_root.blocks,
        metadata_blocks: metadata_root.blocks,
        ..Figures::default()
    };
    check_superblock(superblock, &mut findings);
    let held = match held {
        Some(Ok(held)) => Some(held),
        Some(Err(error)) => {
            findings.add(Code::Snapshot, 1, None, format!("metadata snap: {error}"));
            None
        }
        None => None,
    };
    if options.scope == Scope::Superblock {
        return Outcome {
            findings,
            figures,
            truth: None,
        };
    }

    check_sizes(store, superblock, &mut findings);
    watch.total(metadata_root.allocated.min(store.blocks()));
    let mut forest = Forest::new(store, options.threads.max(1));
    // Block 0 has one reference: that it is there.
    let _ = forest.refer(Use::Superblock, 0);
    if held.is_some() {
        if let Err(fault) = forest.refer(Use::Superblock, superblock.metadata_snapshot.0) {
            findings.add(
                Code::Snapshot,
                1,
                None,
                format!("metadata snap: its superblock {fault}"),
            );
        }
    }
    let advance = |blocks| watch.advance(blocks);
    watch.stage("device details tree");
    let main = if options.snapshot {
        held.as_ref()
    } else {
        Some(superblock)
    };
    let roots = |of: &Superblock| {
        let mapping = options.mapping_root.unwrap_or(of.mapping_root.0);
        (mapping, options.details_root.unwrap_or(of.details_root.0))
    };
    let other = held.as_ref().filter(|_| !options.snapshot);
    let mut devices = Devices::read(
        store,
        &mut forest,
        main.map(roots),
        other.map(|held| (held.mapping_root.0, held.details_root.0)),
        &advance,
        &mut findings,
    );
    figures.devices = devices.len();
    devices.check_times(superblock.time, &mut findings);
    if options.scope == Scope::Devices {
        return Outcome {
            findings,
            figures,
            truth: None,
        };
    }

    watch.stage("mapping tree");
    // Bitmaps for more blocks would not fit into the metadata.
    let countable = data_root
        .blocks
        .min(store.blocks().saturating_mul(PER_BITMAP));
    let data = Counts::new(countable);
    figures.mapped_blocks = devices.read_mappings(
        store,
        &mut forest,
        &data,
        superblock.time,
        &advance,
        &mut findings,
    );
    if forest.underfull() > 0 {
        let count = forest.underfull();
        let text =
            format!("{count} nodes are less than a third full, which costs space and nothing else");
        findings.add(Code::Underfull, count, None, text);
    }
    if options.snapshot || options.mapping_root.is_some() || options.details_root.is_some() {
        // The space maps tell of the whole pool as it is, which is not what was read.
        return Outcome {
            findings,
            figures,
            truth: None,
        };
    }

    let trees = forest.counts().clone();
    watch.stage("data space map");
    let data_map = SpaceMap::read(
        &mut forest,
        store,
        Which::Data,
        data_root,
        Some(&data),
        &advance,
    );
    let metadata_map = SpaceMap::read(
        &mut forest,
        store,
        Which::Metadata,
        metadata_root,
        None,
        &advance,
    );
    let metadata = forest.counts().clone();
    let threads = options.threads.max(1);
    if findings.need_salvage() {
        // References that were not found, because a tree is damaged, would all count as leaks: so
        // only what is bad without them is told.
        let mut bad = Findings::default();
        data_map.compare(store, &data, threads, watch, &mut bad);
        watch.stage("metadata space map");
        metadata_map.compare(store, &metadata, threads, watch, &mut bad);
        for finding in bad.list() {
            if !matches!(finding.code, Code::Leaked | Code::CountsTooHigh) {
                findings.add(
                    finding.code,
                    finding.count,
                    finding.device,
                    finding.text.clone(),
                );
            }
        }
    } else {
        data_map.compare(store, &data, threads, watch, &mut findings);
        watch.stage("metadata space map");
        metadata_map.compare(store, &metadata, threads, watch, &mut findings);
    }
    figures.metadata_blocks_used = metadata.used();
    figures.data_blocks_used = data.used();
    let beyond = metadata.used_from(metadata_root.blocks);
    if beyond > 0 {
        let text =
            format!("{beyond} metadata blocks in use are beyond the end of the metadata space map");
        findings.add(Code::SpaceMapSize, beyond, None, text);
    }
    check_limits(superblock, &figures, &mut findings);
    let sound = !findings.need_salvage();
    let latest = devices.latest();
    let truth = sound.then_some(Truth {
        data,
        trees,
        metadata,
        latest,
    });
    Outcome {
        findings,
        figures,
        truth,
    }
}

/// What the superblock says that cannot be.
fn check_superblock(superblock: &Superblock, findings: &mut Findings) {
    let size = superblock.data_block_size;
    if BlockSize::new(size.into()).is_none() {
        let text = format!("superblock: data blocks of {size} sectors cannot be");
        findings.add(Code::DataBlockSize, 1, None, text);
    }
    if superblock.read_only_compatible_features != 0 {
        let text = format!(
            "superblock: has features that only allow reading ({:#x})",
            superblock.read_only_compatible_features
        );
        findings.add(Code::ReadOnlyFeatures, 1, None, text);
    }
}

/// What the superblock says about sizes that cannot be.
fn check_sizes(store: &dyn Store, superblock: &Superblock, findings: &mut Findings) {
    let metadata = metadata_space_map(superblock).blocks;
    if metadata > MAX_METADATA_BLOCKS {
        let text = format!("metadata space map: {metadata} blocks are more than the {MAX_METADATA_BLOCKS} possible");
        findings.add(Code::SpaceMapSize, 1, None, text);
    } else if metadata > store.blocks() {
        let text = format!(
            "the metadata has {metadata} blocks, but the device or file only {}: it was cut off",
            store.blocks()
        );
        findings.add(Code::DeviceTooSmall, 1, None, text);
    }
    let data = data_space_map(superblock).blocks;
    if data.div_ceil(PER_BITMAP) > metadata.min(store.blocks()) {
        let text =
            format!("data space map: bitmaps for {data} blocks do not fit into the metadata");
        findings.add(Code::SpaceMapSize, 1, None, text);
    }
}

/// Limits that are near.
fn check_limits(superblock: &Superblock, figures: &Figures, findings: &mut Findings) {
    if superblock.time > MAX_TIME / 10 * 9 {
        let text = format!(
            "{} of {MAX_TIME} snapshots have been taken; there cannot be more",
            superblock.time
        );
        findings.add(Code::TimeCounter, 1, None, text);
    }
    let (used, all) = (figures.metadata_blocks_used, figures.metadata_blocks);
    if used > all / 10 * 9 && all > 0 {
        let text =
            format!("{used} of {all} metadata blocks are in use: extend the metadata device soon");
        findings.add(Code::MetadataFull, 1, None, text);
    }
}
