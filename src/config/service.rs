//! The service that is told what was lacking.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, Token};
use crate::environment::Environment;

/// A service, and how to reach it. Only the user's own file names one: what a
/// project has in its folder must not make whoever clones it report anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Where it is.
    pub url: String,
    /// Shown to be let in.
    pub token: Option<Token>,
    /// A file of certificates by which the service's may be signed.
    pub ca: Option<PathBuf>,
    /// The folder of the file that says so.
    pub base: PathBuf,
    /// Whether it gets reports.
    pub report: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Table {
    url: Option<String>,
    report: Option<bool>,
    token: Option<String>,
    token_variable: Option<String>,
    ca: Option<PathBuf>,
}

impl Table {
    /// What counts after this file: all of the user's own, and of a project's
    /// that there is nothing to report.
    pub(super) fn merge(
        self,
        before: Option<ServiceSettings>,
        path: &Path,
        is_users: bool,
        environment: &Environment,
    ) -> Result<Option<ServiceSettings>, ConfigError> {
        if !is_users {
            let silenced = self.report == Some(false);
            return Ok(before.map(|before| ServiceSettings {
                report: before.report && !silenced,
                ..before
            }));
        }
        let report = self.report.unwrap_or(false);
        let Some(url) = self.url else {
            let path = path.to_owned();
            return match report {
                true => Err(ConfigError::Service { path }),
                false => Ok(before),
            };
        };
        let base = path.parent().unwrap_or(Path::new("/")).to_owned();
        let variable = self.token_variable.as_deref();
        let of_variable = variable.and_then(|name| environment.get(name));
        let token = self.token.or(of_variable.map(str::to_owned));
        Ok(Some(ServiceSettings {
            url,
            token: token.map(Token::new),
            ca: self.ca.map(|ca| base.join(ca)),
            base,
            report,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use crate::fs;

    #[test]
    fn only_the_user_switches_reports_on_and_a_project_may_switch_them_off() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        let project = folder.path().join("project");
        let user = home.join(".config/quickbuild");
        fs::create_dir_all(&user).unwrap();
        fs::create_dir_all(&project).unwrap();
        let home = home.to_string_lossy().into_owned();
        let load = |users: &str, projects: &str| {
            fs::write(&user.join("quickbuild.toml"), users.as_bytes()).unwrap();
            fs::write(&project.join("quickbuild.toml"), projects.as_bytes()).unwrap();
            let variables = [("HOME", home.as_str()), ("T", "hidden")];
            let variables = variables.iter().map(|(n, v)| ((*n).into(), (*v).into()));
            let config = Config::load(&Environment::new(variables), &project);
            config.map(|config| config.service)
        };
        const ON: &str =
            "[service]\nurl = \"https://a.example.org\"\nreport = true\ntoken-variable = \"T\"\n";
        const THEIRS: &str = "[service]\nurl = \"https://b.example.org\"\nreport = true\n";
        assert_eq!(load("", THEIRS).unwrap(), None);
        let on = load(ON, THEIRS).unwrap().unwrap();
        assert_eq!(
            (on.url.as_str(), on.report),
            ("https://a.example.org", true)
        );
        assert_eq!(on.token.as_ref().unwrap().secret(), "hidden");
        assert!(!format!("{on:?}").contains("hidden"));
        let off = load(ON, "[service]\nreport = false\n").unwrap().unwrap();
        assert!(!off.report);
        assert!(
            !load(&ON.replace("report = true", ""), "")
                .unwrap()
                .unwrap()
                .report
        );
        let lost = load("[service]\nreport = true\n", "");
        assert!(matches!(lost, Err(ConfigError::Service { .. })));
    }
}
