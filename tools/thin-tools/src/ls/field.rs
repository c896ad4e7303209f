// SPDX-License-Identifier: GPL-2.0

//! The fields of the table.

use super::usage::Usage;
use thin_format::records::DeviceDetails;

/// A device.
pub struct Row {
    /// Its number.
    pub id: u64,
    /// Size of a data block in sectors.
    pub block_size: u32,
    /// What it uses, if that was looked at and it has a tree.
    pub usage: Option<Usage>,
    /// What is known about it, if it has details.
    pub details: Option<DeviceDetails>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Amount {
    Mapped,
    Exclusive,
    Shared,
    Highest,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Measure {
    Blocks,
    Sectors,
    Bytes,
    Human,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Dev,
    Space(Amount, Measure),
    Transaction,
    CreateTime,
    SnapTime,
}

/// A field.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field(&'static str, What);

const FIELDS: [Field; 20] = [
    Field("DEV", What::Dev),
    Field(
        "MAPPED_BLOCKS",
        What::Space(Amount::Mapped, Measure::Blocks),
    ),
    Field(
        "EXCLUSIVE_BLOCKS",
        What::Space(Amount::Exclusive, Measure::Blocks),
    ),
    Field(
        "SHARED_BLOCKS",
        What::Space(Amount::Shared, Measure::Blocks),
    ),
    Field(
        "HIGHEST_BLOCK",
        What::Space(Amount::Highest, Measure::Blocks),
    ),
    Field(
        "MAPPED_SECTORS",
        What::Space(Amount::Mapped, Measure::Sectors),
    ),
    Field(
        "EXCLUSIVE_SECTORS",
        What::Space(Amount::Exclusive, Measure::Sectors),
    ),
    Field(
        "SHARED_SECTORS",
        What::Space(Amount::Shared, Measure::Sectors),
    ),
    Field(
        "HIGHEST_SECTOR",
        What::Space(Amount::Highest, Measure::Sectors),
    ),
    Field("MAPPED_BYTES", What::Space(Amount::Mapped, Measure::Bytes)),
    Field(
        "EXCLUSIVE_BYTES",
        What::Space(Amount::Exclusive, Measure::Bytes),
    ),
    Field("SHARED_BYTES", What::Space(Amount::Shared, Measure::Bytes)),
    Field("HIGHEST_BYTE", What::Space(Amount::Highest, Measure::Bytes)),
    Field("MAPPED", What::Space(Amount::Mapped, Measure::Human)),
    Field("EXCLUSIVE", What::Space(Amount::Exclusive, Measure::Human)),
    Field("SHARED", What::Space(Amount::Shared, Measure::Human)),
    Field(
        "HIGHEST_MAPPED",
        What::Space(Amount::Highest, Measure::Human),
    ),
    Field("TRANSACTION", What::Transaction),
    Field("CREATE_TIME", What::CreateTime),
    Field("SNAP_TIME", What::SnapTime),
];

impl Field {
    /// The fields that are shown when none are asked for: device, mapped, both times.
    pub const DEFAULT: [Field; 4] = [FIELDS[0], FIELDS[13], FIELDS[18], FIELDS[19]];

    /// The field with this name.
    pub fn named(name: &str) -> Option<Field> {
        FIELDS.into_iter().find(|field| field.0 == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0
    }

    /// Whether the mappings have to be read for it.
    pub fn needs_walk(self) -> bool {
        matches!(self.1, What::Space(..))
    }

    /// Its value for a device.
    pub fn show(self, row: &Row) -> String {
        let detail = |take: fn(&DeviceDetails) -> u64| {
            row.details
                .as_ref()
                .map_or_else(|| "?".to_string(), |details| take(details).to_string())
        };
        match self.1 {
            What::Dev => row.id.to_string(),
            What::Transaction => detail(|details| details.transaction_id),
            What::CreateTime => detail(|details| u64::from(details.creation_time)),
            What::SnapTime => detail(|details| u64::from(details.snapshotted_time)),
            What::Space(amount, measure) => row.usage.as_ref().map_or_else(
                || "?".to_string(),
                |usage| {
                    let mark = if usage.lost_nodes > 0 { "+" } else { "" };
                    space(amount, measure, usage, row.block_size) + mark
                },
            ),
        }
    }
}

fn space(amount: Amount, measure: Measure, usage: &Usage, block_size: u32) -> String {
    let is_highest = amount == Amount::Highest;
    let blocks = match amount {
        Amount::Mapped => usage.mapped,
        Amount::Exclusive => usage.exclusive,
        Amount::Shared => usage.mapped.saturating_sub(usage.exclusive),
        Amount::Highest => usage.highest.unwrap_or(0),
    };
    if measure == Measure::Blocks {
        return blocks.to_string();
    }
    // Of the highest block, its end counts.
    let blocks = u128::from(blocks) + u128::from(is_highest);
    let sectors = blocks * u128::from(block_size);
    let last = u128::from(is_highest);
    let bytes = (sectors * 512).saturating_sub(last);
    match measure {
        Measure::Sectors => sectors.saturating_sub(last).to_string(),
        Measure::Bytes => bytes.to_string(),
        Measure::Blocks | Measure::Human => human(bytes),
    }
}

/// A size in the unit that leaves at most four digits, or five that begin with less than 8.2.
fn human(bytes: u128) -> String {
    const UNITS: [&str; 7] = ["b", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1 << 20 && unit + 1 < UNITS.len() {
        value >>= 10;
        unit += 1;
    }
    if value > 8192 && unit + 1 < UNITS.len() {
        value = (value + 512) >> 10;
        unit += 1;
    }
    format!("{value}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes_for_people() {
        assert_eq!(human(0), "0b");
        assert_eq!(human(8192), "8192b");
        assert_eq!(human(8193), "8KiB");
        assert_eq!(human(65536), "64KiB");
        assert_eq!(human(8192 << 10), "8192KiB");
        assert_eq!(human((8192 << 10) + 1024), "8MiB");
        assert_eq!(human(1 << 40), "1024GiB");
        assert_eq!(human(9 << 40), "9TiB");
        assert_eq!(human(u128::from(u64::MAX)), "16EiB");
    }
}
