// SPDX-License-Identifier: GPL-2.0
//! Reading and writing metadata blocks.
//!
//! [`Store`] is anything that holds numbered blocks: a device or file ([`Device`]), or memory in
//! tests ([`Memory`]). [`read_blocks`] and [`scan`] read many blocks with several threads at a
//! time, in large pieces, and hand each block with its number, or its own error, to a visitor.
//!
//! Devices are read past the page cache where the file system can do that: metadata is read once,
//! and a pool that the kernel has open writes past the page cache too. Each thread has one buffer
//! and does not read on before its visitor is done with what it read, so memory stays bounded
//! however slow the visitor is.

use crate::block::{blocks_of, BlockBytes, Buffer, BLOCK_BYTES, BLOCK_SIZE};
use crate::error::{Error, OpenError, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;

/// Numbered blocks of 4096 bytes that can be read and written from several threads.
pub trait Store: Sync {
    /// How many blocks there are.
    fn blocks(&self) -> u64;

    /// Fills `bytes` (a whole number of blocks) with the blocks from `first` on.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if any of the blocks cannot be read; `bytes` is then undefined.
    fn read(&self, first: u64, bytes: &mut [u8]) -> Result;

    /// Replaces the blocks from `first` on with `bytes` (a whole number of blocks).
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if any of the blocks cannot be written; what they then hold is undefined.
    fn write(&self, first: u64, bytes: &[u8]) -> Result;

    /// Returns when everything written before is durable.
    ///
    /// # Errors
    ///
    /// [`Error::Flush`]; what was written since the last flush may then be lost.
    fn flush(&self) -> Result;

    /// Reads one block.
    ///
    /// # Errors
    ///
    /// [`Error::Read`].
    fn read_block(&self, block: u64) -> Result<Box<BlockBytes>> {
        let mut buffer = Buffer::new(1);
        self.read(block, buffer.bytes_mut())?;
        let mut bytes = Box::new([0; BLOCK_SIZE]);
        bytes.copy_from_slice(buffer.bytes());
        Ok(bytes)
    }

    /// Writes one block.
    ///
    /// # Errors
    ///
    /// [`Error::Write`].
    fn write_block(&self, block: u64, bytes: &BlockBytes) -> Result {
        let mut buffer = Buffer::new(1);
        buffer.bytes_mut().copy_from_slice(bytes);
        self.write(block, buffer.bytes())
    }
}

/// How a device is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For reading, refused while the device is in use.
    Read,
    /// For reading while a pool is using it: only the metadata snapshot is stable then.
    ReadInUse,
    /// For reading and writing, refused while the device is in use.
    Write,
}

/// A block device or a regular file that holds metadata.
pub struct Device {
    file: File,
    path: PathBuf,
    blocks: u64,
    direct: bool,
}

/// `O_EXCL`: on a block device, refuse if the kernel is using it.
const O_EXCL: i32 = 0o200;

/// `O_DIRECT`: past the page cache.
#[cfg(any(
    target_arch = "aarch64",
    target_arch = "arm",
    target_arch = "powerpc64"
))]
const O_DIRECT: i32 = if cfg!(target_arch = "powerpc64") {
    0o400_000
} else {
    0o200_000
};
#[cfg(not(any(
    target_arch = "aarch64",
    target_arch = "arm",
    target_arch = "powerpc64"
)))]
const O_DIRECT: i32 = 0o40_000;

impl Device {
    /// Opens the device or file `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Open`].
    pub fn open(path: impl AsRef<Path>, access: Access) -> Result<Device> {
        let path = path.as_ref();
        Device::open_as(path, access).map_err(|why| Error::Open {
            path: path.to_path_buf(),
            why,
        })
    }

    fn open_as(path: &Path, access: Access) -> std::result::Result<Device, OpenError> {
        let kind = std::fs::metadata(path).map_err(open_error)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::WrongType);
        }
        let exclusive = if access == Access::ReadInUse {
            0
        } else {
            O_EXCL
        };
        let open = |direct: i32| {
            OpenOptions::new()
                .read(true)
                .write(access == Access::Write)
                .custom_flags(exclusive | direct)
                .open(path)
        };
        let (mut file, direct) = match open(O_DIRECT) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                (open(0).map_err(open_error)?, false)
            }
            Err(error) => return Err(open_error(error)),
        };
        let blocks = file.seek(SeekFrom::End(0)).map_err(open_error)? / BLOCK_BYTES;
        if blocks == 0 {
            return Err(OpenError::TooSmall);
        }
        let mut device = Device {
            file,
            path: path.to_path_buf(),
            blocks,
            direct,
        };
        if direct {
            // Some file systems take the flag and then refuse the reading.
            let refused = device.file.read_at(Buffer::new(1).bytes_mut(), 0);
            if refused.is_err_and(|error| error.kind() == ErrorKind::InvalidInput) {
                device.file = open(0).map_err(open_error)?;
                device.direct = false;
            }
        }
        Ok(device)
    }

    /// The name it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn open_error(error: io::Error) -> OpenError {
    match error.kind() {
        ErrorKind::NotFound => OpenError::Missing,
        ErrorKind::ResourceBusy => OpenError::InUse,
        _ => OpenError::Other(Arc::new(error)),
    }
}

