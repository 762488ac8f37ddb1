//! The dashboard, as a browser shows it and as anybody may ask for it.

use std::fs;

use serde_json::{Value, json};

use super::{Bed, hashes, lock, on_both, report};
use crate::support::Serving;
use crate::support::browser::Browser;

/// A service that two projects have told of their lock files.
fn told(bed: &Bed) -> (Serving, String) {
    let server = bed.start(&[]);
    let wanted = lock(&[("alpha", "1.0.0", "beta"), ("beta", "2.0.0", "")]);
    for client in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(report(&server, client, "p", &wanted).status, 200);
    }
    (server, wanted)
}

#[test]
fn people_see_what_is_wanted_in_a_browser() {
    let Some(browser) = Browser::start() else {
        return;
    };
    on_both(|bed| {
        let (server, wanted) = told(&bed);
        browser.open(&server.url());
        browser.shows("h1", "What was saved");
        assert_eq!(browser.evaluate("document.documentElement.lang"), "en");
        browser.find("nav li:nth-child(2) a").click();
        browser.shows("h1", "Wanted dependency trees");
        browser.shows("nav a[aria-current]", "Trees");
        browser.shows("tbody tr", "beta 2.0.0 1 2");
        browser.shows("tbody tr:last-child", "alpha 1.0.0 2 2");

        browser.find("tbody tr:last-child a").click();
        browser.shows("h1", "alpha 1.0.0");
        browser.shows("main code", &hashes(&wanted)["alpha@1.0.0"]);
        browser.shows("tbody tr", "beta 2.0.0 1 2");

        // A visitor's own lock file, of which others want a half.
        let own = lock(&[("beta", "2.0.0", ""), ("gamma", "1.0.0", "beta")]);
        let file = bed.env.root().join("Cargo.lock");
        fs::write(&file, own).unwrap();
        browser.find("nav li:last-child a").click();
        browser.find("#lock").write(file.to_str().unwrap());
        browser.find("main button").click();
        browser.shows("h1", "Your lock file");
        assert!(browser.find("dl").text().contains("50.0 %"));
        browser.shows("tbody tr", "beta 2.0.0 no – – 2");
        browser.shows("nav a[aria-current]", "Your lock file");

        // Nothing was blocked, missing or wrong on any page.
        assert_eq!(browser.complaints(), Vec::<String>::new());
    });
}

#[test]
fn pages_are_light_or_dark_as_the_visitor_likes_it() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bed = Bed::sqlite();
    let (server, _) = told(&bed);
    let colours = ["light", "dark"].map(|scheme| {
        browser.prefers(scheme);
        browser.open(&server.url());
        let picture = browser.picture(&format!("dashboard-{scheme}"));
        assert!(picture.starts_with(b"\x89PNG"));
        let style = "getComputedStyle(document.body)";
        let of = |name: &str| browser.evaluate(&format!("{style}.{name}")).to_string();
        (of("backgroundColor"), of("color"))
    });
    assert_eq!(colours[0].0, "\"rgb(255, 255, 255)\"");
    assert_ne!(colours[0], colours[1]);
}

#[test]
fn pages_take_nothing_from_elsewhere_and_show_no_markup_of_others() {
    on_both(|bed| {
        let (server, _) = told(&bed);
        for path in ["/", "/wants?kind=tree", "/wants?kind=recipe", "/upload"] {
            let page = server.get(path, &[]);
            assert_eq!(page.status, 200, "{page:?}");
            let policy = page.header("content-security-policy").unwrap();
            assert!(policy.starts_with("default-src 'none'"), "{policy}");
            assert!(!policy.contains("unsafe"), "{policy}");
            assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
            assert!(!page.text().contains("<script"), "{page:?}");
        }
        let style = server.get("/style.css", &[]);
        assert_eq!(style.header("content-type"), Some("text/css"));

        let evil = server.get(
            "/wants?package=%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
            &[],
        );
        assert!(!evil.text().contains("<script"), "{evil:?}");
        assert!(evil.text().contains("&lt;script&gt;"), "{evil:?}");
        let absent = server.get("/wants/%3Cb%3E", &[]);
        assert_eq!(absent.status, 404);
        assert!(!absent.text().contains("<b>"), "{absent:?}");
    });
}

