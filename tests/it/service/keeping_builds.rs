//! Builds under way when a copy is taken: after a restore each is there as it was,
//! none is lost and none is done twice.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use quickbuild::recipe::package::PackageRecipe;
use serde_json::Value;

use super::Bed;
use super::administering::change;
use super::building::{Wanted, Worker, beds, until, want, wanted, worker};
use crate::support::postgres::Postgres;
use crate::support::{Serving, TestEnv};

/// What the database has of builds, with all its columns but those of the queue's
/// own tables.
const TABLES: [(&str, &str, &str); 4] = [
    (
        "builds",
        "id want recipe name version builder state reason root round pushed after priority lease task since ended own wanted disputed standing",
        "id",
    ),
    (
        "tries",
        "lease build token worker began seen ended outcome reason log",
        "lease",
    ),
    ("votes", "output token content", "output, token"),
    (
        "outputs",
        "output build recipe host_recipe name content bytes milliseconds agreed since",
        "output",
    ),
];

type Tables = Vec<(&'static str, Vec<Vec<String>>)>;

fn tables(bed: &Bed) -> Tables {
    let rows = |(table, columns, order): (&'static str, &str, &str)| {
        let columns = columns.split(' ');
        let columns: Vec<String> = columns.map(|c| format!("CAST({c} AS TEXT)")).collect();
        let columns = columns.join(", ");
        let rows = bed.sql(&format!("SELECT {columns} FROM {table} ORDER BY {order}"));
        (table, rows)
    };
    TABLES.map(rows).into()
}

/// The states of builds, sorted.
fn states(tables: &Tables) -> Vec<&str> {
    let builds = tables[0].1.iter();
    let mut states: Vec<&str> = builds.map(|row| &*row[6]).collect();
    states.sort_unstable();
    states
}

/// What is wanted with other settings; nobody builds it here.
fn other(bed: &Bed, env: &TestEnv) -> Wanted {
    let words = ["plan", "build", "--release", "--show-report"];
    let shown = env.quickbuild(&bed.project, &words).success();
    let mut report: Value = serde_json::from_str(&shown.stdout).unwrap();
    report.as_object_mut().unwrap().remove("usage");
    let text = report["recipes"].as_array().unwrap().last().unwrap();
    let recipe = PackageRecipe::from_toml(text.as_str().unwrap()).unwrap();
    Wanted {
        recipe: recipe.hash().to_string(),
        report,
        export: Vec::new(),
    }
}

/// Takes a copy while the service runs, ends the service, and goes on from the copy
/// alone, as `docs/service.md` says.
fn restored(bed: &mut Bed, mut server: Serving, arguments: &[&str]) -> Serving {
    let before = tables(bed);
    let dump = match &bed.postgres {
        Some(postgres) => postgres.dump(),
        None => {
            let _ = bed.run(&["service", "backup", "copy.sqlite"]).success();
            Vec::new()
        }
    };
    assert_eq!(tables(bed), before, "something went on meanwhile");
    let [data, old] = ["service", "service.old"].map(|name| bed.project.path(name));
    server.kill();
    drop(server);
    if old.exists() {
        fs::remove_dir_all(&old).unwrap();
    }
    fs::rename(&data, &old).unwrap();
    fs::create_dir(&data).unwrap();
    fs::rename(old.join("public"), data.join("public")).unwrap();
    if bed.postgres.is_some() {
        let other = Postgres::start().unwrap();
        other.restore(&dump);
        bed.env = bed.env.with("QUICKBUILD_SERVICE_DATABASE", other.url());
        bed.postgres = Some(other);
    } else {
        let copy = bed.project.path("copy.sqlite");
        fs::rename(copy, data.join("service.sqlite")).unwrap();
    }
    assert_eq!(tables(bed), before, "the copy has something else");
    bed.builds(arguments)
}

/// All that a worker gets, with the recipe of each; `count` of them come.
fn all_leases(worker: &Worker, count: usize) -> Vec<(String, String)> {
    let mut leases = Vec::new();
    let begin = Instant::now();
    while leases.len() < count {
        let answer = worker.ask();
        if answer.status == 200 {
            let job = answer.json();
            let text = job["recipes"].as_array().unwrap().last().unwrap();
            let recipe = PackageRecipe::from_toml(text.as_str().unwrap()).unwrap();
            let lease = job["lease"].as_str().unwrap().to_owned();
            leases.push((lease, recipe.hash().to_string()));
            continue;
        }
        for (lease, _) in &leases {
            assert_eq!(worker.alive(lease, ""), 204);
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{leases:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(worker.ask().status, 204, "a build is there twice");
    leases
}

/// A worker that a test plays, with one of these tokens.
fn play<'a>(server: &'a Serving, tokens: &[String; 4], number: usize) -> Worker<'a> {
    Worker {
        server,
        name: "w",
        token: tokens[number].clone(),
    }
}

fn recipes(leases: &[(String, String)]) -> BTreeSet<&str> {
    leases.iter().map(|(_, recipe)| &**recipe).collect()
}

#[test]
fn builds_under_way_go_on_from_a_copy() {
    for mut bed in beds() {
        let long = ["--lease", "600s"];
        let server = bed.builds(&long);
        let made = wanted(&bed.env);
        let held = other(&bed, &bed.env);
        let queued = other(&bed, &bed.env.with("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"));
        let tokens = ["holder", "one", "two", "late"].map(|name| {
            let scope = if name == "late" || name == "holder" {
                "work-trusted"
            } else {
                "work"
            };
            worker(&bed, &server, name, scope).token
        });
        // One is with a worker, one was made by a worker that is not believed alone,
        // and one waits.
        want(&server, &held, "192.0.2.1");
        want(&server, &held, "192.0.2.2");
        let holder = play(&server, &tokens, 0);
        let lease = holder.lease();
        assert_eq!(holder.alive(&lease, "Compiling fnv\n"), 204);
        want(&server, made, "192.0.2.3");
        want(&server, made, "192.0.2.4");
        let one = play(&server, &tokens, 1);
        let sent = one.send(&one.lease(), &made.export);
        assert!(sent.json()["waiting"].as_u64().unwrap() > 0, "{sent:?}");
        want(&server, &queued, "192.0.2.5");
        want(&server, &queued, "192.0.2.6");
        until(&server, &queued, "queued");
        let before = tables(&bed);
        assert_eq!(states(&before), ["leased", "queued", "queued"]);
        assert!(
            !before[2].1.is_empty() && before[3].1.is_empty(),
            "{before:?}"
        );

        let server = restored(&mut bed, server, &long);
        // Whoever had a build has it still, and goes on.
        assert_eq!(play(&server, &tokens, 0).alive(&lease, ""), 204);
        let one = play(&server, &tokens, 1);
        let own = all_leases(&one, 1);
        assert_eq!(recipes(&own), BTreeSet::from([&*queued.recipe]));
        let two = play(&server, &tokens, 2);
        let leases = all_leases(&two, 1);
        assert_eq!(recipes(&leases), BTreeSet::from([&*made.recipe]));
        // What the first has said before the copy counts.
        let sent = two.send(&leases[0].0, &made.export);
        assert_eq!(sent.json()["waiting"], 0, "{sent:?}");
        until(&server, made, "built");
        let before = tables(&bed);
        assert_eq!(states(&before), ["built", "leased", "leased"]);
        assert!(!before[3].1.is_empty(), "{before:?}");

        // Of two workers nothing is heard any more.
        let server = restored(&mut bed, server, &["--lease", "5s", "--retry", "1s"]);
        assert_eq!(
            play(&server, &tokens, 2)
                .send(&leases[0].0, &made.export)
                .status,
            409
        );
        let late = play(&server, &tokens, 3);
        let leases = all_leases(&late, 2);
        let rest = BTreeSet::from([&*held.recipe, &*queued.recipe]);
        assert_eq!(recipes(&leases), rest);
        assert_eq!(play(&server, &tokens, 0).alive(&lease, ""), 409);
        until(&server, made, "built");
    }
}

/// What is worth most is built first, and what has waited long before it.
#[test]
fn what_waits_long_enough_is_built_first() {
    for bed in beds() {
        let (made, other) = (wanted(&bed.env), other(&bed, &bed.env));
        let mut server = bed.builds(&["--lease", "1h"]);
        let token = bed.token("boxes", "work-trusted");
        for from in ["203.0.113.1", "203.0.113.2"] {
            want(&server, made, from);
            want(&server, &other, from);
        }
        until(&server, made, "queued");
        until(&server, &other, "queued");
        let (cheap, dear) = (made.recipe.as_str(), other.recipe.as_str());
        for (days, first) in [(0, dear), (1, dear), (10, cheap)] {
            server.kill();
            drop(server);
            let now = quickbuild::fs::now().seconds();
            for (recipe, milliseconds, days) in [(cheap, 1_000, days), (dear, 1_000_000_000, 0)] {
                let since = now - days * 86_400;
                let again = format!(
                    "UPDATE builds SET state = 'queued', round = round + 1, lease = '', after = 0, \
                     task = '', priority = {milliseconds}, since = {since} WHERE recipe = '{recipe}'"
                );
                change(&bed, &again);
            }
            server = bed.builds(&["--lease", "1h"]);
            let worker = Worker {
                server: &server,
                name: "box",
                token: token.clone(),
            };
            let leases = all_leases(&worker, 2);
            assert_eq!(leases[0].1, first, "after {days} days");
        }
    }
}
