// SPDX-License-Identifier: GPL-2.0

//! Units of size.

/// A unit of size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its letter.
    pub letter: char,
    /// Its symbol, if that is not the letter.
    symbol: &'static str,
    /// Its name, in the singular.
    pub name: &'static str,
    /// How many bytes it is.
    bytes: u64,
}

const fn unit(letter: char, symbol: &'static str, name: &'static str, bytes: u64) -> Unit {
    Unit {
        letter,
        symbol,
        name,
        bytes,
    }
}

const UNITS: [Unit; 14] = [
    unit('b', "b", "byte", 1),
    Unit::SECTOR,
    unit('k', "KiB", "kibibyte", 1 << 10),
    unit('m', "MiB", "mebibyte", 1 << 20),
    unit('g', "GiB", "gibibyte", 1 << 30),
    unit('t', "TiB", "tebibyte", 1 << 40),
    unit('p', "PiB", "pebibyte", 1 << 50),
    unit('e', "EiB", "exbibyte", 1 << 60),
    unit('K', "kB", "kilobyte", 1_000),
    unit('M', "MB", "megabyte", 1_000_000),
    unit('G', "GB", "gigabyte", 1_000_000_000),
    unit('T', "TB", "terabyte", 1_000_000_000_000),
    unit('P', "PB", "petabyte", 1_000_000_000_000_000),
    unit('E', "EB", "exabyte", 1_000_000_000_000_000_000),
];

impl Unit {
    /// 512 bytes.
    pub const SECTOR: Unit = unit('s', "s", "sector", 512);

    /// The unit with this letter, symbol or name (singular or plural).
    pub fn named(text: &str) -> Option<Unit> {
        let singular = text.strip_suffix('s').unwrap_or(text);
        UNITS.into_iter().find(|unit| {
            unit.symbol == text
                || unit.name == text
                || unit.name == singular
                || text.strip_prefix(unit.letter) == Some("")
        })
    }

    /// So many bytes in this unit: whole if it comes out whole, else with two places, or as many as
    /// it takes below 1.
    pub fn show(self, bytes: u64) -> String {
        if bytes % self.bytes == 0 {
            return (bytes / self.bytes).to_string();
        }
        let value = bytes as f64 / self.bytes as f64;
        if value < 1.0 {
            value.to_string()
        } else {
            format!("{value:.2}")
        }
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// A size in bytes: a number with a unit, or of sectors.
pub fn size(text: &str) -> Option<u64> {
    let (number, rest) = split(text)?;
    let unit = match rest {
        "" => Unit::SECTOR,
        name => Unit::named(name)?,
    };
    number.checked_mul(unit.bytes)
}

/// A count: a number, perhaps with a letter that stands for thousands.
pub fn count(text: &str) -> Option<u64> {
    let (number, rest) = split(text)?;
    let factor = match rest {
        "" => 1,
        name => Unit::named(name).filter(|unit| unit.letter != 's')?.bytes,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("8"), Some(4096));
        assert_eq!(size("64k"), Some(65536));
        assert_eq!(size("64KiB"), Some(65536));
        assert_eq!(size("2kilobytes"), Some(2000));
        assert_eq!(size("1t"), Some(1 << 40));
        assert_eq!(size("16e"), None);
        assert_eq!(size("18446744073709551616"), None);
        for bad in ["", "k", "1x", "-1", "1kk", "1 k"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_are_as_long_as_they_need() {
        let bytes = 1_073_232 * 512;
        assert_eq!(Unit::SECTOR.show(bytes), "1073232");
        assert_eq!(Unit::named("m").unwrap().show(bytes), "524.04");
        assert_eq!(
            Unit::named("t").unwrap().show(bytes),
            "0.0004997625946998596"
        );
        assert_eq!(Unit::named("t").unwrap().name, "tebibyte");
    }
}
