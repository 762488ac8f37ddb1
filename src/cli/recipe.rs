//! `quickbuild recipe …`: recipes as files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use super::arguments::{Format, RecipeCommand};
use super::plan::{command, context};
use super::terminal::{print, print_json, print_line};
use super::{Exit, Failure, Surroundings};
use crate::cargo::registry_index::RegistryIndex;
use crate::cargo::source::PackageSource;
use crate::config;
use crate::console;
use crate::digest::RecipeHash;
use crate::fs;
use crate::plan::{export, graph};
use crate::recipe::package::PackageRecipe;
use crate::recipe::repository::{FindError, Problem, Repository};
use crate::store::Store;

pub(super) fn run(
    surroundings: &Surroundings,
    command: RecipeCommand,
    cargo_arguments: Vec<String>,
) -> Result<ExitCode, Failure> {
    match command {
        RecipeCommand::Export { to, .. } => export(surroundings, to, cargo_arguments),
        RecipeCommand::Show {
            recipe,
            repository,
            format,
        } => show(&folder(surroundings, repository), &recipe, format),
        RecipeCommand::Add { files, repository } => {
            add(surroundings, &folder(surroundings, repository), &files)
        }
        RecipeCommand::Check {
            repository,
            offline,
            format,
        } => {
            let root = folder(surroundings, repository);
            check(surroundings, &root, offline, format)
        }
        RecipeCommand::Hash { file } => {
            let recipe = read(&surroundings.folder.join(file))?;
            print_line(&recipe.hash().to_string());
            Ok(Exit::Success.into())
        }
        RecipeCommand::Diff {
            a,
            b,
            repository,
            format,
        } => {
            let root = folder(surroundings, repository);
            diff(surroundings, &root, [&a, &b], format)
        }
    }
}

/// The repository: the folder given, or `recipes` beside the project's
/// `quickbuild.toml`, or `recipes` here.
pub(super) fn folder(surroundings: &Surroundings, given: Option<PathBuf>) -> PathBuf {
    let here = &surroundings.folder;
    if let Some(given) = given {
        return here.join(given);
    }
    let mut folders = here.ancestors();
    let project = folders.find(|folder| folder.join(config::FILE).is_file());
    project.unwrap_or(here).join("recipes")
}

fn read(path: &Path) -> Result<PackageRecipe, Failure> {
    let text = fs::read_text(path)?;
    PackageRecipe::from_toml(&text).map_err(|error| {
        let failure = Failure::from(error);
        Failure {
            message: format!("`{}`: {}", path.display(), failure.message),
            ..failure
        }
    })
}

fn export(
    surroundings: &Surroundings,
    to: Option<PathBuf>,
    arguments: Vec<String>,
) -> Result<ExitCode, Failure> {
    let invocation = command(arguments);
    let store = Store::open(&surroundings.config()?.store)?;
    let context = context(
        surroundings,
        &store,
        &invocation,
        "there is nothing to export",
    )?;
    let units = graph::describe(&context.graph, &context.common);
    let export = export::export(&units, &context.common);
    let root = folder(surroundings, to);
    let mut new = 0;
    for recipe in &export.packages {
        new += usize::from(Repository::write(&root, recipe)?);
    }
    for (package, reason) in &export.left_out {
        console::line(&format!("warning: `{package}` is left out: {reason}"));
    }
    print_line(&format!(
        "{} recipes in `{}`, {new} of them new; {} packages left out.",
        export.packages.len(),
        root.display(),
        export.left_out.len()
    ));
    Ok(Exit::Success.into())
}

/// A repository in which recipes are looked up.
pub(super) fn open(root: &Path) -> Result<Repository, Failure> {
    let repository = Repository::read(root)?;
    if repository.entries().is_empty() {
        return Err(
            Failure::new(format!("there are no recipes in `{}`", root.display())).hint(
                "`quickbuild recipe export` writes some; `--repository` names another folder",
            ),
        );
    }
    Ok(repository)
}

pub(super) fn not_found(error: FindError) -> Failure {
    let mut failure = Failure::from(error.clone());
    match error {
        FindError::None(_) => failure.hint("a recipe is named by hash, name, or `name@version`"),
        FindError::Several { paths, .. } => {
            for path in paths.iter().take(8) {
                failure = failure.hint(format!("there is `{}`", path.display()));
            }
            failure
        }
    }
}

/// One recipe in a report.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct RecipeReport<'a> {
    file: PathBuf,
    recipe: RecipeHash,
    name: &'a str,
    version: &'a str,
    form: &'static str,
    features: &'a [String],
    needs: Vec<RecipeHash>,
}

fn report(recipe: &PackageRecipe) -> RecipeReport<'_> {
    RecipeReport {
        file: recipe.path(),
        recipe: recipe.hash(),
        name: recipe.name(),
        version: recipe.version(),
        form: form(recipe),
        features: &recipe.main().features,
        needs: recipe.needs(),
    }
}

