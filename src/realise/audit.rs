//! What an output must not show of the place where it was made.
//!
//! The compiler was told to name the builder's folders otherwise
//! ([`REMAPPED`](crate::builder::REMAPPED)), and so was the C compiler. Where one is
//! named all the same, some code *uses* it, and then the output says so in its
//! conditions, or something was missed, and nobody gets it.

use std::path::Path;

use memchr::memmem::Finder;

use crate::cargo::glibc::GlibcVersion;
use crate::fs;
use crate::output::{Output, Role};

/// What outputs are measured by.
#[derive(Debug, Clone, Copy)]
pub struct Audit<'a> {
    /// The builder's root.
    pub root: &'a Path,
    /// The highest GLIBC version that the builder's programs may need; `None`
    /// where nothing is promised.
    pub glibc: Option<GlibcVersion>,
    /// Whether libraries of the system beside the C library may be linked: they
    /// are declared by the choice of a variant.
    pub libraries: bool,
}

impl Audit<'_> {
    /// Looks at an output whose files lie in `folder`; an error says what is
    /// wrong with it.
    pub fn examine(&self, output: &Output, folder: &Path) -> Result<(), String> {
        self.manifest(output)?;
        for (index, file) in output.files.iter().enumerate() {
            let bytes = fs::read(&folder.join(file.store_name(index)));
            let bytes = bytes.map_err(|error| error.to_string())?;
            self.content(output, index, &bytes)?;
        }
        Ok(())
    }

    /// Looks at what an output says of itself.
    pub(super) fn manifest(&self, output: &Output) -> Result<(), String> {
        if let (Some(limit), Some(found)) = (self.glibc, output.glibc)
            && found > limit
        {
            return Err(format!(
                "it needs GLIBC {found}, and the builder promises no more than {limit}"
            ));
        }
        let undeclared = output
            .inputs
            .files
            .iter()
            .find(|file| !is_of_system(&file.path));
        if let Some(file) = undeclared {
            let path = file.path.display();
            return Err(format!("it depends on `{path}`, which is not the recipe's"));
        }
        let mut linked = output.inputs.files.iter();
        let library = linked.find(|file| !is_of_c_library(&file.path));
        if let Some(file) = library.filter(|_| !self.libraries) {
            let path = file.path.display();
            return Err(format!(
                "it links `{path}`, a library of the system that is not declared; a variant of the builder, such as `<name>+openssl`, declares it"
            ));
        }
        Ok(())
    }

    /// Looks at the content of one of an output's files.
    pub(super) fn content(
        &self,
        output: &Output,
        index: usize,
        bytes: &[u8],
    ) -> Result<(), String> {
        let file = &output.files[index];
        if !output.inputs.folders.is_empty() {
            return Ok(()); // it names them, and serves only where they are
        }
        if matches!(file.role, Role::Stderr | Role::Diagnostics) {
            return Ok(());
        }
        let root = self.root.as_os_str().as_encoded_bytes();
        let named = Finder::new(root).find_iter(bytes).find(|&at| {
            let end = bytes.get(at + root.len());
            end.is_none_or(|&byte| byte == b'/' || !byte.is_ascii_alphanumeric())
        });
        let Some(at) = named else {
            return Ok(());
        };
        let end = bytes.len().min(at + 120);
        let text = String::from_utf8_lossy(&bytes[at..end]);
        let text: String = text.chars().take_while(|c| !c.is_control()).collect();
        Err(format!("`{}` names `{text}`", file.name))
    }
}

/// Whether a file is of the C library, which every builder has.
fn is_of_c_library(path: &Path) -> bool {
    const NAMES: [&str; 7] = ["c", "m", "dl", "pthread", "rt", "util", "resolv"];
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let name = stem.and_then(|stem| stem.strip_prefix("lib"));
    name.is_some_and(|name| NAMES.contains(&name))
}

/// Whether a file that a build script looked at is one of the image: a library
/// of the system.
fn is_of_system(path: &Path) -> bool {
    ["/usr", "/lib", "/lib64", "/etc"]
        .iter()
        .any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_needs_no_declaration() {
        let folder = Path::new("/usr/lib/x86_64-linux-gnu");
        for name in ["libm.so", "libc.so", "libpthread.so"] {
            assert!(is_of_c_library(&folder.join(name)), "{name}");
        }
        for name in ["libssl.so", "libmagic.so", "m.so", "libcrypt.so"] {
            assert!(!is_of_c_library(&folder.join(name)), "{name}");
        }
        assert!(is_of_system(&folder.join("libssl.so")));
        assert!(!is_of_system(Path::new("/home/u/libssl.so")));
    }
}
