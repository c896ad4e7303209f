// SPDX-License-Identifier: GPL-2.0

//! What device-mapper knows about a thin device and its pool, by way of dmsetup and sysfs.

use crate::cli::Context;
use crate::cli::Failure;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// A block device by its numbers, as `MAJOR:MINOR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNumber(String);

impl DeviceNumber {
    /// The numbers of the block device at `path`.
    pub fn of(path: &Path) -> Result<Self, Failure> {
        let found = fs::metadata(path).context(|| path.display())?;
        if !found.file_type().is_block_device() {
            return Err(Failure::new(format!(
                "Not a block device: {}",
                path.display()
            )));
        }
        let device = found.rdev();
        let major = (device >> 32 & 0xffff_f000) | (device >> 8 & 0xfff);
        let minor = (device >> 12 & 0xffff_ff00) | (device & 0xff);
        Ok(Self(format!("{major}:{minor}")))
    }

    /// The device that a table names, by its numbers or by a path.
    fn named(word: &str) -> Result<Self, Failure> {
        let is_pair = word
            .split_once(':')
            .is_some_and(|(a, b)| a.parse::<u32>().is_ok() && b.parse::<u32>().is_ok());
        if is_pair {
            Ok(Self(word.to_string()))
        } else {
            Self::of(Path::new(word))
        }
    }

    fn attribute(&self, name: &str) -> Result<String, Failure> {
        let path = format!("/sys/dev/block/{}/{name}", self.0);
        let text = fs::read_to_string(&path).context(|| path)?;
        Ok(text.trim_end().to_string())
    }

    /// The name that device-mapper knows it by.
    fn name(&self) -> Result<String, Failure> {
        self.attribute("dm/name")
            .map_err(|_| Failure::new(format!("{} is not a device-mapper device", self.0)))
    }

    /// Whether it cannot be written to.
    pub fn is_read_only(&self) -> Result<bool, Failure> {
        Ok(self.attribute("ro")? == "1")
    }

    /// Its path below /dev.
    pub fn path(&self) -> Result<PathBuf, Failure> {
        let uevent = self.attribute("uevent")?;
        let name = uevent
            .lines()
            .find_map(|line| line.strip_prefix("DEVNAME="));
        let candidates = [
            name.map(|name| PathBuf::from("/dev").join(name)),
            self.name()
                .ok()
                .map(|name| PathBuf::from("/dev/mapper").join(name)),
            Some(PathBuf::from(format!("/dev/block/{}", self.0))),
        ];
        candidates
            .into_iter()
            .flatten()
            .find(|path| Self::of(path).is_ok_and(|other| other == *self))
            .ok_or_else(|| Failure::new(format!("there is no node for {} in /dev", self.0)))
    }

    /// The words of its table's only line.
    fn table(&self) -> Result<Vec<String>, Failure> {
        let text = dmsetup(&["table", &self.name()?])?;
        let mut lines = text.lines();
        let words = lines.next().unwrap_or_default();
        if lines.next().is_some() {
            return Err(Failure::new(format!("{} has more than one target", self.0)));
        }
        Ok(words.split_whitespace().map(str::to_string).collect())
    }
}

fn dmsetup(args: &[&str]) -> Result<String, Failure> {
    let output = Command::new("dmsetup")
        .args(args)
        .output()
        .context(|| "dmsetup")?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!(
            "dmsetup {}: {}",
            args.join(" "),
            errors.trim_end()
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// An active thin device.
#[derive(Debug)]
pub struct Thin {
    /// Its number in the pool.
    pub id: u64,
    /// Its size in sectors.
    pub sectors: u64,
    /// Its pool.
    pool: DeviceNumber,
}

impl Thin {
    /// What the table of a thin device says.
    pub fn of(device: &DeviceNumber) -> Result<Self, Failure> {
        let words = device.table()?;
        Self::parse(&words)
    }

    fn parse(words: &[String]) -> Result<Self, Failure> {
        let wrong = || Failure::new("the source is not an active thin device");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            [_, sectors, "thin", pool, id] => Ok(Self {
                id: id.parse().map_err(|_| wrong())?,
                sectors: sectors.parse().map_err(|_| wrong())?,
                pool: DeviceNumber::named(pool)?,
            }),
            [_, _, "thin", _, _, _] => Err(Failure::new(
                "the source has an external origin: what it does not map cannot be told from the metadata",
            )),
            _ => Err(wrong()),
        }
    }

    /// The metadata device of its pool.
    pub fn metadata_path(&self) -> Result<PathBuf, Failure> {
        let words = self.pool.table()?;
        match (words.get(2).map(String::as_str), words.get(3)) {
            (Some("thin-pool"), Some(metadata)) => DeviceNumber::named(metadata)?.path(),
            _ => Err(Failure::new("the source's pool is not an active thin pool")),
        }
    }

    /// Reserves a metadata snapshot of its pool.
    pub fn reserve(&self) -> Result<Reserved, Failure> {
        let pool = self.pool.name()?;
        dmsetup(&["message", &pool, "0", "reserve_metadata_snap"])?;
        Ok(Reserved { pool })
    }
}

/// A metadata snapshot that is released with this value.
pub struct Reserved {
    pool: String,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Err(failure) = dmsetup(&["message", &self.pool, "0", "release_metadata_snap"]) {
            crate::report::say(&format!(
                "the metadata snapshot could not be released: {}",
                failure.message().unwrap_or_default()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Thin, Failure> {
        let words: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        Thin::parse(&words)
    }

    #[test]
    fn tables_are_understood() {
        let thin = parse("0 2097152 thin 253:3 7").unwrap();
        assert_eq!(
            (thin.id, thin.sectors, thin.pool.0.as_str()),
            (7, 2097152, "253:3")
        );
        for bad in [
            "",
            "0 8 linear 8:1 0",
            "0 8 thin 253:3 7 8:1",
            "0 x thin 253:3 7",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