fn form(recipe: &PackageRecipe) -> &'static str {
    if recipe.is_host_form() {
        "host"
    } else {
        "target"
    }
}

fn show(root: &Path, wanted: &str, format: Format) -> Result<ExitCode, Failure> {
    let repository = open(root)?;
    let entry = repository.find(wanted).map_err(not_found)?;
    let closure = repository.closure(&[entry.recipe.hash()]);
    if format == Format::Json {
        let closure: Vec<_> = closure?.into_iter().map(report).collect();
        let file = root.join(&entry.path);
        print_json(&json!({ "file": file, "recipe": entry.recipe.hash(), "closure": closure }));
        return Ok(Exit::Success.into());
    }
    print_line(&format!("# {}", root.join(&entry.path).display()));
    print(&entry.recipe.to_toml());
    let count = closure?.len();
    print_line(&format!("\n# closure: {count} recipes"));
    print_tree(&repository, &entry.recipe);
    Ok(Exit::Success.into())
}

/// Prints what a recipe needs, as `cargo tree` does: what was shown before is
/// marked and not shown again.
fn print_tree(repository: &Repository, root: &PackageRecipe) {
    let mut shown = BTreeSet::new();
    // Indentation so far, the branch to draw, the recipe.
    let mut open = vec![(String::new(), "", "", root)];
    while let Some((indent, branch, below, recipe)) = open.pop() {
        let host = if recipe.is_host_form() { " (host)" } else { "" };
        let new = shown.insert(recipe.hash());
        let needs = recipe.needs();
        let again = if new || needs.is_empty() { "" } else { " (*)" };
        print_line(&format!(
            "{indent}{branch}{} {}{host}  {}{again}",
            recipe.name(),
            recipe.version(),
            recipe.hash()
        ));
        if !new {
            continue;
        }
        let mut needs: Vec<&PackageRecipe> = needs
            .iter()
            .filter_map(|need| Some(&repository.get(*need)?.recipe))
            .collect();
        needs.sort_by_key(|recipe| recipe.path());
        needs.dedup_by_key(|recipe| recipe.hash());
        let indent = format!("{indent}{below}");
        for (at, need) in needs.into_iter().rev().enumerate() {
            let (branch, below) = if at == 0 {
                ("└── ", "    ")
            } else {
                ("├── ", "│   ")
            };
            open.push((indent.clone(), branch, below, need));
        }
    }
}

fn add(surroundings: &Surroundings, root: &Path, files: &[PathBuf]) -> Result<ExitCode, Failure> {
    // All are read before one is written.
    let mut recipes = Vec::new();
    for file in files {
        let recipe = read(&surroundings.folder.join(file))?;
        let source = &recipe.main().source;
        if PackageSource::parse(source).is_none() {
            return Err(Failure::new(format!(
                "`{}` has the source `{source}`, which others cannot fetch",
                file.display()
            )));
        }
        recipes.push(recipe);
    }
    let repository = Repository::read(root)?;
    let added: BTreeSet<RecipeHash> = recipes
        .iter()
        .flat_map(|recipe| recipe.hashes().iter().copied())
        .collect();
    for recipe in &recipes {
        for need in recipe.needs() {
            if repository.get(need).is_none() && !added.contains(&need) {
                return Err(Failure::new(format!(
                    "`{}` needs {need}, which no file describes",
                    recipe.path().display()
                ))
                .hint("add the files of its whole closure at once"));
            }
        }
    }
    for recipe in &recipes {
        let new = Repository::write(root, recipe)?;
        let word = if new { "added" } else { "there already" };
        print_line(&format!("{}: {word}", recipe.path().display()));
    }
    Ok(Exit::Success.into())
}

fn check(
    surroundings: &Surroundings,
    root: &Path,
    offline: bool,
    format: Format,
) -> Result<ExitCode, Failure> {
    if !root.is_dir() {
        return Err(Failure::new(format!(
            "there is no folder `{}`",
            root.display()
        )));
    }
    let repository = Repository::read(root)?;
    let mut problems = repository.check();
    let mut skipped = 0;
    for (source, names) in repository.registries() {
        match PackageSource::parse(source) {
            Some(registry) if !offline => {
                let scratch = scratch(surroundings)?;
                let environment = &surroundings.environment;
                let index = RegistryIndex::ask(environment, root, &registry, &names, &scratch);
                // Only a leftover of ours in the folder for temporary files.
                let _ = fs::remove_dir_all(&scratch);
                problems.extend(repository.check_registry(source, &index?));
            }
            _ => {
                let of_source = repository.entries().iter();
                let of_source = of_source.filter(|e| e.recipe.main().source == source);
                skipped += of_source.count();
            }
        }
    }
    problems.sort();
    let recipes = repository.entries().len();
    if format == Format::Json {
        print_json(&json!({
            "recipes": recipes, "not-compared-with-registry": skipped, "problems": problems,
        }));
    } else {
        for problem in &problems {
            print_line(&problem.to_string());
        }
        print_line(&summary(recipes, &problems));
        if skipped > 0 {
            print_line(&format!(
                "{skipped} recipes were not compared with their registry: checksums and yanked versions are not checked offline."
            ));
        }
    }
    let exit = if problems.is_empty() {
        Exit::Success
    } else {
        Exit::Found
    };
    Ok(exit.into())
}

