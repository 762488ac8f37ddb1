//! The terminal's two streams: everything that is printed goes through here, and
//! how errors read there.
#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "this is the one place that prints there"
)]

/// Who shows how far a piece of work is.
pub trait Progress: Sync {
    /// The work begins, in so many pieces.
    fn begin(&self, pieces: usize);
    /// One piece is done.
    fn advance(&self);
    /// A transfer begins, of so many pieces with so many bytes.
    fn begin_transfer(&self, pieces: usize, _bytes: u64) {
        self.begin(pieces);
    }
    /// So many bytes of the transfer have come.
    fn transferred(&self, _bytes: u64) {}
    /// There is nothing to show any more, since the process ends.
    fn end(&self) {}
}

/// A share from 0 to 1, as people read it.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Progress that nobody looks at.
#[derive(Debug, Clone, Copy)]
pub struct Unseen;

impl Progress for Unseen {
    fn begin(&self, _pieces: usize) {}
    fn advance(&self) {}
}

/// Bytes for people, in decimal units as disks are sold.
pub fn size(bytes: u64) -> String {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    for (unit, factor) in units {
        if bytes >= factor {
            return format!("{:.1} {unit}", bytes as f64 / factor as f64);
        }
    }
    format!("{bytes} B")
}

/// The chain of an error's causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Prints one line.
pub fn line(text: &str) {
    eprintln!("{text}");
}

/// Prints text as it is, such as the compiler's messages for Cargo.
pub fn raw(text: &str) {
    eprint!("{text}");
}

/// Prints whole lines on standard output for as long as somebody reads them.
pub fn lines_out(lines: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    std::io::stdout().lock().write_all(lines.as_bytes())
}

/// Prints text on standard output, such as a build script's instructions.
pub fn out(text: &str) {
    print!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1_500), "1.5 kB");
        assert_eq!(size(20_000_000_000), "20.0 GB");
    }
}
