//! New releases, and new toolchains: what is queued before many ask for it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use quickbuild::recipe::Tools;
use quickbuild::recipe::package::PackageRecipe;
use quickbuild::recipe::repository::Repository;
use quickbuild::recipe::retarget::retarget;
use serde_json::{Value, json};

use super::{Bed, building, on_both};
use crate::support::{Serving, TestEnv, nightly, skipped};

const JSON: &str = "Content-Type: application/json";

fn tools(release: &str) -> Tools {
    Tools {
        rustc: format!(
            "rustc {release} (made up)\nhost: x86_64-unknown-linux-gnu\nrelease: {release}\n"
        ),
        cargo: format!("cargo {release} (made up)"),
        layout: "legacy".to_owned(),
    }
}

/// A recipe that nobody needs to compile.
pub(super) fn recipe(
    name: &str,
    version: &str,
    rustc: &str,
    needs: &[&PackageRecipe],
) -> PackageRecipe {
    let Tools {
        rustc,
        cargo,
        layout,
    } = tools(rustc);
    let needs = needs.iter().map(|needed| {
        let (name, hash) = (needed.name(), needed.hash());
        format!("{{ name = \"{name}\", recipe = \"{hash}\" }}")
    });
    let needs = needs.collect::<Vec<_>>().join(", ");
    let text = format!(
        "format = 1\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{}\"\n\
         [toolchain]\nrustc = \"\"\"\n{rustc}\"\"\"\ncargo = \"{cargo}\"\nlayout = \"{layout}\"\n\
         [[unit]]\nkind = \"lib\"\ntarget = \"{name}\"\ncrate-types = [\"lib\"]\n\
         edition = \"2021\"\nfeatures = []\nplatform = \"x86_64-unknown-linux-gnu\"\n\
         dependencies = [{needs}]\n[unit.profile]\nopt_level = '\"0\"'\n",
        super::REGISTRY
    );
    PackageRecipe::from_toml(&text).unwrap()
}

/// Reports recipes, each after what it needs, for somebody.
#[track_caller]
pub(super) fn want(server: &Serving, from: &str, recipes: &[&PackageRecipe]) {
    let texts: Vec<String> = recipes.iter().map(|recipe| recipe.to_toml()).collect();
    let body = json!({"format": 1, "recipes": texts}).to_string();
    let from = format!("X-Forwarded-For: {from}");
    let counted = server.post("/v1/lockfiles", &[&from, JSON], body.as_bytes());
    assert_eq!(counted.status, 200, "{counted:?}");
}

pub(super) fn build(server: &Serving, recipe: &PackageRecipe) -> Option<Value> {
    let found = server.get(&format!("/v1/builds?recipe={}", recipe.hash()), &[]);
    assert_eq!(found.status, 200, "{found:?}");
    found.json()["builds"].as_array().unwrap().first().cloned()
}

