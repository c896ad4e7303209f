// SPDX-License-Identifier: GPL-2.0
//! Checking the trees of devices, and the mappings of each device.

use super::finding::{some, Code, Findings};
use crate::btree::{self, Child, Node, Value, Visit};
use crate::counts::Counts;
use crate::error::{Error, Fault};
use crate::forest::{Forest, Use};
use crate::io::Store;
use crate::records::units::DeviceId;
use crate::records::{DeviceDetails, PackedMapping};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// A device of the pool or of its metadata snapshot.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Device {
    root: Option<u64>,
    details: Option<DeviceDetails>,
}

/// All devices, and what their mappings came to.
pub(super) struct Devices {
    current: BTreeMap<u64, Device>,
    /// Those of the metadata snapshot that are not the same in the pool itself.
    snapshot: BTreeMap<u64, Device>,
    /// Roots of mapping trees, once for each reference.
    roots: Vec<u64>,
    latest: u32,
}

/// Ranges shown of a damaged device.
const RANGES: usize = 8;

impl Devices {
    /// Reads the two trees of the pool and those of its metadata snapshot, given their roots.
    pub(super) fn read(
        store: &dyn Store,
        forest: &mut Forest<'_>,
        current: Option<(u64, u64)>,
        snapshot: Option<(u64, u64)>,
        advance: &(dyn Fn(u64) + Sync),
        findings: &mut Findings,
    ) -> Devices {
        let both = || current.iter().chain(&snapshot);
        let mappings: Vec<u64> = both().map(|(mapping, _)| *mapping).collect();
        let leaf = |roots: &mut Vec<u64>, _, node: Node<'_>| {
            roots.extend(node.values::<u64>());
            true
        };
        let roots = forest.read(
            Use::TopLevel,
            u64::BYTES,
            &mappings,
            advance,
            Vec::new,
            leaf,
        );
        forest.sum_up();
        report_nodes(forest, Code::TopLevelNodes, "mapping top-level", findings);
        let details: Vec<u64> = both().map(|(_, details)| *details).collect();
        forest.read(
            Use::Details,
            DeviceDetails::BYTES as u32,
            &details,
            advance,
            || (),
            |_, _, _| true,
        );
        forest.sum_up();
        report_nodes(forest, Code::DetailsNodes, "device details tree", findings);

        let mut devices = Devices {
            current: current
                .map(|roots| enumerate(store, roots))
                .unwrap_or_default(),
            snapshot: snapshot
                .map(|roots| enumerate(store, roots))
                .unwrap_or_default(),
            roots: roots.into_iter().flatten().collect(),
            latest: 0,
        };
        check_ids(&devices.current, "", findings);
        check_ids(&devices.snapshot, "metadata snap: ", findings);
        let known = &devices.current;
        devices
            .snapshot
            .retain(|id, device| known.get(id) != Some(device));
        devices
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.current.len() as u64
    }

    /// The latest time that any of them, or a mapping, has.
    pub(super) fn latest(&self) -> u32 {
        self.latest
    }

    fn all(&self) -> impl Iterator<Item = (&u64, &Device)> {
        self.current.iter().chain(&self.snapshot)
    }

    /// Checks that no device is from the future.
    pub(super) fn check_times(&mut self, time: u32, findings: &mut Findings) {
        let mut late = Vec::new();
        let mut latest = 0;
        for (id, device) in self.all() {
            if let Some(details) = &device.details {
                let newest = details.creation_time.max(details.snapshotted_time);
                latest = newest.max(latest);
                if newest > time {
                    late.push(*id);
                }
            }
        }
        self.latest = latest;
        if !late.is_empty() {
            let count = late.len() as u64;
            let text = format!(
                "{count} devices were made or snapshotted at a time up to {latest}, but it is only {time}: {}",
                some(late, count)
            );
            findings.add(Code::DeviceTime, count, None, text);
        }
    }

    /// Reads all mappings, counts references to data blocks in `data`, and checks each device.
    /// Returns how many blocks are mapped in all.
    pub(super) fn read_mappings(
        &mut self,
        store: &dyn Store,
        forest: &mut Forest<'_>,
        data: &Counts,
        time: u32,
        advance: &(dyn Fn(u64) + Sync),
        findings: &mut Findings,
    ) -> u64 {
        let leaf = |odd: &mut Odd, block, node: Node<'_>| count_leaf(odd, block, node, data, time);
        let odd = forest.read(
            Use::Mapping,
            u64::BYTES,
            &self.roots,
            advance,
            Odd::default,
            leaf,
        );
        self.roots = Vec::new();
        forest.sum_up();
        let odd = odd.into_iter().fold(Odd::default(), Odd::merge);
        self.latest = self.latest.max(odd.latest);
        report_nodes(forest, Code::MappingNodes, "data mapping tree", findings);
        odd.report(data.blocks(), time, findings);
        let mut mapped = 0u64;
        for (id, device) in &self.current {
            mapped = mapped.saturating_add(check_device(store, forest, *id, device, "", findings));
        }
        for (id, device) in &self.snapshot {
            check_device(store, forest, *id, device, "metadata snap: ", findings);
        }
        mapped
    }
}

