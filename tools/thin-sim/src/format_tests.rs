// SPDX-License-Identifier: GPL-2.0

//! The records on disk have the shape that the kernel's C code gives them.

use crate::core::{
    format::{
        bitmap_count,
        set_bitmap_count,
        stored_checksum,
        stored_location,
        Block,
        BlockError,
        BlockKind,
        DeviceDetails,
        IndexEntry,
        NodeError,
        NodeHeader,
        PackedMapping,
        SpaceMapRoot,
        Superblock,
        BITMAP_ENTRIES,
        BLOCK_BYTES,
        INDEX_ENTRIES,
        MAX_DATA_BLOCK,
        MAX_METADATA_BLOCKS,
        MAX_TIME, //
    },
    units::{
        DataBlock,
        MetadataBlock, //
    },
};

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

#[test]
fn limits_are_those_of_the_format() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(MAX_METADATA_BLOCKS, 4_161_600);
    assert_eq!((BITMAP_ENTRIES, INDEX_ENTRIES), (16_320, 255));
    for (value_size, entries) in [(8, 252), (24, 126), (16, 168), (4, 336)] {
        assert_eq!(NodeHeader::capacity(value_size), entries);
    }
    assert_eq!(NodeHeader::capacity(u32::MAX), 0);
}

#[test]
fn every_field_of_the_superblock_has_its_place() {
    let mut block: Block = [0; BLOCK_BYTES];
    for (index, byte) in block.iter_mut().enumerate() {
        *byte = (index * 7 % 251) as u8;
    }
    let at4 = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap());
    let at8 = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().unwrap());
    let superblock = Superblock::read(&block);
    assert_eq!(superblock.flags, at4(4));
    assert_eq!(superblock.uuid, block[16..32]);
    assert_eq!(superblock.magic, at8(32));
    assert_eq!(superblock.version, at4(40));
    assert_eq!(superblock.time, at4(44));
    assert_eq!(superblock.transaction_id, at8(48));
    assert_eq!(superblock.metadata_snapshot.0, at8(56));
    assert_eq!(superblock.data_space_map_root, block[64..192]);
    assert_eq!(superblock.metadata_space_map_root, block[192..320]);
    assert_eq!(superblock.mapping_root.0, at8(320));
    assert_eq!(superblock.details_root.0, at8(328));
    assert_eq!(superblock.data_block_size, at4(336));
    assert_eq!(superblock.metadata_block_size, at4(340));
    assert_eq!(superblock.metadata_blocks, at8(344));
    assert_eq!(superblock.compatible_features, at4(352));
    assert_eq!(superblock.read_only_compatible_features, at4(356));
    assert_eq!(superblock.incompatible_features, at4(360));

    let mut copy: Block = [0xff; BLOCK_BYTES];
    superblock.write(&mut copy);
    assert_eq!(copy[4..8], block[4..8]);
    assert_eq!(copy[16..364], block[16..364]);
    assert!(copy[364..].iter().all(|byte| *byte == 0));
    assert!(copy[..4]
        .iter()
        .chain(&copy[8..16])
        .all(|byte| *byte == 0xff));
}

#[test]
fn a_block_that_is_damaged_or_misplaced_is_found_out() {
    for kind in BlockKind::ALL {
        let mut block: Block = [0x5a; BLOCK_BYTES];
        let here = MetadataBlock(77);
        kind.seal(&mut block, here, crc32c);
        assert_eq!(stored_location(&block), here);
        assert_eq!(kind.check(&block, here, crc32c), Ok(()));
        assert!(matches!(
            kind.check(&block, MetadataBlock(78), crc32c),
            Err(BlockError::Location { .. })
        ));
        for other in BlockKind::ALL.into_iter().filter(|other| *other != kind) {
            let found = other.check(&block, here, crc32c);
            assert!(matches!(found, Err(BlockError::Checksum { .. })));
        }
        for damaged in [0, 4, 8, 2000, 4095] {
            let mut block = block;
            block[damaged] ^= 1;
            let found = kind.check(&block, here, crc32c);
            assert!(matches!(found, Err(BlockError::Checksum { .. })));
        }
        assert_ne!(stored_checksum(&block), 0x5a5a_5a5a);
    }
}

#[test]
fn a_checksum_is_the_crc_without_its_final_inversion_and_salted() {
    let mut block: Block = [0; BLOCK_BYTES];
    let header = NodeHeader {
        flags: NodeHeader::LEAF,
        entries: 0,
        max_entries: 252,
        value_size: 8,
    };
    header.write(&mut block);
    BlockKind::Node.seal(&mut block, MetadataBlock(8), crc32c);
    let raw = !crc32c(&block[4..]);
    assert_eq!(stored_checksum(&block), raw ^ 121_107);
    assert_eq!(NodeHeader::read(&block), header);
}

