// SPDX-License-Identifier: GPL-2.0

//! Trees to events: definitions of what is shared, then the devices, mappings joined to runs.
//!
//! Leaves are read, verified and turned into whatever is wanted by several threads; order is kept.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;

use thin_format::block::BlockBytes;
use thin_format::block::BlockKind;
use thin_format::block::Buffer;
use thin_format::btree::Node;
use thin_format::error::Error;
use thin_format::error::Fault;
use thin_format::io::Store;
use thin_format::records::PackedMapping;
use thin_format::thin::Run;

use super::sharing::Sharing;
use super::BlockNumber;
use super::Forest;
use super::Tree;
use crate::ordered;
use crate::xml::Device;
use crate::xml::Event;

/// Leaves that a thread deals with at a time.
const BATCH: usize = 256;

/// Events besides leaves in a batch, at most.
const EVENTS: usize = 4096;

/// Blocks that nobody wants are read too if they are no more than this between two that somebody wants.
const GAP: u64 = 8;

/// Batches under way.
const AHEAD: usize = 8;

/// What the devices are made of, as a list of things to write.
enum Item {
    Event(Event),
    Leaf(BlockNumber),
}

/// Items for one thread.
struct Batch {
    items: Vec<Item>,
    /// Whether the mappings before the first item may go on in it.
    goes_on: bool,
}

/// Where events go: the threads have one for each batch.
pub trait Output: Send {
    /// An output with nothing in it.
    fn new() -> Self;
    /// Adds an event.
    fn add(&mut self, event: Event);
}

impl Output for Vec<Event> {
    fn new() -> Vec<Event> {
        Vec::new()
    }

    fn add(&mut self, event: Event) {
        self.push(event);
    }
}

/// What became of a batch.
struct Done<O> {
    /// The first run, if it may go on where the batch before ended.
    head: Option<Run>,
    output: O,
    /// Whether anything came between head and tail.
    is_broken: bool,
    /// The last run, if it may go on in the batch behind.
    tail: Option<Run>,
    leaves: usize,
    /// The last thin block so far, if leaves follow on one another.
    last: Option<u64>,
}

/// Why it stopped.
pub enum Stop<E> {
    /// A leaf cannot be used.
    Leaf {
        /// Its block.
        block: u64,
        /// Why.
        why: Error,
    },
    /// What the consumer said.
    Consumer(E),
}

/// Hands all events between the superblock's start and its end to `consume`, in portions and in order.
///
/// `progress` hears how many leaves were dealt with.
///
/// # Errors
///
/// A leaf that cannot be used, or the consumer's error. What comes before was handed over.
pub fn emit<O: Output, E>(
    store: &dyn Store,
    forest: &Forest,
    trees: &[Tree],
    sharing: &Sharing,
    mut progress: impl FnMut(u64),
    mut consume: impl FnMut(O) -> Result<(), E>,
) -> Result<(), Stop<E>> {
    let mut batches = batches(items(forest, trees, sharing));
    let buffers = Mutex::new(Vec::new());
    let mut carried: Option<Run> = None;
    let work = |batch: Batch| do_batch::<O>(store, &buffers, batch);
    ordered::run(
        AHEAD,
        move || batches.next(),
        work,
        |done: Result<Done<O>, (u64, Error)>| {
            let done = done.map_err(|(block, why)| Stop::Leaf { block, why })?;
            progress(done.leaves as u64);
            let mut between = O::new();
            let mut is_between = false;
            // A batch that is nothing but the rest of a run has it in `tail`.
            let first = if done.is_broken { done.head } else { done.tail };
            let is_joined = match (&mut carried, &first) {
                (Some(run), Some(first)) => run.extend(first),
                _ => false,
            };
            if !done.is_broken && is_joined {
                return Ok(());
            }
            if let Some(run) = carried.take() {
                between.add(Event::Run(run));
                is_between = true;
            }
            if let Some(head) = done.head.filter(|_| !is_joined) {
                between.add(Event::Run(head));
                is_between = true;
            }
            carried = done.tail;
            if is_between {
                consume(between).map_err(Stop::Consumer)?;
            }
            consume(done.output).map_err(Stop::Consumer)
        },
    )
    // The last item is the end of a device or of a definition, so no run is left over.
}

fn items<'a>(
    forest: &'a Forest,
    trees: &'a [Tree],
    sharing: &'a Sharing,
) -> impl Iterator<Item = Item> + Send + 'a {
    let definitions = sharing.firsts().flat_map(move |first| {
        let begin = Item::Event(Event::Def(first.to_string().into()));
        let leaves = sharing.sequence(first).map(Item::Leaf);
        std::iter::once(begin)
            .chain(leaves)
            .chain(std::iter::once(Item::Event(Event::DefEnd)))
    });
    let devices = trees.iter().flat_map(move |tree| {
        let begin = Item::Event(Event::Device(Box::new(device(tree))));
        let leaves = tree.root.into_iter().flat_map(move |root| {
            forest.leaves(root).filter_map(move |leaf| {
                if !sharing.is_shared(leaf) {
                    Some(Item::Leaf(leaf))
                } else if sharing.is_first(leaf) {
                    Some(Item::Event(Event::Ref(leaf.to_string().into())))
                } else {
                    None
                }
            })
        });
        std::iter::once(begin)
            .chain(leaves)
            .chain(std::iter::once(Item::Event(Event::DeviceEnd)))
    });
    definitions.chain(devices)
}

