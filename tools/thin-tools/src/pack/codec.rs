// SPDX-License-Identifier: GPL-2.0

//! The instructions that a packed block is made of.
//!
//! An instruction is a byte with a tag in its high half, often with an operand after it. Numbers
//! are little-endian. `base` is a register that holds the number written last.

/// Size of a block in bytes.
pub const BLOCK: usize = 4096;

const SET: u8 = 0;
const POS: u8 = 1;
const POS_WIDE: u8 = 2;
const NEG: u8 = 3;
const NEG_WIDE: u8 = 4;
const CONST: u8 = 5;
const CONST8: u8 = 6;
const COUNT: u8 = 7;
const COUNT8: u8 = 8;
const LITERAL: u8 = 9;
const LITERAL_WIDE: u8 = 10;
const SHIFTED: u8 = 11;

/// How many bits of a mapping's value are its time.
const TIME_BITS: u32 = 24;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// The fields of a btree node's header that matter here.
const FLAGS: usize = 4;
const MAX_ENTRIES: usize = 20;
const VALUE_SIZE: usize = 24;
const HEADER: usize = 32;
const INTERNAL: u32 = 1;
const LEAF: u32 = 2;

fn le32(block: &[u8; BLOCK], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&block[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + Clone + '_ {
    bytes.chunks_exact(8).map(|word| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        u64::from_le_bytes(bytes)
    })
}

/// Appends the instructions that make `block`. Any content is possible; that of btree nodes comes
/// out short.
pub fn encode(block: &[u8; BLOCK], out: &mut Vec<u8>) {
    let flags = le32(block, FLAGS);
    let max = le32(block, MAX_ENTRIES) as usize;
    let value_size = le32(block, VALUE_SIZE) as usize;
    let room = BLOCK - HEADER;
    let fits = value_size <= room && max > 0 && max <= room / (8 + value_size);
    let is_node = fits && (flags == INTERNAL || flags == LEAF);
    if !is_node {
        return literal(block, out);
    }
    let values_at = HEADER + 8 * max;
    let tail_at = values_at + value_size * max;
    literal(&block[..HEADER], out);
    sequence(words(&block[HEADER..values_at]), out);
    let values = &block[values_at..tail_at];
    match (flags, value_size) {
        (LEAF, 8) => {
            // `fits` bounds `max` by 252, well within the twelve bits there are for it.
            out.push(SHIFTED << 4 | (max >> 8) as u8);
            out.push(max as u8);
            sequence(words(values).map(|value| value >> TIME_BITS), out);
            sequence(words(values).map(|value| value & TIME_MASK), out);
        }
        (INTERNAL, 8) => sequence(words(values), out),
        _ => literal(values, out),
    }
    literal(&block[tail_at..], out);
}

fn literal(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    match u8::try_from(bytes.len()) {
        Ok(short @ 0..=15) => out.push(LITERAL << 4 | short),
        _ => wide(LITERAL_WIDE, bytes.len() as u64, out),
    }
    out.extend_from_slice(bytes);
}

/// An instruction whose operand has the width it needs.
fn wide(tag: u8, operand: u64, out: &mut Vec<u8>) {
    let width = match operand {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    };
    out.push(tag << 4 | width);
    out.extend_from_slice(&operand.to_le_bytes()[..usize::from(width)]);
}

/// Numbers, each as its difference from the one before; equal differences are counted.
fn sequence(mut numbers: impl Iterator<Item = u64>, out: &mut Vec<u8>) {
    let Some(mut base) = numbers.next() else {
        return;
    };
    wide(SET, base, out);
    let mut run: Option<(u64, usize)> = None;
    for number in numbers {
        let step = number.wrapping_sub(base);
        base = number;
        run = Some(match run {
            Some((same, count)) if same == step => (same, count + 1),
            earlier => {
                write_run(earlier, out);
                (step, 1)
            }
        });
    }
    write_run(run, out);
}

