//! Lock files that come without recipes: workers plan what is built of them.

use quickbuild::recipe::package::PackageRecipe;
use serde_json::{Value, json};

use super::building::{Worker, beds, client, worker};
use super::following::{build, recipe, until, want};
use super::{hashes, lock, on_both, report};
use crate::support::{BUILDER, Response, edit};

const TWO: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

impl Worker<'_> {
    fn tree(&self) -> Response {
        let ask = json!({"format": 1, "worker": self.name, "builders": [BUILDER]});
        self.post("/v1/trees", &ask)
    }

    fn planned(&self, tree: &Value, recipes: &[&PackageRecipe]) -> Response {
        let texts: Vec<String> = recipes.iter().map(|recipe| recipe.to_toml()).collect();
        let path = format!("/v1/trees/{}", tree["tree"].as_str().unwrap());
        self.post(&path, &json!({"builder": BUILDER, "recipes": texts}))
    }
}

#[test]
fn trees_of_bare_lock_files_are_planned_and_have_their_demand() {
    on_both(|bed| {
        let _ = bed.run(&["key", "generate", "service-1"]).success();
        let server = bed.builds(&["--retry", "1s"]);
        let one = worker(&bed, &server, "one", "work");
        let text = lock(&[
            ("alone", "1.0.0", ""),
            ("low", "1.0.0", ""),
            ("middle", "1.2.0", "low"),
            ("top", "1.0.0", "low middle"),
        ]);
        let _ = report(&server, TWO[0], "one", &text);
        assert_eq!(one.tree().status, 204, "one voice is not enough");
        let _ = report(&server, TWO[1], "two", &text);
        let given = one.tree();
        assert_eq!(given.status, 200, "{given:?}");
        let tree = given.json();
        assert_eq!(tree["tree"], hashes(&text)["top@1.0.0"], "the largest one");
        let mut below = hashes(&text);
        let other = json!({"tree": below.remove("alone@1.0.0").unwrap()});
        assert_eq!(hashes(tree["lock"].as_str().unwrap()), below);
        // Nobody was asked for that one yet.
        assert_eq!(one.planned(&other, &[]).status, 409);
        assert_eq!(one.tree().json()["tree"], other["tree"]);
        assert_eq!(one.tree().status, 204, "each is given once for some time");

        // A plan of anything else is none; what is below is planned by itself then.
        let low = recipe("low", "1.0.0", "1.95.0", &[]);
        let middle = recipe("middle", "1.2.0", "1.95.0", &[&low]);
        let top = recipe("top", "1.0.0", "1.95.0", &[&low, &middle]);
        let other = recipe("other", "1.0.0", "1.95.0", &[]);
        let refused = one.planned(&tree, &[&other]);
        assert_eq!(refused.status, 422, "{refused:?}");
        assert!(refused.text().contains("not in the tree"), "{refused:?}");
        let below = one.tree().json();
        assert_eq!(below["tree"], hashes(&text)["middle@1.2.0"]);
        let foreign = recipe("middle", "1.2.0", "1.94.0", &[]);
        let refused = one.planned(&below, &[&foreign]);
        assert!(refused.text().contains("another toolchain"), "{refused:?}");
        let refused = one.planned(&below, &[&low]);
        assert_eq!(
            refused.status, 422,
            "nothing of what was asked: {refused:?}"
        );
        for wanted in [&low, &middle, &top, &other] {
            assert_eq!(build(&server, wanted), None, "{}", wanted.name());
        }

        let page = || {
            let tree = tree["tree"].as_str().unwrap();
            server.get(&format!("/wants/{tree}"), &[]).text()
        };
        assert!(
            page().contains("`other 1.0.0` is not in the tree"),
            "{}",
            page()
        );
        let planned = one.planned(&tree, &[&low, &middle, &top]);
        assert_eq!(planned.status, 204, "{planned:?}");
        let queued = until(&server, &top);
        assert_eq!(queued["state"], "queued", "{queued}");
        let reason = queued["reason"].as_str().unwrap();
        assert!(reason.contains("a lock file's `top 1.0.0`"), "{queued}");
        assert!(queued["priority"].as_i64().unwrap() > 0, "{queued}");
        assert_eq!(until(&server, &low)["state"], "covered");
        assert!(page().contains("recipes, which are built"), "{}", page());
        let again = one.planned(&tree, &[&low, &middle, &top]);
        assert_eq!(again.status, 409, "{again:?}");
    });
}

#[test]
fn nobody_guesses_what_enough_have_said() {
    on_both(|bed| {
        let _ = bed.run(&["key", "generate", "service-1"]).success();
        let server = bed.builds(&[]);
        let one = worker(&bed, &server, "one", "work");
        let low = recipe("low", "1.0.0", "1.95.0", &[]);
        for from in TWO {
            want(&server, from, &[&low]);
        }
        assert_eq!(until(&server, &low)["state"], "queued");
        let text = lock(&[("low", "1.0.0", ""), ("other", "1.0.0", "")]);
        for from in TWO {
            let _ = report(&server, from, "bare", &text);
        }
        assert_eq!(one.tree().json()["name"], "other");
        assert_eq!(one.tree().status, 204);
        let nobody = server.post("/v1/trees", &["Content-Type: application/json"], b"{}");
        assert_eq!(nobody.status, 401, "{nobody:?}");
    });
}

#[test]
fn what_a_bare_lock_file_wants_is_fresh_in_the_end() {
    // What differs between the databases is above.
    let Some(bed) = beds().into_iter().next() else {
        return;
    };
    let server = bed.builds(&[]);
    let manifest = bed.project.path("tiny/Cargo.toml");
    let with_derive = "fnv = \"1\"\nserde = { version = \"1\", features = [\"derive\"] }";
    edit(&manifest, "fnv = \"1\"", with_derive);
    // The profile that a new package has.
    edit(
        &bed.project.path("Cargo.toml"),
        "[profile.dev]\ndebug = false\n",
        "",
    );
    let _ = bed
        .env
        .cargo(&bed.project, &["generate-lockfile"])
        .success();
    let text = std::fs::read_to_string(bed.project.path("Cargo.lock")).unwrap();
    for from in TWO {
        let _ = report(&server, from, "tiny", &text);
    }
    let store = bed.env.root().join("worker");
    let own = bed.env.with_store(&store);
    let own = own.with("QUICKBUILD_WORKER_TOKEN", bed.token("box", "work-trusted"));
    let url = server.url();
    let words = ["worker", "--server", &url, "--once", "--name", "box"];
    let done = own.quickbuild(&bed.project, &words).success();
    for said in ["planned serde ", "planned fnv ", "outputs are published"] {
        assert!(done.stderr.contains(said), "{done}");
    }
    let built = client(&bed);
    assert!(built.stderr.contains("Compiling tiny"), "{built}");
    for package in ["fnv", "serde", "serde_core", "serde_derive", "syn", "quote"] {
        let compiled = format!("Compiling {package} ");
        assert!(!built.stderr.contains(&compiled), "{built}");
    }
}
