//! A report as one page of HTML that needs nothing else: no script, no font, no
//! picture from elsewhere. Plots are SVG; each has a table below it that says the
//! same.

use std::fmt::Write as _;

use super::history::Survival;
use super::report::{Point, Report};
use super::text::percent;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1b1f;--quiet:#5c5c66;--line:#d5d5dc;--one:#0b62c4;--two:#b3480f;--page:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#ececf1;--quiet:#a8a8b3;--line:#3d3d47;--one:#6fb1ff;--two:#ff9d5c;--page:#16161a}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:1rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .5rem;border-bottom:1px solid var(--line);text-align:right}
th:first-child,td:first-child{text-align:left}
figure{margin:1.5rem 0}figcaption{color:var(--quiet)}
svg{width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:var(--quiet)}
.axis{stroke:var(--line)}.one{stroke:var(--one);fill:none;stroke-width:2}.two{stroke:var(--two);fill:none;stroke-width:2}
.bar{fill:var(--one)}.bar.second{fill:var(--two)}
code{overflow-wrap:anywhere}";

/// The report as a page.
pub fn page(report: &Report) -> String {
    let mut page = Page::default();
    let counted = &report.counted;
    page.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>What is worth prebuilding</title>\n<style>\n");
    page.raw(STYLE);
    page.raw("\n</style>\n</head>\n<body>\n<main>\n<h1>What is worth prebuilding</h1>\n");
    page.paragraph(&format!(
        "{} lock files of {} repositories have {} packages; {} of these have trees that others could have, {} of them different.",
        counted.projects,
        counted.repositories,
        counted.packages,
        counted.shareable,
        counted.distinct_trees
    ));
    page.paragraph(&format!(
        "{} of all packages, and {} of all compile seconds, have a tree that another repository has, too: a commodity. The rest is niche. {} of all packages have a version that another repository has, whatever is below it.",
        percent(report.sharing.packages),
        percent(report.sharing.seconds),
        percent(report.sharing.versions)
    ));
    costs(&mut page, report);
    coverage(&mut page, report);
    bundles(&mut page, report);
    alignment(&mut page, report);
    trees(&mut page, report);
    drift(&mut page, report);
    selection(&mut page, report);
    history(&mut page, report);
    left_out(&mut page, report);
    page.raw("</main>\n</body>\n</html>\n");
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    /// Adds what is HTML already.
    fn raw(&mut self, html: &str) {
        self.0.push_str(html);
    }

    fn paragraph(&mut self, text: &str) {
        let _ = writeln!(self.0, "<p>{}</p>", escaped(text)); // a string takes all
    }

    fn heading(&mut self, text: &str) {
        let _ = writeln!(self.0, "<h2>{}</h2>", escaped(text)); // a string takes all
    }

    fn table(&mut self, heading: &[&str], rows: impl Iterator<Item = Vec<String>>) {
        self.raw("<table>\n<thead><tr>");
        for cell in heading {
            let _ = write!(self.0, "<th scope=\"col\">{}</th>", escaped(cell)); // a string takes all
        }
        self.raw("</tr></thead>\n<tbody>\n");
        for row in rows {
            self.raw("<tr>");
            for cell in row {
                let _ = write!(self.0, "<td>{}</td>", escaped(&cell)); // a string takes all
            }
            self.raw("</tr>\n");
        }
        self.raw("</tbody>\n</table>\n");
    }

    /// A picture with what it shows in words.
    fn figure(&mut self, caption: &str, size: (u32, u32), drawing: &str) {
        let caption = escaped(caption);
        let _ = writeln!(
            self.0,
            "<figure>\n<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{caption}\">\n{drawing}</svg>\n<figcaption>{caption}</figcaption>\n</figure>",
            size.0, size.1
        ); // a string takes all
    }
}

fn costs(page: &mut Page, report: &Report) {
    let costs = &report.costs;
    page.heading("Where the seconds are from");
    page.paragraph(&format!(
        "Measured for {} packages, taken from another version for {}, estimated for {}.",
        costs.measured, costs.other_version, costs.estimated
    ));
    page.paragraph(&match &costs.error {
        Some(error) => format!(
            "On {} packages that were held out, half of the estimates are off by less than a factor of {:.1}, nine of ten by less than {:.1}. All together are {:.2} of what was measured.",
            error.packages, error.median_factor, error.ninth_factor, error.total_ratio
        ),
        None => "Too little was measured to say how wrong the estimates are.".to_owned(),
    });
}