#[test]
fn a_node_that_does_not_fit_its_block_is_refused() {
    let good = NodeHeader {
        flags: NodeHeader::INTERNAL,
        entries: 252,
        max_entries: 252,
        value_size: 8,
    };
    assert_eq!(good.check(), Ok(()));
    let mut block: Block = [0; BLOCK_BYTES];
    for (index, byte) in block.iter_mut().enumerate() {
        *byte = index as u8;
    }
    assert_eq!(good.keys(&block), &block[32..32 + 252 * 8]);
    assert_eq!(good.values(&block), &block[32 + 252 * 8..32 + 252 * 16]);

    let with = |change: fn(&mut NodeHeader)| {
        let mut header = good;
        change(&mut header);
        header.check()
    };
    assert_eq!(
        with(|node| node.max_entries = 255),
        Err(NodeError::TooLarge)
    );
    assert_eq!(
        with(|node| node.value_size = u32::MAX),
        Err(NodeError::TooLarge)
    );
    assert_eq!(with(|node| node.entries = 253), Err(NodeError::TooMany));
    assert_eq!(with(|node| node.flags = 4), Err(NodeError::Kind));

    let huge = NodeHeader {
        entries: u32::MAX,
        max_entries: u32::MAX,
        value_size: u32::MAX,
        ..good
    };
    assert!(huge.keys(&block).is_empty() && huge.values(&block).is_empty());
}

#[test]
fn a_mapping_has_40_bits_of_block_and_24_of_time() {
    let mapping = PackedMapping::new(DataBlock(0x12_3456_789a), 0xbc_def0).unwrap();
    assert_eq!(mapping.to_bytes(), 0x1234_5678_9abc_def0u64.to_le_bytes());
    assert_eq!(PackedMapping::from_bytes(mapping.to_bytes()), mapping);
    assert_eq!(mapping.block(), DataBlock(0x12_3456_789a));
    assert_eq!(mapping.time(), 0xbc_def0);
    assert!(PackedMapping::new(MAX_DATA_BLOCK, MAX_TIME).is_some());
    assert!(PackedMapping::new(DataBlock(MAX_DATA_BLOCK.0 + 1), 0).is_none());
    assert!(PackedMapping::new(DataBlock(0), MAX_TIME + 1).is_none());
}

#[test]
fn small_records_keep_their_fields_apart() {
    let details = DeviceDetails {
        mapped_blocks: 1,
        transaction_id: 2,
        creation_time: 3,
        snapshotted_time: 4,
    };
    let mut expected = Vec::new();
    expected.extend(1u64.to_le_bytes());
    expected.extend(2u64.to_le_bytes());
    expected.extend(3u32.to_le_bytes());
    expected.extend(4u32.to_le_bytes());
    assert_eq!(details.to_bytes(), expected[..]);
    assert_eq!(DeviceDetails::from_bytes(details.to_bytes()), details);

    let root = SpaceMapRoot {
        blocks: 1,
        allocated: 2,
        bitmap_root: MetadataBlock(3),
        reference_count_root: MetadataBlock(4),
    };
    let bytes = root.to_bytes();
    let numbers: Vec<u8> = (1u64..=4).flat_map(u64::to_le_bytes).collect();
    assert_eq!(bytes[..32], numbers);
    assert!(bytes[32..].iter().all(|byte| *byte == 0));
    assert_eq!(SpaceMapRoot::read(&bytes), root);

    let entry = IndexEntry {
        bitmap: MetadataBlock(9),
        free: 5,
        none_free_before: 6,
    };
    let mut index: Block = [0; BLOCK_BYTES];
    entry.write(&mut index, 254);
    assert_eq!(index[16 + 254 * 16..], entry.to_bytes());
    assert_eq!(IndexEntry::read(&index, 254), entry);
    assert_eq!(IndexEntry::read(&index, 255).free, 0);
}

#[test]
fn counts_in_a_bitmap_have_their_high_bit_first() {
    let mut bitmap: Block = [0; BLOCK_BYTES];
    let counts = [1, 2, 3, 0, 2, 1, 0, 3];
    for (entry, count) in counts.into_iter().enumerate() {
        set_bitmap_count(&mut bitmap, entry as u32, count);
    }
    // As a 64-bit word: count 1 sets the upper bit of its pair, count 2 the lower one.
    assert_eq!(bitmap[16], 0b00_11_01_10);
    assert_eq!(bitmap[17], 0b11_00_10_01);
    for (entry, count) in counts.into_iter().enumerate() {
        assert_eq!(bitmap_count(&bitmap, entry as u32), count);
    }
    set_bitmap_count(&mut bitmap, BITMAP_ENTRIES - 1, 200);
    assert_eq!(bitmap[4095], 0b11_00_00_00);
    set_bitmap_count(&mut bitmap, BITMAP_ENTRIES, 1);
    assert_eq!(bitmap_count(&bitmap, BITMAP_ENTRIES), 0);
}
