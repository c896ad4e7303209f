// SPDX-License-Identifier: GPL-2.0

//! Every kind of table line, good and bad.

use std::ffi::CString;

use crate::core::{
    errno::Errno,
    table::{
        NoSpacePolicy,
        PoolFeatures,
        PoolTable,
        TableError,
        ThinTable, //
    },
    units::BlockSize,
};

fn words(line: &str) -> Vec<CString> {
    line.split(' ')
        .filter(|word| !word.is_empty())
        .map(|word| CString::new(word).unwrap())
        .collect()
}

/// What a pool makes of a line whose devices all open.
fn pool(line: &str) -> Result<(PoolFeatures, BlockSize, u64), TableError> {
    let words = words(line);
    let table = PoolTable::parse(words.iter().map(CString::as_c_str))?;
    assert_eq!(table.metadata_device.to_bytes(), words[0].to_bytes());
    assert_eq!(table.data_device.to_bytes(), words[1].to_bytes());
    let (block_size, low_water_mark) = table.sizes()?;
    Ok((table.features, block_size, low_water_mark))
}

fn thin(line: &str) -> Result<(Option<String>, u64), TableError> {
    let words = words(line);
    let table = ThinTable::parse(words.iter().map(CString::as_c_str))?;
    assert_eq!(table.pool_device.to_bytes(), words[0].to_bytes());
    let origin = table
        .origin_device
        .map(|origin| origin.to_str().unwrap().into());
    Ok((origin, table.device()?.key()))
}

fn features(words: &str) -> Result<PoolFeatures, TableError> {
    pool(&format!("/m /d 128 0 {words}")).map(|(features, _, _)| features)
}

#[test]
fn a_line_with_nothing_but_what_must_be_there() {
    let (features, block_size, low_water_mark) = pool("/m /d 384 32768").unwrap();
    assert_eq!(features, PoolFeatures::default());
    assert!(features.zero_new_blocks && features.discard_enabled && features.discard_passdown);
    assert!(!features.read_only && features.no_space == NoSpacePolicy::Queue);
    assert_eq!((block_size.sectors(), low_water_mark), (384, 32768));
}

#[test]
fn features_are_words_in_any_order_and_case() {
    let default = PoolFeatures::default();
    assert_eq!(features("0"), Ok(default));
    assert_eq!(features("0 whatever comes behind"), Ok(default));
    let skip = PoolFeatures {
        zero_new_blocks: false,
        ..default
    };
    assert_eq!(features("1 skip_block_zeroing"), Ok(skip));
    assert_eq!(
        features("2 Skip_Block_Zeroing SKIP_BLOCK_ZEROING nonsense"),
        Ok(skip)
    );
    let all_but_zeroing = PoolFeatures {
        discard_enabled: false,
        discard_passdown: false,
        read_only: true,
        no_space: NoSpacePolicy::Error,
        ..default
    };
    let words = "4 error_if_no_space read_only no_discard_passdown ignore_discard";
    assert_eq!(features(words), Ok(all_but_zeroing));
}

#[test]
fn wrong_features_are_refused() {
    for words in [
        "5 skip_block_zeroing ignore_discard no_discard_passdown read_only error_if_no_space",
        "1",
        "2 read_only",
        "2 nonsense",
        "-1 read_only",
        "+1 read_only",
        "x read_only",
        "1x read_only",
        "read_only",
        "4294967297 read_only",
        "99999999999999999999 read_only",
    ] {
        assert_eq!(features(words), Err(TableError::FEATURE_COUNT), "{words}");
    }
    for words in [
        "1 nonsense",
        "1 read_onlyy",
        "1 read_onl",
        "2 read_only nonsense",
    ] {
        assert_eq!(features(words), Err(TableError::FEATURE), "{words}");
    }
}

#[test]
fn wrong_lines_of_pools_are_refused() {
    for (line, error) in [
        ("", TableError::ARGUMENT_COUNT),
        ("/m /d 128", TableError::ARGUMENT_COUNT),
        ("/m /m 128", TableError::ARGUMENT_COUNT),
        ("/m /m 128 0", TableError::SAME_DEVICE),
        ("/m /m 1 0 9", TableError::SAME_DEVICE),
        ("/m /d 1 0 9", TableError::FEATURE_COUNT),
        ("/m /d 0 0", TableError::BLOCK_SIZE),
        ("/m /d 64 0", TableError::BLOCK_SIZE),
        ("/m /d 129 0", TableError::BLOCK_SIZE),
        ("/m /d 2097280 0", TableError::BLOCK_SIZE),
        ("/m /d -128 0", TableError::BLOCK_SIZE),
        ("/m /d 0x80 0", TableError::BLOCK_SIZE),
        ("/m /d 128k 0", TableError::BLOCK_SIZE),
        ("/m /d 18446744073709551744 0", TableError::BLOCK_SIZE),
        ("/m /d x y", TableError::BLOCK_SIZE),
        ("/m /d 128 y", TableError::LOW_WATER_MARK),
        ("/m /d 128 -1", TableError::LOW_WATER_MARK),
        ("/m /d 128 18446744073709551616", TableError::LOW_WATER_MARK),
    ] {
        assert_eq!(pool(line), Err(error), "{line}");
    }
}

