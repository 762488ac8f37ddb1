//! A Debian root as one tar, by `mmdebstrap`, and its list of packages.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde::{Deserialize, Serialize};

use super::{Freshness, ImageError, Layer, LayerContent, Result, TIME, WAIT, Workshop};
use crate::builder::definition::Definition;
use crate::digest::{Canonical, ContentHash, RecipeHash};
use crate::fs::{self, Stamp};

/// The program.
const PROGRAM: &str = "mmdebstrap";

/// Seconds for which a root is used again: Debian publishes four times a day.
const DAY: i64 = 24 * 3600;

/// What is told to apt and dpkg: nothing that is only read by people.
const OPTIONS: [&str; 5] = [
    "--aptopt=Acquire::Languages \"none\"",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
];

/// What is done to the root at the end: no program runs as another user than
/// who starts it, and nothing is left of this machine or this moment. The lists
/// of apt are of the moment: they change though no package does.
const HOOK: &str = r#"--customize-hook=set -e
find "$1" -xdev -type f -perm /6000 -exec chmod ug-s {} +
find "$1/var/log" "$1/var/cache" "$1/var/lib/apt/lists" "$1/tmp" -xdev -type f -delete
rm -f "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/etc/*- "$1"/etc/subuid "$1"/etc/subgid
: > "$1"/etc/machine-id"#;

/// A Debian root.
pub(super) struct Root {
    pub(super) layer: Layer,
    /// SHA-256 of its sorted list of packages.
    pub(super) packages: ContentHash,
}

/// What is kept beside a root's tar.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    digest: String,
    size: u64,
    packages: String,
}

/// The root that a definition asks for: one of this day, or a new one.
pub(super) fn root(workshop: &Workshop<'_>, definition: &Definition, tmp: &Path) -> Result<Root> {
    let arguments = arguments(definition);
    let tar = workshop.folder.join(format!("{}.tar", key(&arguments)));
    remove_old(&workshop.folder)?;
    if workshop.freshness == Freshness::Day
        && let Some(root) = kept(&tar)
    {
        return Ok(root);
    }
    let new = tmp.join("root.tar");
    run(workshop, &arguments, &new, tmp)?;
    let mut file = fs::open(&new)?;
    let list = package_list(&mut file)?;
    let packages = ContentHash::of(list.as_bytes());
    let digest = fs::hash_file(&new)?;
    let size = Stamp::of(&new).map_or(0, |stamp| stamp.size);
    let description = Description {
        digest: digest.to_string(),
        size,
        packages: packages.to_string(),
    };
    let description = serde_json::to_vec(&description).expect("strings and numbers serialise");
    fs::remove_file(&description_file(&tar))?;
    fs::rename(&new, &tar)?;
    fs::write_atomic(&description_file(&tar), &description)?;
    Ok(Root {
        layer: Layer {
            content: LayerContent::File(tar),
            digest,
        },
        packages,
    })
}

/// All that decides what `mmdebstrap` writes, but for Debian itself.
fn arguments(definition: &Definition) -> Vec<String> {
    let architectures = std::iter::once(&definition.architecture);
    let architectures = architectures.chain(&definition.foreign_architectures);
    let architectures: Vec<&str> = architectures.map(String::as_str).collect();
    let mut arguments = vec![
        "--variant=minbase".to_owned(),
        format!("--architectures={}", architectures.join(",")),
        format!("--include={}", definition.all_packages().join(",")),
    ];
    arguments.extend(OPTIONS.map(str::to_owned));
    arguments.push(HOOK.to_owned());
    arguments.push(definition.suite.clone());
    arguments
}

fn key(arguments: &[String]) -> RecipeHash {
    let mut key = Canonical::new("quickbuild-debian-root-1");
    key.number(TIME).list(arguments);
    RecipeHash::finish(key)
}

fn description_file(tar: &Path) -> PathBuf {
    tar.with_extension("json")
}

/// A root that was made before, if its tar is the one that was described.
fn kept(tar: &Path) -> Option<Root> {
    let description = fs::read(&description_file(tar)).ok()?;
    let description: Description = serde_json::from_slice(&description).ok()?;
    (Stamp::of(tar)?.size == description.size).then_some(())?;
    Some(Root {
        layer: Layer {
            content: LayerContent::File(tar.to_owned()),
            digest: description.digest.parse().ok()?,
        },
        packages: description.packages.parse().ok()?,
    })
}