/// Reads who is who. Bad nodes are left out: the forest has reported them.
fn enumerate(store: &dyn Store, (mapping, details): (u64, u64)) -> BTreeMap<u64, Device> {
    let mut devices: BTreeMap<u64, Device> = BTreeMap::new();
    let _ = btree::walk(store, mapping, u64::BYTES, &mut |at| {
        if let Visit::Leaf(_, leaf) = at {
            for (id, root) in leaf.entries::<u64>() {
                devices.entry(id).or_default().root = Some(root);
            }
        }
        ControlFlow::Continue(())
    });
    let _ = btree::walk(store, details, DeviceDetails::BYTES as u32, &mut |at| {
        if let Visit::Leaf(_, leaf) = at {
            for (id, details) in leaf.entries::<DeviceDetails>() {
                devices.entry(id).or_default().details = Some(details);
            }
        }
        ControlFlow::Continue(())
    });
    devices
}

/// Checks that the same devices are in both trees.
fn check_ids(devices: &BTreeMap<u64, Device>, prefix: &str, findings: &mut Findings) {
    // If a tree is damaged, what is missing from it says nothing.
    let report = |findings: &mut Findings,
                  code,
                  what: &str,
                  lacks: &dyn Fn(&Device) -> bool,
                  broken| {
        let ids: Vec<u64> = devices
            .iter()
            .filter(|(_, device)| lacks(device))
            .map(|(id, _)| *id)
            .collect();
        if !ids.is_empty() && !findings.has(broken) {
            let count = ids.len() as u64;
            let text = format!(
                "{prefix}Inconsistency between the details tree and the mapping tree: devices {what}: {}",
                some(ids, count)
            );
            findings.add(code, count, None, text);
        }
    };
    report(
        findings,
        Code::NoMappings,
        "without mapping tree",
        &|device| device.root.is_none(),
        Code::TopLevelNodes,
    );
    report(
        findings,
        Code::NoDetails,
        "without details",
        &|device| device.details.is_none(),
        Code::DetailsNodes,
    );
    let large: Vec<u64> = devices
        .keys()
        .copied()
        .filter(|id| DeviceId::new(*id).is_none())
        .collect();
    if !large.is_empty() {
        let count = large.len() as u64;
        let text = format!(
            "{prefix}device numbers with more than 24 bits: {}",
            some(large, count)
        );
        findings.add(Code::DeviceId, count, None, text);
    }
}

/// Reports what was wrong with nodes of one kind of tree.
fn report_nodes(forest: &mut Forest<'_>, code: Code, tree: &str, findings: &mut Findings) {
    let (errors, count) = forest.take_errors();
    if count == 0 {
        return;
    }
    let io = errors.iter().filter(|error| error.is_io()).count();
    let checksum = errors
        .iter()
        .filter(|error| error.fault() == Some(&Fault::Checksum))
        .count();
    let text = format!(
        "{count} nodes in {tree} contain errors: {io} io errors, {checksum} checksum errors: {}",
        some(&errors, count)
    );
    findings.add(code, count, None, text);
}

/// Mappings that cannot be.
#[derive(Default)]
struct Odd {
    beyond: u64,
    beyond_example: Option<(u64, u64, u64)>,
    late: u64,
    late_example: Option<(u64, u64, u32)>,
    latest: u32,
}

impl Odd {
    fn merge(self, other: Odd) -> Odd {
        Odd {
            beyond: self.beyond.saturating_add(other.beyond),
            beyond_example: self.beyond_example.or(other.beyond_example),
            late: self.late.saturating_add(other.late),
            late_example: self.late_example.or(other.late_example),
            latest: self.latest.max(other.latest),
        }
    }

