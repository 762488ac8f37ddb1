//! What a program needs from the system it runs on.

use std::path::Path;

use object::elf::{FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader as _};
use object::read::{ReadCache, ReadRef};
use object::{Endianness, FileKind};

use crate::cargo::glibc::GlibcVersion;
use crate::fs;

/// The highest GLIBC symbol version that an ELF file asks for, such as `2.34`.
/// `None` for other files and for programs without the GNU C library.
pub(super) fn glibc_floor(path: &Path) -> Option<GlibcVersion> {
    let is_linked = path.extension().is_none_or(|extension| extension == "so");
    if !is_linked {
        return None;
    }
    let file = ReadCache::new(fs::open(path).ok()?);
    let versions = match FileKind::parse(&file).ok()? {
        FileKind::Elf64 => needed_versions::<FileHeader64<Endianness>, _>(&file),
        FileKind::Elf32 => needed_versions::<FileHeader32<Endianness>, _>(&file),
        _ => None,
    }?;
    let versions = versions.iter();
    versions
        .filter_map(|version| GlibcVersion::of_symbol(version))
        .max()
}

/// Names in the section of needed symbol versions (`.gnu.version_r`).
fn needed_versions<'a, Elf, R>(data: R) -> Option<Vec<String>>
where
    Elf: FileHeader<Endian = Endianness>,
    R: ReadRef<'a>,
{
    let header = Elf::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, data).ok()?;
    let mut names = Vec::new();
    for section in sections.iter() {
        let Some((mut needs, link)) = section.gnu_verneed(endian, data).ok()? else {
            continue;
        };
        let strings = sections.strings(endian, data, link).ok()?;
        while let Some((_, mut versions)) = needs.next().ok()? {
            while let Some(version) = versions.next().ok()? {
                let name = version.name(endian, strings).ok()?;
                names.push(String::from_utf8_lossy(name).into_owned());
            }
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_this_system_has_a_floor() {
        let floor = glibc_floor(Path::new("/bin/ls")).unwrap();
        assert!(floor >= "2.2".parse().unwrap(), "{floor}");
        // It runs here, so this system has what it asks for.
        assert!(GlibcVersion::of_host() >= Some(floor));
        assert_eq!(glibc_floor(Path::new("/etc/passwd")), None);
    }
}
