//! Keys and signatures: build, sign, verify, and everything that voids one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Outcome, Project, TestEnv, edit, walk};

/// The name under which it was signed.
const KEY: &str = "test.example.org-1";

/// A store that has `tiny` in it, and a key.
struct Signed {
    env: TestEnv,
    project: Project,
    /// As `key generate` printed it.
    public: String,
}

impl Signed {
    fn new() -> Self {
        let env = TestEnv::new();
        let project = env.project("tiny");
        let _ = env.quickbuild(&project, &["build"]).success();
        let generated = env.quickbuild(&project, &["key", "generate", KEY]);
        let public = generated.success().stdout.trim_end().to_owned();
        Self {
            env,
            project,
            public,
        }
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.env.quickbuild(&self.project, arguments)
    }

    fn key_file(&self) -> PathBuf {
        let keys = self.env.root().join("home/.config/quickbuild/keys");
        keys.join(format!("{KEY}.secret"))
    }

    /// Paths of the store with a name such as this.
    fn paths(&self, package: &str) -> Vec<PathBuf> {
        let paths = fs::read_dir(self.env.store().join("paths")).unwrap();
        let paths = paths.map(|entry| entry.unwrap().path());
        let part = format!("-{package}-");
        let found = paths.filter(|path| path.to_str().unwrap().contains(&part));
        found.collect()
    }

    /// The end of `key verify` with this key, and its report.
    fn verify(&self, outputs: &[&str]) -> (Option<i32>, Value) {
        let mut arguments = vec!["key", "verify", "--format", "json", "--key", &self.public];
        arguments.extend(outputs);
        let outcome = self.run(&arguments);
        let report = serde_json::from_str(&outcome.stdout);
        let report = report.unwrap_or_else(|error| panic!("{error}: {outcome}"));
        (outcome.code, report)
    }
}

#[test]
fn what_is_signed_verifies_also_after_a_journey() {
    let signed = Signed::new();
    assert_eq!(signed.verify(&["--all"]).0, Some(1));
    let _ = signed.run(&["key", "sign", KEY, "--all"]).success();
    let (code, report) = signed.verify(&["--all"]);
    assert_eq!(code, Some(0), "{report}");
    let reports = report.as_array().unwrap();
    assert!(reports.len() > 3, "{report}");
    assert!(
        reports
            .iter()
            .all(|report| report["valid"] == serde_json::json!([KEY])),
        "{report}"
    );
    // By package, by store name and by how an id begins; with the own keys.
    let path = signed.paths("leaf").remove(0);
    let name = path.file_name().unwrap().to_str().unwrap();
    for output in ["leaf", name, &name[..20]] {
        let _ = signed.run(&["key", "verify", output]).success();
    }
    // What was signed is linked as ever.
    let second = signed.env.checkout(&signed.project);
    let _ = signed.env.quickbuild(&second, &["build"]).nothing_built();
    signed.env.assert_fresh(&second, &["build"]);
    let _ = signed.run(&["store", "verify"]).success();

    let archive = signed.env.root().join("archive");
    let archive = archive.to_str().unwrap();
    let _ = signed.run(&["store", "export", archive]).success();
    let elsewhere = signed.env.with_store(&signed.env.root().join("elsewhere"));
    let run = |arguments: &[&str]| elsewhere.quickbuild(&signed.project, arguments);
    let _ = run(&["store", "import", archive]).success();
    let _ = run(&["key", "verify", "--key", &signed.public, "--all"]).success();
    let _ = run(&["store", "verify"]).success();
    let third = elsewhere.checkout(&signed.project);
    let _ = elsewhere.quickbuild(&third, &["build"]).nothing_built();
}

#[test]
fn a_closure_is_signed_with_what_needs_it() {
    let signed = Signed::new();
    let outcome = signed.run(&["key", "sign", KEY, "leaf", "--format", "json"]);
    let report: Value = serde_json::from_str(&outcome.success().stdout).unwrap();
    assert_eq!(report["key"], signed.public.as_str());
    let names = report["outputs"].as_array().unwrap();
    let in_store = fs::read_dir(signed.env.store().join("paths")).unwrap();
    assert!(names.len() < in_store.count(), "{report}");
    assert_eq!(signed.verify(&["leaf"]).0, Some(0));
    assert_eq!(signed.verify(&["--all"]).0, Some(1));
}

