//! The program that the tests run; see `host/src/main.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dormouse::cli::main()
}
