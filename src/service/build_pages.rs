//! Pages about builds and workers: what is asked of the database, as HTML. Pure.

use super::builds::board::{Build, Made, Overview, Try, Worker};
use super::pages::{duration, time};
use crate::console::size;
use crate::markup::{Cell, Html, path, short};

/// What is shown of all builds.
pub(super) struct Lists {
    pub(super) overview: Overview,
    pub(super) leased: Vec<Build>,
    pub(super) queued: Vec<Build>,
    pub(super) built: Vec<Build>,
    pub(super) resting: Vec<Build>,
}

/// The numbers of builds, for the overview.
pub(super) fn facts(html: &mut Html, overview: &Overview) {
    html.facts(&[
        ("Builds with a worker", overview.leased.to_string()),
        ("Builds that wait", overview.queued.to_string()),
        ("Recipes built", short((overview.built) as f64)),
        ("Builds that rest", overview.resting.to_string()),
        ("Outputs published", short(overview.outputs as f64)),
        ("Their size", size(overview.bytes.unsigned_abs())),
        ("Work in 24 hours", duration(overview.seconds as f64)),
    ]);
}

/// All builds.
pub(super) fn builds(lists: &Lists) -> Html {
    let mut html = Html::default();
    facts(&mut html, &lists.overview);
    for (heading, found) in [
        ("With a worker", &lists.leased),
        ("Waiting, the most urgent first", &lists.queued),
        ("Published last", &lists.built),
        ("Resting, since they failed too often", &lists.resting),
    ] {
        html.heading(heading);
        if found.is_empty() {
            html.paragraph("None.");
            continue;
        }
        html.table(
            &["Package", "Version", "Builder", "Queued", "Published"],
            found.iter().map(|build| {
                let ended = match build.ended {
                    0 => "–".to_owned(),
                    ended => time(ended),
                };
                vec![
                    Cell::Link {
                        to: path(&["builds", &build.id.to_string()]),
                        text: build.name.clone(),
                    },
                    build.version.clone().into(),
                    build.builder.clone().into(),
                    time(build.since).into(),
                    ended.into(),
                ]
            }),
        );
    }
    html
}

/// One build, with its tries and what is published.
pub(super) fn build(build: &Build, tries: &[Try], made: &[Made]) -> Html {
    let mut html = Html::default();
    html.raw("<dl class=\"facts\"><div><dt>State</dt><dd id=\"state\" role=\"status\">");
    html.text(&build.state);
    html.raw("</dd></div></dl>\n");
    if !build.reason.is_empty() {
        html.paragraph(&build.reason);
    }
    html.raw("<p>Recipe <a href=\"");
    html.text(&path(&["wants", &build.recipe]));
    html.raw("\"><code>");
    html.text(&build.recipe);
    html.raw("</code></a>, for ");
    html.text(&build.builder);
    html.raw("</p>\n");
    html.heading("The last log");
    html.raw("<pre id=\"log\" tabindex=\"0\" data-events=\"");
    html.text(&path(&["builds", &build.id.to_string(), "events"]));
    html.raw("\">");
    html.text(tries.first().map_or("", |last| &last.log));
    html.raw("</pre>\n<script src=\"/live.js\" defer></script>\n");
    html.heading("Tries");
    if tries.is_empty() {
        html.paragraph("None yet.");
    } else {
        html.table(
            &["Began", "Took", "Worker", "What came of it", "Why"],
            tries.iter().map(|one| {
                let (took, outcome) = match one.ended {
                    0 => ("–".to_owned(), "goes on"),
                    ended => (duration((ended - one.began) as f64), one.outcome.as_str()),
                };
                vec![
                    time(one.began).into(),
                    took.into(),
                    format!("{} ({})", one.worker, one.token).into(),
                    outcome.to_owned().into(),
                    one.reason.clone().into(),
                ]
            }),
        );
    }
    outputs(&mut html, made);
    html
}

/// What is published of a recipe.
pub(super) fn outputs(html: &mut Html, made: &[Made]) {
    html.heading("Published outputs");
    if made.is_empty() {
        html.paragraph("None.");
        return;
    }
    html.table(
        &["Output", "Builder", "Size", "Took", "Made the same"],
        made.iter().map(|made| {
            let agreed = match made.agreed {
                1 => "by one worker".to_owned(),
                count => format!("by {count} workers"),
            };
            vec![
                made.output.clone().into(),
                made.builder.clone().into(),
                size(made.bytes.unsigned_abs()).into(),
                duration(made.milliseconds as f64 / 1e3).into(),
                agreed.into(),
            ]
        }),
    );
}

/// Who asked for work within a day.
pub(super) fn workers(workers: &[Worker]) -> Html {
    let mut html = Html::default();
    if workers.is_empty() {
        html.paragraph("No worker has asked for work within a day.");
        return html;
    }
    html.table(
        &["Worker", "Token", "Builders", "Asked first", "Asked last"],
        workers.iter().map(|worker| {
            vec![
                worker.name.clone().into(),
                worker.token.clone().into(),
                worker.builders.replace(' ', ", ").into(),
                time(worker.since).into(),
                time(worker.seen).into(),
            ]
        }),
    );
    html
}
