//! What somebody publishes, judged by the rules of
//! `docs/formats/substituter.md`.
//!
//! * Nothing is named that is not there: an entry's archive is here and has the
//!   files of its manifest, and all it refers to is published.
//! * The first published output of an id stays, with its archive.
//! * Where the operator names keys, an entry is signed by one of them, and only
//!   signatures that were verified are published.
//! * Nothing that is published is lost: what a writer leaves out stays.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::StatusCode;

use super::catalogue::Catalogue;
use super::conditions::Condition;
use super::reply::Reply;
use crate::config::SubstituterSettings;
use crate::digest::{ContentHash, OutputId, RecipeHash};
use crate::fs::{self, FsError, Lock};
use crate::output::{Claim, Output};
use crate::substituter::{
    CacheInfo, Document, Entry, INVENTORY, Inventory, Policy, Question, SubstituterError, archive,
    archive_path, document,
};
use crate::trust::{PublicKey, Signatures};

/// Bytes that the files of one output may have.
const MAX_UNPACKED: u64 = 16 << 30;

/// Who may publish what.
pub(super) struct Rules {
    folder: PathBuf,
    keys: Vec<PublicKey>,
    policy: Policy,
    catalogue: Arc<Catalogue>,
}

/// A file that was put.
pub(super) struct Accepted {
    /// Whether there was none before.
    pub(super) is_new: bool,
    /// The bytes that are there now.
    pub(super) bytes: Vec<u8>,
}

type Result<T> = std::result::Result<T, Reply>;

fn refuse(text: impl std::fmt::Display) -> Reply {
    Reply::line(StatusCode::UNPROCESSABLE_ENTITY, text)
}

fn failure(error: FsError) -> Reply {
    if error.is_full() {
        let text = "the server's disk is full";
        return Reply::line(StatusCode::INSUFFICIENT_STORAGE, text);
    }
    Reply::failure(&error)
}

/// The tag of some bytes.
pub(super) fn tag(digest: ContentHash) -> String {
    let digest = digest.to_string();
    format!("\"{}\"", &digest[..32])
}

/// Replaces a file of a folder that others read meanwhile.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> std::result::Result<(), FsError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = fs::unique_beside(&path.with_file_name(format!(".{name}")));
    let written = fs::write(&beside, bytes)
        .and_then(|()| fs::sync(&beside))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

impl Rules {
    /// Without keys, nothing needs a signature.
    pub(super) fn new(
        folder: &Path,
        keys: Vec<PublicKey>,
        catalogue: Arc<Catalogue>,
    ) -> std::result::Result<Self, SubstituterError> {
        let texts = keys.iter().map(PublicKey::to_string).collect();
        let settings = SubstituterSettings::new("", folder, texts);
        Ok(Self {
            policy: Policy::new(&settings)?,
            folder: folder.to_owned(),
            keys,
            catalogue,
        })
    }

    fn lock(&self) -> Result<Lock> {
        Lock::exclusive(&self.folder.join(".lock")).map_err(failure)
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        fs::read_optional(&self.folder.join(path)).map_err(failure)
    }

    /// Writes a file whose condition holds.
    fn write(&self, path: &str, bytes: Vec<u8>, is_new: bool) -> Result<Accepted> {
        replace(&self.folder.join(path), &bytes).map_err(failure)?;
        Ok(Accepted { is_new, bytes })
    }

