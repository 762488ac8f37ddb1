//! `docs/openapi.json`: what it says is what there is, and all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::building::{Worker, beds, until, want, wanted, worker};
use super::{Bed, hashes, lock, on_both, report};
use crate::support::{Response, Serving, skipped, walk};

/// Paths and methods.
type Operations = BTreeSet<(String, String)>;

fn description() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn operations(description: &Value) -> Operations {
    let paths = description["paths"].as_object().unwrap().iter();
    let each = paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(move |method| (path.clone(), method.clone()))
    });
    each.collect()
}

/// The routes of the sources that are for programs: a router does not tell its own.
fn routes() -> Operations {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/service");
    let mut found = Operations::new();
    for file in walk(&folder) {
        let text = std::fs::read_to_string(file).unwrap();
        for route in text.split(".route(").skip(1) {
            let Some(rest) = route.trim_start().strip_prefix('"') else {
                continue; // a page's, named by a constant
            };
            let (path, rest) = rest.split_once('"').unwrap();
            let is_for_programs = ["/v1/", "/healthz", "/readyz", "/metrics"];
            let is_for_programs = is_for_programs.iter().any(|begin| path.starts_with(begin));
            if !is_for_programs {
                continue;
            }
            let handlers = rest.split("\n        .").next().unwrap();
            for method in ["get", "post", "put", "patch", "delete"] {
                if handlers.contains(&format!("{method}(")) {
                    found.insert((path.to_owned(), method.to_owned()));
                }
            }
        }
    }
    found
}

/// What is answered, for a validator: the schema's pointer and the value.
#[derive(Default)]
struct Answers {
    seen: BTreeMap<(String, String), BTreeSet<u16>>,
    values: Vec<Value>,
}

impl Answers {
    /// Holds an answer to what the description says of it.
    #[track_caller]
    fn hold(&mut self, description: &Value, path: &str, method: &str, answer: &Response) {
        let status = answer.status.to_string();
        let operation = &description["paths"][path][method];
        let said = &operation["responses"][&status];
        let said = match said["$ref"].as_str() {
            Some(to) => description.pointer(to.strip_prefix('#').unwrap()).unwrap(),
            None => said,
        };
        assert!(said.is_object(), "{method} {path}: {status} is not said");
        let key = (path.to_owned(), method.to_owned());
        self.seen.entry(key).or_default().insert(answer.status);
        if answer.status == 204 {
            assert!(said["content"].is_null() && answer.body.is_empty());
            return;
        }
        let kind = answer.header("content-type").unwrap();
        let kind = kind.split(';').next().unwrap();
        let content = &said["content"][kind];
        assert!(
            content.is_object(),
            "{method} {path}: {status} is no {kind}"
        );
        for header in said["headers"].as_object().unwrap().keys() {
            let name = header.to_ascii_lowercase();
            assert!(answer.header(&name).is_some(), "{path}: no {header}");
        }
        let value = if kind.ends_with("json") {
            answer.json()
        } else {
            json!(answer.text())
        };
        let schema = content["schema"].clone();
        self.values.push(
            json!({"what": format!("{method} {path} {status}"), "schema": schema, "value": value}),
        );
    }
}

