// SPDX-License-Identifier: GPL-2.0

//! What happens next, when several things could: all of them in turn, or one at random.

use std::{
    env,
    panic::{
        self,
        AssertUnwindSafe, //
    },
    sync::{
        Arc,
        Mutex,
        MutexGuard, //
    }, //
};

/// The choices of one run.
#[derive(Clone)]
pub(crate) struct Choices(Arc<Mutex<Source>>);

enum Source {
    /// The choices to begin with, each with the number of ways to choose; then the first one always.
    Path {
        steps: Vec<(usize, usize)>,
        done: usize,
    },
    Random {
        state: u64,
    },
}

impl Choices {
    fn new(source: Source) -> Self {
        Self(Arc::new(Mutex::new(source)))
    }

    fn seeded(seed: u64) -> Self {
        Self::new(Source::Random { state: seed })
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.0.lock().expect("nobody panics with it")
    }

    /// A number from 0 up to `ways`, which is not one of them.
    pub(crate) fn below(&self, ways: usize) -> usize {
        assert_ne!(ways, 0);
        match &mut *self.source() {
            _ if ways == 1 => 0,
            Source::Path { steps, done } => {
                if *done == steps.len() {
                    steps.push((0, ways));
                }
                let (choice, ways_before) = steps[*done];
                assert_eq!(ways, ways_before, "the same choices lead to something else");
                *done += 1;
                choice
            }
            Source::Random { state } => (next(state) % ways as u64) as usize,
        }
    }

    /// Whether something happens that does so once in so many cases.
    pub(crate) fn one_in(&self, ways: usize) -> bool {
        self.below(ways) == ways - 1
    }
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Runs `world` with all sequences of choices. Returns how many there are: `at_most`, or it panics.
pub(crate) fn explore(at_most: usize, world: impl Fn(&Choices)) -> usize {
    let choices = Choices::new(Source::Path {
        steps: Vec::new(),
        done: 0,
    });
    for run in 1.. {
        assert!(run <= at_most, "there are more than {at_most} ways");
        attempt(
            || world(&choices),
            || format!("way {run}: {}", path(&choices)),
        );

        let Source::Path { steps, done } = &mut *choices.source() else {
            unreachable!("it is a path");
        };
        assert_eq!(
            *done,
            steps.len(),
            "the same choices lead to something else"
        );
        *done = 0;
        // The next one in the order of a dictionary.
        while let Some((choice, ways)) = steps.pop() {
            if choice + 1 < ways {
                steps.push((choice + 1, ways));
                break;
            }
        }
        if steps.is_empty() {
            return run;
        }
    }
    unreachable!("the loop ends with a return")
}

fn path(choices: &Choices) -> String {
    match &*choices.source() {
        Source::Path { steps, .. } => {
            format!("{:?}", steps.iter().map(|s| s.0).collect::<Vec<_>>())
        }
        Source::Random { .. } => String::new(),
    }
}

/// Runs `world` with random choices, so many times; or once, with the seed that the environment
/// variable `DM_THIN_RS_SEED` has.
pub(crate) fn random(runs: u64, world: impl Fn(&Choices)) {
    let run = |seed: u64| {
        let replay = || format!("DM_THIN_RS_SEED={seed} replays this");
        attempt(|| world(&Choices::seeded(seed)), replay);
    };
    match env::var("DM_THIN_RS_SEED") {
        Ok(seed) => run(seed.parse().expect("a seed is a number")),
        Err(_) => (0..runs).for_each(run),
    }
}

/// Runs `world`, and says how it came about if that panics.
fn attempt(world: impl FnOnce(), what: impl FnOnce() -> String) {
    if let Err(cause) = panic::catch_unwind(AssertUnwindSafe(world)) {
        eprintln!("{}", what());
        panic::resume_unwind(cause);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        explore,
        random,
        Choices, //
    };
    use std::{
        cell::RefCell,
        collections::BTreeSet, //
    };

    #[test]
    fn exploration_takes_every_path_once() {
        let seen = RefCell::new(BTreeSet::new());
        let runs = explore(100, |choices: &Choices| {
            let first = choices.below(3);
            let second = if first == 1 { choices.below(4) } else { 9 };
            let third = choices.below(2);
            assert!(seen.borrow_mut().insert((first, second, third)));
        });
        assert_eq!(runs, 2 + 8 + 2);
        assert_eq!(seen.borrow().len(), runs);
    }

    #[test]
    fn a_seed_brings_the_same_choices_back() {
        let seen = RefCell::new(Vec::new());
        for _ in 0..2 {
            random(3, |choices| {
                let numbers: Vec<_> = (0..20).map(|ways| choices.below(ways + 1)).collect();
                seen.borrow_mut().push(numbers);
            });
        }
        let seen = seen.into_inner();
        assert_eq!(seen[..seen.len() / 2], seen[seen.len() / 2..]);
    }
}
