//! The layers that are not Debian's: compiler wrappers and users, and the Rust
//! toolchain that rustup has on this machine.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ImageError, Layer, LayerContent, Result, TIME, Workshop};
use crate::builder::definition::Definition;
use crate::builder::{BUILDER_ID, REMAPPED, ROOT};
use crate::cargo::output_of;
use crate::cargo::toolchain::field;
use crate::digest::{ContentHash, ContentHasher};
use crate::fs;

/// Where the toolchain is.
const TOOLCHAIN: &str = "opt/rust";

/// What a file is in a layer.
enum Kind<'a> {
    Folder,
    Program,
    Plain,
    Link(&'a Path),
}

/// A tar that is hashed while it is written.
struct Writer<W: Write> {
    tar: tar::Builder<Hashed<W>>,
}

struct Hashed<W: Write> {
    inner: W,
    hasher: ContentHasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Write> Writer<W> {
    fn new(inner: W) -> Self {
        let hashed = Hashed {
            inner,
            hasher: ContentHasher::default(),
        };
        Self {
            tar: tar::Builder::new(hashed),
        }
    }

    /// Adds an entry with the one time, of root or of the builder's user.
    fn add(
        &mut self,
        path: &str,
        owner: u64,
        kind: &Kind<'_>,
        content: (u64, &mut dyn io::Read),
    ) -> Result<()> {
        let (size, content) = content;
        let mut header = tar::Header::new_gnu();
        header.set_mtime(TIME);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_size(size);
        header.set_mode(match kind {
            Kind::Folder | Kind::Program => 0o755,
            Kind::Plain => 0o644,
            Kind::Link(_) => 0o777,
        });
        header.set_entry_type(match kind {
            Kind::Folder => tar::EntryType::Directory,
            Kind::Program | Kind::Plain => tar::EntryType::Regular,
            Kind::Link(_) => tar::EntryType::Symlink,
        });
        let added = match kind {
            Kind::Link(target) => self.tar.append_link(&mut header, path, target),
            _ => self.tar.append_data(&mut header, path, content),
        };
        added.map_err(write_error)
    }

    fn folder(&mut self, path: &str, owner: u64) -> Result<()> {
        self.add(
            &format!("{path}/"),
            owner,
            &Kind::Folder,
            (0, &mut io::empty()),
        )
    }

    fn text(&mut self, path: &str, kind: &Kind<'_>, text: &str) -> Result<()> {
        self.add(path, 0, kind, (text.len() as u64, &mut text.as_bytes()))
    }

    fn finish(self) -> Result<(W, ContentHash)> {
        let mut hashed = self.tar.into_inner().map_err(write_error)?;
        hashed.flush().map_err(write_error)?;
        Ok((hashed.inner, hashed.hasher.finish()))
    }
}

fn write_error(source: io::Error) -> ImageError {
    ImageError::Tar {
        operation: "write a layer",
        source,
    }
}

/// Wrappers of the C compilers, the two users, and the folders of tasks.
pub(super) fn system(definition: &Definition) -> Result<Layer> {
    let mut layer = Writer::new(Vec::new());
    let home = format!("{ROOT}/work/home");
    layer.folder("etc", 0)?;
    for (file, text) in [
        (
            "passwd",
            format!(
                "root:x:0:0:root:/root:/bin/sh\nbuilder:x:{BUILDER_ID}:{BUILDER_ID}:builder:{home}:/bin/sh\n"
            ),
        ),
        ("group", format!("root:x:0:\nbuilder:x:{BUILDER_ID}:\n")),
        (
            "shadow",
            "root:*:20089:0:99999:7:::\nbuilder:*:20089:0:99999:7:::\n".to_owned(),
        ),
        ("gshadow", "root:*::\nbuilder:*::\n".to_owned()),
    ] {
        // No password is in them, so everybody may read them.
        layer.text(&format!("etc/{file}"), &Kind::Plain, &text)?;
    }
    let root = ROOT.trim_start_matches('/');
    for (folder, owner) in [("", 0), ("/in", 0), ("/work", BUILDER_ID)] {
        layer.folder(&format!("{root}{folder}"), owner)?;
    }
    for folder in ["home", "out", "target"] {
        layer.folder(&format!("{root}/work/{folder}"), BUILDER_ID)?;
    }
    for folder in ["usr", "usr/local", "usr/local/bin"] {
        layer.folder(folder, 0)?;
    }
    for compiler in definition.compilers() {
        let path = format!("usr/local/bin/{compiler}");
        layer.text(&path, &Kind::Program, &wrapper(&compiler))?;
    }
    let (bytes, digest) = layer.finish()?;
    Ok(Layer {
        content: LayerContent::Bytes(bytes),
        digest,
    })
}

/// A compiler that writes no path of the container. The flags come first, so
/// that a build may give others; an environment variable would do, too, but
/// would be an input of every build script that looks at it.
fn wrapper(compiler: &str) -> String {
    let flags = REMAPPED.map(|(from, to)| format!("-ffile-prefix-map={ROOT}/{from}={to}"));
    format!(
        "#!/bin/sh\nexec /usr/bin/{compiler} {} \"$@\"\n",
        flags.join(" ")
    )
}

/// The compiler, its libraries, Cargo and the host's standard library.
pub(super) fn toolchain(
    workshop: &Workshop<'_>,
    definition: &Definition,
    toolchain: &str,
    file: &Path,
) -> Result<Layer> {
    let sysroot = sysroot(workshop, definition, toolchain)?;
    let mut layer = Writer::new(io::BufWriter::new(fs::create(file)?));
    let mut folders = BTreeSet::new();
    for path in files(&sysroot, &definition.host)? {
        if workshop.is_cancelled() {
            return Err(ImageError::Cancelled);
        }
        let in_image = format!("{TOOLCHAIN}/{path}");
        for (at, _) in in_image.match_indices('/') {
            if folders.insert(in_image[..at].to_owned()) {
                layer.folder(&in_image[..at], 0)?;
            }
        }
        let source = sysroot.join(&path);
        if fs::is_symlink(&source) {
            let target = fs::read_link(&source)?;
            layer.add(&in_image, 0, &Kind::Link(&target), (0, &mut io::empty()))?;
            continue;
        }
        let kind = match fs::mode(&source)? & 0o111 {
            0 => Kind::Plain,
            _ => Kind::Program,
        };
        let size = fs::Stamp::of(&source).map_or(0, |stamp| stamp.size);
        let mut content = io::Read::take(fs::open(&source)?, size);
        layer.add(&in_image, 0, &kind, (size, &mut content))?;
    }
    let (_, digest) = layer.finish()?;
    Ok(Layer {
        content: LayerContent::File(file.to_owned()),
        digest,
    })
}

/// The folder of the toolchain that the definition means: the one of that
/// name, or, where rustup does not have it or has another release under it, any
/// other with the same release.
fn sysroot(workshop: &Workshop<'_>, definition: &Definition, toolchain: &str) -> Result<PathBuf> {
    let rustup = workshop.environment.find_program("rustup");
    let rustup = rustup.ok_or(ImageError::Program { program: "rustup" })?;
    let named = rustc(&rustup, definition, toolchain);
    let first = match named {
        Ok(rustc) => return sysroot_of(toolchain, &rustc),
        Err(error) => error,
    };
    let list = ask(toolchain, Command::new(&rustup).args(["toolchain", "list"]))?;
    for other in list.lines().filter_map(|line| line.split(' ').next()) {
        if let Ok(rustc) = rustc(&rustup, definition, other) {
            return sysroot_of(other, &rustc);
        }
    }
    Err(first)
}

/// The compiler of a toolchain, if it is the one that the definition means.
fn rustc(rustup: &Path, definition: &Definition, toolchain: &str) -> Result<PathBuf> {
    let mut which = Command::new(rustup);
    which.args(["which", "--toolchain", toolchain, "rustc"]);
    let rustc = PathBuf::from(ask(toolchain, &mut which)?.trim());
    let version = ask(toolchain, Command::new(&rustc).arg("-vV"))?;
    let expected = [
        ("release", Some(&definition.release)),
        ("host", Some(&definition.host)),
        ("commit-date", definition.commit_date.as_ref()),
    ];
    for (name, expected) in expected {
        let found = field(&version, name).unwrap_or_default();
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(ImageError::OtherToolchain {
                toolchain: toolchain.to_owned(),
                field: name,
                found: found.to_owned(),
                expected: expected.clone(),
            });
        }
    }
    Ok(rustc)
}

