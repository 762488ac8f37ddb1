//! What is shown to a server to be let in: a bearer token, or what netrc has for
//! its host, or what `docker login` has kept for a registry.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::SubstituterSettings;
use crate::environment::Environment;
use crate::fs;

/// The `Authorization` header for a host, if there is anything to say.
pub(super) fn authorization(
    host: &str,
    settings: &SubstituterSettings,
    environment: &Environment,
) -> Option<String> {
    if let Some(token) = &settings.token {
        return Some(format!("Bearer {}", token.secret()));
    }
    let path = match environment.get("NETRC") {
        Some(path) => Path::new(path).to_owned(),
        None => Path::new(environment.get("HOME")?).join(".netrc"),
    };
    let text = fs::read_text(&path).ok()?;
    let (login, password) = find(&text, host)?;
    Some(format!(
        "Basic {}",
        STANDARD.encode(format!("{login}:{password}"))
    ))
}

/// The same for a registry, whose host may have a port: also what `docker login`
/// has kept, unless it is in another program's keeping.
pub(super) fn registry(
    host: &str,
    settings: &SubstituterSettings,
    environment: &Environment,
) -> Option<String> {
    let name = host.split(':').next().unwrap_or(host);
    authorization(name, settings, environment).or_else(|| {
        let folder = match environment.get("DOCKER_CONFIG") {
            Some(folder) => Path::new(folder).to_owned(),
            None => Path::new(environment.get("HOME")?).join(".docker"),
        };
        let text = fs::read_text(&folder.join("config.json")).ok()?;
        let config: serde_json::Value = serde_json::from_str(&text).ok()?;
        let secret = config.get("auths")?.get(host)?.get("auth")?.as_str()?;
        (!secret.is_empty()).then(|| format!("Basic {secret}"))
    })
}

/// Login and password of a host, or else the default ones. Macros end the
/// reading: their text is not ours to understand.
fn find(text: &str, host: &str) -> Option<(String, String)> {
    let mut words = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace);
    let mut is_meant = false;
    let (mut login, mut password) = (None, None);
    loop {
        let word = words.next();
        let ends = matches!(word, None | Some("machine" | "default" | "macdef"));
        if ends && is_meant && password.is_some() {
            break;
        }
        match word {
            None | Some("macdef") => break,
            Some("machine") => {
                is_meant = words.next() == Some(host);
                (login, password) = (None, None);
            }
            Some("default") => {
                is_meant = true;
                (login, password) = (None, None);
            }
            Some("login") => login = words.next(),
            Some("password") => password = words.next(),
            Some(_) => {}
        }
    }
    let password = password.filter(|_| is_meant)?;
    Some((login.unwrap_or_default().to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_or_the_default_is_found() {
        let text = "machine a.org login u password p\n# machine b.org\nmachine b.org\n\
            \tlogin v\n\tpassword q\ndefault login d password e\nmacdef init\n machine c.org\n";
        let found = |host| find(text, host).map(|(l, p)| format!("{l}:{p}"));
        assert_eq!(found("a.org").as_deref(), Some("u:p"));
        assert_eq!(found("b.org").as_deref(), Some("v:q"));
        assert_eq!(found("c.org").as_deref(), Some("d:e"));
        assert_eq!(find("machine a.org login u", "a.org"), None);
        assert_eq!(find("machine a.org password p", "b.org"), None);
        assert_eq!(find("", "a.org"), None);
    }
}