#[test]
fn a_changed_manifest_or_signature_is_found() {
    let signed = Signed::new();
    let _ = signed.run(&["key", "sign", KEY, "--all"]).success();
    let leaf = signed.paths("leaf").remove(0);
    let manifest = leaf.join("manifest.json");
    let before = fs::read_to_string(&manifest).unwrap();
    edit(
        &manifest,
        "\"timed\":",
        "\"mentions-clippy\":true,\"timed\":",
    );
    let (code, report) = signed.verify(&["--all"]);
    assert_eq!(code, Some(1));
    // It, and what was compiled against it.
    let reports = report.as_array().unwrap().iter();
    let invalid: Vec<&str> = reports
        .filter(|report| report["invalid"] == serde_json::json!([KEY]))
        .map(|report| report["output"].as_str().unwrap())
        .collect();
    assert!(invalid.iter().any(|name| name.contains("-leaf-")));
    assert!(invalid.iter().any(|name| name.contains("-tiny-")));
    fs::write(&manifest, before).unwrap();
    assert_eq!(signed.verify(&["--all"]).0, Some(0));

    let signatures = leaf.join("signatures");
    fs::write(&signatures, "nonsense\n").unwrap();
    assert_eq!(signed.verify(&["--all"]).0, Some(1));
    let verify = signed.run(&["store", "verify"]);
    assert_eq!(verify.code, Some(1), "{verify}");
    assert!(verify.stdout.contains("its `signatures` is malformed"));
    let _ = signed.run(&["store", "repair"]).success();
    assert!(!signatures.exists());
    assert!(manifest.exists());
    let _ = signed.run(&["key", "sign", KEY, "leaf"]).success();
    assert_eq!(signed.verify(&["--all"]).0, Some(0));
}

#[test]
fn what_is_damaged_is_not_signed() {
    let signed = Signed::new();
    for path in signed.paths("leaf") {
        for file in walk(&path.join("files")) {
            fs::write(file, "evil").unwrap();
        }
    }
    let outcome = signed.run(&["key", "sign", KEY, "--all"]);
    assert_eq!(outcome.code, Some(3), "{outcome}");
    assert!(outcome.stderr.contains("cannot sign"), "{outcome}");
    assert!(outcome.stderr.contains("store repair"), "{outcome}");
    let (code, report) = signed.verify(&["--all"]);
    assert_eq!(code, Some(1));
    let reports = report.as_array().unwrap();
    assert!(
        reports
            .iter()
            .all(|report| report["valid"] == serde_json::json!([]))
    );
}

#[test]
fn a_key_file_is_its_owners_alone() {
    let signed = Signed::new();
    let file = signed.key_file();
    let mode = |mode| {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(&file, permissions).unwrap();
    };
    let found = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(found & 0o777, 0o600);
    let shown = signed.run(&["key", "show", KEY]).success();
    assert_eq!(shown.stdout.trim_end(), signed.public);
    let path = file.to_str().unwrap().to_owned();
    let shown = signed.run(&["key", "show", &path]).success();
    assert_eq!(shown.stdout.trim_end(), signed.public);
    let secret = fs::read_to_string(&file).unwrap();
    let secret = secret.trim_end().split(':').nth(1).unwrap().to_owned();

    for open in [0o640, 0o604, 0o660] {
        mode(open);
        for command in [
            &["key", "show", KEY][..],
            &["key", "sign", KEY, "--all"],
            &["key", "verify", "--all"],
        ] {
            let outcome = signed.run(command);
            assert_eq!(outcome.code, Some(3), "{outcome}");
            assert!(outcome.stderr.contains("others have access"), "{outcome}");
            let hint = format!("chmod 600 {path}");
            assert!(outcome.stderr.contains(&hint), "{outcome}");
            assert!(!outcome.stderr.contains(&secret), "{outcome}");
        }
    }
    mode(0o600);

    // Nothing replaces a key.
    let again = signed.run(&["key", "generate", KEY]);
    assert_eq!(again.code, Some(3), "{again}");
    let to = signed.run(&["key", "generate", "other", "--to", &path]);
    assert_eq!(to.code, Some(3), "{to}");
    let shown = signed.run(&["key", "show", KEY]).success();
    assert_eq!(shown.stdout.trim_end(), signed.public);
    // A file of a name of one's own.
    let to = signed.run(&["key", "generate", "other", "--to", "other.key"]);
    let public = to.success().stdout;
    assert!(public.starts_with("other:"), "{public}");
    let shown = signed.run(&["key", "show", "./other.key"]).success();
    assert_eq!(shown.stdout, public);
}