fn sysroot_of(toolchain: &str, rustc: &Path) -> Result<PathBuf> {
    let sysroot = ask(toolchain, Command::new(rustc).args(["--print", "sysroot"]))?;
    Ok(sysroot.trim().into())
}

fn ask(toolchain: &str, command: &mut Command) -> Result<String> {
    output_of(command).map_err(|source| ImageError::Toolchain {
        toolchain: toolchain.to_owned(),
        source,
    })
}

/// What of a sysroot a build needs, sorted: no documentation, no sources, no
/// tools for people.
fn files(sysroot: &Path, host: &str) -> Result<Vec<String>> {
    let mut files: Vec<String> = ["bin/cargo", "bin/rustc"].map(str::to_owned).into();
    let utf8 = |path: &Path| path.to_str().map(str::to_owned);
    let libraries = fs::list(&sysroot.join("lib"))?;
    let libraries = libraries.iter().filter(|path| path.is_file());
    let libraries = libraries.filter_map(|path| utf8(path.strip_prefix(sysroot).ok()?));
    files.extend(libraries.filter(|path| path.contains(".so")));
    for folder in ["bin", "lib"] {
        let folder = format!("lib/rustlib/{host}/{folder}");
        let below = fs::walk(&sysroot.join(&folder))?;
        files.extend(
            below
                .iter()
                .filter_map(|path| Some(format!("{folder}/{}", utf8(path)?))),
        );
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::image::definitions;

    #[test]
    fn compilers_are_wrapped() {
        let definitions = definitions(None).unwrap();
        let name = "1.96.0-x86_64-unknown-linux-gnu+aarch64";
        let layer = system(definitions.get(name).unwrap()).unwrap();
        let LayerContent::Bytes(bytes) = layer.content else {
            panic!("a small layer is no file");
        };
        assert_eq!(layer.digest, ContentHash::of(&bytes));
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut paths = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.header().mtime().unwrap(), TIME);
            paths.push(entry.path().unwrap().display().to_string());
        }
        for path in [
            "etc/passwd",
            "quickbuild/work/home/",
            "usr/local/bin/aarch64-linux-gnu-gcc",
        ] {
            assert!(
                paths.iter().any(|found| found == path),
                "{path} in {paths:?}"
            );
        }
    }

    #[test]
    fn a_wrapper_runs_the_real_compiler() {
        insta::assert_snapshot!(wrapper("cc"), @r##"
        #!/bin/sh
        exec /usr/bin/cc -ffile-prefix-map=/quickbuild/in/cargo=/cargo-home -ffile-prefix-map=/quickbuild/in/workspace=/workspace -ffile-prefix-map=/quickbuild/work/target=/cargo-target "$@"
        "##);
    }

    #[test]
    fn only_what_builds_need_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for path in [
            "bin/cargo",
            "bin/rustc",
            "bin/rustdoc",
            "lib/librustc_driver-1.so",
            "lib/libLLVM.so.22.1-rust-1.95.0-stable",
            "lib/rustlib/components",
            "lib/rustlib/host/bin/rust-lld",
            "lib/rustlib/host/lib/libstd-1.rlib",
            "lib/rustlib/other/lib/libstd-2.rlib",
            "lib/rustlib/src/rust/library/std/lib.rs",
            "share/doc/x",
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, b"").unwrap();
        }
        assert_eq!(
            files(root, "host").unwrap(),
            [
                "bin/cargo",
                "bin/rustc",
                "lib/libLLVM.so.22.1-rust-1.95.0-stable",
                "lib/librustc_driver-1.so",
                "lib/rustlib/host/bin/rust-lld",
                "lib/rustlib/host/lib/libstd-1.rlib",
            ]
        );
    }
}
