//! Output manifests: what realising a recipe produced, and under which
//! conditions it may be used. `docs/formats/output.md` describes the file.
//! Pure: no I/O.

mod claim;
mod content;
mod maker;
mod objections;
pub mod provenance;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cargo::dep_info::{CargoDepInfo, RustcDepInfo};
use crate::cargo::fingerprint::{Fingerprint, LocalFingerprint};
use crate::cargo::glibc::GlibcVersion;
use crate::digest::{Canonical, ContentHash, OutputId, RecipeHash, UnitKey};
use crate::fs::Time;

pub use claim::Claim;
pub use maker::{Maker, ParseMakerError};

/// Version of the manifest format.
pub const FORMAT: u32 = 1;

/// The one modification time of all files in a store and of all that is linked
/// from it: 2025-01-01. Cargo calls a unit stale if a dependency is *newer* than
/// it (`check_filesystem`), so equal times are in order, and whatever a client
/// compiles itself is newer.
pub const FILE_TIME: Time = Time::from_seconds(1_735_689_600);

/// How the files of an output came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Produced {
    /// Compiled and linked (`cargo build`, and host units in every command).
    Build,
    /// Compiled with `--test`.
    Test,
    /// Checked by rustc: metadata only.
    Check,
    /// Checked by clippy: metadata, and clippy's diagnostics.
    Clippy,
    /// A build script's run.
    Run,
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// `.rmeta`
    Metadata,
    /// `.rlib`
    Library,
    /// A dynamic or static library: proc macros, `cdylib`, `staticlib`, ….
    Native,
    /// Something to run: binaries, tests, compiled build scripts.
    Executable,
    /// A file in a build script's `OUT_DIR`.
    OutDir,
    /// What a build script printed.
    Stdout,
    /// What a build script printed on standard error.
    Stderr,
    /// The compiler's messages, one JSON object a line.
    Diagnostics,
}

/// A file of an output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its role.
    pub role: Role,
    /// Its name in the target directory, with `@` where the unit's
    /// `-C extra-filename` goes; for [`Role::OutDir`] the path below `OUT_DIR`.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the content. Unknown only of a program that a store has lent
    /// from a target directory, and that nobody has asked for yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<ContentHash>,
    /// The modification time of such a file in the store, if it is not the one
    /// that all others have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Permission bits.
    pub mode: u32,
    /// Whether it is text that names folders of the machine that made it, as
    /// `@build-dir@`, `@workspace@` and `@cargo-home@`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub portable: bool,
}

impl File {
    /// The file's place in the store path, given its number in the manifest.
    pub fn store_name(&self, index: usize) -> String {
        format!("files/{index}")
    }
}

/// What a path of an input is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputBase {
    /// The package's folder.
    Package,
    /// The workspace root.
    Workspace,
    /// Nothing: an absolute path.
    Absolute,
}

/// A file or folder that was read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// What `path` is relative to.
    pub base: InputBase,
    /// Its path.
    pub path: PathBuf,
    /// SHA-256 of the content; of a folder, that of all its files.
    pub sha256: ContentHash,
}

/// Conditions under which an output may be used, beyond its recipe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Files with exactly this content.
    pub files: Vec<InputFile>,
    /// Variables with exactly these values.
    pub env: Vec<(String, Option<String>)>,
    /// The checked-out Git commit, if a build script asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_head: Option<String>,
    /// Folders that must be where they were, because the files name them: by
    /// the names of [`Roots`](crate::cargo::workspace::Roots), or `@package@`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<(String, PathBuf)>,
}

