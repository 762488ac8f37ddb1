//! What keeps what was counted: back-ups, TLS to the database, a disk that is full.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use super::{Bed, hashes, lock, report, voices};
use crate::support::postgres::Postgres;
use crate::support::{Mount, Serving, note, skipped};

/// What client `number` wants, of things that many want.
fn wanted(number: usize) -> String {
    let names: Vec<String> = (0..12)
        .filter(|package| !(package * 7 + number * 3_usize).is_multiple_of(4))
        .map(|package| format!("p{package}"))
        .collect();
    let packages: Vec<(&str, &str, &str)> = names
        .iter()
        .map(|name| (name.as_str(), "1.0.0", ""))
        .collect();
    lock(&packages)
}

fn address(number: usize) -> String {
    format!("198.51.{}.{}", number / 200, number % 200)
}

/// Sees that as many want each thing as these clients do.
#[track_caller]
fn assert_counts(server: &Serving, clients: &BTreeSet<usize>) {
    let locks: Vec<BTreeSet<String>> = clients
        .iter()
        .map(|client| hashes(&wanted(*client)).into_values().collect())
        .collect();
    let all: BTreeSet<&String> = locks.iter().flatten().collect();
    assert!(!all.is_empty());
    for hash in all {
        let count = locks.iter().filter(|lock| lock.contains(hash)).count();
        assert_eq!(voices(server, hash), count as i64, "{hash}");
    }
}

/// Copies a database while clients report; gives those who were answered before
/// it began, and those who were answered at all.
fn copied_under_load(server: &Serving, copy: impl FnOnce()) -> (BTreeSet<usize>, BTreeSet<usize>) {
    let answered = Mutex::new(BTreeSet::new());
    let before = std::thread::scope(|scope| {
        for thread in 0..4 {
            let answered = &answered;
            scope.spawn(move || {
                for client in (thread..160).step_by(4) {
                    let answer = report(server, &address(client), "p", &wanted(client));
                    assert_eq!(answer.status, 200, "{answer:?}");
                    answered.lock().unwrap().insert(client);
                }
            });
        }
        while answered.lock().unwrap().len() < 40 {
            std::thread::yield_now();
        }
        let before = answered.lock().unwrap().clone();
        copy();
        before
    });
    (before, answered.into_inner().unwrap())
}

/// A service that goes on from a copy has all that was answered before it was
/// taken, and counts on from there.
fn assert_goes_on(bed: &Bed, arguments: &[&str], before: &BTreeSet<usize>, all: &BTreeSet<usize>) {
    let server = bed.start(arguments);
    assert_eq!(server.get("/readyz", &[]).status, 200);
    let is_news = |client: &usize| {
        let answer = report(&server, &address(*client), "p", &wanted(*client));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["counted"] == true
    };
    // It is the same voice that said it, too: the key of voices was copied.
    let lost: Vec<&usize> = before.iter().filter(|client| is_news(client)).collect();
    assert!(lost.is_empty(), "the copy has not {lost:?}");
    let late = all.iter().filter(|client| is_news(client)).count();
    assert_counts(&server, all);
    note(&format!(
        "service: {} reports before a copy, {} while it was taken, of which it has {}",
        before.len(),
        all.len() - before.len(),
        all.len() - before.len() - late
    ));
}

#[test]
fn a_copy_of_sqlite_has_all_that_was_answered() {
    let bed = Bed::sqlite();
    let token = bed.token("ci", "report");
    let server = bed.start(&["--no-access-log"]);
    let (before, all) = copied_under_load(&server, || {
        let done = bed.run(&["service", "backup", "copy.sqlite"]).success();
        assert!(done.stdout.contains("copy.sqlite"), "{done}");
    });
    drop(server);
    let copy = bed.project.path("copy.sqlite");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&copy).unwrap());
    assert_eq!(mode & 0o777, 0o600, "it has the key of voices");
    // Nothing is replaced, and nothing is left beside it.
    let again = bed.run(&["service", "backup", "copy.sqlite"]);
    assert_eq!(again.code, Some(3), "{again}");
    let beside = fs::read_dir(copy.parent().unwrap()).unwrap();
    let names = beside.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = names.filter(|name| name.contains("copy.sqlite")).collect();
    assert_eq!(left, ["copy.sqlite"]);

    let folder = bed.project.path("restored");
    fs::create_dir(&folder).unwrap();
    fs::rename(&copy, folder.join("service.sqlite")).unwrap();
    assert_goes_on(&bed, &["--data", "restored"], &before, &all);
    let server = bed.start(&["--data", "restored"]);
    let bearer = format!("Authorization: Bearer {token}");
    let known = server.post("/v1/lockfiles", &[&bearer], wanted(1).as_bytes());
    assert_eq!(known.status, 200, "tokens were copied");
}

#[test]
fn a_copy_of_nothing_is_none() {
    let bed = Bed::sqlite();
    let none = bed.run(&["service", "backup", "--data", "absent", "copy.sqlite"]);
    assert_eq!(none.code, Some(3), "{none}");
    assert!(none.stderr.contains("there is no database"), "{none}");
    assert!(!bed.project.path("absent").exists() && !bed.project.path("copy.sqlite").exists());
    let other = bed
        .env
        .with("QUICKBUILD_SERVICE_DATABASE", "postgres://127.0.0.1:1/x");
    let server = other.quickbuild(&bed.project, &["service", "backup", "copy.sqlite"]);
    assert_eq!(server.code, Some(3), "{server}");
    assert!(server.stderr.contains("pg_dump"), "{server}");
}

