// SPDX-License-Identifier: GPL-2.0

//! New blocks, and blocks that are shared, are written and read.

use super::{
    mapped_block,
    new_thin,
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
    core::errno::Errno,
    sim_bio::Io,
    sim_pool::Settings, //
};

#[test]
fn two_writers_to_a_new_block_both_leave_their_data() {
    world(PLAIN, new_thin, |world| {
        world.submit(THIN, [world.write(0, 0)]);
        world.submit(THIN, [world.write(0, 1)]);
        world.submit(THIN, [READ]);
        world.crash();
    });
}

#[test]
fn a_reader_of_a_new_block_sees_zeroes_or_what_was_written() {
    world(PLAIN, new_thin, |world| {
        world.submit(THIN, [READ, READ]);
        world.submit(THIN, [world.write(0, 0)]);
    });
}

#[test]
fn without_zeroing_a_new_block_is_written_at_once() {
    let settings = Settings {
        zeroes_new_blocks: false,
        fill_faults: Some(1),
        ..PLAIN
    };
    world(settings, new_thin, |world| {
        // Both sectors: nobody was promised what is in the rest of the block.
        world.submit(THIN, [world.write(0, 0)]);
        world.submit(THIN, [world.write(0, 1)]);
    });
}

#[test]
fn two_writers_to_a_shared_block_both_leave_their_data() {
    world(PLAIN, shared_block, |world| {
        world.submit(THIN, [world.write(0, 0)]);
        world.submit(THIN, [world.write(0, 1)]);
        world.submit(THIN, [READ]);
        world.crash();
    });
}

#[test]
fn two_devices_break_the_sharing_of_one_block() {
    world(PLAIN, shared_block, |world| {
        world.submit(THIN, [world.write(0, 0)]);
        world.submit(SNAPSHOT, [world.overwrite(0)]);
        world.crash();
    });
}

#[test]
fn readers_see_the_old_data_until_a_copy_is_done() {
    world(PLAIN, shared_block, |world| {
        world.submit(THIN, [READ, READ]);
        world.submit(THIN, [world.write(0, 0)]);
    });
}

#[test]
fn the_old_block_is_not_reused_under_a_reader() {
    // When the snapshot has left the block it is free after a commit, and the only one that is.
    let before = || {
        Before::new(2)
            .create(THIN)
            .write(THIN, [0])
            .snapshot()
            .create(OTHER)
    };
    world(PLAIN, before, |world| {
        world.submit(THIN, [READ]);
        let (thin, snapshot, other) = (world.thin(THIN), world.thin(SNAPSHOT), world.thin(OTHER));
        let (write, reuse) = (world.write(0, 0), world.overwrite(1));
        world.spawn(async move {
            snapshot.submit(DISCARD).await.unwrap();
            thin.submit(write).await.unwrap();
            other.submit(reuse).await.unwrap();
            other.submit(Io::Read { block: 1 }).await.unwrap();
        });
    });
}

#[test]
fn an_overwrite_races_a_partial_write() {
    for before in [new_thin, shared_block, mapped_block] {
        world(PLAIN, before, |world| {
            world.submit(THIN, [world.overwrite(0)]);
            world.submit(THIN, [world.write(0, 0), READ]);
            world.crash();
        });
    }
}

#[test]
fn a_block_is_given_back_if_filling_it_fails() {
    for before in [new_thin, shared_block, mapped_block] {
        let settings = Settings {
            fill_faults: Some(2),
            ..PLAIN
        };
        world(settings, before, |world| {
            let expect = |result| assert!(matches!(result, Ok(()) | Err(Errno::EIO)));
            world.submit_expecting(THIN, [world.write(0, 0), READ], expect);
            world.submit_expecting(THIN, [world.overwrite(0), READ], expect);
        });
    }
}

#[test]
fn the_failure_to_fill_a_block_is_reported() {
    let settings = Settings {
        fill_faults: Some(1),
        ..PLAIN
    };
    for before in [new_thin, shared_block] {
        world(settings, before, |world| {
            let expect = |result| assert_eq!(result, Err(Errno::EIO));
            world.submit_expecting(THIN, [world.write(0, 0)], expect);
            world.submit_expecting(THIN, [world.overwrite(0)], expect);
        });
    }
}
