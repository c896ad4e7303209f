// SPDX-License-Identifier: GPL-2.0

//! Reading a command line.

use super::command::Command;
use super::command::Opt;
use super::command::Takes;
use super::failure::Failure;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::str::FromStr;

/// A command line that was understood. Options are asked for by their long name.
pub struct Arguments {
    command: &'static Command,
    options: Vec<(&'static Opt, Option<OsString>)>,
    operands: Vec<OsString>,
}

/// What a command line asks for.
pub(super) enum Parsed {
    /// The tool's work.
    Run(Arguments),
    /// The help text.
    Help,
    /// The version.
    Version,
}

/// Reads `args`, which has no program name in it.
pub(super) fn parse(command: &'static Command, args: Vec<OsString>) -> Result<Parsed, Failure> {
    let mut found = Arguments {
        command,
        options: Vec::new(),
        operands: Vec::new(),
    };
    let mut rest = args.into_iter();
    let mut only_operands = false;
    while let Some(arg) = rest.next() {
        let bytes = arg.as_bytes();
        if only_operands || bytes == b"-" || !bytes.starts_with(b"-") {
            found.operand_given(arg)?;
        } else if bytes == b"--" {
            only_operands = true;
        } else if let Some(long) = bytes.strip_prefix(b"--") {
            let (name, value) = match long.iter().position(|&byte| byte == b'=') {
                Some(at) => (
                    &long[..at],
                    Some(OsString::from_vec(long[at + 1..].to_vec())),
                ),
                None => (long, None),
            };
            match name {
                b"help" => return Ok(Parsed::Help),
                b"version" => return Ok(Parsed::Version),
                _ => {}
            }
            let shown = || format!("--{}", String::from_utf8_lossy(name));
            let option = command
                .options
                .iter()
                .find(|option| {
                    option.long.as_bytes() == name
                        || option.aliases.iter().any(|alias| alias.as_bytes() == name)
                })
                .ok_or_else(|| unexpected(&shown()))?;
            found.option_given(option, value, &mut rest)?;
        } else {
            let text = arg
                .to_str()
                .ok_or_else(|| unexpected(&arg.to_string_lossy()))?;
            let mut letters = text[1..].chars();
            while let Some(letter) = letters.next() {
                match letter {
                    'h' => return Ok(Parsed::Help),
                    'V' => return Ok(Parsed::Version),
                    _ => {}
                }
                let option = command
                    .options
                    .iter()
                    .find(|option| option.short == Some(letter))
                    .ok_or_else(|| unexpected(&format!("-{letter}")))?;
                if option.takes == Takes::Nothing {
                    found.option_given(option, None, &mut rest)?;
                    continue;
                }
                let attached = letters.as_str();
                let value = match (attached.strip_prefix('='), attached) {
                    (Some(value), _) => Some(value.into()),
                    // Other letters are other options: this one's value comes after `=` only.
                    (None, _) if matches!(option.takes, Takes::Optional(_)) => {
                        found.option_given(option, None, &mut rest)?;
                        continue;
                    }
                    (None, "") => None,
                    (None, value) => Some(value.into()),
                };
                found.option_given(option, value, &mut rest)?;
                break;
            }
        }
    }
    found.complete()?;
    Ok(Parsed::Run(found))
}

fn unexpected(what: &str) -> Failure {
    Failure::usage(format!("unexpected argument '{what}' found"))
}

impl Arguments {
    fn operand_given(&mut self, arg: OsString) -> Result<(), Failure> {
        if self.operands.len() >= self.command.operands.len() {
            return Err(unexpected(&arg.to_string_lossy()));
        }
        self.operands.push(arg);
        Ok(())
    }

