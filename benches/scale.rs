//! Planning and linking against the number of units, and the peak memory.
//!
//! The workspace is generated: 1,000 members, each needing two others. The last
//! of each size needs all before it, so that `-p m249` is a tree of 250 units.
//! It is compiled once, which takes some minutes; then each round plans and
//! links into a fresh target directory.
//!
//! `cargo bench --bench scale` prints the time for each size, with the units as
//! throughput, and last the peak memory of `quickbuild build` of all.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use quickbuild::cargo::invocation::{Invocation, Subcommand};
use quickbuild::console::{self, Unseen};
use quickbuild::environment::Environment;
use quickbuild::link::{self, Linker, Unnoted};
use quickbuild::plan::inputs::Inspector;
use quickbuild::plan::state::State;
use quickbuild::plan::{Context, Plan};
use quickbuild::store::Store;

const SIZES: [usize; 4] = [125, 250, 500, 1_000];
const LARGEST: usize = 1_000;

fn main() {
    // `cargo test --benches` and the like want to know that it starts, no more.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder for the workspace");
    let scale = Scale::new(folder.path());
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .configure_from_args();
    scale.measure(&mut criterion);
    criterion.final_summary();
    console::out(&format!(
        "peak memory of a second checkout with {LARGEST} units: {:.0} MB\n",
        scale.peak_memory() as f64 / 1e6
    ));
}

/// A compiled workspace and the store that it filled.
struct Scale {
    first: PathBuf,
    second: PathBuf,
    store: PathBuf,
}

impl Scale {
    fn new(root: &Path) -> Self {
        let scale = Self {
            first: root.join("first"),
            second: root.join("second"),
            store: root.join("store"),
        };
        for checkout in [&scale.first, &scale.second] {
            generate(checkout).expect("a workspace");
        }
        console::line(&format!("compiling {LARGEST} packages once"));
        let status = scale.quickbuild(&scale.first).status();
        assert!(status.expect("quickbuild starts").success());
        scale
    }

    fn quickbuild(&self, checkout: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quickbuild"));
        command
            .args(["build", "--offline", "--quiet", "--package"])
            .arg(member(LARGEST - 1))
            .current_dir(checkout)
            .env("QUICKBUILD_STORE", &self.store)
            .env_remove("CARGO_TARGET_DIR")
            .stdin(Stdio::null());
        command
    }

    fn measure(&self, criterion: &mut Criterion) {
        let environment =
            Environment::new(std::env::vars_os().filter(|(name, _)| name != "CARGO_TARGET_DIR"));
        let store = Store::open(&self.store).expect("the store");
        let cache = store.cache("");
        let gather = |size: usize| {
            let arguments = ["--offline", "--package", &member(size - 1)];
            let invocation = Invocation {
                subcommand: Subcommand::Build,
                arguments: arguments.map(str::to_owned).to_vec(),
            };
            Context::gather(&environment, &self.second, &invocation, &cache).expect("a context")
        };
        let mut group = criterion.benchmark_group("plan");
        for size in SIZES {
            let _ = gather(size); // asks Cargo, once
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(|| {
                    let context = gather(size);
                    let inspector =
                        Inspector::new(&context.environment, &context.settings, &context.roots);
                    let plan = Plan::make(&context, &store, &inspector);
                    assert_eq!((plan.units.len(), plan.ready()), (size, size));
                });
            });
        }
        group.finish();
        let old = AtomicUsize::new(0);
        let mut group = criterion.benchmark_group("link");
        for size in SIZES {
            let context = gather(size);
            let inspector = Inspector::new(&context.environment, &context.settings, &context.roots);
            let plan = Plan::make(&context, &store, &inspector);
            // Out of the way rather than deleted: ext4 spends milliseconds on
            // new files for a while after many were deleted.
            let clean = || {
                let old = format!("target-{}", old.fetch_add(1, Ordering::Relaxed));
                let _ = fs::rename(self.second.join("target"), self.second.join(old));
                State::default()
            };
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                let link = |mut state: State| {
                    let linker = Linker {
                        context: &context,
                        store: &store,
                        inspector: &inspector,
                        time: link::time(&state),
                        unnoted: Unnoted::Adopt,
                        progress: &Unseen,
                    };
                    let (linked, error) = linker.link(&plan, &mut state);
                    assert!(
                        error.is_none() && linked.placed == size,
                        "{error:?} {linked:?}"
                    );
                };
                bencher.iter_batched(clean, link, BatchSize::PerIteration);
            });
        }
        group.finish();
    }

    /// Bytes of quickbuild's largest resident set, Cargo apart (`VmHWM`,
    /// `proc(5)`): it only grows, so the last value seen is the peak.
    fn peak_memory(&self) -> u64 {
        let _ = fs::remove_dir_all(self.second.join("target"));
        let mut process = self.quickbuild(&self.second).spawn().expect("it starts");
        let status = format!("/proc/{}/status", process.id());
        let mut peak = 0;
        while process.try_wait().expect("it can be waited for").is_none() {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
            peak = peak.max(kilobytes.unwrap_or(0) * 1024);
            std::thread::sleep(Duration::from_millis(1));
        }
        peak
    }
}

fn member(number: usize) -> String {
    format!("m{number}")
}

/// Writes the workspace: member n needs n/2 and n/3, the last of a size all.
fn generate(root: &Path) -> std::io::Result<()> {
    fs::create_dir_all(root)?;
    fs::write(
        root.join("Cargo.toml"),
        "[workspace]\nresolver = \"2\"\nmembers = [\"m*\"]\n[profile.dev]\ndebug = false\n",
    )?;
    for number in 0..LARGEST {
        let folder = root.join(member(number)).join("src");
        fs::create_dir_all(&folder)?;
        let mut needs: Vec<usize> = match number {
            0 => Vec::new(),
            _ if SIZES.contains(&(number + 1)) => (0..number).collect(),
            _ => vec![number / 2, number / 3],
        };
        needs.sort_unstable();
        needs.dedup();
        let name = member(number);
        let mut manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\n"
        );
        let mut source = format!("pub fn f() -> usize {{\n    {number}");
        for need in needs {
            let name = member(need);
            writeln!(manifest, "{name} = {{ path = \"../{name}\" }}").expect("writing to memory");
            write!(source, " + usize::from({name}::f() > 1)").expect("writing to memory");
        }
        source.push_str("\n}\n");
        fs::write(folder.join("lib.rs"), source)?;
        fs::write(folder.with_file_name("Cargo.toml"), manifest)?;
    }
    Ok(())
}
