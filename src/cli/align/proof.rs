//! A proposal, proved by Cargo in a copy of the workspace's manifests.
//!
//! What Cargo refuses is not proposed, and neither is what turns out to be another
//! recipe than the one that is prebuilt: then the search starts again without it.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::super::{Failure, Surroundings};
use super::sources::Sources;
use super::workspace;
use crate::align::project::packages;
use crate::align::{Knowledge, Node, OfferId, Project, Proposal, propose};
use crate::cargo::invocation::Invocation;
use crate::cargo::lock_graph::LockGraph;
use crate::cargo::members::Members;
use crate::cargo::relock::{Move, Network, RelockError, Workshop};
use crate::fs;
use crate::plan::{Context, graph};

/// How often the search starts again.
const ROUNDS: usize = 8;

/// What was proved.
pub(super) struct Proved {
    pub(super) proposal: Proposal,
    /// The lock file, if anything changes.
    pub(super) lock: Option<Vec<u8>>,
    /// What is compiled afterwards and what of it is prebuilt, in seconds, where
    /// recipes were compared, and not only versions and features.
    pub(super) by_recipes: Option<Exact>,
    /// Why recipes were not compared.
    pub(super) doubt: Option<String>,
    /// Proposals that Cargo or recipes refuted.
    pub(super) refuted: usize,
}

impl Proved {
    /// Whether less is left to compile than before.
    fn is_worth_it(&self) -> bool {
        let before = self.proposal.all - self.proposal.before;
        self.by_recipes
            .is_none_or(|exact| exact.all - exact.prebuilt < before)
    }
}

/// Seconds, by recipes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Exact {
    pub(super) all: f64,
    pub(super) prebuilt: f64,
}

/// Where and how it is proved.
pub(super) struct Bench<'a> {
    pub(super) surroundings: &'a Surroundings,
    pub(super) members: &'a Members,
    /// The lock file's bytes.
    pub(super) lock: &'a [u8],
    /// An empty folder.
    pub(super) scratch: &'a Path,
    pub(super) network: Network,
    /// Whether the lock file is to be the workspace's.
    pub(super) is_applied: bool,
    /// The command whose recipes count; `None` where there are no recipes.
    pub(super) invocation: Option<&'a Invocation>,
}

