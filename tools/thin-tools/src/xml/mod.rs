// SPDX-License-Identifier: GPL-2.0

//! Thin metadata as text: what `thin_dump` writes and `thin_restore` reads.
//!
//! [`write`] turns events into XML or into the form for people, [`parse`] turns XML into events, [`read`] does
//! that for a whole file with several threads and in order.

pub mod parse;
pub mod read;
pub mod write;

use thin_format::thin::Run;

/// Attributes of the `superblock` element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Superblock {
    /// Always empty in what the tools write.
    pub uuid: String,
    /// The snapshot counter.
    pub time: u32,
    /// The transaction id that belongs to the volume manager.
    pub transaction: u64,
    /// Bit 0: the metadata wants a check. Written only if it is not 0.
    pub flags: u32,
    /// Version of the format; 2 if the text does not say.
    pub version: u32,
    /// Size of a data block, in sectors of 512 bytes.
    pub data_block_size: u32,
    /// Number of blocks of the data device.
    pub nr_data_blocks: u64,
    /// Block of the metadata snapshot; accepted, never written to XML.
    pub metadata_snap: Option<u64>,
}

/// Attributes of a `device` element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Identifier of the thin device.
    pub dev_id: u64,
    /// Number of mappings according to the device's details.
    pub mapped_blocks: u64,
    /// Transaction in which the device was made.
    pub transaction: u64,
    /// Snapshot counter when the device was made.
    pub creation_time: u32,
    /// Snapshot counter when a snapshot of the device was last taken.
    pub snap_time: u32,
}

/// One thing said by the text, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Start of the whole.
    Superblock(Box<Superblock>),
    /// End of the whole.
    SuperblockEnd,
    /// Start of mappings that several devices share, under a name.
    Def(Box<str>),
    /// End of them.
    DefEnd,
    /// Start of a device.
    Device(Box<Device>),
    /// End of it.
    DeviceEnd,
    /// Here go the mappings of the named [`Event::Def`].
    Ref(Box<str>),
    /// Mappings.
    Run(Run),
}