    /// Puts a document of a recipe: its new entries, and what is new about
    /// others.
    pub(super) fn document(
        &self,
        recipe: RecipeHash,
        body: &[u8],
        condition: &Condition,
    ) -> Result<Accepted> {
        let path = Question::Recipes.path(recipe);
        let new = parse(body)?;
        let entries = new.outputs.values();
        if let Some(entry) = entries.into_iter().find(|e| e.output.host_recipe != recipe) {
            let name = entry.output.store_name();
            return Err(refuse(format!("`{name}` is an output of another recipe")));
        }
        // Before the lock is taken: archives are large and never change.
        let verified = self.verified(&new.outputs)?;
        let _lock = self.lock()?;
        let before = self.read(&path)?;
        check(condition, before.as_deref())?;
        let mut merged = match &before {
            Some(bytes) => self.own(bytes, &path)?,
            None => Document::default(),
        };
        let mut entries = new.outputs;
        while !entries.is_empty() {
            let open = entries.len();
            for (id, entry) in std::mem::take(&mut entries) {
                // What another one of the document refers to comes first.
                let is_open = |id| verified.contains(id) && !merged.outputs.contains_key(id);
                let is_next = !entry.output.references.iter().any(is_open);
                if is_next {
                    self.enter(entry, &mut merged, &verified)?;
                } else {
                    entries.insert(id, entry);
                }
            }
            if entries.len() == open {
                return Err(refuse("outputs refer to each other in a circle"));
            }
        }
        for (key, naming) in new.namings {
            merged.namings.entry(key).or_insert(naming);
        }
        if merged.outputs.is_empty() {
            return Err(refuse("there is no output in it"));
        }
        let accepted = self.write(&path, merged.to_bytes(), before.is_none())?;
        self.catalogue.replaced(recipe);
        Ok(accepted)
    }

    /// The ids of entries that are not published and whose archives are here and
    /// have the files of their manifests.
    fn verified(&self, entries: &BTreeMap<OutputId, Entry>) -> Result<BTreeSet<OutputId>> {
        let mut verified = BTreeSet::new();
        for (id, entry) in entries {
            if self.catalogue.published(*id).is_some() {
                continue;
            }
            // Signatures first: nobody unpacks what a stranger has made.
            self.vouched(entry, |id| {
                let of_document = || Some(entries.get(&id)?.output.content_hash());
                self.content_of(id).or_else(of_document)
            })?;
            self.unpacks(entry)?;
            verified.insert(*id);
        }
        Ok(verified)
    }

    fn content_of(&self, id: OutputId) -> Option<ContentHash> {
        self.catalogue.published(id).map(|(content, _)| content)
    }

    /// Enters one entry into a document.
    fn enter(
        &self,
        mut entry: Entry,
        document: &mut Document,
        verified: &BTreeSet<OutputId>,
    ) -> Result<()> {
        let id = entry.output.id;
        let name = entry.output.store_name();
        let content_of = |id: OutputId| {
            let own = document.outputs.get(&id);
            let own = own.map(|entry| entry.output.content_hash());
            own.or_else(|| self.content_of(id))
        };
        let published = document.outputs.get(&id);
        if let Some(published) = published
            && published.output.content_hash() != entry.output.content_hash()
        {
            return Err(Reply::line(
                StatusCode::CONFLICT,
                format!("`{name}` is published with another content, which stays"),
            ));
        }
        let claim = match published {
            // It was judged when it came, perhaps by other rules.
            Some(_) => claim(&entry, content_of)?,
            None if verified.contains(&id) => self.vouched(&entry, content_of)?,
            None => {
                let text = format!("`{name}` is published by another recipe, or was until now");
                return Err(refuse(text));
            }
        };
        if !self.keys.is_empty() {
            entry.signatures = self.signatures(entry.signatures.take(), &claim);
        }
        match document.outputs.get_mut(&id) {
            Some(published) => published.add(entry.signatures, entry.provenance),
            None => {
                document.outputs.insert(id, entry);
            }
        }
        Ok(())
    }

    /// The claim about an entry, if all it refers to is published and somebody
    /// vouches for it whom the operator believes.
    fn vouched(
        &self,
        entry: &Entry,
        content_of: impl FnMut(OutputId) -> Option<ContentHash>,
    ) -> Result<Claim> {
        let claim = claim(entry, content_of)?;
        match self.policy.objection(entry, &claim, &BTreeSet::new()) {
            Some(objection) => {
                let name = entry.output.store_name();
                Err(refuse(format!("`{name}` is {objection}")))
            }
            None => Ok(claim),
        }
    }

