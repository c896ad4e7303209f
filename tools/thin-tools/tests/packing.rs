// SPDX-License-Identifier: GPL-2.0

//! thin_metadata_pack and thin_metadata_unpack as programs: nothing is lost, and nothing is overwritten by halves.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use thin_format::io::Memory;
use thin_tools_dev::generate::Shape;
use thin_tools_dev::random::Random;

const TOOLS: &str = env!("CARGO_BIN_EXE_thin-tools");

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("thin-pack-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(args: &[&str]) -> Output {
    Command::new(TOOLS)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn metadata(shape: Shape) -> Vec<u8> {
    let store = Memory::new(shape.blocks());
    shape
        .write(&store)
        .map_err(|_| "the generator failed")
        .unwrap();
    store.to_bytes()
}

#[test]
fn whole_and_damaged_metadata_come_back_bit_for_bit() {
    let place = Place::new("round");
    let mut random = Random::new(Random::seed_of_test());
    for round in 0..6 {
        let mut bytes = metadata(Shape {
            mappings: random.below(200_000),
            seed: random.next(),
            ..Shape::default()
        });
        // No multiple of anything, and a part that is no whole block.
        let blocks = random.below(700) as usize;
        bytes.resize(bytes.len() + blocks * 4096, 0);
        for _ in 0..random.below(200) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
        let (input, pack, output) = (place.path("in"), place.path("pack"), place.path("out"));
        fs::write(&input, &bytes).unwrap();
        let packed = run(&["thin_metadata_pack", "-f", "-i", &input, "-o", &pack]);
        assert!(packed.status.success(), "round {round}: {packed:?}");
        let unpacked = run(&["thin_metadata_unpack", "-f", "-i", &pack, "-o", &output]);
        assert!(unpacked.status.success(), "round {round}: {unpacked:?}");
        assert!(unpacked.stderr.is_empty());
        assert!(fs::read(&output).unwrap() == bytes, "round {round}");
        assert!(fs::metadata(&pack).unwrap().len() < bytes.len() as u64 / 4);
    }
}

#[test]
fn a_bad_pack_leaves_the_destination_alone() {
    let place = Place::new("bad");
    let mut random = Random::new(Random::seed_of_test());
    let (input, pack, output) = (place.path("in"), place.path("pack"), place.path("out"));
    fs::write(&input, metadata(Shape::default())).unwrap();
    assert!(run(&["thin_metadata_pack", "-i", &input, "-o", &pack])
        .status
        .success());
    let whole = fs::read(&pack).unwrap();
    fs::write(&output, b"precious").unwrap();
    for round in 0..40 {
        let mut bad = whole.clone();
        if round % 2 == 0 {
            bad.truncate(random.below(whole.len() as u64) as usize);
        } else {
            // Not in the first chunk, which says that there is an end.
            let at = 64 + random.below(whole.len() as u64 - 64) as usize;
            bad[at] ^= 1 << random.below(8);
        }
        fs::write(&pack, &bad).unwrap();
        let unpacked = run(&["thin_metadata_unpack", "-f", "-i", &pack, "-o", &output]);
        assert_eq!(
            unpacked.status.code(),
            Some(64),
            "round {round}: {unpacked:?}"
        );
        assert!(!unpacked.stderr.is_empty());
        assert_eq!(fs::read(&output).unwrap(), b"precious", "round {round}");
    }
}

#[test]
fn metadata_is_not_overwritten_unasked() {
    let place = Place::new("asked");
    let (input, pack, output) = (place.path("in"), place.path("pack"), place.path("out"));
    let bytes = metadata(Shape::default());
    fs::write(&input, &bytes).unwrap();
    fs::write(&output, &bytes).unwrap();
    assert!(run(&["thin_metadata_pack", "-i", &input, "-o", &pack])
        .status
        .success());
    for args in [
        ["thin_metadata_unpack", "-i", &pack, "-o", &output],
        ["thin_metadata_pack", "-i", &input, "-o", &output],
    ] {
        let refused = run(&args);
        assert_eq!(refused.status.code(), Some(64));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("Output file not overwritten"));
        assert!(fs::read(&output).unwrap() == bytes);
    }
}