/// Asks for everything that the description has, in each way that it can end
/// without breaking something.
fn ask(bed: &Bed, description: &Value) -> Answers {
    let worker = bed.token("w", "work");
    let server = bed.start(&["--max-report", "100kB", "--patience", "1s"]);
    let wanted = lock(&[("a", "1.0.0", "b"), ("b", "1.0.0", "")]);
    for client in ["192.0.2.1", "192.0.2.2"] {
        let _ = report(&server, client, "p", &wanted);
    }
    let usage = json!({"format": 1, "usage": {
        "id": "one", "hits": 1, "misses": 0, "seconds-saved": 1.0, "seconds-compiled": 0.0}});
    let mut answers = Answers::default();
    let json_kind = "Content-Type: application/json";
    let bearer = format!("Authorization: Bearer {worker}");
    let path = "/v1/lockfiles";
    let long = vec![b'#'; 200_000];
    let packed = zstd::bulk::compress(wanted.as_bytes(), 3).unwrap();
    for (headers, body, status) in [
        (vec![], wanted.as_bytes(), 200),
        (vec![json_kind], usage.to_string().as_bytes(), 200),
        (vec![json_kind], b"{".as_slice(), 400),
        (vec!["Authorization: Bearer qbs_x"], wanted.as_bytes(), 401),
        (vec![bearer.as_str()], wanted.as_bytes(), 403),
        (vec!["Transfer-Encoding: chunked"], b"3\r\nver\r\n", 408), // and no end
        (vec![], long.as_slice(), 413),
        (vec!["Content-Encoding: gzip"], wanted.as_bytes(), 415),
        (vec!["Content-Encoding: zstd"], packed.as_slice(), 200),
        (vec![json_kind], b"{\"format\":1}".as_slice(), 422),
    ] {
        let answer = server.post(path, &headers, body);
        assert_eq!(answer.status, status, "{answer:?}");
        answers.hold(description, path, "post", &answer);
    }
    let hash = &hashes(&wanted)["a@1.0.0"];
    for (path, query, status) in [
        ("/v1/wants", "?kind=tree&limit=10", 200),
        ("/v1/wants", "?package=a", 200),
        ("/v1/wants", "?limit=-1", 400),
        ("/v1/wants/{hash}", "", 200),
        ("/v1/totals", "", 200),
        ("/v1/coverage", "", 200),
        ("/v1/builds", "?state=built", 200),
        ("/v1/builds", "?limit=-1", 400),
        ("/v1/builds/{id}", "", 404),
        ("/v1/workers", "", 200),
        ("/v1/openapi.json", "", 200),
        ("/healthz", "", 200),
        ("/readyz", "", 200),
        ("/metrics", "", 200),
    ] {
        let asked = path.replace("{hash}", hash).replace("{id}", "7") + query;
        let answer = server.get(&asked, &[]);
        assert_eq!(answer.status, status, "{answer:?}");
        answers.hold(description, path, "get", &answer);
    }
    let ask = json!({"format": 1, "worker": "w", "builders": []});
    for (path, method) in [
        ("/v1/work", "post"),
        ("/v1/trees", "post"),
        ("/v1/trees/{tree}", "post"),
        ("/v1/work/{lease}/alive", "post"),
        ("/v1/work/{lease}/failed", "post"),
        ("/v1/work/{lease}/outputs", "put"),
    ] {
        let asked = path.replace("{lease}", "none").replace("{tree}", "none");
        let verb = method.to_ascii_uppercase();
        let body = match path {
            "/v1/trees/{tree}" => json!({"builder": "b", "reason": "no"}).to_string(),
            _ => ask.to_string(),
        };
        let nobody = server.request(&verb, &asked, &[json_kind], body.as_bytes());
        assert_eq!(nobody.status, 401, "{nobody:?}");
        answers.hold(description, path, method, &nobody);
        let known = server.request(&verb, &asked, &[json_kind, &bearer], body.as_bytes());
        if ["/v1/work", "/v1/trees"].contains(&path) {
            assert_eq!(known.status, 204, "{known:?}");
        } else {
            assert_eq!(known.status, 409, "{known:?}");
        }
        answers.hold(description, path, method, &known);
    }
    administer(bed, description, &server, &bearer, &mut answers);
    let absent = server.get("/v1/wants/absent", &[]);
    assert_eq!(absent.status, 404);
    answers.hold(description, "/v1/wants/{hash}", "get", &absent);
    let served = server.get("/v1/openapi.json", &[]).json();
    assert_eq!(served, *description);
    let twice = server.get("/v1/wants?limit=1&limit=2", &[]);
    assert_eq!(twice.status, 400);
    answers.hold(description, "/v1/wants", "get", &twice);
    limited(bed, description, &mut answers);
    answers
}

