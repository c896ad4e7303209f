// SPDX-License-Identifier: GPL-2.0

//! thin_rmap: which devices have the data blocks of some region.
//!
//! Every owner is listed: a leaf that snapshots share is read once, and what it maps belongs to each
//! of the devices that have it.

use crate::cli::status;
use crate::cli::Arguments;
use crate::cli::Command;
use crate::cli::Failure;
use crate::cli::Operand;
use crate::cli::Opt;
use crate::forest::Forest;
use crate::forest::NodeId;
use crate::forest::Parents;
use crate::metadata;
use crate::report;
use crate::report::Counter;
use crate::report::Json;
use crate::report::Progress;
use crate::report::Sink;
use std::collections::HashMap;
use std::io::Write;
use std::rc::Rc;
use thin_format::io::Store;
use thin_format::thin::Pool;
use thin_format::thin::Run;
use thin_format::Error;

/// The command line.
pub static COMMAND: Command = Command {
    operands: &[Operand {
        name: "INPUT",
        required: true,
        help: "The pool's metadata: a device or a file",
    }],
    options: &[
        Opt::value(
            "region",
            "BEGIN..END",
            "Data blocks from BEGIN up to, not including, END",
        )
        .repeats()
        .required(),
        metadata::SNAPSHOT,
        Opt::flag("json", "Print JSON"),
        Opt::QUIET,
        Opt::IO_ENGINE,
    ],
    details: "Prints a line for each run of data blocks and each device that has it:\n\
              data BEGIN..END -> thin(DEVICE) BEGIN..END, where END is not included.",
    ..Command::new(
        "thin_rmap",
        "Find the thin devices that data blocks belong to",
    )
};

/// A part of the data device: the first block, and the one after the last.
type Region = (u64, u64);

/// A run of data blocks that a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owned {
    /// The first data block.
    pub data: u64,
    /// How many.
    pub length: u64,
    /// The device.
    pub device: u64,
    /// The thin block that the first data block is mapped to.
    pub thin: u64,
}

/// Runs the tool.
pub fn run(args: &Arguments) -> Result<(), Failure> {
    let mut regions = Vec::new();
    for value in args.values("region") {
        let region = value.to_str().ok_or("not text").and_then(parse);
        regions.push(region.map_err(|why| args.invalid("region", value, why))?);
    }
    let path = args.operand(0).unwrap_or("".as_ref());
    let view = metadata::view(args)?;
    let device = metadata::open(path, view)?;
    let pool = metadata::pool(&device, path, view)?;
    let progress = Progress::start("Looking for owners", Sink::choose(args.given("quiet")));
    let devices: Vec<(u64, u64)> = pool
        .devices()
        .iter()
        .filter_map(|device| Some((device.id, device.root?)))
        .collect();
    let (owned, bad) = owners(&device, &devices, &regions, &progress.counter());
    drop(progress);
    if args.given("json") {
        write_json(&pool, &owned, &bad)?;
    } else {
        let mut out = report::stdout();
        for run in &owned {
            writeln!(
                out,
                "data {}..{} -> thin({}) {}..{}",
                run.data,
                run.data.saturating_add(run.length),
                run.device,
                run.thin,
                run.thin.saturating_add(run.length)
            )?;
        }
        out.flush()?;
    }
    if bad.is_empty() {
        return Ok(());
    }
    let mut text: Vec<String> = bad.iter().map(|(_, error)| error.to_string()).collect();
    text.push("what these nodes map is missing from the list".to_string());
    Err(Failure::with_status(text.join("\n"), status::PARTIAL))
}

fn parse(text: &str) -> Result<Region, &'static str> {
    let (begin, end) = text.split_once("..").ok_or("not of the form BEGIN..END")?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| "not two numbers");
    let (begin, end) = (number(begin)?, number(end)?);
    if end <= begin {
        return Err("the end is not after the beginning");
    }
    Ok((begin, end))
}

/// Regions in order, those that touch joined.
fn joined(regions: &[Region]) -> Vec<Region> {
    let mut sorted = regions.to_vec();
    sorted.sort_unstable();
    let mut joined: Vec<Region> = Vec::new();
    for (begin, end) in sorted {
        match joined.last_mut() {
            Some(last) if begin <= last.1 => last.1 = last.1.max(end),
            _ => joined.push((begin, end)),
        }
    }
    joined
}

/// The parts of a run that lie in `regions`, which are in order.
fn inside(run: Run, regions: &[Region], mut found: impl FnMut(Run)) {
    let end = run.data.saturating_add(run.length);
    let first = regions.partition_point(|(_, region_end)| *region_end <= run.data);
    for &(region_begin, region_end) in regions
        .iter()
        .skip(first)
        .take_while(|(begin, _)| *begin < end)
    {
        let begin = run.data.max(region_begin);
        let end = end.min(region_end);
        found(Run {
            thin: run.thin.saturating_add(begin.saturating_sub(run.data)),
            data: begin,
            length: end.saturating_sub(begin),
            time: 0,
        });
    }
}

