// SPDX-License-Identifier: GPL-2.0

//! What a tool's command line looks like, as data: the parser, the help text and the shell
//! completions all read it.

use super::status;

/// A tool's command line.
pub struct Command {
    /// The tool's name.
    pub name: &'static str,
    /// What it does, in half a line.
    pub about: &'static str,
    /// What else the help text says, after the options; lines without a newline at the end.
    pub details: &'static str,
    /// The arguments that are not options, in order.
    pub operands: &'static [Operand],
    /// The options, without `--help` and `--version`, which every tool has.
    pub options: &'static [Opt],
    /// The exit status for a wrong command line.
    pub usage_status: u8,
    /// Whether failures also go to the system log: for tools that others run with `--quiet`.
    pub logs: bool,
}

impl Command {
    /// A command line without operands and options.
    pub const fn new(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            details: "",
            operands: &[],
            options: &[],
            usage_status: status::USAGE,
            logs: false,
        }
    }
}

/// An argument that is not an option.
pub struct Operand {
    /// How the help text calls it.
    pub name: &'static str,
    /// Whether it has to be given.
    pub required: bool,
    /// What it is; empty: accepted, but not shown.
    pub help: &'static str,
}

/// What an option takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Nothing: a flag.
    Nothing,
    /// One value, of this name in the help text.
    Value(&'static str),
    /// Perhaps a value, and only after `=`.
    Optional(&'static str),
}

/// An option.
pub struct Opt {
    /// The long name without dashes; also the name the tool asks for it by.
    pub long: &'static str,
    /// The short name.
    pub short: Option<char>,
    /// Other long names.
    pub aliases: &'static [&'static str],
    /// What it takes.
    pub takes: Takes,
    /// Whether it may be given more than once.
    pub repeats: bool,
    /// Whether it has to be given.
    pub required: bool,
    /// Long names of the options it cannot be given together with.
    pub conflicts: &'static [&'static str],
    /// What it does; empty: accepted, but not shown.
    pub help: &'static str,
}

impl Opt {
    /// A flag.
    pub const fn flag(long: &'static str, help: &'static str) -> Self {
        Self {
            long,
            short: None,
            aliases: &[],
            takes: Takes::Nothing,
            repeats: false,
            required: false,
            conflicts: &[],
            help,
        }
    }

    /// An option with a value.
    pub const fn value(long: &'static str, name: &'static str, help: &'static str) -> Self {
        let mut option = Self::flag(long, help);
        option.takes = Takes::Value(name);
        option
    }

    /// An option with a value after `=`, or none.
    pub const fn optional(long: &'static str, name: &'static str, help: &'static str) -> Self {
        let mut option = Self::flag(long, help);
        option.takes = Takes::Optional(name);
        option
    }

    /// With a short name.
    pub const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    /// With other long names.
    pub const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// May be given more than once.
    pub const fn repeats(mut self) -> Self {
        self.repeats = true;
        self
    }

    /// Has to be given.
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Cannot be given together with these.
    pub const fn conflicts(mut self, others: &'static [&'static str]) -> Self {
        self.conflicts = others;
        self
    }

    /// `--long <VALUE>`, as usage lines and messages show it.
    pub fn shown(&self) -> String {
        match self.takes {
            Takes::Nothing => format!("--{}", self.long),
            Takes::Value(name) => format!("--{} <{name}>", self.long),
            Takes::Optional(name) => format!("--{}[=<{name}>]", self.long),
        }
    }

    /// Accepted for compatibility: `-v`, more words on stderr.
    pub const VERBOSE: Opt = Opt::flag("verbose", "").short('v').repeats();

    /// Accepted for compatibility: there is one I/O engine, and it needs no choice.
    pub const IO_ENGINE: Opt = Opt::value("io-engine", "ENGINE", "");

    /// `-q`: nothing but the exit status.
    pub const QUIET: Opt =
        Opt::flag("quiet", "Print nothing; the exit status says how it went").short('q');
}
