// SPDX-License-Identifier: GPL-2.0

//! Help texts.

use super::command::Command;
use super::command::Takes;
use super::Tool;
use std::fmt::Write;

/// How far option descriptions are indented.
const COLUMN: usize = 34;

/// The usage line.
pub(super) fn usage(command: &Command) -> String {
    let mut line = format!("Usage: {}", command.name);
    if command.options.iter().any(|option| !option.required) {
        line.push_str(" [OPTIONS]");
    }
    for option in command.options.iter().filter(|option| option.required) {
        line.push(' ');
        line.push_str(&option.shown());
    }
    for operand in command
        .operands
        .iter()
        .filter(|operand| !operand.help.is_empty())
    {
        if operand.required {
            let _ = write!(line, " <{}>", operand.name);
        } else {
            let _ = write!(line, " [{}]", operand.name);
        }
    }
    line
}

/// The whole help text.
pub(super) fn full(command: &Command) -> String {
    let mut text = format!("{}\n\n{}\n", command.about, usage(command));
    let shown = || {
        command
            .operands
            .iter()
            .filter(|operand| !operand.help.is_empty())
    };
    if shown().next().is_some() {
        text.push_str("\nArguments:\n");
        for operand in shown() {
            entry(&mut text, &format!("  <{}>", operand.name), operand.help);
        }
    }
    text.push_str("\nOptions:\n");
    for option in command
        .options
        .iter()
        .filter(|option| !option.help.is_empty())
    {
        let short = match option.short {
            Some(letter) => format!("  -{letter}, "),
            None => "      ".to_string(),
        };
        entry(&mut text, &(short + &option.shown()), option.help);
    }
    entry(&mut text, "  -h, --help", "Print this help");
    entry(&mut text, "  -V, --version", "Print the version");
    if !command.details.is_empty() {
        let _ = write!(text, "\n{}\n", command.details);
    }
    text
}

fn entry(text: &mut String, left: &str, right: &str) {
    text.push_str(left);
    let mut used = left.len();
    for line in right.lines() {
        if used + 2 > COLUMN {
            text.push('\n');
            used = 0;
        }
        let _ = writeln!(text, "{:gap$}{line}", "", gap = COLUMN - used);
        used = 0;
    }
}

/// What the multi-call executable says about itself.
pub(super) fn overview(name: &str, tools: &[Tool]) -> String {
    let mut text = format!(
        "Usage: {name} TOOL [ARGUMENTS...]\n\
         A link to this executable that has a tool's name is that tool.\n\nTools:\n"
    );
    for tool in tools {
        entry(
            &mut text,
            &format!("  {}", tool.command.name),
            tool.command.about,
        );
    }
    text.push_str("\nOptions:\n");
    entry(
        &mut text,
        "  --completions <bash|zsh|fish>",
        "Print a shell's completions",
    );
    entry(&mut text, "  -h, --help", "Print this help");
    entry(&mut text, "  -V, --version", "Print the version");
    text
}

/// Whether completing a value of this name means completing a file name.
pub(super) fn is_file(takes: Takes) -> bool {
    match takes {
        Takes::Value(name) | Takes::Optional(name) => {
            matches!(name, "FILE" | "DEV" | "INPUT" | "OUTPUT" | "METADATA")
        }
        Takes::Nothing => false,
    }
}
