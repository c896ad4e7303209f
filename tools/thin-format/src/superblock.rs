// SPDX-License-Identifier: GPL-2.0
//! Block 0, and the copy of it that a metadata snapshot holds.

use crate::block::{BlockBytes, BlockKind};
use crate::checksum;
use crate::error::{Error, Fault, Result};
use crate::io::Store;
use crate::records::{SpaceMapRoot, Superblock};

/// How much of the superblock has to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Checksum and location, magic number, and no features that this version does not know.
    Everything,
    /// Only the checksum: for showing what is there.
    Checksum,
}

/// Reads and verifies the superblock at `block`: 0, or where a metadata snapshot is held.
///
/// The version is not looked at: the kernel never checks it, and both 1 and 2 are found.
///
/// # Errors
///
/// [`Error::Read`], or [`Error::Block`] with the [`Fault`] found; [`Fault::Unformatted`] if block 0
/// is all zeroes.
pub fn read(store: &dyn Store, block: u64, demand: Demand) -> Result<Superblock> {
    let bytes = store.read_block(block)?;
    verify(&bytes, block, demand)
}

/// As [`read`], for bytes that were read from `block` already.
///
/// # Errors
///
/// As for [`read`], without [`Error::Read`].
pub fn verify(bytes: &BlockBytes, block: u64, demand: Demand) -> Result<Superblock> {
    let fail = |fault| Err(Error::block(block, BlockKind::Superblock, fault));
    if Superblock::is_unformatted(bytes) {
        return fail(Fault::Unformatted);
    }
    match checksum::check(BlockKind::Superblock, bytes, block) {
        Err(error) if demand == Demand::Everything || error.fault() == Some(&Fault::Checksum) => {
            return Err(error)
        }
        _ => {}
    }
    let superblock = Superblock::read(bytes);
    if demand == Demand::Everything {
        if superblock.magic != Superblock::MAGIC {
            return fail(Fault::Magic(superblock.magic));
        }
        if superblock.incompatible_features != 0 {
            return fail(Fault::Features(superblock.incompatible_features));
        }
    }
    Ok(superblock)
}

/// Changes some fields of block 0 and nothing else in it, then makes it durable.
///
/// Bytes that this version gives no meaning to stay what they are.
///
/// # Errors
///
/// As for [`read`], [`Error::Write`], [`Error::Flush`].
pub fn update(store: &dyn Store, change: impl FnOnce(&mut Superblock)) -> Result {
    let mut bytes = store.read_block(0)?;
    let mut superblock = verify(&bytes, 0, Demand::Everything)?;
    change(&mut superblock);
    let rest: Vec<u8> = bytes.get(Superblock::BYTES..).unwrap_or_default().to_vec();
    superblock.write(&mut bytes);
    if let Some(place) = bytes.get_mut(Superblock::BYTES..) {
        place.copy_from_slice(&rest);
    }
    checksum::seal(BlockKind::Superblock, &mut bytes, 0);
    store.write_block(0, &bytes)?;
    store.flush()
}

/// The space map of the data device.
pub fn data_space_map(superblock: &Superblock) -> SpaceMapRoot {
    SpaceMapRoot::read(&superblock.data_space_map_root)
}

/// The space map of the metadata device.
pub fn metadata_space_map(superblock: &Superblock) -> SpaceMapRoot {
    SpaceMapRoot::read(&superblock.metadata_space_map_root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BLOCK_SIZE;
    use crate::io::Memory;

    fn formatted() -> Memory {
        let mut bytes = [0; BLOCK_SIZE];
        bytes[32..40].copy_from_slice(&Superblock::MAGIC.to_le_bytes());
        bytes[16..32].fill(0xaa);
        bytes[100] = 0x55;
        bytes[4000] = 0x77;
        checksum::seal(BlockKind::Superblock, &mut bytes, 0);
        Memory::from_bytes(bytes.to_vec())
    }

    #[test]
    fn changing_one_field_changes_nothing_else() {
        let store = formatted();
        let before = store.to_bytes();
        update(&store, |superblock| {
            superblock.flags |= Superblock::NEEDS_CHECK
        })
        .unwrap();
        let after = store.to_bytes();
        assert!(read(&store, 0, Demand::Everything).unwrap().needs_check());
        let changed: Vec<usize> = (0..BLOCK_SIZE)
            .filter(|at| before[*at] != after[*at])
            .collect();
        assert!(changed.iter().all(|at| *at <= 4), "{changed:?}");
    }

    #[test]
    fn what_is_no_superblock_is_refused_with_the_reason() {
        let store = formatted();
        assert!(read(&store, 0, Demand::Everything).is_ok());
        for (at, fault) in [(32, "magic"), (360, "features"), (8, "belongs")] {
            let mut bytes = *store.read_block(0).unwrap();
            bytes[at] ^= 4;
            let sum = checksum::of(BlockKind::Superblock, &bytes).to_le_bytes();
            bytes[..4].copy_from_slice(&sum);
            let error = verify(&bytes, 0, Demand::Everything)
                .unwrap_err()
                .to_string();
            assert!(error.contains(fault), "{error}");
            assert!(verify(&bytes, 0, Demand::Checksum).is_ok());
        }
        let error = read(&Memory::new(1), 0, Demand::Everything).unwrap_err();
        assert_eq!(error.fault(), Some(&Fault::Unformatted));
    }
}
