// SPDX-License-Identifier: GPL-2.0

//! What is served at once, without a task.

use super::{
    durable,
    new_thin,
    shared_block,
    world,
    World,
    DISCARD,
    PLAIN,
    READ,
    THIN, //
};
use crate::{
    choices::random,
    prison_fixtures::new_prison,
    sim_bio::Io,
    sim_pool::Settings, //
};

#[test]
fn what_needs_no_waiting_is_served_at_once() {
    world(PLAIN, shared_block, |world| {
        let thin = world.thin(THIN);
        let (write, overwrite) = (world.write(0, 0), world.overwrite(1));
        world.spawn(async move {
            let at_once = |io: Io| thin.serve_now(io);
            let nothing = Io::Discard { begin: 1, end: 1 };
            assert!(at_once(READ) && at_once(Io::Read { block: 1 }) && at_once(nothing));
            assert!(at_once(Io::Flush));
            assert!(!at_once(write) && !at_once(overwrite) && !at_once(DISCARD));

            thin.submit(write).await.unwrap();
            assert!(at_once(write) && at_once(READ));
            assert!(!at_once(durable(write)) && !at_once(Io::Flush));

            thin.submit(Io::Flush).await.unwrap();
            assert!(at_once(durable(write)) && at_once(Io::Flush));
        });
    });
}

#[test]
fn a_durable_write_that_is_served_at_once_does_not_miss_a_new_mapping() {
    let settings = Settings {
        fast_path: true,
        ..PLAIN
    };
    // Others run in the middle of what is done at once, as other processors would.
    let prison = new_prison();
    random(2000, |choices| {
        let world = World::new(choices, settings, new_thin(), prison);
        world.submit(THIN, [world.write(0, 0)]);
        world.submit(THIN, [durable(world.write(0, 1))]);
        world.executor.run_interrupted();
        world.pool.check_idle();
        world.pool.check_crash();
    });
}
