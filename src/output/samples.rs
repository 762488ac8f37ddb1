//! Manifests for tests.

use super::*;
use crate::cargo::dep_info::Base;

/// A manifest that has something in every field.
pub(crate) fn full() -> Output {
    let canonical = |text: &str| {
        let mut canonical = Canonical::new("sample");
        canonical.text(text);
        canonical
    };
    let file = |role, name: &str, bytes: &[u8]| File {
        role,
        name: name.to_owned(),
        size: bytes.len() as u64,
        sha256: Some(ContentHash::of(bytes)),
        time: None,
        mode: 0o644,
        portable: false,
    };
    let key = UnitKey::finish(canonical("key"));
    let references = vec![
        OutputId::finish(canonical("first")),
        OutputId::finish(canonical("second")),
    ];
    let inputs = Inputs {
        files: vec![InputFile {
            base: InputBase::Package,
            path: "src/lib.rs".into(),
            sha256: ContentHash::of(b"source"),
        }],
        env: vec![
            ("CC".to_owned(), None),
            ("CFLAGS".to_owned(), Some("-O2".to_owned())),
        ],
        git_head: Some("0123456789abcdef".to_owned()),
        folders: vec![("@package@".to_owned(), "/home/u/p".into())],
    };
    let builder = Maker::Image(ContentHash::of(b"image"));
    Output {
        format: FORMAT,
        id: output_id(key, &inputs, &references, &builder),
        recipe: RecipeHash::finish(canonical("recipe")),
        host_recipe: RecipeHash::finish(canonical("host recipe")),
        key,
        name: "sample".to_owned(),
        version: "1.2.3".to_owned(),
        target_kind: "lib".to_owned(),
        produced: Produced::Build,
        references,
        inputs,
        files: vec![
            file(Role::Metadata, "libsample@.rmeta", b"metadata"),
            file(Role::Library, "libsample@.rlib", b"library"),
        ],
        unit_id: "0123456789abcdef".to_owned(),
        extra_filename: "-0123456789abcdef".to_owned(),
        timed: false,
        mentions_clippy: false,
        rustc_dep_info: Some(DepInfo {
            files: vec!["src/lib.rs".to_owned(), "src/a.rs".to_owned()],
            env: vec![("A".to_owned(), Some("1".to_owned()))],
        }),
        cargo_dep_info: Some(CargoDepInfo {
            files: vec![
                (Base::Package, "src/lib.rs".into()),
                (Base::BuildDir, "@out-dir@/a.rs".into()),
            ],
            env: vec![
                ("A".to_owned(), Some("1".to_owned())),
                ("B".to_owned(), None),
            ],
        }),
        local: vec![
            LocalFingerprint::RerunIfChanged {
                output: "debug/build/sample-0123456789abcdef/output".into(),
                paths: vec!["build.rs".into()],
            },
            LocalFingerprint::RerunIfEnvChanged {
                var: "CC".to_owned(),
                val: None,
            },
            LocalFingerprint::Precalculated("1.2.3".to_owned()),
        ],
        seconds: 1.5,
        jobs: 2,
        glibc: Some("2.34".parse().unwrap()),
        builder,
    }
}