/// Each day has what was reported on it, and all that was wanted and published by
/// its end, whenever it is asked for.
#[test]
fn what_was_prebuilt_is_told_for_each_day() {
    on_both(|bed| {
        let server = bed.start(&["--threshold", "2"]);
        let shown = bed.run(&["plan", "build", "--show-report"]).success();
        let mut report: Value = serde_json::from_str(&shown.stdout).unwrap();
        for client in ["192.0.2.1", "192.0.2.2"] {
            report["usage"] = json!({"id": "one", "hits": 3, "misses": 1,
                "seconds-saved": 8.0, "seconds-compiled": 2.0});
            let from = format!("X-Forwarded-For: {client}");
            let kind = "Content-Type: application/json";
            let body = report.to_string();
            let sent = server.post("/v1/lockfiles", &[&from, kind], body.as_bytes());
            assert_eq!(sent.json()["usage-counted"], true, "{sent:?}");
        }
        let begin = std::time::Instant::now();
        while server.get("/v1/builds", &[]).json()["builds"] == json!([]) {
            assert!(begin.elapsed().as_secs() < 60, "nothing is queued");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let told = || {
            let days = server.get("/v1/coverage", &[]).json()["days"].clone();
            let days = days.as_array().unwrap().iter();
            let number = |day: &Value, name: &str| day[name].as_i64().unwrap();
            let fields = [
                "hits",
                "misses",
                "milliseconds-saved",
                "wanted",
                "published",
            ];
            days.map(|day| fields.map(|name| number(day, name)))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(), [[6, 2, 16_000, 1, 0]]);
        bed.sql("UPDATE builds SET since = since - 172800");
        bed.sql("UPDATE days SET day = day - 1");
        let rest = [[0, 0, 0, 1, 0], [6, 2, 16_000, 1, 0], [0, 0, 0, 1, 0]];
        assert_eq!(told(), rest);
        bed.sql("UPDATE builds SET state = 'built', ended = since + 86400");
        let rest = [[0, 0, 0, 1, 1], [6, 2, 16_000, 1, 1], [0, 0, 0, 1, 0]];
        assert_eq!(told(), rest);
        // What is older than all that is shown counts.
        bed.sql("UPDATE builds SET since = since - 8640000, ended = ended - 8640000");
        let days = told();
        assert_eq!(days.len(), 30);
        assert!(days.iter().all(|day| day[3..] == [1, 1]), "{days:?}");
        let page = server.get("/", &[]).text();
        let row = "<td>75.0 %</td><td>80.0 %</td><td>100.0 %</td><td>1</td><td>1</td></tr>";
        assert!(page.contains(row), "{page}");
    });
}

#[test]
fn what_a_form_sends_is_bounded_and_counts_nothing() {
    on_both(|bed| {
        let server = bed.start(&["--max-report", "100kB"]);
        let form = |name: &str, content: &str| {
            let body = format!(
                "--x\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n{content}\r\n--x--\r\n"
            );
            let kind = "Content-Type: multipart/form-data; boundary=x";
            server.post("/upload", &[kind], body.as_bytes())
        };
        let wanted = lock(&[("alpha", "1.0.0", "")]);
        let shown = form("lock", &wanted);
        assert_eq!(shown.status, 200, "{shown:?}");
        let hash = &hashes(&wanted)["alpha@1.0.0"];
        assert_eq!(server.get(&format!("/v1/wants/{hash}"), &[]).status, 404);

        assert_eq!(form("lock", "no lock file").status, 400);
        assert_eq!(form("other", &wanted).status, 400);
        assert_eq!(form("lock", &"x".repeat(200_000)).status, 413);
        let no_form = server.post("/upload", &[], wanted.as_bytes());
        assert_eq!(no_form.status, 400);
        assert!(
            no_form.text().contains("no file named `lock`"),
            "{no_form:?}"
        );
    });
}

#[test]
fn a_badge_says_how_much_of_a_project_others_want() {
    on_both(|bed| {
        let token = bed.token("octo", "report");
        let bearer = format!("Authorization: Bearer {token}");
        let server = bed.start(&[]);
        let own = lock(&[("a", "1.0.0", ""), ("b", "1.0.0", ""), ("c", "1.0.0", "")]);
        let sent = server.post("/v1/lockfiles?project=cat.rs", &[&bearer], own.as_bytes());
        assert_eq!(sent.status, 200);
        let badge = |path: &str| server.get(path, &[]);
        let path = "/badge/octo/cat.rs.svg";
        let alone = badge(path);
        assert_eq!(alone.status, 200);
        assert!(
            alone
                .text()
                .contains("<title>quickbuild: 0 % shared</title>")
        );
        // Another client wants two of the three; another project of the same
        // client counts as another.
        let others = lock(&[("a", "1.0.0", ""), ("b", "1.0.0", "")]);
        report(&server, "192.0.2.1", "cat.rs", &others);
        let shared = badge(path);
        assert!(
            shared.text().contains("quickbuild: 66 % shared"),
            "{shared:?}"
        );
        assert_eq!(shared.header("content-type"), Some("image/svg+xml"));
        assert_eq!(shared.header("cache-control"), Some("public, max-age=300"));
        let policy = shared.header("content-security-policy");
        assert_eq!(policy, Some("default-src 'none'"));
        assert!(shared.text().contains("role=\"img\""), "{shared:?}");
        // Of what nobody reports with a token, nothing is told.
        for path in ["/badge/octo/dog.svg", "/badge/cat/cat.rs.svg"] {
            let unknown = badge(path);
            assert_eq!(unknown.status, 404);
            assert_eq!(unknown.header("content-type"), Some("image/svg+xml"));
            assert!(
                unknown.text().contains("quickbuild: unknown"),
                "{unknown:?}"
            );
        }
        for path in [
            "/badge/octo/cat.rs",
            "/badge/octo/%3Cscript%3E.svg",
            "/badge/%3Cb%3E/cat.rs.svg",
            "/badge/octo%20cat.rs/x.svg",
            "/badge/octo/cat/rs.svg",
            "/badge/octo/..%2fcat.rs.svg",
        ] {
            let refused = badge(path);
            assert_eq!(refused.status, 404, "{path}");
            assert!(!refused.text().contains("<svg"), "{path}");
        }
    });
}
