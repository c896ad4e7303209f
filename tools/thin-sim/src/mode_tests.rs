// SPDX-License-Identifier: GPL-2.0

//! Every mode with every event.

use crate::{
    choices::random,
    core::{
        errno::Errno,
        mode::{
            Effects,
            Input,
            MetadataAccess,
            PoolMode,
            PoolState,
            Recovery,
            Service,
            Timer,
            Waiting, //
        },
        table::{
            NoSpacePolicy,
            PoolFeatures, //
        },
    },
};

use PoolMode::{
    Fail,
    OutOfDataSpace,
    OutOfMetadataSpace,
    ReadOnly,
    Write, //
};

const QUEUE: PoolFeatures = PoolFeatures {
    zero_new_blocks: true,
    discard_enabled: true,
    discard_passdown: true,
    read_only: false,
    no_space: NoSpacePolicy::Queue,
};

const ERROR: PoolFeatures = PoolFeatures {
    no_space: NoSpacePolicy::Error,
    ..QUEUE
};

const READ_ONLY: PoolFeatures = PoolFeatures {
    read_only: true,
    ..QUEUE
};

const MODES: [PoolMode; 5] = [Write, OutOfDataSpace, OutOfMetadataSpace, ReadOnly, Fail];

const COMMITTED: Input = committed(Ok(10), Ok(10));
const NO_METADATA: Input = committed(Ok(0), Ok(10));

const fn committed(free_metadata: Result<u64, Errno>, free_data: Result<u64, Errno>) -> Input {
    Input::Committed {
        free_metadata,
        free_data,
    }
}

/// A pool in a mode, which its table has come to without anything going wrong that need not have.
fn pool_in(mode: PoolMode, features: PoolFeatures) -> PoolState {
    let mut state = PoolState::new(false);
    let inputs: &[Input] = match mode {
        Write => &[],
        OutOfDataSpace => &[Input::DataSpaceExhausted],
        OutOfMetadataSpace => &[NO_METADATA],
        ReadOnly => &[Input::OperationFailed(Recovery::Complete)],
        Fail => &[Input::OperationFailed(Recovery::NotAborted)],
    };
    for input in [&[Input::TableLoaded(features)], inputs].concat() {
        let _ = state.apply(input);
    }
    assert_eq!(state.mode(), mode);
    state
}

/// A pool whose table says that it is read-only.
fn read_only_pool() -> PoolState {
    let mut state = PoolState::new(false);
    let _ = state.apply(Input::TableLoaded(READ_ONLY));
    assert_eq!(state.mode(), ReadOnly);
    state
}

fn after(mut state: PoolState, input: Input) -> (PoolMode, Effects) {
    let effects = state.apply(input);
    (state.mode(), effects)
}

fn mode_after(state: PoolState, input: Input) -> PoolMode {
    after(state, input).0
}