/// Removes roots that are too old to be used again.
fn remove_old(folder: &Path) -> Result<()> {
    for path in fs::list(folder)? {
        let is_root = path.extension().is_some_and(|end| end == "tar");
        let made = Stamp::of(&path).map_or(0, |stamp| stamp.mtime.seconds());
        let age = fs::now().seconds() - made;
        if is_root && !(0..DAY).contains(&age) {
            fs::remove_file(&description_file(&path))?;
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn run(workshop: &Workshop<'_>, arguments: &[String], tar: &Path, tmp: &Path) -> Result<()> {
    let spawn = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ImageError::Program { program: PROGRAM },
        _ => ImageError::Spawn {
            program: PROGRAM,
            source,
        },
    };
    let log = tmp.join("log");
    let child = Command::new(PROGRAM)
        .args(arguments)
        .arg(tar)
        .env("SOURCE_DATE_EPOCH", TIME.to_string())
        .env("LC_ALL", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::create(&log)?)
        .spawn()
        .map_err(spawn)?;
    let status = wait(workshop, child).map_err(spawn)?;
    if workshop.is_cancelled() {
        return Err(ImageError::Cancelled);
    }
    if status.success() {
        return Ok(());
    }
    let log = fs::read(&log)?;
    Err(ImageError::Failed {
        program: PROGRAM,
        message: complaint(&String::from_utf8_lossy(&log)),
    })
}

/// Waits for the program; asks it to end if that is wanted, so that it removes
/// what it has made.
fn wait(workshop: &Workshop<'_>, mut child: Child) -> io::Result<ExitStatus> {
    let mut asked = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if workshop.is_cancelled() && !asked {
            asked = true;
            let id = child.id().to_string();
            let _ = Command::new("kill").args(["-TERM", &id]).status();
        }
        std::thread::sleep(WAIT);
    }
}

/// The lines of apt and `mmdebstrap` that say what is wrong, or the last ones.
fn complaint(log: &str) -> String {
    let lines = || log.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut errors: Vec<&str> = lines().filter(|line| line.starts_with("E:")).collect();
    if errors.is_empty() {
        errors = lines().collect();
    }
    errors[errors.len().saturating_sub(5)..].join("; ")
}

/// The installed packages as `name:architecture=version`, sorted, one a line.
fn package_list(tar: &mut (impl io::Read + io::Seek)) -> Result<String> {
    let error = |source| ImageError::Tar {
        operation: "read the Debian root",
        source,
    };
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries_with_seek().map_err(error)? {
        let mut entry = entry.map_err(error)?;
        if entry.path_bytes().ends_with(b"var/lib/dpkg/status") {
            let mut text = String::new();
            entry.read_to_string(&mut text).map_err(error)?;
            return Ok(installed(&text));
        }
    }
    Err(ImageError::NoPackages)
}

/// Reads dpkg's status file (deb-control(5): paragraphs of fields).
fn installed(status: &str) -> String {
    let paragraphs = status.split("\n\n").filter_map(|paragraph| {
        let field = |name: &str| {
            paragraph.lines().find_map(|line| {
                let (field, value) = line.split_once(": ")?;
                (field == name).then_some(value)
            })
        };
        let is_installed = field("Status")?.ends_with(" installed");
        let (name, architecture) = (field("Package")?, field("Architecture")?);
        is_installed.then(|| Some(format!("{name}:{architecture}={}\n", field("Version")?)))?
    });
    let mut lines: Vec<String> = paragraphs.collect();
    lines.sort();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::image::definitions;

    #[test]
    fn installed_packages_are_listed_in_order() {
        let status = "Package: make\nStatus: install ok installed\nArchitecture: amd64\nVersion: 4.3-4.1\nDescription: x\n Version: 9\n\n\
            Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\n\
            Package: gcc\nStatus: install ok installed\nArchitecture: amd64\nVersion: 4:12.2.0-3\n";
        assert_eq!(
            installed(status),
            "gcc:amd64=4:12.2.0-3\nmake:amd64=4.3-4.1\n"
        );
    }

    #[test]
    fn a_root_without_a_list_is_no_root() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        tar.append_data(&mut header, "./etc/passwd", io::empty())
            .unwrap();
        let bytes = tar.into_inner().unwrap();
        let list = package_list(&mut io::Cursor::new(bytes));
        assert!(matches!(list, Err(ImageError::NoPackages)));
    }

    #[test]
    fn every_definition_has_a_root_of_its_own_or_shares_it() {
        let definitions = definitions(None).unwrap();
        let key = |name: &str| key(&arguments(definitions.get(name).unwrap()));
        let host = "x86_64-unknown-linux-gnu";
        assert_eq!(
            key(&format!("1.95.0-{host}")),
            key(&format!("nightly-{host}"))
        );
        assert_ne!(
            key(&format!("1.85.0-{host}")),
            key(&format!("1.96.0-{host}"))
        );
        assert_ne!(
            key(&format!("1.95.0-{host}")),
            key(&format!("1.95.0-{host}+openssl"))
        );
    }

    #[test]
    fn roots_of_yesterday_go() {
        let folder = tempfile::tempdir().unwrap();
        let now = fs::now();
        let yesterday = fs::Time(now.0 - 25 * 3600 * 1_000_000_000);
        for (name, time) in [("old", yesterday), ("new", now)] {
            let tar = folder.path().join(name).with_extension("tar");
            fs::write_at(&tar, b"", time).unwrap();
            fs::write(&description_file(&tar), b"").unwrap();
        }
        remove_old(folder.path()).unwrap();
        let names = fs::list(folder.path()).unwrap();
        let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["new.json", "new.tar"]);
    }

    #[test]
    fn a_program_is_asked_to_end() {
        let workshop = Workshop {
            environment: &crate::environment::Environment::default(),
            folder: PathBuf::new(),
            freshness: Freshness::Day,
            cancelled: std::sync::Arc::new(true.into()),
        };
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let status = wait(&workshop, child).unwrap();
        assert!(!status.success());
    }

    #[test]
    fn the_error_is_found_in_the_log() {
        let log =
            "I: running apt-get\nE: Version '9' for 'gcc' was not found\nI: removing tempdir\n";
        assert_eq!(complaint(log), "E: Version '9' for 'gcc' was not found");
        assert_eq!(complaint("one\ntwo\n"), "one; two");
        assert_eq!(complaint(""), "");
    }
}
