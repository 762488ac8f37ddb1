//! Web servers that are ill cost a bounded time and a warning, never a build.

use std::time::{Duration, Instant};

use super::Published;
use crate::support::{Mood, Server};

/// A time that no build of `tiny` takes by itself.
const LONG: Duration = Duration::from_secs(40);

#[test]
fn ill_servers_cost_a_warning() {
    let published = Published::new();
    for (mood, message) in [
        (Mood::Status(500, "X-Y: z"), "answers 500"),
        (Mood::Status(429, "Retry-After: 3600"), "answers 429"),
        (Mood::Status(403, "X-Y: z"), "refuses access (403)"),
        (Mood::Page, "is not what a substituter has there"),
        (Mood::Circling, "too many redirects"),
        (Mood::Silent, "is too slow"),
        (Mood::Dripping, "is too slow"),
    ] {
        let server = Server::moody(&published.cache, move |_, _| mood);
        let client = published.client(&server.url());
        let begin = Instant::now();
        let said = client.assert_all_built();
        assert!(
            begin.elapsed() < LONG,
            "{mood:?} took {:?}",
            begin.elapsed()
        );
        assert!(said.contains(message), "{mood:?}: {said}");
        assert_eq!(said.matches("warning: quickbuild").count(), 1, "{said}");

        // For a while it is left alone.
        let asked = server.requests();
        let other = client.env.checkout(&client.project);
        std::fs::remove_dir_all(client.env.store().join("paths")).unwrap();
        std::fs::create_dir(client.env.store().join("paths")).unwrap();
        let again = client.env.quickbuild(&other, &["build"]).success();
        assert_eq!(server.requests(), asked, "{mood:?}");
        assert!(again.stderr.contains("is left out"), "{again}");
    }
}

#[test]
fn a_server_that_is_gone_costs_a_warning() {
    let published = Published::new();
    let url = Server::new(&published.cache).url();
    let said = published.client(&url).assert_all_built();
    assert!(said.contains("cannot be reached"), "{said}");
    let unknown = published.client("https://cache.invalid");
    let said = unknown.assert_all_built();
    assert!(said.contains("cache.invalid"), "{said}");
}

#[test]
fn what_breaks_off_goes_on_where_it_broke_off() {
    let published = Published::new();
    let server = Server::moody(&published.cache, |path, _| {
        if path.starts_with("/archives") {
            Mood::Breaking
        } else {
            Mood::Good
        }
    });
    // Each part is half of what is missing: some archives take too many.
    let client = published.client(&server.url());
    let built = client.run(&["build"]).success();
    assert!(server.ranges() > 0, "{built}");
    client.env.assert_fresh(&client.project, &["build"]);
    client.assert_sound();

    // One that breaks off every other time.
    let server = Server::moody(&published.cache, |path, number| {
        if path.starts_with("/archives") && number % 2 == 0 {
            Mood::Breaking
        } else {
            Mood::Good
        }
    });
    published.client(&server.url()).assert_all_fetched();
}

#[test]
fn a_busy_server_is_asked_again() {
    let published = Published::new();
    let server = Server::moody(&published.cache, |_, number| match number % 2 {
        0 => Mood::Status(503, "Retry-After: 0"),
        _ => Mood::Good,
    });
    published.client(&server.url()).assert_all_fetched();
}

#[test]
fn a_server_that_dies_on_the_way_costs_a_warning() {
    let published = Published::new();
    for mood in [Mood::Silent, Mood::Page, Mood::Status(500, "X-Y: z")] {
        let server = Server::moody(&published.cache, move |path, number| {
            if path.starts_with("/archives") && number > 3 {
                mood
            } else {
                Mood::Good
            }
        });
        let client = published.client(&server.url());
        let begin = Instant::now();
        let built = client.run(&["build"]).success();
        assert!(
            begin.elapsed() < LONG,
            "{mood:?} took {:?}",
            begin.elapsed()
        );
        assert!(built.stderr.contains("warning"), "{built}");
        client.env.assert_fresh(&client.project, &["build"]);
        client.assert_sound();
    }
}