/// A device as the text formats say it.
pub fn device(tree: &Tree) -> Device {
    Device {
        dev_id: tree.device,
        mapped_blocks: tree.details.mapped_blocks,
        transaction: tree.details.transaction_id,
        creation_time: tree.details.creation_time,
        snap_time: tree.details.snapshotted_time,
    }
}

fn batches(items: impl Iterator<Item = Item> + Send) -> impl Iterator<Item = Batch> + Send {
    let mut items = items.peekable();
    let mut ended_with_leaf = false;
    std::iter::from_fn(move || {
        let mut batch = Batch {
            items: Vec::new(),
            goes_on: ended_with_leaf,
        };
        let mut leaves = 0;
        while leaves < BATCH && batch.items.len() < EVENTS {
            let Some(item) = items.next() else { break };
            ended_with_leaf = matches!(item, Item::Leaf(_));
            leaves += usize::from(ended_with_leaf);
            batch.items.push(item);
        }
        (!batch.items.is_empty()).then_some(batch)
    })
}

fn do_batch<O: Output>(
    store: &dyn Store,
    buffers: &Mutex<Vec<Buffer>>,
    batch: Batch,
) -> Result<Done<O>, (u64, Error)> {
    let buffer = buffers.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut leaves = LeafReader::new(
        store,
        buffer.unwrap_or_else(|| Buffer::new(BATCH)),
        &batch.items,
    );
    let mut done = Done {
        head: None,
        output: O::new(),
        is_broken: !batch.goes_on,
        tail: None,
        leaves: 0,
        last: None,
    };
    let mut outcome = Ok(());
    for item in batch.items {
        match item {
            Item::Event(event) => {
                done.flush();
                done.is_broken = true;
                done.last = None;
                done.output.add(event);
            }
            Item::Leaf(block) => {
                done.leaves += 1;
                let block = u64::from(block);
                outcome = leaves
                    .get(block)
                    .and_then(|bytes| done.add_leaf(block, bytes))
                    .map_err(|why| (block, why));
                if outcome.is_err() {
                    break;
                }
            }
        }
    }
    buffers
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(leaves.buffer);
    outcome.map(|()| done)
}

impl<O: Output> Done<O> {
    fn add_leaf(&mut self, block: u64, bytes: &BlockBytes) -> Result<(), Error> {
        let leaf = Node::verify(block, bytes, PackedMapping::BYTES as u32)?;
        if let Some(key) = leaf
            .first_key()
            .filter(|key| self.last.is_some_and(|last| last >= *key))
        {
            return Err(Error::block(
                block,
                BlockKind::Node,
                Fault::KeyRange { key },
            ));
        }
        self.last = leaf.last_key().or(self.last);
        for (thin, mapping) in leaf.entries::<PackedMapping>() {
            let next = Run::one(thin, mapping);
            if !self.tail.as_mut().is_some_and(|run| run.extend(&next)) {
                self.flush();
                self.tail = Some(next);
            }
        }
        Ok(())
    }

    fn flush(&mut self) {
        if let Some(run) = self.tail.take() {
            if self.is_broken {
                self.output.add(Event::Run(run));
            } else {
                self.head = Some(run);
                self.is_broken = true;
            }
        }
    }
}

/// Reads the leaves of a batch: neighbours together, in the order in which they are wanted as far as that goes.
struct LeafReader<'a> {
    store: &'a dyn Store,
    buffer: Buffer,
    /// What the buffer holds.
    held: Range<u64>,
    /// Wanted blocks, ascending.
    wanted: Vec<u64>,
}

impl<'a> LeafReader<'a> {
    fn new(store: &'a dyn Store, buffer: Buffer, items: &[Item]) -> LeafReader<'a> {
        let mut wanted: Vec<u64> = items
            .iter()
            .filter_map(|item| match item {
                Item::Leaf(block) => Some(u64::from(*block)),
                Item::Event(_) => None,
            })
            .collect();
        wanted.sort_unstable();
        LeafReader {
            store,
            buffer,
            held: 0..0,
            wanted,
        }
    }

    fn get(&mut self, block: u64) -> Result<&BlockBytes, Error> {
        if !self.held.contains(&block) {
            self.read_from(block)?;
        }
        let index = block.wrapping_sub(self.held.start);
        let bytes = usize::try_from(index)
            .ok()
            .and_then(|index| self.buffer.block(index));
        bytes.ok_or_else(|| Error::Read {
            block,
            why: std::sync::Arc::new(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
        })
    }

    /// Reads `block` and wanted blocks that follow it closely.
    fn read_from(&mut self, block: u64) -> Result<(), Error> {
        self.held = 0..0;
        let from = self.wanted.partition_point(|wanted| *wanted < block);
        let mut end = block.saturating_add(1);
        for wanted in self.wanted.get(from..).unwrap_or_default() {
            if wanted.saturating_sub(end) > GAP
                || wanted.saturating_sub(block) >= self.buffer.blocks() as u64
            {
                break;
            }
            end = end.max(wanted.saturating_add(1));
        }
        let length = end.saturating_sub(block) as usize;
        if length > 1
            && self
                .store
                .read(block, self.buffer.first_mut(length))
                .is_ok()
        {
            self.held = block..end;
            return Ok(());
        }
        self.store.read(block, self.buffer.first_mut(1))?;
        self.held = block..block.saturating_add(1);
        Ok(())
    }
}
