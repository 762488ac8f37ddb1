//! Gathering what the store wants to know about one unit: its files, its
//! inputs, its dep-info.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::embedded::{self, Folders};
use super::inputs::{self, Dependencies};
use super::unit::Origin;
use super::{Found, Harvesting, executable};
use crate::bridge::Record;
use crate::cargo::build_script::{Instructions, Reads};
use crate::cargo::dep_info::{Base, CargoDepInfo, RustcDepInfo};
use crate::cargo::fingerprint::LocalFingerprint;
use crate::cargo::glibc::GlibcVersion;
use crate::digest::{ContentHash, OutputId};
use crate::fs::{self, Sharing, Stamp};
use crate::link::{file_name, sharing};
use crate::output::{DepInfo, FORMAT, File, Inputs, Output, Role, output_id};
use crate::plan::resolve::package_folder;
use crate::plan::{Context, Plan, Planned};
use crate::store::{self, Store};

/// Why a unit stays out of the store.
pub(super) struct Unfit(pub(super) String);

impl Unfit {
    fn because<T>(reason: impl Into<String>) -> Result<T, Self> {
        Err(Self(reason.into()))
    }
}

/// A file that a compilation left.
struct Part {
    file: File,
    path: PathBuf,
}

/// All that a compilation's own files tell.
pub(super) struct Compiled {
    parts: Vec<Part>,
    inputs: Inputs,
    mentions_clippy: bool,
    rustc_dep_info: DepInfo,
    cargo_dep_info: CargoDepInfo,
    glibc: Option<GlibcVersion>,
    seconds: f64,
}

/// A unit ready for the store.
pub(super) struct Collected {
    pub(super) output: Output,
    pub(super) sources: Vec<Origin>,
}

impl Collected {
    /// Whether an output of the store holds the same bytes, messages aside.
    pub(super) fn is_same(&self, store: &Store, stored: &Output) -> bool {
        let here = |index: usize, file: &File| match &self.sources[index] {
            Origin::Lent(path) => fs::hash_file(path).ok(),
            _ => file.sha256,
        };
        let there = |index: usize, file: &File| match file.sha256 {
            None => fs::hash_file(&store.file(stored, index)).ok(),
            known => known,
        };
        let digests = digests(&self.output, here);
        digests.is_some() && digests == self::digests(stored, there)
    }
}

