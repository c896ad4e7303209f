// SPDX-License-Identifier: GPL-2.0

//! What a check makes of whole, damaged and random metadata.

mod common;

use common::{check_all, pool, random_pool, superblock_of, told, Model};
use thin_format::check::{check, Code, Options, Scope, Severity};
use thin_format::checksum;
use thin_format::edit;
use thin_format::io::{Memory, Store};
use thin_format::superblock::{self, Demand};
use thin_tools_dev::damage::{damage, places, Kind, Target};
use thin_tools_dev::generate::Shape;
use thin_tools_dev::random::Random;

#[test]
fn whole_metadata_is_clean_and_counted_like_by_hand() {
    let mut random = Random::new(Random::seed_of_test());
    for _ in 0..30 {
        let store = random_pool(&mut random);
        let outcome = check_all(&store);
        assert!(outcome.findings.is_clean(), "{}", told(&outcome));
        let truth = outcome.truth.expect("clean metadata has a truth");
        let model = Model::of(&store);
        for block in 0..truth.data.blocks() {
            let expected = model.data.get(&block).copied().unwrap_or(0);
            assert_eq!(truth.data.get(block), expected, "data block {block}");
        }
        for block in 0..store.blocks() {
            let expected = model.trees.get(&block).copied().unwrap_or(0);
            assert_eq!(truth.trees.get(block), expected, "metadata block {block}");
        }
        assert_eq!(outcome.figures.devices, model.mappings.len() as u64);
        let mapped: usize = model.mappings.values().map(|mappings| mappings.len()).sum();
        assert_eq!(outcome.figures.mapped_blocks, mapped as u64);
        assert_eq!(outcome.figures.data_blocks_used, model.data.len() as u64);
    }
}

/// Kinds of damage that leave no doubt about the volumes. (Too low a count could come from a wrong
/// tree.)
fn is_correctable(kind: Kind, target: Target) -> bool {
    let space = [
        Target::DataBitmap,
        Target::DataIndex,
        Target::MetadataBitmap,
        Target::MetadataIndex,
    ];
    let harmless = matches!(kind, Kind::CountHigh | Kind::NrFree | Kind::NrAllocated);
    let ambiguous = matches!(kind, Kind::CountLow | Kind::Copied);
    harmless || (space.contains(&target) && !ambiguous)
}

#[test]
fn every_kind_of_damage_is_found_and_corrected_where_it_can_be() {
    let mut random = Random::new(Random::seed_of_test());
    let mut done = std::collections::BTreeMap::new();
    for round in 0..4 {
        let shape = Shape {
            devices: 12,
            mappings: 40_000,
            run_length: 3,
            diverged: 300,
            depth: 3,
            held: round % 2 == 1,
            seed: random.next(),
            ..Shape::default()
        };
        let whole = pool(&shape).to_bytes();
        for target in Target::ALL {
            let places = places(&Memory::from_bytes(whole.clone()), *target).unwrap();
            for kind in Kind::ALL {
                let store = Memory::from_bytes(whole.clone());
                let Some(damage) = damage(&store, *kind, *target, &places, &mut random).unwrap()
                else {
                    continue;
                };
                *done.entry((kind.name(), target.name())).or_insert(0) += 1;
                if store.to_bytes() == whole {
                    continue;
                }
                let Ok(main) = superblock::read(&store, 0, Demand::Everything) else {
                    assert_eq!(*target, Target::Superblock);
                    continue;
                };
                let outcome = check_all(&store);
                assert!(!outcome.findings.is_clean(), "{damage} was not found");
                if *kind == Kind::Copied && outcome.findings.worst() == Some(Severity::Harmless) {
                    // The other bitmap happens to have nothing too low.
                    continue;
                }
                if matches!(kind, Kind::NrFree | Kind::NrAllocated | Kind::CountHigh) {
                    assert_eq!(
                        outcome.findings.worst(),
                        Some(Severity::Harmless),
                        "{damage}: {}",
                        told(&outcome)
                    );
                } else {
                    assert_eq!(
                        outcome.findings.worst(),
                        Some(Severity::Damage),
                        "{damage}: {}",
                        told(&outcome)
                    );
                }
                if !is_correctable(*kind, *target) {
                    assert!(outcome.truth.is_none(), "{damage}: {}", told(&outcome));
                    continue;
                }
                let told = told(&outcome);
                let truth = outcome.truth.unwrap_or_else(|| panic!("{damage}: {told}"));
                edit::set_right(&store, &main, truth)
                    .unwrap_or_else(|error| panic!("{damage}: {error}"));
                let again = check_all(&store);
                assert!(
                    again.findings.is_clean(),
                    "{damage}: {told} then {}",
                    common::told(&again)
                );
                let before = Memory::from_bytes(whole.clone());
                assert_eq!(Model::of(&store), Model::of(&before), "{damage}");
                assert_eq!(superblock_of(&store).time, superblock_of(&before).time);
            }
        }
    }
    println!("{done:?}");
    assert!(done.len() > 50, "{done:?}");
}

