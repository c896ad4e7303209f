// SPDX-License-Identifier: GPL-2.0

//! The device-mapper thin-provisioning targets.

#![crate_name = "dm_thin_rs"]

use kernel::prelude::*;

#[path = "../../../rust/answer.rs"]
mod answer;
#[path = "../../../rust/bindings/mod.rs"]
mod bindings;
#[path = "../../../rust/bio.rs"]
mod bio;
#[path = "../../../rust/block_device.rs"]
mod block_device;
mod core;
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
#[path = "../../../rust/slice.rs"]
mod slice;
#[path = "../../../rust/task/mod.rs"]
mod task;
#[path = "../../../rust/wait_list.rs"]
mod wait_list;
#[path = "../../../rust/workqueue.rs"]
mod workqueue;

module! {
    type: DmThinRs,
    name: "dm_thin_rs",
    authors: ["The dm-thin-rs authors"],
    description: "device-mapper thin-provisioning targets",
    license: "GPL",
}

struct DmThinRs;

impl kernel::Module for DmThinRs {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        bindings::check_layout()?;
        Ok(Self)
    }
}