impl Harvesting<'_> {
    /// Gathers what the store wants to know about a unit. `compiled` is what
    /// [`examine`](Self::examine) said; for a build script's run there is none.
    pub(super) fn collect(
        &self,
        plan: &Plan,
        found: &Found<'_>,
        compiled: Option<Result<Compiled, Unfit>>,
        references: Vec<OutputId>,
    ) -> Result<Collected, Unfit> {
        let Self {
            context, inspector, ..
        } = *self;
        let unit = &plan.units[found.index];
        let needs_timed = unit.needs.iter().any(|&need| {
            plan.resolution
                .output(need)
                .is_some_and(|output| output.timed)
        });
        let mut output = Output {
            format: FORMAT,
            id: output_id(unit.key, &Inputs::default(), &references, &self.maker),
            recipe: unit.recipe,
            host_recipe: unit.host_recipe,
            key: unit.key,
            name: unit.package.name.clone(),
            version: unit.package.version.clone(),
            target_kind: unit.kind.to_owned(),
            produced: unit.produced,
            references,
            inputs: Inputs::default(),
            files: Vec::new(),
            unit_id: found.naming.unit_id.clone(),
            extra_filename: found.naming.extra_filename.clone(),
            timed: unit.package.is_path() || needs_timed,
            mentions_clippy: false,
            rustc_dep_info: None,
            cargo_dep_info: None,
            local: Vec::new(),
            seconds: 0.0,
            jobs: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            glibc: None,
            builder: self.maker,
        };
        let mut sources = match compiled {
            Some(compiled) => take_compiled(unit, compiled?, &mut output),
            None if unit.kind == "build-run" => self.collect_run(plan, found, &mut output)?,
            None => return Unfit::because("the compiler was not seen"),
        };
        let started = if unit.kind == "build-run" {
            let platform = unit.unit.platform.as_deref();
            context
                .layout
                .run_files(platform, &unit.package.name, &found.naming.unit_id)
                .invoked
        } else {
            found.paths.invoked.clone()
        };
        let started = Stamp::of(&started)
            .map(|stamp| stamp.mtime)
            .unwrap_or_default();
        if inspector.newest_of(&output.inputs, package_folder(unit)) > started {
            return Unfit::because("its sources were changed while it was compiled");
        }
        if let Ok(text) = fs::read(&found.paths.diagnostics)
            && !text.is_empty()
        {
            output.files.push(store::describe_bytes(
                Role::Diagnostics,
                "diagnostics".to_owned(),
                &text,
            ));
            sources.push(Origin::Bytes(text));
        }
        output.id = output_id(unit.key, &output.inputs, &output.references, &self.maker);
        Ok(Collected { output, sources })
    }

    /// Looks at what a compilation left. Reading and hashing are most of a
    /// harvest's work, and no unit needs another's result for them.
    pub(super) fn examine(
        &self,
        unit: &Planned,
        found: &Found<'_>,
        record: &Record,
        macros: &Reads,
    ) -> Result<Compiled, Unfit> {
        let Self {
            context, inspector, ..
        } = *self;
        let files = compiled_files(unit, &record.crate_name)
            .into_iter()
            .map(|(role, name)| {
                let path = file_name(&name, &record.extra_filename);
                (role, name, found.paths.out_dir.join(path))
            })
            .filter(|(_, _, path)| path.is_file());
        let files: Vec<(Role, String, PathBuf)> = files.collect();
        if files.is_empty() {
            return Unfit::because("its files are not where they should be");
        }
        let dep_file = found.paths.out_dir.join(format!("{}.d", record.stem()));
        let rustc = fs::read_text(&dep_file)
            .ok()
            .and_then(|text| RustcDepInfo::parse(&text));
        let cargo = fs::read(&found.paths.dep_info)
            .ok()
            .and_then(|bytes| CargoDepInfo::parse(&bytes));
        let (Some(rustc), Some(cargo)) = (rustc, cargo) else {
            return Unfit::because("its dep-info is of an unknown form");
        };
        let dependencies = Dependencies {
            folder: &record.folder,
            out_dir: record.build_script_out_dir.as_deref(),
            package: package_folder(unit),
        };
        let is_linked = unit.test || !matches!(unit.kind, "lib" | "proc-macro" | "build-script");
        let part = |(role, name, path): &(Role, String, PathBuf)| {
            let file = match is_linked && matches!(role, Role::Executable | Role::Native) {
                true => store::describe_unread(*role, name.clone(), path),
                false => store::describe(*role, name.clone(), path),
            };
            Ok(Part {
                file: file.map_err(file_error)?,
                path: path.clone(),
            })
        };
        let (parts, (folders, glibc)) = rayon::join(
            || files.par_iter().map(part).collect::<Result<_, _>>(),
            || {
                let paths = files.iter().map(|(role, _, path)| (*role, path.as_path()));
                let folders = Folders {
                    context,
                    dependencies: &dependencies,
                    info: &rustc,
                    remapped: self.remapped,
                };
                let folders = folders.used(unit, paths.clone());
                let floors = paths.filter_map(|(_, path)| executable::glibc_floor(path));
                (folders, floors.max())
            },
        );
        let mut inputs = inputs::of_compilation(context, inspector, &dependencies, &rustc, macros)
            .map_err(Unfit)?;
        inputs.folders = folders;
        let portable = |text: &String| inputs::portable(context, &dependencies, text);
        Ok(Compiled {
            parts: parts?,
            inputs,
            mentions_clippy: unit.package.is_path()
                && inputs::mentions_clippy(&dependencies, &rustc),
            rustc_dep_info: DepInfo {
                files: rustc.files.iter().map(portable).collect(),
                env: rustc
                    .env
                    .iter()
                    .map(|(n, v)| (n.clone(), v.as_ref().map(portable)))
                    .collect(),
            },
            cargo_dep_info: portable_dep_info(context, &dependencies, &cargo),
            glibc,
            seconds: seconds_between(&found.paths.invoked, &found.paths.hash),
        })
    }

    fn collect_run(
        &self,
        plan: &Plan,
        found: &Found<'_>,
        output: &mut Output,
    ) -> Result<Vec<Origin>, Unfit> {
        let Self {
            context, inspector, ..
        } = *self;
        let unit = &plan.units[found.index];
        let platform = unit.unit.platform.as_deref();
        let files = context
            .layout
            .run_files(platform, &unit.package.name, &found.naming.unit_id);
        let dependencies = Dependencies {
            folder: package_folder(unit).unwrap_or(&context.roots.workspace),
            out_dir: Some(&files.out_dir),
            package: package_folder(unit),
        };
        let stdout = fs::read(&files.stdout).map_err(file_error)?;
        let Ok(stdout) = String::from_utf8(stdout) else {
            return Unfit::because("its build script printed something other than UTF-8");
        };
        let instructions = Instructions::parse(&stdout);
        let portable = |text: &str| inputs::portable(context, &dependencies, text);

        let mut sources = Vec::new();
        let mut push = |role, name: &str, bytes: Vec<u8>| {
            output
                .files
                .push(store::describe_bytes(role, name.to_owned(), &bytes));
            sources.push(Origin::Bytes(bytes));
        };
        push(Role::Stdout, "stdout", portable(&stdout).into_bytes());
        let stderr = fs::read(&files.stderr).unwrap_or_default();
        push(
            Role::Stderr,
            "stderr",
            portable(&String::from_utf8_lossy(&stderr)).into_bytes(),
        );
        for name in fs::walk(&files.out_dir).map_err(file_error)? {
            let path = files.out_dir.join(&name);
            if fs::is_symlink(&path) {
                return Unfit::because("its build script made a symbolic link in OUT_DIR");
            }
            let Some(text) = name.to_str() else {
                return Unfit::because("its build script made a file whose name is not UTF-8");
            };
            if is_left_by_a_probe(text) {
                continue;
            }
            if fs::mode(&path).map_err(file_error)? & !0o777 != 0 {
                return Unfit::because("its build script made a set-user-id file in OUT_DIR");
            }
            let bytes = fs::read(&path).map_err(file_error)?;
            let digest = match embedded::out_dir_file(context, &bytes) {
                embedded::OutDirFile::Text(content) => {
                    let bytes = portable(&content).into_bytes();
                    let mut file = store::describe_bytes(Role::OutDir, text.to_owned(), &bytes);
                    file.mode = fs::mode(&path).map_err(file_error)?;
                    output.files.push(file);
                    sources.push(Origin::Bytes(bytes));
                    continue;
                }
                embedded::OutDirFile::Bound(folders) => {
                    output.inputs.folders.extend(folders);
                    ContentHash::of(&bytes)
                }
                embedded::OutDirFile::Plain => ContentHash::of(&bytes),
            };
            let file = store::describe_hashed(Role::OutDir, text.to_owned(), &path, digest);
            output.files.push(file.map_err(file_error)?);
            sources.push(Origin::Private(path));
        }
        let script = unit
            .needs
            .iter()
            .copied()
            .find(|&need| plan.units[need].kind == "build-script");
        let read = inputs::of_run(
            context,
            plan,
            inspector,
            script,
            &dependencies,
            &instructions,
        )
        .map_err(Unfit)?;
        output.inputs.folders.sort();
        output.inputs.folders.dedup();
        output.inputs.files = read.inputs.files;
        output.inputs.env = read.inputs.env;
        output.inputs.git_head = read.inputs.git_head;
        output.timed |= read.timed;
        output.local = found
            .fingerprint
            .local
            .iter()
            .map(|local| match local {
                LocalFingerprint::RerunIfChanged { output, paths } => {
                    LocalFingerprint::RerunIfChanged {
                        output: output.clone(),
                        paths: paths
                            .iter()
                            .map(|p| portable(&p.to_string_lossy()).into())
                            .collect(),
                    }
                }
                other => other.clone(),
            })
            .collect();
        output.seconds = seconds_between(&files.invoked, &found.paths.hash);
        Ok(sources)
    }
}

