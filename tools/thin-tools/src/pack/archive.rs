// SPDX-License-Identifier: GPL-2.0

//! The file: a header, and chunks that each hold some blocks as a zlib stream.
//!
//! A reader of zlib streams does not look at what follows a stream. There, other programs leave
//! nothing, and we leave a mark in the first and in the last chunk: one that says the file has an
//! end, and one that is the end, with the number of blocks and a checksum over the whole file. So a
//! file that was cut off anywhere is known for it, and other programs can read it all the same.

use super::codec;
use super::codec::BLOCK;
use super::deflate;
use super::inflate;
use super::inflate::Damage;
use crate::cli::Context;
use crate::cli::Failure;
use std::io;
use std::io::Read;
use std::io::Write;

const MAGIC: u64 = 0xa537_a0aa_6309_ef77;
const VERSION: u64 = 3;
const HEADER: usize = 32;

/// What a chunk may at most inflate to: 4096 blocks with the worst of codings.
const MOST_INFLATED: usize = 4096 * (BLOCK + BLOCK / 8 + 64);
/// What a chunk may at most take in the file.
const MOST_CHUNK: u64 = 64 << 20;
/// More blocks than any metadata device has reason to have: 1 TiB.
const MOST_BLOCKS: u64 = 1 << 28;

/// The mark in the first chunk; the one in the last.
const HAS_END: &[u8; 8] = b"thin+end";
const END: &[u8; 8] = b"thin.end";
const END_SIZE: usize = 8 + 8 + 4;

/// A block and where it belongs.
pub type Placed = (u64, Box<[u8; BLOCK]>);

fn crc(mut crc: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 256 {
            let mut value = at as u32;
            let mut bit = 0;
            while bit < 8 {
                value = value >> 1 ^ (value & 1) * 0x82f6_3b78;
                bit += 1;
            }
            table[at] = value;
            at += 1;
        }
        table
    };
    for &byte in bytes {
        crc = crc >> 8 ^ TABLE[((crc ^ u32::from(byte)) & 0xff) as usize];
    }
    crc
}

/// Writes a pack.
pub struct Writer<W: Write> {
    out: W,
    crc: u32,
    blocks: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a pack of metadata of `nr_blocks` blocks.
    pub fn new(out: W, nr_blocks: u64) -> io::Result<Self> {
        let mut writer = Self {
            out,
            crc: !0,
            blocks: 0,
        };
        for word in [MAGIC, VERSION, BLOCK as u64, nr_blocks] {
            writer.put(&word.to_le_bytes())?;
        }
        let mut first = deflate::compress(&[]);
        first.extend_from_slice(HAS_END);
        writer.chunk(&first, 0)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc = crc(self.crc, bytes);
        self.out.write_all(bytes)
    }

    /// Appends a compressed chunk with `blocks` blocks in it.
    pub fn chunk(&mut self, bytes: &[u8], blocks: u64) -> io::Result<()> {
        self.blocks += blocks;
        self.put(&(bytes.len() as u64).to_le_bytes())?;
        self.put(bytes)
    }

    /// Writes the end; gives back the output, and how many blocks the pack holds.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        let mut last = deflate::compress(&[]);
        let length = (last.len() + END_SIZE) as u64;
        last.extend_from_slice(END);
        last.extend_from_slice(&self.blocks.to_le_bytes());
        self.put(&length.to_le_bytes())?;
        self.put(&last)?;
        self.out.write_all(&(!self.crc).to_le_bytes())?;
        Ok((self.out, self.blocks))
    }
}

/// Packs blocks into one chunk, and makes sure that they come out of it again.
pub fn pack_chunk(blocks: &[(u64, &[u8; BLOCK])]) -> Result<Vec<u8>, Failure> {
    let mut plain = Vec::new();
    for (number, block) in blocks {
        plain.extend_from_slice(&number.to_le_bytes());
        codec::encode(block, &mut plain);
    }
    let packed = deflate::compress(&plain);
    let back = unpack_chunk(&packed)?.blocks;
    let same = back.len() == blocks.len()
        && back
            .iter()
            .zip(blocks)
            .all(|((number, block), (n, b))| number == n && **block == **b);
    if !same {
        return Err(Failure::new("a chunk does not unpack to what was packed"));
    }
    Ok(packed)
}

