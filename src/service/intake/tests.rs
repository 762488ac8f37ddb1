use super::*;

const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn lock(packages: &[(&str, &str, &str)]) -> String {
    let package = |(name, version, needs): &(&str, &str, &str)| {
        format!(
            "[[package]]\nname = {name:?}\nversion = {version:?}\nsource = {SOURCE:?}\ndependencies = [{needs}]\n"
        )
    };
    packages.iter().map(package).collect()
}

#[test]
fn what_it_needs_comes_first_and_is_counted_once() {
    let text = lock(&[
        ("a", "1.0.0", "\"b\", \"c\""),
        ("b", "1.0.0", "\"c\""),
        ("c", "1.0.0", ""),
    ]);
    let intake = Intake::of_lock(text.as_bytes(), None).unwrap();
    for (position, want) in intake.wants.iter().enumerate() {
        assert!(want.needs.iter().all(|need| *need < position));
    }
    let size = |name| {
        let mut wants = intake.wants.iter();
        wants.find(|want| want.name == name).unwrap().packages
    };
    assert_eq!([size("a"), size("b"), size("c")], [3, 2, 1]);
    assert_eq!(intake.project, NO_PROJECT);
    assert_eq!(intake.left_out, 0);
}

#[test]
fn the_rules_of_crates_io_hold() {
    for (name, version, is_taken) in [
        ("serde", "1.0.0", true),
        ("a_b-c", "1.0.0-rc.1+build.5", true),
        ("1password", "1.0.0", false),
        ("_a", "1.0.0", false),
        ("", "1.0.0", false),
        ("a", "", false),
        ("a", "latest", false),
        ("a.b", "1.0.0", false),
        ("ä", "1.0.0", false),
        ("a", "1.0.0 ", false),
    ] {
        let read = Intake::of_lock(lock(&[(name, version, "")]).as_bytes(), None);
        assert_eq!(read.is_ok(), is_taken, "{name:?} {version:?}: {read:?}");
    }
}

#[test]
fn both_spellings_of_crates_io_are_one() {
    let sparse = lock(&[("a", "1.0.0", "")]).replace(SOURCE, "sparse+https://index.crates.io/");
    let [a, b] = [lock(&[("a", "1.0.0", "")]), sparse].map(|text| {
        Intake::of_lock(text.as_bytes(), None).unwrap().wants[0]
            .hash
            .clone()
    });
    assert_eq!(a, b);
}

#[test]
fn the_same_report_has_the_same_content_whatever_was_used() {
    let read = |report: Report| Intake::of_report(&serde_json::to_vec(&report).unwrap()).unwrap();
    let plain = Report {
        format: FORMAT,
        lock: Some(lock(&[("a", "1.0.0", "")])),
        ..Report::default()
    };
    let used = Report {
        usage: Some(Usage {
            id: "0".to_owned(),
            hits: 1,
            misses: 2,
            seconds_saved: 0.5,
            seconds_compiled: 0.0,
        }),
        ..plain.clone()
    };
    let built = Report {
        builder: Some("1.95.0-x86_64-unknown-linux-gnu".to_owned()),
        ..plain.clone()
    };
    assert_eq!(read(plain.clone()).content, read(used).content);
    assert_ne!(read(plain).content, read(built.clone()).content);
    let kinds: Vec<Kind> = read(built).wants.iter().map(|want| want.kind).collect();
    assert_eq!(kinds, [Kind::Tree, Kind::Builder]);
}

#[test]
fn a_ring_has_no_order_and_is_taken_all_the_same() {
    let text = lock(&[("a", "1.0.0", "\"b\""), ("b", "1.0.0", "\"a\"")]);
    let wants = Intake::of_lock(text.as_bytes(), None).unwrap().wants;
    assert_eq!(wants.len(), 2);
    assert!(wants.iter().all(|want| want.needs.is_empty()));
}
