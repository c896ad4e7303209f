// SPDX-License-Identifier: GPL-2.0

//! The modes of a pool, and what makes it change from one to another.
//!
//! ```text
//!              table resumed             allocation finds nothing
//!    READ_ONLY <-----------> WRITE ------------------------------> OUT_OF_DATA_SPACE
//!        ^                    |  ^ <------------------------------        |
//!        |                    |  |     commit finds free blocks           |
//!        |   commit finds     |  | metadata grown,                        |
//!        |   no metadata left v  | table loaded                           |
//!        |            OUT_OF_METADATA_SPACE <-----------------------------+
//!        |                                                                |
//!        +------ operation failed, from any of them ----------------------+
//!
//!    any --- could not be undone or marked ---> FAIL, for good
//! ```
//!
//! Metadata that need a check keep the pool from being written: it comes up read-only.
//!
//! [`PoolState`] is a plain value. It says what an event does to the mode, and what the caller has to
//! do about that; [`PoolState::rules`] says what is done in a mode about each kind of request.

use super::{
    errno::{
        Errno,
        Result, //
    },
    table::{
        NoSpacePolicy,
        PoolFeatures, //
    },
};

/// How well a pool is, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PoolMode {
    /// All is well.
    Write,
    /// There is no free data block.
    OutOfDataSpace,
    /// There is no free metadata block besides the reserve.
    OutOfMetadataSpace,
    /// The metadata are not to be changed: somebody wants it so, or something has gone wrong.
    ReadOnly,
    /// The metadata are not to be relied on.
    Fail,
}

/// What is done about a kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// It is served.
    Serve,
    /// It succeeds and does nothing.
    Ignore,
    /// It waits for space.
    Wait,
    /// It fails.
    Fail(Errno),
}

/// Whether the metadata can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetadataAccess {
    /// They can.
    ReadWrite,
    /// They cannot.
    ReadOnly,
}

/// What is done in a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// About looking up blocks, about I/O that needs no new block, and about flushes.
    pub(crate) mapped: Service,
    /// About writes that need a new block.
    pub(crate) new_block: Service,
    /// About mapping a block that was allocated earlier, maybe in another mode.
    pub(crate) insert: Service,
    /// About discards.
    pub(crate) discard: Service,
    /// About messages.
    pub(crate) messages: Service,
    /// About the metadata.
    pub(crate) metadata: MetadataAccess,
}

/// How far an operation on the metadata that failed could be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// The transaction was aborted, and the metadata are marked to need a check.
    Complete,
    /// The transaction could not be aborted.
    NotAborted,
    /// The metadata could not be marked.
    NotMarked,
}

/// What can change the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A table takes control of the pool that had not been in control before.
    TableLoaded(PoolFeatures),
    /// The table that was in control before the pool was suspended is so again.
    TableResumed(PoolFeatures),
    /// The pool was suspended.
    Suspended,
    /// An allocation found no data block, although everything was committed before.
    DataSpaceExhausted,
    /// Everything has been committed.
    Committed {
        /// The free blocks of the metadata device besides the reserve.
        free_metadata: Result<u64>,
        /// The free blocks of the data device.
        free_data: Result<u64>,
    },
    /// The metadata device was found to be larger than the metadata; they are about to grow.
    MetadataGrown,
    /// An operation on the metadata has failed.
    OperationFailed(Recovery),
    /// Bios have waited for space for as long as they may.
    NoSpaceTimeout,
}

/// What to do about the time that bios may wait for space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// It begins now; [`Input::NoSpaceTimeout`] is its end, if there is any.
    Start,
    /// It does not matter any more.
    Stop,
}

/// What to do about bios that wait for space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// They try again.
    TryAgain,
    /// They fail.
    Fail(Errno),
}

