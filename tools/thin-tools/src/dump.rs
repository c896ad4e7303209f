// SPDX-License-Identifier: GPL-2.0

//! `thin_dump`: metadata as text.

use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use thin_format::btree;
use thin_format::btree::Value;
use thin_format::error::Error;
use thin_format::io::Access;
use thin_format::io::Device as MetadataDevice;
use thin_format::io::Store;
use thin_format::records;
use thin_format::records::DeviceDetails;
use thin_format::superblock;
use thin_format::superblock::Demand;
use thin_format::thin;

use crate::cli::Arguments;
use crate::cli::Command;
use crate::cli::Context;
use crate::cli::Failure;
use crate::cli::Operand;
use crate::cli::Opt;
use crate::device;
use crate::overrides::Overrides;
use crate::repair;
use crate::report;
use crate::report::Progress;
use crate::report::Sink;
use crate::trees::emit;
use crate::trees::emit::Output;
use crate::trees::emit::Stop;
use crate::trees::sharing::Sharing;
use crate::trees::BlockNumber;
use crate::trees::Forest;
use crate::trees::Tree;
use crate::xml::write;
use crate::xml::write::Format;
use crate::xml::Event;
use crate::xml::Superblock;

/// The command line.
pub static COMMAND: Command = Command {
    details: "The line of the superblock is written at once, before anything else is read.",
    operands: &[Operand {
        name: "INPUT",
        required: true,
        help: "The device or file with the metadata",
    }],
    options: &[
        Opt::value(
            "format",
            "TYPE",
            "How to write it: xml (which is usual) or human_readable",
        )
        .short('f'),
        Opt::value(
            "output",
            "FILE",
            "Write to this file instead of standard output",
        )
        .short('o'),
        Opt::flag("repair", "Write what can be salvaged of damaged metadata")
            .short('r')
            .conflicts(&["metadata-snap"]),
        Opt::flag("skip-mappings", "Leave the mappings out"),
        Opt::value(
            "dev-id",
            "ID",
            "Only this device; can be given more than once",
        )
        .repeats(),
        Opt::optional(
            "metadata-snap",
            "BLOCK",
            "Read the metadata snapshot of a pool that is in use",
        )
        .short('m'),
        Overrides::TRANSACTION,
        Overrides::DATA_BLOCK_SIZE,
        Overrides::DATA_BLOCKS,
        Opt::QUIET,
        Opt::VERBOSE,
        Opt::IO_ENGINE,
    ],
    ..Command::new("thin_dump", "Write thin metadata as text")
};

/// Runs the tool.
///
/// # Errors
///
/// What is wrong with the metadata, or what could not be read or written.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let input = arguments.operand(0).unwrap_or(Path::new(""));
    let format = match arguments.text("format")? {
        None => Format::Xml,
        Some(name) => Format::from_name(name).ok_or_else(|| {
            arguments.invalid("format", name.as_ref(), "must be xml or human_readable")
        })?,
    };
    let only = Selection {
        devices: arguments.numbers("dev-id")?,
        skips_mappings: arguments.given("skip-mappings"),
    };
    let overrides = Overrides::from_arguments(arguments)?;
    let snapshot = arguments.number::<u64>("metadata-snap")?;
    let of_snapshot = arguments.given("metadata-snap");
    device::check_input(input)?;
    let access = if of_snapshot {
        Access::ReadInUse
    } else {
        Access::Read
    };
    let store =
        MetadataDevice::open(input, access).map_err(|error| Failure::new(error.to_string()))?;
    let out: Box<dyn Write + Send> = match arguments.path("output") {
        Some(path) => Box::new(
            File::create(path)
                .map_err(Failure::from)
                .context(|| path.display())?,
        ),
        None => Box::new(report::stdout()),
    };
    let mut writer = Writer { out, format };

    if arguments.given("repair") {
        return repair::dump(
            &store,
            input,
            &overrides,
            &only,
            arguments.given("quiet"),
            &mut writer,
        );
    }

    let main = superblock::read(&store, 0, Demand::Everything)
        .map_err(|error| bad_superblock(input, &error))?;
    let mut superblock = main.clone();
    if of_snapshot {
        let block = snapshot.unwrap_or(main.metadata_snapshot.0);
        if block == 0 {
            return Err(Failure::new(
                "no current metadata snap: 'dmsetup message POOL 0 reserve_metadata_snap' makes one",
            ));
        }
        superblock = superblock::read(&store, block, Demand::Everything)
            .map_err(|error| Failure::new(format!("metadata snap: {error}")))?;
    }
    let mut head = head(&superblock, superblock::data_space_map(&main).blocks);
    if !of_snapshot {
        head = overrides.raise(head);
    }
    writer.write(&Event::Superblock(Box::new(head)))?;
    writer.flush()?;

    if only.skips_mappings {
        skip_mappings(&store, &superblock, &only, &mut writer)?;
    } else {
        let progress = Progress::start("Dumping", Sink::choose(arguments.given("quiet")));
        dump(&store, &superblock, &only, &progress, &mut writer)?;
    }
    writer.write(&Event::SuperblockEnd)?;
    writer.flush()
}

