// SPDX-License-Identifier: GPL-2.0
//! The checksum of a metadata block.
//!
//! A block carries, in its first four bytes, the CRC-32C (Castagnoli polynomial, reflected) of the
//! 4092 bytes that follow, inverted and mixed with a constant that depends on what the block is. A
//! block of one kind therefore never passes as one of another kind.
//!
//! Checking every block of a full metadata device is most of what a checker computes, so the 4092
//! bytes are cut into three streams that the processor's CRC unit works on at the same time: the
//! instruction takes three cycles but a new one can start in each.

use crate::block::{BlockBytes, BlockKind, BLOCK_SIZE};
use crate::error::{Error, Fault, Result};
use crate::records::units::MetadataBlock;
use crate::records::BlockError;

/// The reflected Castagnoli polynomial.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Bytes covered by the checksum: all but the checksum itself.
const COVERED: usize = BLOCK_SIZE - 4;

/// Bytes of each of the three streams: the largest multiple of 8 of which three fit.
const STREAM: usize = COVERED / 3 / 8 * 8;

/// One table per byte of a little-endian 64-bit word, for the portable way.
static SLICES: [[u32; 256]; 8] = slices();

/// Appends `STREAM` zero bytes to a checksum; one table per byte of it.
static SHIFT_ONE: [[u32; 256]; 4] = shift(STREAM);

/// Appends twice `STREAM` zero bytes to a checksum.
static SHIFT_TWO: [[u32; 256]; 4] = shift(2 * STREAM);

/// The checksum that `block` should carry if it is a block of this `kind`.
pub fn of(kind: BlockKind, block: &BlockBytes) -> u32 {
    kind.checksum(block, crc32c)
}

/// The checksum that `block` carries.
pub fn stored(block: &BlockBytes) -> u32 {
    crate::records::stored_checksum(block)
}

/// Whether `block` carries the right checksum for a block of this `kind`.
pub fn is_right(kind: BlockKind, block: &BlockBytes) -> bool {
    of(kind, block) == stored(block)
}

/// The kind of block whose checksum `block` carries, if it is one.
pub fn kind(block: &BlockBytes) -> Option<BlockKind> {
    let plain = of(BlockKind::Node, block) ^ BlockKind::Node.salt();
    BlockKind::ALL
        .into_iter()
        .find(|kind| plain ^ kind.salt() == stored(block))
}

/// Makes `block` ready to be written to block `location`: enters the location and the checksum.
pub fn seal(kind: BlockKind, block: &mut BlockBytes, location: u64) {
    kind.seal(block, MetadataBlock(location), crc32c);
}

/// Checks that `block`, read from `location`, is whole, of this `kind` and in its place.
///
/// # Errors
///
/// [`Error::Block`] with [`Fault::Checksum`] or [`Fault::Location`].
pub fn check(kind: BlockKind, block: &BlockBytes, location: u64) -> Result {
    kind.check(block, MetadataBlock(location), crc32c)
        .map_err(|error| {
            let fault = match error {
                BlockError::Checksum { .. } => Fault::Checksum,
                BlockError::Location { found, .. } => Fault::Location { says: found.0 },
            };
            Error::block(location, kind, fault)
        })
}

/// Standard CRC-32C of any bytes, as other formats use it (starts with ones, inverted at the end).
pub fn crc32c(bytes: &[u8]) -> u32 {
    !raw(u32::MAX, bytes)
}

/// Continues a CRC-32C register over `bytes`, without any inversion.
fn raw(register: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has been found to have the instructions that the function is
        // compiled for.
        return unsafe { hardware::raw(register, bytes) };
    }
    portable(register, bytes)
}

/// Eight bytes at a time by table.
fn portable(mut register: u32, bytes: &[u8]) -> u32 {
    let at = |slice: usize, byte: u64| SLICES[slice & 7][(byte & 0xff) as usize];
    let mut words = bytes.chunks_exact(8);
    for word in words.by_ref() {
        let word = u64_of(word) ^ u64::from(register);
        register = at(7, word)
            ^ at(6, word >> 8)
            ^ at(5, word >> 16)
            ^ at(4, word >> 24)
            ^ at(3, word >> 32)
            ^ at(2, word >> 40)
            ^ at(1, word >> 48)
            ^ at(0, word >> 56);
    }
    for byte in words.remainder() {
        register = (register >> 8) ^ at(0, u64::from(register ^ u32::from(*byte)));
    }
    register
}

/// `register` as it would be after as many more zero bytes as `table` was made for.
fn shifted(table: &[[u32; 256]; 4], register: u32) -> u32 {
    let [a, b, c, d] = register.to_le_bytes();
    let [ta, tb, tc, td] = table;
    ta[usize::from(a)] ^ tb[usize::from(b)] ^ tc[usize::from(c)] ^ td[usize::from(d)]
}

