//! `cargo quickbuild <command>`: Cargo runs `cargo-quickbuild quickbuild …`.

use std::process::ExitCode;

fn main() -> ExitCode {
    quickbuild::cli::main(quickbuild::cli::CalledAs::CargoSubcommand)
}