/// The end of the device came before the end of what was asked for.
fn beyond_end() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "beyond the end of the device")
}

/// Whether direct I/O can use this memory as it is.
fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().align_offset(BLOCK_SIZE) == 0
}

impl Store for Device {
    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn read(&self, first: u64, bytes: &mut [u8]) -> Result {
        if self.direct && !is_aligned(bytes) {
            let mut buffer = Buffer::new(bytes.len() / BLOCK_SIZE);
            self.read(first, buffer.bytes_mut())?;
            for (to, from) in bytes
                .chunks_exact_mut(BLOCK_SIZE)
                .zip(buffer.bytes().chunks_exact(BLOCK_SIZE))
            {
                to.copy_from_slice(from);
            }
            return Ok(());
        }
        let fail = |why| Error::Read {
            block: first,
            why: Arc::new(why),
        };
        let end = first
            .checked_add(bytes.len() as u64 / BLOCK_BYTES)
            .filter(|end| *end <= self.blocks);
        let (Some(_), Some(mut at)) = (end, first.checked_mul(BLOCK_BYTES)) else {
            return Err(fail(beyond_end()));
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.file.read_at(rest, at) {
                Ok(0) => return Err(fail(beyond_end())),
                Ok(got) => {
                    rest = rest.get_mut(got..).unwrap_or_default();
                    at = at.saturating_add(got as u64);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(fail(error)),
            }
        }
        Ok(())
    }

    fn write(&self, first: u64, bytes: &[u8]) -> Result {
        if self.direct && !is_aligned(bytes) {
            let mut buffer = Buffer::new(bytes.len() / BLOCK_SIZE);
            for (to, from) in buffer
                .bytes_mut()
                .chunks_exact_mut(BLOCK_SIZE)
                .zip(bytes.chunks_exact(BLOCK_SIZE))
            {
                to.copy_from_slice(from);
            }
            return self.write(first, buffer.bytes());
        }
        let fail = |why| Error::Write {
            block: first,
            why: Arc::new(why),
        };
        let end = first
            .checked_add(bytes.len() as u64 / BLOCK_BYTES)
            .filter(|end| *end <= self.blocks);
        let (Some(_), Some(at)) = (end, first.checked_mul(BLOCK_BYTES)) else {
            return Err(fail(beyond_end()));
        };
        self.file.write_all_at(bytes, at).map_err(fail)
    }

    fn flush(&self) -> Result {
        // Also empties the device's own write cache, which direct I/O alone does not.
        self.file
            .sync_all()
            .map_err(|why| Error::Flush(Arc::new(why)))
    }
}

/// Blocks in memory: metadata for tests, and for tools that build before they write.
#[derive(Default)]
pub struct Memory {
    bytes: RwLock<Vec<u8>>,
    blocks: u64,
}

impl Memory {
    /// `blocks` zeroed blocks.
    pub fn new(blocks: u64) -> Memory {
        Memory::from_bytes(vec![0; (blocks as usize).saturating_mul(BLOCK_SIZE)])
    }

    /// The blocks of `bytes`; a shorter rest is not part of any.
    pub fn from_bytes(bytes: Vec<u8>) -> Memory {
        let blocks = bytes.len() as u64 / BLOCK_BYTES;
        Memory {
            bytes: RwLock::new(bytes),
            blocks,
        }
    }

    /// A copy of everything it holds.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn range(first: u64, length: usize) -> Option<std::ops::Range<usize>> {
        let from = usize::try_from(first.checked_mul(BLOCK_BYTES)?).ok()?;
        Some(from..from.checked_add(length)?)
    }
}

impl Store for Memory {
    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn read(&self, first: u64, bytes: &mut [u8]) -> Result {
        let memory = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let from = Memory::range(first, bytes.len()).and_then(|range| memory.get(range));
        let from = from.ok_or_else(|| Error::Read {
            block: first,
            why: Arc::new(beyond_end()),
        })?;
        bytes.copy_from_slice(from);
        Ok(())
    }

