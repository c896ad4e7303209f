// SPDX-License-Identifier: GPL-2.0
//! Metadata blocks and the aligned memory they are read into.

use std::fmt;

/// Bytes in a metadata block.
pub const BLOCK_SIZE: usize = 4096;

/// Bytes in a metadata block, for arithmetic on positions.
pub const BLOCK_BYTES: u64 = 4096;

/// The bytes of one metadata block.
pub type BlockBytes = crate::records::Block;

pub use crate::records::{BlockKind, MAX_METADATA_BLOCKS};

impl fmt::Display for BlockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BlockKind::Superblock => "superblock",
            BlockKind::Node => "btree node",
            BlockKind::Bitmap => "space map bitmap",
            BlockKind::Index => "space map index",
        })
    }
}

/// Memory for a run of metadata blocks, aligned as direct I/O needs it.
///
/// # Invariants
///
/// `memory[start..start + length]` exists, starts at a multiple of [`BLOCK_SIZE`] in memory, and
/// `length` is a multiple of [`BLOCK_SIZE`].
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Buffer {
    /// A buffer of `blocks` zeroed blocks.
    pub fn new(blocks: usize) -> Buffer {
        let length = blocks.saturating_mul(BLOCK_SIZE);
        let memory = vec![0; length.saturating_add(BLOCK_SIZE)];
        let start = match memory.as_ptr().align_offset(BLOCK_SIZE) {
            // An implementation may refuse to say; then direct I/O fails with an error, nothing
            // worse.
            start if start < BLOCK_SIZE => start,
            _ => 0,
        };
        Buffer {
            memory,
            start,
            length,
        }
    }

    /// How many blocks it holds.
    pub fn blocks(&self) -> usize {
        self.length / BLOCK_SIZE
    }

    /// All of its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.memory
            .get(self.start..self.start.saturating_add(self.length))
            .unwrap_or_default()
    }

    /// All of its bytes, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory
            .get_mut(self.start..self.start.saturating_add(self.length))
            .unwrap_or_default()
    }

    /// The bytes of its first `blocks` blocks (all, if it has fewer), to change.
    pub fn first_mut(&mut self, blocks: usize) -> &mut [u8] {
        let length = blocks.saturating_mul(BLOCK_SIZE).min(self.length);
        self.memory
            .get_mut(self.start..self.start.saturating_add(length))
            .unwrap_or_default()
    }

    /// Block number `index` of the buffer.
    pub fn block(&self, index: usize) -> Option<&BlockBytes> {
        blocks_of(self.bytes()).nth(index)
    }

    /// Block number `index` of the buffer, to change.
    pub fn block_mut(&mut self, index: usize) -> Option<&mut BlockBytes> {
        let from = index.checked_mul(BLOCK_SIZE)?;
        self.bytes_mut().get_mut(from..)?.first_chunk_mut()
    }
}

/// `bytes` as whole blocks; a shorter rest is left out.
pub fn blocks_of(bytes: &[u8]) -> impl ExactSizeIterator<Item = &BlockBytes> {
    static NOTHING: BlockBytes = [0; BLOCK_SIZE];
    bytes
        .chunks_exact(BLOCK_SIZE)
        .map(|chunk| chunk.first_chunk().unwrap_or(&NOTHING))
}

/// The little-endian 32-bit number at byte `at` of `bytes`; zero if that is not inside.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The little-endian 64-bit number at byte `at` of `bytes`; zero if that is not inside.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_and_as_large_as_asked() {
        for blocks in [0, 1, 2, 256] {
            let mut buffer = Buffer::new(blocks);
            assert_eq!(buffer.bytes().len(), blocks * BLOCK_SIZE);
            assert_eq!(buffer.bytes().as_ptr().align_offset(BLOCK_SIZE), 0);
            assert!(buffer.block(blocks).is_none());
            assert!(buffer.block_mut(blocks).is_none());
            if blocks > 0 {
                assert!(buffer.block_mut(blocks - 1).is_some());
            }
        }
    }
}
