// SPDX-License-Identifier: GPL-2.0

//! Which volume is a snapshot of which.
//!
//! The metadata do not say. But a snapshot is made at a time of its own, at which its origin was
//! snapshotted, and it shares blocks with its origin as long as either still has some of that time.

use super::survey::Survey;
use thin_format::records::DeviceDetails;

/// The volumes as a forest: for each, its origin if it is a snapshot.
pub struct Family {
    /// By volume: the place of its origin.
    pub origins: Vec<Option<usize>>,
}

impl Family {
    /// Infers it from what volumes share and when they were made.
    pub fn infer(details: &[DeviceDetails], survey: &Survey) -> Self {
        // Only volumes that share anything can be related: look at those pairs.
        let mut related: Vec<Vec<usize>> = vec![Vec::new(); details.len()];
        for (&(one, other), &count) in &survey.shared {
            if count > 0 {
                let (one, other) = (one as usize, other as usize);
                if let Some(of_one) = related.get_mut(one) {
                    of_one.push(other);
                }
                if let Some(of_other) = related.get_mut(other) {
                    of_other.push(one);
                }
            }
        }
        let origins = (0..details.len())
            .map(|at| {
                let made = details[at].creation_time;
                let candidates = related[at].iter().copied().filter(|&other| {
                    let origin = &details[other];
                    // Later volumes, and such that were not snapshotted since, cannot be the origin.
                    origin.creation_time < made && origin.snapshotted_time >= made
                });
                candidates.max_by_key(|&other| {
                    let origin = &details[other];
                    (
                        origin.snapshotted_time == made,
                        survey.shared_by(at as u32, other as u32),
                        origin.creation_time,
                        std::cmp::Reverse(other),
                    )
                })
            })
            .collect();
        Self { origins }
    }

    /// All volumes, each after its origin, with the text that draws the branches left of it.
    pub fn drawn(&self) -> Vec<(usize, String)> {
        let mut snapshots: Vec<Vec<usize>> = vec![Vec::new(); self.origins.len()];
        let mut roots = Vec::new();
        for (at, origin) in self.origins.iter().enumerate() {
            match origin.and_then(|origin| snapshots.get_mut(origin)) {
                Some(of_origin) => of_origin.push(at),
                None => roots.push(at),
            }
        }
        let mut drawn = Vec::new();
        // What is still to be drawn, the next one last: volume, branches of those above, is it the last.
        let mut rest: Vec<(usize, String, Option<bool>)> = roots
            .into_iter()
            .rev()
            .map(|at| (at, String::new(), None))
            .collect();
        while let Some((at, above, last)) = rest.pop() {
            let (branch, below) = match last {
                None => (String::new(), String::new()),
                Some(true) => (format!("{above}└─ "), format!("{above}   ")),
                Some(false) => (format!("{above}├─ "), format!("{above}│  ")),
            };
            drawn.push((at, branch));
            for (index, &snapshot) in snapshots[at].iter().enumerate().rev() {
                let is_last = index + 1 == snapshots[at].len();
                rest.push((snapshot, below.clone(), Some(is_last)));
            }
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn details(creation_time: u32, snapshotted_time: u32) -> DeviceDetails {
        DeviceDetails {
            mapped_blocks: 0,
            transaction_id: 0,
            creation_time,
            snapshotted_time,
        }
    }

    fn survey(shared: &[((u32, u32), u64)]) -> Survey {
        Survey {
            spaces: Vec::new(),
            shared: shared.iter().copied().collect::<HashMap<_, _>>(),
            referenced: 0,
            shared_blocks: 0,
            inner_nodes: 0,
            leaves: 0,
            entries: 0,
            bad: Vec::new(),
        }
    }

    #[test]
    fn a_chain_a_sibling_and_a_stranger() {
        // 0 is snapshotted at 1 (as 1) and at 3 (as 3), 1 at 2 (as 2); 4 is by itself.
        let all = [
            details(0, 3),
            details(1, 2),
            details(2, 2),
            details(3, 3),
            details(3, 3),
        ];
        let shared = [
            ((0, 1), 90),
            ((0, 2), 90),
            ((1, 2), 80),
            ((0, 3), 70),
            ((1, 3), 75),
        ];
        let family = Family::infer(&all, &survey(&shared));
        assert_eq!(family.origins, [None, Some(0), Some(1), Some(0), None]);
        let drawn: Vec<String> = family
            .drawn()
            .into_iter()
            .map(|(at, branch)| format!("{branch}{at}"))
            .collect();
        assert_eq!(drawn, ["0", "├─ 1", "│  └─ 2", "└─ 3", "4"]);
    }
}
