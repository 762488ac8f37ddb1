//! A web server that takes uploads as `docs/formats/substituter.md` has them, with
//! its files in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::http::{Http, Request, Response};

/// The token that may write.
pub(crate) const WRITE_TOKEN: &str = "may-write";

type Files = Arc<Mutex<BTreeMap<String, (u64, Vec<u8>)>>>;

/// The server.
pub(crate) struct Uploads {
    http: Http,
    files: Files,
}

impl Uploads {
    pub(crate) fn start() -> Self {
        let files = Files::default();
        let inside = Arc::clone(&files);
        let http = Http::start(|_| move |request: &Request| answer(&inside, request));
        Self { http, files }
    }

    pub(crate) fn url(&self) -> String {
        self.http.url()
    }

    /// Paths of all files.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.files.lock().unwrap().keys().cloned().collect()
    }
}

fn answer(files: &Files, request: &Request) -> Response {
    let mut files = files.lock().unwrap();
    let there = files.get(&request.path).cloned();
    let tag = |version: u64| vec![("etag", format!("\"v{version}\""))];
    match (request.method.as_str(), there) {
        ("GET" | "HEAD", Some((version, body))) => Response {
            status: 200,
            headers: tag(version),
            body,
        },
        ("GET" | "HEAD", None) => Response::status(404),
        ("PUT", there) => {
            if request.header("authorization") != Some(&format!("Bearer {WRITE_TOKEN}")) {
                return Response::status(401);
            }
            let version = there.map_or(0, |(version, _)| version);
            let is_as_read = match (request.header("if-match"), request.header("if-none-match")) {
                (Some(tag), None) => version > 0 && tag == format!("\"v{version}\""),
                (None, Some("*")) => version == 0,
                _ => return Response::status(400),
            };
            if !is_as_read {
                return Response::status(412);
            }
            files.insert(request.path.clone(), (version + 1, request.body.clone()));
            Response {
                status: if version == 0 { 201 } else { 204 },
                headers: tag(version + 1),
                body: Vec::new(),
            }
        }
        _ => Response::status(405),
    }
}
