// SPDX-License-Identifier: GPL-2.0
//! Reference counts of very many blocks, in little memory, added to from several threads.
//!
//! Almost every block of a pool has a count of 0 or 1, and those that snapshots share a small one.
//! So counts are kept in chunks of 4096 blocks, each with the narrowest of 2, 8, 16 or 32 bits per
//! count that holds its greatest, and a chunk that nothing refers to takes no memory. Blocks are
//! mostly mapped in runs: adding a run to 2-bit counts is one addition for 32 blocks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Blocks in a chunk.
const CHUNK: usize = 4096;

/// 2-bit counts in a word.
const PER_WORD: usize = 32;

/// The lower bit of every 2-bit count of a word.
const LOW: u64 = 0x5555_5555_5555_5555;

/// Reference counts of the blocks `0..blocks`.
///
/// Memory: 24 bytes for each 4096 blocks, and for those of which any has a reference 1 KiB, or 4, 8
/// or 16 KiB if one has more than 3, 255 or 65535.
pub struct Counts {
    chunks: Vec<Mutex<Chunk>>,
    blocks: u64,
}

/// Adds references; see [`Counts::adder`].
pub struct Adder<'a> {
    counts: &'a Counts,
    /// The chunk that was added to last.
    held: Option<(usize, MutexGuard<'a, Chunk>)>,
}

impl Adder<'_> {
    /// Adds a reference to each of the `length` blocks from `first` on; those that do not exist are
    /// left out.
    pub fn add(&mut self, first: u64, length: u64) {
        let end = first.saturating_add(length).min(self.counts.blocks);
        let mut from = first;
        while from < end {
            let (index, offset) = split(from);
            let here = (CHUNK as u64)
                .saturating_sub(offset as u64)
                .min(end.saturating_sub(from));
            let to = offset.saturating_add(here as usize);
            match &mut self.held {
                Some((held, chunk)) if *held == index => chunk.add(offset, to),
                _ => {
                    // Never two at a time: threads that wait for each other's would wait forever.
                    self.held = None;
                    let Some(chunk) = self.counts.chunks.get(index) else {
                        return;
                    };
                    let mut chunk = lock(chunk);
                    chunk.add(offset, to);
                    self.held = Some((index, chunk));
                }
            }
            from = from.saturating_add(here);
        }
    }
}

impl Clone for Counts {
    fn clone(&self) -> Counts {
        let chunks = self
            .chunks
            .iter()
            .map(|chunk| Mutex::new(lock(chunk).clone()));
        Counts {
            chunks: chunks.collect(),
            blocks: self.blocks,
        }
    }
}

#[derive(Clone)]
enum Chunk {
    Zero,
    Two(Box<[u64; CHUNK / PER_WORD]>),
    Eight(Box<[u8; CHUNK]>),
    Sixteen(Box<[u16; CHUNK]>),
    Wide(Box<[u32; CHUNK]>),
}

impl Counts {
    /// Zero for each of `blocks` blocks.
    pub fn new(blocks: u64) -> Counts {
        let chunks = blocks.div_ceil(CHUNK as u64);
        Counts {
            chunks: (0..chunks).map(|_| Mutex::new(Chunk::Zero)).collect(),
            blocks,
        }
    }

    /// How many blocks there are counts for.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Adds a reference to each of the `length` blocks from `first` on; those that do not exist are
    /// left out.
    pub fn add(&self, first: u64, length: u64) {
        self.adder().add(first, length);
    }

