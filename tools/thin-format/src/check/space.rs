// SPDX-License-Identifier: GPL-2.0
//! Comparing a space map with the references that were counted.

use super::finding::{some, Code, Findings};
use super::Watch;
use crate::block::BlockKind;
use crate::btree::Value;
use crate::checksum;
use crate::counts::Counts;
use crate::error::{Error, Fault};
use crate::forest::{Forest, Use};
use crate::io::Store;
use crate::records::{IndexEntry, SpaceMapRoot, INDEX_ENTRIES};
use crate::space_map::{self, bitmaps_for, Bitmap, Which, PER_BITMAP};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The lower bit of each pair of bits.
const LOW: u64 = 0x5555_5555_5555_5555;

/// A block whose count is wrong.
#[derive(Clone, Copy)]
struct Wrong {
    block: u64,
    expected: u32,
    actual: u32,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (expected {}, actual {})",
            self.block, self.expected, self.actual
        )
    }
}

/// How counts compare, of a part of the blocks.
#[derive(Default)]
struct Tally {
    low: u64,
    high: u64,
    leaked: u64,
    low_examples: Vec<Wrong>,
    high_examples: Vec<Wrong>,
    leak_examples: Vec<Wrong>,
    allocated: u64,
    contradictions: u64,
    beyond_end: u64,
    hints: u64,
    /// Wrong by just one block.
    hints_by_one: u64,
    unreadable: u64,
    errors: Vec<Error>,
}

/// Examples that are kept of each kind.
const EXAMPLES: usize = 8;

impl Tally {
    fn compare(&mut self, block: u64, expected: u32, actual: u32) {
        let (count, examples) = match () {
            () if actual == expected => return,
            () if actual < expected => (&mut self.low, &mut self.low_examples),
            () if expected == 0 => (&mut self.leaked, &mut self.leak_examples),
            () => (&mut self.high, &mut self.high_examples),
        };
        *count = count.saturating_add(1);
        if examples.len() < EXAMPLES {
            examples.push(Wrong {
                block,
                expected,
                actual,
            });
        }
    }

    fn unreadable(&mut self, error: Error) {
        self.unreadable = self.unreadable.saturating_add(1);
        if self.errors.len() < EXAMPLES {
            self.errors.push(error);
        }
    }

    fn merge(&mut self, other: Tally) {
        fn add(to: &mut u64, more: u64) {
            *to = to.saturating_add(more);
        }
        add(&mut self.low, other.low);
        add(&mut self.high, other.high);
        add(&mut self.leaked, other.leaked);
        add(&mut self.allocated, other.allocated);
        add(&mut self.contradictions, other.contradictions);
        add(&mut self.beyond_end, other.beyond_end);
        add(&mut self.hints, other.hints);
        add(&mut self.hints_by_one, other.hints_by_one);
        add(&mut self.unreadable, other.unreadable);
        self.low_examples.extend(other.low_examples);
        self.high_examples.extend(other.high_examples);
        self.leak_examples.extend(other.leak_examples);
        self.errors.extend(other.errors);
    }
}

/// A space map whose structure has been read, but not its bitmaps.
pub(super) struct SpaceMap {
    which: Which,
    root: SpaceMapRoot,
    index: Vec<IndexEntry>,
    /// How many large counts the tree has for the blocks of each bitmap.
    large: Vec<AtomicU32>,
    tally: Tally,
    /// The large counts of the metadata's own space map, which has to be complete before it can be
    /// compared.
    later: Option<Counts>,
}

