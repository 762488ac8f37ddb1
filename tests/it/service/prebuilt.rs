//! What is published, as visitors see it: who signed it, what of a lock file it is,
//! and what it looks like.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};

use super::building::{Wanted, beds, public, until, want, wanted, worker};
use super::{Bed, lock};
use crate::support::browser::Browser;
use crate::support::{BUILDER, Mood, Response, Server, Serving};

/// A service that has published `fnv` 1.0.7, which takes four seconds.
fn built(bed: &Bed) -> (Serving, &'static Wanted) {
    let server = bed.builds(&[]);
    let wanted = wanted(&bed.env);
    for client in ["192.0.2.1", "192.0.2.2"] {
        want(&server, wanted, client);
    }
    let trusted = worker(bed, &server, "box", "work-trusted");
    let lease = trusted.lease();
    assert_eq!(trusted.alive(&lease, "Compiling fnv\n"), 204);
    assert_eq!(trusted.send(&lease, &wanted.export).status, 200);
    until(&server, wanted, "built");
    bed.sql("UPDATE outputs SET milliseconds = 4000");
    (server, wanted)
}

fn shown(server: &Serving, lock: &str) -> Response {
    let body = format!(
        "--x\r\nContent-Disposition: form-data; name=\"lock\"; filename=\"f\"\r\n\r\n{lock}\r\n--x--\r\n"
    );
    let kind = "Content-Type: multipart/form-data; boundary=x";
    let shown = server.post("/upload", &[kind], body.as_bytes());
    assert_eq!(shown.status, 200, "{shown:?}");
    shown
}

#[track_caller]
fn assert_says(page: &Response, all: &[&str]) {
    let text = page.text();
    for said in all {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn a_page_says_who_signed_what_is_published_and_how_it_was_made() {
    for bed in beds() {
        let (server, wanted) = built(&bed);
        let path = format!("/wants/{}", wanted.recipe);
        let page = server.get(&path, &[]);
        let key = bed.run(&["key", "show", "service-1"]).success();
        let key = key.stdout.trim();
        let config = fs::read_to_string(bed.env.root().join("quickbuild.toml")).unwrap();
        let image = config.split("sha256:").nth(1).unwrap().split('"').next();
        let build = until(&server, wanted, "built")["id"].to_string();
        let log = format!("<a href=\"/builds/{build}#log\">of build {build}</a>");
        assert_says(
            &page,
            &[
                key,
                "<dd>service-1 (this service&#39;s key; it verifies)</dd>",
                &format!("<dt>Image</dt><dd>sha256:{}</dd>", image.unwrap()),
                "<dt>Began</dt><dd>20",
                "<dt>Ended</dt><dd>20",
                "<dt>Operated by</dt><dd>https://",
                &log,
            ],
        );
        fs::remove_dir_all(public(&bed).join("closures")).unwrap();
        let gone = server.get(&path, &[]);
        assert_says(&gone, &["it is not where it was published"]);
        fs::write(public(&bed).join("closures"), "no folder").unwrap();
        let broken = server.get(&path, &[]);
        assert_eq!(broken.status, 200, "{broken:?}");
        assert_says(&broken, &["Who vouches for these outputs"]);
    }
}

/// A page waits only so long for the place where outputs are published.
#[test]
fn a_page_comes_without_signatures_where_they_cannot_be_read() {
    let Some(bed) = beds().into_iter().next() else {
        return;
    };
    let (server, wanted) = built(&bed);
    drop(server);
    let path = format!("/wants/{}", wanted.recipe);
    for (mood, said) in [
        (Mood::Good, "it verifies"),
        (Mood::Silent, "What is published cannot be read now."),
        (Mood::Page, "What is published cannot be read now."),
    ] {
        let place = Server::moody(&public(&bed), move |_, _| mood);
        let server = bed.builds(&["--publish", &place.url()]);
        // More than are looked at together.
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let page = server.get(&path, &[]);
                    assert_eq!(page.status, 200, "{page:?}");
                    assert_says(&page, &[said]);
                });
            }
        });
        assert_eq!(server.get("/healthz", &[]).status, 200);
    }
}

