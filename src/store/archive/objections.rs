//! What in an archive is refused for what it says: names that lead elsewhere,
//! impossible modes, ids that do not follow.

use std::path::{Component, Path};

use crate::output::{FORMAT, Naming, Output, output_id};

/// Why an output of a stranger is not taken.
pub(super) fn objection_to_output(output: &Output, store_name: &str) -> Option<&'static str> {
    if output.format != FORMAT {
        Some("has a format that this quickbuild does not know")
    } else if output.store_name() != store_name {
        Some("has the manifest of another output")
    } else if output_id(
        output.key,
        &output.inputs,
        &output.references,
        &output.builder,
    ) != output.id
    {
        Some("has an id that does not follow from its manifest")
    } else if output
        .files
        .iter()
        .any(|file| file.sha256.is_none() || file.time.is_some())
    {
        Some("has a file that only its own store can have")
    } else if output
        .files
        .iter()
        .any(|file| file.mode & !0o777 != 0 || file.mode & 0o400 == 0)
    {
        Some("has a file with an impossible mode")
    } else if !output
        .files
        .iter()
        .all(|file| is_inside(Path::new(&file.name)))
    {
        Some("has a file whose name leads out of the target directory")
    } else if !is_word(&output.unit_id) || !is_word(&output.extra_filename) {
        Some("has an impossible unit id")
    } else {
        None
    }
}

/// Whether what Cargo would name so stays inside the target directory.
pub(super) fn is_harmless_naming(naming: &Naming) -> bool {
    let out_dir = &naming.out_dir;
    naming.format == FORMAT
        && is_word(&naming.unit_id)
        && is_word(&naming.extra_filename)
        && (out_dir.as_os_str().is_empty() || is_inside(out_dir))
        && is_inside(Path::new(&naming.stem))
}

/// Whether a path names something below the folder it is joined to.
fn is_inside(path: &Path) -> bool {
    let mut components = path.components().peekable();
    let is_named = components.peek().is_some();
    is_named && components.all(|component| matches!(component, Component::Normal(_)))
}

/// Whether a text is no more than a part of a file's name.
fn is_word(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.chars().all(allowed)
}
