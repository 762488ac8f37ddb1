//! What the user sees of our own work.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::build::Observer;
use crate::cargo::invocation::Invocation;
pub(super) use crate::console::size;
use crate::console::{self, Progress};
use crate::environment::Environment;

/// How much to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verbosity {
    /// Warnings only (`--quiet`).
    Quiet,
    /// The summary, too.
    Normal,
    /// Every decision, too (`--verbose`).
    Verbose,
}

/// How loud Cargo was asked to be, which is how loud we are.
pub(super) fn verbosity(environment: &Environment, invocation: &Invocation) -> Verbosity {
    let switched_on = |name| environment.get(name) == Some("true");
    if invocation.has_flag(&["-q", "--quiet"]) || switched_on("CARGO_TERM_QUIET") {
        Verbosity::Quiet
    } else if invocation.has_flag(&["-v", "-vv", "--verbose"]) || switched_on("CARGO_TERM_VERBOSE")
    {
        Verbosity::Verbose
    } else {
        Verbosity::Normal
    }
}

/// Whether to use colours: `--color`, then Cargo's variable, then `NO_COLOR`,
/// then whether a person is looking.
pub(super) fn colour(environment: &Environment, invocation: &Invocation) -> bool {
    let given = invocation.values(&["--color"]).last().copied();
    match given.or(environment.get("CARGO_TERM_COLOR")) {
        Some("always") => true,
        Some("never") => false,
        _ => {
            environment.get("NO_COLOR").is_none_or(str::is_empty) && std::io::stderr().is_terminal()
        }
    }
}

/// Shows steps on a terminal, with a bar where they have pieces, and warnings
/// everywhere.
pub(super) struct Terminal {
    /// Whether steps are shown.
    shown: bool,
    bar: Option<ProgressBar>,
    /// Of a transfer, whose bar counts bytes.
    pieces: Pieces,
    colour: bool,
}

/// Pieces of a transfer.
#[derive(Default)]
struct Pieces {
    /// All of them; 0 where the bar counts something else.
    all: AtomicUsize,
    done: AtomicUsize,
}

impl Terminal {
    pub(super) fn new(verbosity: Verbosity, colour: bool) -> Self {
        Self {
            shown: verbosity > Verbosity::Quiet && std::io::stderr().is_terminal(),
            bar: None,
            pieces: Pieces::default(),
            colour,
        }
    }
}

/// What a transfer shows: outputs, bytes, rate and time left, in a line of 80
/// characters; the bar takes the room that is left.
const TRANSFER: &str = "{spinner} quickbuild: {prefix} outputs [{wide_bar}] \
    {decimal_bytes}/{decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Progress for Terminal {
    fn begin(&self, pieces: usize) {
        self.pieces.all.store(0, Ordering::Relaxed);
        if let Some(bar) = self.bar.as_ref().filter(|_| pieces > 1) {
            bar.set_style(style("{spinner} quickbuild: {msg} [{bar:30}] {pos}/{len}"));
            bar.set_length(pieces as u64);
        }
    }

    fn advance(&self) {
        let Some(bar) = &self.bar else { return };
        let all = self.pieces.all.load(Ordering::Relaxed);
        if all == 0 {
            bar.inc(1);
        } else {
            let done = self.pieces.done.fetch_add(1, Ordering::Relaxed) + 1;
            bar.set_prefix(format!("{done}/{all}"));
        }
    }

    fn begin_transfer(&self, pieces: usize, bytes: u64) {
        let Some(bar) = &self.bar else { return };
        self.pieces.all.store(pieces, Ordering::Relaxed);
        self.pieces.done.store(0, Ordering::Relaxed);
        bar.set_style(style(TRANSFER));
        bar.set_prefix(format!("0/{pieces}"));
        bar.set_length(bytes);
        bar.set_position(0);
        bar.reset_eta();
    }

    fn transferred(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Terminal {
    fn warn(&mut self, message: &str) {
        self.clear();
        let label = if self.colour {
            "\x1b[1;33mwarning\x1b[0m"
        } else {
            "warning"
        };
        console::line(&format!("{label}: quickbuild: {message}"));
    }

    fn step(&mut self, message: &str) {
        self.clear();
        if self.shown {
            let bar = ProgressBar::new_spinner();
            bar.set_style(style("{spinner} quickbuild: {msg}"));
            bar.set_message(message.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            self.bar = Some(bar);
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Prints to standard output; a closed pipe ends the report, not the program.
pub(super) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints one line to standard output.
pub(super) fn print_line(text: &str) {
    print(&format!("{text}\n"));
}

/// Prints a value as indented JSON.
pub(super) fn print_json(value: &impl serde::Serialize) {
    let text = serde_json::to_string_pretty(value).expect("reports serialise");
    print_line(&text);
}
