//! A worker that compiles nothing: it sleeps, and makes up the files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use quickbuild::digest::{Canonical, OutputId, RecipeHash, UnitKey};
use quickbuild::output::{FORMAT, Inputs, Maker, Output, Produced, Role, output_id};
use quickbuild::recipe::package::PackageRecipe;
use quickbuild::report::work::{Job, Verdict};
use quickbuild::store::{Source, Store, archive, describe_bytes};

use crate::support::{Client, Numbers};
use crate::{BUILDER, Day, PROCESSORS, SECONDS, STAND_IN};

/// How long a worker waits when there is nothing to do.
const PAUSE: Duration = Duration::from_millis(50);
/// The image that is said to have made it.
const IMAGE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000001";

/// What a worker has made.
#[derive(Default)]
pub(crate) struct Made {
    /// What was wanted of each build.
    pub(crate) wanted: Vec<RecipeHash>,
    /// What it has compiled.
    pub(crate) compiled: Vec<RecipeHash>,
    /// What it was sent for and found published.
    pub(crate) fetched: usize,
    /// Seconds of the hours' time that compiling took.
    pub(crate) busy: f64,
    /// How long the service took to verify, sign and publish, in real time.
    pub(crate) sent: Vec<Duration>,
}

/// One of those who build.
pub(crate) struct Worker<'a> {
    day: &'a Day,
    name: String,
    headers: String,
    store: Store,
    scratch: PathBuf,
    public: PathBuf,
    outputs: BTreeMap<RecipeHash, OutputId>,
    made: Made,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(day: &'a Day, number: usize, token: &str, folder: &Path) -> Self {
        let headers =
            format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n");
        Self {
            day,
            name: format!("worker-{number}"),
            headers,
            store: Store::open(folder).expect("a store"),
            scratch: folder.with_extension("export"),
            public: day.data.join("public"),
            outputs: BTreeMap::new(),
            made: Made::default(),
        }
    }

    /// Builds until the day is over.
    pub(crate) fn work(mut self) -> Made {
        let mut connection = Client::new(&self.day.address);
        let ask = format!(
            "{{\"format\":1,\"worker\":\"{}\",\"builders\":[\"{BUILDER}\"]}}",
            self.name
        );
        let mut is_idle = false;
        while !self.day.is_over.load(Ordering::Relaxed) {
            let (status, job) = connection.send("POST /v1/work", &self.headers, ask.as_bytes());
            if status == 204 {
                if !is_idle {
                    self.day.idle.fetch_add(1, Ordering::Relaxed);
                }
                is_idle = true;
                std::thread::sleep(PAUSE);
                continue;
            }
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(&job));
            if is_idle {
                self.day.idle.fetch_sub(1, Ordering::Relaxed);
                is_idle = false;
            }
            let job: Job = serde_json::from_slice(&job).expect("a job");
            self.build(&mut connection, &job);
        }
        self.made
    }

    fn build(&mut self, connection: &mut Client, job: &Job) {
        let texts = job.recipes.iter();
        let recipes = texts.map(|text| PackageRecipe::from_toml(text).expect("a recipe"));
        let recipes: Vec<PackageRecipe> = recipes.collect();
        let mut compiled = 0;
        for recipe in &recipes {
            // The file is there before the service gives away what waited for it.
            if self.is_published(recipe.hash()) {
                self.made.fetched += 1;
            } else {
                self.made.compiled.push(recipe.hash());
                compiled += 1;
            }
            self.make(recipe);
        }
        let took = f64::from(compiled) * SECONDS / PROCESSORS;
        self.made.busy += took;
        std::thread::sleep(Duration::from_secs_f64(took / self.day.speed()));
        let wanted = recipes.last().expect("something is wanted").hash();
        let name = self.store.output(&self.name_of(wanted));
        let name = name.expect("it was made").store_name();
        let _ = archive::export(&self.store, &[name], &self.scratch).expect("an export");
        let export = std::fs::read(&self.scratch).expect("an export");
        let path = format!("PUT /v1/work/{}/outputs", job.lease);
        let begin = Instant::now();
        let (status, verdict) = connection.send(&path, &self.headers, &export);
        self.made.sent.push(begin.elapsed());
        let said = String::from_utf8_lossy(&verdict).into_owned();
        assert_eq!(status, 200, "{said}");
        let verdict: Verdict = serde_json::from_slice(&verdict).expect("a verdict");
        assert_eq!(verdict.accepted, recipes.len(), "{said}");
        self.made.wanted.push(wanted);
        for recipe in &recipes {
            assert!(
                self.is_published(recipe.hash()),
                "{} is published",
                recipe.hash()
            );
            let number = self.day.corpus.by_recipe[&recipe.hash()];
            self.day.published[number].store(true, Ordering::Relaxed);
        }
    }

    fn is_published(&self, recipe: RecipeHash) -> bool {
        let file = format!("recipes/{recipe}.json.zst");
        self.public.join(file).is_file()
    }

    fn name_of(&self, recipe: RecipeHash) -> String {
        let names = self.store.candidates(recipe);
        names.into_iter().next().expect("it was made")
    }

    /// Makes up an output; the same recipe gives the same bytes on any worker.
    fn make(&mut self, recipe: &PackageRecipe) {
        let hash = recipe.hash();
        if self.outputs.contains_key(&hash) {
            return;
        }
        let mut seed = [0; 8];
        seed.copy_from_slice(&hash.as_bytes()[..8]);
        let mut numbers = Numbers(u64::from_le_bytes(seed));
        let bytes: Vec<u8> = (0..STAND_IN / 8)
            .flat_map(|_| numbers.below(u64::MAX).to_le_bytes())
            .collect();
        let mut key = Canonical::new("stand-in");
        key.text(&hash.to_string());
        let key = UnitKey::finish(key);
        let references = recipe.needs();
        let references: Vec<OutputId> = references.iter().map(|need| self.outputs[need]).collect();
        let maker = Maker::image(IMAGE).expect("a digest");
        let inputs = Inputs::default();
        let unit_id = format!("{:016x}", numbers.below(u64::MAX));
        let output = Output {
            format: FORMAT,
            id: output_id(key, &inputs, &references, &maker),
            recipe: hash,
            host_recipe: hash,
            key,
            name: recipe.name().to_owned(),
            version: recipe.version().to_owned(),
            target_kind: "lib".to_owned(),
            produced: Produced::Build,
            references,
            inputs,
            files: vec![describe_bytes(
                Role::Library,
                format!("lib{}@.rlib", recipe.main().target.name),
                &bytes,
            )],
            extra_filename: format!("-{unit_id}"),
            unit_id,
            timed: false,
            mentions_clippy: false,
            rustc_dep_info: None,
            cargo_dep_info: None,
            local: Vec::new(),
            seconds: SECONDS,
            jobs: 1,
            glibc: None,
            builder: maker,
        };
        let added = self.store.add(&output, &[Source::Bytes(bytes)]);
        let _ = added.expect("it is added");
        self.outputs.insert(hash, output.id);
    }
}

