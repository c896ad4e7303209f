// SPDX-License-Identifier: GPL-2.0

//! Devices with an external origin, which ends in the middle of a block or where a block does.

use super::{
    long_origin,
    short_origin,
    world,
    zero,
    DISCARD,
    PLAIN,
    READ,
    SNAPSHOT,
    THIN, //
};
use crate::{
    core::errno::Errno,
    sim_pool::Settings, //
};

#[test]
fn an_origin_shows_until_its_block_is_written() {
    for before in [short_origin, long_origin] {
        world(PLAIN, before, |world| {
            world.submit(THIN, [READ, READ]);
            world.submit(THIN, [world.write(0, 1)]);
        });
        world(PLAIN, before, |world| {
            world.submit(THIN, [world.write(0, 0)]);
            world.submit(THIN, [world.write(0, 1)]);
            world.crash();
        });
        world(PLAIN, before, |world| {
            world.submit(THIN, [world.overwrite(0), READ]);
            world.submit(THIN, [READ]);
            world.crash();
        });
    }
}

#[test]
fn what_lies_behind_the_end_of_an_origin_reads_as_zeroes_even_without_zeroing() {
    let settings = Settings {
        zeroes_new_blocks: false,
        ..PLAIN
    };
    world(settings, short_origin, |world| {
        world.submit(THIN, [world.write(0, 0), READ]);
        world.submit(THIN, [READ]);
    });
}

#[test]
fn a_discarded_block_shows_the_origin_again() {
    for before in [short_origin, long_origin] {
        let before = || before().write(THIN, [0]);
        world(PLAIN, before, |world| {
            world.submit(THIN, [DISCARD, READ, world.write(0, 0)]);
            world.submit(THIN, [READ]);
            world.crash();
        });
        world(
            PLAIN,
            || before().snapshot(),
            |world| {
                world.submit(THIN, [DISCARD, world.write(0, 1), READ]);
                world.submit(SNAPSHOT, [world.write(0, 0), READ]);
            },
        );
    }
}

#[test]
fn a_block_is_given_back_if_copying_the_origin_fails() {
    for before in [short_origin, long_origin] {
        let settings = Settings {
            fill_faults: Some(2),
            ..PLAIN
        };
        world(settings, before, |world| {
            let expect = |result| assert!(matches!(result, Ok(()) | Err(Errno::EIO)));
            world.submit_expecting(THIN, [world.write(0, 0), READ], expect);
            world.submit_expecting(THIN, [zero(Some(1)), READ], expect);
        });
    }
}