/// What only administrators may ask; `other` is a token of somebody else.
fn administer(
    bed: &Bed,
    description: &Value,
    server: &Serving,
    other: &str,
    answers: &mut Answers,
) {
    let admin = format!("Authorization: Bearer {}", bed.token("boss", "admin"));
    let rustc = "rustc 1.95.0\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0\n";
    let release = json!({"rustc": rustc, "cargo": "cargo 1.95.0"}).to_string();
    let none = json!({"rustc": "rustc", "cargo": "cargo"}).to_string();
    for (path, method, body, status) in [
        ("/v1/builds/{id}/retry", "post", "", 404),
        ("/v1/builds/{id}/cancel", "post", "", 404),
        ("/v1/toolchains", "post", &*release, 200),
        ("/v1/toolchains", "post", "{", 400),
        ("/v1/toolchains", "post", &none, 422),
        ("/v1/actions", "get", "", 200),
    ] {
        let asked = path.replace("{id}", "7");
        let verb = method.to_ascii_uppercase();
        for (headers, status) in [(vec![], 401), (vec![other], 403), (vec![&*admin], status)] {
            let answer = server.request(&verb, &asked, &headers, body.as_bytes());
            assert_eq!(answer.status, status, "{path}: {answer:?}");
            answers.hold(description, path, method, &answer);
        }
    }
}

/// Somebody who asks too often.
fn limited(bed: &Bed, description: &Value, answers: &mut Answers) {
    let all = ["--rate", "1", "--no-access-log"];
    let server = Serving::service(&bed.env, &bed.project, &all);
    let mut asked = (0..100).map(|_| server.get("/v1/totals", &[]));
    let refused = asked.find(|answer| answer.status == 429).unwrap();
    answers.hold(description, "/v1/totals", "get", &refused);
}

#[test]
fn each_route_is_described_and_each_description_is_a_route() {
    let described = operations(&description());
    assert!(described.len() >= 8, "{described:?}");
    assert_eq!(described, routes());
}

#[test]
fn what_is_described_is_answered() {
    on_both(|bed| {
        let description = description();
        let answers = ask(&bed, &description);
        let asked: Operations = answers.seen.keys().cloned().collect();
        assert_eq!(asked, operations(&description), "not all was asked");
        valid(&bed, &description, &answers.values);
    });
}

/// What a worker that has something to build is answered, and what is told of a
/// build meanwhile.
#[test]
fn what_workers_do_is_described() {
    for bed in beds() {
        let (description, mut answers) = (description(), Answers::default());
        let server = bed.builds(&["--retry", "1s"]);
        let wanted = wanted(&bed.env);
        for client in ["192.0.2.1", "192.0.2.2"] {
            want(&server, wanted, client);
        }
        let worker = worker(&bed, &server, "box", "work");
        let believed = super::building::worker(&bed, &server, "believed", "work-trusted");
        let lease = |answers: &mut Answers, worker: &Worker| {
            let begin = Instant::now();
            loop {
                let answer = worker.ask();
                answers.hold(&description, "/v1/work", "post", &answer);
                if answer.status == 200 {
                    return answer.json()["lease"].as_str().unwrap().to_owned();
                }
                assert!(begin.elapsed().as_secs() < 60, "nothing to do");
                std::thread::sleep(Duration::from_millis(200));
            }
        };
        let told = |answers: &mut Answers, state: &str| {
            let build = until(&server, wanted, state);
            let all = server.get(&format!("/v1/builds?state={state}"), &[]);
            assert_ne!(all.json()["builds"], json!([]), "{all:?}");
            answers.hold(&description, "/v1/builds", "get", &all);
            let one = server.get(&format!("/v1/builds/{}", build["id"]), &[]);
            assert_eq!(one.status, 200, "{one:?}");
            answers.hold(&description, "/v1/builds/{id}", "get", &one);
            one.json()
        };
        let own = lease(&mut answers, &worker);
        let log = json!({"log": "Compiling fnv\n"});
        let alive = worker.post(&format!("/v1/work/{own}/alive"), &log);
        assert_eq!(alive.status, 204, "{alive:?}");
        answers.hold(&description, "/v1/work/{lease}/alive", "post", &alive);
        told(&mut answers, "leased");
        let reason = json!({"recipe": true, "reason": "no", "log": "error: no\n"});
        let failed = worker.post(&format!("/v1/work/{own}/failed"), &reason);
        assert_eq!(failed.status, 204, "{failed:?}");
        answers.hold(&description, "/v1/work/{lease}/failed", "post", &failed);
        let path = "/v1/work/{lease}/outputs";
        let own = lease(&mut answers, &worker);
        let refused = worker.send(&own, b"no archive");
        assert_eq!(refused.status, 422, "{refused:?}");
        answers.hold(&description, path, "put", &refused);
        let own = lease(&mut answers, &worker);
        let waits = worker.send(&own, &wanted.export);
        assert_eq!(waits.json()["accepted"], 0, "{waits:?}");
        answers.hold(&description, path, "put", &waits);
        told(&mut answers, "queued");
        let own = lease(&mut answers, &believed);
        let sent = believed.send(&own, &wanted.export);
        assert_eq!(sent.json()["waiting"], 0, "{sent:?}");
        answers.hold(&description, path, "put", &sent);
        let built = told(&mut answers, "built");
        assert_ne!(built["outputs"], json!([]), "{built}");
        assert_eq!(built["tries"].as_array().unwrap().len(), 4, "{built}");
        let workers = server.get("/v1/workers", &[]);
        assert_ne!(workers.json()["workers"], json!([]), "{workers:?}");
        answers.hold(&description, "/v1/workers", "get", &workers);
        let work = answers
            .seen
            .iter()
            .filter(|((path, _), _)| path.starts_with("/v1/work"));
        assert_eq!(work.count(), 5, "{:?}", answers.seen);
        valid(&bed, &description, &answers.values);
    }
}