    /// Those signatures that were verified.
    fn signatures(&self, given: Option<Signatures>, claim: &Claim) -> Option<Signatures> {
        let message = claim.message();
        let mut kept: Option<Signatures> = None;
        for signature in given.iter().flat_map(Signatures::iter) {
            let mut keys = self.keys.iter();
            if keys.any(|key| key.name() == signature.key() && key.verifies(&message, signature)) {
                match &mut kept {
                    Some(kept) => kept.insert(signature.clone()),
                    None => kept = Some(Signatures::new(signature.clone())),
                }
            }
        }
        kept
    }

    /// Sees that the archive of an entry is here and has its files.
    fn unpacks(&self, entry: &Entry) -> Result<()> {
        let Entry {
            output, archive, ..
        } = entry;
        let name = output.store_name();
        if !archive::is_plausible(output, *archive) || !is_bounded(output) {
            return Err(refuse(format!("`{name}` is too large")));
        }
        let path = self.folder.join(archive_path(archive.sha256));
        let content = match fs::open(&path) {
            Ok(content) => content,
            Err(error) if error.is_absent() => {
                return Err(refuse(format!(
                    "the archive of `{name}` is not here; archives come first"
                )));
            }
            Err(error) => return Err(failure(error)),
        };
        archive::verify(output, *archive, content).map_err(|error| {
            let said = crate::console::chain(&error);
            refuse(format!("the archive of `{name}` is refused: {said}"))
        })
    }

    /// Puts the document of a closure. Which outputs are in it, and what is said
    /// of them, follows from what is published.
    pub(super) fn closure(
        &self,
        recipe: RecipeHash,
        body: &[u8],
        condition: &Condition,
    ) -> Result<Accepted> {
        let path = Question::Closures.path(recipe);
        for (id, entry) in parse(body)?.outputs {
            let name = entry.output.store_name();
            match self.content_of(id) {
                Some(content) if content == entry.output.content_hash() => {}
                Some(_) => {
                    let text = format!("`{name}` is published with another content, which stays");
                    return Err(Reply::line(StatusCode::CONFLICT, text));
                }
                None => {
                    return Err(refuse(format!(
                        "`{name}` is not published; closures come last"
                    )));
                }
            }
        }
        let _lock = self.lock()?;
        let before = self.read(&path)?;
        check(condition, before.as_deref())?;
        let closure = self.catalogue.closure(recipe);
        let closure = closure.map_err(|error| Reply::failure(&error))?;
        let mut merged =
            closure.map_err(|id| refuse(format!("`{id}` refers to what is not published")))?;
        if merged.outputs.is_empty() {
            return Err(refuse("nothing of this recipe is published"));
        }
        // A naming that is published stays.
        if let Some(bytes) = &before {
            let known = self.own(bytes, &path)?;
            for (key, naming) in known.namings {
                merged.namings.entry(key).or_insert(naming);
            }
        }
        self.write(&path, merged.to_bytes(), before.is_none())
    }

    /// Puts the inventory: what is said of packages that are published, and what
    /// was said before.
    pub(super) fn inventory(&self, body: &[u8], condition: &Condition) -> Result<Accepted> {
        let mut new = Inventory::parse(body, INVENTORY).map_err(|error| bad(&error))?;
        new.retain(|recipe| self.catalogue.has(recipe));
        let _lock = self.lock()?;
        let before = self.read(INVENTORY)?;
        check(condition, before.as_deref())?;
        // One that cannot be read is of no use to anybody.
        let known = before.as_deref();
        let known = known.and_then(|bytes| Inventory::parse(bytes, INVENTORY).ok());
        let mut inventory = known.unwrap_or_default();
        inventory.add(&new);
        self.write(INVENTORY, inventory.to_bytes(), before.is_none())
    }