impl Bench<'_> {
    /// Searches and proves until both agree.
    pub(super) fn prove(
        &self,
        project: &Project,
        sources: &Sources,
        knowledge: &dyn Knowledge,
    ) -> Result<Proved, Failure> {
        let mut banned: BTreeSet<OfferId> = BTreeSet::new();
        let mut refuted = 0;
        for round in 0..ROUNDS {
            let proposal = propose(project, &sources.offers, &banned, knowledge);
            let mut proved = Proved {
                proposal,
                lock: None,
                by_recipes: None,
                doubt: None,
                refuted,
            };
            if proved.proposal.steps.is_empty() {
                return Ok(proved);
            }
            let root = self.scratch.join(round.to_string());
            let refused = self.attempt(project, sources, &mut proved, &root)?;
            if refused.is_empty() && proved.is_worth_it() {
                return Ok(proved);
            }
            // What helps nothing although each offer is there changes features
            // elsewhere.
            if refused.is_empty() {
                banned.extend(proved.proposal.offers.iter().map(|(_, offer)| *offer));
            }
            refuted += 1;
            banned.extend(refused);
        }
        // What is left is wrong in some way that the search does not see.
        Ok(Proved {
            proposal: Proposal::default(),
            lock: None,
            by_recipes: None,
            doubt: None,
            refuted,
        })
    }

    /// Tries a proposal; gives the offers that are not what they seem.
    fn attempt(
        &self,
        project: &Project,
        sources: &Sources,
        proved: &mut Proved,
        folder: &Path,
    ) -> Result<BTreeSet<OfferId>, Failure> {
        let proposal = &proved.proposal;
        let root = self.members.copy(self.lock, folder)?;
        let environment = &self.surroundings.environment;
        let workshop = Workshop {
            environment,
            folder: &self.surroundings.folder,
            root: &root,
            network: self.network,
        };
        let moves: Vec<Move> = proposal
            .steps
            .iter()
            .map(|step| {
                let package = &project.packages[step.package];
                Move {
                    name: package.name.clone(),
                    from: package.version.clone(),
                    to: step.to.clone(),
                }
            })
            .collect();
        let added = proposal.added.iter().map(|(name, version)| Move {
            name: name.clone(),
            from: version.clone(),
            to: version.clone(),
        });
        let failed = |error: RelockError| Failure::from(error).hint("Cargo.lock is as it was");
        let relocked = workshop.relock(&moves, &added.collect::<Vec<_>>());
        let relocked = relocked.map_err(failed)?;
        let mut wrong = BTreeSet::new();
        for (refused, _) in &relocked.refused {
            wrong.extend(sources.offers.of(&refused.name, &refused.to));
        }
        if !wrong.is_empty() {
            return Ok(wrong);
        }
        proved.lock = Some(relocked.lock);
        let Some(invocation) = self.invocation else {
            // Cargo has resolved what it wrote; what a project gets, it is asked about.
            if self.is_applied {
                workshop.prove().map_err(failed)?;
            }
            return Ok(wrong);
        };
        if let Err(error) = workshop.resolve() {
            let said = crate::console::chain(&error);
            if self.network == Network::Allowed {
                return Err(Failure::new(said).hint(
                    "the packages of the new lock file could not be had; Cargo.lock is as it was",
                ));
            }
            workshop.prove().map_err(failed)?;
            proved.doubt = Some("their sources are not all on this machine".to_owned());
            return Ok(wrong);
        }
        let after = self.planned(invocation, &root, sources, proved)?;
        let found: BTreeSet<OfferId> = after.nodes.iter().filter_map(|node| node.offer).collect();
        // One of several offers of a node is enough.
        let offers = &proved.proposal.offers;
        let nodes: BTreeSet<usize> = offers.iter().map(|(node, _)| *node).collect();
        for node in nodes {
            let offers = offers.iter().filter(|(of, _)| *of == node);
            let mut offers = offers.map(|(_, offer)| *offer);
            if !offers.clone().any(|offer| found.contains(&offer)) {
                wrong.extend(&mut offers);
            }
        }
        let sum = |is_meant: fn(&&Node) -> bool| {
            let nodes = after.nodes.iter().filter(is_meant);
            nodes.fold(0.0, |sum, node| sum + node.seconds)
        };
        proved.by_recipes = Some(Exact {
            all: sum(|_| true),
            prebuilt: sum(|node| node.offer.is_some()),
        });
        Ok(wrong)
    }

    /// What the command compiles in the copy.
    fn planned(
        &self,
        invocation: &Invocation,
        root: &Path,
        sources: &Sources,
        proved: &Proved,
    ) -> Result<Project, Failure> {
        let mut invocation = invocation.clone();
        let manifest = root.join("Cargo.toml").to_string_lossy().into_owned();
        strip_manifest(&mut invocation.arguments);
        let own = ["--manifest-path".to_owned(), manifest];
        invocation.arguments.splice(0..0, own);
        let cache = self.scratch.join("cache");
        fs::create_dir_all(&cache)?;
        let surroundings = self.surroundings;
        let context = Context::gather(
            &surroundings.environment,
            &surroundings.folder,
            &invocation,
            &cache,
        )?;
        let units = graph::describe(&context.graph, &context.common);
        let lock = LockGraph::parse(proved.lock.as_deref().unwrap_or_default())?;
        let packages = packages(&lock, &HashMap::new(), &BTreeSet::new()).unwrap_or_default();
        Ok(workspace::planned(packages, &units, sources))
    }
}

/// Leaves out which manifest is meant.
fn strip_manifest(arguments: &mut Vec<String>) {
    while let Some(at) = arguments.iter().position(|word| word == "--manifest-path") {
        arguments.drain(at..(at + 2).min(arguments.len()));
    }
    arguments.retain(|word| !word.starts_with("--manifest-path="));
}
