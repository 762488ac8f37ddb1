use super::*;
use crate::cargo::unit_graph::PackageId;
use crate::digest::{Canonical, ContentHash, RecipeHash, UnitKey};
use crate::output::{FORMAT, output_id};

fn canonical(text: &str) -> Canonical {
    let mut canonical = Canonical::new("sample");
    canonical.text(text);
    canonical
}

/// A library that needs others, by their places in the list.
fn unit(name: &str, needs: &[usize]) -> Planned {
    let unit = serde_json::json!({
        "pkg_id": format!("registry+https://example.org/index#{name}@1.0.0"),
        "target": {
            "kind": ["lib"],
            "crate_types": ["lib"],
            "name": name,
            "src_path": format!("/home/registry/src/x/{name}/src/lib.rs"),
            "edition": "2021",
        },
        "profile": {},
        "platform": null,
        "mode": "build",
        "features": [],
        "dependencies": [],
    });
    Planned {
        unit: serde_json::from_value(unit).unwrap(),
        package: PackageId {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            source: Source::Immutable("registry+https://example.org/index".to_owned()),
        },
        host: false,
        test: false,
        member: false,
        kind: "lib",
        recipe: RecipeHash::finish(canonical(name)),
        host_recipe: RecipeHash::finish(canonical(name)),
        key: UnitKey::finish(canonical(name)),
        stem: format!("lib-{name}"),
        produced: Produced::Build,
        needs: needs.to_vec(),
        refused: None,
    }
}

fn image() -> Maker {
    Maker::Image(ContentHash::of(b"image"))
}

/// What a maker compiled as a unit.
fn output(unit: &Planned, maker: Maker, references: &[&Arc<Output>]) -> Arc<Output> {
    let references: Vec<OutputId> = references.iter().map(|output| output.id).collect();
    let inputs = Inputs::default();
    let manifest = serde_json::json!({
        "format": FORMAT,
        "id": output_id(unit.key, &inputs, &references, &maker),
        "recipe": unit.recipe,
        "host-recipe": unit.host_recipe,
        "key": unit.key,
        "name": unit.package.name,
        "version": "1.0.0",
        "target-kind": "lib",
        "produced": "build",
        "references": references,
        "inputs": inputs,
        "files": [],
        "unit-id": "0123456789abcdef",
        "extra-filename": "-0123456789abcdef",
        "timed": false,
        "seconds": 1.0,
        "jobs": 1,
        "builder": maker,
    });
    Arc::new(serde_json::from_value(manifest).unwrap())
}

fn known(outputs: &[&Arc<Output>]) -> Known {
    Known {
        outputs: outputs.iter().map(|o| (Arc::clone(o), None)).collect(),
        naming: None,
    }
}

/// The makers of what was chosen; `None` for what is missing. What is chosen
/// must be closed.
fn chosen(units: &[Planned], known: &[Known]) -> Vec<Option<Maker>> {
    let order: Vec<usize> = (0..units.len()).collect();
    let verdicts = choose_best(units, &order, known);
    let output = |index: usize| match &verdicts[index] {
        Verdict::Ready(output) => Some(output),
        Verdict::Missing(_) => None,
    };
    for (index, unit) in units.iter().enumerate() {
        if let Some(chosen) = output(index) {
            let needs = unit.needs.iter().map(|&need| output(need).map(|o| o.id));
            let references = chosen.references.iter().copied().map(Some);
            assert!(needs.eq(references), "not closed at {index}");
        }
    }
    (0..units.len())
        .map(|index| output(index).map(|output| output.builder))
        .collect()
}

#[test]
fn outputs_of_two_makers_are_not_mixed() {
    let units = [unit("base", &[]), unit("middle", &[0]), unit("top", &[1])];
    let [base, middle, top] = &units;
    let local_base = output(base, Maker::Local, &[]);
    let local_middle = output(middle, Maker::Local, &[&local_base]);
    let image_base = output(base, image(), &[]);
    let image_middle = output(middle, image(), &[&image_base]);
    let image_top = output(top, image(), &[&image_middle]);
    assert_ne!(local_base.id, image_base.id);

    // Only the image has made all of it, whatever is first.
    for first in [true, false] {
        let pair = |one, other| {
            let pair = if first { [one, other] } else { [other, one] };
            known(&pair)
        };
        let all = [
            pair(&local_base, &image_base),
            pair(&local_middle, &image_middle),
            known(&[&image_top]),
        ];
        assert_eq!(chosen(&units, &all), [Some(image()); 3]);
    }
    // Where it has not, nothing is taken for what only it could go with.
    let mixed = [known(&[&local_base]), known(&[&image_middle]), known(&[])];
    assert_eq!(chosen(&units, &mixed), [Some(Maker::Local), None, None]);
}

/// What each maker has would send a choice by references astray: many need the
/// local `base` that cannot be used together with the image's `top`.
#[test]
fn a_closed_set_wins_over_what_is_referred_to_most() {
    let names = ["a", "b", "c", "d"];
    let mut units = vec![unit("base", &[])];
    units.extend(names.iter().map(|name| unit(name, &[0])));
    units.push(unit("top", &[1, 2, 3, 4]));
    let local_base = output(&units[0], Maker::Local, &[]);
    let image_base = output(&units[0], image(), &[]);
    let mut all = vec![known(&[&local_base, &image_base])];
    let mut image_parts = Vec::new();
    for part in &units[1..5] {
        let local = output(part, Maker::Local, &[&local_base]);
        // Another output of the recipe, such as one with debug information.
        let mut other = Output::clone(&local);
        other.id = OutputId::finish(canonical(&part.package.name));
        let image = output(part, image(), &[&image_base]);
        all.push(known(&[&local, &Arc::new(other), &image]));
        image_parts.push(image);
    }
    let references: Vec<&Arc<Output>> = image_parts.iter().collect();
    let top = output(&units[5], image(), &references);
    all.push(known(&[&top]));
    assert_eq!(chosen(&units, &all), [Some(image()); 6]);
}

#[test]
fn what_needs_a_newer_c_library_is_not_used() {
    let toolchain = |glibc: Option<&str>| Toolchain {
        rustc: "rustc 1.95.0\nhost: x86_64-unknown-linux-gnu\n".to_owned(),
        cargo: String::new(),
        sysroot: "/".into(),
        glibc: glibc.map(|version| version.parse().unwrap()),
    };
    let mut unit = unit("tool", &[]);
    let needing = |maker, floor: &str| {
        let mut output = Output::clone(&output(&unit, maker, &[]));
        output.glibc = Some(floor.parse().unwrap());
        output
    };
    let newer = needing(image(), "2.38");
    let older = needing(image(), "2.4");
    let local = needing(Maker::Local, "2.38");
    let here = toolchain(Some("2.36"));
    let unknown = toolchain(None);

    let reason = lacks_glibc(&newer, &unit, &here).unwrap();
    assert_eq!(reason.word(), "glibc");
    assert_eq!(
        reason.describe(),
        "the stored output needs GLIBC 2.38, and this system has 2.36"
    );
    assert_eq!(lacks_glibc(&older, &unit, &here), None);
    assert!(lacks_glibc(&local, &unit, &here).is_some());
    assert!(lacks_glibc(&older, &unit, &unknown).is_some());
    assert_eq!(lacks_glibc(&local, &unit, &unknown), None);

    unit.unit.platform = Some("x86_64-unknown-linux-gnu".to_owned());
    assert!(lacks_glibc(&newer, &unit, &here).is_some());
    unit.unit.platform = Some("aarch64-unknown-linux-gnu".to_owned());
    assert_eq!(lacks_glibc(&newer, &unit, &here), None);
}