/// A little-endian word from the first eight bytes of `bytes`; zero if there are fewer.
fn u64_of(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

const fn slices() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut register = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            register = (register >> 1) ^ if register & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        tables[0][byte] = register;
        byte += 1;
    }
    let mut slice = 1;
    while slice < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[slice - 1][byte];
            tables[slice][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        slice += 1;
    }
    tables
}

const fn shift(zeroes: usize) -> [[u32; 256]; 4] {
    // The register is linear in its bits: follow each bit alone, then add up.
    let bytes = slices()[0];
    let mut bits = [0u32; 32];
    let mut bit = 0;
    while bit < 32 {
        let mut register = 1u32 << bit;
        let mut left = zeroes;
        while left > 0 {
            register = (register >> 8) ^ bytes[(register & 0xff) as usize];
            left -= 1;
        }
        bits[bit] = register;
        bit += 1;
    }
    let mut tables = [[0; 256]; 4];
    let mut entry = 0;
    while entry < 4 * 256 {
        let mut sum = 0;
        let mut bit = 0;
        while bit < 8 {
            if (entry & 0xff) >> bit & 1 == 1 {
                sum ^= bits[entry / 256 * 8 + bit];
            }
            bit += 1;
        }
        tables[entry / 256][entry & 0xff] = sum;
        entry += 1;
    }
    tables
}

#[cfg(target_arch = "x86_64")]
mod hardware {
    use super::{shifted, u64_of, SHIFT_ONE, SHIFT_TWO, STREAM};
    use std::arch::x86_64::{_mm_crc32_u64, _mm_crc32_u8};

    /// Continues a CRC-32C register over `bytes`.
    ///
    /// # Safety
    ///
    /// The processor must have SSE 4.2.
    #[target_feature(enable = "sse4.2")]
    pub(super) unsafe fn raw(register: u32, bytes: &[u8]) -> u32 {
        let mut register = register;
        let mut rest = bytes;
        while let Some((three, after)) = rest.split_at_checked(3 * STREAM) {
            let (first, others) = three.split_at(STREAM);
            let (second, third) = others.split_at(STREAM);
            let (mut a, mut b, mut c) = (u64::from(register), 0, 0);
            for ((x, y), z) in first
                .chunks_exact(8)
                .zip(second.chunks_exact(8))
                .zip(third.chunks_exact(8))
            {
                // SAFETY: this function is only called where the processor has the instruction.
                #[allow(unused_unsafe, reason = "safe here since Rust 1.87")]
                unsafe {
                    a = _mm_crc32_u64(a, u64_of(x));
                    b = _mm_crc32_u64(b, u64_of(y));
                    c = _mm_crc32_u64(c, u64_of(z));
                }
            }
            register = shifted(&SHIFT_TWO, a as u32) ^ shifted(&SHIFT_ONE, b as u32) ^ c as u32;
            rest = after;
        }
        let mut words = rest.chunks_exact(8);
        for word in words.by_ref() {
            // SAFETY: as above.
            #[allow(unused_unsafe, reason = "safe here since Rust 1.87")]
            unsafe {
                register = _mm_crc32_u64(u64::from(register), u64_of(word)) as u32;
            }
        }
        for byte in words.remainder() {
            // SAFETY: as above.
            #[allow(unused_unsafe, reason = "safe here since Rust 1.87")]
            unsafe {
                register = _mm_crc32_u8(register, *byte);
            }
        }
        register
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_published_vectors() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn every_way_of_computing_it_agrees_at_every_length() {
        let mut state = 1u64;
        let bytes: Vec<u8> = (0..10_000)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        for length in (0..64).chain([
            COVERED,
            3 * STREAM - 1,
            3 * STREAM,
            3 * STREAM + 1,
            9_999,
            10_000,
        ]) {
            let bytes = &bytes[..length];
            let mut slow = u32::MAX;
            for byte in bytes {
                slow ^= u32::from(*byte);
                for _ in 0..8 {
                    slow = (slow >> 1) ^ if slow & 1 == 1 { POLYNOMIAL } else { 0 };
                }
            }
            assert_eq!(portable(u32::MAX, bytes), slow, "portable, {length} bytes");
            assert_eq!(raw(u32::MAX, bytes), slow, "fastest, {length} bytes");
        }
    }

    #[test]
    fn a_block_of_one_kind_is_not_one_of_another() {
        let mut block = [7; BLOCK_SIZE];
        for kind in BlockKind::ALL {
            seal(kind, &mut block, 5);
            assert!(check(kind, &block, 5).is_ok());
            assert!(check(kind, &block, 6).is_err());
            assert_eq!(super::kind(&block), Some(kind));
            block[100] ^= 1;
            assert_eq!(super::kind(&block), None);
        }
    }
}
