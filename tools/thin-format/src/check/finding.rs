// SPDX-License-Identifier: GPL-2.0
//! What a check finds: each inconsistency with how bad it is and what can be done about it.

use std::fmt;

/// How bad an inconsistency is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing. The metadata is consistent.
    Note,
    /// Space or speed is lost, data is not and will not be.
    Harmless,
    /// Data is out of reach, or will be lost if the pool is written to.
    Damage,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Harmless => "harmless",
            Severity::Damage => "damage",
        })
    }
}

/// What sets an inconsistency right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing needs to be done.
    None,
    /// Correcting the metadata in place: the truth is known.
    InPlace,
    /// Making new metadata from what is left.
    Salvage,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident, $name:literal, $severity:ident, $remedy:ident;)*) => {
        /// Which inconsistency was found.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $code,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$code,)*];

            /// Its name for programs; it does not change.
            pub fn name(self) -> &'static str {
                match self { $(Code::$code => $name,)* }
            }

            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self { $(Code::$code => Severity::$severity,)* }
            }

            /// What sets it right.
            pub fn remedy(self) -> Remedy {
                match self { $(Code::$code => Remedy::$remedy,)* }
            }
        }
    };
}

codes! {
    /// The superblock has a data block size that no pool can have.
    DataBlockSize, "data-block-size", Damage, Salvage;
    /// The superblock says that there are read-only-compatible features: only reading is safe.
    ReadOnlyFeatures, "read-only-features", Note, None;
    /// The device ends before the metadata does.
    DeviceTooSmall, "device-too-small", Damage, Salvage;
    /// A space map claims to describe more blocks than it can.
    SpaceMapSize, "space-map-size", Damage, Salvage;
    /// Nodes of the tree of mapping trees cannot be used.
    TopLevelNodes, "top-level-nodes", Damage, Salvage;
    /// Nodes of the tree of device details cannot be used.
    DetailsNodes, "details-nodes", Damage, Salvage;
    /// Nodes of the devices' mapping trees cannot be used.
    MappingNodes, "mapping-nodes", Damage, Salvage;
    /// Devices with details but without mappings.
    NoMappings, "device-without-mappings", Damage, Salvage;
    /// Devices with mappings but without details.
    NoDetails, "device-without-details", Damage, Salvage;
    /// A device of which a part cannot be read.
    DeviceDamaged, "device-damaged", Damage, Salvage;
    /// A device whose details have a wrong number of mapped blocks.
    MappedBlocks, "mapped-blocks", Damage, Salvage;
    /// A device with a number that has more than 24 bits.
    DeviceId, "device-id", Damage, Salvage;
    /// Mappings to blocks that the data device does not have.
    MappingBeyondEnd, "mapping-beyond-end", Damage, Salvage;
    /// Mappings from a time that has not come: a snapshot's block could be overwritten.
    MappingTime, "mapping-time", Damage, InPlace;
    /// Devices made or snapshotted at a time that has not come: blocks are copied without need.
    DeviceTime, "device-time", Harmless, InPlace;
    /// The metadata snapshot's own superblock cannot be used.
    Snapshot, "metadata-snapshot", Damage, Salvage;
    /// Parts of a space map cannot be read.
    SpaceMapNodes, "space-map-nodes", Damage, InPlace;
    /// Blocks in use with too low a reference count: they could be handed out again. It may as well
    /// be a tree that is wrong, in a way that looks sound, and then the space map is what is left
    /// of the truth: so not in place.
    CountsTooLow, "counts-too-low", Damage, Salvage;
    /// Blocks in use with too high a reference count, which will never become free.
    CountsTooHigh, "counts-too-high", Harmless, InPlace;
    /// Blocks that are not in use but not free either.
    Leaked, "leaked-blocks", Harmless, InPlace;
    /// The bitmaps and the tree of large reference counts contradict each other.
    CountsContradict, "counts-contradict", Damage, InPlace;
    /// A space map's total of used blocks is wrong.
    AllocatedTotal, "allocated-total", Harmless, InPlace;
    /// A bitmap's number of free blocks, or where the first is, is wrong: some will not be found.
    FreeHints, "free-hints", Harmless, InPlace;
    /// A bitmap counts references to blocks beyond the end.
    BeyondEnd, "counts-beyond-end", Harmless, InPlace;
    /// Nodes are emptier than the kernel leaves them.
    Underfull, "underfull-nodes", Note, None;
    /// The snapshot counter is close to its end.
    TimeCounter, "time-counter", Note, None;
    /// The metadata device is almost full.
    MetadataFull, "metadata-almost-full", Note, None;
}

/// Something that was found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What.
    pub code: Code,
    /// How many times.
    pub count: u64,
    /// The device it is about, if it is about one.
    pub device: Option<u64>,
    /// One or more lines for people, without a newline at the end.
    pub text: String,
}

/// How many findings are kept; of more, only the number is known.
const MAX_FINDINGS: usize = 10_000;

/// All that was found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    list: Vec<Finding>,
    dropped: u64,
    worst: Option<Severity>,
    salvage: bool,
    in_place: bool,
}

impl Findings {
    /// Adds a finding.
    pub fn add(&mut self, code: Code, count: u64, device: Option<u64>, text: String) {
        self.worst = self.worst.max(Some(code.severity()));
        self.salvage |= code.remedy() == Remedy::Salvage;
        self.in_place |= code.remedy() == Remedy::InPlace;
        if self.list.len() < MAX_FINDINGS {
            self.list.push(Finding {
                code,
                count,
                device,
                text,
            });
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// The first 10000.
    pub fn list(&self) -> &[Finding] {
        &self.list
    }

    /// How many more there were.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The worst severity of all; `None` if nothing was found.
    pub fn worst(&self) -> Option<Severity> {
        self.worst
    }

    /// Whether the metadata is consistent.
    pub fn is_clean(&self) -> bool {
        self.worst.is_none_or(|worst| worst == Severity::Note)
    }

    /// Whether something can only be set right by making new metadata.
    pub fn need_salvage(&self) -> bool {
        self.salvage
    }

    /// Whether correcting in place would set something right.
    pub fn can_correct(&self) -> bool {
        self.in_place && !self.salvage
    }

    /// Whether there is a finding with this code.
    pub fn has(&self, code: Code) -> bool {
        self.list.iter().any(|finding| finding.code == code)
    }
}

/// Joins some of very many things for people: `1, 2, 3 and 97 more`.
pub(super) fn some<T: fmt::Display>(things: impl IntoIterator<Item = T>, count: u64) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = things
        .into_iter()
        .take(SHOWN)
        .map(|thing| thing.to_string())
        .collect();
    let left = count.saturating_sub(shown.len() as u64);
    match left {
        0 => shown.join(", "),
        left => format!("{} and {left} more", shown.join(", ")),
    }
}
