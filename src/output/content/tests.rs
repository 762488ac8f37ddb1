use super::*;
use crate::output::samples::full as sample;
use crate::output::{InputBase, InputFile, Maker, Role};

/// A pinned literal: whoever changes the encoding makes all signatures void.
#[test]
fn the_hash_is_pinned() {
    assert_eq!(
        sample().content_hash().to_string(),
        "01c82f4611a2254d899a1e915a936634b0f722dedf03e5c85f10a3904a299c47"
    );
}

#[test]
fn what_differs_between_two_compilations_of_the_same_bytes_is_left_out() {
    let hash = sample().content_hash();
    let same = |what: &str, change: &dyn Fn(&mut Output)| {
        let mut output = sample();
        change(&mut output);
        assert_ne!(output, sample(), "{what}");
        assert_eq!(output.content_hash(), hash, "{what}");
    };
    same("seconds", &|output| output.seconds += 1.0);
    same("jobs", &|output| output.jobs += 1);
    same("order", &|output| {
        let info = output.rustc_dep_info.as_mut().unwrap();
        info.files.reverse();
    });
    same("order of Cargo's", &|output| {
        let info = output.cargo_dep_info.as_mut().unwrap();
        info.files.reverse();
        info.env.reverse();
    });
    same("the build directory", &|output| {
        let LocalFingerprint::RerunIfChanged { output, .. } = &mut output.local[0] else {
            unreachable!("the sample begins with it");
        };
        *output = "release/build/a/output".into();
    });

    // Of a path package, the text is the time of its newest file.
    let mut output = sample();
    output.timed = true;
    let hash = output.content_hash();
    output.local[2] = LocalFingerprint::Precalculated("1.5s (src/lib.rs)".to_owned());
    assert_eq!(output.content_hash(), hash);
}

#[test]
fn every_other_field_counts() {
    let hash = sample().content_hash();
    let differs = |what: &str, change: &dyn Fn(&mut Output)| {
        let mut output = sample();
        change(&mut output);
        assert_ne!(output.content_hash(), hash, "{what}");
    };
    let digest = |text: &str| {
        let mut canonical = Canonical::new("other");
        canonical.text(text);
        canonical
    };
    use crate::digest::{OutputId, RecipeHash, UnitKey};
    differs("format", &|o| o.format += 1);
    differs("id", &|o| o.id = OutputId::finish(digest("")));
    differs("recipe", &|o| o.recipe = RecipeHash::finish(digest("")));
    differs("host recipe", &|o| {
        o.host_recipe = RecipeHash::finish(digest(""));
    });
    differs("key", &|o| o.key = UnitKey::finish(digest("")));
    differs("name", &|o| o.name.push('x'));
    differs("version", &|o| o.version.push('x'));
    differs("target kind", &|o| o.target_kind.push('x'));
    differs("produced", &|o| o.produced = crate::output::Produced::Check);
    differs("references", &|o| o.references.clear());
    differs("input", &|o| o.inputs.files[0].base = InputBase::Absolute);
    differs("input's path", &|o| o.inputs.files[0].path = "x".into());
    differs("input's hash", &|o| {
        o.inputs.files[0].sha256 = ContentHash::of(b"x");
    });
    differs("more inputs", &|o| {
        o.inputs.files.push(InputFile {
            base: InputBase::Package,
            path: "y".into(),
            sha256: ContentHash::of(b"y"),
        });
    });
    differs("variable", &|o| o.inputs.env[0].1 = Some(String::new()));
    differs("commit", &|o| o.inputs.git_head = None);
    differs("folder", &|o| o.inputs.folders[0].1 = "/x".into());
    differs("role", &|o| o.files[0].role = Role::Native);
    differs("file name", &|o| o.files[0].name.push('x'));
    differs("size", &|o| o.files[0].size += 1);
    differs("file", &|o| o.files[0].sha256 = Some(ContentHash::of(b"x")));
    differs("mode", &|o| o.files[0].mode ^= 0o100);
    differs("portable", &|o| o.files[0].portable ^= true);
    differs("order of files", &|o| o.files.reverse());
    differs("unit id", &|o| o.unit_id.push('0'));
    differs("extra filename", &|o| o.extra_filename.push('0'));
    differs("timed", &|o| o.timed ^= true);
    differs("clippy", &|o| o.mentions_clippy ^= true);
    differs("rustc's dep-info", &|o| o.rustc_dep_info = None);
    differs("Cargo's dep-info", &|o| o.cargo_dep_info = None);
    differs("local", &|o| o.local.clear());
    differs("path", &|o| {
        let LocalFingerprint::RerunIfChanged { paths, .. } = &mut o.local[0] else {
            unreachable!("the sample begins with it");
        };
        paths.push("x".into());
    });
    differs("a version", &|o| {
        o.local[2] = LocalFingerprint::Precalculated("2.0.0".to_owned());
    });
    differs("glibc", &|o| o.glibc = None);
    differs("builder", &|o| o.builder = Maker::Local);
}