/// What to say if there is no superblock.
pub fn bad_superblock(input: &Path, error: &Error) -> Failure {
    match device::mistaken(input) {
        Some(hint) => Failure::new(format!("{error}\n{hint}")),
        None => Failure::new(error.to_string()),
    }
}

/// The superblock as the text formats say it.
pub fn head(superblock: &records::Superblock, nr_data_blocks: u64) -> Superblock {
    Superblock {
        uuid: String::new(),
        time: superblock.time,
        transaction: superblock.transaction_id,
        flags: superblock.flags & records::Superblock::NEEDS_CHECK,
        version: superblock.version,
        data_block_size: superblock.data_block_size,
        nr_data_blocks,
        metadata_snap: None,
    }
}

/// Text on its way out.
pub struct Writer {
    /// Where it goes.
    pub out: Box<dyn Write + Send>,
    /// In which form.
    pub format: Format,
}

impl Writer {
    /// Writes one event.
    ///
    /// # Errors
    ///
    /// If writing fails.
    pub fn write(&mut self, event: &Event) -> Result<(), Failure> {
        let mut text = Vec::new();
        write::append(&mut text, self.format, event);
        Ok(self.out.write_all(&text)?)
    }

    /// Passes on what was written.
    ///
    /// # Errors
    ///
    /// If writing fails.
    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }

    /// Writes everything about `trees`.
    ///
    /// # Errors
    ///
    /// If a leaf cannot be used, or writing fails.
    pub fn write_trees(
        &mut self,
        store: &dyn Store,
        forest: &Forest,
        trees: &[Tree],
        sharing: &Sharing,
        progress: impl FnMut(u64),
    ) -> Result<(), Stop<Failure>> {
        let out = &mut self.out;
        match self.format {
            Format::Xml => emit::emit(store, forest, trees, sharing, progress, |text: Xml| {
                write_text(out, &text.0)
            }),
            Format::HumanReadable => {
                emit::emit(store, forest, trees, sharing, progress, |text: Human| {
                    write_text(out, &text.0)
                })
            }
        }
    }
}

fn write_text(out: &mut Box<dyn Write + Send>, text: &[u8]) -> Result<(), Failure> {
    Ok(out.write_all(text)?)
}

struct Xml(Vec<u8>);

impl Output for Xml {
    fn new() -> Xml {
        Xml(Vec::new())
    }

    fn add(&mut self, event: Event) {
        write::append(&mut self.0, Format::Xml, &event);
    }
}

struct Human(Vec<u8>);

impl Output for Human {
    fn new() -> Human {
        Human(Vec::new())
    }

    fn add(&mut self, event: Event) {
        write::append(&mut self.0, Format::HumanReadable, &event);
    }
}

/// Which parts of the metadata to write.
pub struct Selection {
    /// The devices; all if there are none.
    pub devices: Vec<u64>,
    /// Leaves the mappings out.
    pub skips_mappings: bool,
}

impl Selection {
    /// Whether the device is one of them.
    pub fn wants(&self, device: u64) -> bool {
        self.devices.is_empty() || self.devices.contains(&device)
    }
}