/// Sets bytes of a block and makes its checksum right again.
fn change(store: &Memory, block: u64, at: usize, bytes: &[u8]) {
    let mut whole = store.read_block(block).unwrap();
    let kind = checksum::kind(&whole).unwrap();
    whole[at..at + bytes.len()].copy_from_slice(bytes);
    checksum::seal(kind, &mut whole, block);
    store.write_block(block, &whole).unwrap();
}

fn small() -> Memory {
    pool(&Shape {
        devices: 4,
        mappings: 4000,
        ..Shape::default()
    })
}

#[test]
fn times_to_come_are_found_and_corrected() {
    let store = small();
    let time = superblock_of(&store).time;
    // The time of the first mapping of some leaf.
    let leaf = places(&store, Target::Leaf).unwrap()[0].block;
    change(&store, leaf, 32 + 8 * 252, &(time + 5).to_le_bytes()[..3]);
    let outcome = check_all(&store);
    assert!(
        outcome.findings.has(Code::MappingTime),
        "{}",
        told(&outcome)
    );
    assert_eq!(outcome.findings.worst(), Some(Severity::Damage));
    edit::set_right(&store, &superblock_of(&store), outcome.truth.unwrap()).unwrap();
    assert!(check_all(&store).findings.is_clean());
    assert_eq!(superblock_of(&store).time, time + 5);

    let store = small();
    let details = superblock_of(&store).details_root.0;
    change(
        &store,
        details,
        32 + 8 * 126 + 20,
        &(time + 9).to_le_bytes(),
    );
    let outcome = check_all(&store);
    assert!(outcome.findings.has(Code::DeviceTime), "{}", told(&outcome));
    assert_eq!(outcome.findings.worst(), Some(Severity::Harmless));
}

#[test]
fn devices_in_one_tree_only_are_named() {
    for (details, code) in [(true, Code::NoMappings), (false, Code::NoDetails)] {
        let store = small();
        let main = superblock_of(&store);
        let root = if details {
            main.details_root.0
        } else {
            main.mapping_root.0
        };
        let bytes = store.read_block(root).unwrap();
        let entries = u32::from_le_bytes(bytes[16..20].try_into().unwrap());
        // The last device's number becomes another one, which is in this tree only.
        let at = 32 + 8 * (entries as usize - 1);
        change(&store, root, at, &4242u64.to_le_bytes());
        let outcome = check_all(&store);
        assert!(outcome.findings.has(code), "{}", told(&outcome));
        let finding = outcome
            .findings
            .list()
            .iter()
            .find(|finding| finding.code == code)
            .unwrap();
        assert!(finding.text.contains("4242"), "{}", finding.text);
        assert!(finding
            .text
            .contains("Inconsistency between the details tree and the mapping tree"));
    }
}

#[test]
fn mappings_beyond_the_end_are_found() {
    let store = small();
    let leaf = places(&store, Target::Leaf).unwrap()[0].block;
    change(&store, leaf, 32 + 8 * 252, &(u64::MAX << 24).to_le_bytes());
    let outcome = check_all(&store);
    assert!(
        outcome.findings.has(Code::MappingBeyondEnd),
        "{}",
        told(&outcome)
    );
    assert!(
        outcome.findings.has(Code::DeviceDamaged),
        "{}",
        told(&outcome)
    );
    assert!(outcome.truth.is_none());
}

