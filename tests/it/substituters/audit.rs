//! `quickbuild audit`: where outputs came from, and who vouches for them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::Published;
use crate::support::{Outcome, skipped};

fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
}

/// Values that all outputs of a report have in a field.
fn all(report: &Value, pointer: &str) -> BTreeSet<String> {
    let outputs = report["outputs"].as_array().unwrap();
    assert!(outputs.len() > 3, "{report}");
    let values = outputs.iter().map(|output| output.pointer(pointer));
    values
        .map(|value| value.map_or_else(String::new, ToString::to_string))
        .collect()
}

fn one(text: &str) -> BTreeSet<String> {
    BTreeSet::from([text.to_owned()])
}

#[test]
fn each_output_says_where_it_came_from() {
    let published = Published::new();
    // Where they were made, with the user's own key.
    let made = published.run(&["audit", "--format", "json"]).success();
    let report = json(&made);
    assert_eq!(all(&report, "/source/kind"), one("\"compiled\""));
    assert_eq!(
        all(&report, "/valid/0"),
        one(&format!("\"{}\"", super::KEY))
    );
    assert_eq!(all(&report, "/linked"), one("true"));
    assert_eq!(report["unvouched"], Value::Array(Vec::new()));

    // Where they were fetched.
    let client = published.folder_client();
    client.assert_all_fetched();
    let audited = client.run(&["audit", "--format=json"]).success();
    let report = json(&audited);
    assert_eq!(all(&report, "/source/kind"), one("\"substituter\""));
    let place = format!("\"{}\"", published.cache.display());
    assert_eq!(all(&report, "/source/place"), one(&place));
    assert_eq!(
        all(&report, "/valid/0"),
        one(&format!("\"{}\"", super::KEY))
    );
    assert_eq!(all(&report, "/linked"), one("true"));
    let text = client.run(&["audit"]).success();
    assert!(
        text.stdout.contains(&format!("signed with {}", super::KEY)),
        "{text}"
    );
    assert!(text.stdout.contains("0 units are left to Cargo"), "{text}");

    // Another checkout has linked nothing, and something is to be compiled.
    let other = client.env.checkout(&client.project);
    crate::support::edit(&other.path("leaf/src/lib.rs"), "\"leaf\"", "\"fael\"");
    let report = json(
        &client
            .env
            .quickbuild(&other, &["audit", "--format", "json"])
            .success(),
    );
    assert_eq!(all(&report, "/linked"), one("false"));
    let left = report["left"].as_array().unwrap();
    let left: Vec<&str> = left.iter().map(|unit| unit.as_str().unwrap()).collect();
    assert_eq!(left, ["leaf 0.1.0 (lib)", "tiny 0.1.0 (bin)"]);

    // Nobody who is trusted has signed it.
    let other_key = published
        .run(&["key", "generate", "other-1"])
        .success()
        .stdout;
    let unvouched = client.run(&["audit", "--key", other_key.trim(), "--format", "json"]);
    assert_eq!(unvouched.code, Some(1), "{unvouched}");
    let report = json(&unvouched);
    let outputs = report["outputs"].as_array().unwrap().len();
    assert_eq!(report["unvouched"].as_array().unwrap().len(), outputs);
    assert_eq!(
        all(&report, "/unknown/0"),
        one(&format!("\"{}\"", super::KEY))
    );
    let text = client.run(&["audit", "--key", other_key.trim()]);
    assert!(
        text.stdout.contains("Nobody who is trusted here vouches"),
        "{text}"
    );
    let bill = ["audit", "--key", other_key.trim(), "--format", "cyclonedx"];
    let bill = client.run(&bill).success();
    assert!(
        bill.stdout.contains("quickbuild:signature-unknown"),
        "{bill}"
    );

    // Through an archive the origin is the archive.
    let file = published.env.root().join("a.tar.zst");
    let file = file.to_str().unwrap();
    let _ = published.run(&["store", "export", file, "tiny"]).success();
    let importer = published.client_with("/nowhere", "");
    let _ = importer.run(&["store", "import", file]).success();
    let report = json(&importer.run(&["audit", "--format", "json"]).success());
    assert_eq!(all(&report, "/source/kind"), one("\"archive\""));
    assert_eq!(all(&report, "/source/place"), one(&format!("\"{file}\"")));
}