    /// For adding many references, most of them near the ones before. It keeps other threads from
    /// the counts of the blocks around those added last, so the thread that has it must not use
    /// these counts in another way.
    pub fn adder(&self) -> Adder<'_> {
        Adder {
            counts: self,
            held: None,
        }
    }

    /// Sets the count of one block, if it exists.
    pub fn set(&self, block: u64, count: u32) {
        let (index, offset) = split(block);
        if let Some(chunk) = self.chunks.get(index).filter(|_| block < self.blocks) {
            lock(chunk).set(offset, count);
        }
    }

    /// The count of a block; 0 if it does not exist. Counts stop at `u32::MAX`.
    pub fn get(&self, block: u64) -> u32 {
        let (index, offset) = split(block);
        self.chunks
            .get(index)
            .map_or(0, |chunk| lock(chunk).get(offset))
    }

    /// The counts of the 32 blocks from `first` (a multiple of 32) on, each as 2 bits (3 for 3 and
    /// more), the first in the lowest bits.
    pub fn word(&self, first: u64) -> u64 {
        let (index, offset) = split(first);
        self.chunks
            .get(index)
            .map_or(0, |chunk| lock(chunk).word(offset))
    }

    /// How many blocks have a reference.
    pub fn used(&self) -> u64 {
        let used = self.chunks.iter().map(|chunk| lock(chunk).used());
        used.fold(0, u64::saturating_add)
    }

    /// How many blocks from `first` on have a reference.
    pub fn used_from(&self, first: u64) -> u64 {
        let mut used = 0u64;
        for block in first..self.blocks {
            used = used.saturating_add(u64::from(self.get(block) > 0));
        }
        used
    }

    /// Hands each block with a count of `least` (at least 1) or more to `visit`, ascending.
    ///
    /// `visit` must not use these counts.
    pub fn for_each(&self, least: u32, visit: &mut dyn FnMut(u64, u32)) {
        for (first, chunk) in (0..self.blocks).step_by(CHUNK).zip(&self.chunks) {
            let chunk = lock(chunk);
            let blocks = (first..self.blocks).zip(0..CHUNK);
            // Most chunks have nothing that is as much, and show it 32 at a time.
            let skipped = |at: usize| match &*chunk {
                Chunk::Zero => true,
                Chunk::Two(words) => {
                    let word = words.get(at / PER_WORD).copied().unwrap_or_default();
                    match least {
                        0 | 1 => word == 0,
                        2 => word & !LOW == 0,
                        3 => word & word >> 1 & LOW == 0,
                        _ => true,
                    }
                }
                _ => false,
            };
            if matches!(*chunk, Chunk::Zero) {
                continue;
            }
            let words = (0..CHUNK).step_by(PER_WORD).filter(|at| !skipped(*at));
            for word in words {
                for (block, offset) in blocks.clone().skip(word).take(PER_WORD) {
                    let count = chunk.get(offset);
                    if count >= least.max(1) {
                        visit(block, count);
                    }
                }
            }
        }
    }
}

/// The chunk that a block is in, and its place there.
fn split(block: u64) -> (usize, usize) {
    let chunk = usize::try_from(block / CHUNK as u64).unwrap_or(usize::MAX);
    (chunk, (block % CHUNK as u64) as usize)
}

fn lock(chunk: &Mutex<Chunk>) -> MutexGuard<'_, Chunk> {
    chunk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lower bits of the 2-bit counts `from..to` of a word.
fn low_bits(from: usize, to: usize) -> u64 {
    let below = |count: usize| match count {
        0..PER_WORD => (1u64 << (2 * count)).wrapping_sub(1),
        _ => u64::MAX,
    };
    LOW & below(to) & !below(from)
}

impl Chunk {
    fn add(&mut self, from: usize, to: usize) {
        let mut from = from;
        // Each round does what the present width allows, then widens.
        while from < to {
            match self {
                Chunk::Zero => *self = Chunk::Two(Box::new([0; CHUNK / PER_WORD])),
                Chunk::Two(words) => {
                    let first_word = from / PER_WORD;
                    for (index, word) in words.iter_mut().enumerate().skip(first_word) {
                        let start = index.saturating_mul(PER_WORD);
                        if start >= to {
                            return;
                        }
                        let mask = low_bits(
                            from.saturating_sub(start),
                            to.saturating_sub(start).min(PER_WORD),
                        );
                        if *word & (*word >> 1) & mask != 0 {
                            from = from.max(start);
                            break;
                        }
                        *word = word.wrapping_add(mask);
                        from = start.saturating_add(PER_WORD);
                    }
                    if from < to {
                        self.widen();
                    }
                }
                Chunk::Eight(counts) => match counts.get_mut(from..to) {
                    Some(counts) if counts.contains(&u8::MAX) => self.widen(),
                    Some(counts) => {
                        counts
                            .iter_mut()
                            .for_each(|count| *count = count.wrapping_add(1));
                        return;
                    }
                    None => return,
                },
                Chunk::Sixteen(counts) => match counts.get_mut(from..to) {
                    Some(counts) if counts.contains(&u16::MAX) => self.widen(),
                    Some(counts) => {
                        counts
                            .iter_mut()
                            .for_each(|count| *count = count.wrapping_add(1));
                        return;
                    }
                    None => return,
                },
                Chunk::Wide(counts) => {
                    let counts = counts.get_mut(from..to).unwrap_or_default();
                    counts
                        .iter_mut()
                        .for_each(|count| *count = count.saturating_add(1));
                    return;
                }
            }
        }
    }

    fn set(&mut self, at: usize, count: u32) {
        let fits = |chunk: &Chunk| match chunk {
            Chunk::Zero => count == 0,
            Chunk::Two(_) => count <= 3,
            Chunk::Eight(_) => count <= u32::from(u8::MAX),
            Chunk::Sixteen(_) => count <= u32::from(u16::MAX),
            Chunk::Wide(_) => true,
        };
        while !fits(self) {
            self.widen();
        }
        match self {
            Chunk::Zero => {}
            Chunk::Two(words) => {
                if let Some(word) = words.get_mut(at / PER_WORD) {
                    let shift = at % PER_WORD * 2;
                    *word = *word & !(3 << shift) | u64::from(count) << shift;
                }
            }
            Chunk::Eight(counts) => put(counts.as_mut_slice(), at, count as u8),
            Chunk::Sixteen(counts) => put(counts.as_mut_slice(), at, count as u16),
            Chunk::Wide(counts) => put(counts.as_mut_slice(), at, count),
        }
    }

