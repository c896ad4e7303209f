// SPDX-License-Identifier: GPL-2.0

//! Shell completions, made from the same tables as the help texts.

use super::command::Takes;
use super::help::is_file;
use super::Tool;
use std::fmt::Write;

/// Completions for bash.
pub(super) fn bash(tools: &[Tool]) -> String {
    let mut text = String::from("# bash completion for the thin tools\n\n_thin_tools()\n{\n");
    text.push_str("\tlocal cur prev tool=${1##*/} opts= files=\n\tCOMPREPLY=()\n");
    text.push_str("\tcur=${COMP_WORDS[COMP_CWORD]}\n\tprev=${COMP_WORDS[COMP_CWORD-1]}\n");
    text.push_str("\tif [ \"$tool\" = thin-tools ]; then\n\t\tif [ \"$COMP_CWORD\" = 1 ]; then\n");
    let names: Vec<_> = tools.iter().map(|tool| tool.command.name).collect();
    let _ = writeln!(
        text,
        "\t\t\tCOMPREPLY=($(compgen -W '{}' -- \"$cur\"))",
        names.join(" ")
    );
    text.push_str("\t\t\treturn\n\t\tfi\n\t\ttool=${COMP_WORDS[1]}\n\tfi\n\tcase $tool in\n");
    for tool in tools {
        let mut options = vec!["--help".to_string(), "--version".to_string()];
        let mut files = Vec::new();
        for option in tool
            .command
            .options
            .iter()
            .filter(|option| !option.help.is_empty())
        {
            options.push(format!("--{}", option.long));
            if is_file(option.takes) {
                files.push(format!("--{}", option.long));
                files.extend(option.short.map(|letter| format!("-{letter}")));
            }
        }
        let _ = writeln!(
            text,
            "\t{}) opts='{}' files=' {} ';;",
            tool.command.name,
            options.join(" "),
            files.join(" ")
        );
    }
    text.push_str("\t*) return;;\n\tesac\n");
    text.push_str(
        "\tcase $files in *\" $prev \"*) COMPREPLY=($(compgen -f -- \"$cur\")); return;; esac\n",
    );
    text.push_str("\tcase $cur in\n\t-*) COMPREPLY=($(compgen -W \"$opts\" -- \"$cur\"));;\n");
    text.push_str("\t*) COMPREPLY=($(compgen -f -- \"$cur\"));;\n\tesac\n}\n");
    let _ = writeln!(
        text,
        "complete -o filenames -F _thin_tools thin-tools {}",
        names.join(" ")
    );
    text
}

/// Completions for zsh.
pub(super) fn zsh(tools: &[Tool]) -> String {
    let names: Vec<_> = tools.iter().map(|tool| tool.command.name).collect();
    let mut text = format!("#compdef {}\n\ncase $service in\n", names.join(" "));
    for tool in tools {
        let _ = writeln!(text, "{})\n\t_arguments \\", tool.command.name);
        for option in tool
            .command
            .options
            .iter()
            .filter(|option| !option.help.is_empty())
        {
            let help = option.help.lines().next().unwrap_or("");
            let help = help
                .replace('\'', "'\\''")
                .replace('[', "\\[")
                .replace(']', "\\]");
            let repeat = if option.repeats { "\\*" } else { "" };
            let value = match option.takes {
                Takes::Nothing => String::new(),
                Takes::Value(name) if is_file(option.takes) => format!(":{name}:_files"),
                Takes::Value(name) => format!(":{name}:"),
                Takes::Optional(name) => format!("::{name}:"),
            };
            let _ = writeln!(text, "\t\t{repeat}'--{}[{help}]{value}' \\", option.long);
        }
        text.push_str("\t\t'*:file:_files'\n\t;;\n");
    }
    text.push_str("esac\n");
    text
}

/// Completions for fish.
pub(super) fn fish(tools: &[Tool]) -> String {
    let mut text = String::from("# fish completion for the thin tools\n");
    for tool in tools {
        for option in tool
            .command
            .options
            .iter()
            .filter(|option| !option.help.is_empty())
        {
            let help = option
                .help
                .lines()
                .next()
                .unwrap_or("")
                .replace('\'', "\\'");
            let _ = write!(text, "complete -c {} -l {}", tool.command.name, option.long);
            if let Some(letter) = option.short {
                let _ = write!(text, " -s {letter}");
            }
            match option.takes {
                Takes::Value(_) if is_file(option.takes) => text.push_str(" -r -F"),
                Takes::Value(_) => text.push_str(" -x"),
                Takes::Nothing | Takes::Optional(_) => {}
            }
            let _ = writeln!(text, " -d '{help}'");
        }
    }
    text
}
