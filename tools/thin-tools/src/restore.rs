// SPDX-License-Identifier: GPL-2.0

//! `thin_restore`: metadata from XML.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::io::Seek;
use std::io::SeekFrom;
use std::path::Path;

use thin_format::build;
use thin_format::build::Builder;
use thin_format::build::Mappings;
use thin_format::build::Pool;
use thin_format::build::SharedMappings;
use thin_format::io::Access;
use thin_format::io::Device as MetadataDevice;
use thin_format::records::units::BlockSize;
use thin_format::records::units::DeviceId;
use thin_format::records::DeviceDetails;
use thin_format::records::Superblock as SuperblockRecord;
use thin_format::thin::Run;

use crate::cli::Arguments;
use crate::cli::Command;
use crate::cli::Context;
use crate::cli::Failure;
use crate::cli::Operand;
use crate::cli::Opt;
use crate::device;
use crate::overrides::Overrides;
use crate::report;
use crate::report::Progress;
use crate::report::Sink;
use crate::xml;
use crate::xml::read;
use crate::xml::read::Stop;
use crate::xml::Event;

/// The command line.
pub static COMMAND: Command = Command {
    details: "The old metadata on OUTPUT is gone as soon as this begins; its superblock is written last.\n\
              A number of mapped blocks that is not the true one is put right.",
    operands: &[Operand { name: "IGNORED", required: false, help: "" }],
    options: &[
        Opt::value("input", "FILE", "The XML to read").short('i').required(),
        Opt::value("output", "FILE", "The device or file to write to; it must be there and large enough")
            .short('o')
            .required(),
        Overrides::TRANSACTION,
        Overrides::EXACT_TRANSACTION,
        Overrides::DATA_BLOCK_SIZE,
        Overrides::DATA_BLOCKS,
        Opt::QUIET,
        Opt::VERBOSE,
        Opt::IO_ENGINE,
    ],
    ..Command::new("thin_restore", "Write thin metadata from XML to a device")
};

/// Runs the tool.
///
/// # Errors
///
/// What is wrong with the XML and where, or what could not be read or written.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let input = arguments.path("input").unwrap_or(Path::new(""));
    let output = arguments.path("output").unwrap_or(Path::new(""));
    let overrides = Overrides::from_arguments(arguments)?;
    let is_quiet = arguments.given("quiet");
    device::check_file(input)?;
    device::check_output(output)?;
    let mut file = File::open(input)
        .map_err(Failure::from)
        .context(|| input.display())?;
    let size = file.seek(SeekFrom::End(0))?;
    let superblock = read_superblock(&mut file).context(|| input.display())?;
    let superblock = overrides.apply(superblock)?;
    let store = MetadataDevice::open(output, Access::Write)
        .map_err(|error| Failure::new(error.to_string()))?;

    let progress = Progress::start("Restoring", Sink::choose(is_quiet));
    progress.stage("writing metadata", size);
    let counter = progress.counter();
    let mut corrected = Vec::new();
    let built = build::build(&store, superblock.nr_data_blocks, |builder| {
        let mut restorer = Restorer::new(builder);
        read::read(
            file,
            |bytes| counter.advance(bytes),
            |event| restorer.take(event),
        )
        .context(|| input.display())
        .map_err(Failed)?;
        restorer.check_complete().map_err(Failed)?;
        corrected = restorer.corrected;
        Ok(pool(&superblock))
    });
    drop(progress);
    built.map_err(|Failed(failure)| failure)?;
    if !is_quiet {
        for (device, said, counted) in corrected {
            report::say(&format!("device {device}: mapped_blocks was {said}, but there are {counted} mappings; corrected"));
        }
    }
    Ok(())
}

/// A failure, as the builder passes it through.
pub struct Failed(pub Failure);

impl From<build::Error> for Failed {
    fn from(error: build::Error) -> Failed {
        Failed(Failure::new(error.to_string()))
    }
}

impl From<Stop> for Failed {
    fn from(stop: Stop) -> Failed {
        match stop {
            Stop::Fault(what) => Failed(Failure::new(what)),
            Stop::Failure(failure) => Failed(failure),
        }
    }
}

fn read_superblock(file: &mut File) -> Result<xml::Superblock, Failure> {
    file.seek(SeekFrom::Start(0))?;
    let first = read::first(&mut io::Read::by_ref(file))?;
    file.seek(SeekFrom::Start(0))?;
    match first {
        Event::Superblock(superblock) => Ok(*superblock),
        _ => Err(Failure::new("the first element must be 'superblock'")),
    }
}

/// What of the text's superblock goes into the real one.
pub fn pool(superblock: &xml::Superblock) -> Pool {
    Pool {
        time: superblock.time,
        transaction_id: superblock.transaction,
        data_block_size: superblock.data_block_size,
        needs_check: false,
    }
}

/// Turns events into calls of the builder.
pub struct Restorer<'a, 'b> {
    builder: &'a mut Builder<'b>,
    place: Place,
    shared: HashMap<Box<str>, (SharedMappings, u64)>,
    devices: HashSet<u64>,
    /// Devices whose number of mappings was another than the text said: id, said, counted.
    corrected: Vec<(u64, u64, u64)>,
}

/// Where in the text we are.
enum Place {
    Before,
    Superblock,
    Def {
        name: Box<str>,
        mappings: Mappings,
        count: u64,
    },
    Device {
        device: xml::Device,
        mappings: Mappings,
        count: u64,
    },
    After,
}