    fn get(&self, at: usize) -> u32 {
        match self {
            Chunk::Zero => 0,
            Chunk::Two(words) => {
                let word = words.get(at / PER_WORD).copied().unwrap_or_default();
                (word >> (at % PER_WORD * 2)) as u32 & 3
            }
            Chunk::Eight(counts) => counts.get(at).copied().map_or(0, u32::from),
            Chunk::Sixteen(counts) => counts.get(at).copied().map_or(0, u32::from),
            Chunk::Wide(counts) => counts.get(at).copied().unwrap_or_default(),
        }
    }

    fn used(&self) -> u64 {
        let used = match self {
            Chunk::Zero => 0,
            Chunk::Two(words) => {
                let in_word = |word: &u64| ((word | word >> 1) & LOW).count_ones() as usize;
                words.iter().map(in_word).sum()
            }
            Chunk::Eight(counts) => counts.iter().filter(|count| **count > 0).count(),
            Chunk::Sixteen(counts) => counts.iter().filter(|count| **count > 0).count(),
            Chunk::Wide(counts) => counts.iter().filter(|count| **count > 0).count(),
        };
        used as u64
    }

    fn word(&self, at: usize) -> u64 {
        match self {
            Chunk::Zero => 0,
            Chunk::Two(words) => words.get(at / PER_WORD).copied().unwrap_or_default(),
            _ => (0..PER_WORD).fold(0, |word, place| {
                let count = self.get(at.saturating_add(place)).min(3);
                word | u64::from(count) << (2 * place)
            }),
        }
    }

    fn widen(&mut self) {
        let from = &*self;
        let wider = match from {
            Chunk::Zero => Chunk::Two(Box::new([0; CHUNK / PER_WORD])),
            Chunk::Two(_) => Chunk::Eight(copied(|at| from.get(at) as u8)),
            Chunk::Eight(_) => Chunk::Sixteen(copied(|at| from.get(at) as u16)),
            Chunk::Sixteen(_) | Chunk::Wide(_) => Chunk::Wide(copied(|at| from.get(at))),
        };
        *self = wider;
    }
}

fn put<T>(counts: &mut [T], at: usize, count: T) {
    if let Some(place) = counts.get_mut(at) {
        *place = count;
    }
}

fn copied<T: Copy + Default>(get: impl Fn(usize) -> T) -> Box<[T; CHUNK]> {
    let mut counts = Box::new([T::default(); CHUNK]);
    for (at, count) in counts.iter_mut().enumerate() {
        *count = get(at);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_like_an_array_does() {
        let blocks = 3 * CHUNK as u64 + 100;
        let counts = Counts::new(blocks);
        let mut model = vec![0u32; blocks as usize];
        let mut state = 7u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for round in 0..3000 {
            // Some blocks become very popular, so that every width is used.
            let (first, length) = match round % 3 {
                0 => (random(blocks), random(300)),
                1 => (random(50), random(5)),
                _ => (5000, 2),
            };
            let repeat = if round % 97 == 0 { 300 } else { 1 };
            for _ in 0..repeat {
                counts.add(first, length);
                model
                    .iter_mut()
                    .skip(first as usize)
                    .take(length as usize)
                    .for_each(|count| *count += 1);
            }
        }
        counts.set(9000, 70_000);
        counts.add(9000, 1);
        model[9000] = 70_001;
        for (block, count) in model.iter().enumerate() {
            assert_eq!(counts.get(block as u64), *count, "block {block}");
        }
        for first in (0..blocks).step_by(PER_WORD) {
            let word = counts.word(first);
            for place in 0..PER_WORD {
                let expected = model
                    .get(first as usize + place)
                    .map_or(0, |count| (*count).min(3));
                assert_eq!((word >> (2 * place)) as u32 & 3, expected);
            }
        }
        for least in 1..6 {
            let mut seen = Vec::new();
            counts.for_each(least, &mut |block, count| seen.push((block, count)));
            let expected = (0..).zip(&model).filter(|(_, count)| **count >= least);
            let expected: Vec<_> = expected.map(|(block, count)| (block, *count)).collect();
            assert_eq!(seen, expected);
        }
        let used = model.iter().filter(|count| **count > 0).count();
        assert_eq!(counts.used(), used as u64);
    }
}
