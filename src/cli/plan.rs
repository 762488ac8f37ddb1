//! `quickbuild plan` and `quickbuild explain`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;

use super::align::hint;
use super::terminal::{print_json, print_line};
use super::{Exit, Failure, Surroundings};
use crate::build::{Lack, in_place};
use crate::cargo::invocation::{Invocation, Subcommand};
use crate::config::Config;
use crate::output::Maker;
use crate::plan::inputs::Inspector;
use crate::plan::state::State;
use crate::plan::{Context, Plan, Planned, Verdict};
use crate::report;
use crate::store::Store;

/// One unit in the report.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct UnitReport {
    package: String,
    version: String,
    kind: &'static str,
    target: String,
    mode: String,
    platform: &'static str,
    recipe: String,
    unit_key: String,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct PlanReport {
    units: usize,
    ready: usize,
    seconds_ready: f64,
    reasons: BTreeMap<&'static str, usize>,
    list: Vec<UnitReport>,
}

/// Takes `--format FORMAT` out of arguments that are otherwise Cargo's; without
/// it, the first format counts.
pub(super) fn take_format(
    arguments: &mut Vec<String>,
    formats: &[&'static str],
) -> Result<&'static str, Failure> {
    let Some(at) = arguments
        .iter()
        .position(|a| a == "--format" || a.starts_with("--format="))
    else {
        return Ok(formats[0]);
    };
    let argument = arguments.remove(at);
    let value = match argument.split_once('=') {
        Some((_, value)) => value.to_owned(),
        None if at < arguments.len() => arguments.remove(at),
        None => String::new(),
    };
    let known = formats.iter().find(|format| **format == value);
    known.copied().ok_or_else(|| {
        let all: Vec<String> = formats.iter().map(|f| format!("`--format {f}`")).collect();
        Failure::new(format!("`{value}` is not a format")).hint(format!("use {}", all.join(" or ")))
    })
}

/// Takes the name of a Cargo command from the front.
pub(super) fn take_subcommand(arguments: &mut Vec<String>) -> Subcommand {
    let named = [
        Subcommand::Build,
        Subcommand::Check,
        Subcommand::Clippy,
        Subcommand::Test,
        Subcommand::Run,
        Subcommand::Doc,
        Subcommand::Bench,
    ];
    let found = arguments
        .first()
        .and_then(|first| named.into_iter().find(|s| s.name() == first));
    if found.is_some() {
        arguments.remove(0);
    }
    found.unwrap_or(Subcommand::Build)
}

/// A plan with what it was made of.
struct Made {
    config: Config,
    store: Store,
    context: Context,
    plan: Plan,
}

impl Made {
    fn new(surroundings: &Surroundings, arguments: Vec<String>) -> Result<Self, Failure> {
        let config = surroundings.config()?;
        let store = Store::open(&config.store)?;
        let context = context(
            surroundings,
            &store,
            &command(arguments),
            "there is no plan",
        )?;
        let plan = plan_of(&context, &store);
        Ok(Self {
            config,
            store,
            context,
            plan,
        })
    }
}

fn plan_of(context: &Context, store: &Store) -> Plan {
    let inspector = Inspector::new(&context.environment, &context.settings, &context.roots);
    Plan::make(context, store, &inspector)
}

/// Whether JSON is asked for.
fn take_json(arguments: &mut Vec<String>) -> Result<bool, Failure> {
    Ok(take_format(arguments, &["text", "json"])? == "json")
}

/// A command for Cargo, whose first argument may name the subcommand.
pub(super) fn command(mut arguments: Vec<String>) -> Invocation {
    let subcommand = take_subcommand(&mut arguments);
    Invocation {
        subcommand,
        arguments,
    }
}

/// All that is known of the workspace for such a command. `otherwise` says what
/// there is not where Cargo alone can do it.
pub(super) fn context(
    surroundings: &Surroundings,
    store: &Store,
    invocation: &Invocation,
    otherwise: &str,
) -> Result<Context, Failure> {
    if let Some(reason) = invocation.unsupported() {
        return Err(Failure::new(format!("{otherwise}: {reason}")));
    }
    Ok(Context::gather(
        &surroundings.environment,
        &surroundings.folder,
        invocation,
        &store.cache(""),
    )?)
}

/// The plan of such a command.
pub(super) fn planned(
    surroundings: &Surroundings,
    store: &Store,
    arguments: Vec<String>,
) -> Result<Plan, Failure> {
    let context = context(surroundings, store, &command(arguments), "there is no plan")?;
    Ok(plan_of(&context, store))
}

fn describe(plan: &Plan, index: usize) -> UnitReport {
    let unit: &Planned = &plan.units[index];
    let verdict = &plan.resolution.verdicts[index];
    let (output, reason) = match verdict {
        Verdict::Ready(output) => (Some(output), None),
        Verdict::Missing(reason) => (None, Some(reason)),
    };
    UnitReport {
        package: unit.package.name.clone(),
        version: unit.package.version.clone(),
        kind: unit.kind,
        target: unit.unit.target.name.clone(),
        mode: format!("{:?}", unit.produced).to_lowercase(),
        platform: if unit.host { "host" } else { "target" },
        recipe: unit.recipe.to_string(),
        unit_key: unit.key.to_string(),
        ready: output.is_some(),
        output: output.map(|output| output.store_name()),
        seconds: output.map(|output| output.seconds),
        reason: reason.map(|reason| reason.word()),
        explanation: reason.map(|reason| reason.describe()),
    }
}

