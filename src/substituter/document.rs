//! What the files of a substituter say. Pure: bytes in, values out.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::LazyLock;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FORMAT, MAX_RECIPES, Result, SubstituterError};
use crate::digest::{ContentHash, OutputId, RecipeHash, UnitKey};
use crate::output::provenance::Statement;
use crate::output::{Naming, Output};
use crate::trust::{Signature, Signatures};

/// Name of the file that makes a place a substituter.
pub const INFO: &str = "quickbuild-cache.json";
/// Path of the call.
pub const CALL: &str = "v1/lookup";
/// Bytes that [`INFO`] may have.
pub const MAX_INFO: u64 = 64 << 10;
/// Bytes that a document may have.
pub const MAX_DOCUMENT: u64 = 64 << 20;
/// Bytes that a call's body may have.
pub const MAX_CALL: u64 = 256 << 10;
/// Bytes that a document may have when it is unpacked.
const MAX_UNPACKED: u64 = 512 << 20;
/// Bytes that a client goes back for a repetition, as a power of two.
const MAX_WINDOW: u32 = 26;
/// More costs more time than it saves, as measured on an axum service.
const LEVEL: i32 = 9;
/// The priority of who says nothing about it.
const PRIORITY: u32 = 40;

/// What a substituter says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheInfo {
    /// [`FORMAT`].
    pub format: u32,
    /// What comes first, the lower.
    #[serde(default = "default_priority")]
    pub priority: u32,
    /// Public keys that it says it signs with; believed by nobody.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Whether it answers calls.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lookup: bool,
}

fn default_priority() -> u32 {
    PRIORITY
}

impl Default for CacheInfo {
    fn default() -> Self {
        Self {
            format: FORMAT,
            priority: PRIORITY,
            keys: Vec::new(),
            lookup: false,
        }
    }
}

impl CacheInfo {
    /// Reads the file that came from `url`.
    pub fn parse(bytes: &[u8], url: &str) -> Result<Self> {
        let value = json(bytes, url)?;
        format(&value, url)?;
        serde_json::from_value(value).map_err(|error| malformed(url, error))
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("settings serialise");
        bytes.push(b'\n');
        bytes
    }
}

/// Where the files of an output are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRef {
    /// SHA-256 of the archive.
    pub sha256: ContentHash,
    /// Bytes of the archive.
    pub size: u64,
}

/// An output as it is published.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The manifest.
    pub output: Output,
    /// Its files.
    pub archive: ArchiveRef,
    /// Who vouches for it, if anybody does.
    pub signatures: Option<Signatures>,
    /// How it came about, if that is known.
    pub provenance: Option<Statement>,
}