#[test]
fn numbers_are_what_the_kernel_takes_for_numbers() {
    assert_eq!(pool("/m /d +128 18446744073709551615").unwrap().2, u64::MAX);
    assert_eq!(pool("/m /d 00128 007").unwrap().2, 7);
    assert_eq!(pool("/m /d 128 1\n").unwrap().2, 1);
    for word in ["++1", "+", "\n", "1\n\n", "1 ", " 1", "", "1+"] {
        let word = CString::new(word).unwrap();
        let line = [c"/m", c"/d", c"128", &word];
        let table = PoolTable::parse(line.iter().copied()).unwrap();
        assert_eq!(table.sizes(), Err(TableError::LOW_WATER_MARK), "{word:?}");
    }
}

#[test]
fn lines_of_thin_devices() {
    assert_eq!(thin("/p 0"), Ok((None, 0)));
    assert_eq!(thin("/p 16777215 /o"), Ok((Some("/o".into()), 16_777_215)));
    for (line, error) in [
        ("", TableError::ARGUMENT_COUNT),
        ("/p", TableError::ARGUMENT_COUNT),
        ("/p 0 /o x", TableError::ARGUMENT_COUNT),
        ("/p x /p", TableError::SAME_ORIGIN),
        ("/p 16777216", TableError::DEVICE_ID),
        ("/p -1", TableError::DEVICE_ID),
        ("/p x", TableError::DEVICE_ID),
    ] {
        assert_eq!(thin(line), Err(error), "{line}");
    }
}

#[test]
fn errors_say_what_users_know_and_return_what_programs_know() {
    for (error, text, errno) in [
        (
            TableError::ARGUMENT_COUNT,
            "Invalid argument count",
            Errno::EINVAL,
        ),
        (
            TableError::SAME_DEVICE,
            "Error setting metadata or data device",
            Errno::EINVAL,
        ),
        (
            TableError::FEATURE_COUNT,
            "Invalid number of pool feature arguments",
            Errno::EINVAL,
        ),
        (
            TableError::FEATURE,
            "Unrecognised pool feature requested",
            Errno::EINVAL,
        ),
        (
            TableError::OPEN_METADATA_DEVICE.with_errno(Errno::EBUSY),
            "Error opening metadata block device",
            Errno::EBUSY,
        ),
        (
            TableError::OPEN_DATA_DEVICE.with_errno(Errno::EPERM),
            "Error getting data device",
            Errno::EPERM,
        ),
        (TableError::BLOCK_SIZE, "Invalid block size", Errno::EINVAL),
        (
            TableError::LOW_WATER_MARK,
            "Invalid low water mark",
            Errno::EINVAL,
        ),
        (
            TableError::METADATA_DEVICE_IN_USE,
            "metadata device already in use by a pool",
            Errno::EBUSY,
        ),
        (
            TableError::DATA_DEVICE_IN_USE,
            "data device already in use by a pool",
            Errno::EBUSY,
        ),
        (
            TableError::DIFFERENT_POOL,
            "different pool cannot replace a pool",
            Errno::EINVAL,
        ),
        (
            TableError::DISCARD_SUPPORT,
            "Discard support cannot be disabled once enabled",
            Errno::EINVAL,
        ),
        (
            TableError::CREATE_METADATA.with_errno(Errno::EILSEQ),
            "Error creating metadata object",
            Errno::EILSEQ,
        ),
        (
            TableError::CREATE_POOL,
            "Error allocating memory for pool",
            Errno::ENOMEM,
        ),
        (
            TableError::SAME_ORIGIN,
            "Error setting origin device",
            Errno::EINVAL,
        ),
        (
            TableError::OPEN_ORIGIN_DEVICE.with_errno(Errno::EIO),
            "Error opening origin device",
            Errno::EIO,
        ),
        (
            TableError::OPEN_POOL_DEVICE.with_errno(Errno::EIO),
            "Error opening pool device",
            Errno::EIO,
        ),
        (TableError::DEVICE_ID, "Invalid device id", Errno::EINVAL),
        (
            TableError::NOT_MAPPED,
            "Couldn't get pool mapped device",
            Errno::EINVAL,
        ),
        (
            TableError::NO_POOL,
            "Couldn't find pool object",
            Errno::EINVAL,
        ),
        (
            TableError::POOL_FAILED,
            "Couldn't open thin device, Pool is in fail mode",
            Errno::EINVAL,
        ),
        (
            TableError::OPEN_DEVICE,
            "Couldn't open thin internal device",
            Errno::ENODATA,
        ),
        (
            TableError::POOL_SUSPENDED,
            "Unable to activate thin device while pool is suspended",
            Errno::EINVAL,
        ),
        (TableError::OUT_OF_MEMORY, "Out of memory", Errno::ENOMEM),
    ] {
        assert_eq!(error.text().to_str(), Ok(text));
        assert_eq!(error.errno(), errno, "{text}");
    }
}
