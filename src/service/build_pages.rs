//! Pages about builds and workers: what is asked of the database, as HTML. Pure.

use super::builds::board::{Build, Made, Overview, Plan, Try, Worker};
use super::pages::{duration, time};
use super::vouched::Vouched;
use crate::console::size;
use crate::markup::{Cell, Html, path, short};
use crate::trust::PublicKey;

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
        (
            "Resting: failed too often, made differently, or cancelled",
            &lists.resting,
        ),
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
    if build.behind != 0 {
        html.raw("<p>It waits for ");
        let maker = build.behind.to_string();
        html.link(&path(&["builds", &maker]), &format!("build {maker}"));
        html.raw(", which makes some of it.</p>\n");
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

/// What came of planning a tree whose lock files came without recipes.
pub(super) fn plans(html: &mut Html, plans: &[Plan]) {
    html.heading("Recipes that a worker planned");
    html.table(
        &["Builder", "Planned with", "What came of it"],
        plans.iter().map(|plan| {
            let came = match (plan.is_done, plan.reason.is_empty()) {
                (true, _) => "recipes, which are built",
                (false, true) => "no worker has tried yet",
                (false, false) => &plan.reason,
            };
            vec![
                plan.builder.clone().into(),
                Cell::Link {
                    to: path(&["wants", &plan.root]),
                    text: "the largest tree with it".to_owned(),
                },
                came.to_owned().into(),
            ]
        }),
    );
}

/// Who vouches for what is published, with the key that this service signs with;
/// `found` is nothing where it cannot be read now.
pub(super) fn vouched(key: Option<&PublicKey>, found: Option<&[Vouched]>) -> Html {
    let mut html = Html::default();
    html.heading("Who vouches for these outputs");
    match key {
        Some(key) => {
            html.raw("<p>This service signs with <code>");
            html.text(&key.to_string());
            html.raw("</code></p>\n");
        }
        None => html.paragraph("This service has no key."),
    }
    let Some(found) = found else {
        html.paragraph("What is published cannot be read now.");
        return html;
    };
    for one in found {
        html.raw("<h3><code>");
        html.text(&one.output);
        html.raw("</code></h3>\n<dl class=\"rows\">\n");
        row(&mut html, "Signed by", &signed(one));
        row(&mut html, "Builder", &one.builder);
        row(&mut html, "Image", one.image.as_deref().unwrap_or("–"));
        if let Some(made) = &one.made {
            row(&mut html, "Began", &made.began);
            row(&mut html, "Ended", &made.ended);
            row(&mut html, "Operated by", &made.by);
            row(&mut html, "Run", &made.run);
        } else {
            row(&mut html, "Provenance", "none");
        }
        html.raw("<div><dt>Log</dt><dd>");
        let build = one.build.to_string();
        let to = format!("{}#log", path(&["builds", &build]));
        html.link(&to, &format!("of build {build}"));
        html.raw("</dd></div>\n</dl>\n");
    }
    html
}

fn row(html: &mut Html, term: &'static str, fact: &str) {
    html.raw("<div><dt>");
    html.raw(term);
    html.raw("</dt><dd>");
    html.text(fact);
    html.raw("</dd></div>\n");
}

fn signed(one: &Vouched) -> String {
    let Some(signers) = &one.signers else {
        return "it is not where it was published".to_owned();
    };
    let mut said: Vec<String> = signers
        .iter()
        .map(|signer| match signer.holds {
            Some(true) => format!("{} (this service's key; it verifies)", signer.name),
            Some(false) => format!(
                "{} (this service's key, but it does not verify)",
                signer.name
            ),
            None => format!("{} (a key that is not known here)", signer.name),
        })
        .collect();
    if said.is_empty() {
        said.push("nobody".to_owned());
    }
    if !one.is_noted {
        said.push("but its content is not what this service has published".to_owned());
    }
    said.join(", ")
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