impl Entry {
    /// Adds signatures of keys that have not signed it yet.
    pub fn add_signatures(&mut self, new: &[Signature]) {
        for signature in new {
            let new = Signatures::new(signature.clone());
            match &mut self.signatures {
                Some(known) => known.merge(new),
                none => *none = Some(new),
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
struct RawEntry {
    manifest: Output,
    archive: ArchiveRef,
    #[serde(default)]
    signatures: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provenance: Option<Statement>,
}

impl From<&Entry> for RawEntry {
    fn from(entry: &Entry) -> Self {
        let signatures = entry.signatures.iter().flat_map(Signatures::iter);
        Self {
            manifest: entry.output.clone(),
            archive: entry.archive,
            signatures: signatures.map(Signature::to_string).collect(),
            provenance: entry.provenance.clone(),
        }
    }
}

#[derive(Serialize)]
struct RawDocument {
    format: u32,
    outputs: Vec<RawEntry>,
    namings: Vec<Naming>,
}

/// An answer: outputs, and how Cargo names their units.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Document {
    /// Outputs by their ids.
    pub outputs: BTreeMap<OutputId, Entry>,
    /// Namings by their units' keys.
    pub namings: BTreeMap<UnitKey, Naming>,
    /// Entries and namings that this quickbuild does not understand, or
    /// refuses, with reasons.
    pub refused: Vec<String>,
}

impl Document {
    /// Reads what came from `url`. What is wrong with single entries is in
    /// [`refused`](Self::refused).
    pub fn parse(bytes: &[u8], url: &str) -> Result<Self> {
        let bytes = unpack(bytes, url)?;
        let mut value = json(&bytes, url)?;
        format(&value, url)?;
        let mut list = |field: &str| match value.get_mut(field).map(Value::take) {
            Some(Value::Array(list)) => Ok(list),
            _ => Err(malformed(url, format!("`{field}` is not a list"))),
        };
        let (outputs, namings) = (list("outputs")?, list("namings")?);
        let mut document = Self::default();
        for entry in outputs {
            match Entry::read(entry) {
                Ok(entry) => {
                    document.outputs.insert(entry.output.id, entry);
                }
                Err(reason) => document.refused.push(reason),
            }
        }
        for naming in namings {
            match serde_json::from_value::<Naming>(naming) {
                Ok(naming) if naming.is_harmless() => {
                    document.namings.insert(naming.key, naming);
                }
                Ok(naming) => {
                    let reason = format!("the naming of unit `{}` is invalid", naming.key);
                    document.refused.push(reason);
                }
                Err(error) => document.refused.push(format!("a naming: {error}")),
            }
        }
        Ok(document)
    }

    /// Adds what another document says. Of two contents of an output, the first
    /// stays.
    pub fn add(&mut self, other: &Self) {
        for (id, entry) in &other.outputs {
            match self.outputs.get_mut(id) {
                None => {
                    self.outputs.insert(*id, entry.clone());
                }
                Some(known) if known.output.content_hash() == entry.output.content_hash() => {
                    known.add(entry.signatures.clone(), entry.provenance.clone());
                }
                Some(_other) => {}
            }
        }
        for (key, naming) in &other.namings {
            self.namings.entry(*key).or_insert_with(|| naming.clone());
        }
    }

    /// The document's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let entries = self.outputs.values().map(RawEntry::from);
        let raw = RawDocument {
            format: FORMAT,
            outputs: entries.collect(),
            namings: self.namings.values().cloned().collect(),
        };
        let json = serde_json::to_vec(&raw).expect("a document serialises");
        pack(&json)
    }

    /// An answer whose parts are packed already, each by itself: entries by
    /// their ids, then namings by their units' keys.
    pub fn assemble(
        mut entries: impl ExactSizeIterator<Item = Bytes>,
        mut namings: impl ExactSizeIterator<Item = Bytes>,
    ) -> Vec<Bytes> {
        static TEXTS: LazyLock<[Bytes; 4]> = LazyLock::new(|| {
            let begin = format!("{{\"format\":{FORMAT},\"outputs\":[");
            let texts = [begin.as_str(), ",", "],\"namings\":[", "]}"];
            texts.map(|text| pack(text.as_bytes()).into())
        });
        let [begin, comma, middle, end] = &*TEXTS;
        let mut parts = Vec::with_capacity(2 * (entries.len() + namings.len()) + 3);
        let list = |parts: &mut Vec<Bytes>, items: &mut dyn Iterator<Item = Bytes>| {
            for (number, item) in items.enumerate() {
                if number > 0 {
                    parts.push(comma.clone());
                }
                parts.push(item);
            }
        };
        parts.push(begin.clone());
        list(&mut parts, &mut entries);
        parts.push(middle.clone());
        list(&mut parts, &mut namings);
        parts.push(end.clone());
        parts
    }
}

impl Entry {
    /// The entry as a part of an answer.
    pub fn to_part(&self) -> Bytes {
        let json = serde_json::to_vec(&RawEntry::from(self)).expect("an entry serialises");
        pack(&json).into()
    }

    /// Adds what else is said of the same output; provenance that is there stays.
    pub fn add(&mut self, signatures: Option<Signatures>, provenance: Option<Statement>) {
        match (&mut self.signatures, signatures) {
            (Some(known), Some(more)) => known.merge(more),
            (known @ None, more) => *known = more,
            (Some(_), None) => {}
        }
        self.provenance = self.provenance.take().or(provenance);
    }

    /// Reads an entry as a stranger's: `Err` says why it is not taken.
    fn read(value: Value) -> std::result::Result<Self, String> {
        let raw: RawEntry = serde_json::from_value(value).map_err(|e| format!("an entry: {e}"))?;
        let output = raw.manifest;
        let store_name = output.store_name();
        if let Some(objection) = output.objection(&store_name) {
            return Err(format!("`{store_name}` {objection}"));
        }
        let mut signatures: Option<Signatures> = None;
        for text in raw.signatures {
            let signature: Signature = text
                .parse()
                .map_err(|error| format!("`{store_name}`: {error}"))?;
            match &mut signatures {
                Some(signatures) => signatures.insert(signature),
                None => signatures = Some(Signatures::new(signature)),
            }
        }
        if raw
            .provenance
            .as_ref()
            .is_some_and(|p| !p.is_about(&output))
        {
            return Err(format!("`{store_name}` has provenance of something else"));
        }
        Ok(Self {
            output,
            archive: raw.archive,
            signatures,
            provenance: raw.provenance,
        })
    }
}

/// A call's body.
#[derive(Debug, Serialize, Deserialize)]
struct Call {
    format: u32,
    recipes: Vec<RecipeHash>,
}

/// A naming as a part of an answer.
pub fn naming_part(naming: &Naming) -> Bytes {
    pack(&serde_json::to_vec(naming).expect("a naming serialises")).into()
}

/// Packs text. Frames of Zstandard can be put one behind the other, and so can
/// what this gives.
pub(super) fn pack(text: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(text, LEVEL).expect("what is in memory can be packed")
}

/// The recipes that the body of a call asks for; `Err` says what is wrong with
/// it.
pub fn parse_call(bytes: &[u8]) -> std::result::Result<Vec<RecipeHash>, String> {
    let call: Call = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if call.format != FORMAT {
        return Err(format!("its format is {}, not {FORMAT}", call.format));
    }
    if call.recipes.len() > MAX_RECIPES {
        return Err(format!("it asks for more than {MAX_RECIPES} recipes"));
    }
    let mut sorted = call.recipes.clone();
    sorted.sort();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("it asks for a recipe twice".to_owned());
    }
    Ok(call.recipes)
}

/// The body of a call for recipes.
pub fn call(recipes: &[RecipeHash]) -> Vec<u8> {
    let call = Call {
        format: FORMAT,
        recipes: recipes.to_vec(),
    };
    serde_json::to_vec(&call).expect("a call serialises")
}

pub(super) fn unpack(bytes: &[u8], url: &str) -> Result<Vec<u8>> {
    let unpacked = || -> std::io::Result<Vec<u8>> {
        let mut decoder = zstd::Decoder::with_buffer(bytes)?;
        decoder.window_log_max(MAX_WINDOW)?;
        let mut unpacked = Vec::new();
        decoder.take(MAX_UNPACKED + 1).read_to_end(&mut unpacked)?;
        Ok(unpacked)
    };
    let unpacked = unpacked().map_err(|error| malformed(url, error))?;
    if unpacked.len() as u64 > MAX_UNPACKED {
        return Err(SubstituterError::TooLarge {
            url: url.to_owned(),
            limit: MAX_UNPACKED,
        });
    }
    Ok(unpacked)
}

pub(super) fn json(bytes: &[u8], url: &str) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|error| malformed(url, error))
}