#[test]
fn events_lead_from_mode_to_mode() {
    use Input::{
        DataSpaceExhausted,
        MetadataGrown,
        NoSpaceTimeout,
        OperationFailed,
        Suspended,
        TableLoaded,
        TableResumed, //
    };
    let failed = committed(Err(Errno::EIO), Ok(10));
    let no_data = committed(Ok(10), Ok(0));
    // From Write, OutOfDataSpace, OutOfMetadataSpace, ReadOnly after a failure, Fail.
    let table = [
        (TableLoaded(QUEUE), [Write, Write, Write, ReadOnly, Fail]),
        (
            TableLoaded(READ_ONLY),
            [ReadOnly, ReadOnly, ReadOnly, ReadOnly, Fail],
        ),
        (TableResumed(QUEUE), MODES),
        (Suspended, MODES),
        (
            DataSpaceExhausted,
            [
                OutOfDataSpace,
                OutOfDataSpace,
                OutOfMetadataSpace,
                ReadOnly,
                Fail,
            ],
        ),
        (
            COMMITTED,
            [Write, Write, OutOfMetadataSpace, ReadOnly, Fail],
        ),
        (no_data, MODES),
        (committed(Ok(10), Err(Errno::EIO)), MODES),
        (
            NO_METADATA,
            [
                OutOfMetadataSpace,
                OutOfMetadataSpace,
                OutOfMetadataSpace,
                ReadOnly,
                Fail,
            ],
        ),
        (
            failed,
            [
                OutOfMetadataSpace,
                OutOfMetadataSpace,
                OutOfMetadataSpace,
                ReadOnly,
                Fail,
            ],
        ),
        (
            MetadataGrown,
            [Write, OutOfDataSpace, Write, ReadOnly, Fail],
        ),
        (
            OperationFailed(Recovery::Complete),
            [ReadOnly, ReadOnly, ReadOnly, ReadOnly, Fail],
        ),
        (OperationFailed(Recovery::NotAborted), [Fail; 5]),
        (OperationFailed(Recovery::NotMarked), [Fail; 5]),
        (NoSpaceTimeout, MODES),
    ];
    for (input, expected) in table {
        for (mode, expected) in MODES.into_iter().zip(expected) {
            let found = mode_after(pool_in(mode, QUEUE), input);
            assert_eq!(found, expected, "{input:?} in {mode:?}");
        }
    }
}

#[test]
fn a_new_pool_comes_up_as_its_table_and_its_metadata_say() {
    let come_up =
        |needs_check, features| after(PoolState::new(needs_check), Input::TableLoaded(features));
    assert_eq!(come_up(false, QUEUE).0, Write);
    assert_eq!(come_up(false, QUEUE).1.switch, None);
    assert_eq!(come_up(false, READ_ONLY).0, ReadOnly);
    let (mode, effects) = come_up(true, QUEUE);
    assert_eq!(mode, ReadOnly);
    assert_eq!(
        effects.reason,
        Some("unable to switch pool to write mode until repaired.")
    );
    assert_eq!(effects.switch, Some("switching pool to read-only mode"));
    assert_eq!(effects.metadata, Some(MetadataAccess::ReadOnly));
    assert_eq!(come_up(true, READ_ONLY).1.reason, None);

    // Before that, nothing is changed that needs a check.
    let before = PoolState::new(true).rules();
    assert_eq!(before.messages, Service::Fail(Errno::EOPNOTSUPP));
    assert_eq!(before.metadata, MetadataAccess::ReadOnly);
    assert_eq!(PoolState::new(false).rules().messages, Service::Serve);
}

#[test]
fn a_read_only_pool_can_be_written_with_another_table_unless_it_needs_a_check() {
    let (mode, effects) = after(read_only_pool(), Input::TableLoaded(QUEUE));
    assert_eq!(mode, Write);
    assert_eq!(effects.switch, Some("switching pool to write mode"));
    assert_eq!(effects.metadata, Some(MetadataAccess::ReadWrite));
    assert_eq!(
        mode_after(read_only_pool(), Input::TableResumed(READ_ONLY)),
        ReadOnly
    );

    let flagged = pool_in(ReadOnly, QUEUE);
    assert!(flagged.needs_check());
    let (mode, effects) = after(flagged, Input::TableLoaded(QUEUE));
    assert_eq!((mode, effects.switch), (ReadOnly, None));
}