impl Inputs {
    /// Whether the recipe alone decides.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The manifest of an output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Output {
    /// [`FORMAT`].
    pub format: u32,
    /// Its identity; the beginning of the store path's name.
    pub id: OutputId,
    /// The recipe.
    pub recipe: RecipeHash,
    /// The recipe without debug information, for host units.
    pub host_recipe: RecipeHash,
    /// The unit as which it was compiled.
    pub key: UnitKey,
    /// Package name.
    pub name: String,
    /// Package version.
    pub version: String,
    /// Kind of target, as in the recipe.
    pub target_kind: String,
    /// How it was produced.
    pub produced: Produced,
    /// Outputs that it was compiled against; all must be used with it.
    pub references: Vec<OutputId>,
    /// Conditions.
    pub inputs: Inputs,
    /// Its files.
    pub files: Vec<File>,
    /// Unit id as which it was compiled. Compiled code names its own file by
    /// it, so the files stay under this name beside any other.
    pub unit_id: String,
    /// `-C extra-filename` as which it was compiled.
    pub extra_filename: String,
    /// Whether Cargo checks times of files that a checkout sets: then its files
    /// get the time of linking, and so do those of all that depends on it.
    pub timed: bool,
    /// Whether its sources speak of clippy other than to set its lints, and so
    /// may compile differently under it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mentions_clippy: bool,
    /// rustc's dep-info, its folders as names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rustc_dep_info: Option<DepInfo>,
    /// Cargo's dep-info, its folders as names and `OUT_DIR` as `@out-dir@`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cargo_dep_info: Option<CargoDepInfo>,
    /// The local part of a build script run's fingerprint, folders as names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub local: Vec<LocalFingerprint>,
    /// Seconds it took.
    pub seconds: f64,
    /// Compile jobs that ran at the same time.
    pub jobs: u32,
    /// Highest GLIBC symbol version that its executables need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub glibc: Option<GlibcVersion>,
    /// Who made it.
    pub builder: Maker,
}

/// [`RustcDepInfo`] in a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepInfo {
    /// Files read.
    pub files: Vec<String>,
    /// Variables read.
    pub env: Vec<(String, Option<String>)>,
}

impl From<RustcDepInfo> for DepInfo {
    fn from(info: RustcDepInfo) -> Self {
        Self {
            files: info.files,
            env: info.env,
        }
    }
}

/// The identity of an output: the unit that was compiled, what it read, what
/// it was compiled against, and who compiled it.
pub fn output_id(
    key: UnitKey,
    inputs: &Inputs,
    references: &[OutputId],
    maker: &Maker,
) -> OutputId {
    let mut canonical = Canonical::new("quickbuild-output-1");
    canonical.text(&key.to_string());
    canonical.bytes(&serde_json::to_vec(inputs).expect("inputs serialise"));
    canonical.number(references.len() as u64);
    for reference in references {
        canonical.text(&reference.to_string());
    }
    match maker {
        // Nothing, so that what was made before there were others keeps its id.
        Maker::Local => {}
        Maker::Image(_) => {
            canonical.text(&maker.to_string());
        }
    }
    OutputId::finish(canonical)
}

impl Output {
    /// The name of its folder in the store.
    pub fn store_name(&self) -> String {
        format!("{}-{}-{}", self.id, self.name, self.version)
    }

    /// Total size of its files in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The files of a role, with their numbers.
    pub fn files_of(&self, role: Role) -> impl Iterator<Item = (usize, &File)> {
        let files = self.files.iter().enumerate();
        files.filter(move |(_, file)| file.role == role)
    }
}

/// How Cargo names a unit, learned from a run of Cargo: independent of what
/// was compiled, so kept apart from outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Naming {
    /// [`FORMAT`].
    pub format: u32,
    /// The unit.
    pub key: UnitKey,
    /// Its host recipe, under which substituters publish the naming; absent in
    /// what was written before there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<RecipeHash>,
    /// Cargo's unit id: 16 hexadecimal digits.
    pub unit_id: String,
    /// `-C extra-filename`, with its dash.
    pub extra_filename: String,
    /// `--out-dir`, relative to the profile's folder; empty for runs.
    pub out_dir: PathBuf,
    /// Stem of the files in the fingerprint folder.
    pub stem: String,
    /// Its fingerprint, proved by identity; `local`, `deps` and `path` are
    /// computed anew for each user.
    pub fingerprint: Fingerprint,
    /// Whether `path` is the hash of the absolute source path.
    pub absolute_path: bool,
    /// The units behind the fingerprint's `deps`, in the same order.
    pub deps: Vec<UnitKey>,
}

#[cfg(test)]
pub(crate) mod samples;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_tells_makers_apart_and_is_pinned() {
        let key = UnitKey::finish(Canonical::new("sample"));
        let reference = OutputId::finish(Canonical::new("sample"));
        let inputs = Inputs {
            env: vec![("CC".to_owned(), None)],
            ..Inputs::default()
        };
        let id = |maker: &Maker| output_id(key, &inputs, &[reference], maker).to_string();
        assert_eq!(id(&Maker::Local), "jnxgkyx6asgzprl6y87zycw8zy2z94bb");
        let image = |bytes: &[u8]| Maker::Image(ContentHash::of(bytes));
        assert_eq!(id(&image(b"one")), "0v8nb19zrh66mwmn89v96clsw8v1r3km");
        assert_ne!(id(&image(b"one")), id(&image(b"two")));
    }
}