/// What an output's files hold, messages aside; `None` if a digest is unknown.
fn digests(
    output: &Output,
    digest: impl Fn(usize, &File) -> Option<ContentHash>,
) -> Option<Vec<(Role, &str, ContentHash)>> {
    let files = output.files.iter().enumerate();
    let files = files.filter(|(_, file)| !matches!(file.role, Role::Diagnostics | Role::Stderr));
    files
        .map(|(index, file)| Some((file.role, file.name.as_str(), digest(index, file)?)))
        .collect()
}

/// Whether a file in `OUT_DIR` is what autocfg leaves of a probe: its name has a
/// number made up for that run (`AutoCfg::new` in autocfg's `src/lib.rs`), so
/// nothing that is compiled can ask for it, and no two runs leave the same.
fn is_left_by_a_probe(name: &str) -> bool {
    let number = name.strip_prefix("autocfg_").and_then(|rest| {
        let (run, probe) = rest.split_once('_')?;
        Some((run, probe.split_once('.')?.0))
    });
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    number.is_some_and(|(run, probe)| run.len() == 16 && is_hex(run) && is_hex(probe))
}

/// Seconds between the times of two files.
fn seconds_between(start: &Path, end: &Path) -> f64 {
    match (Stamp::of(start), Stamp::of(end)) {
        (Some(start), Some(end)) => ((end.mtime.0 - start.mtime.0) as f64 / 1e9).max(0.0),
        _ => 0.0,
    }
}

