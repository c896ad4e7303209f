// SPDX-License-Identifier: GPL-2.0

//! Compression to zlib streams (RFC 1950 and 1951).

use super::huffman;
use super::huffman::Code;

/// The longest distance a match can reach back.
const WINDOW: usize = 32 * 1024;
/// The shortest and the longest match.
const MIN_MATCH: usize = 3;
const MAX_MATCH: usize = 258;
/// A match this long is taken without looking for a longer one.
const GOOD_MATCH: usize = 64;
/// How many earlier places are tried for a match.
const CHAIN: usize = 24;
/// How many literals and matches share one set of codes.
const BLOCK_TOKENS: usize = 1 << 16;
const HASH_BITS: u32 = 15;
/// No earlier place.
const NOWHERE: u32 = u32::MAX;

/// The checksum at the end of a zlib stream.
pub fn adler32(data: &[u8]) -> u32 {
    const BASE: u32 = 65521;
    let (mut a, mut b) = (1u32, 0u32);
    // As many bytes as can be summed before the sums have to be reduced.
    for part in data.chunks(5552) {
        for &byte in part {
            a += u32::from(byte);
            b += a;
        }
        a %= BASE;
        b %= BASE;
    }
    b << 16 | a
}

/// Compresses `data` into a zlib stream.
pub fn compress(data: &[u8]) -> Vec<u8> {
    let mut out = Bits::new();
    // Deflate with a 32 KiB window, no dictionary, default effort.
    out.bytes.extend_from_slice(&[0x78, 0x9c]);
    let mut finder = Finder::new(data);
    let mut tokens = Vec::with_capacity(BLOCK_TOKENS);
    loop {
        let from = finder.at;
        tokens.clear();
        while tokens.len() < BLOCK_TOKENS {
            match finder.next() {
                Some(token) => tokens.push(token),
                None => break,
            }
        }
        let last = finder.at >= data.len();
        write_block(&mut out, &tokens, &data[from..finder.at], last);
        if last {
            break;
        }
    }
    out.align();
    out.bytes.extend_from_slice(&adler32(data).to_be_bytes());
    out.bytes
}

#[derive(Clone, Copy)]
enum Token {
    Literal(u8),
    Match { length: u16, distance: u16 },
}

/// Finds matches by chains of places with the same hash.
struct Finder<'a> {
    data: &'a [u8],
    at: usize,
    /// Up to where places have been entered.
    entered: usize,
    head: Vec<u32>,
    previous: Vec<u32>,
}

impl<'a> Finder<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            at: 0,
            entered: 0,
            head: vec![NOWHERE; 1 << HASH_BITS],
            previous: vec![NOWHERE; WINDOW],
        }
    }

    fn hash(&self, at: usize) -> Option<usize> {
        let bytes = self.data.get(at..at + 4)?;
        let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Some((word.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize)
    }

    fn enter_up_to(&mut self, end: usize) {
        while self.entered < end {
            if let Some(hash) = self.hash(self.entered) {
                self.previous[self.entered % WINDOW] = self.head[hash];
                self.head[hash] = self.entered as u32;
            }
            self.entered += 1;
        }
    }

    fn longest(&mut self, at: usize) -> Option<(usize, usize)> {
        self.enter_up_to(at);
        let hash = self.hash(at)?;
        let limit = MAX_MATCH.min(self.data.len() - at);
        let mut best = (0, 0);
        let mut place = self.head[hash];
        for _ in 0..CHAIN {
            if place == NOWHERE || at - place as usize > WINDOW {
                break;
            }
            let from = place as usize;
            // Only a place that also agrees one byte further can be better than the best.
            if self.data.get(from + best.0) == self.data.get(at + best.0) {
                let length = self.data[from..]
                    .iter()
                    .zip(&self.data[at..at + limit])
                    .take_while(|(a, b)| a == b)
                    .count();
                if length > best.0 {
                    best = (length, at - from);
                    if length >= GOOD_MATCH.min(limit) {
                        break;
                    }
                }
            }
            let before = self.previous[from % WINDOW];
            // The ring has been overwritten where the chain does not go back.
            if before == NOWHERE || before >= place {
                break;
            }
            place = before;
        }
        (best.0 > MIN_MATCH).then_some(best)
    }
}