    fn report(&self, blocks: u64, time: u32, findings: &mut Findings) {
        if let Some((leaf, thin, data)) = self.beyond_example {
            let text = format!(
                "{} mappings lead beyond the {blocks} blocks of the data device; for one, in metadata block {leaf}, \
                 thin block {thin} is mapped to data block {data}",
                self.beyond
            );
            findings.add(Code::MappingBeyondEnd, self.beyond, None, text);
        }
        if let Some((leaf, thin, late)) = self.late_example {
            let text = format!(
                "{} mappings were made at a time up to {}, but it is only {time}; for one, in metadata block {leaf}, \
                 that of thin block {thin} at {late}",
                self.late, self.latest
            );
            findings.add(Code::MappingTime, self.late, None, text);
        }
    }
}

/// Counts the references of a leaf. Returns whether all of them can be.
fn count_leaf(odd: &mut Odd, block: u64, node: Node<'_>, data: &Counts, time: u32) -> bool {
    let mut right = true;
    let (mut first, mut length) = (0u64, 0u64);
    let mut latest = 0;
    let mut references = data.adder();
    for (thin, mapping) in node.entries::<PackedMapping>() {
        let to = mapping.block().0;
        latest = latest.max(mapping.time());
        if first.saturating_add(length) == to && length > 0 {
            length = length.saturating_add(1);
        } else {
            references.add(first, length);
            (first, length) = (to, 1);
        }
        if to >= data.blocks() {
            right = false;
            odd.beyond = odd.beyond.saturating_add(1);
            odd.beyond_example.get_or_insert((block, thin, to));
        }
    }
    references.add(first, length);
    if latest > time {
        for (thin, mapping) in node
            .entries::<PackedMapping>()
            .filter(|(_, mapping)| mapping.time() > time)
        {
            odd.late = odd.late.saturating_add(1);
            odd.late_example
                .get_or_insert((block, thin, mapping.time()));
        }
    }
    odd.latest = odd.latest.max(latest);
    right
}

/// Checks one device. Returns how many of its blocks are mapped, as far as can be read.
fn check_device(
    store: &dyn Store,
    forest: &Forest<'_>,
    id: u64,
    device: &Device,
    prefix: &str,
    findings: &mut Findings,
) -> u64 {
    let Some(root) = device.root else { return 0 };
    let summary = forest.summary(Use::Mapping, root);
    let mapped = summary.map_or(0, |summary| summary.entries);
    let expected = device.details.map(|details| details.mapped_blocks);
    let shown = expected.map_or(String::from("unknown"), |expected| expected.to_string());
    if summary.is_none_or(|summary| summary.tainted) {
        let (lost, count) = lost_ranges(store, forest, root);
        let ranges = match count {
            0 => String::new(),
            count => format!("; damaged thin blocks: {}", some(lost, count)),
        };
        let missing = expected.map_or(0, |expected| expected.saturating_sub(mapped));
        let text = format!(
            "{prefix}Thin device {id} has {} errors and is missing {missing} mappings, while expected {shown}{ranges}",
            count.max(1)
        );
        findings.add(Code::DeviceDamaged, count.max(1), Some(id), text);
    } else if expected.is_some_and(|expected| expected != mapped) {
        let text = format!(
            "{prefix}Thin device {id} has unexpected number of mappings, expected {shown}, actual {mapped}"
        );
        findings.add(Code::MappedBlocks, 1, Some(id), text);
    }
    mapped
}

/// The thin blocks of a device that bad nodes had, and how many such ranges there are.
fn lost_ranges(store: &dyn Store, forest: &Forest<'_>, root: u64) -> (Vec<String>, u64) {
    let mut lost = Vec::new();
    let mut count = 0u64;
    let mut note = |child: &Child, _: &Error| {
        count = count.saturating_add(1);
        if lost.len() < RANGES {
            let end = child.end.map_or(String::from("end"), |end| end.to_string());
            lost.push(format!("{}..{end}", child.begin));
        }
    };
    let _ = btree::walk(store, root, u64::BYTES, &mut |at| {
        match at {
            // Only what is wrong is read again.
            Visit::Before(child) if forest.is_sound(Use::Mapping, child) => {
                return ControlFlow::Break(())
            }
            Visit::Bad(child, error) => note(child, error),
            Visit::Before(_) | Visit::Internal(..) | Visit::Leaf(..) => {}
        }
        ControlFlow::Continue(())
    });
    (lost, count)
}