fn file_error(error: fs::FsError) -> Unfit {
    Unfit(error.to_string())
}

/// Enters what a compilation left into its manifest.
fn take_compiled(unit: &Planned, compiled: Compiled, output: &mut Output) -> Vec<Origin> {
    let mut sources = Vec::new();
    for Part { file, path } in compiled.parts {
        sources.push(match sharing(unit, output, file.role) {
            Sharing::Shared => Origin::Shared(path),
            Sharing::Private if file.sha256.is_none() => Origin::Lent(path),
            Sharing::Private => Origin::Private(path),
        });
        output.files.push(file);
    }
    output.inputs = compiled.inputs;
    output.mentions_clippy = compiled.mentions_clippy;
    output.rustc_dep_info = Some(compiled.rustc_dep_info);
    output.cargo_dep_info = Some(compiled.cargo_dep_info);
    output.glibc = compiled.glibc;
    output.seconds = compiled.seconds;
    sources
}

fn portable_dep_info(
    context: &Context,
    dependencies: &Dependencies<'_>,
    info: &CargoDepInfo,
) -> CargoDepInfo {
    let build_dir = &context.layout.build_dir;
    let file = |(base, path): &(Base, PathBuf)| {
        let absolute = if *base == Base::BuildDir {
            build_dir.join(path)
        } else {
            path.clone()
        };
        let below_out_dir = dependencies
            .out_dir
            .and_then(|dir| absolute.strip_prefix(dir).ok());
        let path = match below_out_dir {
            Some(rest) => Path::new("@out-dir@").join(rest),
            None => PathBuf::from(context.roots.portable(&path.to_string_lossy())),
        };
        (*base, path)
    };
    let mut files: Vec<_> = info.files.iter().map(file).collect();
    files.sort();
    let portable = |text: &String| inputs::portable(context, dependencies, text);
    CargoDepInfo {
        files,
        env: info
            .env
            .iter()
            .map(|(n, v)| (n.clone(), v.as_ref().map(portable)))
            .collect(),
    }
}

/// Names of the files that a compilation may leave, with `@` for the extra
/// filename (`TargetInfo::file_types` in Cargo, for Linux).
fn compiled_files(unit: &Planned, crate_name: &str) -> Vec<(Role, String)> {
    let mut files = vec![(Role::Metadata, format!("lib{crate_name}@.rmeta"))];
    if unit.test || matches!(unit.kind, "bin" | "test" | "bench" | "build-script") {
        files.push((Role::Executable, format!("{crate_name}@")));
        return files;
    }
    for crate_type in &unit.unit.target.crate_types {
        match crate_type.as_str() {
            "lib" | "rlib" => files.push((Role::Library, format!("lib{crate_name}@.rlib"))),
            "proc-macro" | "dylib" | "cdylib" => {
                files.push((Role::Native, format!("lib{crate_name}@.so")));
            }
            "staticlib" => files.push((Role::Native, format!("lib{crate_name}@.a"))),
            _ => files.push((Role::Executable, format!("{crate_name}@"))),
        }
    }
    files.dedup();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_with_a_number_made_up_are_left_by_probes() {
        assert!(is_left_by_a_probe("autocfg_7ca713048e53e237_0.ll"));
        for name in [
            "autocfg_0.ll",
            "autocfg_7ca713048e53e23_0.ll",
            "autocfg.rs",
            "probe.ll",
        ] {
            assert!(!is_left_by_a_probe(name), "{name}");
        }
    }
}
