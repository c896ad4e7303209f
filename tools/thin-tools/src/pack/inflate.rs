// SPDX-License-Identifier: GPL-2.0

//! Decompression of zlib streams (RFC 1950 and 1951), from input that nobody vouches for.

use super::deflate::adler32;
use super::huffman;

/// Why a stream cannot be decompressed.
#[derive(Debug, PartialEq, Eq)]
pub enum Damage {
    /// It ends too early.
    CutOff,
    /// It is no zlib stream, or says something that no compressor writes.
    Malformed,
    /// What comes out is not what went in.
    Checksum,
    /// More comes out than can be true.
    TooLong,
}

/// How many bits of a code are looked up at once.
const FAST_BITS: u32 = 10;

/// Decompresses the zlib stream at the start of `input` to at most `limit` bytes.
/// Returns them, and how many bytes of the input the stream took.
pub fn decompress(input: &[u8], limit: usize) -> Result<(Vec<u8>, usize), Damage> {
    let (&[method, flags], body) = input.split_first_chunk().ok_or(Damage::CutOff)?;
    let check = u16::from_be_bytes([method, flags]);
    if method & 0xf != 8 || method >> 4 > 7 || flags & 0x20 != 0 || check % 31 != 0 {
        return Err(Damage::Malformed);
    }
    let mut bits = Bits {
        input: body,
        at: 0,
        buffer: 0,
        filled: 0,
    };
    let mut out = Vec::new();
    loop {
        let last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => stored(&mut bits, &mut out, limit)?,
            1 => {
                let mut lengths = [8; 288];
                lengths[144..256].fill(9);
                lengths[256..280].fill(7);
                let literals = Decoder::new(&lengths, false)?;
                let distances = Decoder::new(&[5; 32], false)?;
                coded(&mut bits, &literals, &distances, &mut out, limit)?;
            }
            2 => {
                let (literals, distances) = tables(&mut bits)?;
                coded(&mut bits, &literals, &distances, &mut out, limit)?;
            }
            _ => return Err(Damage::Malformed),
        }
        if last {
            break;
        }
    }
    bits.align();
    let sum: [u8; 4] = bits.bytes(4)?.try_into().map_err(|_| Damage::CutOff)?;
    if u32::from_be_bytes(sum) != adler32(&out) {
        return Err(Damage::Checksum);
    }
    Ok((out, 2 + bits.at))
}

/// Reads bits, the lowest first.
struct Bits<'a> {
    input: &'a [u8],
    at: usize,
    buffer: u64,
    filled: u32,
}

impl<'a> Bits<'a> {
    fn fill(&mut self) {
        while self.filled <= 56 {
            let Some(&byte) = self.input.get(self.at) else {
                return;
            };
            self.buffer |= u64::from(byte) << self.filled;
            self.filled += 8;
            self.at += 1;
        }
    }

    fn drop_bits(&mut self, width: u32) -> Result<(), Damage> {
        self.filled = self.filled.checked_sub(width).ok_or(Damage::CutOff)?;
        self.buffer >>= width;
        Ok(())
    }

    /// The next `width` (at most 16) bits.
    fn take(&mut self, width: u32) -> Result<u32, Damage> {
        self.fill();
        let value = self.buffer & ((1 << width) - 1);
        self.drop_bits(width)?;
        Ok(value as u32)
    }

    /// Skips to a byte's beginning, and gives back what was read ahead.
    fn align(&mut self) {
        self.at -= (self.filled / 8) as usize;
        self.buffer = 0;
        self.filled = 0;
    }

    /// The next `count` bytes; only after `align`.
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Damage> {
        let rest = self.input.get(self.at..).ok_or(Damage::CutOff)?;
        let bytes = rest.get(..count).ok_or(Damage::CutOff)?;
        self.at += count;
        Ok(bytes)
    }
}

/// Finds the symbol whose code comes next.
struct Decoder {
    /// For codes of at most `FAST_BITS` bits: symbol << 4 | length, by the next bits; else 0.
    fast: Vec<u16>,
    /// How many codes there are of each length.
    of_length: [u16; 16],
    /// The symbols in the order of their codes.
    symbols: Vec<u16>,
}

