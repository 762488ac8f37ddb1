//! What in a stranger's manifest or naming is refused for what it says: names
//! that lead elsewhere, impossible modes, ids that do not follow.

use std::path::{Component, Path};

use super::{FORMAT, Naming, Output, output_id};

impl Output {
    /// Why the manifest of a stranger is not taken as one of the output that it
    /// is said to be of.
    pub fn objection(&self, store_name: &str) -> Option<&'static str> {
        if self.format != FORMAT {
            Some("has a format that this quickbuild does not know")
        } else if self.store_name() != store_name {
            Some("has the manifest of another output")
        } else if output_id(self.key, &self.inputs, &self.references, &self.builder) != self.id {
            Some("has an id that does not follow from its manifest")
        } else if !is_name(&self.name) || !is_name(&self.version) {
            Some("has a name or version that no folder can have")
        } else if self
            .files
            .iter()
            .any(|file| file.mode & !0o777 != 0 || file.mode & 0o400 == 0)
        {
            Some("has a file with an impossible mode")
        } else if self
            .files
            .iter()
            .any(|file| file.sha256.is_none() || file.time.is_some())
        {
            Some("has a file that only its own store can have")
        } else if !self
            .files
            .iter()
            .all(|file| is_inside(Path::new(&file.name)))
        {
            Some("has a file whose name leads out of the target directory")
        } else if !is_word(&self.unit_id) || !is_word(&self.extra_filename) {
            Some("has an impossible unit id")
        } else {
            None
        }
    }
}

impl Naming {
    /// Whether what Cargo would name so stays inside the target directory.
    pub fn is_harmless(&self) -> bool {
        self.format == FORMAT
            && is_word(&self.unit_id)
            && is_word(&self.extra_filename)
            && (self.out_dir.as_os_str().is_empty() || is_inside(&self.out_dir))
            && is_inside(Path::new(&self.stem))
    }
}

/// Whether a text can be part of a folder's name.
fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c == '/' || c.is_control())
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