impl Iterator for Finder<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let at = self.at;
        let literal = Token::Literal(*self.data.get(at)?);
        let Some((length, distance)) = self.longest(at) else {
            self.at += 1;
            return Some(literal);
        };
        // A longer match at the next byte is worth a literal.
        if length < GOOD_MATCH {
            if let Some((later, _)) = self.longest(at + 1) {
                if later > length {
                    self.at += 1;
                    return Some(literal);
                }
            }
        }
        self.at += length;
        // Inside long runs every place is like every other: enter the first ones only.
        if length >= GOOD_MATCH {
            self.enter_up_to(at + GOOD_MATCH / 2);
            self.entered = self.at;
        }
        Some(Token::Match {
            length: length as u16,
            distance: distance as u16,
        })
    }
}

/// Collects bits, the first in the lowest place.
struct Bits {
    bytes: Vec<u8>,
    buffer: u64,
    filled: u32,
}

impl Bits {
    fn new() -> Self {
        Self {
            bytes: Vec::new(),
            buffer: 0,
            filled: 0,
        }
    }

    fn put(&mut self, value: u32, width: u32) {
        self.buffer |= u64::from(value) << self.filled;
        self.filled += width;
        while self.filled >= 8 {
            self.bytes.push(self.buffer as u8);
            self.buffer >>= 8;
            self.filled -= 8;
        }
    }

    fn code(&mut self, code: Code) {
        self.put(u32::from(code.bits), u32::from(code.length));
    }

    fn align(&mut self) {
        if self.filled > 0 {
            self.put(0, 8 - self.filled);
        }
    }
}

/// The symbol of a match length, and its extra bits.
fn length_symbol(length: u16) -> (usize, u32, u32) {
    let index = huffman::LENGTH_BASE.partition_point(|&base| base <= length) - 1;
    // 258 has a symbol of its own, the last; 227..=257 are the one before.
    let extra = u32::from(length - huffman::LENGTH_BASE[index]);
    (257 + index, extra, u32::from(huffman::LENGTH_EXTRA[index]))
}

/// The symbol of a distance, and its extra bits.
fn distance_symbol(distance: u16) -> (usize, u32, u32) {
    let index = huffman::DISTANCE_BASE.partition_point(|&base| base <= distance) - 1;
    let extra = u32::from(distance - huffman::DISTANCE_BASE[index]);
    (index, extra, u32::from(huffman::DISTANCE_EXTRA[index]))
}

fn write_block(out: &mut Bits, tokens: &[Token], data: &[u8], last: bool) {
    let mut literal_counts = [0u32; 286];
    let mut distance_counts = [0u32; 30];
    literal_counts[huffman::END_OF_BLOCK] = 1;
    for token in tokens {
        match *token {
            Token::Literal(byte) => literal_counts[usize::from(byte)] += 1,
            Token::Match { length, distance } => {
                literal_counts[length_symbol(length).0] += 1;
                distance_counts[distance_symbol(distance).0] += 1;
            }
        }
    }
    let literal_lengths = huffman::lengths(&literal_counts, 15);
    let distance_lengths = huffman::lengths(&distance_counts, 15);
    let table = Table::new(&literal_lengths, &distance_lengths);

    let mut bits = 3 + table.cost();
    for (symbol, &count) in literal_counts.iter().enumerate() {
        let extra = symbol
            .checked_sub(257)
            .map_or(0, |index| usize::from(huffman::LENGTH_EXTRA[index]));
        bits += count as usize * (usize::from(literal_lengths[symbol]) + extra);
    }
    for (symbol, &count) in distance_counts.iter().enumerate() {
        let extra = usize::from(huffman::DISTANCE_EXTRA[symbol]);
        bits += count as usize * (usize::from(distance_lengths[symbol]) + extra);
    }
    if bits / 8 > data.len() + 5 * (data.len() / 65535 + 1) {
        return write_stored(out, data, last);
    }

    out.put(u32::from(last), 1);
    out.put(2, 2);
    table.write(out);
    let literals = huffman::codes(&literal_lengths);
    let distances = huffman::codes(&distance_lengths);
    for token in tokens {
        match *token {
            Token::Literal(byte) => out.code(literals[usize::from(byte)]),
            Token::Match { length, distance } => {
                let (symbol, extra, width) = length_symbol(length);
                out.code(literals[symbol]);
                out.put(extra, width);
                let (symbol, extra, width) = distance_symbol(distance);
                out.code(distances[symbol]);
                out.put(extra, width);
            }
        }
    }
    out.code(literals[huffman::END_OF_BLOCK]);
}