#[test]
fn a_superblock_that_cannot_be_is_found() {
    for (at, bytes, code) in [
        (336, &100u32.to_le_bytes()[..], Code::DataBlockSize),
        (64, &u64::MAX.to_le_bytes()[..], Code::SpaceMapSize),
        (192, &u64::MAX.to_le_bytes()[..], Code::SpaceMapSize),
        (192, &100_000u64.to_le_bytes()[..], Code::DeviceTooSmall),
        (320, &u64::MAX.to_le_bytes()[..], Code::TopLevelNodes),
        (328, &1_000_000u64.to_le_bytes()[..], Code::DetailsNodes),
    ] {
        let store = small();
        change(&store, 0, at, bytes);
        let outcome = check_all(&store);
        assert!(outcome.findings.has(code), "{code:?}: {}", told(&outcome));
        assert_eq!(outcome.findings.worst(), Some(Severity::Damage));
    }
}

fn tells(store: &Memory, code: Code, text: &str) {
    let outcome = check_all(store);
    let mut found = outcome
        .findings
        .list()
        .iter()
        .filter(|finding| finding.code == code);
    assert!(
        found.any(|finding| finding.text.contains(text)),
        "{text}: {}",
        told(&outcome)
    );
    assert_eq!(outcome.findings.worst(), Some(Severity::Damage));
}

#[test]
fn nodes_that_do_not_fit_their_parents_are_found() {
    let pool = || {
        pool(&Shape {
            devices: 1,
            snapshots: 0,
            mappings: 4000,
            ..Shape::default()
        })
    };
    let store = pool();
    let root = places(&store, Target::Internal).unwrap()[0].block;
    let bytes = store.read_block(root).unwrap();
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (first, second) = (number(32), number(40));
    // The second child's first key is before what its parent says,
    change(&store, root, 40, &(second + 1).to_le_bytes());
    tells(&store, Code::MappingNodes, "outside the range");
    // the first child's last key is behind,
    let store = pool();
    change(&store, root, 40, &(first + 1).to_le_bytes());
    tells(&store, Code::MappingNodes, "outside the range");
    // and a child takes a whole level by itself.
    let store = pool();
    let mut leaf = store.read_block(number(32 + 8 * 252 + 8)).unwrap();
    leaf[4] = 1;
    leaf[16..20].copy_from_slice(&1u32.to_le_bytes());
    let third = number(32 + 8 * 252 + 16);
    leaf[32 + 8 * 252..][..8].copy_from_slice(&third.to_le_bytes());
    let block = number(32 + 8 * 252 + 8);
    checksum::seal(thin_format::block::BlockKind::Node, &mut leaf, block);
    store.write_block(block, &leaf).unwrap();
    tells(&store, Code::MappingNodes, "branches of different lengths");
}

#[test]
fn a_large_count_that_is_nowhere_is_found_and_corrected() {
    let store = small();
    let bitmap = places(&store, Target::DataBitmap).unwrap()[0].block;
    let used = Model::of(&store).data.into_keys().min().unwrap();
    let mut bytes = store.read_block(bitmap).unwrap();
    thin_format::records::set_bitmap_count(&mut bytes, used as u32, 3);
    change(&store, bitmap, 16, &bytes[16..]);
    tells(
        &store,
        Code::CountsContradict,
        "contradict each other in 1 place",
    );
    let truth = check_all(&store).truth.unwrap();
    edit::set_right(&store, &superblock_of(&store), truth).unwrap();
    assert!(check_all(&store).findings.is_clean());
}

