//! Whether two builds of the same made the same.

use crate::output::Output;

/// What two builds of the same made.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Outputs that are the same, byte for byte.
    pub same: usize,
    /// Files that differ: output, file, and what it was and is (SHA-256).
    pub differing: Vec<(String, String)>,
    /// Outputs that only one build has.
    pub unmatched: Vec<String>,
}

impl Comparison {
    pub(super) fn compare(&mut self, ours: &Output, again: &Output) {
        let before = self.differing.len();
        let name = ours.store_name();
        for (index, file) in ours.files.iter().enumerate() {
            let other = again.files.get(index);
            let is_same = other.is_some_and(|other| {
                other.name == file.name && file.sha256.is_some() && other.sha256 == file.sha256
            });
            if !is_same {
                self.differing.push((name.clone(), file.name.clone()));
            }
        }
        if ours.files.len() != again.files.len() {
            self.differing.push((name, "the list of files".to_owned()));
        } else if self.differing.len() == before {
            self.same += 1;
        }
    }
}