fn coverage(page: &mut Page, report: &Report) {
    page.heading("What a budget covers");
    let mut drawing = axes(&|step| format!("{:.0} %", step * 100.0), "budget");
    let curve = |class: &str, share: &dyn Fn(&Point) -> f64| {
        let points = report.coverage.iter().map(|point| {
            format!(
                "{:.1},{:.1}",
                50.0 + point.budget * 620.0,
                270.0 - share(point) * 250.0
            )
        });
        let points: Vec<String> = points.collect();
        format!(
            "<polyline class=\"{class}\" points=\"{}\"/>\n",
            points.join(" ")
        )
    };
    drawing += &curve("one", &|point| point.seen);
    drawing += &curve("two", &|point| point.unseen);
    drawing += &legend("projects chosen on", "projects not looked at");
    page.figure(
        "Share of compile seconds that is prebuilt, against the share of the seconds of all different trees that is spent on building",
        (700, 310),
        &drawing,
    );
    page.table(
        &["Budget", "Projects chosen on", "Projects not looked at"],
        report.coverage.iter().map(|point| {
            vec![
                percent(point.budget),
                percent(point.seen),
                percent(point.unseen),
            ]
        }),
    );
}

/// A frame from 0 to 100 % upwards; `label` says what is at a share of the way to
/// the right.
fn axes(label: &dyn Fn(f64) -> String, below: &str) -> String {
    let mut drawing = String::new();
    for step in 0..=4 {
        let share = f64::from(step) / 4.0;
        let (x, y) = (50.0 + share * 620.0, 270.0 - share * 250.0);
        let _ = writeln!(
            drawing,
            "<line class=\"axis\" x1=\"50\" y1=\"{y:.1}\" x2=\"670\" y2=\"{y:.1}\"/><text x=\"44\" y=\"{:.1}\" text-anchor=\"end\">{}</text><text x=\"{x:.1}\" y=\"288\" text-anchor=\"middle\">{}</text>",
            y + 4.0,
            step * 25,
            escaped(&label(share))
        ); // a string takes all
    }
    let _ = writeln!(
        drawing,
        "<text x=\"360\" y=\"306\" text-anchor=\"middle\">{}</text>",
        escaped(below)
    ); // a string takes all
    drawing
}

/// Horizontal bars of shares, two for each name.
fn bars(rows: &[(String, f64, f64)]) -> (u32, String) {
    let mut drawing = String::new();
    for (row, (name, first, second)) in rows.iter().enumerate() {
        let y = 10 + row * 34;
        let _ = writeln!(
            drawing,
            "<text x=\"170\" y=\"{}\" text-anchor=\"end\">{}</text><rect class=\"bar\" x=\"180\" y=\"{y}\" width=\"{:.1}\" height=\"12\"/><rect class=\"bar second\" x=\"180\" y=\"{}\" width=\"{:.1}\" height=\"12\"/><text x=\"{:.1}\" y=\"{}\">{}</text><text x=\"{:.1}\" y=\"{}\">{}</text>",
            y + 17,
            escaped(name),
            first * 450.0,
            y + 13,
            second * 450.0,
            186.0 + first * 450.0,
            y + 11,
            percent(*first),
            186.0 + second * 450.0,
            y + 24,
            percent(*second)
        ); // a string takes all
    }
    (20 + 34 * rows.len() as u32, drawing)
}

fn bundles(page: &mut Page, report: &Report) {
    if report.bundles.is_empty() {
        return;
    }
    page.heading("Who can have a package's whole tree from few builds");
    let rows: Vec<(String, f64, f64)> = report
        .bundles
        .iter()
        .map(|reach| {
            (
                reach.package.clone(),
                reach.exact_unseen.ten,
                reach.aligned_unseen.ten,
            )
        })
        .collect();
    let (height, drawing) = bars(&rows);
    page.figure(
        "Share of dependents not looked at that the ten best builds serve: as they are (above), and after moving to newer compatible versions (below)",
        (700, height),
        &drawing,
    );
    page.table(
        &[
            "Package",
            "Projects",
            "Trees",
            "Best one",
            "Best ten",
            "Unseen: best one",
            "Unseen: best ten",
            "Aligned: best one",
            "Aligned: best ten",
        ],
        report.bundles.iter().map(|reach| {
            vec![
                reach.package.clone(),
                reach.projects.to_string(),
                reach.trees.to_string(),
                percent(reach.exact.one),
                percent(reach.exact.ten),
                percent(reach.exact_unseen.one),
                percent(reach.exact_unseen.ten),
                percent(reach.aligned_unseen.one),
                percent(reach.aligned_unseen.ten),
            ]
        }),
    );
}