/// Everything that any of `devices` (numbers and roots) has of `regions`, by data block.
/// Also the nodes that cannot be used.
///
/// Memory: as for [`Forest`], and what is found.
pub fn owners(
    store: &dyn Store,
    devices: &[(u64, u64)],
    regions: &[Region],
    counter: &Counter,
) -> (Vec<Owned>, Vec<(u64, Error)>) {
    let regions = joined(regions);
    let roots: Vec<u64> = devices.iter().map(|(_, root)| *root).collect();
    let threads = metadata::threads();
    let forest = Forest::read(store, &roots, threads);
    counter.set_total(forest.leaves() as u64);
    let mut bad: Vec<(u64, Error)> = forest
        .bad()
        .map(|(block, error)| (block, error.clone()))
        .collect();

    let start = || (Vec::new(), Vec::new());
    let of_threads = forest.visit_leaves(store, threads, start, |state, leaf, node| {
        let (found, bad): &mut (Vec<(NodeId, Run)>, Vec<_>) = state;
        counter.advance(1);
        match node {
            Ok(node) => metadata::runs_of(&node, |run| {
                inside(run, &regions, |part| found.push((leaf, part)));
            }),
            Err(error) => bad.push((error.block_number().unwrap_or(0), error)),
        }
    });

    let mut owned = Vec::new();
    let mut ancestry = Ancestry::new(&forest, devices);
    for (found, bad_here) in of_threads {
        bad.extend(bad_here);
        for (leaf, run) in found {
            for &device in ancestry.of(leaf).iter() {
                owned.push(Owned {
                    data: run.data,
                    length: run.length,
                    device,
                    thin: run.thin,
                });
            }
        }
    }
    bad.sort_by_key(|(block, _)| *block);
    (merge(owned), bad)
}

/// Which devices have which nodes.
struct Ancestry<'a> {
    devices: &'a [(u64, u64)],
    of_root: HashMap<NodeId, Vec<u64>>,
    forest: &'a Forest,
    parents: Option<Parents>,
    known: HashMap<NodeId, Rc<Vec<u64>>>,
}

impl<'a> Ancestry<'a> {
    fn new(forest: &'a Forest, devices: &'a [(u64, u64)]) -> Self {
        let mut of_root: HashMap<NodeId, Vec<u64>> = HashMap::new();
        for (at, (id, _)) in devices.iter().enumerate() {
            if let Some(root) = forest.root(at) {
                of_root.entry(root).or_default().push(*id);
            }
        }
        Self {
            devices,
            of_root,
            forest,
            parents: None,
            known: HashMap::new(),
        }
    }

    /// The devices that have a node.
    fn of(&mut self, node: NodeId) -> Rc<Vec<u64>> {
        if let Some(known) = self.known.get(&node) {
            return Rc::clone(known);
        }
        let owners = Rc::new(match self.devices.get(self.forest.owner(node) as usize) {
            Some((id, _)) => vec![*id],
            None => self.of_shared(node),
        });
        self.known.insert(node, Rc::clone(&owners));
        owners
    }

    /// As `of`, for a node that several devices have. Parents are on higher levels, so this ends.
    fn of_shared(&mut self, node: NodeId) -> Vec<u64> {
        let mut owners = self.of_root.get(&node).cloned().unwrap_or_default();
        let parents = self.parents.get_or_insert_with(|| self.forest.parents());
        let above: Vec<NodeId> = parents.of(node).collect();
        for parent in above {
            owners.extend(self.of(parent).iter());
        }
        owners.sort_unstable();
        owners.dedup();
        owners
    }
}

/// Joins runs that go on in both devices.
fn merge(mut owned: Vec<Owned>) -> Vec<Owned> {
    owned.sort_unstable_by_key(|run| (run.device, run.thin));
    let mut merged: Vec<Owned> = Vec::new();
    for run in owned {
        if let Some(last) = merged.last_mut() {
            let goes_on = last.device == run.device
                && last.thin.checked_add(last.length) == Some(run.thin)
                && last.data.checked_add(last.length) == Some(run.data);
            if goes_on {
                last.length = last.length.saturating_add(run.length);
                continue;
            }
        }
        merged.push(run);
    }
    merged.sort_unstable();
    merged
}

fn write_json(pool: &Pool<'_>, owned: &[Owned], bad: &[(u64, Error)]) -> Result<(), Failure> {
    let mut json = Json::new(report::stdout());
    json.open_object("")?;
    json.text("tool", "thin_rmap")?;
    json.number("schema", 1)?;
    json.number("transaction", pool.superblock().transaction_id)?;
    json.number("data_block_size_sectors", pool.superblock().data_block_size)?;
    json.open_array("runs")?;
    for run in owned {
        json.open_object("")?;
        json.number("data_begin", run.data)?;
        json.number("length", run.length)?;
        json.number("dev_id", run.device)?;
        json.number("thin_begin", run.thin)?;
        json.close()?;
    }
    json.close()?;
    json.open_array("errors")?;
    for (_, error) in bad {
        json.text("", &error.to_string())?;
    }
    json.close()?;
    json.finish()?;
    Ok(())
}