fn summary(recipes: usize, problems: &[Problem]) -> String {
    if problems.is_empty() {
        return format!("{recipes} recipes, all sound.");
    }
    let files: BTreeSet<&PathBuf> = problems.iter().map(|problem| &problem.file).collect();
    format!(
        "{recipes} recipes; {} problems in {} files.",
        problems.len(),
        files.len()
    )
}

/// An empty folder for a question to Cargo.
fn scratch(surroundings: &Surroundings) -> Result<PathBuf, Failure> {
    let folder = surroundings.environment.get("TMPDIR").unwrap_or("/tmp");
    let scratch = fs::unique_beside(&Path::new(folder).join("quickbuild-registry"));
    fs::remove_dir_all(&scratch)?;
    fs::create_dir_all(&scratch)?;
    Ok(scratch)
}

fn diff(
    surroundings: &Surroundings,
    root: &Path,
    wanted: [&String; 2],
    format: Format,
) -> Result<ExitCode, Failure> {
    let repository = Repository::read(root)?;
    let get = |text: &String| -> Result<PackageRecipe, Failure> {
        let file = surroundings.folder.join(text);
        if file.is_file() {
            return read(&file);
        }
        let entry = repository.find(text).map_err(not_found)?;
        Ok(entry.recipe.clone())
    };
    let [a, b] = wanted;
    let (a, b) = (get(a)?, get(b)?);
    let (before, after) = (facts(&a, &repository), facts(&b, &repository));
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in before.iter().chain(&after) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut fields = Vec::new();
    for name in names {
        let value = |facts: &[(String, String)]| {
            let mut facts = facts.iter();
            facts.find(|(n, _)| n == name).map(|(_, v)| v.clone())
        };
        let (a, b) = (value(&before), value(&after));
        if a != b {
            fields.push((name, a, b));
        }
    }
    let exit = if fields.is_empty() {
        Exit::Success
    } else {
        Exit::Found
    };
    if format == Format::Json {
        let fields = fields.iter();
        let fields: Vec<_> = fields
            .map(|(field, a, b)| json!({ "field": field, "a": a, "b": b }))
            .collect();
        print_json(&fields);
        return Ok(exit.into());
    }
    if fields.is_empty() {
        print_line("The recipes are the same.");
    }
    for (name, a, b) in fields {
        print_line(name);
        for (sign, value) in [("-", a), ("+", b)] {
            for line in value.iter().flat_map(|value| value.lines()) {
                print_line(&format!("  {sign} {line}"));
            }
        }
    }
    Ok(exit.into())
}

/// All that a recipe says, field by field.
fn facts(recipe: &PackageRecipe, repository: &Repository) -> Vec<(String, String)> {
    let main = recipe.main();
    let mut facts = vec![
        ("name".to_owned(), main.name.clone()),
        ("version".to_owned(), main.version.clone()),
        ("source".to_owned(), main.source.clone()),
        (
            "checksum".to_owned(),
            main.checksum.clone().unwrap_or_default(),
        ),
        ("toolchain.rustc".to_owned(), main.toolchain.rustc.clone()),
        ("toolchain.cargo".to_owned(), main.toolchain.cargo.clone()),
        ("toolchain.layout".to_owned(), main.toolchain.layout.clone()),
    ];
    for unit in recipe.units() {
        let mut fact = |name: &str, value: String| {
            facts.push((format!("{}.{name}", unit.target.kind), value));
        };
        fact("target", unit.target.name.clone());
        fact("crate-types", unit.target.crate_types.join(", "));
        fact("edition", unit.target.edition.clone());
        fact("features", unit.features.join(", "));
        fact("platform", unit.platform.clone());
        fact("test", unit.test.to_string());
        for (table, values) in [("profile", &unit.profile), ("settings", &unit.settings)] {
            for (name, value) in values {
                fact(&format!("{table}.{name}"), value.clone());
            }
        }
        let own = recipe.hashes();
        for edge in &unit.dependencies {
            // Units of the same file are compared by themselves.
            if own.contains(&edge.recipe) {
                continue;
            }
            let of = repository.get(edge.recipe).map_or(String::new(), |entry| {
                format!("{} {} ", entry.recipe.name(), entry.recipe.version())
            });
            let flags = [(edge.public, " public"), (edge.noprelude, " noprelude")];
            let flags: String = flags.iter().filter(|f| f.0).map(|f| f.1).collect();
            fact(
                &format!("dependencies.{}", edge.name),
                format!("{of}{}{flags}", edge.recipe),
            );
        }
    }
    facts
}
