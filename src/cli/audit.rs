//! `quickbuild audit`: where each output of a build came from, and who vouches
//! for it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;

use super::plan::{command, context, take_format};
use super::terminal::{print_json, print_line};
use super::{Exit, Failure, Surroundings, print_help};
use crate::audit::cyclonedx::Bill;
use crate::audit::{Audit, Audited, Source};
use crate::build::chain;
use crate::cargo::licences;
use crate::config::Config;
use crate::fs;
use crate::output::provenance::Timestamp;
use crate::plan::inputs::Inspector;
use crate::plan::{Context, Plan, Verdict};
use crate::store::Store;
use crate::trust::PublicKey;

/// How a report is printed.
const FORMATS: [&str; 3] = ["text", "json", "cyclonedx"];

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report<'a> {
    units: usize,
    /// Units without an output: Cargo compiles them.
    left: Vec<String>,
    /// Store names of what came from elsewhere and no trusted key has signed.
    unvouched: Vec<&'a str>,
    outputs: &'a [Audited],
}

pub(super) fn run(
    surroundings: &Surroundings,
    mut arguments: Vec<String>,
) -> Result<ExitCode, Failure> {
    let format = take_format(&mut arguments, &FORMATS)?;
    let keys = take_keys(&mut arguments)?;
    let invocation = command(arguments);
    if invocation.has_flag(&["--help", "-h"]) {
        print_help("audit");
        return Ok(Exit::Success.into());
    }
    let config = surroundings.config()?;
    let keys = trusted(surroundings, &config, &keys)?;
    let store = Store::open(&config.store)?;
    let context = context(surroundings, &store, &invocation, "there is no plan")?;
    let inspector = Inspector::new(&context.environment, &context.settings, &context.roots);
    let plan = Plan::make(&context, &store, &inspector);
    let audit = Audit::make(&context, &plan, &store, &keys)?;
    let unvouched: Vec<&str> = audit
        .outputs
        .iter()
        .filter(|audited| audited.is_unvouched())
        .map(|audited| audited.output.as_str())
        .collect();
    let exit = match unvouched.is_empty() {
        true => Exit::Success,
        false => Exit::Found,
    };
    match format {
        "cyclonedx" => {
            print_json(&bill(surroundings, &context, &plan, &audit)?);
            // A bill lists, and judges nothing.
            return Ok(Exit::Success.into());
        }
        "json" => print_json(&Report {
            units: plan.units.len(),
            left: left(&plan),
            unvouched,
            outputs: &audit.outputs,
        }),
        _ => print_text(&plan, &audit, &unvouched),
    }
    Ok(exit.into())
}

/// Takes `--key KEY`, as often as it comes, up to a `--`.
fn take_keys(arguments: &mut Vec<String>) -> Result<Vec<String>, Failure> {
    let end = arguments.iter().position(|argument| argument == "--");
    let rest = arguments.split_off(end.unwrap_or(arguments.len()));
    let mut keys = Vec::new();
    let mut kept = Vec::new();
    let mut words = std::mem::take(arguments).into_iter();
    while let Some(word) = words.next() {
        if word == "--key" {
            let key = words.next();
            keys.push(key.ok_or_else(|| Failure::new("`--key` needs a public key behind it"))?);
        } else if let Some(key) = word.strip_prefix("--key=") {
            keys.push(key.to_owned());
        } else {
            kept.push(word);
        }
    }
    kept.extend(rest);
    *arguments = kept;
    Ok(keys)
}

