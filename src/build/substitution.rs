//! Fetching within a command, and as a command of its own.

use super::{Observer, Prepared, Problem, Request, chain, prepare};
use crate::config::Config;
use crate::link::{self, Linker, Unnoted};
use crate::plan::Plan;
use crate::plan::inputs::Inspector;
use crate::plan::state::State;
use crate::substitute::{Fetched, Reach, Scene, Substituters};

/// What [`substitute()`] has done.
#[derive(Debug, Default, Clone, Copy)]
pub struct Substitution {
    /// Units of the command.
    pub units: usize,
    /// Those that are ready now.
    pub ready: usize,
    /// Those that are linked now, too.
    pub linked: usize,
    /// What was fetched.
    pub fetched: Fetched,
}

/// Fetches and links what a command needs; Cargo compiles nothing.
pub fn substitute(
    request: &Request,
    config: &Config,
    observer: &mut dyn Observer,
) -> Result<Substitution, String> {
    if let Some(reason) = request.invocation.unsupported() {
        return Err(reason.to_owned());
    }
    let prepared = prepare(request, config, observer)
        .map_err(|(Problem::Ours(reason) | Problem::Cargos(reason))| reason)?;
    let Prepared { store, context, .. } = &prepared;
    let inspector = Inspector::new(&context.environment, &context.settings, &context.roots);
    let plan = Plan::make(context, store, &inspector);
    let (plan, fetched) = prepared.fill(plan, &inspector, observer);
    observer.step("linking units");
    let lock = prepared.lock(&plan, observer);
    let _lock = lock.map_err(|error| chain(&error))?;
    let mut state = State::load(&context.layout.build_dir);
    let linkable = plan.linkable();
    let linker = Linker {
        context,
        store,
        inspector: &inspector,
        time: link::time(&state),
        unnoted: Unnoted::Adopt,
        progress: &*observer,
    };
    let (_, error) = linker.link(&plan, &mut state);
    if let Some(error) = error {
        observer.warn(&format!("not all units could be linked: {}", chain(&error)));
    }
    prepared.save(&mut state, observer);
    prepared.add_root(&state);
    observer.clear();
    Ok(Substitution {
        units: plan.units.len(),
        ready: plan.ready(),
        linked: linkable.iter().filter(|linkable| **linkable).count(),
        fetched,
    })
}

impl Prepared<'_> {
    /// Fetches what is missing from substituters. Whatever goes wrong, the plan
    /// is as good as it was.
    pub(super) fn fill(
        &self,
        plan: Plan,
        inspector: &Inspector<'_>,
        observer: &mut dyn Observer,
    ) -> (Plan, Fetched) {
        if self.config.substituters.is_empty() {
            return (plan, Fetched::default());
        }
        observer.step("fetching from substituters");
        let mut warnings = Vec::new();
        let mut warn = |message: &str| warnings.push(message.to_owned());
        let environment = &self.request.environment;
        let asked = self.request.invocation.has_flag(&["--offline", "--frozen"]);
        let reach = match asked || environment.get("CARGO_NET_OFFLINE") == Some("true") {
            true => Reach::Disk,
            false => Reach::Network,
        };
        let substituters = Substituters::open(self.config, environment, reach, &mut warn);
        let scene = Scene {
            context: &self.context,
            store: &self.store,
            inspector,
            progress: &*observer,
        };
        let filled = scene.fill(plan, &substituters, &mut warn);
        for warning in warnings {
            observer.warn(&warning);
        }
        filled
    }
}