/// The build of a recipe, within some seconds.
#[track_caller]
pub(super) fn until(server: &Serving, recipe: &PackageRecipe) -> Value {
    let begin = Instant::now();
    loop {
        if let Some(build) = build(server, recipe) {
            return build;
        }
        let name = recipe.name();
        let said = server.said();
        assert!(begin.elapsed() < Duration::from_secs(60), "{name}: {said}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

const TWO: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const OTHER: &str = "192.0.2.9";

/// Something that two want, with what it needs.
fn wanted(server: &Serving) -> [PackageRecipe; 2] {
    let low = recipe("low", "1.0.0", "1.95.0", &[]);
    let top = recipe("top", "1.0.0", "1.95.0", &[&low]);
    for from in TWO {
        want(server, from, &[&low, &top]);
    }
    assert_eq!(until(server, &top)["state"], "queued");
    [low, top]
}

#[test]
fn a_release_of_what_is_wanted_is_queued_when_one_reports_it() {
    on_both(|bed| {
        let server = bed.start(&["--threshold", "2"]);
        let [low, top] = wanted(&server);
        let before = until(&server, &top);
        // What stays as it is, goes back, or is another thing has no such demand.
        let other = recipe("other", "1.0.0", "1.95.0", &[&low]);
        let beside = recipe("top", "1.0.0", "1.95.0", &[&low, &other]);
        let back = recipe("top", "0.9.0", "1.95.0", &[&low]);
        let early = recipe("top", "2.0.0-rc.1", "1.95.0", &[&low]);
        let nothing = [&other, &beside, &back, &early];
        want(&server, OTHER, &[&[&low][..], &nothing].concat());
        // A release below: what is on it follows, and what nobody else wants does not.
        let low_2 = recipe("low", "1.0.1", "1.95.0", &[]);
        let top_2 = recipe("top", "1.0.0", "1.95.0", &[&low_2]);
        let own = recipe("own", "1.0.0", "1.95.0", &[&top_2]);
        want(&server, OTHER, &[&low_2, &top_2, &own]);
        let build_2 = until(&server, &top_2);
        assert_eq!(build_2["state"], "queued", "{build_2}");
        let reason = build_2["reason"].as_str().unwrap();
        assert!(reason.contains("follows `top 1.0.0`"), "{build_2}");
        assert_eq!(build_2["priority"], before["priority"]);
        let covered = until(&server, &low_2);
        assert_eq!(covered["state"], "covered");
        assert_eq!(covered["root"], build_2["id"], "it is built once");
        for nothing in nothing.into_iter().chain([&own]) {
            assert_eq!(build(&server, nothing), None, "{}", nothing.to_toml());
        }
    });
}

/// All of it comes before the service looks again.
#[test]
fn what_is_reported_right_after_it_follows_as_well() {
    on_both(|bed| {
        let server = bed.start(&["--threshold", "2"]);
        let low = recipe("low", "1.0.0", "1.95.0", &[]);
        let top = recipe("top", "1.0.0", "1.95.0", &[&low]);
        for from in TWO {
            want(&server, from, &[&low, &top]);
        }
        let low_2 = recipe("low", "1.0.1", "1.95.0", &[]);
        let top_2 = recipe("top", "1.0.0", "1.95.0", &[&low_2]);
        want(&server, OTHER, &[&low_2, &top_2]);
        assert_eq!(until(&server, &top_2)["state"], "queued");
        assert_eq!(until(&server, &low_2)["state"], "covered");
    });
}

#[test]
fn who_makes_up_releases_gets_three_a_day() {
    on_both(|bed| {
        let server = bed.start(&["--threshold", "2"]);
        let [low, _] = wanted(&server);
        let releases = |name: &str| {
            let made = (1..=8).map(|patch| {
                let version = format!("1.0.{patch}");
                match name {
                    "top" => recipe("top", &version, "1.95.0", &[&low]),
                    _ => recipe("low", &version, "1.95.0", &[]),
                }
            });
            made.collect::<Vec<_>>()
        };
        let made_up = releases("top");
        for release in &made_up {
            want(&server, OTHER, &[&low, release]);
        }
        let later = releases("low");
        want(&server, OTHER, &[&later[0]]);
        until(&server, &later[0]);
        let queued = made_up.iter().filter(|top| build(&server, top).is_some());
        assert_eq!(queued.count(), 3, "an heir has no heirs either");
        // Whoever is wanted enough needs no ancestor.
        for from in TWO {
            want(&server, from, &[&low, &made_up[7]]);
        }
        until(&server, &made_up[7]);
    });
}

#[test]
fn a_new_rustc_has_the_demand_of_the_one_before_when_one_reports_it() {
    on_both(|bed| {
        let server = bed.start(&["--threshold", "2"]);
        let old = wanted(&server);
        let for_rustc = |rustc: &str| retarget(&old, &tools(rustc)).unwrap();
        let [older, nightly, new] = ["1.94.0", "1.97.0-nightly", "1.96.0"].map(for_rustc);
        for recipes in [&older, &nightly, &new] {
            want(&server, OTHER, &recipes.iter().collect::<Vec<_>>());
        }
        let build_2 = until(&server, &new[1]);
        assert_eq!(build_2["builder"], "1.96.0-x86_64-unknown-linux-gnu");
        assert_eq!(until(&server, &new[0])["root"], build_2["id"]);
        for none in older.iter().chain(&nightly) {
            assert_eq!(build(&server, none), None);
        }
    });
}

/// axum of the recipe repository, with all that it needs.
fn axum() -> Vec<PackageRecipe> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let repository = Repository::read(&root).unwrap();
    let mut entries = repository.entries().iter();
    let root = entries.find(|entry| entry.recipe.name() == "axum").unwrap();
    let root = root.recipe.hash();
    let closure = repository.closure(&[root]).unwrap();
    closure.into_iter().cloned().collect()
}

/// What an administrator says of a toolchain.
fn name(bed: &Bed, server: &Serving, tools: &Tools) -> Value {
    let token = format!("Authorization: Bearer {}", bed.token("boss", "admin"));
    let body = json!({"rustc": tools.rustc, "cargo": tools.cargo}).to_string();
    let named = server.post("/v1/toolchains", &[&token, JSON], body.as_bytes());
    assert_eq!(named.status, 200, "{named:?}");
    named.json()
}

/// Nobody reports anything for the new toolchain; what Cargo made for it once is
/// queued, with the very same text.
#[test]
fn all_that_is_wanted_is_rewritten_for_a_toolchain_that_is_named() {
    on_both(|bed| {
        let _ = bed.run(&["key", "generate", "service-1"]).success();
        let server = bed.start(&["--threshold", "2", "--key", "service-1"]);
        let new = axum();
        let tools_1_95 = new[0].main().toolchain.clone();
        let old = retarget(&new, &tools("1.94.0")).unwrap();
        for from in TWO {
            want(&server, from, &old.iter().collect::<Vec<_>>());
        }
        let before = until(&server, old.last().unwrap());
        let named = name(&bed, &server, &tools_1_95);
        assert_eq!(named["builder"], "1.95.0-x86_64-unknown-linux-gnu");
        assert_eq!(named["previous"], "1.94.0-x86_64-unknown-linux-gnu");
        let rewritten = until(&server, new.last().unwrap());
        assert_eq!(rewritten["state"], "queued");
        assert_eq!(rewritten["priority"], before["priority"]);
        for recipe in &new {
            assert_eq!(until(&server, recipe)["root"], rewritten["id"]);
        }
        let token = bed.token("box", "work-trusted");
        let token = format!("Authorization: Bearer {token}");
        let ask = json!({"format": 1, "worker": "box", "builders": [named["builder"]]});
        let begin = Instant::now();
        let job = loop {
            let job = server.post("/v1/work", &[&token, JSON], ask.to_string().as_bytes());
            if job.status == 200 {
                break job.json();
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{job:?}");
            std::thread::sleep(Duration::from_millis(100));
        };
        let mut given: Vec<&str> = job["recipes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|text| text.as_str().unwrap())
            .collect();
        let mut texts: Vec<String> = new.iter().map(PackageRecipe::to_toml).collect();
        assert_eq!(given.last().unwrap(), texts.last().unwrap());
        given.sort_unstable();
        texts.sort_unstable();
        assert_eq!(given, texts);
    });
}

/// Nobody names it, and one of its recipes is built for other reasons.
#[test]
fn what_was_built_proves_its_toolchain_and_all_that_is_wanted_follows() {
    for bed in building::beds() {
        let server = bed.builds(&[]);
        let new = axum();
        let old = retarget(&new, &tools("1.94.0")).unwrap();
        let real = building::wanted(&bed.env);
        for from in TWO {
            want(&server, from, &old.iter().collect::<Vec<_>>());
            building::want(&server, real, &format!("{from}1"));
        }
        let before = until(&server, old.last().unwrap());
        building::until(&server, real, "queued");
        assert_eq!(build(&server, new.last().unwrap()), None);
        let trusted = building::worker(&bed, &server, "box", "work-trusted");
        let sent = trusted.send(&trusted.lease(), &real.export);
        assert_eq!(sent.status, 200, "{sent:?}");
        let rewritten = until(&server, new.last().unwrap());
        assert_eq!(rewritten["state"], "queued");
        assert_eq!(rewritten["priority"], before["priority"]);
        let reason = rewritten["reason"].as_str().unwrap();
        assert!(reason.contains("follows `axum"), "{rewritten}");
    }
}

/// A toolchain that was named wrongly is named again.
#[test]
fn a_toolchain_that_is_named_again_is_rewritten_for_again() {
    on_both(|bed| {
        let server = bed.start(&["--threshold", "2"]);
        let old = wanted(&server);
        let wrong = Tools {
            cargo: "cargo of somebody".to_owned(),
            ..tools("1.96.0")
        };
        let token = format!("Authorization: Bearer {}", bed.token("boss", "admin"));
        for tools in [wrong, tools("1.96.0")] {
            let body = json!({"rustc": tools.rustc, "cargo": tools.cargo}).to_string();
            let named = server.post("/v1/toolchains", &[&token, JSON], body.as_bytes());
            assert_eq!(named.status, 200, "{named:?}");
            for recipe in &retarget(&old, &tools).unwrap() {
                until(&server, recipe);
            }
        }
        let body = json!({"rustc": tools("1.97.0-nightly").rustc, "cargo": "cargo"});
        let nightly = server.post(
            "/v1/toolchains",
            &[&token, JSON],
            body.to_string().as_bytes(),
        );
        assert_eq!(nightly.status, 422, "{nightly:?}");
    });
}

/// The recipes of a project, as the Cargo that is installed plans them.
fn planned(env: &TestEnv) -> Vec<PackageRecipe> {
    let project = env.project("crates");
    let folder = project.path("planned");
    let export = ["recipe", "export", "--to", folder.to_str().unwrap()];
    let _ = env.quickbuild(&project, &export).success();
    let repository = Repository::read(&folder).unwrap();
    let recipes = repository.entries().iter();
    let roots: Vec<_> = recipes.map(|entry| entry.recipe.hash()).collect();
    let closure = repository.closure(&roots).unwrap();
    closure.into_iter().cloned().collect()
}

/// Rewritten recipes are those of the other Cargo, where that plans the same.
#[test]
fn what_is_rewritten_is_what_the_other_cargo_plans() {
    let env = TestEnv::new();
    let Some(other) = nightly(&env) else {
        assert!(skipped("nightly", "rustup has no nightly toolchain"));
        return;
    };
    let (stable, nightly) = (planned(&env), planned(&other));
    let tools = &nightly[0].main().toolchain;
    assert_ne!(stable, nightly);
    let rewritten = retarget(&stable, tools).unwrap();
    assert!(rewritten.iter().any(|recipe| !recipe.needs().is_empty()));
    let by_hash = |recipes: &[PackageRecipe]| {
        let texts = recipes
            .iter()
            .map(|recipe| (recipe.hash(), recipe.to_toml()));
        texts.collect::<BTreeMap<_, _>>()
    };
    assert_eq!(by_hash(&rewritten), by_hash(&nightly));
}
