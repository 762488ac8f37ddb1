//! The dashboard's pages: what is asked of the database, as HTML. Pure.
//!
//! | page | shows |
//! |---|---|
//! | [`overview`] | what was saved, a day at a time, and what is wanted most |
//! | [`wants`] | a list of what is wanted |
//! | [`want`] | one tree, recipe or builder, with what it needs |
//!
//! No page of these has a script; [`POLICY`] forbids it all the same. That of a
//! build has one, which comes from here.

use crate::console::percent;
use crate::markup::{Cell, Html, Line, Style, columns, path, shares, short};
use crate::output::provenance::Timestamp;

use super::build_pages;
use super::builds::board::{Build, Made, Overview, Plan};
use super::coverage::Day;
use super::demand::{Detail, Sums, Totals, Wanted};

/// The content security policy of every page.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// The policy of a page that shows how a build goes on.
pub(super) const LIVE_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// Where [`STYLE`](crate::markup::STYLE) is.
pub(super) const STYLE: &str = "/style.css";
/// Where [`ICON`](crate::markup::ICON) is.
pub(super) const ICON: &str = "/icon.svg";

/// Places of the dashboard, for its navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// [`overview`].
    Overview,
    /// [`wants`] of trees.
    Trees,
    /// [`wants`] of recipes.
    Recipes,
    /// Builds.
    Builds,
    /// Workers.
    Workers,
    /// A visitor's lock file.
    Upload,
    /// None of these.
    Elsewhere,
}

/// Places with their paths and names.
const PLACES: [(Place, &str, &str); 6] = [
    (Place::Overview, "/", "Overview"),
    (Place::Trees, "/wants?kind=tree", "Trees"),
    (Place::Recipes, "/wants?kind=recipe", "Recipes"),
    (Place::Builds, "/builds", "Builds"),
    (Place::Workers, "/workers", "Workers"),
    (Place::Upload, "/upload", "Your lock file"),
];

/// A page around its body.
pub(super) fn page(title: &str, place: Place, body: &Html) -> String {
    let mut html = Html::default();
    html.raw("<a class=\"skip\" href=\"#main\">To the content</a>\n<header><nav aria-label=\"Pages\"><ul>\n");
    for (own, to, name) in PLACES {
        html.raw("<li><a href=\"");
        html.text(to);
        html.raw(if own == place {
            "\" aria-current=\"page\">"
        } else {
            "\">"
        });
        html.text(name);
        html.raw("</a></li>\n");
    }
    html.raw("</ul></nav></header>\n<main id=\"main\">\n");
    html.element("h1", title);
    html.add(body);
    html.raw("</main>\n");
    html.page(
        &format!("{title} · quickbuild"),
        Style::Beside {
            style: STYLE,
            icon: ICON,
        },
    )
}

/// What was saved, and what is wanted most.
pub(super) fn overview(totals: &Totals, days: &[Day], builds: &Overview, trees: &[Wanted]) -> Html {
    let mut html = Html::default();
    let sum = |of: fn(&Sums) -> i64| totals.days.iter().map(of).sum::<i64>();
    let (hits, misses) = (sum(|day| day.hits), sum(|day| day.misses));
    let saved = sum(|day| day.milliseconds_saved) as f64 / 1e3;
    let compiled = sum(|day| day.milliseconds_compiled) as f64 / 1e3;
    html.facts(&[
        ("Units that were not compiled", rate(hits, hits + misses)),
        ("Time saved", duration(saved)),
        ("Time compiled", duration(compiled)),
        ("Reports", short(sum(|day| day.reports) as f64)),
        ("Lock files", short(sum(|day| day.locks) as f64)),
        ("Wanted so far", short(totals.wants as f64)),
        ("Counted projects", short(totals.voices as f64)),
    ]);
    if totals.days.is_empty() {
        html.paragraph("Nothing was reported yet. A lock file can be sent by anybody; clients report what they got and lacked where their user has switched that on.");
    } else {
        let mut days: Vec<&Sums> = totals.days.iter().collect();
        days.sort_by_key(|day| day.day);
        let values = days.iter().map(|day| {
            let minutes = day.milliseconds_saved as f64 / 60e3;
            (date(day.day * 86_400), minutes)
        });
        let values: Vec<(String, f64)> = values.collect();
        html.heading("Minutes of compiling saved, a day at a time");
        html.figure(
            "Minutes of compiling that units from a store saved, on each day with reports",
            &columns(&values, "min"),
        );
        html.raw("<details><summary>The same in numbers</summary>\n");
        html.table(
            &[
                "Day",
                "Reports",
                "Lock files",
                "Not compiled",
                "Saved",
                "Compiled",
            ],
            days.iter().rev().map(|day| {
                vec![
                    date(day.day * 86_400).into(),
                    day.reports.into(),
                    day.locks.into(),
                    rate(day.hits, day.hits + day.misses).into(),
                    duration(day.milliseconds_saved as f64 / 1e3).into(),
                    duration(day.milliseconds_compiled as f64 / 1e3).into(),
                ]
            }),
        );
        html.raw("</details>\n");
    }
    coverage(&mut html, days);
    html.heading("Builds");
    build_pages::facts(&mut html, builds);
    html.heading("Wanted by the most projects");
    table(&mut html, trees);
    html
}

