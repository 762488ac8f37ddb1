//! The projects of voices, and what changes by what they say. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Submission;
use crate::digest::ContentHash;
use crate::service::intake::Intake;

/// Projects of a voice; the one that was not seen for the longest time goes.
const PROJECTS: usize = 32;

/// What a report changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// That the project is still alive.
    Seen,
    /// What it wants.
    Content,
}

/// What is known of a project.
#[derive(Debug)]
pub(super) struct Project {
    pub(super) content: String,
    pub(super) wants: Vec<i64>,
    pub(super) seen: i64,
}

/// The projects of voices, and what changes by what they say.
#[derive(Debug, Default)]
pub(super) struct Projects {
    pub(super) voices: HashMap<i64, BTreeMap<String, Project>>,
    /// How many of a voice's projects have a want.
    held: HashMap<i64, HashMap<i64, u32>>,
    /// By how much each count changes.
    pub(super) counts: BTreeMap<i64, i64>,
    /// Projects that change.
    pub(super) touched: BTreeSet<(i64, String)>,
}

impl Projects {
    pub(super) fn add(&mut self, voice: i64, name: String, project: Project) {
        let held = self.held.entry(voice).or_default();
        for want in &project.wants {
            *held.entry(*want).or_default() += 1;
        }
        self.voices.entry(voice).or_default().insert(name, project);
    }

    /// What each report changes, one after the other.
    pub(super) fn changed(
        &self,
        voices: &HashMap<String, i64>,
        submissions: &[Submission],
        now: i64,
    ) -> Vec<Change> {
        let mut last: HashMap<(i64, &str), ContentHash> = HashMap::new();
        let mut changes = Vec::with_capacity(submissions.len());
        for submission in submissions {
            let (voice, intake) = (voices[&submission.voice], &submission.intake);
            if intake.wants.is_empty() {
                changes.push(Change::None); // a report of usage alone
                continue;
            }
            let known = self.voices.get(&voice);
            let known = known.and_then(|projects| projects.get(&intake.project));
            let before = last.insert((voice, &intake.project), intake.content);
            changes.push(match (before, known) {
                (Some(before), _) if before == intake.content => Change::None,
                (None, Some(known)) if known.content == intake.content.to_string() => {
                    if now - known.seen > 86_400 {
                        Change::Seen
                    } else {
                        Change::None
                    }
                }
                _ => Change::Content,
            });
        }
        changes
    }

    pub(super) fn put(&mut self, voice: i64, intake: &Intake, wants: Vec<i64>, now: i64) {
        self.take(voice, &intake.project);
        let held = self.held.entry(voice).or_default();
        for want in &wants {
            let count = held.entry(*want).or_default();
            if *count == 0 {
                *self.counts.entry(*want).or_default() += 1;
            }
            *count += 1;
        }
        let project = Project {
            content: intake.content.to_string(),
            wants,
            seen: now,
        };
        let projects = self.voices.entry(voice).or_default();
        projects.insert(intake.project.clone(), project);
        if projects.len() > PROJECTS {
            let others = projects.iter().filter(|(name, _)| **name != intake.project);
            let oldest = others.min_by_key(|(name, project)| (project.seen, (*name).clone()));
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                self.take(voice, &name);
            }
        }
    }

    /// Takes away what a project wanted.
    pub(super) fn take(&mut self, voice: i64, name: &str) {
        self.touched.insert((voice, name.to_owned()));
        let projects = self.voices.entry(voice).or_default();
        let Some(project) = projects.remove(name) else {
            return;
        };
        let held = self.held.entry(voice).or_default();
        for want in project.wants {
            let count = held.entry(want).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                *self.counts.entry(want).or_default() -= 1;
            }
        }
    }
}
