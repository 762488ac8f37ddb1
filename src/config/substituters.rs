//! `[[substituters]]`: where outputs are fetched from, and who is believed.
//!
//! Keys and URLs are texts here; whoever uses them reads them.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, parse_age};
use crate::environment::Environment;

/// Substituters to use instead of the configured ones, apart by spaces.
pub const SUBSTITUTERS: &str = "QUICKBUILD_SUBSTITUTERS";
/// Public keys for substituters that are given without settings, apart by
/// spaces.
pub const PUBLIC_KEYS: &str = "QUICKBUILD_PUBLIC_KEYS";
/// Whether substituters that are given without settings are asked for path packages
/// as well: `true`, or anything else for no.
pub(super) const MEMBERS: &str = "QUICKBUILD_MEMBERS";

/// Settings of one substituter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubstituterSettings {
    /// Its URL, or the path of a folder.
    pub url: String,
    /// What a relative path is relative to.
    pub base: PathBuf,
    /// Public keys, one of which must have signed an output.
    pub public_keys: Vec<String>,
    /// Names of keys that all must have signed an output.
    pub required_keys: Vec<String>,
    /// How many keys must have signed an output.
    pub signatures: usize,
    /// What comes first, the lower; where it is absent, the substituter says.
    pub priority: Option<u32>,
    /// Whether to take nothing that runs here or was made by something that ran.
    pub libraries_only: bool,
    /// Whether to take only what comes with provenance.
    pub require_provenance: bool,
    /// Whether to ask for path packages as well.
    pub members: bool,
    /// What to show to be let in.
    pub token: Option<Token>,
    /// Certificates, in PEM, by which the server's may be signed besides those
    /// that the system trusts.
    pub ca: Option<PathBuf>,
    /// How long to wait for a connection, for an answer, and without bytes.
    pub timeout: Duration,
    /// The server of a bucket, where it is none of the usual ones.
    pub endpoint: Option<String>,
    /// The API of a GitHub Enterprise server.
    pub api: Option<String>,
}

/// How long a substituter may be silent.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A secret that never appears in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Table {
    url: String,
    #[serde(default)]
    public_keys: Vec<String>,
    #[serde(default)]
    required_keys: Vec<String>,
    signatures: Option<usize>,
    priority: Option<u32>,
    #[serde(default)]
    libraries_only: bool,
    #[serde(default)]
    require_provenance: bool,
    #[serde(default)]
    members: bool,
    token: Option<String>,
    token_variable: Option<String>,
    ca: Option<PathBuf>,
    timeout: Option<String>,
    endpoint: Option<String>,
    api: Option<String>,
}

impl SubstituterSettings {
    /// One with nothing but a place and keys.
    pub fn new(url: impl Into<String>, base: &Path, public_keys: Vec<String>) -> Self {
        Self {
            url: url.into(),
            base: base.to_owned(),
            public_keys,
            required_keys: Vec::new(),
            signatures: 1,
            priority: None,
            libraries_only: false,
            require_provenance: false,
            members: false,
            token: None,
            ca: None,
            timeout: TIMEOUT,
            endpoint: None,
            api: None,
        }
    }

    /// The settings in a table of the file at `path`.
    pub(super) fn read(
        table: Table,
        path: &Path,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let signatures = table.signatures.unwrap_or(1);
        let refuse = |key: &'static str, value: String| ConfigError::Substituter {
            path: path.to_owned(),
            key,
            value,
        };
        if table.url.is_empty() {
            return Err(refuse("url", table.url));
        }
        if signatures == 0 {
            return Err(refuse("signatures", signatures.to_string()));
        }
        let names: Vec<&str> = table
            .public_keys
            .iter()
            .filter_map(|key| key.split(':').next())
            .collect();
        let unknown = table
            .required_keys
            .iter()
            .find(|key| !names.contains(&key.as_str()));
        if let Some(key) = unknown {
            return Err(refuse("required-keys", key.clone()));
        }
        let timeout = match &table.timeout {
            None => TIMEOUT,
            Some(text) => match parse_age(text).filter(|seconds| *seconds > 0) {
                Some(seconds) => Duration::from_secs(seconds),
                None => return Err(refuse("timeout", text.clone())),
            },
        };
        let variable = table.token_variable.as_deref();
        let of_variable = variable.and_then(|name| environment.get(name));
        let base = path.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self {
            url: table.url,
            ca: table.ca.map(|ca| base.join(ca)),
            base,
            public_keys: table.public_keys,
            required_keys: table.required_keys,
            signatures,
            priority: table.priority,
            libraries_only: table.libraries_only,
            require_provenance: table.require_provenance,
            members: table.members,
            token: table
                .token
                .or(of_variable.map(str::to_owned))
                .map(Token::new),
            timeout,
            endpoint: table.endpoint,
            api: table.api,
        })
    }
}

