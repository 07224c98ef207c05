//! The `regraft` program: passes its arguments to the library, and exits with the status that comes back.

use std::process::ExitCode;

fn main() -> ExitCode {
    regraft::cli::main(std::env::args_os().collect()).into()
}