/// A new key; gives its file.
pub(crate) fn key(folder: &Path) -> PathBuf {
    let home = folder.join("home");
    let mut generate = Command::new(env!("CARGO_BIN_EXE_quickbuild"));
    generate.args(["key", "generate", "day-1"]);
    let made = generate.env("XDG_CONFIG_HOME", &home).env("HOME", &home);
    let made = made.output().expect("a key");
    assert!(made.status.success(), "{made:?}");
    let file = home.join("quickbuild/keys/day-1.secret");
    assert!(file.is_file(), "a key has a file");
    file
}

/// The token of workers that are believed.
pub(crate) fn token(data: &Path) -> String {
    let mut add = Command::new(env!("CARGO_BIN_EXE_quickbuild"));
    if std::env::var_os("QUICKBUILD_SERVICE_DATABASE").is_some() {
        let mut migrate = Command::new(env!("CARGO_BIN_EXE_quickbuild"));
        let migrated = migrate.args(["service", "migrate"]).status();
        assert!(migrated.expect("it starts").success());
    }
    add.args(["service", "token", "add", "box", "--scope", "work-trusted"]);
    let made = add.arg("--data").arg(data).output().expect("a token");
    assert!(made.status.success(), "{made:?}");
    String::from_utf8_lossy(&made.stdout).trim().to_owned()
}
