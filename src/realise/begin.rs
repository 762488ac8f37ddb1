//! The beginning of a builder, with the sources, beside what this machine does to
//! find out what it has to build.

use std::path::Path;

use super::skeleton::Skeleton;
use super::sources::Sources;
use super::unpack::LIST;
use super::{Order, RealiseError, Result};
use crate::builder::{self, Begun, BuilderError, Content, Entry, Task};
use crate::interrupt::Held;

/// Folders of the half in the builder, below `work/`.
const FOLDERS: [&str; 5] = ["out", "home", "tmp", "target", "store"];

/// A builder that has the sources, or why there is none.
pub(super) struct Beginning<'a> {
    pub(super) task: builder::Result<Box<dyn Begun + 'a>>,
    pub(super) held: &'a Held,
}

impl Order<'_> {
    /// The task, as far as it is known from the skeleton.
    pub(super) fn task(&self, skeleton: &Skeleton) -> Result<Task> {
        let root = self.builder.root();
        let inside = |below: &str| root.join(below).to_string_lossy().into_owned();
        let command = |options: &[&str]| {
            let words = ["realise"]
                .iter()
                .chain(options)
                .map(|&word| word.to_owned());
            [inside("in/quickbuild")].into_iter().chain(words).collect()
        };
        let sources = Sources {
            environment: self.environment,
            lock: &skeleton.lock,
            registries: &skeleton.registries,
            checkouts: &skeleton.checkouts,
            wanted: &skeleton.packages,
            disk: self.terms.disk,
        };
        let mut first = sources.gather()?;
        first.push(Entry {
            path: "in/quickbuild".to_owned(),
            content: Content::File(self.program.to_owned()),
        });
        let own = FOLDERS.map(|name| format!("work/{name}"));
        for path in own.into_iter().chain(["in/workspace".to_owned()]) {
            let content = Content::Folder;
            first.push(Entry { path, content });
        }
        first.extend(skeleton.files.iter().cloned());
        Ok(Task {
            name: folder_name(self.folder),
            store: self.store.root().to_owned(),
            first,
            prepare: command(&["--unpack", &inside(&format!("in/{LIST}"))]),
            command: command(&["--inside"]),
            environment: self.variables(root),
            limits: self.terms.limits,
        })
    }

    /// Begins a task while `work` finds out what is in it.
    pub(super) fn beside<'a, T>(
        &'a self,
        task: &'a Task,
        held: &'a Held,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(Beginning<'a>, T)> {
        std::thread::scope(|scope| {
            let builder = self.builder;
            let begun = scope.spawn(move || builder.begin(task, &|| held.asked().is_some()));
            let found = work();
            let task = begun.join().unwrap_or(Err(BuilderError::Panic));
            match found {
                Ok(found) => Ok((Beginning { task, held }, found)),
                // Ctrl-C reached those who were asked, too.
                Err(_) if held.asked().is_some() => Err(RealiseError::Builder {
                    name: folder_name(self.folder),
                    source: BuilderError::Cancelled,
                }),
                Err(error) => Err(error),
            }
        })
    }
}

fn folder_name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or(folder.as_os_str());
    name.to_string_lossy().into_owned()
}
