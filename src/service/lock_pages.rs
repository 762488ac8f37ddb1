//! A visitor's lock file as a page: who else wants what is in it, what of it is
//! prebuilt, and what alignment would give. Pure.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::demand::Wanted;
use super::intake::Intake;
use super::pages::rate;
use super::prebuilt::{Gain, Match, Row};
use crate::console::percent;
use crate::markup::{Cell, Html, path};

/// Packages that are listed.
const LISTED: usize = 1_000;

/// What is seen of a lock file.
pub(super) struct Seen<'a> {
    pub(super) intake: &'a Intake,
    /// What is prebuilt of each of its wants.
    pub(super) rows: &'a [Row],
    /// Those of its wants that somebody has reported.
    pub(super) known: &'a [Wanted],
    /// What alignment would give; none if it was not looked for.
    pub(super) gain: Option<&'a Gain>,
    /// Whether more is published than was looked at.
    pub(super) is_cut: bool,
}

/// Where a visitor gives a lock file.
pub(super) fn form() -> Html {
    let mut html = Html::default();
    html.paragraph("What of a Cargo.lock is prebuilt here, would more be in other versions, and which of its dependency trees do others want, too? It is looked at, and neither counted nor kept; packages that are not from crates.io, and what needs them, are left out.");
    html.raw("<form method=\"post\" action=\"/upload\" enctype=\"multipart/form-data\">\n<label for=\"lock\">Cargo.lock</label>\n<input id=\"lock\" name=\"lock\" type=\"file\" required>\n<button>Look at it</button>\n</form>\n");
    html
}

/// What is seen of a visitor's lock file.
pub(super) fn looked_at(seen: &Seen) -> Html {
    let mut html = Html::default();
    let Seen { rows, known, .. } = seen;
    let packages = rows.len();
    let count = |found| rows.iter().filter(|row| row.found == found).count();
    let rate = |part: usize| rate(part as i64, packages as i64);
    let seconds = |of: &dyn Fn(&Row) -> bool| -> f64 {
        let rows = rows.iter().filter(|row| of(row));
        rows.filter_map(|row| row.seconds).fold(0.0, |a, b| a + b)
    };
    let (all, prebuilt) = (seconds(&|_| true), seconds(&|row| row.found == Match::Tree));
    let timed = rows.iter().filter(|row| row.seconds.is_some()).count();
    let shared = known.iter().filter(|wanted| wanted.voices > 1).count();
    html.facts(&[
        ("Packages", packages.to_string()),
        ("Left out", seen.intake.left_out.to_string()),
        ("Prebuilt for their trees", rate(count(Match::Tree))),
        (
            "Prebuilt, but with others below",
            rate(count(Match::Version)),
        ),
        (
            "Prebuilt of the seconds",
            match all > 0.0 {
                true => percent(prebuilt / all),
                false => "–".to_owned(),
            },
        ),
        ("Packages with known seconds", rate(timed)),
        ("Trees that others want", rate(shared)),
    ]);
    if seen.is_cut {
        html.paragraph("More is published of these packages than was looked at.");
    }
    html.paragraph("A lock file says nothing of features, profiles and toolchains: a package counts as prebuilt where a recipe of it is published in any of them.");
    html.heading("What alignment would give");
    align(&mut html, seen.gain, all);
    html.heading("Packages");
    table(&mut html, seen);
    html
}

fn align(html: &mut Html, gain: Option<&Gain>, all: f64) {
    let Some(gain) = gain else {
        html.raw("<p>That was not looked for: there is too much to look at. <code>quickbuild align</code> looks at all of it.</p>\n");
        return;
    };
    if gain.moves.is_empty() {
        html.paragraph("Nothing: no newer compatible version that is published here helps.");
        return;
    }
    html.paragraph(&format!(
        "At least {:.1} s of {all:.1} s more would be prebuilt if these packages moved:",
        gain.seconds
    ));
    html.table(
        &["Package", "From", "To", "Seconds gained"],
        gain.moves.iter().map(|(name, from, to, seconds)| {
            vec![
                name.into(),
                from.into(),
                to.into(),
                format!("{seconds:.1}").into(),
            ]
        }),
    );
    html.raw("<p>Only versions that are published here were looked at, and not whether they are yanked. <code>quickbuild align</code> knows more, and lets Cargo prove it.</p>\n");
}

/// What is missing first, and what takes longest before the rest.
fn table(html: &mut Html, seen: &Seen) {
    let known = seen.known.iter();
    let known: HashMap<&str, &Wanted> = known.map(|wanted| (&*wanted.hash, wanted)).collect();
    let wants = seen.intake.wants.iter().zip(seen.rows);
    let mut rows: Vec<_> = wants.collect();
    rows.sort_by_key(|(want, row)| {
        let milliseconds = row.seconds.map_or(0, |seconds| (seconds * 1e3) as u64);
        (row.found, Reverse(milliseconds), &want.name, &want.version)
    });
    let shown = rows.iter().take(LISTED);
    html.table(
        &[
            "Package", "Version", "Prebuilt", "Builders", "Seconds", "Projects",
        ],
        shown.map(|(want, row)| {
            let known = known.get(&*want.hash);
            let builders: Vec<&str> = row.builders.iter().map(String::as_str).collect();
            let builders = match builders.is_empty() {
                true => "–".to_owned(),
                false => builders.join(", "),
            };
            let prebuilt = match row.found {
                Match::Tree => "yes",
                Match::Version => "with others below",
                Match::No => "no",
            };
            vec![
                match known {
                    Some(wanted) => Cell::Link {
                        to: path(&["wants", &wanted.hash]),
                        text: want.name.clone(),
                    },
                    None => want.name.clone().into(),
                },
                want.version.clone().into(),
                prebuilt.into(),
                builders.into(),
                row.seconds
                    .map_or("–".to_owned(), |seconds| format!("{seconds:.1}"))
                    .into(),
                known.map_or(0, |wanted| wanted.voices).into(),
            ]
        }),
    );
    if rows.len() > LISTED {
        html.paragraph(&format!("{} more are not shown.", rows.len() - LISTED));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_missing_comes_first() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n\n[[package]]\nname = \"b\"\nversion = \"1.0.0\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
        let intake = Intake::of_lock(lock.as_bytes(), None).unwrap();
        let rows: Vec<Row> = intake
            .wants
            .iter()
            .map(|want| Row {
                found: match &*want.name {
                    "a" => Match::Tree,
                    _ => Match::No,
                },
                builders: BTreeSet::new(),
                seconds: Some(if want.name == "a" { 3.0 } else { 1.0 }),
            })
            .collect();
        let mut seen = Seen {
            intake: &intake,
            rows: &rows,
            known: &[],
            gain: None,
            is_cut: false,
        };
        let text = |seen: &Seen| looked_at(seen).page("t", crate::markup::Style::Inside);
        let page = text(&seen);
        for said in [
            "<dt>Prebuilt for their trees</dt><dd>50.0 %</dd>",
            "<dt>Prebuilt of the seconds</dt><dd>75.0 %</dd>",
            "That was not looked for",
        ] {
            assert!(page.contains(said), "{said}: {page}");
        }
        let at = |name: &str| page.find(&format!("<th scope=\"row\">{name}</th>"));
        assert!(at("b") < at("a"), "{page}");
        let gain = Gain {
            seconds: 1.0,
            moves: vec![("b".to_owned(), "1.0.0".to_owned(), "1.1.0".to_owned(), 1.0)],
        };
        seen.gain = Some(&gain);
        assert!(text(&seen).contains("At least 1.0 s of 4.0 s more"));
    }
}
