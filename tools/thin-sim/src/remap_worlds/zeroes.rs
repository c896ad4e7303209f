// SPDX-License-Identifier: GPL-2.0

//! Zeroes are written, to blocks and to parts of them.

use super::{
    mapped_block,
    new_thin,
    shared_block,
    short_origin,
    world,
    zero,
    Before,
    DISCARD,
    PLAIN,
    READ,
    SNAPSHOT,
    THIN, //
};
use crate::{
    core::remap::Discards,
    sim_bio::Io,
    sim_pool::Settings, //
};

const ZERO_BLOCK: Io = Io::ZeroBlocks { begin: 0, end: 1 };

#[test]
fn zeroes_are_what_is_read_wherever_they_were_written() {
    let snapshot = || shared_block().discard(SNAPSHOT, 0);
    let origin = || short_origin().write(THIN, [0]);
    for before in [
        new_thin,
        mapped_block,
        shared_block,
        snapshot,
        short_origin,
        origin,
    ] {
        for io in [zero(None), zero(Some(0)), zero(Some(1)), ZERO_BLOCK] {
            world(PLAIN, before, |world| {
                world.submit(THIN, [io, READ]);
                world.submit(THIN, [world.write(0, 0)]);
            });
            world(PLAIN, before, |world| {
                world.submit(THIN, [io, READ, Io::Flush]);
                world.commit();
                world.crash();
            });
        }
    }
}

#[test]
fn a_crash_shows_what_was_there_or_zeroes_while_blocks_are_zeroed() {
    let settings = Settings {
        crash_when_discarding: true,
        ..PLAIN
    };
    let shared = || Before::new(6).create(THIN).write(THIN, [0, 1]).snapshot();
    let own = || Before::new(6).create(THIN).write(THIN, [0, 1]);
    for before in [shared, own] {
        world(settings, before, |world| {
            world.submit(THIN, [Io::ZeroBlocks { begin: 0, end: 3 }, READ]);
            world.submit(THIN, [world.write(1, 0)]);
        });
        world(settings, before, |world| {
            world.submit(THIN, [Io::ZeroBlocks { begin: 0, end: 2 }]);
            world.submit(THIN, [DISCARD, READ]);
        });
    }
}

#[test]
fn zeroes_take_no_space_where_nothing_was() {
    let full = || Before::new(1).create(THIN).write(THIN, [0]);
    world(PLAIN, full, |world| {
        let everything = Io::ZeroBlocks { begin: 0, end: 4 };
        let of_1 = |only| Io::Zero { block: 1, only };
        world.submit(THIN, [of_1(None), of_1(Some(1)), everything]);
    });
    let ignoring = Settings {
        discards: Discards::Ignore,
        ..PLAIN
    };
    world(ignoring, full, |world| {
        world.submit(THIN, [Io::ZeroBlocks { begin: 0, end: 4 }, READ]);
    });
}
