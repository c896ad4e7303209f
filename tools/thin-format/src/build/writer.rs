// SPDX-License-Identifier: GPL-2.0
//! Blocks written one after the other, checksummed and written by threads while the next ones are made.

use std::ops::Range;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread::Scope;

use crate::block::BlockBytes;
use crate::block::BlockKind;
use crate::block::Buffer;
use crate::block::BLOCK_SIZE;
use crate::checksum;
use crate::error::Error;
use crate::error::Result;
use crate::io::Store;

/// Blocks in one write: 1 MiB.
const BATCH: usize = 256;

/// Batches that are being filled or written. What they hold is all the memory that writing takes.
const BATCHES: usize = 6;

/// Allocates and writes blocks in ascending order.
pub(super) struct Writer<'a> {
    store: &'a dyn Store,
    batch: Batch,
    /// Blocks that there are, the one that comes next.
    end: u64,
    next: u64,
    to_workers: Option<Sender<Batch>>,
    empty: Receiver<Batch>,
    shared: &'a Shared,
    /// Only counts, writes nothing.
    is_rehearsal: bool,
}

struct Batch {
    first: u64,
    kinds: Vec<BlockKind>,
    buffer: Buffer,
}

/// What the writer shares with its threads.
#[derive(Default)]
pub(super) struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    /// First blocks of the batches that were handed over and are not written yet.
    in_flight: Vec<u64>,
    failure: Option<Error>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Writer<'a> {
    /// A writer of `blocks`, whose threads run in `scope`.
    pub(super) fn new<'scope>(
        scope: &'scope Scope<'scope, 'a>,
        store: &'a dyn Store,
        shared: &'a Shared,
        blocks: Range<u64>,
        threads: usize,
    ) -> Writer<'a> {
        let (to_workers, from_writer) = mpsc::channel::<Batch>();
        let (to_writer, empty) = mpsc::channel();
        for _ in 1..BATCHES {
            let _ = to_writer.send(Batch::new());
        }
        let from_writer = Arc::new(Mutex::new(from_writer));
        for _ in 0..threads.max(1) {
            let (from_writer, to_writer) = (from_writer.clone(), to_writer.clone());
            scope.spawn(move || loop {
                let batch = from_writer
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .recv();
                let Ok(mut batch) = batch else { return };
                let written = batch.write(store);
                let mut progress = shared.lock();
                progress.in_flight.retain(|&first| first != batch.first);
                if let Err(error) = written {
                    progress.failure.get_or_insert(error);
                }
                drop(progress);
                shared.changed.notify_all();
                let _ = to_writer.send(batch);
            });
        }
        let mut batch = Batch::new();
        batch.first = blocks.start;
        let to_workers = Some(to_workers);
        Writer {
            store,
            batch,
            end: blocks.end,
            next: blocks.start,
            to_workers,
            empty,
            shared,
            is_rehearsal: false,
        }
    }

    /// A writer that has all the room there is and only counts.
    pub(super) fn rehearsal(store: &'a dyn Store, shared: &'a Shared) -> Writer<'a> {
        let (_, empty) = mpsc::channel();
        let mut batch = Batch::new();
        batch.restart(1);
        Writer {
            store,
            batch,
            end: u64::MAX,
            next: 1,
            to_workers: None,
            empty,
            shared,
            is_rehearsal: true,
        }
    }

    /// How many blocks there are.
    pub(super) fn blocks(&self) -> u64 {
        self.end
    }

    /// Where it writes to.
    pub(super) fn store(&self) -> &'a dyn Store {
        self.store
    }

    /// The block that will be allocated next.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Whether nothing is written.
    pub(super) fn is_rehearsal(&self) -> bool {
        self.is_rehearsal
    }

    /// Allocates a block and lets `fill` fill it; it is all zeroes before.
    pub(super) fn put(
        &mut self,
        kind: BlockKind,
        fill: impl FnOnce(&mut BlockBytes),
    ) -> Result<u64> {
        if self.next >= self.end {
            return Err(Error::NoSpace {
                needed: self.next.saturating_add(1),
                free: self.end,
            });
        }
        if self.batch.kinds.len() >= BATCH {
            self.hand_over()?;
        }
        let block = self.next;
        let Some(bytes) = self.batch.buffer.block_mut(self.batch.kinds.len()) else {
            return Err(Error::NoSpace {
                needed: self.next.saturating_add(1),
                free: self.end,
            });
        };
        bytes.fill(0);
        fill(bytes);
        self.batch.kinds.push(kind);
        self.next = self.next.saturating_add(1);
        Ok(block)
    }

    /// Reads a block that was put before.
    pub(super) fn read_back(&mut self, block: u64) -> Result<Box<BlockBytes>> {
        let mut copy = Box::new([0; BLOCK_SIZE]);
        if self.is_rehearsal {
            return Ok(copy);
        }
        if let Some(index) = block.checked_sub(self.batch.first) {
            if let Some(bytes) = usize::try_from(index)
                .ok()
                .and_then(|index| self.batch.buffer.block(index))
            {
                copy.copy_from_slice(bytes);
                return Ok(copy);
            }
        }
        let covers = |first: &u64| (*first..first.saturating_add(BATCH as u64)).contains(&block);
        let mut progress = self.shared.lock();
        while progress.in_flight.iter().any(covers) {
            progress = self
                .shared
                .changed
                .wait(progress)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(progress);
        self.store.read_block(block)
    }

    fn hand_over(&mut self) -> Result {
        let next = self.next;
        let Some(to_workers) = &self.to_workers else {
            self.batch.restart(next);
            return Ok(());
        };
        let mut progress = self.shared.lock();
        if let Some(error) = progress.failure.take() {
            return Err(error);
        }
        progress.in_flight.push(self.batch.first);
        drop(progress);
        let mut batch = self.empty.recv().unwrap_or_else(|_| Batch::new());
        batch.restart(next);
        let full = std::mem::replace(&mut self.batch, batch);
        if let Err(lost) = to_workers.send(full) {
            // No thread is left to take it.
            let mut full = lost.0;
            full.write(self.store)?;
            self.shared
                .lock()
                .in_flight
                .retain(|&first| first != full.first);
        }
        Ok(())
    }

    /// Returns when everything that was put is written.
    pub(super) fn finish(&mut self) -> Result {
        if !self.batch.kinds.is_empty() {
            self.hand_over()?;
        }
        self.to_workers = None;
        let mut progress = self.shared.lock();
        while !progress.in_flight.is_empty() {
            progress = self
                .shared
                .changed
                .wait(progress)
                .unwrap_or_else(PoisonError::into_inner);
        }
        match progress.failure.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Batch {
    fn new() -> Batch {
        Batch {
            first: 0,
            kinds: Vec::with_capacity(BATCH),
            buffer: Buffer::new(BATCH),
        }
    }

    fn restart(&mut self, first: u64) {
        self.first = first;
        self.kinds.clear();
    }

    fn write(&mut self, store: &dyn Store) -> Result {
        for ((index, kind), block) in self.kinds.iter().enumerate().zip(self.first..) {
            if let Some(bytes) = self.buffer.block_mut(index) {
                checksum::seal(*kind, bytes, block);
            }
        }
        store.write(self.first, self.buffer.first_mut(self.kinds.len()))
    }
}
