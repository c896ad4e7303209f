// SPDX-License-Identifier: GPL-2.0

//! What a flush or a durable write has promised, a crash leaves there; no crash shows what nobody
//! wrote.

use super::{
    durable,
    mapped_block,
    new_thin,
    shared_block,
    world,
    DISCARD,
    PLAIN,
    THIN, //
};
use crate::{
    core::errno::Errno,
    sim_bio::Io,
    sim_pool::Settings, //
};

#[test]
fn a_durable_write_survives_a_crash() {
    for before in [new_thin, shared_block, mapped_block] {
        world(PLAIN, before, |world| {
            world.submit(
                THIN,
                [durable(world.write(0, 0)), durable(world.write(0, 1))],
            );
            world.commit();
            world.crash();
        });
        world(PLAIN, before, |world| {
            world.submit(THIN, [durable(world.overwrite(0))]);
            world.commit();
            world.crash();
        });
    }
}

#[test]
fn a_durable_write_waits_for_the_mapping_that_somebody_else_made() {
    world(PLAIN, new_thin, |world| {
        world.submit(THIN, [world.write(0, 0)]);
        world.submit(THIN, [durable(world.write(0, 1))]);
        world.crash();
    });
}

#[test]
fn a_flush_makes_everything_durable_that_was_completed() {
    for before in [new_thin, shared_block, mapped_block] {
        world(PLAIN, before, |world| {
            world.submit(THIN, [world.write(0, 0), Io::Flush]);
            world.commit();
            world.crash();
        });
    }
}

#[test]
fn a_flush_does_not_rely_on_a_commit_that_began_before_it() {
    world(PLAIN, mapped_block, |world| {
        world.submit(THIN, [world.overwrite(1), Io::Flush]);
        world.submit(THIN, [world.write(0, 0), Io::Flush]);
        world.crash();
    });
}

#[test]
fn a_flush_covers_discards() {
    world(PLAIN, mapped_block, |world| {
        world.submit(THIN, [DISCARD, Io::Flush]);
        world.commit();
        world.crash();
    });
}

#[test]
fn no_crash_shows_what_was_in_a_new_block_before() {
    world(PLAIN, new_thin, |world| {
        world.submit(THIN, [world.write(0, 0)]);
        world.commit();
        world.crash();
    });
    world(PLAIN, shared_block, |world| {
        world.submit(THIN, [world.write(0, 0)]);
        world.commit();
        world.crash();
    });
}

#[test]
fn a_write_is_not_acknowledged_if_its_commit_fails() {
    let settings = Settings {
        commit_faults: Some(1),
        ..PLAIN
    };
    for before in [new_thin, shared_block] {
        world(settings, before, |world| {
            let expect = |result| assert_eq!(result, Err(Errno::EIO));
            world.submit_expecting(THIN, [durable(world.write(0, 0)), Io::Flush], expect);
            world.crash();
        });
    }
}