/// What is in a chunk.
pub struct Chunk {
    /// The blocks.
    pub blocks: Vec<Placed>,
    /// What follows the zlib stream.
    mark: Vec<u8>,
}

/// Unpacks a chunk.
pub fn unpack_chunk(bytes: &[u8]) -> Result<Chunk, Failure> {
    let (plain, taken) = inflate::decompress(bytes, MOST_INFLATED).map_err(|damage| {
        Failure::new(match damage {
            Damage::CutOff => "compressed data ends too early",
            Damage::Malformed => "compressed data is malformed",
            Damage::Checksum => "compressed data has a wrong checksum",
            Damage::TooLong => "compressed data is longer than any chunk",
        })
    })?;
    let mut rest = &plain[..];
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        let malformed = || Failure::new("a packed block is malformed");
        let (number, instructions) = rest.split_first_chunk().ok_or_else(malformed)?;
        if blocks.len() >= 4096 {
            return Err(Failure::new("a chunk has too many blocks"));
        }
        let (block, after) = codec::decode(instructions).map_err(|_| malformed())?;
        blocks.push((u64::from_le_bytes(*number), block));
        rest = after;
    }
    Ok(Chunk {
        blocks,
        mark: bytes.get(taken..).unwrap_or_default().to_vec(),
    })
}

/// Reads a pack.
pub struct Reader<R: Read> {
    input: R,
    crc: u32,
    /// How many blocks the metadata has.
    pub nr_blocks: u64,
    blocks: u64,
    chunks: u64,
    has_end: bool,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn new(mut input: R) -> Result<Self, Failure> {
        let mut header = [0; HEADER];
        let got = read_up_to(&mut input, &mut header)?;
        if got < 8 || header[..8] != MAGIC.to_le_bytes() {
            return Err(Failure::new("Not a pack file"));
        }
        if got < HEADER {
            return Err(Failure::new("the pack ends within its header"));
        }
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[8 * at..8 * at + 8]);
            u64::from_le_bytes(bytes)
        };
        if word(1) != VERSION {
            return Err(Failure::new(format!(
                "pack version {} is not known",
                word(1)
            )));
        }
        if word(2) != BLOCK as u64 {
            return Err(Failure::new(format!(
                "block size {} is not supported",
                word(2)
            )));
        }
        if word(3) > MOST_BLOCKS {
            return Err(Failure::new(format!(
                "the pack claims {} blocks, more than any metadata has",
                word(3)
            )));
        }
        Ok(Self {
            input,
            crc: crc(!0, &header),
            nr_blocks: word(3),
            blocks: 0,
            chunks: 0,
            has_end: false,
            ended: false,
        })
    }

    /// The next chunk's bytes; none at the end of the file.
    fn next_bytes(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let mut length = [0; 8];
        match read_up_to(&mut self.input, &mut length)? {
            0 => return Ok(None),
            8 => {}
            _ => return Err(Failure::new("the pack is cut off within a chunk's length")),
        }
        let size = u64::from_le_bytes(length);
        if size > MOST_CHUNK {
            return Err(Failure::new(format!(
                "a chunk claims to be {size} bytes long"
            )));
        }
        let mut bytes = Vec::new();
        let got = (&mut self.input).take(size).read_to_end(&mut bytes)?;
        if got as u64 != size {
            return Err(Failure::new("the pack is cut off within a chunk"));
        }
        self.crc = crc(self.crc, &length);
        Ok(Some(bytes))
    }

    /// The blocks of the next chunk; none when all have been read and the end is as it should be.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<Placed>>, Failure> {
        let Some(bytes) = self.next_bytes()? else {
            return self.check_end().map(|()| None);
        };
        let place = self.chunks;
        if self.ended {
            return Err(Failure::new("the pack goes on after its end"));
        }
        self.chunks += 1;
        let chunk = unpack_chunk(&bytes).context(|| format!("chunk {place}"))?;
        if place == 0 {
            self.has_end = chunk.mark == HAS_END;
        } else if self.has_end && chunk.mark.starts_with(END) {
            let mut expected = END.to_vec();
            expected.extend_from_slice(&self.blocks.to_le_bytes());
            if chunk.mark.get(..16) != Some(&expected) {
                return Err(Failure::new(
                    "the pack does not have as many blocks as it should",
                ));
            }
            self.end(&bytes, &chunk.mark)?;
            return Ok(Some(chunk.blocks));
        }
        self.crc = crc(self.crc, &bytes);
        self.blocks += chunk.blocks.len() as u64;
        if let Some((number, _)) = chunk.blocks.iter().find(|(n, _)| *n >= self.nr_blocks) {
            return Err(Failure::new(format!(
                "chunk {place}: block {number} is beyond the last of {}",
                self.nr_blocks
            )));
        }
        Ok(Some(chunk.blocks))
    }

    fn check_end(&self) -> Result<(), Failure> {
        if self.has_end && !self.ended {
            return Err(Failure::new("the pack is cut off: it has no end"));
        }
        if self.blocks == 0 && !self.ended {
            return Err(Failure::new("the pack holds no blocks: was it cut off?"));
        }
        Ok(())
    }

    /// Reads a fresh reader's pack to its end without unpacking it: true if it is as it was written, false if
    /// that cannot be told, because the pack has no marks.
    pub fn check_marks(mut self) -> Result<bool, Failure> {
        let nothing = deflate::compress(&[]);
        let mark_of = |bytes: &[u8]| bytes.strip_prefix(&nothing[..]).map(<[u8]>::to_vec);
        while let Some(bytes) = self.next_bytes()? {
            let mark = mark_of(&bytes).unwrap_or_default();
            if self.ended {
                return Err(Failure::new("the pack goes on after its end"));
            }
            if self.chunks == 0 && mark != HAS_END {
                return Ok(false);
            }
            self.has_end = true;
            self.chunks += 1;
            if mark.len() == END_SIZE && mark.starts_with(END) {
                self.end(&bytes, &mark)?;
            } else {
                self.crc = crc(self.crc, &bytes);
            }
        }
        self.check_end().map(|()| true)
    }

    /// Takes the last chunk: the checksum must be that of all before it.
    fn end(&mut self, bytes: &[u8], mark: &[u8]) -> Result<(), Failure> {
        self.crc = crc(self.crc, &bytes[..bytes.len().saturating_sub(4)]);
        if mark.get(16..) != Some(&(!self.crc).to_le_bytes()) {
            return Err(Failure::new("the pack's checksum is wrong: it was changed"));
        }
        self.ended = true;
        Ok(())
    }
}