/// What the caller has to do after something happened, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub(crate) struct Effects {
    /// To be logged as an error.
    pub(crate) reason: Option<&'static str>,
    /// What becomes of the timer.
    pub(crate) timer: Option<Timer>,
    /// How the metadata can be accessed from now on.
    pub(crate) metadata: Option<MetadataAccess>,
    /// To be logged for information, with an event for whoever waits for the pool device.
    pub(crate) switch: Option<&'static str>,
    /// What becomes of bios that wait for space.
    pub(crate) waiting: Option<Waiting>,
}

/// The mode of a pool, and what else decides about requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolState {
    mode: PoolMode,
    needs_check: bool,
    /// What is done without space: what the table wants, or to fail after the time is up.
    no_space: NoSpacePolicy,
    /// What the table wants.
    wanted: NoSpacePolicy,
    /// Whether space was short when the pool was last well. Then bios fail for that reason, even if
    /// other things have gone wrong since.
    lacked_space: bool,
}

impl PoolState {
    /// The state of a pool that has never been resumed.
    pub(crate) fn new(needs_check: bool) -> Self {
        Self {
            mode: PoolMode::Write,
            needs_check,
            no_space: NoSpacePolicy::Queue,
            wanted: NoSpacePolicy::Queue,
            lacked_space: false,
        }
    }

    /// The mode.
    pub(crate) fn mode(&self) -> PoolMode {
        self.mode
    }

    /// Whether the metadata must be checked before they are changed again.
    pub(crate) fn needs_check(&self) -> bool {
        self.needs_check
    }

    /// What is done about bios without space.
    pub(crate) fn no_space(&self) -> NoSpacePolicy {
        self.no_space
    }

    /// What is done about requests at present.
    pub(crate) fn rules(&self) -> Rules {
        let well = Rules {
            mapped: Service::Serve,
            new_block: Service::Serve,
            insert: Service::Serve,
            discard: Service::Serve,
            messages: Service::Serve,
            metadata: MetadataAccess::ReadWrite,
        };
        let read_only = Rules {
            mapped: Service::Serve,
            new_block: Service::Fail(Errno::EIO),
            insert: Service::Fail(self.failure()),
            discard: Service::Ignore,
            messages: Service::Fail(Errno::EOPNOTSUPP),
            metadata: MetadataAccess::ReadOnly,
        };
        match self.mode {
            // No table has taken control yet, which would have changed the mode.
            PoolMode::Write if self.needs_check => read_only,
            PoolMode::Write => well,
            PoolMode::OutOfDataSpace => Rules {
                new_block: match self.no_space {
                    NoSpacePolicy::Queue => Service::Wait,
                    NoSpacePolicy::Error => Service::Fail(Errno::ENOSPC),
                },
                ..well
            },
            PoolMode::OutOfMetadataSpace | PoolMode::ReadOnly => read_only,
            PoolMode::Fail => Rules {
                mapped: Service::Fail(Errno::EIO),
                discard: Service::Fail(Errno::EIO),
                ..read_only
            },
        }
    }

    /// Takes note of what happened.
    pub(crate) fn apply(&mut self, input: Input) -> Effects {
        match input {
            Input::TableLoaded(features) => {
                self.set_wanted(features);
                self.switch_to(if features.read_only {
                    PoolMode::ReadOnly
                } else {
                    PoolMode::Write
                })
            }
            Input::TableResumed(features) => {
                self.set_wanted(features);
                self.switch_to(self.mode)
            }
            Input::Suspended => Effects {
                timer: Some(Timer::Stop),
                ..Effects::default()
            },
            Input::DataSpaceExhausted if self.mode == PoolMode::Write => {
                self.switch_to(PoolMode::OutOfDataSpace)
            }
            Input::Committed {
                free_metadata,
                free_data,
            } if self.mode < PoolMode::OutOfMetadataSpace => {
                let problem = match free_metadata {
                    Ok(0) => Some("No free metadata blocks"),
                    Ok(_) => None,
                    Err(_) => Some("Could not get free metadata blocks"),
                };
                let has_space = matches!(free_data, Ok(free) if free > 0);
                match problem {
                    Some(_) => Effects {
                        reason: problem,
                        ..self.switch_to(PoolMode::OutOfMetadataSpace)
                    },
                    None if has_space && self.mode == PoolMode::OutOfDataSpace => {
                        self.switch_to(PoolMode::Write)
                    }
                    None => Effects::default(),
                }
            }
            Input::MetadataGrown if self.mode == PoolMode::OutOfMetadataSpace => {
                self.switch_to(PoolMode::Write)
            }
            Input::OperationFailed(recovery) => self.operation_failed(recovery),
            Input::NoSpaceTimeout if self.rules().new_block == Service::Wait => {
                self.no_space = NoSpacePolicy::Error;
                Effects {
                    timer: Some(Timer::Stop),
                    switch: Some(self.switch_line()),
                    waiting: Some(Waiting::Fail(Errno::ENOSPC)),
                    ..Effects::default()
                }
            }
            Input::DataSpaceExhausted
            | Input::Committed { .. }
            | Input::MetadataGrown
            | Input::NoSpaceTimeout => Effects::default(),
        }
    }