    fn option_given(
        &mut self,
        option: &'static Opt,
        value: Option<OsString>,
        rest: &mut impl Iterator<Item = OsString>,
    ) -> Result<(), Failure> {
        let value = match (option.takes, value) {
            (Takes::Nothing, None) => None,
            (Takes::Nothing, Some(value)) => {
                return Err(Failure::usage(format!(
                    "'{}' takes no value, but '{}' was given",
                    option.shown(),
                    value.to_string_lossy()
                )))
            }
            (Takes::Optional(_), value) => value,
            (Takes::Value(_), Some(value)) => Some(value),
            (Takes::Value(_), None) => Some(
                rest.next()
                    .ok_or_else(|| Failure::usage(format!("'{}' needs a value", option.shown())))?,
            ),
        };
        if !option.repeats && self.given(option.long) {
            return Err(Failure::usage(format!(
                "the argument '{}' cannot be used multiple times",
                option.shown()
            )));
        }
        self.options.push((option, value));
        Ok(())
    }

    /// What can only be seen when the whole line has been read.
    fn complete(&self) -> Result<(), Failure> {
        for (option, _) in &self.options {
            for other in option.conflicts {
                if let Some((other, _)) = self.options.iter().find(|(o, _)| o.long == *other) {
                    return Err(Failure::usage(format!(
                        "the argument '{}' cannot be used with '{}'",
                        option.shown(),
                        other.shown()
                    )));
                }
            }
        }
        let mut missing = Vec::new();
        for option in self.command.options {
            if option.required && !self.given(option.long) {
                missing.push(format!("  {}", option.shown()));
            }
        }
        for operand in self.command.operands.iter().skip(self.operands.len()) {
            if operand.required {
                missing.push(format!("  <{}>", operand.name));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "the following required arguments were not provided:\n{}",
            missing.join("\n")
        )))
    }

    /// Whether the option was given.
    pub fn given(&self, long: &str) -> bool {
        self.options.iter().any(|(option, _)| option.long == long)
    }

    /// How often the option was given.
    pub fn count(&self, long: &str) -> usize {
        self.options
            .iter()
            .filter(|(option, _)| option.long == long)
            .count()
    }

    /// The option's value, if it was given with one.
    pub fn value<'a>(&'a self, long: &'a str) -> Option<&'a OsStr> {
        self.values(long).next()
    }

    /// All values of an option that repeats, in the order given.
    pub fn values<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a OsStr> {
        self.options
            .iter()
            .filter(move |(option, _)| option.long == long)
            .filter_map(|(_, value)| value.as_deref())
    }

    /// The option's value as a path.
    pub fn path<'a>(&'a self, long: &'a str) -> Option<&'a Path> {
        self.value(long).map(Path::new)
    }

    /// The option's value as text.
    pub fn text<'a>(&'a self, long: &'a str) -> Result<Option<&'a str>, Failure> {
        self.value(long)
            .map(|value| {
                value
                    .to_str()
                    .ok_or_else(|| self.invalid(long, value, "not text"))
            })
            .transpose()
    }

    /// The option's value as a number (or anything else that parses).
    pub fn number<T: FromStr>(&self, long: &str) -> Result<Option<T>, Failure>
    where
        T::Err: std::fmt::Display,
    {
        self.numbers(long).map(|all| all.into_iter().next())
    }

    /// All values of an option that repeats, as numbers.
    pub fn numbers<T: FromStr>(&self, long: &str) -> Result<Vec<T>, Failure>
    where
        T::Err: std::fmt::Display,
    {
        self.values(long)
            .map(|value| {
                let text = value
                    .to_str()
                    .ok_or_else(|| self.invalid(long, value, "not text"))?;
                text.parse()
                    .map_err(|error| self.invalid(long, value, &format!("{error}")))
            })
            .collect()
    }

    /// A usage failure about the option's value.
    pub fn invalid(&self, long: &str, value: &OsStr, why: &str) -> Failure {
        let shown = self
            .command
            .options
            .iter()
            .find(|option| option.long == long)
            .map_or_else(|| long.to_string(), Opt::shown);
        Failure::usage(format!(
            "invalid value '{}' for '{shown}': {why}",
            value.to_string_lossy()
        ))
    }

    /// The `index`th argument that is not an option, as a path.
    pub fn operand(&self, index: usize) -> Option<&Path> {
        self.operands.get(index).map(Path::new)
    }
}
