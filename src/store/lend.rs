//! Programs that the store takes without hashing or copying them.
//!
//! A program is rebuilt at every edit and may have some hundred megabytes, and
//! hardly one of them is ever wanted again. So at first the store only holds on
//! to it, by a second name for the target directory's own file. Its SHA-256 is
//! computed when somebody wants to sign or to send the output.
//!
//! Nobody but that one target directory shares such a file: into all others it
//! is copied. So whoever writes into it there, as some linkers do, changes no
//! other checkout. Its size and time, which the manifest has, tell the store
//! that the output is gone.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use rayon::prelude::*;

use super::verify::Kind;
use super::{FILE_TIME, Result, Store, StoreError, is_untouched};
use crate::digest::OutputId;
use crate::fs::{self, Placement, Sharing, Stamp, Time};
use crate::output::Output;

/// Takes a file. The answer is its time, if that is not the store's.
pub(super) fn lend(from: &Path, to: &Path) -> Result<Option<Time>> {
    // Not by a clone: of a file that was just written it waits for the disk.
    if fs::place(from, to, Sharing::Shared)? == Placement::Hardlink {
        return Ok(Stamp::of(to).map(|stamp| stamp.mtime));
    }
    fs::set_mtime(to, FILE_TIME)?;
    Ok(None)
}

impl Store {
    /// Copies a file of an output to a place outside of the store, as
    /// [`fs::place_at`] does. Fails if the file was written to, even meanwhile.
    pub fn copy_out(&self, output: &Output, index: usize, to: &Path, time: Time) -> fs::Result<()> {
        let from = self.file(output, index);
        fs::place_at(&from, to, Sharing::Private, time)?;
        match Stamp::of(&from) {
            // A lent file's mode and owner are the target directory's business.
            Some(stamp) if is_untouched(&output.files[index], &stamp) => {
                fs::set_mode(to, output.files[index].mode)
            }
            _ => fs::at("copy", &from, Err(io::Error::other("it was written to"))),
        }
    }

    /// [`settle`](Self::settle) for many, by their names. `refuse` makes an error
    /// of one that was written to.
    pub(super) fn settle_all(
        &self,
        outputs: BTreeMap<String, Output>,
        refuse: impl Fn(&str, Kind) -> StoreError + Sync,
    ) -> Result<BTreeMap<String, Output>> {
        let settled = outputs.into_par_iter().map(|(name, output)| {
            if let Some(file) = self.spoilt(&output) {
                return Err(refuse(&name, Kind::Content { file }));
            }
            Ok((name, self.settle(output)?))
        });
        settled.collect()
    }

    /// A lent file of an output that somebody has written to since.
    fn spoilt(&self, output: &Output) -> Option<String> {
        let files = output.files.iter().enumerate();
        let mut lent = files.filter(|(_, file)| file.sha256.is_none());
        let spoilt = lent.find(|&(index, file)| {
            let stamp = Stamp::of(&self.file(output, index));
            stamp.is_none_or(|stamp| !is_untouched(file, &stamp))
        });
        spoilt.map(|(index, file)| file.store_name(index))
    }

    /// The store names of all outputs that can be had: what was lent and written
    /// to since is not among them, nor is what refers to it. That happens every
    /// day, and is no damage.
    pub fn available(&self) -> Result<Vec<String>> {
        let names = self.names()?.into_iter();
        let outputs = names.map(|name| {
            let output = self.output(&name);
            let spoilt = output.as_ref().is_some_and(|o| self.spoilt(o).is_some());
            (name, output, spoilt)
        });
        let mut outputs: Vec<(String, Option<Output>, bool)> = outputs.collect();
        loop {
            let (gone, rest): (Vec<_>, Vec<_>) = outputs.into_iter().partition(|(.., gone)| *gone);
            outputs = rest;
            let gone: Vec<OutputId> = gone
                .into_iter()
                .filter_map(|(_, output, _)| Some(output?.id))
                .collect();
            if gone.is_empty() {
                return Ok(outputs.into_iter().map(|(name, ..)| name).collect());
            }
            for (_, output, is_gone) in &mut outputs {
                let references = output.iter().flat_map(|output| &output.references);
                *is_gone = references.into_iter().any(|id| gone.contains(id));
            }
        }
    }

