//! Some outputs as a folder: what a builder is given, and what it leaves.
//!
//! ```text
//! <store name>/manifest.json  files/<n>
//! ```

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{ImportReport, MAX_MANIFEST, Unpacked, Unpacking, refuse};
use crate::digest::ContentHash;
use crate::fs;
use crate::output::Output;
use crate::store::{Result, Source, Store, read_manifest};

/// Looks at outputs before they are in the store; an objection refuses all of them.
pub trait Examine: Sync {
    /// Looks at what an output says of itself.
    fn manifest(&self, output: &Output) -> std::result::Result<(), String>;
    /// Looks at the content of one of its files, which is what its manifest says.
    fn content(
        &self,
        output: &Output,
        index: usize,
        bytes: &[u8],
    ) -> std::result::Result<(), String>;
}

/// Gives outputs of one store, with all that they need among them, to another.
pub fn share<'a>(
    from: &Store,
    names: impl IntoIterator<Item = &'a String>,
    to: &Store,
) -> Result<()> {
    for name in names {
        let absent = || refuse(format!("`{name}` is not in the store"));
        let output = from.settle(from.output(name).ok_or_else(absent)?)?;
        let files: Vec<PathBuf> = (0..output.files.len())
            .map(|index| from.file(&output, index))
            .collect();
        let sources: Vec<Source<'_>> = files.iter().map(|file| Source::Share(file)).collect();
        to.add(&output, &sources)?;
        if let Some(naming) = from.naming(output.key) {
            to.add_naming(&naming)?;
        }
    }
    Ok(())
}

/// Moves outputs out of a store that is not needed any more.
pub fn move_out(store: &Store, names: &[String], to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for name in names {
        let absent = || refuse(format!("`{name}` is not in the store"));
        store.settle(store.output(name).ok_or_else(absent)?)?;
        fs::rename(&store.path(name), &to.join(name))?;
    }
    Ok(())
}

/// Adds the outputs in a folder, whose files become the store's. As with
/// [`import`](super::import), nothing is taken on trust: any other file, size or
/// SHA-256, an id that does not follow from its manifest, or a reference to
/// nowhere refuses all of it.
pub fn import_folder(store: &Store, folder: &Path, examine: &dyn Examine) -> Result<ImportReport> {
    let folders = fs::list(folder)?;
    let received = folders.par_iter().map(|folder| receive(folder, examine));
    let outputs: Vec<Unpacked> = received.collect::<Result<_>>()?;
    let mut unpacking = Unpacking::new(folder, folder);
    unpacking.outputs = outputs;
    unpacking.add(store)
}

/// Verifies one output.
fn receive(folder: &Path, examine: &dyn Examine) -> Result<Unpacked> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let size = fs::Stamp::of(&folder.join("manifest.json")).map_or(0, |stamp| stamp.size);
    if size > MAX_MANIFEST {
        return Err(refuse(format!("the manifest of `{name}` has {size} bytes")));
    }
    let output = read_manifest(folder)?;
    let output = output.ok_or_else(|| refuse(format!("`{name}` has no manifest")))?;
    if let Some(objection) = output.objection(&name) {
        return Err(refuse(format!("`{name}` {objection}")));
    }
    let mut expected: Vec<PathBuf> = (0..output.files.len())
        .map(|index| output.files[index].store_name(index).into())
        .collect();
    expected.push("manifest.json".into());
    expected.sort();
    // No folders either: all of it becomes the store's.
    let files = folder.join("files");
    let is_its = |path: &PathBuf| *path == files || *path == folder.join("manifest.json");
    let is_alone =
        fs::list(folder)?.iter().all(is_its) && fs::list(&files)?.len() == output.files.len();
    if !is_alone || fs::walk(folder)? != expected {
        return Err(refuse(format!(
            "`{name}` has other files than its manifest"
        )));
    }
    let object = |reason| refuse(format!("`{name}`: {reason}"));
    examine.manifest(&output).map_err(object)?;
    (0..output.files.len())
        .into_par_iter()
        .try_for_each(|index| {
            let bytes = verify_file(folder, &output, index)?;
            examine.content(&output, index, &bytes).map_err(object)
        })?;
    Ok(Unpacked {
        store_name: output.store_name(),
        id: output.id,
        references: output.references,
    })
}