#[test]
fn a_lock_file_is_compared_with_what_is_published() {
    for bed in beds() {
        let (server, _) = built(&bed);
        let fits = lock(&[
            ("fnv", "1.0.7", ""),
            ("other", "1.0.0", "fnv"),
            ("third", "1.0.0", ""),
        ]);
        let page = shown(&server, &fits);
        assert_says(
            &page,
            &[
                "<dt>Prebuilt for their trees</dt><dd>33.3 %</dd>",
                "<dt>Prebuilt of the seconds</dt><dd>100.0 %</dd>",
                "<dt>Packages with known seconds</dt><dd>33.3 %</dd>",
                &format!("<td>1.0.7</td><td>yes</td><td>{BUILDER}</td><td>4.0</td>"),
                "Nothing: no newer compatible version",
            ],
        );
        let older = lock(&[("fnv", "1.0.3", ""), ("other", "1.0.0", "fnv")]);
        let page = shown(&server, &older);
        assert_says(
            &page,
            &[
                "<dt>Prebuilt for their trees</dt><dd>0.0 %</dd>",
                "<dt>Prebuilt of the seconds</dt><dd>0.0 %</dd>",
                "At least 4.0 s of 4.0 s more would be prebuilt",
                "<th scope=\"row\">fnv</th><td>1.0.3</td><td>1.0.7</td><td>4.0</td>",
            ],
        );
        // Nothing that Cargo would not take, and nothing older.
        for version in ["0.9.0", "2.0.0", "1.0.8"] {
            let page = shown(&server, &lock(&[("fnv", version, "")]));
            assert_says(&page, &["Nothing: no newer compatible version"]);
        }
        let names: Vec<String> = (0..2_001).map(|number| format!("p{number}")).collect();
        let many = names.iter().map(|name| (name.as_str(), "1.0.0", ""));
        let page = shown(&server, &lock(&many.collect::<Vec<_>>()));
        assert_says(
            &page,
            &["That was not looked for", "1001 more are not shown."],
        );
    }
}

#[test]
fn a_badge_says_how_much_of_a_project_is_prebuilt() {
    for bed in beds() {
        let (server, _) = built(&bed);
        let bearer = format!("Authorization: Bearer {}", bed.token("octo", "report"));
        let own = lock(&[("fnv", "1.0.7", ""), ("other", "1.0.0", "fnv")]);
        let sent = server.post("/v1/lockfiles?project=cat", &[&bearer], own.as_bytes());
        assert_eq!(sent.status, 200);
        let badge = |query: &str| server.get(&format!("/badge/octo/cat.svg{query}"), &[]);
        assert_says(&badge("?show=prebuilt"), &["quickbuild: 50 % prebuilt"]);
        assert_says(&badge("?show=shared"), &["quickbuild: 50 % shared"]);
        assert_eq!(badge("").text(), badge("?show=shared").text());
        assert_eq!(badge("?show=%3Cb%3E").status, 404);
        let unknown = server.get("/badge/octo/dog.svg?show=prebuilt", &[]);
        assert_eq!(unknown.status, 404);
        assert_says(&unknown, &["quickbuild: unknown"]);
    }
}

/// What is wrong with a page for who cannot see it, or not well: fields without
/// labels, pictures without words, headings that skip a rank, an order of its own
/// for the keyboard, text that hardly differs from what is behind it (WCAG 2.2,
/// 1.4.3), and a page that is wider than its window.
const WRONG: &str = r#"(() => {
    const wrong = [];
    const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
    const light = (colour) => {
        const part = (value) => {
            const share = value / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        };
        const [r, g, b] = numbers(colour);
        return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (numbers(colour)[3] !== 0) return colour;
        }
        return "rgb(255, 255, 255)";
    };
    const contrast = (a, b) => {
        const [less, more] = [light(a), light(b)].sort((x, y) => x - y);
        return (more + 0.05) / (less + 0.05);
    };
    for (const element of document.body.querySelectorAll("*")) {
        const style = getComputedStyle(element);
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        const isTold = ["TITLE", "title"].includes(element.tagName);
        if (own && !isTold) {
            const colour = element.namespaceURI.endsWith("svg") ? style.fill : style.color;
            const found = contrast(colour, behind(element));
            if (found < 4.5) wrong.push(`${element.tagName} "${element.textContent}": ${found}`);
        }
        const line = element.closest("svg") && ["polyline", "circle"].includes(element.tagName);
        if (line) {
            const colour = element.tagName === "circle" ? style.fill : style.stroke;
            if (contrast(colour, behind(element)) < 3) wrong.push(`a line of ${colour}`);
        }
        if (element.tabIndex > 0) wrong.push(`${element.tagName} has an order of its own`);
    }
    for (const field of document.querySelectorAll("input, textarea, select")) {
        if (!field.labels.length) wrong.push(`${field.outerHTML} has no label`);
    }
    for (const drawing of document.querySelectorAll("svg")) {
        if (!drawing.getAttribute("aria-label")) wrong.push("a picture without words");
        const figure = drawing.closest("figure");
        if (!figure.nextElementSibling.querySelector("table")) wrong.push("a picture without numbers");
    }
    let last = 0;
    for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
        const rank = Number(heading.tagName[1]);
        if (rank > last + 1) wrong.push(`${heading.textContent} skips a rank`);
        last = rank;
    }
    if (document.querySelectorAll("h1").length !== 1) wrong.push("not one title");
    for (const cell of document.querySelectorAll("th")) {
        if (!cell.scope) wrong.push(`${cell.textContent} heads nothing`);
    }
    const { scrollWidth, clientWidth } = document.documentElement;
    if (scrollWidth > clientWidth) wrong.push(`${scrollWidth} wide in ${clientWidth}`);
    return wrong;
})()"#;