impl Decoder {
    /// A decoder for the code with these lengths. A code `may_gap` when it has one symbol or none.
    fn new(lengths: &[u8], may_gap: bool) -> Result<Self, Damage> {
        let mut of_length = [0u16; 16];
        for &length in lengths {
            *of_length
                .get_mut(usize::from(length))
                .ok_or(Damage::Malformed)? += 1;
        }
        let coded = lengths.len() - usize::from(of_length[0]);
        of_length[0] = 0;
        let mut left = 1i32;
        for &count in &of_length[1..] {
            left = (left << 1) - i32::from(count);
            if left < 0 {
                return Err(Damage::Malformed);
            }
        }
        if left > 0 && !(may_gap && coded == usize::from(of_length[1]) && coded <= 1) {
            return Err(Damage::Malformed);
        }
        let mut next = [0usize; 16];
        for length in 1..16 {
            next[length] = next[length - 1] + usize::from(of_length[length - 1]);
        }
        let mut symbols = vec![0; coded];
        let mut fast = vec![0; 1 << FAST_BITS];
        for (symbol, (&length, code)) in lengths.iter().zip(huffman::codes(lengths)).enumerate() {
            if length == 0 {
                continue;
            }
            let place = &mut next[usize::from(length)];
            symbols[*place] = symbol as u16;
            *place += 1;
            if u32::from(length) <= FAST_BITS {
                let step = 1 << length;
                for entry in fast.iter_mut().skip(usize::from(code.bits)).step_by(step) {
                    *entry = (symbol as u16) << 4 | u16::from(length);
                }
            }
        }
        Ok(Self {
            fast,
            of_length,
            symbols,
        })
    }

