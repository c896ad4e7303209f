// SPDX-License-Identifier: GPL-2.0
//! Reference counts as they lie on disk: two bits each in bitmaps, larger ones aside.

use std::collections::BTreeMap;

use crate::block::BLOCK_SIZE;
use crate::records::BITMAP_HEADER;

/// Bytes of counts in a bitmap.
const BITMAP_BYTES: usize = BLOCK_SIZE - BITMAP_HEADER;

/// Counts in a bitmap.
pub(super) const BITMAP_ENTRIES: u64 = BITMAP_BYTES as u64 * 4;

/// Four counts of 1 in a byte. The lower of a count's two bits is the upper bit of its value.
const FOUR_ONES: u8 = 0b1010_1010;

/// Reference counts of all blocks of a device. Memory is used for the regions that have counts only.
pub(super) struct Counts {
    nr_blocks: u64,
    nr_counted: u64,
    bitmaps: Vec<Option<Box<Bitmap>>>,
    /// Counts above 2, by block.
    large: BTreeMap<u64, u32>,
}

#[derive(Clone)]
struct Bitmap {
    bytes: [u8; BITMAP_BYTES],
    nr_counted: u32,
}

/// What an index says about a bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BitmapSummary {
    /// Counts in the bitmap that are 0, those behind the end of the device included: so the kernel counts them.
    pub(super) nr_free: u32,
    /// The first count that is 0, or the number of counts if there is none.
    pub(super) none_free_before: u32,
}

/// The two bits on disk and the value: their order is reversed.
const fn swapped(bits: u8) -> u8 {
    (bits & 1) << 1 | bits >> 1 & 1
}

impl Counts {
    /// Counts that are all 0.
    pub(super) fn new(nr_blocks: u64) -> Counts {
        let nr_bitmaps = nr_blocks.div_ceil(BITMAP_ENTRIES);
        let bitmaps = vec![None; usize::try_from(nr_bitmaps).unwrap_or(0)];
        Counts {
            nr_blocks,
            nr_counted: 0,
            bitmaps,
            large: BTreeMap::new(),
        }
    }

    /// How many blocks have a count.
    pub(super) fn nr_blocks(&self) -> u64 {
        self.nr_blocks
    }

    /// How many blocks have a count other than 0.
    pub(super) fn nr_counted(&self) -> u64 {
        self.nr_counted
    }

    /// The counts above 2, which bitmaps have no room for, by block.
    pub(super) fn large(&self) -> &BTreeMap<u64, u32> {
        &self.large
    }

    /// How many bitmaps the counts take.
    pub(super) fn nr_bitmaps(&self) -> u64 {
        self.bitmaps.len() as u64
    }

    /// Counts one more reference to `block`. Returns `false` if there is no such block.
    pub(super) fn increment(&mut self, block: u64) -> bool {
        if block >= self.nr_blocks {
            return false;
        }
        let Some((bitmap, entry)) = self.entry(block) else {
            return false;
        };
        let shift = entry % 4 * 2;
        let Some(byte) = bitmap.bytes.get_mut(entry / 4) else {
            return false;
        };
        match swapped(*byte >> shift & 3) {
            0 => {
                *byte |= swapped(1) << shift;
                bitmap.nr_counted += 1;
                self.nr_counted += 1;
            }
            1 => *byte ^= 3 << shift,
            2 => {
                *byte |= 3 << shift;
                self.large.insert(block, 3);
            }
            _ => {
                let count = self.large.entry(block).or_insert(3);
                *count = count.saturating_add(1);
            }
        }
        true
    }

    /// Counts one more reference to each of `length` blocks. Returns `false` if not all are there.
    pub(super) fn increment_range(&mut self, begin: u64, length: u64) -> bool {
        let Some(end) = begin
            .checked_add(length)
            .filter(|&end| end <= self.nr_blocks)
        else {
            return false;
        };
        let mut block = begin;
        while block < end {
            // Four blocks at once wherever nobody has counted yet: that is the rule.
            if block % 4 == 0 && end - block >= 4 {
                if let Some((bitmap, entry)) = self.entry(block) {
                    if let Some(byte @ 0) = bitmap.bytes.get_mut(entry / 4) {
                        *byte = FOUR_ONES;
                        bitmap.nr_counted += 4;
                        self.nr_counted += 4;
                        block += 4;
                        continue;
                    }
                }
            }
            self.increment(block);
            block += 1;
        }
        true
    }

    /// Takes one reference to `block` back. Returns `false` if there is none.
    pub(super) fn decrement(&mut self, block: u64) -> bool {
        if block >= self.nr_blocks {
            return false;
        }
        if let Some(count) = self.large.get_mut(&block) {
            *count -= 1;
            if *count > 2 {
                return true;
            }
            self.large.remove(&block);
        }
        let Some((bitmap, entry)) = self.entry(block) else {
            return false;
        };
        let shift = entry % 4 * 2;
        let Some(byte) = bitmap.bytes.get_mut(entry / 4) else {
            return false;
        };
        match swapped(*byte >> shift & 3) {
            0 => return false,
            1 => {
                *byte &= !(3 << shift);
                bitmap.nr_counted -= 1;
                self.nr_counted -= 1;
            }
            2 => *byte ^= 3 << shift,
            _ => *byte = *byte & !(3 << shift) | swapped(2) << shift,
        }
        true
    }