    fn set_wanted(&mut self, features: PoolFeatures) {
        self.wanted = features.no_space;
        self.no_space = features.no_space;
    }

    fn operation_failed(&mut self, recovery: Recovery) -> Effects {
        self.needs_check = true;
        let (reason, mode) = match recovery {
            Recovery::Complete => (None, PoolMode::ReadOnly),
            Recovery::NotAborted => (Some("failed to abort metadata transaction"), PoolMode::Fail),
            Recovery::NotMarked => (
                Some("failed to set 'needs_check' flag in metadata"),
                PoolMode::Fail,
            ),
        };
        Effects {
            reason,
            ..self.switch_to(mode)
        }
    }

    /// Changes to a mode, or to the one that is possible instead.
    fn switch_to(&mut self, wanted: PoolMode) -> Effects {
        let before = self.mode;
        let mut reason = None;
        self.mode = if before == PoolMode::Fail {
            PoolMode::Fail
        } else if wanted == PoolMode::Write && self.needs_check {
            reason = Some("unable to switch pool to write mode until repaired.");
            before.max(PoolMode::ReadOnly)
        } else {
            wanted
        };

        let (timer, waiting) = match self.mode {
            PoolMode::Write => {
                self.lacked_space = false;
                self.no_space = self.wanted;
                (Timer::Stop, Some(Waiting::TryAgain))
            }
            PoolMode::OutOfDataSpace => {
                self.lacked_space = true;
                match self.no_space {
                    NoSpacePolicy::Queue => (Timer::Start, None),
                    NoSpacePolicy::Error => (Timer::Stop, Some(Waiting::Fail(Errno::ENOSPC))),
                }
            }
            PoolMode::OutOfMetadataSpace | PoolMode::ReadOnly | PoolMode::Fail => {
                (Timer::Stop, Some(Waiting::Fail(self.failure())))
            }
        };
        Effects {
            reason,
            timer: Some(timer),
            metadata: Some(self.rules().metadata),
            switch: (self.mode != before).then(|| self.switch_line()),
            waiting,
        }
    }

    /// What bios fail with that needed to change the metadata.
    fn failure(&self) -> Errno {
        if self.lacked_space {
            Errno::ENOSPC
        } else {
            Errno::EIO
        }
    }

    /// What the log says of the mode.
    fn switch_line(&self) -> &'static str {
        match (self.mode, self.no_space) {
            (PoolMode::Write, _) => "switching pool to write mode",
            (PoolMode::OutOfDataSpace, NoSpacePolicy::Queue) => {
                "switching pool to out-of-data-space (queue IO) mode"
            }
            (PoolMode::OutOfDataSpace, NoSpacePolicy::Error) => {
                "switching pool to out-of-data-space (error IO) mode"
            }
            (PoolMode::OutOfMetadataSpace | PoolMode::ReadOnly, _) => {
                "switching pool to read-only mode"
            }
            (PoolMode::Fail, _) => "switching pool to fail mode",
        }
    }
}