/// The first one that asks for more signatures than there are trusted keys, at
/// all substituters together: nothing of it could ever be used.
pub(super) fn unreachable(all: &[SubstituterSettings]) -> Option<&SubstituterSettings> {
    let keys = all.iter().flat_map(|settings| &settings.public_keys);
    let names: BTreeSet<&str> = keys.filter_map(|key| key.split(':').next()).collect();
    all.iter()
        .find(|settings| settings.signatures > names.len().max(1))
}

/// The substituters of these places: each with its settings if it has any,
/// and otherwise with what [`PUBLIC_KEYS`] and [`MEMBERS`] say.
pub(super) fn given(
    urls: &[&str],
    configured: &[SubstituterSettings],
    environment: &Environment,
    folder: &Path,
) -> Vec<SubstituterSettings> {
    let keys = environment.get(PUBLIC_KEYS).unwrap_or_default();
    let keys: Vec<String> = keys.split_whitespace().map(str::to_owned).collect();
    let members = environment.get(MEMBERS) == Some("true");
    let settings = urls.iter().map(|url| {
        let known = configured.iter().find(|settings| settings.url == *url);
        let known = known.cloned();
        known.unwrap_or_else(|| SubstituterSettings {
            members,
            ..SubstituterSettings::new(*url, folder, keys.clone())
        })
    });
    settings.collect()
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use crate::fs;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::new(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())))
    }

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        fs::write(&path, text.as_bytes()).unwrap();
        let path = path.to_string_lossy().into_owned();
        let mut all = vec![("QUICKBUILD_CONFIG", path.as_str())];
        all.extend(variables);
        Config::load(&environment(&all), folder.path())
    }

    const ONE: &str = r#"
        [[substituters]]
        url = "https://cache.example.org"
        public-keys = ["a-1:AAAA", "b-1:AAAA"]
        required-keys = ["a-1"]
        signatures = 2
        priority = 10
        libraries-only = true
        token-variable = "CACHE_TOKEN"
    "#;

    #[test]
    fn settings_are_read_and_the_variable_goes_first() {
        let config = load(ONE, &[("CACHE_TOKEN", "secret")]).unwrap();
        let one = &config.substituters[0];
        assert_eq!(one.priority, Some(10));
        assert_eq!((one.signatures, one.libraries_only), (2, true));
        assert_eq!(one.token, Some(Token::new("secret")));
        assert!(!format!("{one:?}").contains("secret"));

        let urls = "https://cache.example.org  ./near";
        let variables = [(SUBSTITUTERS, urls), (PUBLIC_KEYS, "c-1:BBBB")];
        let config = load(ONE, &variables).unwrap();
        let found: Vec<_> = config
            .substituters
            .iter()
            .map(|s| (s.url.as_str(), s.public_keys.len()))
            .collect();
        assert_eq!(found, [("https://cache.example.org", 2), ("./near", 1)]);
        // What a file says of one stays.
        let asked = load(ONE, &[&variables[..], &[(MEMBERS, "true")]].concat()).unwrap();
        let asked: Vec<bool> = asked.substituters.iter().map(|s| s.members).collect();
        assert_eq!(asked, [false, true]);
        assert!(!config.substituters[1].members);
        assert!(
            load(ONE, &[(SUBSTITUTERS, "")])
                .unwrap()
                .substituters
                .is_empty()
        );
    }

    #[test]
    fn mistakes_are_named() {
        let second = "[[substituters]]\nurl = \"b\"\npublic-keys = [\"c-1:BBBB\"]";
        let three = ONE.replace("signatures = 2", "signatures = 3");
        assert!(load(&format!("{three}{second}"), &[]).is_ok());
        for (from, to) in [
            ("signatures = 2", "signatures = 0"),
            ("signatures = 2", "signatures = 3"),
            ("required-keys = [\"a-1\"]", "required-keys = [\"c-1\"]"),
            ("https://cache.example.org", ""),
        ] {
            let error = load(&ONE.replace(from, to), &[]);
            assert!(
                matches!(error, Err(ConfigError::Substituter { .. })),
                "{to}"
            );
        }
        let error = load(&ONE.replace("priority", "prioritaet"), &[]);
        assert!(matches!(error, Err(ConfigError::Syntax { .. })));
    }
}
