//! The `regraft` program: arguments in, exit status out.

use std::process::ExitCode;

fn main() -> ExitCode {
    regraft::cli::main(std::env::args_os().collect()).into()
}
