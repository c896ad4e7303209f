// SPDX-License-Identifier: GPL-2.0
//! Space maps: how many references every data or metadata block has.
//!
//! Counts up to 2 are in bitmaps of 16320 entries; 3 there means that the count is in a tree of
//! counts. Where the bitmaps are is in a tree for the data device, and in a single index block for
//! the metadata device.

use crate::block::{BlockBytes, BlockKind};
use crate::btree;
use crate::checksum;
use crate::error::Result;
use crate::io::{self, Store};
use crate::records::{IndexEntry, SpaceMapRoot, BITMAP_ENTRIES, BITMAP_HEADER, INDEX_ENTRIES};
use std::ops::ControlFlow;

/// Blocks that one bitmap describes.
pub const PER_BITMAP: u64 = BITMAP_ENTRIES as u64;

/// Which of the two space maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// That of the data device.
    Data,
    /// That of the metadata device.
    Metadata,
}

/// How many bitmaps it takes to describe so many blocks.
pub fn bitmaps_for(blocks: u64) -> u64 {
    blocks.div_ceil(PER_BITMAP)
}

/// A verified bitmap, still in its block.
#[derive(Clone, Copy)]
pub struct Bitmap<'a> {
    bytes: &'a BlockBytes,
}

impl<'a> Bitmap<'a> {
    /// Verifies `bytes`, read from `block`, as a bitmap.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Block`].
    pub fn verify(block: u64, bytes: &'a BlockBytes) -> Result<Bitmap<'a>> {
        checksum::check(BlockKind::Bitmap, bytes, block)?;
        Ok(Bitmap { bytes })
    }

    /// All 16320 entries, as 64-bit words of 32 entries, the first in the lowest two bits. In each
    /// pair of bits the lower bit is the *high* bit of the entry.
    pub fn words(&self) -> impl ExactSizeIterator<Item = u64> + 'a {
        self.bytes
            .get(BITMAP_HEADER..)
            .unwrap_or_default()
            .chunks_exact(8)
            .map(|word| crate::block::u64_at(word, 0))
    }

    /// The entries in order.
    pub fn entries(&self) -> impl Iterator<Item = u8> + 'a {
        let bytes = self.bytes.get(BITMAP_HEADER..).unwrap_or_default();
        bytes.iter().flat_map(|byte| {
            [0, 2, 4, 6].map(|shift| {
                let pair = byte >> shift;
                (pair & 1) << 1 | (pair >> 1 & 1)
            })
        })
    }
}

/// The index of a space map: where its bitmaps are, in order of the blocks they describe.
///
/// Only as many entries as it takes for `root.blocks` are returned, and a gap in the data device's
/// tree is an entry with bitmap block 0. Memory: 16 bytes for each 16320 blocks.
///
/// # Errors
///
/// [`crate::Error::Read`] and [`crate::Error::Block`] for the index block or a node of the tree.
pub fn read_index(store: &dyn Store, which: Which, root: &SpaceMapRoot) -> Result<Vec<IndexEntry>> {
    let mut index = Vec::new();
    let count = bitmaps_for(root.blocks);
    match which {
        Which::Metadata => {
            let block = root.bitmap_root.0;
            let bytes = store.read_block(block)?;
            checksum::check(BlockKind::Index, &bytes, block)?;
            let count =
                u32::try_from(count).map_or(INDEX_ENTRIES, |count| count.min(INDEX_ENTRIES));
            index.extend((0..count).map(|entry| IndexEntry::read(&bytes, entry)));
        }
        Which::Data => {
            let nothing = IndexEntry::from_bytes([0; IndexEntry::BYTES]);
            // A tree cannot have more entries than fit into the metadata, whatever its keys are.
            let most = store.blocks().saturating_mul(252);
            let mut visit = |key, entry| {
                let place = usize::try_from(key).unwrap_or(usize::MAX);
                if key >= most {
                    return ControlFlow::Break(());
                }
                if index.len() < place {
                    index.resize(place, nothing);
                }
                index.push(entry);
                ControlFlow::Continue(())
            };
            btree::entries::<IndexEntry>(store, root.bitmap_root.0, 0, Some(count), &mut visit)?;
        }
    }
    Ok(index)
}

/// Reads the bitmaps that `index` names, with several threads, in order of location.
///
/// `visit` gets the thread's state, the bitmap's place in the index, and the verified bitmap or why
/// there is none.
pub fn read_bitmaps<S, M, V>(
    store: &dyn Store,
    index: &[IndexEntry],
    threads: usize,
    start: M,
    visit: V,
) -> Vec<S>
where
    S: Send,
    M: Fn() -> S + Sync,
    V: Fn(&mut S, u64, Result<Bitmap<'_>>) + Sync,
{
    let mut places: Vec<(u64, u64)> = (0..)
        .zip(index)
        .map(|(place, entry)| (entry.bitmap.0, place))
        .collect();
    places.sort_unstable();
    let mut blocks: Vec<u64> = places.iter().map(|(block, _)| *block).collect();
    blocks.dedup();
    io::read_blocks(store, &blocks, threads, start, |state, block, bytes| {
        let from = places.partition_point(|(other, _)| *other < block);
        for (_, place) in places
            .iter()
            .skip(from)
            .take_while(|(other, _)| *other == block)
        {
            let bitmap = match &bytes {
                Ok(bytes) => Bitmap::verify(block, bytes),
                Err(error) => Err(error.clone()),
            };
            visit(state, *place, bitmap);
        }
    })
}

/// Hands every maximal run of blocks below `root.blocks` without references to `visit` as (first,
/// length), ascending, until that breaks.
///
/// # Errors
///
/// As for [`read_index`], and for the bitmaps.
pub fn free_runs(
    store: &dyn Store,
    which: Which,
    root: &SpaceMapRoot,
    visit: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result {
    let index = read_index(store, which, root)?;
    let mut run = None;
    let mut block = 0u64;
    let bitmaps = io::read_together(store, index.iter().map(|entry| entry.bitmap.0));
    for (entry, bytes) in index.iter().zip(bitmaps) {
        let bytes = bytes?;
        let bitmap = Bitmap::verify(entry.bitmap.0, &bytes)?;
        let left = root.blocks.saturating_sub(block).min(PER_BITMAP);
        for count in bitmap.entries().take(left as usize) {
            match (count, run) {
                (0, None) => run = Some(block),
                (0, Some(_)) => {}
                (_, Some(first)) => {
                    if visit(first, block.saturating_sub(first)).is_break() {
                        return Ok(());
                    }
                    run = None;
                }
                (_, None) => {}
            }
            block = block.saturating_add(1);
        }
    }
    if let Some(first) = run.filter(|first| *first < block) {
        let _ = visit(first, block.saturating_sub(first));
    }
    Ok(())
}