/// What was prebuilt, a day at a time.
fn coverage(html: &mut Html, days: &[Day]) {
    if days.is_empty() {
        return;
    }
    let labels = days.iter().rev().map(|day| date(day.day * 86_400));
    let labels: Vec<String> = labels
        .map(|date| date.get(5..).unwrap_or_default().to_owned())
        .collect();
    let lines = [
        (
            "one",
            "reported units",
            Day::units as fn(&Day) -> Option<f64>,
        ),
        ("two", "seconds of units", Day::seconds),
        ("three", "recipes that enough want", Day::recipes),
    ];
    let lines = lines.map(|(class, name, of)| Line {
        class,
        name,
        values: days.iter().rev().map(of).collect(),
    });
    html.heading("What was prebuilt, a day at a time");
    html.figure(
        "Share of the units that were reported, and of their seconds, that came from a store; and of the recipes that enough had wanted, those that were published by the end of the day",
        &shares(&labels, &lines),
    );
    html.raw("<details><summary>The same in numbers</summary>\n");
    let said = |share: Option<f64>| share.map_or("–".to_owned(), percent);
    html.table(
        &[
            "Day",
            "Units",
            "Seconds",
            "Recipes",
            "Enough wanted",
            "Published",
        ],
        days.iter().map(|day| {
            vec![
                date(day.day * 86_400).into(),
                said(day.units()).into(),
                said(day.seconds()).into(),
                said(day.recipes()).into(),
                day.wanted.into(),
                day.published.into(),
            ]
        }),
    );
    html.raw("</details>\n");
}

/// A list.
pub(super) fn wants(found: &[Wanted], package: Option<&str>) -> Html {
    let mut html = Html::default();
    html.raw("<form method=\"get\" action=\"/wants\" role=\"search\"><label for=\"package\">Package</label><input id=\"package\" name=\"package\" maxlength=\"64\" value=\"");
    html.text(package.unwrap_or_default());
    html.raw("\"><button>Look for it</button></form>\n");
    table(&mut html, found);
    html
}

fn table(html: &mut Html, found: &[Wanted]) {
    if found.is_empty() {
        html.paragraph("There is nothing of this kind that more than one project wants.");
        return;
    }
    html.table(
        &["Package", "Version", "Packages with it", "Projects"],
        found.iter().map(|wanted| {
            vec![
                Cell::Link {
                    to: path(&["wants", &wanted.hash]),
                    text: wanted.name.clone(),
                },
                wanted.version.clone().into(),
                wanted.packages.into(),
                wanted.voices.into(),
            ]
        }),
    );
}

/// One, with what is published of it and what it needs.
pub(super) fn want(
    detail: &Detail,
    build: Option<&Build>,
    made: &[Made],
    vouched: &Html,
    plans: &[Plan],
) -> Html {
    let Detail { wanted, needs } = detail;
    let mut html = Html::default();
    html.facts(&[
        ("Projects that want it", wanted.voices.to_string()),
        ("Packages with it", wanted.packages.to_string()),
        ("Wanted since", date(wanted.since)),
    ]);
    html.raw("<p>");
    html.text(match wanted.kind.as_str() {
        "tree" => "Tree",
        "recipe" => "Recipe",
        _ => "Builder",
    });
    html.raw(" <code>");
    html.text(&wanted.hash);
    html.raw("</code></p>\n");
    if let Some(build) = build {
        html.raw("<p>Its build is ");
        html.text(&build.state);
        html.raw(": ");
        let id = build.root.to_string();
        html.link(&path(&["builds", &id]), &format!("build {id}"));
        html.raw("</p>\n");
    }
    if wanted.kind == "recipe" {
        build_pages::outputs(&mut html, made);
        html.add(vouched);
    }
    if !plans.is_empty() {
        build_pages::plans(&mut html, plans);
    }
    html.heading("What it needs directly");
    if needs.is_empty() {
        html.paragraph("Nothing.");
    } else {
        table(&mut html, needs);
    }
    html
}

