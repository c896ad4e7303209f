// SPDX-License-Identifier: GPL-2.0

//! Command lines: which tool, which options, and what a failure looks like.

mod arguments;
mod command;
mod completions;
mod failure;
mod help;

pub use arguments::Arguments;
pub use command::Command;
pub use command::Operand;
pub use command::Opt;
pub use command::Takes;
pub use failure::status;
pub use failure::Context;
pub use failure::Failure;

use crate::report;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

/// One tool: its command line and what it does.
#[derive(Clone, Copy)]
pub struct Tool {
    /// Name, operands and options.
    pub command: &'static Command,
    /// The work. A success is exit status 0, whatever else is in the [`Failure`].
    pub run: fn(&Arguments) -> Result<(), Failure>,
}

/// An entry of the table of tools.
pub const fn tool(command: &'static Command, run: fn(&Arguments) -> Result<(), Failure>) -> Tool {
    Tool { command, run }
}

/// The name of the executable itself; under it the first argument names the tool.
const MULTICALL: &str = "thin-tools";

/// Finds the tool, runs it, reports its failure; the exit status.
pub fn dispatch(tools: &[Tool], mut args: Vec<OsString>) -> u8 {
    if args.is_empty() {
        return overview(tools, report::stderr(), status::FAILURE);
    }
    let called = args.remove(0);
    let base = Path::new(&called).file_name().unwrap_or(&called).to_owned();
    if let Some(tool) = find(tools, &base) {
        return start(tool, args);
    }
    if args.is_empty() {
        return overview(tools, report::stderr(), status::FAILURE);
    }
    let first = args.remove(0);
    if let Some(tool) = find(tools, &first) {
        return start(tool, args);
    }
    match first.to_str() {
        Some("-h" | "--help" | "help") => overview(tools, report::stdout(), 0),
        Some("-V" | "--version") => print(&format!("{}\n", crate::VERSION)),
        Some("--completions") => completions(tools, &args),
        _ => {
            report::say(&format!(
                "error: there is no tool '{}'",
                first.to_string_lossy()
            ));
            overview(tools, report::stderr(), status::FAILURE)
        }
    }
}

fn find<'a>(tools: &'a [Tool], name: &OsStr) -> Option<&'a Tool> {
    tools.iter().find(|tool| name == tool.command.name)
}

fn overview(tools: &[Tool], mut out: impl Write, status: u8) -> u8 {
    let text = help::overview(MULTICALL, tools);
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => status,
        Err(_) => status::FAILURE,
    }
}

fn completions(tools: &[Tool], args: &[OsString]) -> u8 {
    let text = match args {
        [shell] if shell == "bash" => completions::bash(tools),
        [shell] if shell == "zsh" => completions::zsh(tools),
        [shell] if shell == "fish" => completions::fish(tools),
        _ => {
            report::say("error: --completions takes one of bash, zsh, fish");
            return status::USAGE;
        }
    };
    print(&text)
}

fn print(text: &str) -> u8 {
    let mut out = report::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => 0,
        Err(_) => status::FAILURE,
    }
}

fn start(tool: &Tool, args: Vec<OsString>) -> u8 {
    let arguments = match arguments::parse(tool.command, args) {
        Ok(arguments::Parsed::Run(arguments)) => arguments,
        Ok(arguments::Parsed::Help) => return print(&help::full(tool.command)),
        Ok(arguments::Parsed::Version) => return print(&format!("{}\n", crate::VERSION)),
        Err(failure) => return finish(tool.command, false, failure),
    };
    let quiet = arguments.given("quiet");
    match (tool.run)(&arguments) {
        Ok(()) => 0,
        Err(failure) => finish(tool.command, quiet, failure),
    }
}

/// Says what went wrong and turns it into the exit status.
fn finish(command: &Command, quiet: bool, failure: Failure) -> u8 {
    if let Failure::Usage(text) = failure {
        report::say(&format!(
            "error: {text}\n\n{}\n\nFor more information, try '--help'.",
            help::usage(command)
        ));
        return command.usage_status;
    }
    let status = failure.status();
    if let Some(text) = failure.message() {
        if !quiet {
            report::say(&text);
        }
        if command.logs {
            report::syslog(command.name, &text);
        }
    }
    status
}
