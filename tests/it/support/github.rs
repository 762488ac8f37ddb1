//! GitHub's API for releases, as far as its documentation goes: the shapes of its
//! answers and which names and ids it takes. Assets are in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::http::{Http, Request, Response};

/// The token that may write.
pub(crate) const TOKEN: &str = "ghp_test";
const REPOSITORY: &str = "owner/repository";
const TAG: &str = "cache";
const RELEASE: u64 = 1;

struct Asset {
    name: String,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct State {
    exists: bool,
    assets: BTreeMap<u64, Asset>,
    last: u64,
}

/// The server.
pub(crate) struct GitHub {
    http: Http,
    state: Arc<Mutex<State>>,
}

impl GitHub {
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let inside = Arc::clone(&state);
        let http = Http::start(|url| {
            let url = url.to_owned();
            move |request: &Request| answer(&mut inside.lock().unwrap(), &url, request)
        });
        Self { http, state }
    }

    /// What to configure as `api`.
    pub(crate) fn api(&self) -> String {
        format!("{}/api/v3", self.http.url())
    }

    /// The substituter.
    pub(crate) fn place(&self) -> String {
        format!("github:{REPOSITORY}@{TAG}")
    }

    /// Names of all assets.
    pub(crate) fn names(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.assets.values().map(|a| a.name.clone()).collect()
    }

    /// Changes the name of an asset, whatever it is.
    pub(crate) fn rename(&self, from: &str, to: impl Fn(u64) -> String) {
        let mut state = self.state.lock().unwrap();
        let found = state.assets.iter_mut().find(|(_, a)| a.name == from);
        let (id, asset) = found.unwrap();
        asset.name = to(*id);
    }

    pub(crate) fn clear(&self) {
        *self.state.lock().unwrap() = State::default();
    }
}

fn asset_json(url: &str, id: u64, asset: &Asset) -> Value {
    json!({
        "url": format!("{url}/api/v3/repos/{REPOSITORY}/releases/assets/{id}"),
        "browser_download_url": format!("{url}/{REPOSITORY}/releases/download/{TAG}/{}", asset.name),
        "id": id,
        "node_id": "MDEyOlJlbGVhc2VBc3NldDE=",
        "name": asset.name,
        "label": "",
        "state": "uploaded",
        "content_type": "application/octet-stream",
        "size": asset.bytes.len(),
        "digest": null,
        "download_count": 42,
        "created_at": "2013-02-27T19:35:32Z",
        "updated_at": "2013-02-27T19:35:32Z",
        "uploader": {"login": "octocat", "id": 1, "type": "User", "site_admin": false}
    })
}

fn release_json(url: &str) -> Value {
    json!({
        "url": format!("{url}/api/v3/repos/{REPOSITORY}/releases/{RELEASE}"),
        "assets_url": format!("{url}/api/v3/repos/{REPOSITORY}/releases/{RELEASE}/assets"),
        "upload_url": format!("{url}/uploads/repos/{REPOSITORY}/releases/{RELEASE}/assets{{?name,label}}"),
        "id": RELEASE,
        "tag_name": TAG,
        "target_commitish": "master",
        "name": TAG,
        "draft": false,
        "prerelease": false,
        "created_at": "2013-02-27T19:35:32Z",
        "published_at": "2013-02-27T19:35:32Z",
        "assets": []
    })
}

fn not_found() -> Response {
    Response::json(
        404,
        &json!({"message": "Not Found", "documentation_url": "https://example.org", "status": "404"}),
    )
}

fn exists() -> Response {
    Response::json(
        422,
        &json!({
            "message": "Validation Failed",
            "errors": [{"resource": "ReleaseAsset", "code": "already_exists", "field": "name"}],
            "documentation_url": "https://example.org"
        }),
    )
}

fn answer(state: &mut State, url: &str, request: &Request) -> Response {
    if let Some(id) = request.path.strip_prefix("/storage/") {
        // The storage is another host, which must not see the token.
        assert_eq!(request.header("x-seen-token"), None);
        let asset = id.parse().ok().and_then(|id: u64| state.assets.get(&id));
        return asset.map_or_else(not_found, |asset| Response {
            status: 200,
            headers: Vec::new(),
            body: asset.bytes.clone(),
        });
    }
    let to_storage = |id: u64| Response {
        status: 302,
        headers: vec![("location", format!("{url}/storage/{id}"))],
        body: Vec::new(),
    };
    let downloads = format!("/{REPOSITORY}/releases/download/{TAG}/");
    if let Some(name) = request.path.strip_prefix(&downloads) {
        assert_eq!(
            request.header("authorization"),
            None,
            "a download shows a token"
        );
        let mut assets = state.assets.iter();
        let found = assets.find(|(_, asset)| asset.name == name);
        return found.map_or_else(not_found, |(id, _)| to_storage(*id));
    }
    if request.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
        return Response::json(401, &json!({"message": "Bad credentials", "status": "401"}));
    }
    let releases = format!("/api/v3/repos/{REPOSITORY}/releases");
    let uploads = format!("/uploads/repos/{REPOSITORY}/releases/{RELEASE}/assets");
    if request.path == uploads && request.method == "POST" {
        return upload(state, url, request);
    }
    let Some(path) = request.path.strip_prefix(&releases) else {
        return not_found();
    };
    let asset_id = path
        .strip_prefix("/assets/")
        .and_then(|id| id.parse::<u64>().ok());
    match (request.method.as_str(), path, asset_id) {
        ("GET", "/tags/cache", _) if state.exists => Response::json(200, &release_json(url)),
        ("POST", "", _) => {
            state.exists = true;
            Response::json(201, &release_json(url))
        }
        ("GET", "/1/assets", _) => {
            let number = |name: &str| request.query[name].parse::<usize>().unwrap();
            let (page, size) = (number("page"), number("per_page"));
            let assets = state.assets.iter().skip((page - 1) * size).take(size);
            let assets = assets.map(|(id, asset)| asset_json(url, *id, asset));
            Response::json(200, &Value::Array(assets.collect()))
        }
        ("GET", _, Some(id)) if state.assets.contains_key(&id) => {
            assert_eq!(request.header("accept"), Some("application/octet-stream"));
            to_storage(id)
        }
        ("DELETE", _, Some(id)) if state.assets.remove(&id).is_some() => Response::status(204),
        ("PATCH", _, Some(id)) if state.assets.contains_key(&id) => {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let name = body["name"].as_str().unwrap();
            let mut others = state.assets.iter();
            if others.any(|(other, asset)| *other != id && asset.name == name) {
                return exists();
            }
            let asset = state.assets.get_mut(&id).unwrap();
            asset.name = name.to_owned();
            Response::json(200, &asset_json(url, id, asset))
        }
        _ => not_found(),
    }
}

fn upload(state: &mut State, url: &str, request: &Request) -> Response {
    let name = &request.query["name"];
    if state.assets.values().any(|asset| asset.name == *name) {
        return exists();
    }
    state.last += 1;
    let asset = Asset {
        name: name.clone(),
        bytes: request.body.clone(),
    };
    let json = asset_json(url, state.last, &asset);
    state.assets.insert(state.last, asset);
    Response::json(201, &json)
}
