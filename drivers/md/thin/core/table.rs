// SPDX-License-Identifier: GPL-2.0

//! What stands in a table line.
//!
//! A line is checked in two steps, with the opening of the devices in between, so that of several
//! things that are wrong with it the same one is reported as ever.

use super::{
    errno::Errno,
    units::{
        BlockSize,
        DeviceId, //
    },
};
use core::ffi::CStr;

/// Why a table cannot be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableError {
    text: &'static CStr,
    errno: Errno,
}

macro_rules! table_errors {
    ($($(#[$doc:meta])* $name:ident = $errno:ident, $text:literal;)*) => {
        impl TableError {
            $(
                $(#[$doc])*
                pub(crate) const $name: Self = Self { text: $text, errno: Errno::$errno };
            )*
        }
    };
}

table_errors! {
    /// Too few words, or too many for a thin device.
    ARGUMENT_COUNT = EINVAL, c"Invalid argument count";
    /// Data and metadata are on the same device.
    SAME_DEVICE = EINVAL, c"Error setting metadata or data device";
    /// The number of feature words is none, is too large, or there are fewer.
    FEATURE_COUNT = EINVAL, c"Invalid number of pool feature arguments";
    /// A feature that nobody knows.
    FEATURE = EINVAL, c"Unrecognised pool feature requested";
    /// The metadata device does not open; goes with the error of opening it.
    OPEN_METADATA_DEVICE = EINVAL, c"Error opening metadata block device";
    /// The data device does not open; goes with the error of opening it.
    OPEN_DATA_DEVICE = EINVAL, c"Error getting data device";
    /// The block size is no number, or blocks cannot have that size.
    BLOCK_SIZE = EINVAL, c"Invalid block size";
    /// The low water mark is no number.
    LOW_WATER_MARK = EINVAL, c"Invalid low water mark";
    /// Another pool has the metadata device.
    METADATA_DEVICE_IN_USE = EBUSY, c"metadata device already in use by a pool";
    /// The pool of the metadata device has another data device.
    DATA_DEVICE_IN_USE = EBUSY, c"data device already in use by a pool";
    /// The pool device has a pool with other devices.
    DIFFERENT_POOL = EINVAL, c"different pool cannot replace a pool";
    /// Whether there are discards is decided when a pool is made.
    DISCARD_SUPPORT = EINVAL, c"Discard support cannot be disabled once enabled";
    /// The metadata cannot be opened or formatted; goes with the error of that.
    CREATE_METADATA = EINVAL, c"Error creating metadata object";
    /// No memory for a pool; or what else it needs, with the error of creating that.
    CREATE_POOL = ENOMEM, c"Error allocating memory for pool";

    /// The external origin is the pool.
    SAME_ORIGIN = EINVAL, c"Error setting origin device";
    /// The external origin does not open; goes with the error of opening it.
    OPEN_ORIGIN_DEVICE = EINVAL, c"Error opening origin device";
    /// The pool device does not open; goes with the error of opening it.
    OPEN_POOL_DEVICE = EINVAL, c"Error opening pool device";
    /// The number of the device is none, or too large.
    DEVICE_ID = EINVAL, c"Invalid device id";
    /// The pool device is none of device-mapper's.
    NOT_MAPPED = EINVAL, c"Couldn't get pool mapped device";
    /// The pool device has no pool.
    NO_POOL = EINVAL, c"Couldn't find pool object";
    /// The pool has failed.
    POOL_FAILED = EINVAL, c"Couldn't open thin device, Pool is in fail mode";
    /// The pool has no such device; goes with the error of opening it.
    OPEN_DEVICE = ENODATA, c"Couldn't open thin internal device";
    /// A thin device cannot be suspended with a pool that already is.
    POOL_SUSPENDED = EINVAL, c"Unable to activate thin device while pool is suspended";
    /// No memory.
    OUT_OF_MEMORY = ENOMEM, c"Out of memory";
}

impl TableError {
    /// What device-mapper is to log.
    pub(crate) fn text(self) -> &'static CStr {
        self.text
    }

    /// What loading the table fails with.
    pub(crate) fn errno(self) -> Errno {
        self.errno
    }

    /// The same, but with another error number.
    pub(crate) fn with_errno(self, errno: Errno) -> Self {
        Self { errno, ..self }
    }
}

/// What is done about a write that needs a block when there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSpacePolicy {
    /// It waits.
    Queue,
    /// It fails.
    Error,
}

/// What a pool is to do and to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolFeatures {
    /// Whether new blocks are zeroed.
    pub(crate) zero_new_blocks: bool,
    /// Whether there are discards.
    pub(crate) discard_enabled: bool,
    /// Whether discards go on to the data device.
    pub(crate) discard_passdown: bool,
    /// Whether the metadata must stay as they are.
    pub(crate) read_only: bool,
    /// What is done without space.
    pub(crate) no_space: NoSpacePolicy,
}

impl Default for PoolFeatures {
    fn default() -> Self {
        Self {
            zero_new_blocks: true,
            discard_enabled: true,
            discard_passdown: true,
            read_only: false,
            no_space: NoSpacePolicy::Queue,
        }
    }
}

/// A word for what is not the default.
pub(super) struct FeatureWord {
    /// As it is written.
    pub(super) word: &'static str,
    /// Turns the feature into what the word stands for.
    set: fn(&mut PoolFeatures),
    /// Whether it is what the word stands for.
    pub(super) is_set: fn(&PoolFeatures) -> bool,
}

