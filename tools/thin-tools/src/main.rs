// SPDX-License-Identifier: GPL-2.0

//! The executable behind every tool's name.

use std::process::ExitCode;

fn main() -> ExitCode {
    thin_tools::main(std::env::args_os().collect())
}
