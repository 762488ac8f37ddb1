//! A report as one page of HTML that needs nothing else: no script, no font, no
//! picture from elsewhere. Plots are SVG; each has a table below it that says the
//! same.

use super::history::Survival;
use super::report::{Point, Report};
use crate::console::percent;
use crate::markup::{Anchor, Cell, Drawing, Html, Style};

const TITLE: &str = "What is worth prebuilding";

/// The report as a page.
pub fn page(report: &Report) -> String {
    let mut page = Html::default();
    let counted = &report.counted;
    page.raw("<main>\n");
    page.element("h1", TITLE);
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
    page.raw("</main>\n");
    page.page(TITLE, Style::Inside)
}

/// Adds a table of texts.
fn table(page: &mut Html, heading: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let cells = rows.map(|row| row.into_iter().map(Cell::Text).collect());
    page.table(heading, cells);
}

fn costs(page: &mut Html, report: &Report) {
    let costs = &report.costs;
    page.heading("Where the seconds are from");
    page.paragraph(&format!(
        "Measured for {} packages, taken from another version for {}, estimated for {}.",
        costs.measured, costs.other_version, costs.estimated
    ));
    page.paragraph(&match &costs.error {
        Some(error) => error.to_string(),
        None => "Too little was measured to say how wrong the estimates are.".to_owned(),
    });
}

fn coverage(page: &mut Html, report: &Report) {
    page.heading("What a budget covers");
    let mut drawing = axes(&|step| format!("{:.0} %", step * 100.0), "budget");
    for (class, share) in [
        ("one", (|point| point.seen) as fn(&Point) -> f64),
        ("two", |point| point.unseen),
    ] {
        let points = report.coverage.iter();
        drawing.curve(class, points.map(|point| at(point.budget, share(point))));
    }
    legend(&mut drawing, "projects chosen on", "projects not looked at");
    page.figure(
        "Share of compile seconds that is prebuilt, against the share of the seconds of all different trees that is spent on building",
        &drawing,
    );
    table(
        page,
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

/// Where two shares are in a frame of [`axes`].
fn at(right: f64, up: f64) -> (f64, f64) {
    (50.0 + right * 620.0, 270.0 - up * 250.0)
}

/// A frame from 0 to 100 % upwards; `label` says what is at a share of the way to
/// the right.
fn axes(label: &dyn Fn(f64) -> String, below: &str) -> Drawing {
    let mut drawing = Drawing::new(700, 310);
    for step in 0..=4 {
        let share = f64::from(step) / 4.0;
        let (x, y) = at(share, share);
        drawing.line("axis", at(0.0, share), at(1.0, share));
        drawing.text((44.0, y + 4.0), Anchor::End, &(step * 25).to_string());
        drawing.text((x, 288.0), Anchor::Middle, &label(share));
    }
    drawing.text((360.0, 306.0), Anchor::Middle, below);
    drawing
}

/// Horizontal bars of shares, two for each name.
fn bars(rows: &[(String, f64, f64)]) -> Drawing {
    let mut drawing = Drawing::new(700, 20 + 34 * rows.len() as u32);
    for (row, (name, first, second)) in rows.iter().enumerate() {
        let y = 10.0 + 34.0 * row as f64;
        drawing.text((170.0, y + 17.0), Anchor::End, name);
        for (class, share, y) in [("bar", first, y), ("bar second", second, y + 13.0)] {
            let said = percent(*share);
            let width = share * 450.0;
            drawing.bar(class, (180.0, y), (width, 12.0), &said);
            drawing.text((186.0 + width, y + 11.0), Anchor::Start, &said);
        }
    }
    drawing
}

fn bundles(page: &mut Html, report: &Report) {
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
    let drawing = bars(&rows);
    page.figure(
        "Share of dependents not looked at that the ten best builds serve: as they are (above), and after moving to newer compatible versions (below)",
        &drawing,
    );
    table(
        page,
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

fn alignment(page: &mut Html, report: &Report) {
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
        table(
            page,
            &["Tier", "As they are", "Afterwards"],
            alignment
                .tiers
                .iter()
                .map(|(tier, of)| vec![tier.clone(), percent(of.before), percent(of.after)]),
        );
    }
    table(
        page,
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

fn history(page: &mut Html, report: &Report) {
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
                let right = point.days as f64 / PLOTTED as f64;
                at(right, share(point))
            });
            drawing.curve(class, std::iter::once(at(0.0, 1.0)).chain(points));
        }
    }
    legend(&mut drawing, "trees", "compile seconds");
    page.figure(
        "Share of the trees of a lock file, and of their compile seconds, that the lock file of so many days later still has; a line for each repository",
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
    table(
        page,
        &["Lock file", "Days later", "Versions", "Trees", "Seconds"],
        rows,
    );
}

/// What the two lines of a plot stand for.
fn legend(drawing: &mut Drawing, one: &str, two: &str) {
    for (class, name, y) in [("one", one, 225.0), ("two", two, 245.0)] {
        drawing.line(class, (500.0, y), (530.0, y));
        drawing.text((536.0, y + 4.0), Anchor::Start, name);
    }
}

fn trees(page: &mut Html, report: &Report) {
    page.heading("Shared trees of the most value");
    table(
        page,
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

fn drift(page: &mut Html, report: &Report) {
    page.heading("Sharing by crate");
    table(
        page,
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

fn selection(page: &mut Html, report: &Report) {
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
    table(
        page,
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

fn left_out(page: &mut Html, report: &Report) {
    if report.left_out.is_empty() {
        return;
    }
    page.heading("Left out");
    table(
        page,
        &["File", "Reason"],
        report
            .left_out
            .iter()
            .map(|left| vec![left.path.clone(), left.reason.clone()]),
    );
}