/// A share of some, if there are any.
pub(super) fn rate(part: i64, whole: i64) -> String {
    match whole {
        0 => "–".to_owned(),
        _ => percent(part as f64 / whole as f64),
    }
}

/// Seconds in words.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

/// The day of some seconds since 1970.
fn date(seconds: i64) -> String {
    let time = Timestamp::from_seconds(seconds).map(|time| time.to_string());
    let day = time.as_deref().and_then(|time| time.split('T').next());
    day.unwrap_or("–").to_owned()
}

/// A minute, of some seconds since 1970.
pub(super) fn time(seconds: i64) -> String {
    let time = Timestamp::from_seconds(seconds).map(|time| time.to_string());
    let minute = time.as_deref().and_then(|time| time.get(..16));
    minute.map_or("–".to_owned(), |minute| minute.replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(name: &str, voices: i64) -> Wanted {
        Wanted {
            kind: "tree".to_owned(),
            hash: "0".repeat(64),
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            packages: 3,
            voices,
            since: 1_764_000_000,
        }
    }

    #[test]
    fn an_overview_sums_its_days() {
        let day = |day, hits, misses| Sums {
            day,
            reports: 1,
            hits,
            misses,
            milliseconds_saved: 90_000,
            ..Sums::default()
        };
        let totals = Totals {
            wants: 12_000,
            voices: 3,
            days: vec![day(20_001, 3, 1), day(20_000, 0, 4)],
        };
        let covered = Day {
            day: 20_001,
            hits: 3,
            misses: 1,
            wanted: 8,
            published: 1,
            ..Day::default()
        };
        let trees = [some("serde", 2)];
        let html = overview(&totals, &[covered], &Overview::default(), &trees);
        let page = page("Overview", Place::Overview, &html);
        assert!(
            page.contains("<dt>Units that were not compiled</dt><dd>37.5 %</dd>"),
            "{page}"
        );
        assert!(page.contains("<dt>Time saved</dt><dd>3 min</dd>"), "{page}");
        assert!(
            page.contains("<dt>Wanted so far</dt><dd>12k</dd>"),
            "{page}"
        );
        assert!(
            page.contains("<title>2024-10-04: 1.5 min</title>"),
            "{page}"
        );
        for said in [
            "<title>10-05, reported units: 75.0 %</title>",
            "<title>10-05, recipes that enough want: 12.5 %</title>",
            "<th scope=\"row\">2024-10-05</th><td>75.0 %</td><td>–</td><td>12.5 %</td><td>8</td><td>1</td>",
        ] {
            assert!(page.contains(said), "{said}: {page}");
        }
        assert!(page.contains("href=\"/\" aria-current=\"page\""), "{page}");
        assert!(
            page.contains(&format!("href=\"/wants/{}\"", "0".repeat(64))),
            "{page}"
        );
    }

    #[test]
    fn nothing_yet_is_said() {
        let totals = Totals {
            wants: 0,
            voices: 0,
            days: Vec::new(),
        };
        let html = overview(&totals, &[], &Overview::default(), &[]);
        let page = page("Overview", Place::Overview, &html);
        assert!(page.contains("Nothing was reported yet"), "{page}");
        assert!(page.contains("There is nothing of this kind"), "{page}");
        assert!(!page.contains("<svg"), "{page}");
    }

    #[test]
    fn what_visitors_say_is_no_markup() {
        let html = wants(&[some("<b>", 2)], Some("\"><script>"));
        let page = page("<i>", Place::Trees, &html);
        for markup in ["<b>", "<script", "<i>"] {
            assert!(!page.contains(markup), "{page}");
        }
    }

    #[test]
    fn times_are_in_units_that_people_read() {
        let said = [0.0, 119.0, 120.0, 7_200.0, 172_800.0].map(duration);
        assert_eq!(said, ["0 s", "119 s", "2 min", "2.0 h", "2.0 days"]);
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(i64::MAX), "–");
    }
}
