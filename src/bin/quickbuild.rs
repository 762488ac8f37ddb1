//! `quickbuild <command>`.

use std::process::ExitCode;

fn main() -> ExitCode {
    quickbuild::cli::main(quickbuild::cli::CalledAs::Quickbuild)
}
