//! What a compilation or a build script read, as conditions for using it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::macros;
use crate::cargo::build_script::{Instructions, Reads, VOLATILE_CRATES};
use crate::cargo::dep_info::RustcDepInfo;
use crate::cargo::package_files;
use crate::fs;
use crate::output::{InputBase, InputFile, Inputs};
use crate::plan::inputs::Inspector;
use crate::plan::{Context, Plan};

/// Where a unit's paths are to be understood.
pub(super) struct Dependencies<'a> {
    /// The compiler's working directory.
    pub(super) folder: &'a Path,
    /// `OUT_DIR`.
    pub(super) out_dir: Option<&'a Path>,
    /// The package's folder, if it is a path package.
    pub(super) package: Option<&'a Path>,
}

/// Replaces `OUT_DIR` and the roots in a text.
pub(super) fn portable(context: &Context, dependencies: &Dependencies<'_>, text: &str) -> String {
    let text = match dependencies.out_dir {
        Some(out_dir) => text.replace(&*out_dir.to_string_lossy(), "@out-dir@"),
        None => text.to_owned(),
    };
    context.roots.portable(&text)
}

/// Variables that Cargo sets for rustc from what the recipe holds, or to say
/// where things are; the latter are looked for in the compiled files.
fn is_set_by_cargo(name: &str) -> bool {
    const NAMES: [&str; 5] = [
        "CARGO",
        "OUT_DIR",
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_TMPDIR",
    ];
    const PREFIXES: [&str; 3] = ["CARGO_PKG_", "CARGO_BIN_", "CARGO_MANIFEST_"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The conditions of a compilation.
pub(super) fn of_compilation(
    context: &Context,
    inspector: &Inspector<'_>,
    dependencies: &Dependencies<'_>,
    info: &RustcDepInfo,
    macros: &Reads,
) -> Result<Inputs, String> {
    if macros.volatile {
        return Err(
            "a macro that it calls reads the clock or the state of the work tree".to_owned(),
        );
    }
    let mut inputs = Inputs::default();
    let mut paths: BTreeSet<PathBuf> = BTreeSet::new();
    for file in &info.files {
        let path = normalise(&dependencies.folder.join(file));
        let generated = dependencies
            .out_dir
            .is_some_and(|dir| path.starts_with(dir))
            || path.starts_with(&context.layout.build_dir);
        if !generated && !is_immutable(context, &path) {
            paths.insert(path);
        }
    }
    if let Some(package) = dependencies.package {
        paths.insert(package.join("Cargo.toml"));
        if inherits(package) {
            paths.insert(context.roots.workspace.join("Cargo.toml"));
        }
        if macros.files {
            let files = macros::package_inputs(package).map_err(|error| error.to_string())?;
            paths.extend(files);
        }
        if macros.git_head {
            inputs.git_head = Some(package_files::git_head(package).unwrap_or_default());
        }
    }
    inputs.files = input_files(context, inspector, dependencies, paths)?;
    for (name, value) in &info.env {
        if is_set_by_cargo(name) {
            continue;
        }
        // A variable that the process does not have with this value was set
        // by a build script, whose output is referred to.
        if inspector.variable(name) == value.as_deref() {
            inputs.env.push((
                name.clone(),
                value.as_ref().map(|v| context.roots.portable(v)),
            ));
        }
    }
    for name in &macros.variables {
        let value = inspector.variable(name);
        let value = value.map(|value| context.roots.portable(value));
        inputs.env.push((name.clone(), value));
    }
    inputs.env.sort();
    inputs.env.dedup();
    Ok(inputs)
}

/// Whether a package takes fields from the workspace's manifest.
fn inherits(package: &Path) -> bool {
    fs::read_text(&package.join("Cargo.toml"))
        .is_ok_and(|text| text.contains("workspace = true") || text.contains("workspace=true"))
}

/// Sources of registry and Git packages never change, and Cargo does not look
/// at their times (`find_stale_file`).
fn is_immutable(context: &Context, path: &Path) -> bool {
    ["registry", "git"]
        .iter()
        .any(|folder| path.starts_with(context.roots.cargo_home.join(folder)))
        || path.starts_with(&context.toolchain.sysroot)
}

/// Removes `.` and `..` without asking the file system.
fn normalise(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

fn input_files(
    context: &Context,
    inspector: &Inspector<'_>,
    dependencies: &Dependencies<'_>,
    paths: impl IntoIterator<Item = PathBuf>,
) -> Result<Vec<InputFile>, String> {
    let mut files = Vec::new();
    for path in paths {
        let Some(sha256) = inspector.digest(&path) else {
            return Err(format!("`{}`, which it read, is gone", path.display()));
        };
        let in_package = dependencies
            .package
            .and_then(|package| path.strip_prefix(package).ok());
        let (base, path) = match (in_package, path.strip_prefix(&context.roots.workspace)) {
            (Some(relative), _) => (InputBase::Package, relative),
            (None, Ok(relative)) => (InputBase::Workspace, relative),
            (None, Err(_)) => (InputBase::Absolute, path.as_path()),
        };
        files.push(InputFile {
            base,
            path: path.to_owned(),
            sha256,
        });
    }
    Ok(files)
}

/// Whether a source speaks of clippy other than as the tool of a lint.
pub(super) fn mentions_clippy(dependencies: &Dependencies<'_>, info: &RustcDepInfo) -> bool {
    info.files.iter().any(|file| {
        let Ok(text) = fs::read_text(&dependencies.folder.join(file)) else {
            return true;
        };
        text.match_indices("clippy")
            .any(|(at, word)| !text[at + word.len()..].starts_with("::"))
    })
}

/// What a build script's run depended on.
pub(super) struct RunInputs {
    pub(super) inputs: Inputs,
    /// Whether Cargo compares times of files that may be touched.
    pub(super) timed: bool,
}

/// The conditions of a build script's run.
pub(super) fn of_run(
    context: &Context,
    plan: &Plan,
    inspector: &Inspector<'_>,
    script: Option<usize>,
    dependencies: &Dependencies<'_>,
    instructions: &Instructions,
) -> Result<RunInputs, String> {
    let mut inputs = Inputs::default();
    let mut paths: BTreeSet<PathBuf> = BTreeSet::new();
    let package_root = dependencies.package;
    for path in &instructions.rerun_if_changed {
        let Some(package) = package_root else {
            // Relative paths are inside an immutable package.
            if Path::new(path).is_absolute() {
                paths.insert(normalise(Path::new(path)));
            }
            continue;
        };
        paths.insert(normalise(&package.join(path)));
    }
    paths.retain(|path| {
        let generated = dependencies
            .out_dir
            .is_some_and(|dir| path.starts_with(dir));
        !generated && !is_immutable(context, path)
    });
    if let Some(missing) = paths.iter().find(|path| !path.exists()) {
        return Err(format!(
            "its build script asks to be run again when `{}` changes, which does not exist, so Cargo always runs it",
            missing.display()
        ));
    }
    let timed = !paths.is_empty();
    if instructions.is_empty()
        && let Some(package) = package_root
    {
        let files = package_files::list(package).map_err(|error| error.to_string())?;
        paths.extend(files.iter().map(|file| package.join(file)));
    }
    paths.extend(system_libraries(context, instructions));
    inputs.files = input_files(context, inspector, dependencies, paths)?;

    let mut names: BTreeSet<String> = instructions.rerun_if_env_changed.iter().cloned().collect();
    let reads = script
        .map(|script| undeclared(context, plan, script))
        .unwrap_or_default();
    if reads.volatile {
        return Err("its build script reads the clock or the state of the work tree".to_owned());
    }
    names.extend(reads.variables);
    for name in names {
        let value = inspector
            .variable(&name)
            .map(|value| context.roots.portable(value));
        inputs.env.push((name, value));
    }
    if reads.git_head
        && let Some(package) = package_root
    {
        inputs.git_head = Some(package_files::git_head(package).unwrap_or_default());
    }
    Ok(RunInputs { inputs, timed })
}

/// The files of the system's libraries that a build script asks to link. What it
/// found out about them holds as long as they are the same; after an update of
/// the system the script has to look again.
fn system_libraries(context: &Context, instructions: &Instructions) -> Vec<PathBuf> {
    const FOLDERS: [&str; 4] = ["/usr/local/lib", "/usr/lib", "/usr/lib64", "/lib"];
    let host = context.toolchain.host().replace("-unknown", "");
    let mut folders: Vec<PathBuf> = instructions
        .search_folders
        .iter()
        .map(PathBuf::from)
        .collect();
    for folder in FOLDERS {
        folders.push(Path::new(folder).join(&host));
        folders.push(folder.into());
    }
    folders.retain(|folder| !folder.starts_with(&context.layout.build_dir));
    let file = |name: &String| {
        let name = format!("lib{name}.so");
        folders
            .iter()
            .map(|folder| folder.join(&name))
            .find(|file| file.is_file())
    };
    instructions
        .shared_libraries
        .iter()
        .filter_map(file)
        .collect()
}

/// What a build script's own sources may read without saying so.
fn undeclared(context: &Context, plan: &Plan, script: usize) -> Reads {
    let mut reads = Reads::default();
    let unit = &plan.units[script];
    let volatile =
        |need: &usize| VOLATILE_CRATES.contains(&plan.units[*need].package.name.as_str());
    reads.volatile = unit.needs.iter().any(volatile);
    let mut files: BTreeSet<PathBuf> = [unit.unit.target.src_path.clone()].into();
    if let Some(info) = plan
        .resolution
        .output(script)
        .and_then(|output| output.rustc_dep_info.as_ref())
    {
        let sources = info.files.iter().filter(|file| file.ends_with(".rs"));
        files.extend(sources.map(|file| context.roots.workspace.join(context.roots.local(file))));
    }
    for text in files.iter().filter_map(|file| fs::read_text(file).ok()) {
        reads.add_source(&text);
    }
    reads
}