/// Reads until `buffer` is full or the input ends.
fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match input.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// Reads a whole pack from memory: whether it is good. For fuzzing.
pub fn check_bytes(bytes: &[u8]) -> Result<u64, Failure> {
    let mut reader = Reader::new(bytes)?;
    let mut blocks = 0;
    while let Some(chunk) = reader.next_chunk()? {
        blocks += chunk.len() as u64;
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), 5000).unwrap();
        let mut block = [0; BLOCK];
        for chunk in 0..3u64 {
            let mut blocks = Vec::new();
            for at in 0..4u64 {
                block[(chunk * 40 + at) as usize] = 1 + at as u8;
                blocks.push((chunk * 1000 + at, block));
            }
            let blocks: Vec<_> = blocks
                .iter()
                .map(|(number, block)| (*number, block))
                .collect();
            writer.chunk(&pack_chunk(&blocks).unwrap(), 4).unwrap();
        }
        writer.finish().unwrap().0
    }

    #[test]
    fn a_pack_cut_anywhere_is_refused() {
        let pack = sample();
        assert_eq!(check_bytes(&pack).unwrap(), 12);
        assert!(Reader::new(&pack[..]).unwrap().check_marks().unwrap());
        for end in 0..pack.len() {
            assert!(check_bytes(&pack[..end]).is_err(), "cut at {end}");
            let skimmed = Reader::new(&pack[..end]).and_then(Reader::check_marks);
            assert!(!skimmed.is_ok_and(|whole| whole), "cut at {end}");
        }
    }

    #[test]
    fn a_pack_with_any_bit_changed_is_refused() {
        let pack = sample();
        for bit in 0..8 * pack.len() {
            let mut bad = pack.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let skimmed = Reader::new(&bad[..]).and_then(Reader::check_marks);
            assert!(!skimmed.is_ok_and(|whole| whole), "bit {bit}");
            // What is left of a first mark that is gone is a pack such as other programs write.
            if let Ok(blocks) = check_bytes(&bad) {
                let first_mark = HEADER + 8..HEADER + 8 + deflate::compress(&[]).len() + 8;
                assert!(blocks == 12 && first_mark.contains(&(bit / 8)), "bit {bit}");
            }
        }
    }
}