fn alignment(page: &mut Page, report: &Report) {
    let Some(alignment) = &report.alignment else {
        return;
    };
    page.heading("After moving to what is prebuilt");
    page.paragraph(&format!(
        "By the registry's index, on projects not looked at: {} of the seconds of all trees prebuild {} of theirs as they are, and {} after {:.0} packages of each have moved.",
        percent(alignment.budget),
        percent(alignment.before),
        percent(alignment.after),
        alignment.moves
    ));
    if !alignment.tiers.is_empty() {
        page.table(
            &["Tier", "As they are", "Afterwards"],
            alignment
                .tiers
                .iter()
                .map(|(tier, of)| vec![tier.clone(), percent(of.before), percent(of.after)]),
        );
    }
    page.table(
        &["Package", "Whole tree from one", "Whole tree from ten"],
        alignment.bundles.iter().map(|reached| {
            vec![
                reached.package.clone(),
                percent(reached.one),
                percent(reached.ten),
            ]
        }),
    );
}

/// Days that the plot of histories shows.
const PLOTTED: i64 = 90;

fn history(page: &mut Page, report: &Report) {
    if report.history.is_empty() {
        return;
    }
    page.heading("What is left of a lock file's trees");
    let mut drawing = axes(
        &|step| format!("{:.0}", step * PLOTTED as f64),
        "days later",
    );
    for (class, share) in [
        ("one", (|point| point.trees) as fn(&Survival) -> f64),
        ("two", |point| point.seconds),
    ] {
        for history in &report.history {
            let points = history.points.iter().filter(|point| point.days <= PLOTTED);
            let points = points.map(|point| {
                format!(
                    " {:.1},{:.1}",
                    50.0 + point.days as f64 / PLOTTED as f64 * 620.0,
                    270.0 - share(point) * 250.0
                )
            });
            let points: String = points.collect();
            let _ = writeln!(
                drawing,
                "<polyline class=\"{class}\" points=\"50.0,20.0{points}\"/>"
            ); // a string takes all
        }
    }
    drawing += &legend("trees", "compile seconds");
    page.figure(
        "Share of the trees of a lock file, and of their compile seconds, that the lock file of so many days later still has; a line for each repository",
        (700, 310),
        &drawing,
    );
    let rows = report.history.iter().flat_map(|history| {
        history.points.iter().map(|point| {
            vec![
                history.path.clone(),
                point.days.to_string(),
                point.samples.to_string(),
                percent(point.trees),
                percent(point.seconds),
            ]
        })
    });
    page.table(
        &["Lock file", "Days later", "Versions", "Trees", "Seconds"],
        rows,
    );
}

/// What the two lines of a plot stand for.
fn legend(one: &str, two: &str) -> String {
    format!(
        "<line class=\"one\" x1=\"500\" y1=\"225\" x2=\"530\" y2=\"225\"/><text x=\"536\" y=\"229\">{}</text>\n<line class=\"two\" x1=\"500\" y1=\"245\" x2=\"530\" y2=\"245\"/><text x=\"536\" y=\"249\">{}</text>\n",
        escaped(one),
        escaped(two)
    )
}

fn trees(page: &mut Page, report: &Report) {
    page.heading("Shared trees of the most value");
    page.table(
        &["Tree", "Packages", "Seconds", "Lock files", "Repositories"],
        report.top.iter().map(|top| {
            vec![
                top.name.clone(),
                top.size.to_string(),
                format!("{:.1}", top.seconds),
                top.projects.to_string(),
                top.repositories.to_string(),
            ]
        }),
    );
}

fn drift(page: &mut Page, report: &Report) {
    page.heading("Sharing by crate");
    page.table(
        &[
            "Crate",
            "Repositories",
            "Versions",
            "Trees",
            "Most common tree",
        ],
        report.crates.iter().map(|drift| {
            vec![
                drift.name.clone(),
                drift.repositories.to_string(),
                drift.versions.to_string(),
                drift.trees.to_string(),
                percent(drift.largest),
            ]
        }),
    );
}

fn selection(page: &mut Page, report: &Report) {
    let Some(selection) = &report.selection else {
        return;
    };
    page.heading("What to build under the budget");
    page.paragraph(&format!(
        "{} trees, {:.0} s to build, {:.1} MB to store, save {} of all compile seconds.",
        selection.trees.len(),
        selection.build_seconds,
        selection.bytes / 1e6,
        percent(selection.saved)
    ));
    page.table(
        &["Package", "Seconds", "Repositories"],
        selection.trees.iter().map(|tree| {
            vec![
                format!("{}-{}", tree.name, tree.version),
                format!("{:.1}", tree.seconds),
                tree.repositories.to_string(),
            ]
        }),
    );
}

fn left_out(page: &mut Page, report: &Report) {
    if report.left_out.is_empty() {
        return;
    }
    page.heading("Left out");
    page.table(
        &["File", "Reason"],
        report
            .left_out
            .iter()
            .map(|left| vec![left.path.clone(), left.reason.clone()]),
    );
}

/// Text that is safe between tags and in attributes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}
