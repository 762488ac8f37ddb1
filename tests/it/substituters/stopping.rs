//! Fetching that ends before it is done: by Ctrl-C, by kills, by a full disk.
//! What is in the store then is whole, and the next time all of it comes.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Output};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::{Client, Published};
use crate::support::{Mood, Mount, Server};

/// A time that none of this takes by itself.
const LONG: Duration = Duration::from_secs(120);

/// Where requests wait until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<(usize, bool)>, Condvar)>);

impl Gate {
    /// Waits until it is open.
    fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.0 += 1;
        changed.notify_all();
        drop(changed.wait_while(state, |(_, open)| !*open).unwrap());
    }

    /// Waits until somebody waits.
    fn reached(&self) {
        let (state, changed) = &*self.0;
        let state = state.lock().unwrap();
        let nobody = |(waiting, _): &mut (usize, bool)| *waiting == 0;
        let (_state, late) = changed.wait_timeout_while(state, LONG, nobody).unwrap();
        assert!(!late.timed_out(), "nobody has come to the gate");
    }

    fn open(&self) {
        self.0.0.lock().unwrap().1 = true;
        self.0.1.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Whatever fails, no server is left waiting.
        self.open();
    }
}

/// A server whose requests wait from the one of this number on.
fn gated(published: &Published, first: usize) -> (Server, Gate) {
    let gate = Gate::default();
    let inside = Arc::clone(&gate.0);
    let server = Server::moody(&published.cache, move |_, number| {
        if number >= first {
            let gate = std::mem::ManuallyDrop::new(Gate(Arc::clone(&inside)));
            gate.pass();
        }
        Mood::Good
    });
    (server, gate)
}

/// Somebody who would wait for a long time.
fn patient(published: &Published, url: &str) -> Client {
    published.configured(&format!(
        "[[substituters]]\nurl = \"{url}\"\nmembers = true\ntimeout = \"600s\"\npublic-keys = [\"{}\"]\n",
        published.key
    ))
}

fn signal(child: &Child, name: &str) {
    let mut kill = Command::new("kill");
    kill.arg(format!("-{name}")).arg(child.id().to_string());
    assert!(kill.status().unwrap().success());
}

/// The end of a process that must end soon.
fn ended(mut child: Child) -> Output {
    let give_up = Instant::now() + LONG;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > give_up {
            signal(&child, "KILL");
            panic!("it does not end: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

/// As shells have it.
fn code(output: &Output) -> Option<i32> {
    let signal = output.status.signal().map(|signal| 128 + signal);
    output.status.code().or(signal)
}

#[test]
fn ctrl_c_leaves_nothing_half_done() {
    let published = Published::new();
    for (name, expected) in [("INT", 130), ("TERM", 143)] {
        for command in ["substitute", "build"] {
            // Some archives come, and the others would take for ever.
            let (server, gate) = gated(&published, 4);
            let client = patient(&published, &server.url());
            let child = client.env.spawn_quickbuild(&client.project, &[command]);
            gate.reached();
            signal(&child, name);
            let output = ended(child);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(code(&output), Some(expected), "{said}");
            assert!(!said.contains("Compiling"), "{said}");
            client.assert_sound();
            gate.open();
            client.assert_all_fetched();
        }
    }
}

#[test]
fn a_kill_at_any_stage_leaves_whole_outputs() {
    let published = Published::new();
    // Before the first answer, before documents, between archives.
    for first in 0..8 {
        let (server, gate) = gated(&published, first);
        let client = patient(&published, &server.url());
        let child = client
            .env
            .spawn_quickbuild(&client.project, &["substitute"]);
        gate.reached();
        signal(&child, "KILL");
        assert_eq!(code(&ended(child)), Some(137));
        let _ = client.run(&["store", "verify"]).success();
        gate.open();
        let _ = client.run(&["build"]).nothing_built();
        client.env.assert_fresh(&client.project, &["build"]);
    }
}

#[test]
fn a_terminal_shows_how_far_it_is() {
    let published = Published::new();
    let (server, gate) = gated(&published, 4);
    let client = patient(&published, &server.url());
    let mut child = client
        .env
        .spawn_in_terminal(&client.project, &["substitute"]);
    gate.reached();
    // What is shown while the rest is waited for.
    let mut shown = Vec::new();
    let mut from = child.stdout.take().unwrap();
    let mut piece = [0; 4096];
    let has = |shown: &[u8], text: &str| String::from_utf8_lossy(shown).contains(text);
    while !(has(&shown, " outputs [") && has(&shown, "/s, ") && has(&shown, " left")) {
        let count = from.read(&mut piece).unwrap();
        let text = String::from_utf8_lossy(&shown);
        assert!(count > 0, "it ended without a bar: {text}");
        shown.extend_from_slice(&piece[..count]);
    }
    gate.open();
    from.read_to_end(&mut shown).unwrap();
    assert_eq!(code(&ended(child)), Some(0));
    assert!(has(&shown, "outputs fetched"));
    client.assert_sound();

    // Nobody looks: the summary, and nothing else.
    let client = published.folder_client();
    let plain = client.run(&["substitute"]).success();
    assert_eq!(plain.stderr, "", "{plain}");
    assert_eq!(plain.stdout.lines().count(), 1, "{plain}");
}

/// The disk fills while archives are unpacked, at several points.
#[test]
fn a_disk_that_fills_costs_a_warning() {
    let published = Published::new();
    for size in ["100k", "300k", "600k"] {
        let client = published.folder_client();
        let Some(disk) = Mount::new(client.env.root().join(format!("disk-{size}")), size) else {
            return;
        };
        let env = client.env.with_store(&disk.path().join("store"));
        let built = env.quickbuild(&client.project, &["build"]).success();
        assert!(built.stderr.contains("warning"), "{built}");
        env.assert_fresh(&client.project, &["build"]);
        let _ = env
            .quickbuild(&client.project, &["store", "verify"])
            .success();
        let left = fs::read_dir(disk.path().join("store/tmp")).unwrap().count();
        assert_eq!(left, 0, "something is left in the store's `tmp`");

        disk.remount("size=200m");
        let other = env.checkout(&client.project);
        let _ = env.quickbuild(&other, &["cache", "clear"]).success();
        // What Cargo compiled meanwhile may have come into the store, and then what
        // is published fits it no more: so something may be built, without trouble.
        let again = env.quickbuild(&other, &["build"]).success();
        assert!(!again.stderr.contains("warning"), "{again}");
        env.assert_fresh(&other, &["build"]);
    }
}
