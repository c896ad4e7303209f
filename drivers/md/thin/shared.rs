// SPDX-License-Identifier: GPL-2.0

//! What bios read about the state of their pool, without a lock.
//!
//! The metadata queue publishes it with every change of the mode. A bio that reads it a moment too
//! early is none the worse: whatever it asks the metadata queue for afterwards is admitted there, by
//! the rules that hold then.

use crate::core::{
    mode::{
        Rules,
        Service, //
    },
    remap::Discards,
    table::PoolFeatures, //
};
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// What bios need to know.
pub(crate) struct Shared {
    flags: Atomic<u32>,
    /// Whether there is no pool device any more. Kept apart, since that lasts.
    gone: Atomic<bool>,
}

/// Everything fails.
const FAILS: u32 = 1 << 0;
/// New blocks must be zeroed.
const ZEROES: u32 = 1 << 1;
/// Discards do something.
const DISCARDS: u32 = 1 << 2;
/// Discards go on to the data device.
const PASSES_DOWN: u32 = 1 << 3;
/// Thin devices take discards.
const TAKES_DISCARDS: u32 = 1 << 4;

fn flag(condition: bool, flag: u32) -> u32 {
    if condition {
        flag
    } else {
        0
    }
}

impl Shared {
    /// The state of a new pool: nothing has been published yet.
    pub(crate) fn new(features: &PoolFeatures) -> Self {
        Self {
            flags: Atomic::new(
                flag(features.zero_new_blocks, ZEROES)
                    | flag(features.discard_enabled, TAKES_DISCARDS),
            ),
            gone: Atomic::new(false),
        }
    }

    /// Lets bios know what holds from now on.
    pub(crate) fn publish(&self, rules: &Rules, features: &PoolFeatures) {
        let flags = flag(matches!(rules.mapped, Service::Fail(_)), FAILS)
            | flag(features.zero_new_blocks, ZEROES)
            | flag(rules.discard == Service::Serve, DISCARDS)
            | flag(
                features.discard_enabled && features.discard_passdown,
                PASSES_DOWN,
            )
            | flag(features.discard_enabled, TAKES_DISCARDS);

        self.flags.store(flags, Relaxed);
    }

    /// There is no pool device any more, or there is one again.
    pub(crate) fn set_gone(&self, gone: bool) {
        self.gone.store(gone, Relaxed);
    }

    /// Whether the pool has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.has(FAILS)
    }

    /// Whether all bios fail.
    pub(crate) fn fails(&self) -> bool {
        self.has_failed() || self.gone.load(Relaxed)
    }

    /// Whether newly allocated blocks must read as zeroes.
    pub(crate) fn zeroes_new_blocks(&self) -> bool {
        self.has(ZEROES)
    }

    /// Whether thin devices take discards, with the table that is in control.
    pub(crate) fn takes_discards(&self) -> bool {
        self.has(TAKES_DISCARDS)
    }

    /// What becomes of discards.
    pub(crate) fn discards(&self) -> Discards {
        if !self.has(DISCARDS) {
            Discards::Ignore
        } else if self.has(PASSES_DOWN) {
            Discards::PassDown
        } else {
            Discards::Unmap
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.flags.load(Relaxed) & flag != 0
    }
}
