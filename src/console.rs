//! The terminal's two streams: everything that is printed goes through here.
#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "this is the one place that prints there"
)]

/// Prints one line.
pub fn line(text: &str) {
    eprintln!("{text}");
}

/// Prints text as it is, such as the compiler's messages for Cargo.
pub fn raw(text: &str) {
    eprint!("{text}");
}

/// Prints text on standard output, such as a build script's instructions.
pub fn out(text: &str) {
    print!("{text}");
}