    /// The count of `block`.
    #[cfg(test)]
    fn get(&self, block: u64) -> u32 {
        let index = usize::try_from(block / BITMAP_ENTRIES).unwrap_or(usize::MAX);
        let entry = (block % BITMAP_ENTRIES) as usize;
        let Some(Some(bitmap)) = self.bitmaps.get(index) else {
            return 0;
        };
        match swapped(bitmap.bytes.get(entry / 4).copied().unwrap_or(0) >> (entry % 4 * 2) & 3) {
            3 => self.large.get(&block).copied().unwrap_or(3),
            count => count.into(),
        }
    }

    /// Puts the counts of bitmap `index` behind the header in `block` and says what its index entry has to say.
    pub(super) fn fill(&self, index: u64, block: &mut [u8; BLOCK_SIZE]) -> BitmapSummary {
        let entries = BITMAP_ENTRIES as u32;
        let bitmap = usize::try_from(index)
            .ok()
            .and_then(|index| self.bitmaps.get(index))
            .and_then(Option::as_ref);
        let counts = block.get_mut(BITMAP_HEADER..).unwrap_or_default();
        let Some(bitmap) = bitmap else {
            counts.fill(0);
            return BitmapSummary {
                nr_free: entries,
                none_free_before: 0,
            };
        };
        counts.copy_from_slice(&bitmap.bytes);
        BitmapSummary {
            nr_free: entries.saturating_sub(bitmap.nr_counted),
            none_free_before: bitmap.first_free().unwrap_or(entries),
        }
    }

    fn entry(&mut self, block: u64) -> Option<(&mut Bitmap, usize)> {
        let index = usize::try_from(block / BITMAP_ENTRIES).ok()?;
        let bitmap = self.bitmaps.get_mut(index)?.get_or_insert_with(|| {
            Box::new(Bitmap {
                bytes: [0; BITMAP_BYTES],
                nr_counted: 0,
            })
        });
        Some((bitmap, (block % BITMAP_ENTRIES) as usize))
    }
}

impl Bitmap {
    fn first_free(&self) -> Option<u32> {
        let byte = self
            .bytes
            .iter()
            .position(|byte| (byte | byte >> 1) & 0b0101_0101 != 0b0101_0101)?;
        let entry = (0..4).find(|entry| {
            self.bytes
                .get(byte)
                .is_some_and(|byte| byte >> (entry * 2) & 3 == 0)
        })?;
        u32::try_from(byte * 4 + entry).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(state: &mut u64) -> u64 {
        *state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        *state >> 33
    }

    #[test]
    fn agrees_with_a_plain_array() {
        let seed = std::env::var("DM_THIN_RS_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or(1u64);
        println!("DM_THIN_RS_SEED={seed}");
        let mut state = seed;
        let nr_blocks = BITMAP_ENTRIES + 37;
        let mut counts = Counts::new(nr_blocks);
        let mut model = vec![0u32; nr_blocks as usize];
        for _ in 0..20_000 {
            let block = nr_blocks - 1 - random(&mut state) % 90;
            match random(&mut state) % 3 {
                0 => {
                    let length = random(&mut state) % 20;
                    let fits = block + length <= nr_blocks;
                    assert_eq!(counts.increment_range(block, length), fits);
                    if fits {
                        model[block as usize..(block + length) as usize]
                            .iter_mut()
                            .for_each(|count| *count += 1);
                    }
                }
                1 => {
                    assert!(counts.increment(block));
                    model[block as usize] += 1;
                }
                _ => {
                    for _ in 0..8 {
                        let block = nr_blocks - 1 - random(&mut state) % 90;
                        assert_eq!(counts.decrement(block), model[block as usize] > 0);
                        model[block as usize] = model[block as usize].saturating_sub(1);
                    }
                }
            }
        }
        for (block, count) in model.iter().enumerate() {
            assert_eq!(counts.get(block as u64), *count, "block {block}");
        }
        assert_eq!(
            counts.nr_counted(),
            model.iter().filter(|count| **count > 0).count() as u64
        );
        assert_eq!(
            counts.large().len(),
            model.iter().filter(|count| **count > 2).count()
        );
        for index in 0..2 {
            let mut block = [0; BLOCK_SIZE];
            let summary = counts.fill(index, &mut block);
            let first = (index * BITMAP_ENTRIES) as usize;
            let part = &model[first..model.len().min(first + BITMAP_ENTRIES as usize)];
            let used = part.iter().filter(|count| **count > 0).count() as u32;
            assert_eq!(summary.nr_free, BITMAP_ENTRIES as u32 - used);
            let first_free = part
                .iter()
                .position(|count| *count == 0)
                .unwrap_or(part.len());
            assert_eq!(summary.none_free_before, first_free as u32);
        }
    }

    #[test]
    fn bits_are_in_the_order_of_the_format() {
        let mut counts = Counts::new(100);
        for (block, count) in [(0, 1), (1, 2), (2, 3), (32, 1)] {
            for _ in 0..count {
                counts.increment(block);
            }
        }
        let mut block = [0; BLOCK_SIZE];
        counts.fill(0, &mut block);
        let word = u64::from_le_bytes(*block[16..].first_chunk().unwrap());
        assert_eq!(word, 0b11_01_10);
        assert_eq!(block[24], 0b10);
    }

    #[test]
    fn blocks_that_are_not_there_are_refused() {
        let mut counts = Counts::new(10);
        assert!(!counts.increment(10));
        assert!(!counts.increment_range(9, 2));
        assert!(!counts.increment_range(u64::MAX, 2));
        assert!(!counts.decrement(3));
        assert_eq!(counts.get(u64::MAX), 0);
        assert!(!Counts::new(0).increment(0));
    }
}
