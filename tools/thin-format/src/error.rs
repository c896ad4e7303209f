// SPDX-License-Identifier: GPL-2.0
//! Everything that can be wrong with metadata or with reading it, as values and as sentences.

use crate::block::BlockKind;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The outcome of an operation on metadata.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// Why metadata could not be read, used or changed.
#[derive(Clone, Debug)]
pub enum Error {
    /// The file or device could not be opened, or is not one that can hold metadata.
    Open {
        /// The name it was opened by.
        path: PathBuf,
        /// Why.
        why: OpenError,
    },
    /// A metadata block could not be read.
    Read {
        /// Its number.
        block: u64,
        /// What the system said.
        why: Arc<io::Error>,
    },
    /// A metadata block could not be written.
    Write {
        /// Its number.
        block: u64,
        /// What the system said.
        why: Arc<io::Error>,
    },
    /// What was written could not be made durable.
    Flush(
        /// What the system said.
        Arc<io::Error>,
    ),
    /// A metadata block was read, but does not hold what it should.
    Block {
        /// Its number.
        block: u64,
        /// What it should be.
        kind: BlockKind,
        /// What is wrong with it.
        fault: Fault,
    },
    /// Too few free metadata blocks for what was to be written.
    NoSpace {
        /// How many blocks it takes.
        needed: u64,
        /// How many there are.
        free: u64,
    },
}

/// Why something cannot be opened as a metadata device.
#[derive(Clone, Debug)]
pub enum OpenError {
    /// There is nothing of that name.
    Missing,
    /// It is neither a block device nor a regular file.
    WrongType,
    /// It is smaller than one metadata block.
    TooSmall,
    /// The kernel, or another program, is using it.
    InUse,
    /// Anything else that the system said.
    Other(Arc<io::Error>),
}

/// What is wrong with the contents of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The checksum does not match: the block was damaged, or is not of this kind.
    Checksum,
    /// The block says that it belongs somewhere else: a misplaced or stale copy.
    Location {
        /// Where it says that it belongs.
        says: u64,
    },
    /// The superblock's magic number is wrong: not thin provisioning metadata.
    Magic(
        /// The number found.
        u64,
    ),
    /// The superblock says that it has features that this version does not know.
    Features(
        /// The unknown bits of the incompatible features.
        u32,
    ),
    /// The superblock is all zeroes: a new pool that the kernel has not formatted yet.
    Unformatted,
    /// A node is not exactly one of internal or leaf.
    NodeFlags(
        /// The flags found.
        u32,
    ),
    /// A node's values have another size than those of its tree.
    ValueSize {
        /// The size found, in bytes.
        found: u32,
        /// The size that this tree has, in bytes.
        expected: u32,
    },
    /// A node has more room for entries than a block has, or more entries than room.
    Entries {
        /// How many entries it says it has.
        entries: u32,
        /// How many it says it has room for.
        room: u32,
    },
    /// Keys of a node do not ascend.
    KeyOrder {
        /// Which entry is not greater than the one before it.
        entry: u32,
    },
    /// An internal node without children.
    Childless,
    /// A key lies outside the range that the nodes above leave to this node.
    KeyRange {
        /// The key.
        key: u64,
    },
    /// The tree is deeper than any tree can be.
    TooDeep,
    /// The branches of a tree have different lengths.
    Unbalanced,
    /// The block was reached before, as something else.
    Crossed,
    /// A node points to a block that is not there.
    ChildOutOfRange {
        /// The block it points to.
        child: u64,
    },
}

impl Error {
    /// A faulty block.
    pub fn block(block: u64, kind: BlockKind, fault: Fault) -> Error {
        Error::Block { block, kind, fault }
    }

    /// The metadata block that it is about, if it is about one.
    pub fn block_number(&self) -> Option<u64> {
        match self {
            Error::Read { block, .. } | Error::Write { block, .. } | Error::Block { block, .. } => {
                Some(*block)
            }
            Error::Open { .. } | Error::Flush(_) | Error::NoSpace { .. } => None,
        }
    }

    /// What is wrong with the contents of a block, if that is what it is about.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Error::Block { fault, .. } => Some(fault),
            _ => None,
        }
    }

    /// Whether a device or file failed, rather than its contents being wrong.
    pub fn is_io(&self) -> bool {
        matches!(
            self,
            Error::Read { .. } | Error::Write { .. } | Error::Flush(_) | Error::Open { .. }
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Open { path, why } => match why {
                OpenError::Missing => write!(f, "Couldn't find input file: {}", path.display()),
                OpenError::WrongType => write!(f, "Not a block device or regular file: {}", path.display()),
                OpenError::TooSmall => f.write_str(
                    "Metadata device/file too small.  Is this binary metadata?",
                ),
                OpenError::InUse => write!(
                    f,
                    "{}: Device or resource busy. It is in use: deactivate the pool first, or work on \
                     a metadata snapshot",
                    path.display()
                ),
                OpenError::Other(why) => write!(f, "{}: {}", path.display(), plain(why)),
            },
            Error::Read { block, why } => write!(f, "I/O error reading metadata block {block}: {}", plain(why)),
            Error::Write { block, why } => write!(f, "I/O error writing metadata block {block}: {}", plain(why)),
            Error::Flush(why) => write!(f, "I/O error flushing metadata: {}", plain(why)),
            Error::Block { block, kind, fault } => match fault {
                Fault::Checksum if *kind == BlockKind::Superblock => {
                    write!(f, "bad checksum in superblock (block {block})")
                }
                Fault::Checksum => write!(f, "bad checksum in {kind} at block {block}"),
                fault => write!(f, "{kind} at block {block}: {fault}"),
            },
            Error::NoSpace { needed, free } => {
                write!(f, "out of metadata space: {needed} blocks are needed, {free} are free")
            }
        }
    }
}

impl std::error::Error for Error {}

/// The system's words for an error, without the number that the standard library appends.
fn plain(why: &io::Error) -> String {
    let mut text = why.to_string();
    if let Some(at) = text.find(" (os error") {
        text.truncate(at);
    }
    text
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Checksum => f.write_str("bad checksum"),
            Fault::Location { says } => write!(f, "says that it belongs at block {says}"),
            Fault::Magic(found) => {
                write!(f, "not thin provisioning metadata (magic number {found})")
            }
            Fault::Features(bits) => write!(
                f,
                "has features that are not supported (incompatible features {bits:#x})"
            ),
            Fault::Unformatted => {
                f.write_str("is all zeroes: a new pool that has not been formatted yet")
            }
            Fault::NodeFlags(flags) => write!(
                f,
                "is neither an internal node nor a leaf (flags {flags:#x})"
            ),
            Fault::ValueSize { found, expected } => {
                write!(
                    f,
                    "has values of {found} bytes in a tree with values of {expected} bytes"
                )
            }
            Fault::Entries { entries, room } => write!(
                f,
                "impossible number of entries ({entries}, room for {room})"
            ),
            Fault::KeyOrder { entry } => write!(f, "keys out of order (entry {entry})"),
            Fault::Childless => f.write_str("an internal node without children"),
            Fault::KeyRange { key } => {
                write!(f, "key {key} is outside the range of this part of the tree")
            }
            Fault::TooDeep => f.write_str("the tree is too deep"),
            Fault::Unbalanced => f.write_str("branches of different lengths"),
            Fault::Crossed => f.write_str("is also used as something else"),
            Fault::ChildOutOfRange { child } => {
                write!(f, "points to block {child}, which does not exist")
            }
        }
    }
}