/// The keys that are given, or else those of the substituters and the user's
/// own.
fn trusted(
    surroundings: &Surroundings,
    config: &Config,
    given: &[String],
) -> Result<Vec<PublicKey>, Failure> {
    if !given.is_empty() {
        return given.iter().map(|text| Ok(text.parse()?)).collect();
    }
    let mut keys = super::key::own_keys(surroundings);
    for text in config.substituters.iter().flat_map(|s| &s.public_keys) {
        let key: PublicKey = text.parse()?;
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    Ok(keys)
}

/// Units that no output serves, each package once.
fn left(plan: &Plan) -> Vec<String> {
    let verdicts = plan.units.iter().zip(&plan.resolution.verdicts);
    let left = verdicts.filter(|(_, verdict)| matches!(verdict, Verdict::Missing(_)));
    left.map(|(unit, _)| {
        let (package, kind) = (&unit.package, unit.kind);
        format!("{} {} ({kind})", package.name, package.version)
    })
    .collect()
}

fn bill(
    surroundings: &Surroundings,
    context: &Context,
    plan: &Plan,
    audit: &Audit,
) -> Result<serde_json::Value, Failure> {
    let environment = &surroundings.environment;
    let licences = licences::load(environment, &surroundings.folder, &context.invocation);
    let licences = licences.unwrap_or_else(|error| {
        Failure::new(format!("the bill has no licences: {}", chain(&error))).warn();
        Vec::new()
    });
    // So that a bill can be made again to the byte.
    let given = environment.get("SOURCE_DATE_EPOCH");
    let seconds = given.and_then(|text| text.parse().ok());
    let time = Timestamp::from_seconds(seconds.unwrap_or_else(|| fs::now().seconds()))
        .ok_or_else(|| Failure::new("the time is out of range"))?;
    let bill = Bill {
        context,
        plan,
        audit,
        licences: &licences,
        time,
    };
    Ok(bill.to_json())
}

fn print_text(plan: &Plan, audit: &Audit, unvouched: &[&str]) {
    for audited in &audit.outputs {
        print_line(&line(audited));
        for problem in &audited.problems {
            print_line(&format!("  {problem}"));
        }
    }
    let mut sources: BTreeMap<String, usize> = BTreeMap::new();
    for audited in &audit.outputs {
        *sources.entry(place(&audited.source)).or_default() += 1;
    }
    let left = left(plan);
    let linked = audit.outputs.iter().filter(|audited| audited.linked);
    print_line(&format!(
        "{} units use {} outputs, {} of them linked here; {} units are left to Cargo.",
        plan.units.len() - left.len(),
        audit.outputs.len(),
        linked.count(),
        left.len()
    ));
    for (place, count) in sources {
        print_line(&format!("{count} outputs: {place}."));
    }
    if unvouched.is_empty() {
        print_line("Whatever came from elsewhere is signed with a trusted key.");
    } else {
        print_line(&format!(
            "Nobody who is trusted here vouches for {} outputs that came from elsewhere:",
            unvouched.len()
        ));
        for output in unvouched {
            print_line(&format!("  {output}"));
        }
    }
}

fn place(source: &Source) -> String {
    match source {
        Source::Compiled => "compiled here".to_owned(),
        Source::Builder { image } => format!("made here by the builder {image}"),
        Source::Substituter { place, .. } => format!("from {place}"),
        Source::Archive { place, .. } => format!("imported from {place}"),
    }
}

fn line(audited: &Audited) -> String {
    let mut parts = vec![place(&audited.source)];
    if let Source::Substituter { time, .. } | Source::Archive { time, .. } = &audited.source {
        parts[0].push_str(&format!(" at {time}"));
    }
    if !audited.valid.is_empty() {
        parts.push(format!("signed with {}", audited.valid.join(", ")));
    }
    if !audited.invalid.is_empty() {
        let names = audited.invalid.join(", ");
        parts.push(format!("not what was signed with {names}"));
    }
    if !audited.unknown.is_empty() {
        let names = audited.unknown.join(", ");
        parts.push(format!("signed with unknown keys: {names}"));
    }
    if audited.valid.is_empty() && audited.invalid.is_empty() && audited.unknown.is_empty() {
        parts.push("not signed".to_owned());
    }
    if let Some(built) = &audited.provenance {
        parts.push(format!("built by {} at {}", built.builder, built.finished));
    }
    format!(
        "{} {} ({})  {}",
        audited.package,
        audited.version,
        audited.kind,
        parts.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_and_cargos_arguments_stay() {
        let words = [
            "check",
            "--key",
            "a:b",
            "-p",
            "x",
            "--key=c:d",
            "--",
            "--key",
        ];
        let mut arguments = words.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(take_keys(&mut arguments).unwrap(), ["a:b", "c:d"]);
        assert_eq!(arguments, ["check", "-p", "x", "--", "--key"]);
        assert!(take_keys(&mut vec!["--key".to_owned()]).is_err());
    }
}