/// All of them, in the order in which a table line shows them.
pub(super) static FEATURE_WORDS: [FeatureWord; 5] = [
    FeatureWord {
        word: "skip_block_zeroing",
        set: |features| features.zero_new_blocks = false,
        is_set: |features| !features.zero_new_blocks,
    },
    FeatureWord {
        word: "ignore_discard",
        set: |features| features.discard_enabled = false,
        is_set: |features| !features.discard_enabled,
    },
    FeatureWord {
        word: "no_discard_passdown",
        set: |features| features.discard_passdown = false,
        is_set: |features| !features.discard_passdown,
    },
    FeatureWord {
        word: "read_only",
        set: |features| features.read_only = true,
        is_set: |features| features.read_only,
    },
    FeatureWord {
        word: "error_if_no_space",
        set: |features| features.no_space = NoSpacePolicy::Error,
        is_set: |features| features.no_space == NoSpacePolicy::Error,
    },
];

/// The most feature words that a line can have, although there are more.
const MAX_FEATURES: u64 = 4;

impl PoolFeatures {
    /// Reads the number of feature words, and so many words. What comes behind is ignored.
    fn parse<'a>(mut words: impl Iterator<Item = &'a CStr>) -> Result<Self, TableError> {
        let mut features = Self::default();
        let Some(count) = words.next() else {
            return Ok(features);
        };
        // The kernel reads this one in another way than other numbers.
        let count = digits(count.to_bytes().trim_ascii_start())
            .filter(|count| *count <= MAX_FEATURES)
            .ok_or(TableError::FEATURE_COUNT)?;
        let mut found = [c""; MAX_FEATURES as usize];
        let found = found
            .get_mut(..count as usize)
            .ok_or(TableError::FEATURE_COUNT)?;
        for place in found.iter_mut() {
            // That there are enough comes before what they are.
            *place = words.next().ok_or(TableError::FEATURE_COUNT)?;
        }
        for word in found {
            let known = FEATURE_WORDS
                .iter()
                .find(|known| word.to_bytes().eq_ignore_ascii_case(known.word.as_bytes()))
                .ok_or(TableError::FEATURE)?;
            (known.set)(&mut features);
        }
        Ok(features)
    }
}

/// What stands in the line of a pool, behind the name of the target:
/// `METADATA DATA BLOCK_SIZE LOW_WATER_MARK [COUNT FEATURE...]`
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolTable<'a> {
    /// The path or number of the metadata device. To be opened for reading only if the features say
    /// so.
    pub(crate) metadata_device: &'a CStr,
    /// The path or number of the data device.
    pub(crate) data_device: &'a CStr,
    /// What the pool is to do.
    pub(crate) features: PoolFeatures,
    block_size: &'a CStr,
    low_water_mark: &'a CStr,
}

impl<'a> PoolTable<'a> {
    /// Reads a line. What does not depend on its devices is left for when those are open.
    pub(crate) fn parse(mut words: impl Iterator<Item = &'a CStr>) -> Result<Self, TableError> {
        let mut word = || words.next().ok_or(TableError::ARGUMENT_COUNT);
        let (metadata_device, data_device) = (word()?, word()?);
        let (block_size, low_water_mark) = (word()?, word()?);
        if metadata_device == data_device {
            return Err(TableError::SAME_DEVICE);
        }
        Ok(Self {
            metadata_device,
            data_device,
            features: PoolFeatures::parse(words)?,
            block_size,
            low_water_mark,
        })
    }

    /// The size of the blocks, and how few free ones are to be reported. To be asked for when the
    /// devices are open.
    pub(crate) fn sizes(&self) -> Result<(BlockSize, u64), TableError> {
        let block_size = number(self.block_size)
            .and_then(BlockSize::new)
            .ok_or(TableError::BLOCK_SIZE)?;
        let low_water_mark = number(self.low_water_mark).ok_or(TableError::LOW_WATER_MARK)?;
        Ok((block_size, low_water_mark))
    }
}

/// What stands in the line of a thin device, behind the name of the target: `POOL ID [ORIGIN]`
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThinTable<'a> {
    /// The path or number of the pool device.
    pub(crate) pool_device: &'a CStr,
    /// The path or number of the external origin. To be opened first, and for reading only.
    pub(crate) origin_device: Option<&'a CStr>,
    device: &'a CStr,
}

impl<'a> ThinTable<'a> {
    /// Reads a line. What does not depend on its devices is left for when those are open.
    pub(crate) fn parse(mut words: impl Iterator<Item = &'a CStr>) -> Result<Self, TableError> {
        let mut word = || words.next().ok_or(TableError::ARGUMENT_COUNT);
        let (pool_device, device) = (word()?, word()?);
        let origin_device = words.next();
        if words.next().is_some() {
            return Err(TableError::ARGUMENT_COUNT);
        }
        if origin_device == Some(pool_device) {
            return Err(TableError::SAME_ORIGIN);
        }
        Ok(Self {
            pool_device,
            origin_device,
            device,
        })
    }

    /// The number of the device. To be asked for when the others are open.
    pub(crate) fn device(&self) -> Result<DeviceId, TableError> {
        number(self.device)
            .and_then(DeviceId::new)
            .ok_or(TableError::DEVICE_ID)
    }
}

/// A decimal number, as the kernel reads it: with a plus or without, and maybe the end of a line.
pub(super) fn number(word: &CStr) -> Option<u64> {
    let bytes = word.to_bytes();
    let bytes = bytes.strip_prefix(b"+").unwrap_or(bytes);
    digits(bytes.strip_suffix(b"\n").unwrap_or(bytes))
}

fn digits(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}
