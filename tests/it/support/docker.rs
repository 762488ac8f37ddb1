//! The one image that tests run containers of.

use std::path::Path;
use std::sync::OnceLock;

use super::{TestEnv, skipped};

/// The builder whose image tests use.
pub(crate) const BUILDER: &str = "1.95.0-x86_64-unknown-linux-gnu";

/// The image of [`BUILDER`] as it is pinned, made once for all tests; `None`
/// after a skip has been noted, because no engine answers or because the image
/// cannot be made here.
///
/// Debian roots are kept for a day below `target/tmp`, so that not every run
/// of the tests makes one.
pub(crate) fn builder_image() -> Option<&'static str> {
    static IMAGE: OnceLock<Result<String, String>> = OnceLock::new();
    match IMAGE.get_or_init(make) {
        Ok(image) => Some(image),
        Err(reason) => {
            skipped("docker", reason);
            None
        }
    }
}

fn make() -> Result<String, String> {
    let env = TestEnv::new();
    let env = env.with_store(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("builders"));
    let made = env.quickbuild(&env.project("tiny"), &["builder", "build", BUILDER]);
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
