//! The back end for releases of GitHub repositories.
//!
//! Reading needs no account: assets have fixed URLs, `…/releases/download/<tag>/`
//! and the path with `-` for `/`. Writing uses the API, which neither replaces an
//! asset nor asks for conditions. What it does: of two uploads of one name only
//! one succeeds, and an asset is deleted once. So a document is replaced by
//!
//! ```text
//! 1. upload the new one as   <name>.<id of the old one>.<random>.new
//! 2. delete the old one by its id: whoever comes second is told so, and loses
//! 3. rename the new one to   <name>
//! ```
//!
//! Between 2 and 3 there is no such document; whoever is killed there leaves an
//! asset that the next writer renames.

mod assets;

use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::backend::{
    Added, Backend, Change, Content, Held, Listed, Version, Writer, flat, unflat,
};
use super::location::ReleaseName;
use super::web::{Answer, Body, Call, Method, Url, Web, is_safe};
use super::{ArchiveRef, Result, SubstituterError};
use crate::config::SubstituterSettings;
use crate::environment::Environment;
use assets::{Asset, Assets, ReleaseAnswer};

/// The API where none is configured.
const API: &str = "https://api.github.com";
/// Where assets of public repositories are.
const SITE: &str = "https://github.com";
/// Bytes that an answer of the API may have.
const MAX_ANSWER: u64 = 16 << 20;
/// Assets of one answer, the most that the API gives.
const PAGE: usize = 100;
/// How long an upload may take before it counts as broken off.
const ABANDONED: Duration = Duration::from_secs(3_600);
const KIND: &str = "application/octet-stream";
/// How often a document is to be brought to its place, and how long after.
const RENAMES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(200);
/// How the name of a document ends that is not in its place yet.
const NEW: &str = ".new";

/// A release.
pub(super) struct Release {
    name: ReleaseName,
    /// `…/repos/<owner>/<repository>/`
    api: Url,
    /// Shows a token.
    writer: Web,
    /// Shows nothing.
    reader: Web,
    known: Mutex<Option<Known>>,
}

/// What is known of the release.
#[derive(Clone)]
struct Known {
    id: u64,
    upload_url: Url,
    assets: Assets,
}

impl Release {
    pub(super) fn new(
        name: ReleaseName,
        settings: &SubstituterSettings,
        environment: &Environment,
    ) -> Result<Self> {
        let api = settings.api.as_deref().unwrap_or(API).trim_end_matches('/');
        // A server of one's own has both in one place.
        let site = match api.strip_suffix("/api/v3") {
            Some(site) => site,
            None => SITE,
        };
        let url = |text: String| {
            let parsed = Url::parse(&text).ok().filter(is_safe);
            parsed.ok_or(SubstituterError::Location {
                text,
                reason: "`api` is no URL with `https`",
            })
        };
        let api = url(format!("{api}/repos/{}/", name.repository))?;
        let (repository, tag) = (&name.repository, &name.tag);
        let downloads = url(format!("{site}/{repository}/releases/download/{tag}/"))?;
        let token = settings.token.as_ref();
        let shown = match (token, environment.get("GITHUB_TOKEN")) {
            (Some(token), _) => Some(token.secret()),
            (None, token) => token.filter(|token| !token.is_empty()),
        };
        let shown = shown.map(|token| format!("Bearer {token}"));
        Ok(Self {
            writer: Web::with(api.clone(), shown, settings, environment)?,
            reader: Web::with(downloads, None, settings, environment)?,
            known: Mutex::new(None),
            api,
            name,
        })
    }

    fn url(&self, path: &str) -> Result<Url> {
        self.api
            .join(path)
            .map_err(|_invalid| SubstituterError::Location {
                text: format!("{}{path}", self.api),
                reason: "it is not a URL",
            })
    }