    /// Puts what the substituter says of itself: more keys, and nothing else.
    pub(super) fn info(&self, body: &[u8], condition: &Condition) -> Result<Accepted> {
        let url = document::INFO;
        let new = CacheInfo::parse(body, url).map_err(|error| bad(&error))?;
        let _lock = self.lock()?;
        let before = self.read(url)?;
        let known = before.as_deref().map(|bytes| said(bytes, url));
        let known = known.transpose().map_err(|error| Reply::failure(&error))?;
        let shown = known.as_ref().map(CacheInfo::to_bytes);
        check(condition, shown.as_deref())?;
        let mut info = known.clone().unwrap_or_else(|| CacheInfo {
            priority: new.priority,
            ..CacheInfo::default()
        });
        let ours: Vec<String> = self.keys.iter().map(PublicKey::to_string).collect();
        for key in new.keys {
            if key.parse::<PublicKey>().is_err() {
                return Err(refuse(format!("`{key}` is not a public key")));
            }
            // A writer may have signed with keys that nobody asks for here.
            let is_ours = ours.is_empty() || ours.contains(&key);
            if is_ours && !info.keys.contains(&key) {
                info.keys.push(key);
            }
        }
        // Whether calls are answered depends on who serves the folder.
        info.lookup = false;
        let accepted = self.write(url, info.to_bytes(), before.is_none())?;
        info.lookup = true;
        Ok(Accepted {
            bytes: info.to_bytes(),
            ..accepted
        })
    }

    /// Reads a document of ours.
    fn own(&self, bytes: &[u8], path: &str) -> Result<Document> {
        let document = Document::parse(bytes, path).map_err(|error| Reply::failure(&error))?;
        match document.refused.first() {
            None => Ok(document),
            Some(reason) => Err(Reply::line(
                StatusCode::CONFLICT,
                format!("`{path}` has what this server does not understand: {reason}"),
            )),
        }
    }
}

/// What a folder says of itself when it is served.
pub(super) fn said(bytes: &[u8], url: &str) -> std::result::Result<CacheInfo, SubstituterError> {
    let mut info = CacheInfo::parse(bytes, url)?;
    info.lookup = true;
    Ok(info)
}

/// The claim about an entry, if all it refers to is published.
fn claim(entry: &Entry, content_of: impl FnMut(OutputId) -> Option<ContentHash>) -> Result<Claim> {
    let name = entry.output.store_name();
    Claim::of(&entry.output, content_of).map_err(|id| {
        refuse(format!(
            "`{name}` refers to `{id}`, which is not published; dependencies come first"
        ))
    })
}

fn is_bounded(output: &Output) -> bool {
    let sizes = output.files.iter().map(|file| file.size);
    sizes
        .into_iter()
        .try_fold(0_u64, u64::checked_add)
        .is_some_and(|size| size <= MAX_UNPACKED)
}

fn bad(error: &dyn std::error::Error) -> Reply {
    Reply::line(StatusCode::BAD_REQUEST, crate::console::chain(error))
}

/// Reads a document that somebody sends; all of it must be in order.
fn parse(body: &[u8]) -> Result<Document> {
    let document = Document::parse(body, "the body").map_err(|error| bad(&error))?;
    match document.refused.first() {
        None => Ok(document),
        Some(reason) => Err(refuse(reason)),
    }
}

/// Sees whether a condition holds for the bytes that are there.
fn check(condition: &Condition, bytes: Option<&[u8]>) -> Result<()> {
    let tag = bytes.map(|bytes| tag(ContentHash::of(bytes)));
    if *condition == Condition::None {
        return Err(Reply::line(
            StatusCode::PRECONDITION_REQUIRED,
            "say `If-None-Match: *` for a new document, or `If-Match` with the tag of the one to replace",
        ));
    }
    if condition.holds(tag.as_deref()) {
        return Ok(());
    }
    let reply = Reply::line(
        StatusCode::PRECONDITION_FAILED,
        "somebody else was first; read it again",
    );
    Err(match tag {
        Some(tag) => reply.with(hyper::header::ETAG, tag),
        None => reply,
    })
}
