//! A software bill of materials in CycloneDX 1.6, as JSON.
//!
//! Specification: ECMA-424, <https://cyclonedx.org/docs/1.6/json/>; package
//! URLs: <https://github.com/package-url/purl-spec>.
//!
//! * A component is a package of the build, not an output: what else is known of
//!   its outputs is in properties, whose names begin with `quickbuild:`.
//! * The same build gives the same text, its time apart: the serial number is a
//!   hash of the rest.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value, json};

use super::{Audit, Audited, Source};
use crate::cargo::licences::Licence;
use crate::cargo::lock_file::{Pin, PinIndex};
use crate::cargo::source::{CRATES_IO, PackageSource};
use crate::cargo::unit_graph::{PackageId, Source as From};
use crate::digest::{ContentHash, hex};
use crate::output::provenance::Timestamp;
use crate::plan::{Context, Plan};

/// What a bill is made from.
pub struct Bill<'a> {
    /// The command.
    pub context: &'a Context,
    /// Its plan.
    pub plan: &'a Plan,
    /// What is known of its outputs.
    pub audit: &'a Audit,
    /// The licences of packages, as far as they are known.
    pub licences: &'a [(PackageId, Licence)],
    /// When it is made.
    pub time: Timestamp,
}

/// A package of the build.
#[derive(Default)]
struct Component<'a> {
    /// Places of its outputs in the audit.
    outputs: BTreeSet<usize>,
    /// Numbers of the packages that it needs.
    needs: BTreeSet<usize>,
    /// Kinds of its targets.
    kinds: BTreeSet<&'a str>,
}

impl Bill<'_> {
    /// The bill.
    pub fn to_json(&self) -> Value {
        let (packages, components) = self.components();
        let references = self.references(&packages);
        let mut roots: BTreeSet<usize> = BTreeSet::new();
        for &root in &self.context.graph.roots {
            let package = self.plan.units.get(root).map(|unit| &unit.package);
            roots.extend(package.and_then(|package| position(&packages, package)));
        }
        let mut listed = Vec::new();
        let mut dependencies = Vec::new();
        let mut single = None;
        for (number, (package, component)) in packages.iter().zip(&components).enumerate() {
            let described = self.describe(package, component, &references[number]);
            if roots.len() == 1 && roots.contains(&number) {
                single = Some(described);
            } else {
                listed.push(described);
            }
            let needs = component.needs.iter().map(|&need| &references[need]);
            dependencies.push(depends(&references[number], needs));
        }
        let subject = single.unwrap_or_else(|| {
            let folder = self.context.roots.workspace.file_name();
            let name = folder.map_or("workspace".into(), |name| name.to_string_lossy());
            let reference = format!("workspace:{name}");
            let needs = roots.iter().map(|&root| &references[root]);
            dependencies.push(depends(&reference, needs));
            json!({"type": "application", "bom-ref": reference, "name": name})
        });
        let mut bill = json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {
                "tools": {"components": [{
                    "type": "application",
                    "name": env!("CARGO_PKG_NAME"),
                    "version": env!("CARGO_PKG_VERSION"),
                }]},
                "component": subject,
            },
            "components": listed,
            "dependencies": dependencies,
        });
        let serial = serial(&ContentHash::of(bill.to_string().as_bytes()));
        bill["serialNumber"] = json!(serial);
        bill["metadata"]["timestamp"] = json!(self.time.to_string());
        bill
    }

    /// The packages of the build, sorted, and what is known of each.
    fn components(&self) -> (Vec<&PackageId>, Vec<Component<'_>>) {
        let units = &self.plan.units;
        let mut packages: Vec<&PackageId> = units.iter().map(|unit| &unit.package).collect();
        let key = |id: &PackageId| (id.name.clone(), id.version.clone(), source_text(id));
        packages.sort_by_key(|package| key(package));
        packages.dedup();
        let numbers: HashMap<_, usize> = packages
            .iter()
            .enumerate()
            .map(|(n, id)| (key(id), n))
            .collect();
        let number = |id: &PackageId| numbers[&key(id)];
        let mut components: Vec<Component<'_>> = Vec::new();
        components.resize_with(packages.len(), Component::default);
        for (index, unit) in units.iter().enumerate() {
            let own = number(&unit.package);
            let component = &mut components[own];
            component.kinds.insert(unit.kind);
            component.outputs.extend(self.audit.of_unit[index]);
            let needs = unit.needs.iter().map(|&need| number(&units[need].package));
            component.needs.extend(needs.filter(|&need| need != own));
        }
        (packages, components)
    }

    /// What each package is called within the bill: its URL, or name and version
    /// where it has none, with a number where another is called so.
    fn references(&self, packages: &[&PackageId]) -> Vec<String> {
        let mut taken: BTreeMap<String, usize> = BTreeMap::new();
        let references = packages.iter().map(|package| {
            let pins = &self.context.common.pins;
            let text = purl(package, pins)
                .unwrap_or_else(|| format!("path:{}@{}", package.name, package.version));
            let count = taken.entry(text.clone()).or_default();
            *count += 1;
            match count {
                1 => text,
                count => format!("{text}#{count}"),
            }
        });
        references.collect()
    }

    fn describe(&self, package: &PackageId, component: &Component<'_>, reference: &str) -> Value {
        let is_program = ["bin", "test", "bench", "example"]
            .iter()
            .any(|kind| component.kinds.contains(kind));
        let mut described = Map::new();
        let mut set = |field: &str, value: Value| described.insert(field.to_owned(), value);
        set(
            "type",
            json!(if is_program { "application" } else { "library" }),
        );
        set("bom-ref", json!(reference));
        set("name", json!(package.name));
        set("version", json!(package.version));
        let pins = &self.context.common.pins;
        if let Some(purl) = purl(package, pins) {
            set("purl", json!(purl));
        }
        if let Some(Pin::Checksum(sum)) = pins.of(package) {
            set("hashes", json!([{"alg": "SHA-256", "content": sum}]));
        }
        let mut licences = self.licences.iter();
        if let Some((_, licence)) = licences.find(|(id, _)| id == package) {
            let licence = match licence {
                Licence::Expression(text) => json!({"expression": text}),
                Licence::File(file) => json!({"license": {"name": format!("see {file}")}}),
            };
            set("licenses", json!([licence]));
        }
        let kinds = component.kinds.iter();
        let mut properties: Vec<Value> = kinds.map(|kind| property("target-kind", kind)).collect();
        for &output in &component.outputs {
            properties.extend(facts(&self.audit.outputs[output]));
        }
        set("properties", json!(properties));
        Value::Object(described)
    }
}

