//! Builds that need the same: no recipe is made by two workers at once.

use quickbuild::recipe::package::PackageRecipe;
use serde_json::Value;

use super::building::{self, Worker, beds, worker};
use super::following::{build, recipe, until, want};
use super::on_both;
use crate::support::Serving;

const TWO: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

/// What a lease is for, and the lease.
#[track_caller]
fn lease(worker: &Worker) -> (String, String) {
    let job = worker.job();
    let part = |name: &str| job[name].as_str().unwrap().to_owned();
    (part("name"), part("lease"))
}

/// The build that a queued one waits for.
#[track_caller]
fn behind(server: &Serving, recipe: &PackageRecipe) -> Value {
    let found = build(server, recipe).unwrap();
    assert_eq!(found["state"], "queued", "{found}");
    found["behind"].clone()
}

#[test]
fn what_a_worker_makes_no_other_one_makes_meanwhile() {
    on_both(|bed| {
        let _ = bed.run(&["key", "generate", "service-1"]).success();
        let server = bed.builds(&["--retry", "1h"]);
        let low = recipe("low", "1.0.0", "1.95.0", &[]);
        let left = recipe("left", "1.0.0", "1.95.0", &[&low]);
        let right = recipe("right", "1.0.0", "1.95.0", &[&low]);
        let alone = recipe("alone", "1.0.0", "1.95.0", &[]);
        for from in TWO {
            want(&server, from, &[&low, &left, &right, &alone]);
        }
        for wanted in [&left, &right, &alone] {
            assert_eq!(until(&server, wanted)["state"], "queued");
        }
        let [one, two, three] =
            ["one", "two", "three"].map(|name| worker(&bed, &server, name, "work-trusted"));
        let (first, held) = lease(&one);
        let (made, waits) = match &*first {
            "left 1.0.0" => (&left, &right),
            "right 1.0.0" => (&right, &left),
            other => panic!("the largest come first, not {other}"),
        };
        // What is worth less, and needs nothing of it, goes before the other one.
        let (second, _) = lease(&two);
        assert_eq!(second, "alone 1.0.0");
        let nothing = three.ask();
        assert_eq!(nothing.status, 204, "{nothing:?}");
        let id = build(&server, made).unwrap()["id"].clone();
        assert_eq!(behind(&server, waits), id);
        let page = server.get(&format!("/builds/{}", until(&server, waits)["id"]), &[]);
        let said = format!("It waits for <a href=\"/builds/{id}\">build {id}</a>");
        assert!(page.text().contains(&said), "{}", page.text());
        // However that ends, it is the other one's turn; and then the first waits.
        assert_eq!(one.failed(&held, true), 204);
        let (third, held) = lease(&three);
        assert_eq!(third, format!("{} 1.0.0", waits.name()));
        let admin = bed.token("boss", "admin");
        let admin = format!("Authorization: Bearer {admin}");
        let retried = server.post(&format!("/v1/builds/{id}/retry"), &[&admin], b"");
        assert_eq!(retried.status, 204, "{retried:?}");
        assert_eq!(one.ask().status, 204);
        assert_eq!(
            behind(&server, made),
            build(&server, waits).unwrap()["id"],
            "it is due, and has to wait"
        );
        // A worker that dies lets the next one have what it had, and nothing else.
        let token = two.token;
        drop(server);
        let two = Worker {
            server: &bed.builds(&["--lease", "5s"]),
            name: "two",
            token,
        };
        let (again, other) = lease(&two);
        assert!(third == again || second == again, "{again}");
        assert_ne!(held, other);
    });
}

#[test]
fn what_waited_has_what_was_made_meanwhile() {
    for bed in beds() {
        let server = bed.builds(&[]);
        let wanted = building::wanted(&bed.env);
        let trusted = worker(&bed, &server, "trusted", "work-trusted");
        for from in TWO {
            building::want(&server, wanted, from);
        }
        let held = trusted.lease();
        let texts = wanted.report["recipes"].as_array().unwrap();
        let texts = texts.iter().map(|text| text.as_str().unwrap());
        let mut recipes: Vec<PackageRecipe> = texts
            .map(|text| PackageRecipe::from_toml(text).unwrap())
            .collect();
        let below = recipes.last().unwrap().to_toml();
        let (name, hash) = (recipes.last().unwrap().name(), &wanted.recipe);
        let needs = format!("dependencies = [{{ name = \"{name}\", recipe = \"{hash}\" }}]");
        let above = below.replacen(&format!("\"{name}\""), "\"above\"", 1);
        let above = above.replacen("[unit.profile]", &format!("{needs}\n[unit.profile]"), 1);
        recipes.push(PackageRecipe::from_toml(&above).unwrap());
        for from in TWO {
            want(&server, from, &recipes.iter().collect::<Vec<_>>());
        }
        let above = recipes.last().unwrap();
        assert_eq!(until(&server, above)["state"], "queued");
        assert_eq!(trusted.ask().status, 204, "it is being made");
        assert_eq!(
            behind(&server, above),
            building::until(&server, wanted, "leased")["id"]
        );
        let sent = trusted.send(&held, &wanted.export);
        assert_eq!(sent.status, 200, "{sent:?}");
        assert_eq!(lease(&trusted).0, format!("above {}", above.version()));
    }
}
