//! The images that tests run containers of.

use std::path::Path;
use std::sync::OnceLock;

use super::{TestEnv, nightly, skipped, walk};

/// The builder whose image most tests use.
pub(crate) const BUILDER: &str = "1.95.0-x86_64-unknown-linux-gnu";

/// One with a folder for each unit.
pub(crate) const NIGHTLY_BUILDER: &str = "nightly-x86_64-unknown-linux-gnu";

/// The image of [`BUILDER`] as it is pinned, made once for all tests; `None`
/// after a skip has been noted, because no engine answers or because the image
/// cannot be made here.
///
/// Debian roots are kept for a day below `target/tmp`, so that not every run
/// of the tests makes one.
pub(crate) fn builder_image() -> Option<&'static str> {
    static IMAGE: OnceLock<Result<String, String>> = OnceLock::new();
    or_skip(IMAGE.get_or_init(|| make(BUILDER, "builders")))
}

/// The image of [`NIGHTLY_BUILDER`], likewise; and it is skipped where that
/// toolchain is not installed.
pub(crate) fn nightly_builder_image() -> Option<&'static str> {
    static IMAGE: OnceLock<Result<String, String>> = OnceLock::new();
    if nightly(&TestEnv::new()).is_none() {
        skipped("nightly", "that toolchain is not installed");
        return None;
    }
    builder_image()?;
    or_skip(IMAGE.get_or_init(|| {
        // A folder of its own, since tests look at what is left in the other one;
        // but the same Debian roots.
        let [theirs, own] = ["builders", "builders-nightly"].map(|name| {
            Path::new(env!("CARGO_TARGET_TMPDIR"))
                .join(name)
                .join("cache/images")
        });
        std::fs::create_dir_all(&own).unwrap();
        for root in walk(&theirs) {
            if root.extension().is_some() {
                let _ = std::fs::hard_link(&root, own.join(root.file_name().unwrap())); // or it is there
            }
        }
        make(NIGHTLY_BUILDER, "builders-nightly")
    }))
}

fn or_skip(image: &'static Result<String, String>) -> Option<&'static str> {
    match image {
        Ok(image) => Some(image),
        Err(reason) => {
            skipped("docker", reason);
            None
        }
    }
}

fn make(builder: &str, store: &str) -> Result<String, String> {
    let env = TestEnv::new();
    let env = env.with_store(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(store));
    let made = env.quickbuild(&env.project("tiny"), &["builder", "build", builder]);
    if made.code == Some(0) {
        return Ok(made.stdout.trim().to_owned());
    }
    let lacks = [
        "no container engine answers",
        "is not installed",
        "cannot use the toolchain",
    ];
    assert!(
        lacks.iter().any(|lack| made.stderr.contains(lack)),
        "{made}"
    );
    Err(made.stderr.lines().next().unwrap_or_default().to_owned())
}