#[test]
fn a_database_that_is_away_is_described() {
    let Some(mut bed) = Bed::postgres() else {
        return;
    };
    let server = bed.start(&[]);
    bed.postgres.as_mut().unwrap().stop();
    let (description, mut answers) = (description(), Answers::default());
    for path in ["/v1/totals", "/v1/wants", "/readyz", "/metrics"] {
        let away = server.get(path, &[]);
        assert_eq!(away.status, 503, "{path}");
        answers.hold(&description, path, "get", &away);
    }
    valid(&bed, &description, &answers.values);
}

/// Validates the description, and answers against its schemas.
fn valid(bed: &Bed, description: &Value, answers: &[Value]) {
    let python = std::env::var("QUICKBUILD_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python)
        .args([
            "-c",
            "import openapi_spec_validator, openapi_schema_validator",
        ])
        .output();
    if !has.is_ok_and(|output| output.status.success()) {
        skipped("openapi", "no Python with openapi-spec-validator");
        return;
    }
    // It takes the answers, and neither another description nor another answer.
    let check = |description: &Value, answers: &[Value]| {
        let file = bed.env.root().join("answers.json");
        let text = json!({"description": description, "answers": answers}).to_string();
        std::fs::write(&file, text).unwrap();
        let output = Command::new(&python)
            .args(["-c", VALIDATE])
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    };
    let (is_valid, said) = check(description, answers);
    assert!(is_valid, "{said}");
    let mut wrong = description.clone();
    wrong["paths"]["/healthz"]["get"]["responses"] = json!(1);
    assert!(!check(&wrong, &[]).0, "the validator takes anything");
    let first = answers.iter().find(|answer| answer["value"].is_object());
    let mut answer = first.unwrap().clone();
    answer["value"] = json!({});
    assert!(!check(description, &[answer]).0, "any answer is valid");
}

const VALIDATE: &str = "
import json, sys
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from openapi_schema_validator import OAS31Validator
read = json.load(open(sys.argv[1]))
description = read['description']
validate(description, cls=OpenAPIV31SpecValidator)
for answer in read['answers']:
    schema = dict(answer['schema'], components=description['components'])
    for error in OAS31Validator(schema).iter_errors(answer['value']):
        sys.exit(answer['what'] + ': ' + str(error))
";