#[test]
fn each_mode_has_its_rules() {
    let io = Service::Fail(Errno::EIO);
    let no_space = Service::Fail(Errno::ENOSPC);
    let unsupported = Service::Fail(Errno::EOPNOTSUPP);
    let (serve, wait, ignore) = (Service::Serve, Service::Wait, Service::Ignore);
    let (rw, ro) = (MetadataAccess::ReadWrite, MetadataAccess::ReadOnly);
    // mapped, new block, insert, discard, messages, metadata
    let table = [
        (
            pool_in(Write, QUEUE),
            (serve, serve, serve, serve, serve, rw),
        ),
        (
            pool_in(OutOfDataSpace, QUEUE),
            (serve, wait, serve, serve, serve, rw),
        ),
        (
            pool_in(OutOfDataSpace, ERROR),
            (serve, no_space, serve, serve, serve, rw),
        ),
        (
            pool_in(OutOfMetadataSpace, QUEUE),
            (serve, io, io, ignore, unsupported, ro),
        ),
        (
            pool_in(ReadOnly, QUEUE),
            (serve, io, io, ignore, unsupported, ro),
        ),
        (read_only_pool(), (serve, io, io, ignore, unsupported, ro)),
        (pool_in(Fail, QUEUE), (io, io, io, io, unsupported, ro)),
    ];
    for (state, expected) in table {
        let rules = state.rules();
        let found = (
            rules.mapped,
            rules.new_block,
            rules.insert,
            rules.discard,
            rules.messages,
            rules.metadata,
        );
        assert_eq!(found, expected, "{state:?}");
    }
}

#[test]
fn bios_wait_for_space_until_there_is_some_or_the_time_is_up() {
    let mut state = pool_in(Write, QUEUE);
    let effects = state.apply(Input::DataSpaceExhausted);
    assert_eq!(effects.timer, Some(Timer::Start));
    assert_eq!(effects.waiting, None);
    assert_eq!(
        effects.switch,
        Some("switching pool to out-of-data-space (queue IO) mode")
    );
    // Who has found no space, either, does not start it anew.
    assert_eq!(state.apply(Input::DataSpaceExhausted), Effects::default());

    let effects = state.apply(COMMITTED);
    assert_eq!(effects.timer, Some(Timer::Stop));
    assert_eq!(effects.waiting, Some(Waiting::TryAgain));
    assert_eq!(effects.switch, Some("switching pool to write mode"));

    let mut state = pool_in(OutOfDataSpace, QUEUE);
    let effects = state.apply(Input::NoSpaceTimeout);
    assert_eq!(effects.waiting, Some(Waiting::Fail(Errno::ENOSPC)));
    assert_eq!(
        effects.switch,
        Some("switching pool to out-of-data-space (error IO) mode")
    );
    assert_eq!(state.mode(), OutOfDataSpace);
    assert_eq!(state.no_space(), NoSpacePolicy::Error);
    assert_eq!(state.rules().new_block, Service::Fail(Errno::ENOSPC));
    assert_eq!(state.apply(Input::NoSpaceTimeout), Effects::default());

    // With space, the table's wish holds again.
    let mut again = state;
    let _ = again.apply(COMMITTED);
    assert_eq!(again.no_space(), NoSpacePolicy::Queue);
    // So it does after a resume, and the time begins anew.
    let effects = state.apply(Input::TableResumed(QUEUE));
    assert_eq!(effects.timer, Some(Timer::Start));
    assert_eq!(effects.switch, None);
    assert_eq!(state.rules().new_block, Service::Wait);
}

#[test]
fn without_space_bios_fail_if_the_table_says_so() {
    let mut state = pool_in(Write, ERROR);
    let effects = state.apply(Input::DataSpaceExhausted);
    assert_eq!(effects.timer, Some(Timer::Stop));
    assert_eq!(effects.waiting, Some(Waiting::Fail(Errno::ENOSPC)));
    assert_eq!(
        effects.switch,
        Some("switching pool to out-of-data-space (error IO) mode")
    );
}