/// The bytes of a file that is what its manifest says; of no other size is one read.
fn verify_file(folder: &Path, output: &Output, index: usize) -> Result<Vec<u8>> {
    let file = &output.files[index];
    let path = folder.join(file.store_name(index));
    let size = fs::Stamp::of(&path).map(|stamp| stamp.size);
    if !fs::is_symlink(&path) && size == Some(file.size) {
        let bytes = fs::read(&path)?;
        if Some(ContentHash::of(&bytes)) == file.sha256 {
            fs::set_mode(&path, file.mode)?;
            return Ok(bytes);
        }
    }
    let name = output.store_name();
    Err(refuse(format!(
        "file {index} of `{name}` is not what its manifest says"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;
    use crate::store::verify::samples;

    struct Received {
        folder: tempfile::TempDir,
        names: [String; 2],
    }

    impl Received {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&folder.path().join("builder")).unwrap();
            let base = samples::add(&store, "base", &[], &[b"base"]);
            let top = samples::add(&store, "top", &[&base], &[b"top", b"more"]);
            let names = [base.store_name(), top.store_name()];
            move_out(&store, &names, &folder.path().join("out")).unwrap();
            Self { folder, names }
        }

        fn out(&self) -> PathBuf {
            self.folder.path().join("out")
        }

        fn import(&self, examine: &dyn Examine) -> (Store, Result<ImportReport>) {
            let store = Store::open(&self.folder.path().join("store")).unwrap();
            let imported = import_folder(&store, &self.out(), examine);
            (store, imported)
        }

        fn assert_refused(&self, examine: &dyn Examine) {
            let (store, imported) = self.import(examine);
            let is_refused = matches!(
                imported,
                Err(StoreError::Archive { .. } | StoreError::Manifest { .. })
            );
            assert!(is_refused, "{imported:?}");
            assert_eq!(store.names().unwrap(), Vec::<String>::new());
        }
    }

    /// Objects to outputs of a name, and to files of a content.
    struct Unwanted(&'static str);

    impl Unwanted {
        fn examine(&self, found: &[u8]) -> std::result::Result<(), String> {
            match found == self.0.as_bytes() {
                true => Err("unwanted".to_owned()),
                false => Ok(()),
            }
        }
    }

    impl Examine for Unwanted {
        fn manifest(&self, output: &Output) -> std::result::Result<(), String> {
            self.examine(output.name.as_bytes())
        }

        fn content(&self, _: &Output, _: usize, bytes: &[u8]) -> std::result::Result<(), String> {
            self.examine(bytes)
        }
    }

    #[test]
    fn what_is_whole_gets_in_dependencies_first() {
        let received = Received::new();
        let (store, imported) = received.import(&Unwanted(""));
        assert_eq!(imported.unwrap().added, received.names);
        for name in &received.names {
            let output = store.output(name).unwrap();
            assert!(store.is_usable(&output));
        }
    }

    #[test]
    fn nothing_gets_in_where_one_byte_is_wrong() {
        let accept = &Unwanted("");
        let received = Received::new();
        let file = received.out().join(&received.names[1]).join("files/1");
        fs::write(&file, b"MORE").unwrap();
        received.assert_refused(accept);
        fs::write(&file, b"more").unwrap();

        let beside = received.out().join(&received.names[0]).join("files/1");
        fs::write(&beside, b"").unwrap();
        received.assert_refused(accept);
        fs::remove_file(&beside).unwrap();

        let empty = received.out().join(&received.names[0]).join("more");
        fs::create_dir_all(&empty).unwrap();
        received.assert_refused(accept);
        fs::remove_dir_all(&empty).unwrap();

        fs::symlink(Path::new("/etc/passwd"), &beside).unwrap();
        received.assert_refused(accept);
        fs::remove_file(&beside).unwrap();

        received.assert_refused(&Unwanted("top"));
        received.assert_refused(&Unwanted("more"));

        fs::remove_dir_all(&received.out().join(&received.names[0])).unwrap();
        received.assert_refused(accept); // a reference to nowhere
    }
}