#[test]
fn mistakes_are_named() {
    let signed = Signed::new();
    let fails = |arguments: &[&str], code: i32, message: &str| {
        let outcome = signed.run(arguments);
        assert_eq!(outcome.code, Some(code), "{outcome}");
        assert!(outcome.stderr.contains(message), "{outcome}");
    };
    fails(&["key", "generate", "a:b"], 3, "is not a name of a key");
    fails(&["key", "show", "absent"], 3, "key generate");
    fails(&["key", "sign", KEY], 2, "--all");
    fails(&["key", "sign", KEY, "leaf", "--all"], 2, "--all");
    fails(&["key", "verify"], 2, "--all");
    fails(&["key", "sign", KEY, "absent"], 3, "no output is called");
    fails(
        &["key", "verify", "--key", "a:b", "--all"],
        3,
        "the public key of `a`",
    );
    fs::remove_file(signed.key_file()).unwrap();
    fails(&["key", "verify", "--all"], 3, "--key NAME:BASE64");
}

/// The end at each change that signing makes: what is signed then is signed
/// right, and nothing of the rest lies about.
#[test]
fn a_killed_or_failed_signing_leaves_whole_signatures() {
    let signed = Signed::new();
    let signatures = |signed: &Signed| -> Vec<PathBuf> {
        let files = walk(&signed.env.store().join("paths")).into_iter();
        files.filter(|file| file.ends_with("signatures")).collect()
    };
    for kind in ["kill", "fail"] {
        let mut n = 1;
        loop {
            signatures(&signed)
                .iter()
                .for_each(|file| fs::remove_file(file).unwrap());
            let faulty = signed.env.with("QUICKBUILD_FAULT", format!("{kind}@{n}"));
            let outcome = faulty.quickbuild(&signed.project, &["key", "sign", KEY, "--all"]);
            let _ = signed.run(&["store", "verify"]).success();
            let (code, report) = signed.verify(&["--all"]);
            let reports = report.as_array().unwrap();
            let valid = reports.iter().filter(|report| report["valid"][0] == KEY);
            assert_eq!(valid.count(), signatures(&signed).len(), "{kind}@{n}");
            if outcome.code == Some(0) {
                assert_eq!(code, Some(0), "{report}");
                break;
            }
            n += 1;
        }
        assert!(n > 5, "there was nothing to fail at");
    }
    // A key is there whole or not at all.
    for kind in ["kill", "fail"] {
        let mut n = 1;
        loop {
            let name = format!("{kind}-{n}");
            let faulty = signed.env.with("QUICKBUILD_FAULT", format!("{kind}@{n}"));
            let outcome = faulty.quickbuild(&signed.project, &["key", "generate", &name]);
            let shown = signed.run(&["key", "show", &name]);
            assert_eq!(shown.code == Some(0), outcome.code == Some(0), "{shown}");
            if outcome.code == Some(0) {
                break;
            }
            n += 1;
        }
    }
}

#[test]
fn two_that_sign_at_once_lose_nothing() {
    let signed = Signed::new();
    let keys: Vec<String> = (0..4).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        let _ = signed.run(&["key", "generate", key]).success();
    }
    let signing = keys.iter().map(|key| {
        let arguments = ["key", "sign", key, "--all"];
        signed.env.spawn_quickbuild(&signed.project, &arguments)
    });
    let signing: Vec<_> = signing.collect();
    for child in signing {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    let verify = ["key", "verify", "--all", "--format", "json"];
    let outcome = signed.run(&verify).success();
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    for report in report.as_array().unwrap() {
        assert_eq!(report["valid"], serde_json::json!(keys), "{report}");
    }
}