    /// A call of the API as it was in 2022, which is what it gives by default.
    fn call(&self, method: Method, url: Url, body: Option<serde_json::Value>) -> Result<Answer> {
        let call = Call::new(method, url, MAX_ANSWER);
        let mut call = call
            .header("accept", "application/vnd.github+json".to_owned())
            .header("x-github-api-version", "2022-11-28".to_owned());
        if let Some(body) = body {
            call.body = Body::Bytes(body.to_string().into_bytes(), "application/json");
        }
        self.writer.exchange(&call)
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks what the release has now.
    fn load(&self, create: bool) -> Result<Option<Known>> {
        let url = self.url(&format!("releases/tags/{}", self.name.tag))?;
        let mut answer = self.call(Method::GET, url, None)?;
        if answer.status == 404 && create {
            let tag = &self.name.tag;
            let body = serde_json::json!({
                "tag_name": tag,
                "name": tag,
                "body": "Outputs for quickbuild; see its documentation of substituters.",
            });
            answer = self.call(Method::POST, self.url("releases")?, Some(body))?;
        }
        match answer.status {
            200 | 201 => {}
            404 => return Ok(None),
            _ => return Err(answer.error()),
        }
        let release: ReleaseAnswer = assets::read(&answer)?;
        let mut known = Known {
            id: release.id,
            upload_url: release.upload_url(&answer)?,
            assets: Assets::default(),
        };
        for page in 1.. {
            let path = format!("releases/{}/assets?per_page={PAGE}&page={page}", known.id);
            let answer = self.call(Method::GET, self.url(&path)?, None)?;
            if answer.status != 200 {
                return Err(answer.error());
            }
            let assets: Vec<Asset> = assets::read(&answer)?;
            let count = assets.len();
            assets.into_iter().for_each(|asset| known.assets.add(asset));
            if count < PAGE {
                break;
            }
        }
        *self.known() = Some(known.clone());
        Ok(Some(known))
    }

    fn loaded(&self) -> Result<Known> {
        let known = self.known().clone();
        let known = match known {
            Some(known) => Some(known),
            None => self.load(false)?,
        };
        known.ok_or_else(|| SubstituterError::Absent {
            place: format!("github:{}@{}", self.name.repository, self.name.tag),
        })
    }

    /// Forgets what is known: others write there, too.
    fn forget(&self) {
        *self.known() = None;
    }

    fn note(&self, change: impl FnOnce(&mut Assets)) {
        if let Some(known) = &mut *self.known() {
            change(&mut known.assets);
        }
    }

    /// Uploads an asset; `None` if there is one of this name.
    fn upload(&self, name: &str, body: Body<'_>) -> Result<Option<Asset>> {
        let mut url = self.loaded()?.upload_url;
        url.query_pairs_mut().clear().append_pair("name", name);
        let mut call = Call::new(Method::POST, url, MAX_ANSWER);
        call.body = body;
        let answer = self.writer.exchange(&call)?;
        match answer.status {
            201 => {
                let asset: Asset = assets::read(&answer)?;
                self.note(|assets| assets.add(asset.clone()));
                Ok(Some(asset))
            }
            422 if assets::already_exists(&answer) => {
                self.forget();
                Ok(None)
            }
            _ => Err(assets::failed(&answer)),
        }
    }

    /// Deletes an asset; `false` if somebody else has.
    fn delete(&self, id: u64) -> Result<bool> {
        let url = self.url(&format!("releases/assets/{id}"))?;
        let answer = self.call(Method::DELETE, url, None)?;
        self.note(|assets| assets.remove(id));
        match answer.status {
            204 => Ok(true),
            404 => Ok(false),
            _ => Err(assets::failed(&answer)),
        }
    }

    /// Gives an asset another name; `false` if there is one of it, or if the
    /// asset is gone.
    fn rename(&self, id: u64, name: &str) -> Result<bool> {
        let url = self.url(&format!("releases/assets/{id}"))?;
        let body = serde_json::json!({ "name": name });
        let answer = self.call(Method::PATCH, url, Some(body))?;
        match answer.status {
            200 => {
                let asset: Asset = assets::read(&answer)?;
                self.note(|assets| {
                    assets.remove(id);
                    assets.add(asset);
                });
                Ok(true)
            }
            404 | 422 => {
                self.forget();
                Ok(false)
            }
            _ => Err(assets::failed(&answer)),
        }
    }

    /// Uploads a document of which there is none; `false` if there is one, or if
    /// somebody is about to bring one to its place, who must not be hindered.
    fn create(&self, name: &str, body: Body<'_>) -> Result<bool> {
        let Some(new) = self.upload(name, body)? else {
            return Ok(false);
        };
        let known = self.load(false)?;
        let assets = known.map(|known| known.assets).unwrap_or_default();
        let mut left = assets.left_behind().into_iter();
        let is_awaited = left.any(|left| left.name == name && left.is_whole);
        if is_awaited {
            self.delete(new.id)?;
            self.recover()?;
        }
        Ok(!is_awaited)
    }

    /// Puts what killed writers left behind in its place, or away.
    fn recover(&self) -> Result<()> {
        let assets = self.loaded()?.assets;
        for left in assets.left_behind() {
            let is_gone = |id: u64| !assets.has_id(id);
            if left.is_whole && is_gone(left.replaces) && assets.find(&left.name).is_none() {
                self.rename(left.id, &left.name)?;
            } else if left.age.is_some_and(|age| age > ABANDONED) {
                self.delete(left.id)?;
            }
        }
        for id in assets.broken_off(ABANDONED) {
            self.delete(id)?;
        }
        Ok(())
    }
}

impl Backend for Release {
    fn get(&self, paths: &[String], limit: u64) -> Result<Vec<Option<Vec<u8>>>> {
        let names: Vec<String> = paths.iter().map(|path| flat(path)).collect();
        self.reader.get(&names, limit)
    }

