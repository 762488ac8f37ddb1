//! `quickbuild substitute`, and the options of all Cargo commands that say
//! where to fetch from.

use std::process::ExitCode;

use super::plan::command;
use super::terminal::{Terminal, colour, print_line, size, verbosity};
use super::{Exit, Failure, Surroundings, print_help};
use crate::build;
use crate::config::Config;

/// Where a command fetches from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sources {
    /// As configured.
    Configured,
    /// From these.
    Given(Vec<String>),
    /// From nowhere.
    None,
}

/// Takes our own options out of Cargo's arguments, up to a `--`.
pub(super) fn take_sources(arguments: &mut Vec<String>) -> Result<Sources, Failure> {
    let own = arguments.iter().position(|argument| argument == "--");
    let rest = arguments.split_off(own.unwrap_or(arguments.len()));
    let mut sources = Sources::Configured;
    let mut kept = Vec::new();
    let mut words = std::mem::take(arguments).into_iter();
    while let Some(word) = words.next() {
        let url = match word.as_str() {
            "--no-substitute" => {
                sources = Sources::None;
                continue;
            }
            "--substituter" => Some(words.next().ok_or_else(|| {
                Failure::new("`--substituter` needs the URL of a substituter behind it")
            })?),
            other => other.strip_prefix("--substituter=").map(str::to_owned),
        };
        match (url, &mut sources) {
            (None, _) => kept.push(word),
            (Some(url), Sources::Given(urls)) => urls.push(url),
            (Some(url), Sources::Configured) => sources = Sources::Given(vec![url]),
            (Some(_), Sources::None) => {}
        }
    }
    kept.extend(rest);
    *arguments = kept;
    Ok(sources)
}

impl Sources {
    /// Changes the configuration accordingly.
    pub(super) fn apply(&self, config: &mut Config, surroundings: &Surroundings) {
        match self {
            Self::Configured => {}
            Self::None => config.substituters.clear(),
            Self::Given(urls) => {
                let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
                config.substitute_from(&urls, &surroundings.environment, &surroundings.folder);
            }
        }
    }
}

pub(super) fn run(
    surroundings: &Surroundings,
    mut arguments: Vec<String>,
) -> Result<ExitCode, Failure> {
    let sources = take_sources(&mut arguments)?;
    let invocation = command(arguments);
    if invocation.has_flag(&["--help", "-h"]) {
        print_help("substitute");
        return Ok(Exit::Success.into());
    }
    let mut config = surroundings.config()?;
    sources.apply(&mut config, surroundings);
    if config.substituters.is_empty() {
        return Err(Failure::new("there is no substituter to fetch from")
            .hint("name one with `--substituter URL`, or in `quickbuild.toml`"));
    }
    let mut terminal = Terminal::new(
        verbosity(&surroundings.environment, &invocation),
        colour(&surroundings.environment, &invocation),
    );
    let request = surroundings.request(invocation);
    let done = build::substitute(&request, &config, &mut terminal).map_err(Failure::new)?;
    build::Observer::clear(&mut terminal);
    print_line(&format!(
        "quickbuild: {} of {} units are ready, {} of them linked; {} outputs fetched ({})",
        done.ready,
        done.units,
        done.linked,
        done.fetched.outputs,
        size(done.fetched.bytes)
    ));
    Ok(Exit::Success.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(words: &[&str]) -> (Sources, Vec<String>) {
        let mut arguments = words.iter().map(|word| (*word).to_owned()).collect();
        let sources = take_sources(&mut arguments).unwrap();
        (sources, arguments)
    }

    #[test]
    fn our_options_are_taken_and_cargos_stay() {
        let given = |urls: &[&str]| Sources::Given(urls.iter().map(|u| (*u).to_owned()).collect());
        let words = [
            "--release",
            "--substituter",
            "a",
            "-p",
            "x",
            "--substituter=b",
        ];
        let (sources, rest) = take(&words);
        assert_eq!(sources, given(&["a", "b"]));
        assert_eq!(rest, ["--release", "-p", "x"]);
        let (sources, rest) = take(&["--no-substitute", "--", "--no-substitute"]);
        assert_eq!(sources, Sources::None);
        assert_eq!(rest, ["--", "--no-substitute"]);
        assert_eq!(take(&[]).0, Sources::Configured);
        assert!(take_sources(&mut vec!["--substituter".to_owned()]).is_err());
    }
}