#[test]
fn bios_that_waited_for_space_fail_for_want_of_it_whatever_happens_then() {
    for input in [
        NO_METADATA,
        Input::OperationFailed(Recovery::Complete),
        Input::OperationFailed(Recovery::NotMarked),
        Input::TableLoaded(READ_ONLY),
    ] {
        let mut state = pool_in(OutOfDataSpace, QUEUE);
        let effects = state.apply(input);
        assert_eq!(
            effects.waiting,
            Some(Waiting::Fail(Errno::ENOSPC)),
            "{input:?}"
        );
        assert_eq!(effects.timer, Some(Timer::Stop), "{input:?}");
        assert_eq!(state.rules().insert, Service::Fail(Errno::ENOSPC));

        let mut state = pool_in(Write, QUEUE);
        let effects = state.apply(input);
        assert_eq!(
            effects.waiting,
            Some(Waiting::Fail(Errno::EIO)),
            "{input:?}"
        );
    }
    // It is forgotten once the pool was well.
    let mut state = pool_in(OutOfDataSpace, QUEUE);
    let _ = state.apply(COMMITTED);
    let effects = state.apply(NO_METADATA);
    assert_eq!(effects.waiting, Some(Waiting::Fail(Errno::EIO)));
}

#[test]
fn a_failure_says_how_bad_it_is() {
    let failed = |recovery| after(pool_in(Write, QUEUE), Input::OperationFailed(recovery));
    let (_, effects) = failed(Recovery::Complete);
    assert_eq!(effects.reason, None);
    assert_eq!(effects.switch, Some("switching pool to read-only mode"));
    let (_, effects) = failed(Recovery::NotAborted);
    assert_eq!(effects.reason, Some("failed to abort metadata transaction"));
    assert_eq!(effects.switch, Some("switching pool to fail mode"));
    let (_, effects) = failed(Recovery::NotMarked);
    assert_eq!(
        effects.reason,
        Some("failed to set 'needs_check' flag in metadata")
    );
    let (_, effects) = after(pool_in(Write, QUEUE), NO_METADATA);
    assert_eq!(effects.reason, Some("No free metadata blocks"));
    assert_eq!(effects.switch, Some("switching pool to read-only mode"));
}

#[test]
fn whatever_happens_some_things_hold() {
    random(2000, |choices| {
        let pick = |features: [PoolFeatures; 3]| features[choices.below(3)];
        let mut state = PoolState::new(choices.one_in(8));
        let _ = state.apply(Input::TableLoaded(pick([QUEUE, ERROR, READ_ONLY])));
        for _ in 0..40 {
            let features = pick([QUEUE, ERROR, READ_ONLY]);
            let number = || [Ok(0), Ok(5), Ok(5), Ok(5), Err(Errno::EIO)][choices.below(5)];
            let recovery = [
                Recovery::Complete,
                Recovery::NotAborted,
                Recovery::NotMarked,
            ];
            let input = match choices.below(20) {
                0..3 => Input::TableLoaded(features),
                3..5 => Input::TableResumed(features),
                5 => Input::Suspended,
                6..10 => Input::DataSpaceExhausted,
                10..15 => committed(number(), number()),
                15..17 => Input::MetadataGrown,
                17 => Input::OperationFailed(recovery[choices.below(3)]),
                _ => Input::NoSpaceTimeout,
            };
            let before = state;
            let effects = state.apply(input);
            let rules = state.rules();
            if before.mode() == Fail {
                assert_eq!(state.mode(), Fail);
            }
            if before.needs_check() {
                assert!(state.needs_check());
            }
            assert!(!state.needs_check() || state.mode() >= ReadOnly);
            if let Some(access) = effects.metadata {
                assert_eq!(access, rules.metadata);
            }
            if before.rules().metadata != rules.metadata {
                assert!(effects.metadata.is_some());
            }
            if state.mode() != before.mode() {
                assert!(effects.switch.is_some() && effects.timer.is_some());
            }
            // Nobody is left waiting for what will not come.
            if before.rules().new_block == Service::Wait && rules.new_block != Service::Wait {
                assert!(effects.waiting.is_some());
            }
            match rules.new_block {
                Service::Serve => assert_ne!(effects.waiting, Some(Waiting::Fail(Errno::EIO))),
                Service::Wait => assert_eq!(effects.waiting, None),
                Service::Fail(_) => assert_ne!(effects.waiting, Some(Waiting::TryAgain)),
                Service::Ignore => panic!("no write is ignored"),
            }
        }
    });
}
