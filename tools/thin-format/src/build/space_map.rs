// SPDX-License-Identifier: GPL-2.0
//! Space maps: bitmaps, the tree of large counts, and the index.

use crate::block::BlockBytes;
use crate::block::BlockKind;
use crate::error::Result;
use crate::records::units::MetadataBlock;
use crate::records::IndexEntry;
use crate::records::SpaceMapRoot;

use super::counts::BitmapSummary;
use super::counts::Counts;
use super::counts::BITMAP_ENTRIES;
use super::pack;
use super::pack::Packer;
use super::Allocated;

fn entry(bitmap: u64, summary: BitmapSummary) -> IndexEntry {
    IndexEntry {
        bitmap: MetadataBlock(bitmap),
        free: summary.nr_free,
        none_free_before: summary.none_free_before,
    }
}

fn root(counts: &Counts, bitmap_root: u64, reference_count_root: u64) -> SpaceMapRoot {
    SpaceMapRoot {
        blocks: counts.nr_blocks(),
        allocated: counts.nr_counted(),
        bitmap_root: MetadataBlock(bitmap_root),
        reference_count_root: MetadataBlock(reference_count_root),
    }
}

/// Writes the bitmaps of `counts` and returns their index entries.
fn write_bitmaps(
    out: &mut Allocated<'_>,
    counts: &Counts,
    bitmaps: u64,
) -> Result<Vec<IndexEntry>> {
    let mut entries = Vec::new();
    for index in 0..bitmaps {
        let mut summary = BitmapSummary {
            nr_free: 0,
            none_free_before: 0,
        };
        let block = out.put(BlockKind::Bitmap, |block| {
            summary = counts.fill(index, block)
        })?;
        entries.push(entry(block, summary));
    }
    Ok(entries)
}

/// Writes the space map of the data device: its index is a tree.
pub(super) fn write_data(out: &mut Allocated<'_>, counts: &Counts) -> Result<SpaceMapRoot> {
    let entries = write_bitmaps(out, counts, counts.nr_bitmaps())?;
    let ref_count_root = pack::large_counts(out, counts)?;
    let mut index = Packer::<[u8; IndexEntry::BYTES]>::new(true);
    for (key, entry) in (0..).zip(entries) {
        index.push(out, key, entry.to_bytes())?;
    }
    let index = index.finish(out)?;
    let bitmap_root = pack::internal_levels(out, index)?.block;
    Ok(root(counts, bitmap_root, ref_count_root))
}

/// How many blocks the space map of `nr_blocks` metadata blocks takes.
fn metadata_map_blocks(nr_blocks: u64, nr_large: u64) -> u64 {
    let index = 1;
    nr_blocks.div_ceil(BITMAP_ENTRIES) + pack::tree_blocks::<u32>(nr_large) + index
}

fn nr_large(counts: &[u32]) -> u64 {
    counts.iter().filter(|count| **count > 2).count() as u64
}

/// The fewest blocks that metadata can have whose first `used` blocks are used before their space map is written.
pub(super) fn fewest_blocks(used: u64, counts: &[u32]) -> u64 {
    let nr_large = nr_large(counts);
    let mut blocks = used;
    loop {
        let needed = used.saturating_add(metadata_map_blocks(blocks, nr_large));
        if needed <= blocks {
            return blocks;
        }
        blocks = needed;
    }
}

/// The fewest blocks that metadata can have, given how many are used when their space map describes `described` blocks.
pub(super) fn fewest_blocks_behind(used: u64, described: u64) -> u64 {
    let without_bitmaps = used.saturating_sub(described.div_ceil(BITMAP_ENTRIES));
    let mut blocks = without_bitmaps;
    loop {
        let needed = without_bitmaps.saturating_add(blocks.div_ceil(BITMAP_ENTRIES));
        if needed <= blocks {
            return blocks;
        }
        blocks = needed;
    }
}

/// Writes the space map of the metadata themselves, which describes its own blocks too. Nothing can be allocated
/// after that.
pub(super) fn write_metadata(out: &mut Allocated<'_>, nr_blocks: u64) -> Result<SpaceMapRoot> {
    let mut counts = Counts::new(nr_blocks);
    for (block, count) in (0..).zip(&out.counts) {
        for _ in 0..*count {
            counts.increment(block);
        }
    }
    let first = out.writer.next();
    let own = metadata_map_blocks(nr_blocks, counts.large().len() as u64);
    counts.increment_range(first, own);
    let entries = write_bitmaps(out, &counts, counts.nr_bitmaps())?;
    let ref_count_root = pack::large_counts(out, &counts)?;
    let bitmap_root = out.put(BlockKind::Index, |block| write_index(block, &entries))?;
    Ok(root(&counts, bitmap_root, ref_count_root))
}

fn write_index(block: &mut BlockBytes, entries: &[IndexEntry]) {
    for (index, entry) in (0..).zip(entries) {
        entry.write(block, index);
    }
}