/// What is said of an output; each value names the output that it is about.
fn facts(audited: &Audited) -> Vec<Value> {
    let id = audited.output.split('-').next().unwrap_or_default();
    let about = |name: &str, value: &str| property(name, &format!("{id} {value}"));
    let mut facts = vec![property("output", &audited.output)];
    facts.push(match &audited.source {
        Source::Compiled => about("source", "compiled"),
        Source::Builder { image } => about("source", &format!("builder {image}")),
        Source::Substituter { place, time } => {
            about("source", &format!("substituter {place} {time}"))
        }
        Source::Archive { place, time } => about("source", &format!("archive {place} {time}")),
    });
    for (name, keys) in [
        ("signed-by", &audited.valid),
        ("signature-invalid", &audited.invalid),
        ("signature-unknown", &audited.unknown),
    ] {
        facts.extend(keys.iter().map(|key| about(name, key)));
    }
    if let Some(built) = &audited.provenance {
        facts.push(about("built-by", &built.builder));
    }
    facts
}

fn property(name: &str, value: &str) -> Value {
    json!({"name": format!("quickbuild:{name}"), "value": value})
}

fn depends<'a>(reference: &str, needs: impl Iterator<Item = &'a String>) -> Value {
    let needs: BTreeSet<&String> = needs.collect();
    json!({"ref": reference, "dependsOn": needs})
}

fn position(packages: &[&PackageId], wanted: &PackageId) -> Option<usize> {
    packages.iter().position(|package| *package == wanted)
}

fn source_text(package: &PackageId) -> String {
    match &package.source {
        From::Path(path) => path.to_string_lossy().into_owned(),
        From::Immutable(url) => url.clone(),
    }
}

/// The package URL. A folder has none: under its name, crates.io may have
/// somebody else's package.
fn purl(package: &PackageId, pins: &PinIndex) -> Option<String> {
    let From::Immutable(url) = &package.source else {
        return None;
    };
    let version = encode(&package.version);
    let plain = format!("pkg:cargo/{}@{version}", package.name);
    if url == CRATES_IO {
        return Some(plain);
    }
    let source = match pins.of(package) {
        Some(Pin::Revision(commit)) => format!("{url}#{commit}"),
        _ => url.clone(),
    };
    Some(match PackageSource::parse(&source)? {
        PackageSource::CratesIo => plain,
        PackageSource::Registry { index } => {
            format!("{plain}?repository_url={}", encode(&index))
        }
        PackageSource::Git { url, commit, .. } => {
            format!("{plain}?vcs_url={}", encode(&format!("git+{url}@{commit}")))
        }
    })
}

/// Percent-encoding as package URLs have it.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A UUID (RFC 9562, version 8) that follows from a hash.
fn serial(hash: &ContentHash) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes);
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    format!("urn:uuid:{}", parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(spec: &str) -> PackageId {
        PackageId::parse(spec).unwrap()
    }

    #[test]
    fn package_urls_say_where_a_package_is_from() {
        let pins = PinIndex::default();
        let purl = |spec: &str| purl(&id(spec), &pins);
        let crates_io = format!("{CRATES_IO}#serde@1.0.228+build.1");
        assert_eq!(
            purl(&crates_io).unwrap(),
            "pkg:cargo/serde@1.0.228%2Bbuild.1"
        );
        assert_eq!(
            purl("sparse+https://example.org/i/#a@1.0.0").unwrap(),
            "pkg:cargo/a@1.0.0?repository_url=sparse%2Bhttps:%2F%2Fexample.org%2Fi%2F"
        );
        // Without its commit it is not known which one it is.
        assert_eq!(purl("git+https://example.org/a?tag=v1#a@1.0.0"), None);
        assert_eq!(purl("path+file:///w/a#1.0.0"), None);
    }

    #[test]
    fn serial_numbers_are_uuids() {
        let serial = serial(&ContentHash::of(b"bill"));
        let text = serial.strip_prefix("urn:uuid:").unwrap();
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(&text[14..15], "8");
        assert!("89ab".contains(&text[19..20]));
    }
}