    fn symbol(&self, bits: &mut Bits<'_>) -> Result<usize, Damage> {
        bits.fill();
        let entry = self.fast[(bits.buffer & ((1 << FAST_BITS) - 1)) as usize];
        if entry != 0 {
            bits.drop_bits(u32::from(entry & 0xf))?;
            return Ok(usize::from(entry >> 4));
        }
        let (mut code, mut first, mut index) = (0u32, 0u32, 0u32);
        for length in 1..16 {
            code |= (bits.buffer >> (length - 1)) as u32 & 1;
            let count = u32::from(self.of_length[length]);
            if code < first + count {
                bits.drop_bits(length as u32)?;
                let place = (index + code - first) as usize;
                return self
                    .symbols
                    .get(place)
                    .map(|&s| usize::from(s))
                    .ok_or(Damage::Malformed);
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err(if bits.filled < 15 {
            Damage::CutOff
        } else {
            Damage::Malformed
        })
    }
}

fn tables(bits: &mut Bits<'_>) -> Result<(Decoder, Decoder), Damage> {
    let literals = bits.take(5)? as usize + 257;
    let distances = bits.take(5)? as usize + 1;
    let written = bits.take(4)? as usize + 4;
    if literals > 286 || distances > 30 {
        return Err(Damage::Malformed);
    }
    let mut lengths = [0; 19];
    for &symbol in &huffman::LENGTH_ORDER[..written] {
        lengths[symbol] = bits.take(3)? as u8;
    }
    let decoder = Decoder::new(&lengths, false)?;
    let mut all = Vec::with_capacity(literals + distances);
    while all.len() < literals + distances {
        let (length, times) = match decoder.symbol(bits)? {
            16 => {
                let before = *all.last().ok_or(Damage::Malformed)?;
                (before, 3 + bits.take(2)?)
            }
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            length => (length as u8, 1),
        };
        all.extend((0..times).map(|_| length));
    }
    if all.len() > literals + distances || all[huffman::END_OF_BLOCK] == 0 {
        return Err(Damage::Malformed);
    }
    let (literal_lengths, distance_lengths) = all.split_at(literals);
    Ok((
        Decoder::new(literal_lengths, true)?,
        Decoder::new(distance_lengths, true)?,
    ))
}

fn stored(bits: &mut Bits<'_>, out: &mut Vec<u8>, limit: usize) -> Result<(), Damage> {
    bits.align();
    let head: [u8; 4] = bits.bytes(4)?.try_into().map_err(|_| Damage::CutOff)?;
    let length = u16::from_le_bytes([head[0], head[1]]);
    if length != !u16::from_le_bytes([head[2], head[3]]) {
        return Err(Damage::Malformed);
    }
    if out.len() + usize::from(length) > limit {
        return Err(Damage::TooLong);
    }
    out.extend_from_slice(bits.bytes(usize::from(length))?);
    Ok(())
}

fn coded(
    bits: &mut Bits<'_>,
    literals: &Decoder,
    distances: &Decoder,
    out: &mut Vec<u8>,
    limit: usize,
) -> Result<(), Damage> {
    loop {
        let symbol = literals.symbol(bits)?;
        if symbol < huffman::END_OF_BLOCK {
            if out.len() >= limit {
                return Err(Damage::TooLong);
            }
            out.push(symbol as u8);
            continue;
        }
        if symbol == huffman::END_OF_BLOCK {
            return Ok(());
        }
        let index = symbol - 257;
        let base = *huffman::LENGTH_BASE.get(index).ok_or(Damage::Malformed)?;
        let extra = *huffman::LENGTH_EXTRA.get(index).ok_or(Damage::Malformed)?;
        let length = usize::from(base) + bits.take(u32::from(extra))? as usize;
        let index = distances.symbol(bits)?;
        let base = *huffman::DISTANCE_BASE.get(index).ok_or(Damage::Malformed)?;
        let extra = *huffman::DISTANCE_EXTRA
            .get(index)
            .ok_or(Damage::Malformed)?;
        let distance = usize::from(base) + bits.take(u32::from(extra))? as usize;
        let from = out.len().checked_sub(distance).ok_or(Damage::Malformed)?;
        if out.len() + length > limit {
            return Err(Damage::TooLong);
        }
        if distance >= length {
            out.extend_from_within(from..from + length);
        } else if distance == 1 {
            let byte = out[from];
            out.resize(out.len() + length, byte);
        } else {
            for at in from..from + length {
                out.push(out[at]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::deflate::compress;
    use super::*;

    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    fn sample(state: &mut u64) -> Vec<u8> {
        let mut data = Vec::new();
        let length = random(state) % 300_000;
        while (data.len() as u64) < length {
            match random(state) % 4 {
                0 => data.extend((0..random(state) % 2000).map(|_| 0u8)),
                1 => data.extend(random(state).to_le_bytes()),
                2 => data.extend((0..random(state) % 9000).map(|at| (at * at) as u8)),
                _ if !data.is_empty() => {
                    let from = random(state) as usize % data.len();
                    let to = (from + random(state) as usize % 5000).min(data.len());
                    data.extend_from_within(from..to);
                }
                _ => data.push(7),
            }
        }
        data
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut state = 0x1234_5678_9abc_def1;
        for data in [vec![], vec![1], vec![0; 1 << 20]] {
            assert_eq!(decompress(&compress(&data), data.len()).unwrap().0, data);
        }
        for _ in 0..60 {
            let data = sample(&mut state);
            let packed = compress(&data);
            let (unpacked, taken) = decompress(&packed, data.len()).unwrap();
            assert!(unpacked == data);
            assert_eq!(taken, packed.len());
        }
        let noise: Vec<u8> = (0..200_000).map(|_| random(&mut state) as u8).collect();
        let packed = compress(&noise);
        assert!(packed.len() < noise.len() + 100);
        assert!(decompress(&packed, noise.len()).unwrap().0 == noise);
    }

    #[test]
    fn code_lengths_keep_to_the_limit() {
        let mut counts = vec![1u32; 40];
        for at in 2..40 {
            counts[at] = counts[at - 1].saturating_add(counts[at - 2]);
        }
        let lengths = huffman::lengths(&counts, 7);
        let taken: u32 = lengths.iter().map(|&length| 1u32 << (7 - length)).sum();
        assert!(lengths.iter().all(|&length| (1..=7).contains(&length)));
        assert_eq!(taken, 1 << 7);
    }

    #[test]
    fn damage_is_seen() {
        let mut state = 77;
        let data = sample(&mut state);
        let packed = compress(&data);
        for end in 0..packed.len().min(500) {
            assert!(decompress(&packed[..end], data.len()).is_err());
        }
        for _ in 0..500 {
            let mut bad = packed.clone();
            let at = random(&mut state) as usize % bad.len();
            bad[at] ^= 1 << (random(&mut state) % 8);
            // Some bits mean nothing: the header's effort, what fills up the last byte of data.
            if let Ok((out, _)) = decompress(&bad, data.len()) {
                assert!(out == data);
            }
        }
        assert_eq!(decompress(&packed, data.len() - 1), Err(Damage::TooLong));
    }
}