pub(super) fn format(value: &Value, url: &str) -> Result<()> {
    match value.get("format").and_then(Value::as_u64) {
        Some(found) if found == u64::from(FORMAT) => Ok(()),
        Some(found) => Err(SubstituterError::Format {
            url: url.to_owned(),
            found: u32::try_from(found).unwrap_or(u32::MAX),
        }),
        None => Err(malformed(url, "it does not tell its format")),
    }
}

pub(super) fn malformed(url: &str, reason: impl ToString) -> SubstituterError {
    SubstituterError::Malformed {
        url: url.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::output_id;
    use crate::output::samples::full;
    use crate::trust::SecretKey;
    use proptest::prelude::*;

    fn entry() -> Entry {
        let mut output = full();
        output.id = output_id(
            output.key,
            &output.inputs,
            &output.references,
            &output.builder,
        );
        let key = SecretKey::generate("a-1".parse().unwrap()).unwrap();
        Entry {
            output,
            archive: ArchiveRef {
                sha256: ContentHash::of(b"archive"),
                size: 7,
            },
            signatures: Some(Signatures::new(key.sign(b"message"))),
            provenance: None,
        }
    }

    fn document(entry: Entry) -> Document {
        Document {
            outputs: BTreeMap::from([(entry.output.id, entry)]),
            ..Document::default()
        }
    }

    fn packed(text: &str) -> Vec<u8> {
        zstd::bulk::compress(text.as_bytes(), 3).unwrap()
    }

    #[test]
    fn a_document_is_read_as_it_was_written() {
        let document = document(entry());
        assert_eq!(
            Document::parse(&document.to_bytes(), "u").unwrap(),
            document
        );
        assert_eq!(document.to_bytes(), document.to_bytes());
        let info = CacheInfo {
            keys: vec!["a-1:AAAA".to_owned()],
            ..CacheInfo::default()
        };
        assert_eq!(CacheInfo::parse(&info.to_bytes(), "u").unwrap(), info);
        let with_more = br#"{"format": 1, "new": true}"#;
        assert_eq!(
            CacheInfo::parse(with_more, "u").unwrap(),
            CacheInfo::default()
        );
    }

    #[test]
    fn an_answer_in_parts_is_a_document() {
        let one = entry();
        let mut other = one.clone();
        other.output.references.clear();
        other.output.id = output_id(
            other.output.key,
            &other.output.inputs,
            &other.output.references,
            &other.output.builder,
        );
        for count in 0..=2 {
            let all = [&one, &other];
            let entries: Vec<Bytes> = all[..count].iter().map(|entry| entry.to_part()).collect();
            let parts = Document::assemble(entries.into_iter(), std::iter::empty());
            let read = Document::parse(&parts.concat(), "u").unwrap();
            assert_eq!(read.refused, [""; 0]);
            let outputs = all[..count].iter().map(|e| (e.output.id, (*e).clone()));
            assert_eq!(read.outputs, outputs.collect());
        }
    }

    #[test]
    fn calls_are_read_strictly() {
        let recipe = entry().output.host_recipe;
        assert_eq!(parse_call(&call(&[recipe])), Ok(vec![recipe]));
        assert_eq!(parse_call(&call(&[])), Ok(vec![]));
        assert!(parse_call(&call(&[recipe, recipe])).is_err());
        for text in ["", "[]", "{\"format\":2,\"recipes\":[]}", "{\"format\":1}"] {
            assert!(parse_call(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_one_entry_spoils_no_other() {
        let good = entry();
        let text = |document: &Document| {
            String::from_utf8(unpack(&document.to_bytes(), "u").unwrap()).unwrap()
        };
        let whole = text(&document(good.clone()));
        let list = whole
            .strip_prefix("{\"format\":1,\"outputs\":[")
            .and_then(|rest| rest.strip_suffix("],\"namings\":[]}"))
            .unwrap();
        let broken = [
            list.replace("\"seconds\"", "\"secs\""),
            list.replace("\"unit-id\":\"", "\"unit-id\":\"../"),
            list.replace("\"format\":1", "\"format\":2"),
            list.replace("a-1:", "a-1;"),
            list.replace("src/", "xrc/"),
            "7".to_owned(),
        ];
        for (number, broken) in broken.iter().enumerate() {
            assert_ne!(broken, list, "{number}");
            let text = format!("{{\"format\":1,\"outputs\":[{list},{broken}],\"namings\":[7]}}");
            let document = Document::parse(&packed(&text), "u").unwrap();
            assert_eq!(document.outputs.len(), 1, "{number}");
            assert_eq!(document.refused.len(), 2, "{number}");
        }
    }

    #[test]
    fn other_bytes_are_no_document() {
        for text in [
            "",
            "<html>",
            "[]",
            "{}",
            "{\"format\":1}",
            "{\"format\":1,\"outputs\":{},\"namings\":[]}",
        ] {
            let error = Document::parse(&packed(text), "u").unwrap_err();
            assert!(
                matches!(error, SubstituterError::Malformed { .. }),
                "{text}"
            );
        }
        let error = Document::parse(b"<html>", "u").unwrap_err();
        assert!(matches!(error, SubstituterError::Malformed { .. }));
        let newer = "{\"format\":2,\"outputs\":7}";
        let error = Document::parse(&packed(newer), "u").unwrap_err();
        assert!(matches!(error, SubstituterError::Format { found: 2, .. }));
        let bomb = zstd::bulk::compress(&vec![b' '; 513 << 20], 3).unwrap();
        let error = Document::parse(&bomb, "u").unwrap_err();
        assert!(matches!(error, SubstituterError::TooLarge { .. }));
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in any::<prop::sample::Index>(), bit in 0..8u32) {
            let mut bytes = document(entry()).to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = Document::parse(&bytes, "u");
            let _ = Document::parse(&bytes[..at], "u");
        }

        #[test]
        fn junk_never_panics(json in "[\\[\\]{}\":,a-z0-9]{0,60}", bytes in any::<Vec<u8>>()) {
            let _ = Document::parse(&packed(&json), "u");
            let _ = Document::parse(&bytes, "u");
            let _ = CacheInfo::parse(&bytes, "u");
        }
    }
}
