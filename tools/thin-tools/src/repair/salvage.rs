// SPDX-License-Identifier: GPL-2.0

//! From a pair of roots to trees that can be written, and to a report of what is missing.

use std::collections::HashMap;

use thin_format::btree::verify_child;
use thin_format::btree::Child as TreeChild;
use thin_format::btree::Value;
use thin_format::records::DeviceDetails;

use super::roots::Candidate;
use super::roots::DeviceState;
use super::roots::Found;
use super::subtrees::LostChild;
use crate::trees::BlockNumber;
use crate::trees::Forest;
use crate::trees::Internal;
use crate::trees::Tree;

/// A range of a device whose mappings are missing.
#[derive(Clone, Debug)]
pub struct LostRange {
    /// The first thin block.
    pub begin: u64,
    /// The block behind the last one; `None`: to the device's end.
    pub end: Option<u64>,
    /// The damaged metadata block.
    pub block: u64,
    /// What is wrong with it.
    pub why: String,
}

/// What is to be said about a device.
#[derive(Clone, Debug)]
pub struct DeviceReport {
    /// The device.
    pub device: u64,
    /// Mappings that there are.
    pub mappings: u64,
    /// Mappings that there should be, if that is known.
    pub expected: Option<u64>,
    /// Where mappings are missing.
    pub lost: Vec<LostRange>,
    /// Whether the details had to be made up.
    pub has_new_details: bool,
}

impl DeviceReport {
    /// Whether mappings are missing.
    pub fn is_partial(&self) -> bool {
        !self.lost.is_empty()
    }

    /// How many mappings are missing, if that is known.
    pub fn missing(&self) -> Option<u64> {
        Some(self.expected?.saturating_sub(self.mappings))
    }

    /// Whether there is nothing to say.
    pub fn is_healthy(&self) -> bool {
        !self.is_partial() && !self.has_new_details && self.expected == Some(self.mappings)
    }
}

/// What can be written.
pub struct Salvage {
    /// The nodes.
    pub forest: Forest,
    /// The devices.
    pub trees: Vec<Tree>,
    /// What is to be said about each.
    pub devices: Vec<DeviceReport>,
    /// Ranges of device ids that cannot be known.
    pub lost_devices: Vec<LostRange>,
    /// The time that the superblock must have at least.
    pub time: u32,
}

impl Found<'_> {
    /// What can be written of `candidate`.
    pub fn salvage(&self, candidate: &Candidate) -> Salvage {
        let mut time = candidate.time();
        let needs_details = candidate
            .devices
            .values()
            .any(|device| device.details.is_none());
        if needs_details {
            // Mappings of a time before the last snapshot count as shared: the kernel then copies before it writes, which is right
            // whether or not they are shared.
            time = time.saturating_add(1);
        }
        let mut salvage = Salvage {
            forest: self.forest(candidate),
            trees: Vec::new(),
            devices: Vec::new(),
            lost_devices: Vec::new(),
            time,
        };
        for lost in &candidate.lost_roots {
            salvage.lost_devices.push(self.lost_range(lost, u64::BYTES));
        }
        for (device, state) in &candidate.devices {
            let mappings = state.mappings();
            let details = state.details.unwrap_or(DeviceDetails {
                mapped_blocks: mappings,
                transaction_id: candidate.transaction(),
                creation_time: time,
                snapshotted_time: time,
            });
            let details = DeviceDetails {
                mapped_blocks: mappings,
                ..details
            };
            salvage.trees.push(Tree {
                device: *device,
                details,
                root: state.tree.map(|(root, _)| root),
            });
            salvage.devices.push(DeviceReport {
                device: *device,
                mappings,
                expected: state.details.map(|details| details.mapped_blocks),
                lost: self.lost_ranges(candidate, *device, state),
                has_new_details: state.details.is_none(),
            });
        }
        salvage
    }

    fn lost_ranges(
        &self,
        candidate: &Candidate,
        device: u64,
        state: &DeviceState,
    ) -> Vec<LostRange> {
        if !state.is_partial() {
            return Vec::new();
        }
        let mut lost = Vec::new();
        match (state.tree, state.root) {
            (Some((root, _)), _) => self.subtrees.lost(root, None, &mut lost),
            (None, Some(root)) => lost.push(LostChild {
                block: root,
                begin: 0,
                end: None,
            }),
            (None, None) => {
                let covers = |lost: &&LostChild| {
                    lost.begin <= device && lost.end.is_none_or(|end| device < end)
                };
                let block = candidate
                    .lost_roots
                    .iter()
                    .find(covers)
                    .map_or(candidate.roots.mapping, |lost| lost.block);
                lost.push(LostChild {
                    block,
                    begin: 0,
                    end: None,
                });
            }
        }
        lost.sort_by_key(|lost| lost.begin);
        let mut lost: Vec<LostRange> = lost
            .iter()
            .map(|lost| self.lost_range(lost, u64::BYTES))
            .collect();
        if lost.is_empty() {
            let block = state.root.unwrap_or(candidate.roots.mapping);
            let why = "fewer mappings than its details say, though all nodes are good: perhaps another device's".into();
            lost.push(LostRange {
                begin: 0,
                end: None,
                block,
                why,
            });
        }
        lost
    }

    /// Looks at a damaged node again, for what to say about it.
    fn lost_range(&self, lost: &LostChild, value_size: u32) -> LostRange {
        let child = TreeChild {
            block: lost.block,
            begin: lost.begin,
            end: lost.end,
        };
        let why = match self.store.read_block(lost.block) {
            Err(error) => error.to_string(),
            Ok(bytes) => match verify_child(&child, &bytes, value_size) {
                Err(error) => error.to_string(),
                Ok(_) => format!("btree node at block {}: it does not belong here, or nothing below it can be used", lost.block),
            },
        };
        LostRange {
            begin: lost.begin,
            end: lost.end,
            block: lost.block,
            why,
        }
    }

    /// The usable internal nodes that `candidate` needs.
    fn forest(&self, candidate: &Candidate) -> Forest {
        let mut internals: HashMap<BlockNumber, Internal> = HashMap::new();
        let mut left: Vec<BlockNumber> = candidate
            .devices
            .values()
            .filter_map(|device| Some(device.tree?.0))
            .collect();
        while let Some(block) = left.pop() {
            let Some(subtree) = self
                .subtrees
                .internal(block)
                .filter(|_| !internals.contains_key(&block))
            else {
                continue;
            };
            left.extend(subtree.children.iter().map(|child| child.block));
            internals.insert(
                block,
                Internal {
                    children: subtree.children.clone(),
                    height: subtree.below.height,
                },
            );
        }
        Forest::from_parts(internals, self.subtrees.end() as usize)
    }
}
