//! An order: what to build, whether that is done already, what is valid.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::attempt::Attempt;
use super::compare::Comparison;
use super::journal::Journal;
use super::scratch::Scratch;
use super::skeleton::Skeleton;
use super::{Order, Realisation, Result};
use crate::build::Observer;
use crate::builder::Content;
use crate::cargo::invocation::{Invocation, Subcommand};
use crate::digest::{Canonical, OutputId, RecipeHash};
use crate::interrupt::{Held, SIGINT, SIGTERM};
use crate::output::Output;
use crate::plan::inputs::Inspector;
use crate::plan::{Context, Plan, Verdict};
use crate::store::Store;
use crate::store::archive;
use crate::substitute::{self, Fetched};

impl Order<'_> {
    /// Realises what a workspace depends on. What is valid already is left as it
    /// is; where all of it is, no builder starts.
    pub fn run(&self, observer: &mut dyn Observer) -> Result<Realisation> {
        observer.step("looking at the workspace");
        let skeleton = self.skeleton()?;
        let key = self.key(&skeleton);
        let journal = Journal::new(self.store);
        if let Some(outputs) = journal.realised(key)
            && outputs.iter().all(|name| self.is_valid(name))
        {
            return Ok(Realisation {
                valid: outputs,
                settled: true,
                ..Realisation::default()
            });
        }
        let scratch = Scratch::new(self.store)?;
        observer.step("gathering sources");
        let task = self.task(&skeleton)?;
        // While something is fetched, which may take long, Ctrl-C ends this
        // process, and a builder would have nothing to do.
        let mut fetched = Fetched::default();
        if self.fetches() {
            fetched = self.fetch(observer)?;
            if let Some(outputs) = self.complete()? {
                journal.remember(key, &outputs)?;
                return Ok(Realisation {
                    valid: outputs,
                    fetched,
                    settled: true,
                    ..Realisation::default()
                });
            }
        }
        let held = Held::begin(&[SIGINT, SIGTERM]);
        let (begun, plan) = self.beside(&task, &held, || self.plan())?;
        let valid = match self.terms.same_toolchain {
            true => self.valid(&plan),
            false => BTreeSet::new(),
        };
        let attempt = Attempt {
            order: self,
            into: self.store,
            plan: &plan,
            skeleton: &skeleton,
            valid: &valid,
        };
        let (mut realisation, report) = attempt.run(begun, &scratch, observer)?;
        if report.missing.is_empty() {
            let names: Vec<String> = report.outputs.into_iter().map(|r| r.output).collect();
            journal.remember(key, &names)?;
        }
        realisation.given = valid;
        realisation.fetched = fetched;
        Ok(realisation)
    }

    /// Does once more, in a fresh builder, what a realisation did, and compares
    /// what was made with what the store has. Where nothing was to be made, all
    /// is made anew.
    pub fn check(
        &self,
        realisation: &Realisation,
        observer: &mut dyn Observer,
    ) -> Result<Comparison> {
        let skeleton = self.skeleton()?;
        let (task, held) = (self.task(&skeleton)?, Held::begin(&[SIGINT, SIGTERM]));
        let (begun, plan) = self.beside(&task, &held, || self.plan())?;
        let scratch = Scratch::new(self.store)?;
        let second = Store::open(&scratch.folder("store"))?;
        // The same is given to it: what is compiled against other outputs has
        // another id.
        let given = &realisation.given;
        archive::share(self.store, given, &second)?;
        let attempt = Attempt {
            order: self,
            into: &second,
            plan: &plan,
            skeleton: &skeleton,
            valid: given,
        };
        let (_, report) = attempt.run(begun, &scratch, observer)?;
        let mut comparison = Comparison::default();
        let made = report.outputs.iter();
        for realised in made.filter(|made| !given.contains(&made.output)) {
            let (ours, again) = (
                self.store.output(&realised.output),
                second.output(&realised.output),
            );
            match (ours, again) {
                (Some(ours), Some(again)) => comparison.compare(&ours, &again),
                _ => comparison.unmatched.push(realised.output.clone()),
            }
        }
        Ok(comparison)
    }

    fn skeleton(&self) -> Result<Skeleton> {
        let invocation = self.invocation(Subcommand::Build);
        let mut platforms = vec![self.terms.host.as_str()];
        platforms.extend(invocation.values(&["--target"]));
        let cache = self.store.cache("");
        Ok(Skeleton::make(
            self.environment,
            self.folder,
            &platforms,
            &cache,
        )?)
    }

    fn invocation(&self, subcommand: Subcommand) -> Invocation {
        Invocation {
            subcommand,
            arguments: self.arguments.to_vec(),
        }
    }

    /// Everything that decides what comes out.
    fn key(&self, skeleton: &Skeleton) -> RecipeHash {
        let mut key = Canonical::new("quickbuild-realisation-1");
        key.text(env!("CARGO_PKG_VERSION"));
        key.text(&self.builder.maker().to_string());
        key.list(self.arguments);
        for (name, value) in self.passed_variables() {
            key.text(&name).text(&value);
        }
        key.text(&skeleton.folder.to_string_lossy());
        for entry in &skeleton.files {
            key.text(&entry.path);
            if let Content::Bytes { bytes, .. } = &entry.content {
                key.bytes(bytes);
            }
        }
        RecipeHash::finish(key)
    }

    fn is_valid(&self, store_name: &str) -> bool {
        let output = self.store.output(store_name);
        output.is_some_and(|output| self.store.is_usable(&output))
    }

    /// Whether substituters can be asked: of another toolchain, the plan here
    /// does not know the recipes.
    fn fetches(&self) -> bool {
        !self.substituters.is_empty() && self.terms.same_toolchain
    }

    /// Takes what substituters have of this builder's outputs into the store.
    fn fetch(&self, observer: &mut dyn Observer) -> Result<Fetched> {
        let context = self.context(Subcommand::Build)?;
        let planned = self.planned(&context);
        observer.step("fetching from substituters");
        let inspector = Inspector::new(&context.environment, &context.settings, &context.roots);
        let scene = substitute::Scene {
            context: &context,
            store: self.store,
            inspector: &inspector,
            progress: &*observer,
        };
        let mut warnings = Vec::new();
        let fetched = scene.fill_of(
            &planned.plan,
            self.builder.maker(),
            self.substituters,
            &mut |message| warnings.push(message.to_owned()),
        );
        for warning in warnings {
            observer.warn(&warning);
        }
        Ok(fetched)
    }

    /// The outputs of this builder that make every unit of a package ready, for
    /// `build` and for `check`, as this machine sees them; `None` where one is
    /// missing, or another maker's would be used.
    fn complete(&self) -> Result<Option<Vec<String>>> {
        let maker = self.builder.maker();
        let mut absent: BTreeSet<RecipeHash> = self.wanted.iter().flatten().copied().collect();
        let mut outputs = BTreeSet::new();
        for subcommand in [Subcommand::Build, Subcommand::Check] {
            let Planned { plan, .. } = self.planned(&self.context(subcommand)?);
            let verdicts = plan.units.iter().zip(&plan.resolution.verdicts);
            for (unit, verdict) in verdicts.filter(|(unit, _)| !unit.package.is_path()) {
                match verdict {
                    Verdict::Ready(output) if output.builder == maker => {
                        outputs.insert(output.store_name());
                    }
                    _ => return Ok(None),
                }
                absent.remove(&unit.recipe);
                absent.remove(&unit.host_recipe);
            }
        }
        Ok(absent
            .is_empty()
            .then(|| outputs.into_iter().collect::<Vec<_>>()))
    }

    fn plan(&self) -> Result<Planned> {
        Ok(self.planned(&self.context(Subcommand::Build)?))
    }

    fn context(&self, subcommand: Subcommand) -> Result<Context> {
        let invocation = self.invocation(subcommand);
        let cache = self.store.cache("");
        Ok(Context::gather(
            self.environment,
            self.folder,
            &invocation,
            &cache,
        )?)
    }

    fn planned(&self, context: &Context) -> Planned {
        let inspector = Inspector::new(&context.environment, &context.settings, &context.roots);
        let plan = Plan::make(context, self.store, &inspector);
        let asked = context
            .graph
            .roots
            .first()
            .and_then(|&root| plan.units.get(root));
        let name = asked.map(|unit| format!("{} {}", unit.package.name, unit.package.version));
        Planned {
            name: self
                .name
                .clone()
                .or(name)
                .unwrap_or_else(|| self.folder.display().to_string()),
            plan,
        }
    }

    /// Outputs of this builder for the plan's units, closed under references.
    fn valid(&self, planned: &Planned) -> BTreeSet<String> {
        let maker = self.builder.maker();
        let mut found: BTreeMap<OutputId, Output> = BTreeMap::new();
        for unit in planned.compiled() {
            let names = self.store.candidates(unit.host_recipe);
            let outputs = names.iter().filter_map(|name| self.store.output(name));
            let own =
                outputs.filter(|output| output.builder == maker && self.store.is_usable(output));
            found.extend(own.map(|output| (output.id, output)));
        }
        loop {
            let before = found.len();
            let ids: BTreeSet<OutputId> = found.keys().copied().collect();
            found.retain(|_, output| output.references.iter().all(|id| ids.contains(id)));
            if found.len() == before {
                return found.values().map(Output::store_name).collect();
            }
        }
    }

    /// Variables of the user that are part of recipes.
    fn passed_variables(&self) -> Vec<(String, String)> {
        let is_passed = |name: &str| {
            matches!(
                name,
                "RUSTFLAGS" | "CARGO_ENCODED_RUSTFLAGS" | "CARGO_BUILD_TARGET"
            ) || name.starts_with("CARGO_PROFILE_")
                || name.starts_with("CARGO_UNSTABLE_")
        };
        let passed = self.environment.matching(is_passed);
        passed.map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
    }

    /// All variables that the half in the builder sees.
    pub(super) fn variables(&self, root: &Path) -> Vec<(String, String)> {
        let below = |path: &str| root.join(path).to_string_lossy().into_owned();
        let mut variables = vec![
            ("PATH".to_owned(), self.terms.path.clone()),
            ("HOME".to_owned(), below("work/home")),
            ("CARGO_HOME".to_owned(), below("in/cargo")),
            ("CARGO_TARGET_DIR".to_owned(), below("work/target")),
            ("CARGO_NET_OFFLINE".to_owned(), "true".to_owned()),
            ("TMPDIR".to_owned(), below("work/tmp")),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("TZ".to_owned(), "UTC".to_owned()),
        ];
        variables.extend(self.passed_variables());
        variables
    }
}

/// What is to be built, as this machine sees it.
pub(super) struct Planned {
    /// What people call it: the package that was asked for, the first of many.
    pub(super) name: String,
    pub(super) plan: Plan,
}

impl Planned {
    /// Units of packages that never change.
    pub(super) fn compiled(&self) -> impl Iterator<Item = &crate::plan::Planned> {
        self.plan
            .units
            .iter()
            .filter(|unit| !unit.package.is_path())
    }
}
