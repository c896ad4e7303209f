// SPDX-License-Identifier: GPL-2.0

//! The options of several tools that say what the superblock is to say.

use crate::cli::Arguments;
use crate::cli::Failure;
use crate::cli::Opt;
use crate::restore::check_block_size;
use crate::xml::Superblock;

/// What the command line says about the superblock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overrides {
    /// The transaction id is at least this.
    pub transaction: Option<u64>,
    /// The transaction id is this.
    pub exact_transaction: Option<u64>,
    /// The size of a data block in sectors.
    pub data_block_size: Option<u32>,
    /// The data device has at least so many blocks.
    pub nr_data_blocks: Option<u64>,
}

impl Overrides {
    /// Raises the transaction id.
    pub const TRANSACTION: Opt =
        Opt::value("transaction-id", "NUM", "Raise the transaction id to this");
    /// Sets the transaction id.
    pub const EXACT_TRANSACTION: Opt = Opt::value(
        "set-transaction",
        "NUM",
        "Set the transaction id to exactly this: what the volume manager expects",
    )
    .conflicts(&["transaction-id"]);
    /// Sets the size of data blocks.
    pub const DATA_BLOCK_SIZE: Opt = Opt::value(
        "data-block-size",
        "SECTORS",
        "Set the size of data blocks, in sectors of 512 bytes",
    );
    /// Raises the number of data blocks.
    pub const DATA_BLOCKS: Opt = Opt::value(
        "nr-data-blocks",
        "NUM",
        "Raise the number of data blocks to this",
    );

    /// What `arguments` say.
    ///
    /// # Errors
    ///
    /// If a value is not a number, or no block size.
    pub fn from_arguments(arguments: &Arguments) -> Result<Overrides, Failure> {
        let overrides = Overrides {
            transaction: arguments.number("transaction-id")?,
            exact_transaction: arguments.number("set-transaction")?,
            data_block_size: arguments.number("data-block-size")?,
            nr_data_blocks: arguments.number("nr-data-blocks")?,
        };
        match overrides.data_block_size {
            Some(size) => check_block_size(size).map(|()| overrides),
            None => Ok(overrides),
        }
    }

    /// The superblock with what was said.
    ///
    /// # Errors
    ///
    /// If the size of data blocks then is an impossible one.
    pub fn apply(&self, superblock: Superblock) -> Result<Superblock, Failure> {
        let superblock = self.raise(superblock);
        check_block_size(superblock.data_block_size)?;
        Ok(superblock)
    }

    /// The superblock with what was said, whether or not it makes sense.
    pub fn raise(&self, mut superblock: Superblock) -> Superblock {
        if let Some(transaction) = self.transaction {
            superblock.transaction = superblock.transaction.max(transaction);
        }
        if let Some(transaction) = self.exact_transaction {
            superblock.transaction = transaction;
        }
        if let Some(size) = self.data_block_size {
            superblock.data_block_size = size;
        }
        if let Some(blocks) = self.nr_data_blocks {
            superblock.nr_data_blocks = superblock.nr_data_blocks.max(blocks);
        }
        superblock
    }
}