fn write_stored(out: &mut Bits, data: &[u8], last: bool) {
    let mut rest = data;
    loop {
        let (part, after) = rest.split_at(rest.len().min(65535));
        rest = after;
        out.put(u32::from(last && rest.is_empty()), 1);
        out.put(0, 2);
        out.align();
        let length = part.len() as u16;
        out.bytes.extend_from_slice(&length.to_le_bytes());
        out.bytes.extend_from_slice(&(!length).to_le_bytes());
        out.bytes.extend_from_slice(part);
        if rest.is_empty() {
            return;
        }
    }
}

/// The two codes of a block as they are written at its beginning: the code lengths in run-length
/// coding, coded once more.
struct Table {
    literals: usize,
    distances: usize,
    /// Symbol, extra bits, width of the extra bits.
    symbols: Vec<(u8, u8, u8)>,
    lengths: Vec<u8>,
    /// How many of the lengths of the code for the lengths are written.
    written: usize,
}

impl Table {
    fn new(literal_lengths: &[u8], distance_lengths: &[u8]) -> Self {
        let used = |lengths: &[u8], least: usize| {
            lengths
                .iter()
                .rposition(|&length| length != 0)
                .map_or(least, |at| least.max(at + 1))
        };
        let literals = used(literal_lengths, 257);
        let distances = used(distance_lengths, 1);
        let mut all = literal_lengths[..literals].to_vec();
        all.extend_from_slice(&distance_lengths[..distances]);

        let mut symbols = Vec::new();
        let mut counts = [0u32; 19];
        let mut rest = &all[..];
        while let Some(&first) = rest.first() {
            let run = rest.iter().take_while(|&&length| length == first).count();
            let (symbol, taken) = match (first, run) {
                (0, 11..) => {
                    let taken = run.min(138);
                    ((18, (taken - 11) as u8, 7), taken)
                }
                (0, 3..) => ((17, (run - 3) as u8, 3), run),
                // Repeats the one before: write that one first.
                (_, 4..) => {
                    symbols.push((first, 0, 0));
                    let taken = (run - 1).min(6);
                    ((16, (taken - 3) as u8, 2), taken + 1)
                }
                _ => ((first, 0, 0), 1),
            };
            symbols.push(symbol);
            rest = &rest[taken..];
        }
        for &(symbol, _, _) in &symbols {
            counts[usize::from(symbol)] += 1;
        }
        let lengths = huffman::lengths(&counts, 7);
        let written = huffman::LENGTH_ORDER
            .iter()
            .rposition(|&symbol| lengths[symbol] != 0)
            .map_or(4, |at| 4.max(at + 1));
        Self {
            literals,
            distances,
            symbols,
            lengths,
            written,
        }
    }

    /// How many bits writing it takes.
    fn cost(&self) -> usize {
        let coded: usize = self
            .symbols
            .iter()
            .map(|&(symbol, _, width)| {
                usize::from(self.lengths[usize::from(symbol)]) + usize::from(width)
            })
            .sum();
        14 + 3 * self.written + coded
    }

    fn write(&self, out: &mut Bits) {
        out.put((self.literals - 257) as u32, 5);
        out.put((self.distances - 1) as u32, 5);
        out.put((self.written - 4) as u32, 4);
        for &symbol in &huffman::LENGTH_ORDER[..self.written] {
            out.put(u32::from(self.lengths[symbol]), 3);
        }
        let codes = huffman::codes(&self.lengths);
        for &(symbol, extra, width) in &self.symbols {
            out.code(codes[usize::from(symbol)]);
            out.put(u32::from(extra), u32::from(width));
        }
    }
}