impl<'a, 'b> Restorer<'a, 'b> {
    fn new(builder: &'a mut Builder<'b>) -> Restorer<'a, 'b> {
        Restorer {
            builder,
            place: Place::Before,
            shared: HashMap::new(),
            devices: HashSet::new(),
            corrected: Vec::new(),
        }
    }

    /// A restorer that has been told of the superblock already.
    pub fn inside(builder: &'a mut Builder<'b>) -> Restorer<'a, 'b> {
        Restorer {
            place: Place::Superblock,
            ..Restorer::new(builder)
        }
    }

    /// Takes the next event.
    ///
    /// # Errors
    ///
    /// If it makes no sense here, or writing fails.
    pub fn take(&mut self, event: Event) -> Result<(), Stop> {
        match (&mut self.place, event) {
            (
                Place::Def {
                    mappings, count, ..
                }
                | Place::Device {
                    mappings, count, ..
                },
                Event::Run(run),
            ) => push(self.builder, mappings, count, &run),
            (Place::Before, Event::Superblock(superblock)) => {
                if SuperblockRecord::VERSION < superblock.version {
                    return Err(fault(format!(
                        "version {} of the metadata is not supported",
                        superblock.version
                    )));
                }
                self.place = Place::Superblock;
                Ok(())
            }
            (Place::Superblock, Event::SuperblockEnd) => {
                for (_, (shared, _)) in self.shared.drain() {
                    self.builder.release(shared).map_err(build_stop)?;
                }
                self.place = Place::After;
                Ok(())
            }
            (Place::Superblock, Event::Def(name)) => {
                if self.shared.contains_key(&name) {
                    return Err(fault(format!("def '{name}' is there twice")));
                }
                self.place = Place::Def {
                    name,
                    mappings: self.builder.mappings(),
                    count: 0,
                };
                Ok(())
            }
            (Place::Superblock, Event::Device(device)) => {
                if device.dev_id > DeviceId::MAX.key() {
                    return Err(fault(format!("device id {} is too large", device.dev_id)));
                }
                if !self.devices.insert(device.dev_id) {
                    return Err(fault(format!("device {} is there twice", device.dev_id)));
                }
                self.place = Place::Device {
                    device: *device,
                    mappings: self.builder.mappings(),
                    count: 0,
                };
                Ok(())
            }
            (
                Place::Device {
                    mappings, count, ..
                },
                Event::Ref(name),
            ) => match self.shared.get(&name) {
                Some((shared, length)) => {
                    *count = count.saturating_add(*length);
                    self.builder
                        .push_shared(mappings, shared)
                        .map_err(build_stop)
                }
                None => Err(fault(format!("no def '{name}' comes before this"))),
            },
            (Place::Def { .. }, Event::DefEnd) | (Place::Device { .. }, Event::DeviceEnd) => {
                self.end()
            }
            (_, event) => Err(fault(format!(
                "element '{}' has no place here",
                name_of(&event)
            ))),
        }
    }

    fn end(&mut self) -> Result<(), Stop> {
        match std::mem::replace(&mut self.place, Place::Superblock) {
            Place::Def {
                name,
                mappings,
                count,
            } => {
                let shared = self.builder.shared(mappings).map_err(build_stop)?;
                self.shared.insert(name, (shared, count));
            }
            Place::Device {
                device,
                mappings,
                count,
            } => {
                if device.mapped_blocks != count {
                    self.corrected
                        .push((device.dev_id, device.mapped_blocks, count));
                }
                let details = DeviceDetails {
                    mapped_blocks: count,
                    transaction_id: device.transaction,
                    creation_time: device.creation_time,
                    snapshotted_time: device.snap_time,
                };
                self.builder
                    .device(device.dev_id, details, mappings)
                    .map_err(build_stop)?;
            }
            other => self.place = other,
        }
        Ok(())
    }

    fn check_complete(&self) -> Result<(), Failure> {
        match self.place {
            Place::After => Ok(()),
            _ => Err(Failure::new(
                "incomplete source metadata: the end of element 'superblock' is missing",
            )),
        }
    }
}

fn push(
    builder: &mut Builder<'_>,
    mappings: &mut Mappings,
    count: &mut u64,
    run: &Run,
) -> Result<(), Stop> {
    builder.push(mappings, run).map_err(build_stop)?;
    *count = count.saturating_add(run.length);
    Ok(())
}

fn fault(what: impl Into<String>) -> Stop {
    Stop::Fault(what.into())
}

fn build_stop(error: build::Error) -> Stop {
    match error {
        build::Error::Store(_) => Stop::Failure(Failure::new(error.to_string())),
        _ => Stop::Fault(error.to_string()),
    }
}

fn name_of(event: &Event) -> &'static str {
    match event {
        Event::Superblock(_) => "superblock",
        Event::SuperblockEnd => "/superblock",
        Event::Def(_) => "def",
        Event::DefEnd => "/def",
        Event::Device(_) => "device",
        Event::DeviceEnd => "/device",
        Event::Ref(_) => "ref",
        Event::Run(run) if run.length == 1 => "single_mapping",
        Event::Run(_) => "range_mapping",
    }
}

/// Whether a pool can have data blocks of this size.
pub fn check_block_size(sectors: u32) -> Result<(), Failure> {
    match BlockSize::new(sectors.into()) {
        Some(_) => Ok(()),
        None => Err(Failure::new(format!(
            "invalid data block size: {sectors} sectors (must be a multiple of {} from {} to {})",
            BlockSize::STEP,
            BlockSize::MIN,
            BlockSize::MAX
        ))),
    }
}