    fn write(&self, first: u64, bytes: &[u8]) -> Result {
        let mut memory = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let to = Memory::range(first, bytes.len()).and_then(|range| memory.get_mut(range));
        let to = to.ok_or_else(|| Error::Write {
            block: first,
            why: Arc::new(beyond_end()),
        })?;
        to.copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&self) -> Result {
        Ok(())
    }
}

/// Blocks in one read of [`read_blocks`] and [`scan`]: 1 MiB, which spinning disks and flash both
/// like.
pub const READ_BLOCKS: usize = 256;

/// Blocks that nobody asked for are read too if that joins two pieces into one and they are no more
/// than this.
const GAP: u64 = 16;

/// How many threads to read with: enough to keep a device busy while others compute.
pub fn default_threads() -> usize {
    thread::available_parallelism().map_or(4, |cpus| cpus.get().saturating_mul(2).clamp(4, 16))
}

/// Reads the blocks named by `wanted` (ascending) with `threads` threads, in order of location.
///
/// Each thread makes a state with `start`, hands every block it read, or the error of that very
/// block, to `visit`, and gives its state back. Neighbouring blocks are read in one go; if that
/// fails, each one alone.
pub fn read_blocks<N, S, M, V>(
    store: &dyn Store,
    wanted: &[N],
    threads: usize,
    start: M,
    visit: V,
) -> Vec<S>
where
    N: Copy + Into<u64> + Sync,
    S: Send,
    M: Fn() -> S + Sync,
    V: Fn(&mut S, u64, Result<&BlockBytes>) + Sync,
{
    let next = Mutex::new(0usize);
    // Takes the next piece of work: as many wanted blocks as one read can cover.
    let take = || -> Option<&[N]> {
        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = wanted.get(*next..)?;
        let first: u64 = (*rest.first()?).into();
        let mut before = first;
        let count = rest
            .iter()
            .take_while(|block| {
                let block: u64 = (**block).into();
                let near = block.saturating_sub(before) <= GAP
                    && block.saturating_sub(first) < READ_BLOCKS as u64;
                before = block;
                near && block >= first
            })
            .count()
            .max(1);
        *next = next.saturating_add(count);
        rest.get(..count)
    };
    let ends: Option<(u64, u64)> = wanted
        .first()
        .zip(wanted.last())
        .map(|(a, b)| ((*a).into(), (*b).into()));
    let span = ends.map_or(0, |(first, last)| {
        last.saturating_sub(first).saturating_add(1)
    });
    let room = span.min(READ_BLOCKS as u64) as usize;
    in_threads(threads.min(wanted.len()), || {
        let mut state = start();
        let mut buffer = Buffer::new(room);
        while let Some(piece) = take() {
            let (Some(first), Some(last)) = (piece.first(), piece.last()) else {
                break;
            };
            let (first, last): (u64, u64) = ((*first).into(), (*last).into());
            let span = last.saturating_sub(first).saturating_add(1) as usize;
            let together = store.read(first, buffer.first_mut(span)).is_ok();
            for block in piece {
                let block: u64 = (*block).into();
                if together {
                    if let Some(bytes) = buffer.block(block.saturating_sub(first) as usize) {
                        visit(&mut state, block, Ok(bytes));
                    }
                    continue;
                }
                match store.read(block, buffer.first_mut(1)) {
                    Ok(()) => {
                        if let Some(bytes) = buffer.block(0) {
                            visit(&mut state, block, Ok(bytes));
                        }
                    }
                    Err(error) => visit(&mut state, block, Err(error)),
                }
            }
        }
        state
    })
}

/// The blocks named by `wanted` in that order, one after the other; neighbours come with one read.
///
/// Memory: at most [`READ_BLOCKS`] blocks at a time.
pub fn read_together<'a>(
    store: &'a dyn Store,
    wanted: impl Iterator<Item = u64> + 'a,
) -> impl Iterator<Item = Result<Box<BlockBytes>>> + 'a {
    let mut wanted = wanted.peekable();
    let mut ready = std::collections::VecDeque::new();
    std::iter::from_fn(move || {
        if ready.is_empty() {
            let first = wanted.next()?;
            let mut run = 1u64;
            while run < READ_BLOCKS as u64
                && wanted
                    .next_if(|block| first.checked_add(run) == Some(*block))
                    .is_some()
            {
                run = run.saturating_add(1);
            }
            let mut buffer = Buffer::new(run as usize);
            if run > 1 && store.read(first, buffer.bytes_mut()).is_ok() {
                ready.extend(blocks_of(buffer.bytes()).map(|block| Ok(Box::new(*block))));
            } else {
                ready.extend((0..run).map(|index| store.read_block(first.saturating_add(index))));
            }
        }
        ready.pop_front()
    })
}

