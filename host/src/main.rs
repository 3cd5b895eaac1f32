//! The `dormouse` program; see `dormouse --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dormouse::cli::main()
}