/// Every reference leads somewhere, and what is known of packages is there.
#[test]
fn a_bill_of_materials_has_packages_hashes_licences_and_edges() {
    let published = Published::new();
    let client = published.folder_client();
    client.assert_all_fetched();
    let dated = client.env.with("SOURCE_DATE_EPOCH", "1735689600");
    let made = dated.quickbuild(&client.project, &["audit", "--format", "cyclonedx"]);
    let bill = json(&made.clone().success());
    assert_eq!(bill["specVersion"], "1.6");
    assert_eq!(bill["metadata"]["timestamp"], "2025-01-01T00:00:00Z");
    assert_eq!(bill["metadata"]["component"]["name"], "tiny");
    assert_eq!(bill["metadata"]["component"]["type"], "application");
    let again = dated.quickbuild(&client.project, &["audit", "--format", "cyclonedx"]);
    assert_eq!(again.stdout, made.stdout);

    let components = bill["components"].as_array().unwrap();
    let component = |name: &str| {
        let mut found = components
            .iter()
            .filter(|component| component["name"] == name);
        found.next().unwrap_or_else(|| panic!("no {name}: {bill}"))
    };
    let fnv = component("fnv");
    let purl = fnv["purl"].as_str().unwrap();
    assert!(purl.starts_with("pkg:cargo/fnv@1."), "{purl}");
    let lock = fs::read_to_string(client.project.path("Cargo.lock")).unwrap();
    let sum = fnv["hashes"][0]["content"].as_str().unwrap();
    assert!(lock.contains(&format!("checksum = \"{sum}\"")), "{sum}");
    assert_eq!(fnv["licenses"][0]["expression"], "Apache-2.0 OR MIT");
    let properties = fnv["properties"].to_string();
    for part in ["quickbuild:output", "quickbuild:signed-by", "substituter /"] {
        assert!(properties.contains(part), "{part}: {properties}");
    }
    // A member is nobody's package on crates.io.
    assert_eq!(component("leaf")["purl"], Value::Null);

    let dependencies = bill["dependencies"].as_array().unwrap();
    let known: BTreeSet<&str> = components
        .iter()
        .chain([&bill["metadata"]["component"]])
        .map(|component| component["bom-ref"].as_str().unwrap())
        .collect();
    let mut edges = 0;
    for dependency in dependencies {
        assert!(known.contains(dependency["ref"].as_str().unwrap()));
        for on in dependency["dependsOn"].as_array().unwrap() {
            assert!(known.contains(on.as_str().unwrap()), "{on}");
            edges += 1;
        }
    }
    assert_eq!(dependencies.len(), known.len());
    assert!(edges >= 3, "{bill}");
}

/// Validates against the schema of the specification, of every kind of package.
#[test]
fn bills_are_valid_against_the_schema() {
    let python = std::env::var("QUICKBUILD_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let probe = "import cyclonedx.validation.json, jsonschema";
    let has_schema = Command::new(&python).args(["-c", probe]).output();
    if !has_schema.is_ok_and(|output| output.status.success()) {
        skipped(
            "cyclonedx",
            "no Python with cyclonedx-python-lib and jsonschema",
        );
        return;
    }
    let published = Published::new();
    let env = &published.env;
    for fixture in ["tiny", "crates", "workspace"] {
        let project = env.project(fixture);
        let _ = env.quickbuild(&project, &["build"]).success();
        let bill = env.quickbuild(&project, &["audit", "--format", "cyclonedx"]);
        let file = env.root().join(format!("{fixture}.json"));
        fs::write(&file, bill.success().stdout).unwrap();
        let validate = "import sys\n\
            from cyclonedx.schema import SchemaVersion\n\
            from cyclonedx.validation.json import JsonStrictValidator\n\
            validator = JsonStrictValidator(SchemaVersion.V1_6)\n\
            errors = validator.validate_str(open(sys.argv[1]).read())\n\
            sys.exit(str(errors) if errors else 0)\n";
        let mut command = Command::new(&python);
        let output = command.args(["-c", validate]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{fixture}: {said}");
    }
    // The validator is no rubber stamp.
    let wrong = env.root().join("wrong.json");
    fs::write(
        &wrong,
        "{\"bomFormat\": \"CycloneDX\", \"specVersion\": \"1.6\", \"x\": 1}",
    )
    .unwrap();
    let check = "import sys\n\
        from cyclonedx.schema import SchemaVersion\n\
        from cyclonedx.validation.json import JsonStrictValidator\n\
        text = open(sys.argv[1]).read()\n\
        sys.exit(0 if JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) else 1)\n";
    let mut command = Command::new(&python);
    let output = command.args(["-c", check]).arg(&wrong).output().unwrap();
    assert!(output.status.success(), "the validator takes anything");
}
