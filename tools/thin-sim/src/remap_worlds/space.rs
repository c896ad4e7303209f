// SPDX-License-Identifier: GPL-2.0

//! There is no space: bios fail, or wait for some.

use super::{
    world,
    Before,
    DISCARD,
    PLAIN,
    READ,
    SNAPSHOT,
    THIN, //
};
use crate::{
    core::{
        errno::Errno,
        remap::Discards,
        table::NoSpacePolicy, //
    },
    sim_bio::Io,
    sim_pool::Settings, //
};

#[test]
fn a_write_without_space_fails_and_changes_nothing() {
    let before = || Before::new(1).create(THIN).write(THIN, [0]).snapshot();
    world(PLAIN, before, |world| {
        let expect = |result| assert_eq!(result, Err(Errno::ENOSPC));
        world.submit_expecting(THIN, [world.write(0, 0), world.overwrite(1)], expect);
        world.submit(THIN, [READ]);
    });
}

#[test]
fn a_full_pool_serves_again_when_a_discard_was_committed() {
    let before = || Before::new(1).create(THIN).write(THIN, [0]);
    world(PLAIN, before, |world| {
        world.submit(THIN, [DISCARD, world.write(1, 0)]);
        world.submit(THIN, [Io::Read { block: 1 }]);
    });
}

#[test]
fn what_was_freed_before_is_no_shortage() {
    world(PLAIN, full_pool, |world| {
        let thin = world.thin(THIN);
        let (write, other) = (world.write(1, 0), world.write(3, 0));
        world.spawn(async move {
            assert_eq!(thin.submit(other).await, Err(Errno::ENOSPC));
            thin.submit(DISCARD).await.unwrap();
            thin.submit(write).await.unwrap();
            assert_eq!(thin.submit(other).await, Err(Errno::ENOSPC));
        });
        world.commit();
    });
}

/// A full pool, whose writes wait for space.
const WAITING: Settings = Settings {
    no_space: NoSpacePolicy::Queue,
    ..PLAIN
};

fn full_pool() -> Before {
    Before::new(2).create(THIN).write(THIN, [0, 2])
}

#[test]
fn a_write_without_space_waits_for_a_discard_of_the_same_device() {
    for discards in [Discards::PassDown, Discards::Unmap] {
        let settings = Settings {
            discards,
            ..WAITING
        };
        world(settings, full_pool, |world| {
            world.submit(THIN, [world.write(1, 0), Io::Read { block: 1 }]);
            let (thin, pool) = (world.thin(THIN), world.pool.clone());
            world.spawn(async move {
                thin.submit(DISCARD).await.unwrap();
                pool.tick().await;
            });
        });
    }
}

#[test]
fn a_write_that_waits_holds_up_nobody_who_wants_its_block() {
    let before = || full_pool().snapshot();
    world(WAITING, before, |world| {
        let thin = world.thin(THIN);
        let (write, snapshot) = (world.write(0, 0), world.thin(SNAPSHOT));
        world.spawn(async move { thin.submit(write).await.unwrap() });
        let thin = world.thin(THIN);
        let pool = world.pool.clone();
        world.spawn(async move {
            thin.submit(READ).await.unwrap();
            thin.submit(DISCARD).await.unwrap();
            snapshot.submit(DISCARD).await.unwrap();
            pool.tick().await;
        });
    });
}

#[test]
fn writes_that_wait_are_served_when_the_pool_grows() {
    world(WAITING, full_pool, |world| {
        world.submit(THIN, [world.overwrite(1), world.overwrite(3)]);
        let pool = world.pool.clone();
        world.spawn(async move {
            pool.grow(1).await;
            pool.grow(1).await;
        });
    });
}

#[test]
fn writes_that_wait_fail_when_the_time_is_up() {
    world(WAITING, full_pool, |world| {
        let expect = |result| assert_eq!(result, Err(Errno::ENOSPC));
        world.submit_expecting(THIN, [world.write(1, 0)], expect);
        world.submit_expecting(THIN, [world.write(3, 0)], expect);
        let pool = world.pool.clone();
        world.spawn(async move {
            pool.until(|pool| pool.waiting() != 0).await;
            pool.time_out().await;
        });
    });
}

#[test]
fn writes_that_wait_fail_with_the_pool() {
    // Somebody else's commit fails, or succeeds and brings the space of a discard.
    let settings = Settings {
        commit_faults: Some(2),
        ..WAITING
    };
    world(settings, full_pool, |world| {
        let expect = |result| assert!(matches!(result, Ok(()) | Err(Errno::ENOSPC | Errno::EIO)));
        world.submit_expecting(THIN, [world.write(1, 0)], expect);
        world.submit_expecting(THIN, [DISCARD, Io::Flush], expect);
    });
}

#[test]
fn writes_that_wait_do_so_elsewhere_while_their_device_is_suspended() {
    world(WAITING, full_pool, |world| {
        world.submit(THIN, [world.write(1, 0)]);
        let pool = world.pool.clone();
        world.spawn(async move {
            pool.suspend_noflush(THIN).await;
            assert_eq!(pool.waiting(), 0);
            pool.grow(1).await;
            pool.resume(THIN);
        });
    });
}

#[test]
fn writes_wait_on_after_a_suspension_that_was_interrupted() {
    world(WAITING, full_pool, |world| {
        world.submit(THIN, [world.write(1, 0)]);
        let pool = world.pool.clone();
        world.spawn(async move {
            pool.begin_to_suspend(THIN).await;
            pool.resume(THIN);
            pool.resume_pool().await;
            pool.grow(1).await;
        });
    });
}
