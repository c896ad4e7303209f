// SPDX-License-Identifier: GPL-2.0

//! Limits of queues, against the rules that the driver in C goes by.

use crate::core::{
    limits::{
        discard_granularity,
        max_discard_sectors,
        no_passdown_because,
        pool_limits,
        RequestLimits, //
    },
    units::{
        BlockSize,
        Sector, //
    },
};

/// The rules as a loop.
fn expected(block: u32, below: RequestLimits) -> RequestLimits {
    let mut limits = below;
    if limits.max_sectors < block && block % limits.max_sectors != 0 {
        let candidates = (0..32).map(|bit| 1u32 << bit);
        limits.max_sectors = candidates
            .filter(|power| *power <= below.max_sectors && block % power == 0)
            .max()
            .unwrap();
    }
    let opt_sectors = limits.io_opt / 512;
    if opt_sectors < block || opt_sectors % block != 0 {
        let divides = block % limits.max_sectors == 0;
        limits.io_min = 512 * if divides { limits.max_sectors } else { block };
        limits.io_opt = 512 * block;
    }
    limits
}

#[test]
fn a_pool_wants_requests_that_fit_its_blocks() {
    for block in [128, 256, 384, 640, 1024, 2048, 128 * 49, 2_097_152] {
        for max_sectors in [
            1,
            7,
            8,
            100,
            127,
            128,
            129,
            255,
            256,
            384,
            1280,
            2560,
            u32::MAX,
        ] {
            for io_opt in [0, 512, 65536, 131_072, 196_608, 1 << 20, 1 << 30] {
                let below = RequestLimits {
                    max_sectors,
                    io_min: 4096,
                    io_opt,
                };
                let found = pool_limits(BlockSize::new(block.into()).unwrap(), below);
                assert_eq!(
                    found,
                    expected(block, below),
                    "blocks of {block}, {below:?}"
                );
            }
        }
    }
}

#[test]
fn discards_are_as_long_as_a_region() {
    let size = |sectors| BlockSize::new(sectors).unwrap();
    assert_eq!(discard_granularity(size(128)), 65536);
    assert_eq!(discard_granularity(size(2_097_152)), 1 << 30);
    assert_eq!(max_discard_sectors(size(128)), 131_072);
    assert_eq!(max_discard_sectors(size(2_097_152)), 1 << 31);
}

#[test]
fn discards_are_passed_on_to_devices_that_take_them() {
    let because = |longest| no_passdown_because(BlockSize::new(128).unwrap(), Sector(longest));
    assert_eq!(because(0), Some("discard unsupported"));
    assert_eq!(
        because(127),
        Some("max discard sectors smaller than a block")
    );
    assert_eq!(because(128), None);
}
