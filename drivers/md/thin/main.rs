// SPDX-License-Identifier: GPL-2.0

//! The device-mapper thin-provisioning targets.
//!
//! The module registers two targets: `thin-pool`, which keeps the metadata and the data of thin
//! devices, and `thin`, such a device. A bio arrives in [`thin`], is served by [`serve`] the way that
//! [`core::remap`] tells, and has whatever concerns the pool as a whole done by [`control`], on the
//! pool's metadata queue.
//!
//! All that is unsafe is in `rust/`, and here where it is said that a static is initialised.

#![crate_name = "dm_thin_rs"]
#![deny(unsafe_op_in_unsafe_fn)]

#[path = "../../../rust/answer.rs"]
mod answer;
#[path = "../../../rust/bindings/mod.rs"]
mod bindings;
#[path = "../../../rust/bio.rs"]
mod bio;
#[path = "../../../rust/block_device.rs"]
mod block_device;
#[path = "../../../rust/dm/mod.rs"]
mod dm;
#[path = "../../../rust/errors.rs"]
mod errors;
#[path = "../../../rust/facade.rs"]
mod facade;
#[path = "../../../rust/irq_lock.rs"]
mod irq_lock;
#[path = "../../../rust/kcopyd.rs"]
mod kcopyd;
#[path = "../../../rust/log.rs"]
mod log;
#[path = "../../../rust/mempool.rs"]
mod mempool;
#[path = "../../../rust/noio.rs"]
mod noio;
#[path = "../../../rust/outcome.rs"]
mod outcome;
#[path = "../../../rust/owner/mod.rs"]
mod owner;
#[path = "../../../rust/params.rs"]
mod params;
#[path = "../../../rust/persistent_data/mod.rs"]
mod persistent_data;
#[path = "../../../rust/slice.rs"]
mod slice;
#[path = "../../../rust/task/mod.rs"]
mod task;
#[path = "../../../rust/wait_list.rs"]
mod wait_list;
#[path = "../../../rust/workqueue.rs"]
mod workqueue;

#[deny(unsafe_code)]
mod control;
#[deny(unsafe_code)]
#[allow(unreachable_pub, reason = "the tools have some of its files in crates")]
mod core;
#[deny(unsafe_code)]
mod drain;
#[deny(unsafe_code)]
mod mapping_cache;
#[deny(unsafe_code)]
mod messages;
#[deny(unsafe_code)]
mod metadata;
#[deny(unsafe_code)]
mod origin;
#[deny(unsafe_code)]
mod pool;
#[deny(unsafe_code)]
mod pool_object;
#[deny(unsafe_code)]
mod registry;
#[deny(unsafe_code)]
#[allow(
    clippy::manual_async_fn,
    reason = "an async function keeps its arguments twice"
)]
mod serve;
#[deny(unsafe_code)]
mod shared;
#[deny(unsafe_code)]
mod thin;
#[deny(unsafe_code)]
mod waiting;

use crate::{
    dm::registration::{
        Description,
        Features,
        Registration, //
    },
    pool::PoolTarget,
    registry::Pools,
    thin::ThinTarget, //
};
use kernel::prelude::*;

module! {
    type: DmThinRs,
    name: "dm_thin_rs",
    authors: ["The dm-thin-rs authors"],
    description: "device-mapper thin-provisioning targets",
    license: "GPL",
}

kernel::sync::global_lock! {
    // SAFETY: Initialised first thing when the module is loaded.
    unsafe(uninit) static POOLS: Mutex<Pools> = Pools::new();
}

/// The module, as long as it is loaded.
#[pin_data]
struct DmThinRs {
    #[pin]
    thin: Registration<ThinTarget>,
    #[pin]
    pool: Registration<PoolTarget>,
}

impl kernel::InPlaceModule for DmThinRs {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: Once, before anybody can use it.
        unsafe { POOLS.init() };

        let (thin, pool) = if params::coexist() {
            (c"thin-rs", c"thin-pool-rs")
        } else {
            (c"thin", c"thin-pool")
        };
        try_pin_init!(Self {
            _: {
                bindings::check_layout()?;
            },
            thin <- Registration::new_serving(module, description(thin, Features::NONE)),
            pool <- Registration::new(
                module,
                description(
                    pool,
                    Features::SINGLETON | Features::ALWAYS_WRITEABLE | Features::IMMUTABLE,
                ),
            ),
        })
    }
}

/// A kind of target as user space knows it. Programs go by the version of the driver in C that it
/// behaves like.
fn description(name: &'static CStr, features: Features) -> Description {
    Description {
        name,
        version: [1, 24, 0],
        features: features | Features::PASSES_CRYPTO | Features::NOWAIT,
    }
}
