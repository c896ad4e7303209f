// SPDX-License-Identifier: GPL-2.0

//! thin_metadata_pack and thin_metadata_unpack: metadata as a small file, to be kept or sent.
//!
//! Every block that is not all zero is kept, whether its checksum is right or not: what is damaged
//! is what whoever gets the file wants to see. Nothing is written to a destination before the whole
//! pack has been found good.

mod archive;
mod codec;
mod deflate;
mod huffman;
mod inflate;
mod pack_tool;
mod unpack_tool;

pub use archive::check_bytes;
pub use pack_tool::run as run_pack;
pub use pack_tool::COMMAND as PACK;
pub use unpack_tool::run as run_unpack;
pub use unpack_tool::COMMAND as UNPACK;

use crate::cli::Failure;
use crate::device;
use crate::report;
use std::io;
use std::path::Path;

/// Asks before something that looks like somebody's metadata is overwritten.
fn confirm(path: &Path, forced: bool) -> Result<(), Failure> {
    if forced || !device::holds_superblock(path) {
        return Ok(());
    }
    report::say(&format!(
        "{} holds a superblock of device-mapper metadata. Overwrite it? [y/N]",
        path.display()
    ));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new("Output file not overwritten")),
    }
}