#[test]
fn a_damaged_device_is_named_with_what_it_lost_and_no_other_is() {
    let store = pool(&Shape {
        devices: 6,
        snapshots: 0,
        mappings: 20_000,
        ..Shape::default()
    });
    let leaf = places(&store, Target::Leaf)
        .unwrap()
        .into_iter()
        .find(|leaf| leaf.begin > 0)
        .unwrap();
    store.write_block(leaf.block, &[0; 4096]).unwrap();
    let outcome = check_all(&store);
    let damaged: Vec<_> = outcome
        .findings
        .list()
        .iter()
        .filter(|finding| finding.code == Code::DeviceDamaged)
        .collect();
    let [finding] = damaged[..] else {
        panic!("{}", told(&outcome))
    };
    assert_eq!(finding.device, leaf.device);
    let range = match leaf.end {
        Some(end) => format!("{}..{end}", leaf.begin),
        None => format!("{}..end", leaf.begin),
    };
    assert!(
        finding.text.contains(&range),
        "{} lacks {range}",
        finding.text
    );
}

#[test]
fn scopes_read_no_more_than_they_say() {
    let store = small();
    let leaf = places(&store, Target::Leaf).unwrap()[0].block;
    store.write_block(leaf, &[0; 4096]).unwrap();
    let main = superblock_of(&store);
    let of = |scope| {
        check(
            &store,
            &main,
            None,
            &Options {
                scope,
                ..Options::default()
            },
            &(),
        )
        .findings
    };
    assert!(of(Scope::Superblock).is_clean());
    assert!(of(Scope::Devices).is_clean());
    assert!(!of(Scope::Everything).is_clean());
    store.write_block(main.details_root.0, &[0; 4096]).unwrap();
    assert!(of(Scope::Superblock).is_clean());
    assert!(!of(Scope::Devices).is_clean());
}

/// Whatever is in the blocks, a check ends, without a panic, and what it takes for repairable it
/// can repair.
#[test]
fn any_bytes_lead_to_a_result() {
    let mut random = Random::new(Random::seed_of_test());
    let whole: Vec<Vec<u8>> = (0..4)
        .map(|round| {
            let shape = Shape {
                devices: 5,
                mappings: 3000,
                diverged: 400,
                held: round % 2 == 1,
                seed: random.next(),
                ..Shape::default()
            };
            pool(&shape).to_bytes()
        })
        .collect();
    for _ in 0..600 {
        let store = Memory::from_bytes(random.pick(&whole).unwrap().clone());
        for _ in 0..=random.below(3) {
            let block = if random.chance(200) {
                0
            } else {
                random.below(store.blocks())
            };
            let mut bytes = store.read_block(block).unwrap();
            let Some(kind) = checksum::kind(&bytes) else {
                continue;
            };
            // Mostly headers, keys and pointers: there it hurts.
            let reach = if random.chance(700) { 400 } else { 4096 };
            let at = random.below(reach) as usize;
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.next() as u8,
                2 => {
                    let value = [
                        0,
                        1,
                        2,
                        0xff,
                        u64::MAX,
                        store.blocks(),
                        random.below(store.blocks()),
                    ];
                    let value = random.pick(&value).unwrap().to_le_bytes();
                    let at = at.min(4088) & !7;
                    bytes[at..at + 8].copy_from_slice(&value);
                }
                _ => {
                    let other = store.read_block(random.below(store.blocks())).unwrap();
                    let end = (at + 64).min(4096);
                    bytes[at..end].copy_from_slice(&other[at..end]);
                }
            }
            checksum::seal(kind, &mut bytes, block);
            store.write_block(block, &bytes).unwrap();
        }
        let Ok(main) = superblock::read(&store, 0, Demand::Everything) else {
            continue;
        };
        let outcome = check_all(&store);
        let (clean, can) = (outcome.findings.is_clean(), outcome.findings.can_correct());
        let told = told(&outcome);
        assert_eq!(outcome.truth.is_some(), !outcome.findings.need_salvage());
        if let Some(truth) = outcome.truth.filter(|_| !clean && can) {
            if edit::set_right(&store, &main, truth).is_ok() {
                let again = check_all(&store);
                assert!(
                    again.findings.is_clean(),
                    "{told} then {}",
                    common::told(&again)
                );
            }
        }
    }
}