impl SpaceMap {
    /// Reads the index and the tree of large counts. Those of the data device are compared with
    /// `expected` at once.
    pub(super) fn read(
        forest: &mut Forest<'_>,
        store: &dyn Store,
        which: Which,
        root: SpaceMapRoot,
        expected: Option<&Counts>,
        advance: &(dyn Fn(u64) + Sync),
    ) -> SpaceMap {
        // What does not fit into the metadata was reported, and is not worth memory.
        let bitmaps = bitmaps_for(root.blocks).min(store.blocks());
        let mut map = SpaceMap {
            which,
            root,
            index: Vec::new(),
            large: (0..bitmaps).map(|_| AtomicU32::new(0)).collect(),
            tally: Tally::default(),
            later: expected
                .is_none()
                .then(|| Counts::new(forest.counts().blocks())),
        };
        map.read_index(forest, store, bitmaps, advance);
        map.read_large(forest, expected, advance);
        forest.sum_up();
        let (errors, count) = forest.take_errors();
        map.tally.unreadable = map.tally.unreadable.saturating_add(count);
        map.tally.errors.extend(errors.into_iter().take(EXAMPLES));
        let used_as = match which {
            Which::Data => Use::DataBitmap,
            Which::Metadata => Use::MetadataBitmap,
        };
        for entry in &map.index {
            let block = entry.bitmap.0;
            let referred = match forest.refer(used_as, block) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Fault::Crossed),
                Err(fault) => Err(fault),
            };
            if let Err(fault) = referred {
                map.tally
                    .unreadable(Error::block(block, BlockKind::Bitmap, fault));
            }
        }
        map
    }

    fn read_index(
        &mut self,
        forest: &mut Forest<'_>,
        store: &dyn Store,
        bitmaps: u64,
        advance: &(dyn Fn(u64) + Sync),
    ) {
        let root = self.root.bitmap_root.0;
        match self.which {
            Which::Metadata => {
                let referred = forest
                    .refer(Use::MetadataIndex, root)
                    .map_err(|fault| Error::block(root, BlockKind::Index, fault));
                let read = referred
                    .and_then(|_| store.read_block(root))
                    .and_then(|bytes| {
                        checksum::check(BlockKind::Index, &bytes, root)?;
                        Ok(bytes)
                    });
                match read {
                    Ok(bytes) => {
                        let count = u32::try_from(bitmaps)
                            .map_or(INDEX_ENTRIES, |count| count.min(INDEX_ENTRIES));
                        self.index
                            .extend((0..count).map(|entry| IndexEntry::read(&bytes, entry)));
                    }
                    Err(error) => self.tally.unreadable(error),
                }
            }
            Which::Data => {
                let leaf =
                    |entries: &mut Vec<(u64, IndexEntry)>, _, node: crate::btree::Node<'_>| {
                        entries.extend(node.entries::<IndexEntry>());
                        true
                    };
                let read = forest.read(
                    Use::DataIndex,
                    IndexEntry::BYTES as u32,
                    &[root],
                    advance,
                    Vec::new,
                    leaf,
                );
                let mut entries: Vec<_> = read.into_iter().flatten().collect();
                entries.sort_unstable_by_key(|(place, _)| *place);
                for (place, entry) in entries {
                    // Entries beyond the end are left over from nothing the kernel does; they
                    // describe nothing.
                    if place >= bitmaps {
                        self.tally.beyond_end = self.tally.beyond_end.saturating_add(1);
                    } else if place == self.index.len() as u64 {
                        self.index.push(entry);
                    } else {
                        self.tally.contradictions = self.tally.contradictions.saturating_add(1);
                    }
                }
                if (self.index.len() as u64) < bitmaps {
                    let missing = bitmaps.saturating_sub(self.index.len() as u64);
                    self.tally.contradictions = self.tally.contradictions.saturating_add(missing);
                }
            }
        }
    }

    fn read_large(
        &mut self,
        forest: &mut Forest<'_>,
        expected: Option<&Counts>,
        advance: &(dyn Fn(u64) + Sync),
    ) {
        let used_as = match self.which {
            Which::Data => Use::DataCounts,
            Which::Metadata => Use::MetadataCounts,
        };
        let root = self.root.reference_count_root.0;
        let (blocks, large, later) = (self.root.blocks, &self.large, &self.later);
        let leaf = |tally: &mut Tally, _, node: crate::btree::Node<'_>| {
            for (block, count) in node.entries::<u32>() {
                let place = usize::try_from(block / PER_BITMAP).unwrap_or(usize::MAX);
                if block >= blocks {
                    tally.beyond_end = tally.beyond_end.saturating_add(1);
                } else if let Some(large) = large.get(place) {
                    large.fetch_add(1, Relaxed);
                }
                if let Some(expected) = expected.filter(|_| block < blocks) {
                    tally.compare(block, expected.get(block), count);
                }
                if let Some(later) = later {
                    later.set(block, count);
                }
            }
            true
        };
        let read = forest.read(used_as, u32::BYTES, &[root], advance, Tally::default, leaf);
        read.into_iter().for_each(|tally| self.tally.merge(tally));
    }

    /// Reads the bitmaps, compares everything with `expected`, and reports.
    pub(super) fn compare(
        mut self,
        store: &dyn Store,
        expected: &Counts,
        threads: usize,
        watch: &dyn Watch,
        findings: &mut Findings,
    ) {
        if let Some(later) = self.later.take() {
            let blocks = self.root.blocks;
            later.for_each(1, &mut |block, count| {
                if block < blocks {
                    self.tally.compare(block, expected.get(block), count);
                }
            });
        }
        let map = &self;
        let tallies = space_map::read_bitmaps(
            store,
            &self.index,
            threads,
            Tally::default,
            |tally, place, bitmap| {
                watch.advance(1);
                match bitmap {
                    Ok(bitmap) => map.compare_bitmap(tally, expected, place, bitmap),
                    Err(error) => tally.unreadable(error),
                }
            },
        );
        tallies
            .into_iter()
            .for_each(|tally| self.tally.merge(tally));
        self.report(findings);
    }

    fn compare_bitmap(&self, tally: &mut Tally, expected: &Counts, place: u64, bitmap: Bitmap<'_>) {
        let start = place.saturating_mul(PER_BITMAP);
        let length = self.root.blocks.saturating_sub(start).min(PER_BITMAP);
        let (mut used, mut many, mut first_free) = (0u64, 0u32, None);
        for (offset, word) in (0u64..).step_by(32).zip(bitmap.words()) {
            // The two bits of a count are the other way round on disk.
            let word = (word & LOW) << 1 | (word >> 1) & LOW;
            let inside = match length.saturating_sub(offset) {
                0 => 0,
                left @ 1..32 => (1u64 << (2 * left)).wrapping_sub(1),
                _ => u64::MAX,
            };
            if word & !inside != 0 {
                tally.beyond_end = tally.beyond_end.saturating_add(1);
            }
            let word = word & inside;
            let in_use = (word | word >> 1) & LOW;
            used = used.saturating_add(in_use.count_ones().into());
            many = many.saturating_add((word & word >> 1 & LOW).count_ones());
            let free = !in_use & LOW & inside;
            if first_free.is_none() && free != 0 {
                first_free = Some(offset.saturating_add(u64::from(free.trailing_zeros() / 2)));
            }
            let block = start.saturating_add(offset);
            let want = expected.word(block) & inside;
            if word == want {
                continue;
            }
            for (block, shift) in (block..).zip((0..64).step_by(2)) {
                let actual = (word >> shift) as u32 & 3;
                // For 3 the tree has the count, and was compared.
                if actual < 3 && word >> shift & 3 != want >> shift & 3 {
                    tally.compare(block, expected.get(block), actual);
                }
            }
        }
        tally.allocated = tally.allocated.saturating_add(used);
        let Ok(at) = usize::try_from(place) else {
            return;
        };
        let in_tree = self.large.get(at).map_or(0, |large| large.load(Relaxed));
        if in_tree != many {
            tally.contradictions = tally
                .contradictions
                .saturating_add(in_tree.abs_diff(many).into());
        }
        let Some(entry) = self.index.get(at) else {
            return;
        };
        let free = u64::from(entry.free);
        // The kernel counts the entries beyond the end as free, the tools do not.
        let wrong = |total: u64| free.abs_diff(total.saturating_sub(used));
        let wrong = wrong(PER_BITMAP).min(wrong(length));
        let hidden = first_free.is_some_and(|first| u64::from(entry.none_free_before) > first);
        if wrong == 1 && !hidden {
            tally.hints_by_one = tally.hints_by_one.saturating_add(1);
        } else if wrong != 0 || hidden {
            tally.hints = tally.hints.saturating_add(1);
        }
    }

    fn report(self, findings: &mut Findings) {
        let (name, blocks) = match self.which {
            Which::Data => ("data space map", "data blocks"),
            Which::Metadata => ("metadata space map", "metadata blocks"),
        };
        let tally = self.tally;
        let says = self.root.allocated;
        // Some versions of thin_restore counted one block of the metadata twice, which nobody ever
        // minded.
        let counted_twice = self.which == Which::Metadata
            && says == tally.allocated.saturating_add(1)
            && (tally.hints, tally.hints_by_one) == (0, 1);
        let hints = match counted_twice {
            true => 0,
            false => tally.hints.saturating_add(tally.hints_by_one),
        };
        let mut add = |code, count: u64, text: String| {
            if count > 0 {
                findings.add(code, count, None, format!("{name}: {text}"));
            }
        };
        add(
            Code::SpaceMapNodes,
            tally.unreadable,
            format!(
                "{} blocks of it cannot be used: {}",
                tally.unreadable,
                some(&tally.errors, tally.unreadable)
            ),
        );
        add(
            Code::CountsTooLow,
            tally.low,
            format!(
                "{} {blocks} have bad reference counts, too low: {}",
                tally.low,
                some(&tally.low_examples, tally.low)
            ),
        );
        add(
            Code::CountsTooHigh,
            tally.high,
            format!(
                "{} {blocks} have bad reference counts, too high: {}",
                tally.high,
                some(&tally.high_examples, tally.high)
            ),
        );
        add(
            Code::Leaked,
            tally.leaked,
            format!(
                "{} {blocks} have leaked: {}",
                tally.leaked,
                some(
                    tally.leak_examples.iter().map(|wrong| wrong.block),
                    tally.leaked
                )
            ),
        );
        add(
            Code::CountsContradict,
            tally.contradictions,
            format!(
                "bitmaps, their index and the tree of large counts contradict each other in {} places",
                tally.contradictions
            ),
        );
        add(
            Code::FreeHints,
            hints,
            format!("{hints} bitmaps have wrong numbers of free blocks"),
        );
        add(
            Code::BeyondEnd,
            tally.beyond_end,
            format!("{} counts are for blocks beyond the end", tally.beyond_end),
        );
        // Without all bitmaps the sum says nothing.
        if tally.unreadable == 0 && says != tally.allocated && !counted_twice {
            add(
                Code::AllocatedTotal,
                1,
                format!(
                    "its total says that {says} {blocks} are in use, but there are {}",
                    tally.allocated
                ),
            );
        }
    }
}
