// SPDX-License-Identifier: GPL-2.0

//! Discards get in the way of writes, reads and copies, and of each other.

use super::{
    mapped_block,
    shared_block,
    world,
    Before,
    DISCARD,
    OTHER,
    PLAIN,
    READ,
    SNAPSHOT,
    THIN, //
};
use crate::{
    core::{
        errno::Errno,
        remap::Discards, //
    },
    sim_bio::Io,
    sim_disk::DISCARDED,
    sim_pool::Settings, //
};

const DISCARD_RUN: Io = Io::Discard { begin: 0, end: 3 };

#[test]
fn a_discard_races_a_write() {
    for discards in [Discards::PassDown, Discards::Unmap, Discards::Ignore] {
        let settings = Settings { discards, ..PLAIN };
        world(settings, mapped_block, |world| {
            world.submit(THIN, [DISCARD]);
            world.submit(THIN, [world.write(0, 0)]);
        });
    }
}

#[test]
fn a_discard_races_a_read() {
    world(PLAIN, mapped_block, |world| {
        world.submit(THIN, [DISCARD, world.write(0, 0)]);
        world.submit(THIN, [READ]);
        world.crash();
    });
}

#[test]
fn a_discard_races_a_copy() {
    world(PLAIN, shared_block, |world| {
        world.submit(THIN, [DISCARD]);
        world.submit(THIN, [world.write(0, 0)]);
        world.crash();
    });
}

#[test]
fn a_discard_of_the_snapshot_races_a_copy() {
    world(PLAIN, shared_block, |world| {
        world.submit(SNAPSHOT, [DISCARD]);
        world.submit(THIN, [world.write(0, 0)]);
        world.crash();
    });
}

#[test]
fn two_devices_discard_shared_blocks() {
    let before = || Before::new(4).create(THIN).write(THIN, [0, 1]).snapshot();
    world(PLAIN, before, |world| {
        world.submit(THIN, [DISCARD_RUN]);
        world.submit(SNAPSHOT, [DISCARD_RUN]);
    });
}

#[test]
fn a_crash_brings_no_discarded_block_of_a_snapshot_back() {
    let before = || Before::new(6).create(THIN).write(THIN, [0, 1]).snapshot();
    world(PLAIN, before, |world| {
        world.submit(THIN, [DISCARD_RUN]);
        world.submit(SNAPSHOT, [world.overwrite(1)]);
        world.crash();
    });
}

#[test]
fn a_discard_commits_whenever_another_device_has_just_left_blocks_of_its() {
    // The first piece of the run is free at once, the last when the snapshot leaves it, and that may
    // be while the first piece is being discarded.
    let before = || {
        let thin = Before::new(6).create(THIN).write(THIN, [0, 1, 2]);
        thin.snapshot().discard(SNAPSHOT, 0)
    };
    let settings = Settings {
        crash_when_discarding: true,
        ..PLAIN
    };
    world(settings, before, |world| {
        world.submit(THIN, [DISCARD_RUN]);
        world.submit(SNAPSHOT, [world.overwrite(2)]);
    });
}

#[test]
fn a_discard_crosses_the_border_of_a_region() {
    let before = || Before::new(6).create(THIN).write(THIN, [1, 2, 3]);
    world(PLAIN, before, |world| {
        world.submit(THIN, [Io::Discard { begin: 1, end: 4 }]);
        world.submit(THIN, [world.write(3, 0)]);
    });
}

#[test]
fn a_block_is_not_reused_before_its_discard_has_ended() {
    let before = || {
        Before::new(2)
            .create(THIN)
            .write(THIN, [0, 1])
            .create(OTHER)
    };
    world(PLAIN, before, |world| {
        world.submit(THIN, [DISCARD]);
        world.submit_expecting(OTHER, [world.overwrite(0), world.write(0, 1)], |result| {
            assert!(matches!(result, Ok(()) | Err(Errno::ENOSPC)));
        });
    });
}

#[test]
fn all_that_nobody_uses_any_more_is_discarded_on_the_data_device_and_nothing_else() {
    // The blocks are one run to the device, and the snapshot still has the one in the middle.
    let before = || {
        let thin = Before::new(4).create(THIN).write(THIN, [0, 1, 2]);
        thin.snapshot().discard(SNAPSHOT, 0).discard(SNAPSHOT, 2)
    };
    world(PLAIN, before, |world| {
        let (thin, pool) = (world.thin(THIN), world.pool.clone());
        world.spawn(async move {
            thin.submit(DISCARD_RUN).await.unwrap();
            let discarded = [0, 1, 2].map(|block| pool.disk().get(block, 0) == DISCARDED);
            assert_eq!(discarded, [true, false, true]);
        });
    });
}
