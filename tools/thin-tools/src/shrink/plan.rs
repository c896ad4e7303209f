// SPDX-License-Identifier: GPL-2.0

//! Which data blocks go where when the data device gets smaller.

use thin_format::thin::Run;

/// Data blocks that move together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Where they begin.
    pub from: u64,
    /// Where they will begin.
    pub to: u64,
    /// How many.
    pub length: u64,
}

/// Runs of data blocks: first, and the one after the last.
#[derive(Clone, Debug, Default)]
pub struct Used {
    runs: Vec<(u64, u64)>,
    /// How many runs there were when they were last put in order.
    ordered: usize,
}

impl Used {
    /// Adds data blocks that a mapping refers to.
    ///
    /// Memory: 16 bytes for each run that does not touch another.
    pub fn add(&mut self, run: &Run) {
        let end = run.data.saturating_add(run.length);
        match self.runs.last_mut() {
            Some((_, last_end)) if *last_end == run.data => *last_end = end,
            _ => self.runs.push((run.data, end)),
        }
        if self.runs.len() > 2 * self.ordered + (1 << 20) {
            self.order();
        }
    }

    fn order(&mut self) {
        self.runs.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for &(begin, end) in &self.runs {
            match joined.last_mut() {
                Some((_, last_end)) if begin <= *last_end => *last_end = end.max(*last_end),
                _ => joined.push((begin, end)),
            }
        }
        self.ordered = joined.len();
        self.runs = joined;
    }
}

/// The moves, in order of where blocks come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The moves.
    pub moves: Vec<Move>,
    /// How many blocks move in all.
    pub blocks: u64,
}

/// There is no room below the new end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// How many blocks have to move.
    pub needed: u64,
    /// How many are free below the new end.
    pub free: u64,
}

impl Plan {
    /// What has to move for all of `used` to lie below `end`: each run into the first free blocks.
    pub fn new(mut used: Used, end: u64) -> Result<Self, NoRoom> {
        used.order();
        let mut free = Vec::new();
        let mut high = Vec::new();
        let mut at = 0;
        for &(begin, run_end) in &used.runs {
            if begin > at && at < end {
                free.push((at, begin.min(end)));
            }
            if run_end > end {
                high.push((begin.max(end), run_end));
            }
            at = run_end;
        }
        if at < end {
            free.push((at, end));
        }
        let sum = |runs: &[(u64, u64)]| {
            runs.iter()
                .fold(0u64, |sum, (begin, end)| sum.saturating_add(end - begin))
        };
        let (needed, room) = (sum(&high), sum(&free));
        if needed > room {
            return Err(NoRoom { needed, free: room });
        }
        let mut moves = Vec::new();
        let mut free = free.into_iter();
        let mut gap = (0, 0);
        for (mut from, run_end) in high {
            while from < run_end {
                if gap.0 >= gap.1 {
                    match free.next() {
                        Some(next) => gap = next,
                        None => return Err(NoRoom { needed, free: room }),
                    }
                }
                let length = (run_end - from).min(gap.1 - gap.0);
                moves.push(Move {
                    from,
                    to: gap.0,
                    length,
                });
                from += length;
                gap.0 += length;
            }
        }
        Ok(Self {
            moves,
            blocks: needed,
        })
    }

    /// The parts of a run where its blocks will be.
    pub fn moved(&self, run: &Run, mut part: impl FnMut(Run)) {
        let end = run.data.saturating_add(run.length);
        let mut at = run.data;
        let first = self.moves.partition_point(|m| m.from + m.length <= at);
        let mut moves = self.moves[first..]
            .iter()
            .take_while(|m| m.from < end)
            .peekable();
        while at < end {
            let (data, length) = match moves.peek() {
                Some(m) if m.from <= at => {
                    let m = *m;
                    moves.next();
                    (m.to + (at - m.from), (m.from + m.length).min(end) - at)
                }
                Some(m) => (at, m.from - at),
                None => (at, end - at),
            };
            part(Run {
                thin: run.thin.saturating_add(at - run.data),
                data,
                length,
                time: run.time,
            });
            at += length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(data: u64, length: u64) -> Run {
        Run {
            thin: 1000 + data,
            data,
            length,
            time: 3,
        }
    }

    fn used(runs: &[(u64, u64)]) -> Used {
        let mut used = Used::default();
        for &(data, length) in runs {
            used.add(&run(data, length));
        }
        used
    }

    #[test]
    fn what_lies_beyond_the_end_fills_the_gaps() {
        let plan = Plan::new(used(&[(18, 4), (0, 2), (4, 3), (12, 2), (4, 1)]), 13).unwrap();
        let expected = [(13, 2, 1), (18, 3, 1), (19, 7, 3)];
        let moves: Vec<_> = plan
            .moves
            .iter()
            .map(|m| (m.from, m.to, m.length))
            .collect();
        assert_eq!(moves, expected);
        assert_eq!(plan.blocks, 5);
        let mut parts = Vec::new();
        plan.moved(&run(12, 8), |part| {
            parts.push((part.thin, part.data, part.length))
        });
        assert_eq!(
            parts,
            [
                (1012, 12, 1),
                (1013, 2, 1),
                (1014, 14, 4),
                (1018, 3, 1),
                (1019, 7, 1)
            ]
        );
    }

    #[test]
    fn too_little_room_is_seen() {
        assert_eq!(
            Plan::new(used(&[(0, 3), (10, 3)]), 5),
            Err(NoRoom { needed: 3, free: 2 })
        );
        assert_eq!(Plan::new(used(&[(0, 5)]), 5), Ok(Plan::default()));
    }

    #[test]
    fn every_block_has_one_place() {
        let mut state = 1u64;
        let mut next = |below: u64| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        for _ in 0..300 {
            let mut all = [false; 100];
            let mut runs = Vec::new();
            for _ in 0..next(20) {
                let (data, length) = (next(95), 1 + next(5));
                runs.push((data, length));
                all[data as usize..(data + length) as usize].fill(true);
            }
            let end = 1 + next(100);
            let needed = all[end as usize..].iter().filter(|&&used| used).count();
            let free = all[..end as usize].iter().filter(|&&used| !used).count();
            match Plan::new(used(&runs), end) {
                Err(no) => {
                    assert!(needed > free);
                    assert_eq!((no.needed, no.free), (needed as u64, free as u64));
                }
                Ok(plan) => {
                    assert!(needed <= free);
                    let mut places = std::collections::BTreeMap::new();
                    for &(data, length) in &runs {
                        plan.moved(&run(data, length), |part| {
                            for at in 0..part.length {
                                let old = part.thin + at - 1000;
                                let place = part.data + at;
                                assert!(place < end);
                                assert_eq!(*places.entry(place).or_insert(old), old);
                                assert!(old == place || old >= end);
                            }
                        });
                    }
                    assert_eq!(places.len(), all.iter().filter(|&&used| used).count());
                }
            }
        }
    }
}
