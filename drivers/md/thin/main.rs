// SPDX-License-Identifier: GPL-2.0

//! The device-mapper thin-provisioning targets.

#![crate_name = "dm_thin_rs"]

use kernel::prelude::*;

#[path = "../../../rust/bindings/mod.rs"]
mod bindings;

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