fn write_run(run: Option<(u64, usize)>, out: &mut Vec<u8>) {
    let Some((step, mut left)) = run else {
        return;
    };
    while left > 0 {
        let count = left.min(0xfff);
        left -= count;
        if step == 0 {
            if count <= 15 {
                out.push(CONST << 4 | count as u8);
            } else {
                out.push(CONST8 << 4 | (count >> 8) as u8);
                out.push(count as u8);
            }
            continue;
        }
        if count > 15 {
            out.push(COUNT8 << 4 | (count >> 8) as u8);
            out.push(count as u8);
        } else if count > 1 {
            out.push(COUNT << 4 | count as u8);
        }
        let back = step.wrapping_neg();
        if step <= 15 {
            out.push(POS << 4 | step as u8);
        } else if back <= 15 {
            out.push(NEG << 4 | back as u8);
        } else if step < back {
            wide(POS_WIDE, step, out);
        } else {
            wide(NEG_WIDE, back, out);
        }
    }
}

/// The instructions cannot be followed.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Follows the instructions at the start of `input` until they have made a block; returns the block and
/// the rest of the input.
pub fn decode(input: &[u8]) -> Result<(Box<[u8; BLOCK]>, &[u8]), Malformed> {
    let mut machine = Machine {
        input,
        base: 0,
        out: Vec::with_capacity(BLOCK),
        limit: BLOCK,
    };
    while machine.out.len() < BLOCK {
        machine.step(true)?;
    }
    let rest = machine.input;
    let block = machine
        .out
        .into_boxed_slice()
        .try_into()
        .map_err(|_| Malformed)?;
    Ok((block, rest))
}

struct Machine<'a> {
    input: &'a [u8],
    base: u64,
    out: Vec<u8>,
    /// How long `out` may become.
    limit: usize,
}