    /// An output whose files are all known by their SHA-256, and the store's
    /// own. What was lent is copied and read.
    ///
    /// Fails if a lent file was written to, or if the store is read-only.
    pub fn settle(&self, mut output: Output) -> Result<Output> {
        if output.files.iter().all(|file| file.sha256.is_some()) {
            return Ok(output);
        }
        let name = output.store_name();
        for index in 0..output.files.len() {
            if output.files[index].sha256.is_some() {
                continue;
            }
            let path = self.file(&output, index);
            let copy = fs::unique_beside(&self.root.join("tmp").join(&name));
            let digest = self
                .copy_out(&output, index, &copy, FILE_TIME)
                .and_then(|()| fs::hash_file(&copy))
                .and_then(|digest| fs::rename(&copy, &path).map(|()| digest));
            if digest.is_err() {
                let _ = fs::remove_file(&copy); // the collector empties `tmp/`, too
            }
            output.files[index].sha256 = Some(digest?);
            output.files[index].time = None;
        }
        let manifest = serde_json::to_vec(&output).expect("a manifest serialises");
        fs::write_atomic(&self.path(&name).join("manifest.json"), &manifest)?;
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Role;
    use crate::store::verify::{self, Depth, Kind, samples};
    use crate::store::{Source, archive, describe_unread};

    struct Lent {
        folder: tempfile::TempDir,
        store: Store,
        output: Output,
    }

    impl Lent {
        /// A store with a program that a target directory still has.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&folder.path().join("store")).unwrap();
            let program = folder.path().join("program");
            fs::write(&program, b"a program").unwrap();
            // Long ago, so that the next write has another time for certain.
            fs::set_mtime(&program, Time::from_seconds(1_000_000_000)).unwrap();
            let mut output = samples::output("program", &[], &[]);
            let file = describe_unread(Role::Executable, "program@".to_owned(), &program);
            output.files.push(file.unwrap());
            store.add(&output, &[Source::Lend(&program)]).unwrap();
            let output = store.output(&output.store_name()).unwrap();
            samples::add(&store, "test", &[&output], &[b"test"]);
            Self {
                folder,
                store,
                output,
            }
        }

        fn program(&self) -> std::path::PathBuf {
            self.folder.path().join("program")
        }

        fn problems(&self) -> Vec<Kind> {
            let found = verify::verify(self.store.root(), Depth::Content).unwrap();
            found.into_iter().map(|problem| problem.kind).collect()
        }
    }

    #[test]
    fn a_lent_program_serves_others_by_copies() {
        let lent = Lent::new();
        assert!(lent.store.is_usable(&lent.output));
        assert_eq!(lent.output.files[0].sha256, None);
        assert_eq!(lent.problems(), []);
        let elsewhere = lent.folder.path().join("elsewhere");
        lent.store
            .copy_out(&lent.output, 0, &elsewhere, Time(7))
            .unwrap();
        let inode = |path: &Path| Stamp::of(path).unwrap().inode;
        assert_ne!(inode(&elsewhere), inode(&lent.program()));
        assert_eq!(fs::read(&elsewhere).unwrap(), b"a program");
        // The target directory goes; the store still has it.
        fs::remove_file(&lent.program()).unwrap();
        assert!(lent.store.is_usable(&lent.output));
    }

    #[test]
    fn who_writes_to_a_lent_program_takes_it_out_of_the_store() {
        let lent = Lent::new();
        let stored = lent.store.file(&lent.output, 0);
        assert_eq!(lent.store.available().unwrap().len(), 2);
        // As a linker does that writes in place.
        fs::write(&stored, b"A PROGRAM").unwrap();
        assert!(!lent.store.is_usable(&lent.output));
        let copied = lent.store.copy_out(
            &lent.output,
            0,
            &lent.folder.path().join("elsewhere"),
            Time(7),
        );
        assert!(copied.is_err());
        assert!(lent.store.settle(lent.output.clone()).is_err());
        let place = "files/0".to_owned();
        assert_eq!(lent.problems(), [Kind::Content { file: place }]);
        // The output itself, and what was compiled against it.
        assert_eq!(lent.store.available().unwrap(), Vec::<String>::new());
        let archive = lent.folder.path().join("archive");
        let exported = archive::export(&lent.store, &[lent.output.store_name()], &archive);
        assert!(matches!(exported, Err(StoreError::Export { .. })));
    }

    #[test]
    fn what_is_sent_is_settled() {
        let lent = Lent::new();
        let time = Stamp::of(&lent.program()).unwrap().mtime;
        let archive = lent.folder.path().join("archive");
        let name = lent.output.store_name();
        archive::export(&lent.store, std::slice::from_ref(&name), &archive).unwrap();
        let settled = lent.store.output(&name).unwrap();
        let digest = crate::digest::ContentHash::of(b"a program");
        assert_eq!(settled.files[0].sha256, Some(digest));
        assert_eq!(settled.files[0].time, None);
        assert!(lent.store.is_usable(&settled));
        assert_eq!(lent.problems(), []);
        // The target directory's own file is as it was.
        assert_eq!(Stamp::of(&lent.program()).unwrap().mtime, time);
        let other = Store::open(&lent.folder.path().join("other")).unwrap();
        archive::import(&other, &archive).unwrap();
        assert_eq!(other.output(&name), Some(settled));
    }
}