#[test]
fn a_copy_of_postgresql_has_all_that_was_answered() {
    let Some(bed) = Bed::postgres() else {
        return;
    };
    let server = bed.start(&["--no-access-log"]);
    let postgres = bed.postgres.as_ref().unwrap();
    let mut dump = Vec::new();
    let (before, all) = copied_under_load(&server, || dump = postgres.dump());
    drop(server);
    // A server that knows nothing of the first.
    let Some(other) = Bed::empty_postgres() else {
        return;
    };
    other.postgres.as_ref().unwrap().restore(&dump);
    assert_goes_on(&other, &[], &before, &all);
}

fn openssl(folder: &Path, words: &str) {
    let mut command = Command::new("openssl");
    let output = command.args(words.split(' ')).current_dir(folder).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{words}: {output:?}");
}

/// An authority with a certificate for an address.
fn certificate(folder: &Path, address: &str) {
    fs::create_dir(folder).unwrap();
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(
        folder,
        &format!("req -x509 -days 2 {new} -keyout ca.key -out ca.pem -subj /CN=authority"),
    );
    openssl(
        folder,
        &format!("req {new} -keyout server.key -out server.csr -subj /CN=server"),
    );
    let extensions = format!("subjectAltName=IP:{address}\n");
    fs::write(folder.join("extensions"), extensions).unwrap();
    openssl(
        folder,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out server.pem -extfile extensions",
    );
}

#[test]
fn postgresql_is_asked_over_tls_and_must_show_its_certificate() {
    let version = Command::new("openssl").arg("version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        skipped("openssl", "openssl is not installed");
        return;
    }
    let mut bed = Bed::sqlite();
    let [own, other] = ["own", "other"].map(|name| bed.env.root().join(name));
    certificate(&own, "127.0.0.1");
    certificate(&other, "127.0.0.1");
    let Some(postgres) = Postgres::start_with_tls(&own) else {
        return;
    };
    let url = |mode: &str, authority: &Path| {
        let authority = authority.join("ca.pem");
        let authority = authority.to_str().unwrap();
        format!("{}?sslmode={mode}&sslrootcert={authority}", postgres.url())
    };
    let migrate = |url: &str| {
        let env = bed.env.with("QUICKBUILD_SERVICE_DATABASE", url);
        env.quickbuild(&bed.project, &["service", "migrate"])
    };
    // Another authority's certificate, another name's, and none at all.
    let wrong = migrate(&url("verify-full", &other));
    assert_eq!(wrong.code, Some(3), "{wrong}");
    let said = wrong.stderr.to_lowercase();
    assert!(said.contains("certificate"), "{wrong}");
    let name = url("verify-full", &own).replace("127.0.0.1", "localhost");
    let name = migrate(&name);
    assert_eq!(name.code, Some(3), "{name}");
    let plain = migrate(&url("disable", &own));
    assert_eq!(plain.code, Some(3), "{plain}");

    let right = url("verify-full", &own);
    let made = migrate(&right).success();
    assert!(made.stdout.contains("the tables are made"), "{made}");
    bed.env = bed.env.with("QUICKBUILD_SERVICE_DATABASE", right);
    let server = bed.start(&[]);
    let answer = report(&server, "192.0.2.1", "p", &wanted(1));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_counts(&server, &BTreeSet::from([1]));
    let all = "SELECT count(*) > 1 AND bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity \
        USING (pid) WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    assert_eq!(postgres.query(all).trim(), "t", "a connection without TLS");
}

/// Fills a file system; gives the file that does.
fn fill(folder: &Path) -> std::path::PathBuf {
    let ballast = folder.join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    let part = [0; 4096];
    while std::io::Write::write_all(&mut file, &part).is_ok() {}
    ballast
}

#[test]
fn a_full_disk_loses_nothing_and_is_over_when_there_is_room() {
    let bed = Bed::sqlite();
    let Some(mount) = Mount::new(bed.env.root().join("small"), "16m") else {
        return;
    };
    let data = mount.path().join("data");
    let data = ["--data", data.to_str().unwrap()];
    let server = bed.start(&data);
    let mut counted = BTreeSet::new();
    let mut next = 0;
    for round in 0..3 {
        for _ in 0..10 {
            let answer = report(&server, &address(next), "p", &wanted(next));
            assert_eq!(answer.status, 200, "{answer:?}");
            counted.insert(next);
            next += 1;
        }
        let ballast = fill(mount.path());
        // What has its place on the disk already is written over for a while.
        let mut refused = 0;
        for _ in 0..3_000 {
            let answer = report(&server, &address(next), "p", &wanted(next));
            next += 1;
            match answer.status {
                200 => drop(counted.insert(next - 1)),
                _ => {
                    assert_eq!(answer.status, 503, "{answer:?}");
                    assert!(answer.header("retry-after").is_some(), "{answer:?}");
                    refused += 1;
                }
            }
            if refused == 5 {
                break;
            }
        }
        assert_eq!(refused, 5, "the disk is not full");
        server.says("is full");
        // What was counted is told all the same.
        assert_counts(&server, &counted);
        assert_eq!(server.get("/healthz", &[]).status, 200);
        fs::remove_file(ballast).unwrap();
        let again = report(&server, &address(next), "p", &wanted(next));
        assert_eq!(again.status, 200, "round {round}: {again:?}");
        counted.insert(next);
        next += 1;
        assert_counts(&server, &counted);
    }
    drop(server);
    assert_counts(&bed.start(&data), &counted);
}
