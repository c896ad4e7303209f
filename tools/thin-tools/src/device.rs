// SPDX-License-Identifier: GPL-2.0

//! The files and devices named on a command line: whether they can be what they are said to be.

use crate::cli::Failure;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use thin_format::checksum::crc32c;

/// Size of a metadata block in bytes.
const BLOCK: u64 = 4096;

/// The least size of an output for metadata, in bytes: ten blocks.
const LEAST_OUTPUT: u64 = 10 * BLOCK;

/// Checks that `path` can be read as metadata: a regular file or block device, not XML, not too small.
///
/// The order and the wording of the checks is what callers of the tools know.
pub fn check_input(path: &Path) -> Result<(), Failure> {
    check_exists(path, "Couldn't find input file")?;
    let (size, head) = read_head(path)?;
    if looks_like_xml(&head) {
        return Err(Failure::new(
            "This looks like XML.  This tool only supports the binary metadata format.",
        ));
    }
    if size < BLOCK {
        return Err(Failure::new(
            "Metadata device/file too small.  Is this binary metadata?",
        ));
    }
    Ok(())
}

/// Why `path` has no thin superblock, if what it holds instead can be told: for tools to add to
/// their message once they have found the superblock to be bad.
pub fn mistaken(path: &Path) -> Option<String> {
    let (_, head) = read_head(path).ok()?;
    let what = mistaken_for(&head)?;
    Some(format!("{} looks like {what}", path.display()))
}

/// Checks that `path` is a regular file or a block device.
pub fn check_file(path: &Path) -> Result<(), Failure> {
    check_exists(path, "Couldn't find input file")
}

/// Checks that `path` can be written as metadata: it is there and has room.
pub fn check_output(path: &Path) -> Result<(), Failure> {
    check_exists(path, "Couldn't find output file")?;
    if size(path)? < LEAST_OUTPUT {
        return Err(Failure::new("Output file too small"));
    }
    Ok(())
}

fn check_exists(path: &Path, not_found: &str) -> Result<(), Failure> {
    let kind = match fs::metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::new(format!("{not_found}: {}", path.display())))
        }
        Err(error) => return Err(Failure::from(error).within(path.display())),
    };
    if kind.is_file() || kind.is_block_device() {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "Not a block device or regular file: {}",
            path.display()
        )))
    }
}

/// The size of a file or block device in bytes.
pub fn size(path: &Path) -> Result<u64, Failure> {
    let mut file = open(path)?;
    Ok(file.seek(SeekFrom::End(0))?)
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| Failure::from(error).within(path.display()))
}

fn read_head(path: &Path) -> Result<(u64, Vec<u8>), Failure> {
    let mut file = open(path)?;
    let size = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let mut head = Vec::new();
    // A head that cannot be read is for the tool to find out about, with the checksum and all.
    let _ = file.take(BLOCK).read_to_end(&mut head);
    Ok((size, head))
}

fn looks_like_xml(head: &[u8]) -> bool {
    [&b"<superblock"[..], b"<?xml", b"<!DOCTYPE"]
        .iter()
        .any(|start| head.starts_with(start))
}

fn le64(head: &[u8], at: usize) -> Option<u64> {
    let bytes = head.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// What `head` (the first block) belongs to, if that is known not to be thin metadata.
fn mistaken_for(head: &[u8]) -> Option<&'static str> {
    const PACK: u64 = 0xa537_a0aa_6309_ef77;
    const CACHE: u64 = 0o6_142_003;
    const ERA: u64 = 2_126_579_579;
    if le64(head, 0) == Some(PACK) {
        return Some("a packed copy of metadata (unpack it with thin_metadata_unpack)");
    }
    if head.get(512..520) == Some(b"LABELONE") {
        return Some("an LVM physical volume");
    }
    if head.get(1080..1082) == Some(&[0x53, 0xef]) && le64(head, 32) != Some(27_022_010) {
        return Some("an ext file system (a data device?)");
    }
    if head.starts_with(b"XFSB") {
        return Some("an XFS file system (a data device?)");
    }
    if head.starts_with(b"LUKS\xba\xbe") {
        return Some("a LUKS device");
    }
    match le64(head, 32) {
        Some(CACHE) => Some("cache metadata"),
        Some(ERA) => Some("era metadata"),
        _ => None,
    }
}

/// `open` flag: fail on a block device that the kernel or anyone else holds.
pub const O_EXCL: i32 = 0o200;

/// Opens metadata for reading; a block device only if nothing else has it, such as a live pool.
pub fn open_exclusive(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .read(true)
        .custom_flags(O_EXCL)
        .open(path)
        .map_err(|error| {
            let busy = error.kind() == io::ErrorKind::ResourceBusy;
            let failure = Failure::from(error).within(path.display());
            if busy {
                let Some(message) = failure.message() else {
                    return failure;
                };
                return Failure::new(format!("{message} (is the pool active?)"));
            }
            failure
        })
}

/// Whether the first block is a superblock of thin, cache or era metadata, by its checksum.
pub fn holds_superblock(path: &Path) -> bool {
    const SALTS: [u32; 3] = [160_774, 9_031_977, 146_538_381];
    let Ok((_, head)) = read_head(path) else {
        return false;
    };
    let Some((stored, covered)) = head.split_first_chunk::<4>() else {
        return false;
    };
    let sum = !crc32c(covered);
    head.len() as u64 == BLOCK && SALTS.contains(&(sum ^ u32::from_le_bytes(*stored)))
}
