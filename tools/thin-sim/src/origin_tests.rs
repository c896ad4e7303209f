// SPDX-License-Identifier: GPL-2.0

//! How far external origins reach, against a sector-by-sector look.

use crate::core::{
    origin::Extent,
    remap::Place,
    units::{
        BlockSize,
        Sector,
        VirtualBlock, //
    },
};

#[test]
fn an_origin_reaches_as_far_as_its_sectors() {
    for length in [0, 1, 127, 128, 129, 255, 256, 300, 384] {
        let origin = Extent {
            block_size: BlockSize::new(128).unwrap(),
            length: Sector(length),
        };
        for block in 0..4 {
            let within = |sector: u64| sector < length;
            let begin = block * 128;
            let in_block = (begin..begin + 128)
                .filter(|sector| within(*sector))
                .count() as u64;
            let virtual_block = VirtualBlock(block);

            let part = (in_block > 0).then_some((Sector(begin), Sector(in_block)));
            assert_eq!(origin.part_of(virtual_block), part);
            assert_eq!(
                origin.ends_in(virtual_block),
                in_block > 0 && in_block < 128
            );
            for offset in [0, 1, 8, 126, 127] {
                let place = Place {
                    block: virtual_block,
                    offset: Sector(offset),
                };
                let at = begin + offset;
                assert_eq!(origin.shows(&place), within(at));
                assert_eq!(origin.sector(&place), within(at).then_some(Sector(at)));
                for wanted in [0, 1, 2, 128 - offset] {
                    let visible = (at..at + wanted).filter(|sector| within(*sector)).count();
                    assert_eq!(
                        origin.visible(&place, Sector(wanted)),
                        Sector(visible as u64)
                    );
                }
            }
        }
    }
}

#[test]
fn what_has_no_sector_has_no_origin() {
    let origin = Extent {
        block_size: BlockSize::new(128).unwrap(),
        length: Sector(u64::MAX),
    };
    assert!(!origin.shows(&Place::start_of(VirtualBlock(u64::MAX))));
    assert!(origin.part_of(VirtualBlock(u64::MAX)).is_none());
    assert!(!origin.ends_in(VirtualBlock(u64::MAX)));
}
