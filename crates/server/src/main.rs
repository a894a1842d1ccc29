//! The `boxoffice` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    boxoffice::cli::main()
}
