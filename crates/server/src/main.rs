//! The binary: parses the command line, runs the command, and turns its result into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    hob::cli::main()
}
