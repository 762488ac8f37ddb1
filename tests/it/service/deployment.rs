//! `deploy/`: units, images and manifests, as far as one machine can tell.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::Bed;
use crate::support::{builder_image, skipped};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// The documents of a YAML file; `None` after a skip has been noted.
fn documents(name: &str) -> Option<Vec<Value>> {
    let python = std::env::var("QUICKBUILD_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let read = "import json, sys, yaml\n\
        print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let output = Command::new(&python)
        .args(["-c", read])
        .arg(path(name))
        .output();
    let has = Command::new(&python).args(["-c", "import yaml"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        skipped("openapi", "no Python with PyYAML");
        return None;
    }
    let output = output.unwrap();
    assert!(output.status.success(), "{name}: {output:?}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn strings(value: &Value) -> Vec<&str> {
    let values = value.as_array().map(Vec::as_slice).unwrap_or_default();
    values.iter().map(|value| value.as_str().unwrap()).collect()
}

/// Sees that the program takes these words after `service`.
#[track_caller]
fn assert_taken(words: &[&str]) {
    let bed = Bed::sqlite();
    let all = [&["service"], words, &["--help"]].concat();
    let shown = bed.run(&all).success();
    assert!(shown.stdout.contains("Usage:"), "{shown}");
    let wrong = [&["service"], words, &["--no-such-option", "--help"]].concat();
    assert_ne!(bed.run(&wrong).code, Some(0), "any option is taken");
}

#[test]
fn the_unit_is_valid_and_gives_away_little() {
    let unit = text("systemd/quickbuild-service.service");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let (program, words) = start.unwrap().split_once(" service ").unwrap();
    assert_taken(&words.split(' ').collect::<Vec<_>>());
    let version = Command::new("systemd-analyze").arg("--version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        skipped("systemd", "systemd-analyze is not installed");
        return;
    }
    let bed = Bed::sqlite();
    let file = bed.env.root().join("quickbuild-service.service");
    let check = |unit: &str, words: &[&str]| {
        fs::write(
            &file,
            unit.replace(program, env!("CARGO_BIN_EXE_quickbuild")),
        )
        .unwrap();
        let mut command = Command::new("systemd-analyze");
        let output = command.args(words).arg(&file).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let (is_valid, said) = check(&unit, &["verify"]);
    assert!(is_valid && said.is_empty(), "{said}");
    // Of 100; a unit without any of it has 96.
    let exposed = ["security", "--offline=true", "--threshold=15", "--no-pager"];
    let (is_hard, said) = check(&unit, &exposed);
    assert!(is_hard, "{said}");
    let soft = unit.lines().filter(|line| !line.contains("=yes"));
    let soft: Vec<&str> = soft.collect();
    assert!(!check(&soft.join("\n"), &exposed).0, "any unit is hard");
    let (_, said) = check(
        &unit.replace("[Service]", "[Service]\nNoSuchKey=1"),
        &["verify"],
    );
    assert!(said.contains("NoSuchKey"), "any unit is valid: {said}");
}

#[test]
fn compose_names_what_there_is() {
    let Some(documents) = documents("docker/compose.yaml") else {
        return;
    };
    let compose = &documents[0];
    let services = compose["services"].as_object().unwrap();
    for (name, service) in services {
        assert!(service["image"].is_string(), "{name}");
        let after = match &service["depends_on"] {
            Value::Object(all) => all.keys().map(String::as_str).collect(),
            list => strings(list),
        };
        for other in after {
            assert!(services.contains_key(other), "{name} waits for {other}");
        }
        for volume in strings(&service["volumes"]) {
            let volume = volume.split(':').next().unwrap();
            assert!(compose["volumes"].get(volume).is_some(), "{volume}");
        }
        let networks: Vec<&str> = match &service["networks"] {
            Value::Object(all) => all.keys().map(String::as_str).collect(),
            list => strings(list),
        };
        assert!(!networks.is_empty(), "{name}");
        for network in networks {
            assert!(compose["networks"].get(network).is_some(), "{network}");
        }
    }
    for name in ["service", "migrate"] {
        // An image that is only named would be asked of a registry.
        let build = &services[name]["build"];
        let dockerfile = build["dockerfile"].as_str().unwrap();
        assert!(dockerfile.ends_with("deploy/docker/Dockerfile"), "{name}");
        assert_eq!(build["context"], "../../target/release");
        assert_taken(&strings(&services[name]["command"]));
        let url = services[name]["environment"]["QUICKBUILD_SERVICE_DATABASE"].as_str();
        assert!(url.unwrap().contains("@database/quickbuild"), "{url:?}");
    }
    // The proxy that is believed is the one that asks.
    let command = strings(&services["service"]["command"]);
    let believed = command.iter().skip_while(|word| **word != "--proxy").nth(1);
    let own = services["proxy"]["networks"]["outside"]["ipv4_address"].as_str();
    assert_eq!(believed.copied(), own);
    // No other container can have got it before.
    let outside = &compose["networks"]["outside"]["ipam"]["config"][0];
    assert_eq!(outside["ip_range"], "172.28.90.128/25");
    assert_eq!(own, Some("172.28.90.2"));
}

#[test]
fn the_image_serves_as_an_ordinary_user() {
    let Some(image) = builder_image() else {
        return;
    };
    let Some(documents) = documents("docker/compose.yaml") else {
        return;
    };
    let bed = Bed::sqlite();
    let context = bed.env.root().join("context");
    fs::create_dir(&context).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_quickbuild"), context.join("quickbuild")).unwrap();
    let docker = |arguments: &[&str]| {
        let output = Command::new("docker").args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        said
    };
    // Not by its digest, which an engine would ask a registry for.
    let base = format!("BASE={}", image.split('@').next().unwrap());
    let tag = format!("quickbuild-service-test-{}", std::process::id());
    let dockerfile = path("docker/Dockerfile");
    let (dockerfile, folder) = (dockerfile.to_str().unwrap(), context.to_str().unwrap());
    docker(&[
        "build",
        "--quiet",
        "--network",
        "none",
        "--build-arg",
        &base,
        "--tag",
        &tag,
        "--file",
        dockerfile,
        folder,
    ]);
    let id = docker(&[
        "run",
        "--detach",
        "--network",
        "none",
        "--read-only",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        &tag,
    ]);
    // The check of the compose file is what tells.
    let check = strings(&documents[0]["services"]["service"]["healthcheck"]["test"]);
    let script = check.last().unwrap().replace("$$", "$");
    let is_ready = || {
        let mut command = Command::new("docker");
        command.args(["exec", &id, "bash", "-c", &script]);
        command.output().unwrap().status.success()
    };
    let ready = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        is_ready()
    });
    let user = docker(&["exec", &id, "cat", "/proc/1/status"]);
    docker(&["stop", &id]);
    let code = docker(&["inspect", "--format", "{{.State.ExitCode}}", &id]);
    docker(&["rm", "--volumes", &id]);
    docker(&["rmi", &tag]);
    assert!(ready, "it was never ready");
    assert!(user.contains("Uid:\t10001\t10001"), "{user}");
    assert_eq!(code, "0");
}

#[test]
fn manifests_name_what_there_is() {
    let mut all = Vec::new();
    for name in ["secret", "migrate", "service"] {
        let Some(documents) = documents(&format!("kubernetes/{name}.yaml")) else {
            return;
        };
        all.extend(documents);
    }
    let of_kind = |kind: &'static str| all.iter().filter(move |one| one["kind"] == kind);
    let mut names = BTreeSet::new();
    for one in &all {
        let version = match one["kind"].as_str().unwrap() {
            "Deployment" => "apps/v1",
            "Job" => "batch/v1",
            "Service" | "Secret" => "v1",
            other => panic!("{other}"),
        };
        assert_eq!(one["apiVersion"], version);
        let name = one["metadata"]["name"].as_str().unwrap();
        assert!(
            names.insert((one["kind"].to_string(), name)),
            "{name} twice"
        );
    }
    let secret = |name: &Value| of_kind("Secret").find(|one| one["metadata"]["name"] == *name);
    for workload in of_kind("Deployment").chain(of_kind("Job")) {
        let template = &workload["spec"]["template"];
        let pod = &template["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["automountServiceAccountToken"], false);
        let volumes = pod["volumes"].as_array().unwrap();
        for container in pod["containers"].as_array().unwrap() {
            assert!(container["image"].is_string());
            assert_taken(&strings(&container["args"]));
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["readOnlyRootFilesystem"], true);
            for variable in container["env"].as_array().unwrap() {
                let from = &variable["valueFrom"]["secretKeyRef"];
                let key = from["key"].as_str().unwrap();
                let found = secret(&from["name"]).unwrap();
                assert!(found["stringData"][key].is_string(), "{key}");
            }
            for mount in container["volumeMounts"].as_array().unwrap() {
                let named = volumes.iter().find(|one| one["name"] == mount["name"]);
                assert!(named.is_some(), "{mount}");
            }
        }
        for volume in volumes.iter().filter(|one| one["secret"].is_object()) {
            assert!(
                secret(&volume["secret"]["secretName"]).is_some(),
                "{volume}"
            );
        }
    }
    let deployment = of_kind("Deployment").next().unwrap();
    let (service, pod) = (
        of_kind("Service").next().unwrap(),
        &deployment["spec"]["template"],
    );
    let labels = &pod["metadata"]["labels"];
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], *labels);
    assert_eq!(service["spec"]["selector"], *labels);
    let job = of_kind("Job").next().unwrap();
    assert_ne!(
        job["spec"]["template"]["metadata"]["labels"], *labels,
        "it is no server"
    );
    let container = &pod["spec"]["containers"][0];
    let port = &service["spec"]["ports"][0]["targetPort"];
    assert_eq!(container["ports"][0]["name"], *port);
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        let asked = &container[probe]["httpGet"];
        assert_eq!((&asked["path"], &asked["port"]), (&path.into(), port));
    }
    // Requests under way are answered before the end.
    let grace = strings(&container["args"]).into_iter();
    let mut grace = grace.filter_map(|word| word.strip_prefix("--grace="));
    let grace: u64 = grace
        .next_back()
        .unwrap()
        .trim_end_matches('s')
        .parse()
        .unwrap();
    let given = pod["spec"]["terminationGracePeriodSeconds"]
        .as_u64()
        .unwrap();
    assert!(given > grace, "{given} {grace}");
}
