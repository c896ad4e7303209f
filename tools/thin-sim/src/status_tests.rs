// SPDX-License-Identifier: GPL-2.0

//! Status and table lines, byte for byte.

use crate::core::{
    mode::PoolMode,
    status::{
        metadata_low_water_mark,
        PoolInfo,
        PoolTableLine,
        PoolUsage,
        Space,
        ThinStatus,
        ThinTableLine, //
    },
    table::{
        NoSpacePolicy,
        PoolFeatures, //
    },
    units::{
        BlockSize,
        DeviceId,
        MetadataBlock,
        VirtualBlock, //
    },
};

const USAGE: PoolUsage = PoolUsage {
    transaction_id: 7,
    metadata: Space {
        total: 1024,
        free: 900,
    },
    data: Space {
        total: 4096,
        free: 4000,
    },
    metadata_snapshot: None,
    mode: PoolMode::Write,
    discard_enabled: true,
    discard_passdown: true,
    no_space: NoSpacePolicy::Queue,
    needs_check: false,
    metadata_low_water_mark: 256,
};

fn line(change: impl FnOnce(&mut PoolUsage)) -> String {
    let mut usage = USAGE;
    change(&mut usage);
    PoolInfo::Usage(usage).to_string()
}

#[test]
fn status_of_a_pool() {
    let rest = "queue_if_no_space - 256 ";
    assert_eq!(
        line(|_| ()),
        format!("7 124/1024 96/4096 - rw discard_passdown {rest}")
    );
    assert_eq!(
        line(|usage| usage.metadata_snapshot = Some(MetadataBlock(33))),
        format!("7 124/1024 96/4096 33 rw discard_passdown {rest}")
    );
    for (mode, word) in [
        (PoolMode::OutOfDataSpace, "out_of_data_space"),
        (PoolMode::OutOfMetadataSpace, "ro"),
        (PoolMode::ReadOnly, "ro"),
    ] {
        assert_eq!(
            line(|usage| usage.mode = mode),
            format!("7 124/1024 96/4096 - {word} discard_passdown {rest}")
        );
    }
    assert_eq!(
        line(|usage| usage.discard_passdown = false),
        format!("7 124/1024 96/4096 - rw no_discard_passdown {rest}")
    );
    for passdown in [true, false] {
        let ignoring = line(|usage| {
            usage.discard_enabled = false;
            usage.discard_passdown = passdown;
        });
        assert_eq!(
            ignoring,
            format!("7 124/1024 96/4096 - rw ignore_discard {rest}")
        );
    }
    assert_eq!(
        line(|usage| {
            usage.no_space = NoSpacePolicy::Error;
            usage.needs_check = true;
            usage.metadata_low_water_mark = 1024;
        }),
        "7 124/1024 96/4096 - rw discard_passdown error_if_no_space needs_check 1024 "
    );
    assert_eq!(PoolInfo::Fail.to_string(), "Fail");
    assert_eq!(PoolInfo::Error.to_string(), "Error");
}

#[test]
fn lvm2_finds_what_it_looks_for() {
    // Substrings of what comes behind the first five numbers.
    let ro = line(|usage| usage.mode = PoolMode::ReadOnly);
    assert!(ro.contains("ro ") && !line(|_| ()).contains("ro "));
    for text in [PoolInfo::Fail, PoolInfo::Error] {
        assert!(!text.to_string().contains(' '));
    }
}

#[test]
fn table_of_a_pool() {
    let line = |features| {
        PoolTableLine {
            metadata_device: "253:0",
            data_device: "253:1",
            block_size: BlockSize::new(384).unwrap(),
            low_water_mark: 32768,
            features,
        }
        .to_string()
    };
    assert_eq!(line(PoolFeatures::default()), "253:0 253:1 384 32768 0 ");
    let all = PoolFeatures {
        zero_new_blocks: false,
        discard_enabled: false,
        discard_passdown: false,
        read_only: true,
        no_space: NoSpacePolicy::Error,
    };
    assert_eq!(
        line(all),
        "253:0 253:1 384 32768 5 skip_block_zeroing ignore_discard no_discard_passdown \
         read_only error_if_no_space "
    );
    let two = PoolFeatures {
        discard_passdown: false,
        no_space: NoSpacePolicy::Error,
        ..PoolFeatures::default()
    };
    assert_eq!(
        line(two),
        "253:0 253:1 384 32768 2 no_discard_passdown error_if_no_space "
    );
}

#[test]
fn status_and_table_of_a_thin_device() {
    let info = |mapped_blocks, highest_mapped: Option<u64>| {
        ThinStatus::Info {
            block_size: BlockSize::new(128).unwrap(),
            mapped_blocks,
            highest_mapped: highest_mapped.map(VirtualBlock),
        }
        .to_string()
    };
    assert_eq!(info(0, None), "0 -");
    assert_eq!(info(3, Some(99)), "384 12799");
    assert_eq!(info(1, Some(0)), "128 127");
    assert_eq!(ThinStatus::Fail.to_string(), "Fail");
    assert_eq!(ThinStatus::Error.to_string(), "Error");

    let table = |origin_device| {
        ThinTableLine {
            pool_device: "253:2",
            device: DeviceId::new(5).unwrap(),
            origin_device,
        }
        .to_string()
    };
    assert_eq!(table(None), "253:2 5");
    assert_eq!(table(Some("7:0")), "253:2 5 7:0");
}

#[test]
fn metadata_are_low_at_a_quarter_but_no_more_than_4_mib() {
    for (blocks, mark) in [(0, 0), (3, 0), (1024, 256), (4096, 1024), (4_161_600, 1024)] {
        assert_eq!(metadata_low_water_mark(blocks), mark);
    }
}