    fn open(&self, path: &str, size: u64, until: Instant) -> Result<Box<dyn Read + Send>> {
        self.reader.open(&flat(path), size, until)
    }

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }
}

impl Writer for Release {
    fn prepare(&self) -> Result<()> {
        self.load(true)?;
        self.recover()
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Held>> {
        let name = flat(path);
        for _ in 0..2 {
            let Some(asset) = self.loaded()?.assets.find(&name).cloned() else {
                return Ok(None);
            };
            let url = self.url(&format!("releases/assets/{}", asset.id))?;
            let call = Call::new(Method::GET, url, limit);
            let answer = self
                .writer
                .exchange(&call.header("accept", KIND.to_owned()))?;
            match answer.status {
                200 => {
                    return Ok(Some(Held {
                        version: Version::of(asset.id.to_string()),
                        modified: asset.created(),
                        bytes: answer.bytes,
                    }));
                }
                // Somebody has replaced it.
                404 => self.forget(),
                _ => return Err(answer.error()),
            }
        }
        Ok(None)
    }

    fn add(&self, path: &str, file: &Path, archive: ArchiveRef) -> Result<Added> {
        let name = flat(path);
        if let Some(there) = self.loaded()?.assets.find(&name) {
            if there.is_whole() && there.size == archive.size {
                return Ok(Added::Existing);
            }
            self.delete(there.id)?;
        }
        match self.upload(&name, Body::File(file, archive.size, KIND))? {
            Some(_asset) => Ok(Added::New),
            None => Ok(Added::Existing),
        }
    }

    fn replace(
        &self,
        path: &str,
        content: Content<'_>,
        before: Option<&Version>,
    ) -> Result<Change> {
        let name = flat(path);
        let body = Body::Bytes(content.bytes.to_vec(), KIND);
        let done = |is_done| if is_done { Change::Done } else { Change::Lost };
        let Some(old) = before.and_then(Version::id) else {
            return Ok(done(self.create(&name, body)?));
        };
        let mut random = [0; 8];
        // Without a random number two writers of one name exclude each other.
        let _ = getrandom::fill(&mut random);
        let random = u64::from_le_bytes(random);
        let Some(new) = self.upload(&format!("{name}.{old}.{random:016x}{NEW}"), body)? else {
            return Ok(Change::Lost);
        };
        if !self.delete(old)? {
            self.forget();
            self.delete(new.id)?;
            return Ok(Change::Lost);
        }
        // Who has put something there meanwhile sees this one, and goes away.
        for _ in 0..RENAMES {
            if self.rename(new.id, &name)? {
                return Ok(Change::Done);
            }
            std::thread::sleep(PAUSE);
        }
        Ok(Change::Lost)
    }

    fn list(&self) -> Result<Vec<Listed>> {
        let known = self.load(false)?;
        let assets = known.map(|known| known.assets).unwrap_or_default();
        let listed = assets.all().filter_map(|asset| {
            Some(Listed {
                path: unflat(&asset.name)?,
                size: asset.size,
                modified: asset.created(),
            })
        });
        Ok(listed.filter(|file| !file.path.ends_with(NEW)).collect())
    }

    fn remove(&self, path: &str, before: Option<&Version>) -> Result<Change> {
        let there = self
            .loaded()?
            .assets
            .find(&flat(path))
            .map(|asset| asset.id);
        let Some(id) = before.and_then(Version::id).or(there) else {
            return Ok(Change::Done);
        };
        if self.delete(id)? || before.is_none() {
            return Ok(Change::Done);
        }
        self.forget();
        Ok(Change::Lost)
    }
}

impl Version {
    /// The id of an asset.
    fn id(&self) -> Option<u64> {
        self.tag.as_ref()?.parse().ok()
    }
}