fn skip_mappings(
    store: &dyn Store,
    superblock: &records::Superblock,
    only: &Selection,
    writer: &mut Writer,
) -> Result<(), Failure> {
    let mut outcome = Ok(());
    let root = superblock.details_root.0;
    btree::entries::<DeviceDetails>(store, root, 0, None, &mut |device, details| {
        if !only.wants(device) {
            return ControlFlow::Continue(());
        }
        let begin = Event::Device(Box::new(emit::device(&Tree {
            device,
            details,
            root: None,
        })));
        outcome = writer
            .write(&begin)
            .and_then(|()| writer.write(&Event::DeviceEnd));
        match outcome {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })
    .map_err(|error| Failure::new(format!("device details: {error}")))?;
    outcome
}

/// Writes the devices and their mappings, what several devices share before them.
///
/// # Errors
///
/// What is wrong with the metadata, or what could not be read or written.
pub fn dump(
    store: &dyn Store,
    superblock: &records::Superblock,
    only: &Selection,
    progress: &Progress,
    writer: &mut Writer,
) -> Result<(), Failure> {
    let devices = thin::devices(store, superblock.mapping_root.0, superblock.details_root.0)
        .map_err(|error| Failure::new(format!("device trees: {error}{REPAIR_HINT}")))?;
    let mut complete = Vec::new();
    for device in devices.iter().filter(|device| only.wants(device.id)) {
        match (device.root, device.details) {
            (Some(root), Some(details)) => complete.push((device.id, root, details)),
            (Some(_), None) => return Err(inconsistent(device.id, "mappings but no details")),
            _ => return Err(inconsistent(device.id, "details but no mappings")),
        }
    }
    let (forest, bad) = Forest::load(store, complete.iter().map(|(_, root, _)| *root));
    let trees: Vec<Tree> = complete
        .iter()
        .map(|(device, root, details)| Tree {
            device: *device,
            details: *details,
            root: BlockNumber::try_from(*root).ok(),
        })
        .collect();
    if let Some(bad) = bad.first() {
        // Only parts without damage are in the forest: the node is not there.
        let skip = |block: u64| {
            BlockNumber::try_from(block).is_ok_and(|block| forest.internal(block).is_some())
        };
        return Err(bad_node(store, &trees, bad.block, &bad.why, skip));
    }
    let roots: Vec<BlockNumber> = trees.iter().filter_map(|tree| tree.root).collect();
    let sharing = Sharing::new(&forest, &roots);
    progress.stage("reading mappings", forest.leaf_count(&roots));
    let counter = progress.counter();
    let outcome = writer.write_trees(store, &forest, &trees, &sharing, |leaves| {
        counter.advance(leaves)
    });
    outcome.map_err(|stop| match stop {
        Stop::Leaf { block, why } => {
            let skip = |block: u64| {
                BlockNumber::try_from(block).is_ok_and(|block| forest.internal(block).is_none())
            };
            bad_node(store, &trees, block, &why, skip)
        }
        Stop::Consumer(failure) => failure,
    })
}

/// What to do about damage.
const REPAIR_HINT: &str =
    "\nthin_check says more; thin_dump --repair and thin_repair salvage what is not damaged";

fn inconsistent(device: u64, what: &str) -> Failure {
    Failure::new(format!(
        "Inconsistency between the details tree and the mapping tree: device {device} has {what}{REPAIR_HINT}"
    ))
}

/// Says which devices a node is about. Nothing is below the nodes that `skip` knows.
fn bad_node(
    store: &dyn Store,
    trees: &[Tree],
    block: u64,
    why: &Error,
    skip: impl Fn(u64) -> bool,
) -> Failure {
    let mut owners = Vec::new();
    for tree in trees {
        let Some(root) = tree.root else { continue };
        let mut has_it = false;
        let _ = btree::walk(store, root.into(), u64::BYTES, &mut |at| {
            if let btree::Visit::Before(child) = at {
                has_it |= child.block == block;
                if has_it || skip(child.block) {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        if has_it {
            owners.push(tree.device.to_string());
        }
        if owners.len() > 8 {
            owners.push("more".into());
            break;
        }
    }
    let devices = match owners.as_slice() {
        [] => String::new(),
        [one] => format!(" (in device {one})"),
        many => format!(" (in devices {})", many.join(", ")),
    };
    Failure::new(format!("{why}{devices}{REPAIR_HINT}"))
}
