//! `quickbuild doctor`: what keeps quickbuild from working well here.

use std::process::ExitCode;

use serde::Serialize;

use super::arguments::Format;
use super::terminal::{print_json, print_line};
use super::{Exit, Failure, Surroundings};
use crate::build::chain;
use crate::cargo::toolchain::Toolchain;
use crate::fs::{self, Placement, Sharing};
use crate::store::Store;
use crate::store::verify::{Depth, verify};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Good,
    Warning,
}

#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    subject: &'static str,
    text: String,
}

pub(super) fn run(surroundings: &Surroundings, format: Format) -> Result<ExitCode, Failure> {
    let mut findings = Vec::new();
    let mut add = |level, subject, text: String| {
        findings.push(Finding {
            level,
            subject,
            text,
        });
    };

    let config = match surroundings.config() {
        Ok(config) => {
            let files: Vec<String> = config
                .files
                .iter()
                .map(|f| format!("`{}`", f.display()))
                .collect();
            let text = if files.is_empty() {
                "built-in settings only".to_owned()
            } else {
                files.join(", ")
            };
            add(Level::Good, "configuration", text);
            Some(config)
        }
        Err(failure) => {
            add(Level::Warning, "configuration", failure.message);
            None
        }
    };
    if let Some(config) = &config {
        let path = fs::canonicalize(&config.store).unwrap_or_else(|_| config.store.clone());
        match Store::open(&config.store) {
            Ok(store) if store.is_writable() => {
                add(Level::Good, "store", format!("`{}`", path.display()));
                let placement = try_placement(&store, surroundings);
                match placement {
                    Ok(Placement::Copy) => add(
                        Level::Warning,
                        "links",
                        "the store and this folder cannot share files, so linking copies; put the store on this device with QUICKBUILD_STORE".to_owned(),
                    ),
                    Ok(_) => add(Level::Good, "links", "files are shared, not copied".to_owned()),
                    Err(error) => add(Level::Warning, "links", chain(&error)),
                }
                let cache = store.cache("toolchains");
                match Toolchain::detect(&surroundings.environment, &surroundings.folder, &cache) {
                    Ok(toolchain) => {
                        let rustc = toolchain
                            .rustc
                            .lines()
                            .next()
                            .unwrap_or_default()
                            .to_owned();
                        add(
                            Level::Good,
                            "toolchain",
                            format!("{rustc}, {}", toolchain.cargo),
                        );
                    }
                    Err(error) => add(Level::Warning, "toolchain", chain(&error)),
                }
            }
            Ok(_) => add(
                Level::Warning,
                "store",
                format!(
                    "`{}` is read-only: it serves, but nothing new is kept",
                    path.display()
                ),
            ),
            Err(error) => add(Level::Warning, "store", chain(&error)),
        }
        match verify(&config.store, Depth::Stamps) {
            Ok(problems) if problems.is_empty() => add(
                Level::Good,
                "outputs",
                "all are as they were made".to_owned(),
            ),
            Ok(problems) => add(
                Level::Warning,
                "outputs",
                format!(
                    "{} are damaged, the first is {}; run `quickbuild store repair`",
                    problems.len(),
                    problems[0]
                ),
            ),
            Err(error) => add(Level::Warning, "outputs", chain(&error)),
        }
    }
    if let Some(wrapper) = surroundings.environment.get("RUSTC_WRAPPER") {
        add(
            Level::Good,
            "wrapper",
            format!("`{wrapper}` runs for what Cargo has to compile"),
        );
    }
    match format {
        Format::Json => print_json(&findings),
        Format::Text => {
            for finding in &findings {
                let mark = if finding.level == Level::Good {
                    "ok"
                } else {
                    "!!"
                };
                print_line(&format!("{mark}  {:<14} {}", finding.subject, finding.text));
            }
        }
    }
    let bad = findings
        .iter()
        .any(|finding| finding.level == Level::Warning);
    Ok(if bad { Exit::Found } else { Exit::Success }.into())
}

/// Places a file from the store beside the project.
fn try_placement(store: &Store, surroundings: &Surroundings) -> fs::Result<Placement> {
    let from = store.root().join("format");
    let to = fs::unique_beside(&surroundings.folder.join(".quickbuild-doctor"));
    let placement = fs::place(&from, &to, Sharing::Shared);
    fs::remove_file(&to)?;
    placement
}
