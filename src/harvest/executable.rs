//! What a program needs from the system it runs on.

use std::path::Path;

use object::elf::{FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader as _};
use object::read::{ReadCache, ReadRef};
use object::{Endianness, FileKind};

use crate::fs;

/// The highest GLIBC symbol version that an ELF file asks for, such as `2.34`.
/// `None` for other files and for programs without the GNU C library.
pub(super) fn glibc_floor(path: &Path) -> Option<String> {
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
    let numbers = versions
        .iter()
        .filter_map(|version| parse(version.strip_prefix("GLIBC_")?));
    let (major, minor) = numbers.max()?;
    Some(format!("{major}.{minor}"))
}

fn parse(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse::<u32>);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
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
        assert!(floor.starts_with("2."), "{floor}");
        assert_eq!(glibc_floor(Path::new("/etc/passwd")), None);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(parse("2.34") > parse("2.4"));
        assert_eq!(parse("PRIVATE"), None);
    }
}
