//! Substituters are asked before a builder starts.

use std::fs;

use super::{assert_nothing_left, with_builder};
use crate::support::{TestEnv, walk};

/// What builders have said.
fn log(env: &TestEnv) -> String {
    let files = walk(&env.store().join("logs"));
    let texts = files.iter().map(|path| fs::read_to_string(path).unwrap());
    texts.collect()
}

/// What one realisation made and published, another one fetches, and no builder
/// starts.
#[test]
fn what_substituters_have_is_not_built_again() {
    let Some(env) = with_builder() else { return };
    let project = env.project("tiny");
    let realise = ["realise", "--builder", "docker", "--format", "json"];
    let first = env.quickbuild(&project, &realise).success();
    let report: serde_json::Value = serde_json::from_str(&first.stdout).unwrap();
    assert!(!report["added"].as_array().unwrap().is_empty(), "{first}");
    let generate = env.quickbuild(&project, &["key", "generate", "test-1"]);
    let key = generate.success().stdout.trim_end().to_owned();
    let sign = ["key", "sign", "test-1", "--all"];
    let _ = env.quickbuild(&project, &sign).success();
    let cache = env.root().join("cache");
    let push = ["push", cache.to_str().unwrap(), "--all"];
    let _ = env.quickbuild(&project, &push).success();

    let config = env.root().join("quickbuild.toml");
    let text = fs::read_to_string(&config).unwrap();
    let table = format!(
        "{text}\n[[substituters]]\nurl = \"{}\"\npublic-keys = [\"{key}\"]\n",
        cache.display()
    );
    fs::write(&config, table).unwrap();
    let client = env.with_store(&env.root().join("client"));
    let second = client.quickbuild(&project, &realise).success();
    let report: serde_json::Value = serde_json::from_str(&second.stdout).unwrap();
    assert_eq!(report["added"], serde_json::json!([]), "{second}");
    assert_eq!(report["fetched"], report["valid"], "{second}");
    // A builder would have left a log.
    assert!(!client.store().join("logs").exists(), "{second}");
    let again = client.quickbuild(&project, &realise[..3]).success();
    assert!(again.stdout.contains("nothing to do"), "{again}");
    for command in ["build", "check"] {
        let warm = client.quickbuild(&project, &[command]).success();
        assert!(!warm.stderr.contains("Compiling fnv"), "{warm}");
        assert!(!warm.stderr.contains("Checking fnv"), "{warm}");
    }
    assert_nothing_left(&client);

    // Without substituters the same is built.
    let alone = env.with_store(&env.root().join("alone"));
    let alone = alone.with("QUICKBUILD_SUBSTITUTERS", "");
    let built = alone.quickbuild(&project, &realise).success();
    let report: serde_json::Value = serde_json::from_str(&built.stdout).unwrap();
    assert!(!report["added"].as_array().unwrap().is_empty(), "{built}");
    assert!(log(&alone).contains("Compiling fnv"), "{built}");
}
