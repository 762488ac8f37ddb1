//! `quickbuild build`, `check`, `clippy`, `test`, `run`, `doc`, `bench`.

use std::process::ExitCode;

use super::substitute::{Sources, take_sources};
use super::terminal::{Terminal, Verbosity, colour, size, verbosity};
use super::{Exit, Failure, Surroundings, print_help_of};
use crate::build::{self, Report};
use crate::cargo::invocation::{Invocation, Subcommand};
use crate::config::Config;
use crate::console;
use crate::report::{self, Sent};
use crate::store::Store;

pub(super) fn run(
    surroundings: &Surroundings,
    subcommand: Subcommand,
    mut arguments: Vec<String>,
) -> Result<ExitCode, Failure> {
    let sources: Sources = take_sources(&mut arguments)?;
    let invocation = Invocation {
        subcommand,
        arguments,
    };
    if invocation.has_flag(&["--help", "-h"]) {
        print_help_of(subcommand);
        return Ok(Exit::Success.into());
    }
    let verbosity = verbosity(&surroundings.environment, &invocation);
    let colour = colour(&surroundings.environment, &invocation);
    let mut terminal = Terminal::new(verbosity, colour);
    let mut config = surroundings.config().unwrap_or_else(|failure| {
        // A wrong configuration must not fail a build.
        build::Observer::warn(
            &mut terminal,
            &format!("{}; built-in settings are used", failure.message),
        );
        Config::built_in(&surroundings.environment)
    });
    sources.apply(&mut config, surroundings);
    let request = surroundings.request(invocation);
    let (status, report) = build::run(&request, &config, &mut terminal)?;
    build::Observer::clear(&mut terminal);
    if verbosity == Verbosity::Verbose {
        for (package, reason) in &report.left {
            console::line(&format!(
                "quickbuild: {package} stays out of the store: {reason}"
            ));
        }
    }
    if verbosity > Verbosity::Quiet && report.units > 0 {
        console::line(&summary(&report));
    }
    tell(surroundings, &config, &report, verbosity);
    Ok(build::exit_code(status))
}

/// Tells the service what was lacking, after a miss and if the user wants that.
fn tell(surroundings: &Surroundings, config: &Config, report: &Report, verbosity: Verbosity) {
    let service = config.service.as_ref().filter(|service| service.report);
    let lack = report.lack.as_ref().filter(|lack| lack.misses > 0);
    let (Some(service), Some(lack)) = (service, lack) else {
        return;
    };
    let told = || -> Result<Sent, Failure> {
        let store = Store::open(&config.store)?;
        let report = report::make(lack, &store)?;
        Ok(report::send(
            &report,
            service,
            &store,
            &surroundings.environment,
        )?)
    };
    // Whoever did not ask why is not bothered: the build is as good as it was.
    if let Err(failure) = told()
        && verbosity == Verbosity::Verbose
    {
        failure.warn();
    }
}

/// One line, as Cargo would say it.
fn summary(report: &Report) -> String {
    let units = if report.units == 1 { "unit" } else { "units" };
    let mut text = format!(
        "quickbuild: {} {units}, {} from the store, {} built",
        report.units, report.from_store, report.built
    );
    if report.fetched.outputs > 0 {
        text.push_str(&format!(
            "; {} outputs fetched ({})",
            report.fetched.outputs,
            size(report.fetched.bytes)
        ));
    }
    if report.seconds_saved >= 0.5 {
        text.push_str(&format!("; about {:.0} s saved", report.seconds_saved));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_one_line() {
        let report = Report {
            units: 245,
            from_store: 233,
            built: 12,
            seconds_saved: 61.2,
            ..Report::default()
        };
        assert_eq!(
            summary(&report),
            "quickbuild: 245 units, 233 from the store, 12 built; about 61 s saved"
        );
    }
}
