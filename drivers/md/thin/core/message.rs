// SPDX-License-Identifier: GPL-2.0

//! What a pool is told to do by messages.

use super::{
    table::number,
    units::DeviceId, //
};
use core::{
    ffi::CStr,
    fmt, //
};

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Make an empty thin device.
    CreateThin {
        /// Its number.
        device: DeviceId,
    },
    /// Make a thin device that has what another one has.
    CreateSnap {
        /// Its number.
        device: DeviceId,
        /// The other one.
        origin: DeviceId,
    },
    /// Take a thin device away.
    Delete {
        /// Its number.
        device: DeviceId,
    },
    /// Set the transaction id, if nobody else has set it.
    SetTransactionId {
        /// What it should be.
        current: u64,
        /// What it is to be.
        new: u64,
    },
    /// Keep the metadata as they are for somebody who wants to read them.
    ReserveMetadataSnap,
    /// Do so no longer.
    ReleaseMetadataSnap,
}

/// What is wrong with a message: always a reason for `EINVAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal<'a> {
    /// There is no such message.
    Unknown(&'a CStr),
    /// It takes another number of words.
    Count {
        /// How many there are, the message itself counted.
        found: usize,
        /// How many it takes.
        expected: usize,
    },
    /// A word is not the number of a device.
    Device(&'a CStr),
    /// A word is not the number of a transaction.
    Transaction(&'a CStr),
}

impl Message {
    /// Reads a message.
    pub(crate) fn parse<'a>(
        mut words: impl Iterator<Item = &'a CStr>,
    ) -> Result<Self, Refusal<'a>> {
        let name = words.next().unwrap_or_default();
        let [first, second] = [words.next(), words.next()];
        let arguments = [first, second].into_iter().flatten().count();
        let found = words.count().saturating_add(arguments).saturating_add(1);
        let (first, second) = (first.unwrap_or_default(), second.unwrap_or_default());

        let takes = |expected| {
            if found == expected {
                Ok(())
            } else {
                Err(Refusal::Count { found, expected })
            }
        };
        let is = |known: &str| name.to_bytes().eq_ignore_ascii_case(known.as_bytes());

        if is("create_thin") {
            takes(2)?;
            let device = device(first)?;
            Ok(Self::CreateThin { device })
        } else if is("create_snap") {
            takes(3)?;
            let (device, origin) = (device(first)?, device(second)?);
            Ok(Self::CreateSnap { device, origin })
        } else if is("delete") {
            takes(2)?;
            let device = device(first)?;
            Ok(Self::Delete { device })
        } else if is("set_transaction_id") {
            takes(3)?;
            let (current, new) = (transaction(first)?, transaction(second)?);
            Ok(Self::SetTransactionId { current, new })
        } else if is("reserve_metadata_snap") {
            takes(1)?;
            Ok(Self::ReserveMetadataSnap)
        } else if is("release_metadata_snap") {
            takes(1)?;
            Ok(Self::ReleaseMetadataSnap)
        } else {
            Err(Refusal::Unknown(name))
        }
    }

    /// What the log says if it cannot be carried out.
    pub(crate) fn failure(&self) -> impl fmt::Display + '_ {
        Failure(self)
    }
}

fn device(word: &CStr) -> Result<DeviceId, Refusal<'_>> {
    number(word)
        .and_then(DeviceId::new)
        .ok_or(Refusal::Device(word))
}

fn transaction(word: &CStr) -> Result<u64, Refusal<'_>> {
    number(word).ok_or(Refusal::Transaction(word))
}

/// As it was sent, but for numbers that were written in another way.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateThin { device } => write!(f, "create_thin {}", device.key()),
            Self::CreateSnap { device, origin } => {
                write!(f, "create_snap {} {}", device.key(), origin.key())
            }
            Self::Delete { device } => write!(f, "delete {}", device.key()),
            Self::SetTransactionId { current, new } => {
                write!(f, "set_transaction_id {current} {new}")
            }
            Self::ReserveMetadataSnap => f.write_str("reserve_metadata_snap"),
            Self::ReleaseMetadataSnap => f.write_str("release_metadata_snap"),
        }
    }
}

/// See [`Message::failure`].
struct Failure<'a>(&'a Message);

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Message::CreateThin { device } => {
                write!(f, "creating thin device {} failed", device.key())
            }
            Message::CreateSnap { device, origin } => write!(
                f,
                "creating snapshot {} of thin device {} failed",
                device.key(),
                origin.key()
            ),
            Message::Delete { device } => {
                write!(f, "deleting thin device {} failed", device.key())
            }
            Message::SetTransactionId { current, new } => {
                write!(
                    f,
                    "changing the transaction id from {current} to {new} failed"
                )
            }
            Message::ReserveMetadataSnap => f.write_str("reserving a metadata snapshot failed"),
            Message::ReleaseMetadataSnap => f.write_str("releasing the metadata snapshot failed"),
        }
    }
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "message \"{}\" is unknown", Word(name)),
            Self::Count { found, expected } => {
                write!(f, "message has {found} words instead of {expected}")
            }
            Self::Device(word) => {
                write!(f, "message has an invalid device id: \"{}\"", Word(word))
            }
            Self::Transaction(word) => write!(
                f,
                "message has an invalid transaction id: \"{}\"",
                Word(word)
            ),
        }
    }
}

/// What somebody has written, fit for the log.
struct Word<'a>(&'a CStr);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.to_bytes().escape_ascii())
    }
}