impl<'a> Machine<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.input.split_at_checked(count).ok_or(Malformed)?;
        self.input = rest;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    fn operand(&mut self, width: u8) -> Result<u64, Malformed> {
        if !matches!(width, 1 | 2 | 4 | 8) {
            return Err(Malformed);
        }
        let mut bytes = [0; 8];
        let width = usize::from(width);
        bytes[..width].copy_from_slice(self.bytes(width)?);
        Ok(u64::from_le_bytes(bytes))
    }

    fn emit(&mut self) -> Result<(), Malformed> {
        self.append(&self.base.to_le_bytes())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        if self.out.len() + bytes.len() > self.limit {
            return Err(Malformed);
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    /// A twelve bit count: half a byte from the instruction, one more byte.
    fn count(&mut self, nibble: u8) -> Result<usize, Malformed> {
        Ok(usize::from(nibble) << 8 | usize::from(self.byte()?))
    }

    /// Follows one instruction; `outer`, if it may be one that contains others.
    fn step(&mut self, outer: bool) -> Result<(), Malformed> {
        let instruction = self.byte()?;
        let nibble = instruction & 0xf;
        match instruction >> 4 {
            SET => {
                self.base = self.operand(nibble)?;
                self.emit()
            }
            POS => self.add(u64::from(nibble)),
            POS_WIDE => {
                let step = self.operand(nibble)?;
                self.add(step)
            }
            NEG => self.add(u64::from(nibble).wrapping_neg()),
            NEG_WIDE => {
                let step = self.operand(nibble)?;
                self.add(step.wrapping_neg())
            }
            CONST => self.repeat(usize::from(nibble)),
            CONST8 => {
                let count = self.count(nibble)?;
                self.repeat(count)
            }
            COUNT => self.counted(usize::from(nibble)),
            COUNT8 => {
                let count = self.count(nibble)?;
                self.counted(count)
            }
            LITERAL => {
                let bytes = self.bytes(usize::from(nibble))?;
                self.append(bytes)
            }
            LITERAL_WIDE => {
                let length = self.operand(nibble)?;
                let length = usize::try_from(length).map_err(|_| Malformed)?;
                let bytes = self.bytes(length)?;
                self.append(bytes)
            }
            SHIFTED if outer => {
                let count = self.count(nibble)?;
                self.shifted(count)
            }
            _ => Err(Malformed),
        }
    }

    fn add(&mut self, step: u64) -> Result<(), Malformed> {
        self.base = self.base.wrapping_add(step);
        self.emit()
    }

    fn repeat(&mut self, count: usize) -> Result<(), Malformed> {
        (0..count).try_for_each(|_| self.emit())
    }

    /// Follows the next instruction `count` times.
    fn counted(&mut self, count: usize) -> Result<(), Malformed> {
        let start = self.input;
        // An instruction that counts must not count one that counts.
        if count == 0 || matches!(start.first().ok_or(Malformed)? >> 4, COUNT | COUNT8) {
            return Err(Malformed);
        }
        for _ in 0..count {
            self.input = start;
            self.step(false)?;
        }
        Ok(())
    }

    /// Follows instructions until they have made `count` high parts, then as many low parts.
    fn shifted(&mut self, count: usize) -> Result<(), Malformed> {
        if self.out.len() + 8 * count > self.limit {
            return Err(Malformed);
        }
        let high = self.inner(8 * count)?;
        let low = self.inner(8 * count)?;
        for (high, low) in words(&high).zip(words(&low)) {
            self.append(&(high << TIME_BITS | low & TIME_MASK).to_le_bytes())?;
        }
        Ok(())
    }

    fn inner(&mut self, length: usize) -> Result<Vec<u8>, Malformed> {
        let mut inner = Machine {
            input: self.input,
            base: self.base,
            out: Vec::with_capacity(length),
            limit: length,
        };
        while inner.out.len() < length {
            inner.step(false)?;
        }
        self.input = inner.input;
        self.base = inner.base;
        Ok(inner.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(flags: u32, max: u32, value_size: u32, fill: impl Fn(usize) -> u64) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        for (at, word) in block.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&fill(at).to_le_bytes());
        }
        block[FLAGS..FLAGS + 4].copy_from_slice(&flags.to_le_bytes());
        block[MAX_ENTRIES..MAX_ENTRIES + 4].copy_from_slice(&max.to_le_bytes());
        block[VALUE_SIZE..VALUE_SIZE + 4].copy_from_slice(&value_size.to_le_bytes());
        block
    }

    #[test]
    fn every_block_comes_back() {
        let fills: [fn(usize) -> u64; 5] = [
            |_| 0,
            |_| u64::MAX,
            |at| at as u64 * 3,
            |at| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            |at| u64::MAX / 2 - (at as u64 / 7) * 100_000,
        ];
        for flags in [0, 1, 2, 3, u32::MAX] {
            for (max, size) in [
                (252, 8),
                (126, 24),
                (168, 16),
                (336, 4),
                (0, 8),
                (1, 8),
                (508, 0),
            ] {
                for fill in fills {
                    let block = node(flags, max, size, fill);
                    let mut packed = Vec::new();
                    encode(&block, &mut packed);
                    assert!(packed.len() <= BLOCK + BLOCK / 8 + 64);
                    packed.extend_from_slice(b"rest");
                    let (back, rest) = decode(&packed).unwrap();
                    assert!(*back == block);
                    assert_eq!(rest, b"rest");
                }
            }
        }
    }

    #[test]
    fn any_instructions_lead_somewhere() {
        let mut state = 88172645463325252u64;
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..state % 300 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes.push(state as u8);
            }
            state = state.wrapping_add(1);
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [
            &b""[..],
            &[0xff],
            &[COUNT8 << 4, 255, COUNT8 << 4, 255],
            &[COUNT << 4, COUNT << 4],
            &[
                LITERAL_WIDE << 4 | 8,
                255,
                255,
                255,
                255,
                255,
                255,
                255,
                255,
            ],
            &[SHIFTED << 4 | 15, 255],
            &[SET << 4 | 3, 0, 0, 0],
            &[CONST8 << 4 | 15, 255],
        ] {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
