// SPDX-License-Identifier: GPL-2.0

//! Arithmetic of blocks and sectors.

use crate::core::units::{
    BlockSize,
    DataBlock,
    DataRange,
    DeviceId,
    Sector,
    VirtualBlock,
    VirtualRange, //
};

fn blocks(begin: u64, end: u64) -> VirtualRange {
    VirtualRange::new(VirtualBlock(begin), VirtualBlock(end))
}

#[test]
fn block_sizes_are_multiples_of_64_kib_up_to_1_gib() {
    for good in [128, 256, 384, 128 * 3 * 5 * 7, 2_097_152] {
        assert_eq!(BlockSize::new(good).unwrap().sectors(), good);
    }
    for bad in [0, 1, 127, 129, 64, 2_097_152 + 128, u64::MAX] {
        assert!(BlockSize::new(bad).is_none());
    }
}

#[test]
fn sectors_are_located_whether_or_not_the_size_is_a_power_of_two() {
    for sectors in [128, 384, 1024, 2_097_152] {
        let size = BlockSize::new(sectors).unwrap();
        for sector in [
            0,
            1,
            sectors - 1,
            sectors,
            sectors + 1,
            10 * sectors + 5,
            u64::MAX,
        ] {
            let (block, offset) = size.locate(Sector(sector));
            assert_eq!((block, offset.0), (sector / sectors, sector % sectors));
        }
        assert_eq!(size.data_sector(DataBlock(3)), Some(Sector(3 * sectors)));
        assert_eq!(size.virtual_sector(VirtualBlock(u64::MAX)), None);
        assert_eq!(size.blocks_to_hold(Sector(sectors + 1)), 2);
        assert_eq!(size.whole_blocks(Sector(2 * sectors - 1)), 1);
    }
}

#[test]
fn a_discard_covers_whole_blocks_only() {
    let size = BlockSize::new(128).unwrap();
    let within = |begin, length| size.blocks_within(Sector(begin), Sector(length));
    assert_eq!(within(0, 256), blocks(0, 2));
    assert_eq!(within(1, 256), blocks(1, 2));
    assert_eq!(within(128, 128), blocks(1, 2));
    assert_eq!(within(128, 127), blocks(1, 1));
    assert!(within(1, 254).is_empty());
    assert!(within(1, 0).is_empty());
    assert!(within(u64::MAX, u64::MAX).is_empty());
}

#[test]
fn ranges_are_split_where_their_first_region_ends() {
    assert_eq!(blocks(5, 9).split_at_region(), (blocks(5, 9), blocks(9, 9)));
    let (first, rest) = blocks(1000, 3000).split_at_region();
    assert_eq!((first, rest), (blocks(1000, 1024), blocks(1024, 3000)));
    assert_eq!(rest.split_at_region().0, blocks(1024, 2048));
    let last = blocks(u64::MAX - 1, u64::MAX);
    assert_eq!(last.split_at_region().0, last);
    assert_eq!(blocks(3, 7).from(VirtualBlock(5)), blocks(5, 7));
    assert_eq!(blocks(3, 7).from(VirtualBlock(1)), blocks(3, 7));
    assert!(blocks(3, 7).from(VirtualBlock(9)).is_empty());
    assert!(blocks(7, 3).is_empty());
    assert_eq!(DataRange::with_length(DataBlock(4), 3).unwrap().len(), 3);
    assert!(DataRange::with_length(DataBlock(u64::MAX), 1).is_none());
}

#[test]
fn devices_have_numbers_of_24_bits() {
    assert_eq!(DeviceId::new(0xff_ffff).unwrap(), DeviceId::MAX);
    assert_eq!(DeviceId::new(7).unwrap().key(), 7);
    assert!(DeviceId::new(0x100_0000).is_none());
    assert!(DeviceId::new(1 << 32).is_none());
}