#[test]
fn pages_are_for_all_eyes_screens_and_keyboards() {
    let (Some(browser), Some(bed)) = (Browser::start(), beds().into_iter().next()) else {
        return;
    };
    let (server, wanted) = built(&bed);
    // Some days, with a hole, and another lock file.
    for (day, hits) in [(1, 0), (2, 40), (3, 30), (5, 20), (6, 10)] {
        let mut days = String::from("INSERT INTO days SELECT day - ");
        write!(days, "{day}, 3, 1, 2, {hits}, 25, {hits} * 900, 25000 FROM days WHERE day = (SELECT MAX(day) FROM days)").unwrap();
        bed.sql(&days);
    }
    bed.sql("UPDATE builds SET since = since - 345600, ended = ended - 86400");
    let mut lines = vec![("fnv", "1.0.3", "")];
    let names: Vec<String> = (0..12).map(|number| format!("package-{number}")).collect();
    lines.extend(names.iter().map(|name| (name.as_str(), "1.0.0", "fnv")));
    let file = bed.env.root().join("Cargo.lock");
    fs::write(&file, lock(&lines)).unwrap();
    for (width, scheme) in [
        (1000, "light"),
        (1000, "dark"),
        (390, "light"),
        (390, "dark"),
    ] {
        browser.is_as_large_as(width, 1600);
        browser.prefers(scheme);
        let look = |name: &str| {
            let wrong = browser.evaluate(WRONG);
            assert_eq!(wrong, json!([]), "{name}, {scheme}, {width}");
            let picture = browser.picture(&format!("{name}-{width}-{scheme}"));
            assert!(picture.starts_with(b"\x89PNG"));
        };
        browser.open(&server.url());
        browser.shows("figure + details summary", "The same in numbers");
        look("overview");
        // Whoever has no pointer can leave out the navigation.
        browser.find("body").write("\u{e004}");
        let at =
            "(at => [at.className, at.getBoundingClientRect().left >= 0])(document.activeElement)";
        assert_eq!(browser.evaluate(at), json!(["skip", true]));
        browser.open(&format!("{}/wants/{}", server.url(), wanted.recipe));
        browser.shows("dl.rows dd", "service-1 (this service's key; it verifies)");
        look("recipe");
        browser.open(&format!("{}/upload", server.url()));
        look("form");
        browser.find("#lock").write(file.to_str().unwrap());
        browser.find("main button").click();
        browser.shows("h1", "Your lock file");
        browser.shows("tbody tr", "fnv 1.0.3 1.0.7 4.0");
        look("lock");
        browser.open(&format!("{}/wants?kind=recipe", server.url()));
        look("recipes");
        browser.open(&format!("{}/builds", server.url()));
        browser.find("tbody a").click();
        browser.shows("h1", "Build of fnv 1.0.7");
        look("build-page");
        browser.open(&format!("{}/workers", server.url()));
        look("workers");
    }
    let complaints: Vec<String> = browser.complaints();
    assert_eq!(complaints, Vec::<String>::new());
    let told: Value = server.get("/v1/coverage", &[]).json();
    assert_eq!(told["days"].as_array().unwrap().len(), 7, "{told}");
}