/// Prints what a service would be told, byte for byte but for the random id and
/// what is not known before it is compiled.
fn show_report(surroundings: &Surroundings, arguments: Vec<String>) -> Result<ExitCode, Failure> {
    let Made {
        config,
        store,
        context,
        plan,
    } = Made::new(surroundings, arguments)?;
    let state = State::load(&context.layout.build_dir);
    let lack = Lack::before(&context, &plan, &in_place(&context, &plan, &state));
    match &config.service {
        Some(service) if service.report && lack.misses > 0 => {
            crate::console::line(&format!("quickbuild: this goes to {}", service.url));
        }
        Some(service) if service.report => {
            crate::console::line("quickbuild: nothing is lacking, so nothing would be sent");
        }
        _ => crate::console::line(
            "quickbuild: reports are switched off, so nothing of this would be sent",
        ),
    }
    print_json(&report::make(&lack, &store)?);
    Ok(Exit::Success.into())
}

pub(super) fn plan(
    surroundings: &Surroundings,
    mut arguments: Vec<String>,
) -> Result<ExitCode, Failure> {
    if let Some(at) = arguments.iter().position(|word| word == "--show-report") {
        arguments.remove(at);
        return show_report(surroundings, arguments);
    }
    let json = take_json(&mut arguments)?;
    let Made {
        config,
        store,
        context,
        plan,
    } = Made::new(surroundings, arguments)?;
    let list: Vec<UnitReport> = (0..plan.units.len())
        .map(|index| describe(&plan, index))
        .collect();
    let mut reasons: BTreeMap<&'static str, usize> = BTreeMap::new();
    for reason in list.iter().filter_map(|unit| unit.reason) {
        *reasons.entry(reason).or_default() += 1;
    }
    let report = PlanReport {
        units: plan.units.len(),
        ready: plan.ready(),
        seconds_ready: plan.seconds_ready(),
        reasons,
        list,
    };
    if json {
        print_json(&report);
        return Ok(Exit::Success.into());
    }
    print_line(&format!(
        "{} of {} units are ready, worth about {:.0} s.",
        report.ready, report.units, report.seconds_ready
    ));
    if let Some(said) = hint(surroundings, (&config, &store), &context, &plan.units) {
        print_line(&said);
    }
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for unit in &report.list {
        if let Some(explanation) = &unit.explanation {
            let kind = if unit.kind == "lib" {
                String::new()
            } else {
                format!(" ({})", unit.kind)
            };
            groups
                .entry(explanation)
                .or_default()
                .push(format!("{} {}{kind}", unit.package, unit.version));
        }
    }
    for (explanation, mut units) in groups {
        units.sort();
        units.dedup();
        print_line(&format!("\n{} not: {explanation}", units.len()));
        for unit in units {
            print_line(&format!("  {unit}"));
        }
    }
    Ok(Exit::Success.into())
}

pub(super) fn explain(
    surroundings: &Surroundings,
    package: &str,
    mut arguments: Vec<String>,
) -> Result<ExitCode, Failure> {
    let json = take_json(&mut arguments)?;
    let Made { plan, .. } = Made::new(surroundings, arguments)?;
    let (name, version) = match package.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (package, None),
    };
    let matches = |unit: &Planned| {
        unit.package.name == name && version.is_none_or(|version| unit.package.version == version)
    };
    let found: Vec<usize> = (0..plan.units.len())
        .filter(|&index| matches(&plan.units[index]))
        .collect();
    if found.is_empty() {
        return Err(
            Failure::new(format!("no unit of this command belongs to `{package}`"))
                .hint("`quickbuild plan --format json` lists all units"),
        );
    }
    let reports: Vec<UnitReport> = found.iter().map(|&index| describe(&plan, index)).collect();
    if json {
        print_json(&reports);
        return Ok(Exit::Success.into());
    }
    for (&index, report) in found.iter().zip(&reports) {
        print_line(&format!(
            "{} {}: {} `{}`",
            report.package, report.version, report.kind, report.target
        ));
        print_line(&format!(
            "  mode      {} for the {}",
            report.mode, report.platform
        ));
        print_line(&format!(
            "  features  {}",
            plan.units[index].unit.features.join(", ")
        ));
        print_line(&format!("  recipe    {}", report.recipe));
        print_line(&format!("  unit key  {}", report.unit_key));
        match plan.resolution.output(index) {
            Some(output) => {
                print_line(&format!("  output    {}", output.store_name()));
                print_line(&format!(
                    "  took      {:.1} s, {}",
                    output.seconds,
                    super::terminal::size(output.size())
                ));
                if output.builder != Maker::Local {
                    print_line(&format!("  made by   {}", output.builder));
                }
                if let Some(glibc) = &output.glibc {
                    print_line(&format!("  needs     GLIBC {glibc}"));
                }
                for (name, value) in &output.inputs.env {
                    let value = value
                        .as_ref()
                        .map_or("unset".to_owned(), |value| format!("`{value}`"));
                    print_line(&format!("  assumes   {name} {value}"));
                }
                if !output.inputs.files.is_empty() {
                    print_line(&format!(
                        "  read      {} files that may change",
                        output.inputs.files.len()
                    ));
                }
                let named = plan.resolution.namings[index]
                    .as_ref()
                    .map_or("not learned yet", |n| n.unit_id.as_str());
                print_line(&format!("  unit id   {named}"));
            }
            None => print_line(&format!(
                "  not ready {}",
                report.explanation.as_deref().unwrap_or_default()
            )),
        }
    }
    Ok(Exit::Success.into())
}