/// Reads all blocks from `first` up to, not including, `end` as [`read_blocks`] does.
pub fn scan<S, M, V>(
    store: &dyn Store,
    first: u64,
    end: u64,
    threads: usize,
    start: M,
    visit: V,
) -> Vec<S>
where
    S: Send,
    M: Fn() -> S + Sync,
    V: Fn(&mut S, u64, Result<&BlockBytes>) + Sync,
{
    let next = AtomicUsize::new(0);
    let pieces = end.saturating_sub(first).div_ceil(READ_BLOCKS as u64);
    in_threads(threads.min(pieces as usize), || {
        let mut state = start();
        let mut buffer = Buffer::new(READ_BLOCKS);
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed) as u64;
            if piece >= pieces {
                return state;
            }
            let from = first.saturating_add(piece.saturating_mul(READ_BLOCKS as u64));
            let count = end.saturating_sub(from).min(READ_BLOCKS as u64);
            let to = from.saturating_add(count);
            if store.read(from, buffer.first_mut(count as usize)).is_ok() {
                for (block, bytes) in (from..to).zip(blocks_of(buffer.bytes())) {
                    visit(&mut state, block, Ok(bytes));
                }
                continue;
            }
            for block in from..to {
                match store.read(block, buffer.first_mut(1)) {
                    Ok(()) => {
                        if let Some(bytes) = buffer.block(0) {
                            visit(&mut state, block, Ok(bytes));
                        }
                    }
                    Err(error) => visit(&mut state, block, Err(error)),
                }
            }
        }
    })
}

/// Runs `work` in `threads` threads (one at least) and collects what they return.
fn in_threads<S: Send>(threads: usize, work: impl Fn() -> S + Sync) -> Vec<S> {
    if threads <= 1 {
        return vec![work()];
    }
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            // A thread that cannot be made is done without.
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, &work).ok())
            .collect();
        let mut states = vec![work()];
        for other in others {
            match other.join() {
                Ok(state) => states.push(state),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        states
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Blocks that hold their number, some of which cannot be read.
    struct Faulty {
        blocks: u64,
        bad: BTreeSet<u64>,
    }

    impl Store for Faulty {
        fn blocks(&self) -> u64 {
            self.blocks
        }
        fn read(&self, first: u64, bytes: &mut [u8]) -> Result {
            for (block, bytes) in (first..).zip(bytes.chunks_exact_mut(BLOCK_SIZE)) {
                if block >= self.blocks || self.bad.contains(&block) {
                    return Err(Error::Read {
                        block: first,
                        why: Arc::new(beyond_end()),
                    });
                }
                bytes.fill(block as u8);
            }
            Ok(())
        }
        fn write(&self, first: u64, _: &[u8]) -> Result {
            Err(Error::Write {
                block: first,
                why: Arc::new(beyond_end()),
            })
        }
        fn flush(&self) -> Result {
            Ok(())
        }
    }

    fn collect(states: Vec<Vec<(u64, bool)>>) -> Vec<(u64, bool)> {
        let mut all: Vec<_> = states.into_iter().flatten().collect();
        all.sort_unstable();
        all
    }

    fn note(seen: &mut Vec<(u64, bool)>, block: u64, bytes: Result<&BlockBytes>) {
        if let Ok(bytes) = &bytes {
            assert!(bytes.iter().all(|byte| *byte == block as u8));
        }
        seen.push((block, bytes.is_ok()));
    }

    #[test]
    fn every_block_is_seen_once_and_only_bad_blocks_fail() {
        let store = Faulty {
            blocks: 5000,
            bad: [0, 7, 300, 301, 4999].into(),
        };
        for threads in [1, 3] {
            let seen = collect(scan(&store, 0, 5000, threads, Vec::new, note));
            let expected: Vec<_> = (0..5000)
                .map(|block| (block, !store.bad.contains(&block)))
                .collect();
            assert_eq!(seen, expected);
            let wanted: Vec<u32> = (0..5000)
                .filter(|block| block % 7 < 3 || block % 400 == 0)
                .collect();
            let seen = collect(read_blocks(&store, &wanted, threads, Vec::new, note));
            let expected: Vec<_> = wanted
                .iter()
                .map(|block| u64::from(*block))
                .map(|block| (block, !store.bad.contains(&block)))
                .collect();
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn beyond_the_end_is_an_error() {
        let memory = Memory::new(3);
        assert!(memory.read_block(3).is_err());
        assert!(memory.read_block(u64::MAX).is_err());
        assert!(memory.write_block(2, &[1; BLOCK_SIZE]).is_ok());
        assert_eq!(*memory.read_block(2).unwrap(), [1; BLOCK_SIZE]);
    }
}
