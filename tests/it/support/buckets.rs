//! A bucket as the documentation of Google Cloud Storage (its XML API) and of
//! Azure's blobs has it: conditions, headers and listings. Objects are in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::http::{Http, Request, Response};

/// Whose interface it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cloud {
    Google,
    Azure,
}

type Objects = Arc<Mutex<(u64, BTreeMap<String, (u64, Vec<u8>)>)>>;

/// The server, with one bucket, `cache`.
pub(crate) struct Buckets {
    http: Http,
    objects: Objects,
}

impl Buckets {
    pub(crate) fn start(cloud: Cloud) -> Self {
        let objects = Objects::default();
        let inside = Arc::clone(&objects);
        let http = Http::start(|_| move |request: &Request| answer(cloud, &inside, request));
        Self { http, objects }
    }

    pub(crate) fn url(&self) -> String {
        self.http.url()
    }

    /// Names of all objects.
    pub(crate) fn names(&self) -> Vec<String> {
        self.objects.lock().unwrap().1.keys().cloned().collect()
    }
}

const TIME: &str = "Wed, 12 Oct 2022 17:50:00 GMT";

fn error(status: u16, code: &str) -> Response {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>");
    Response {
        status,
        headers: vec![("content-type", "application/xml".to_owned())],
        body: body.into_bytes(),
    }
}

fn answer(cloud: Cloud, objects: &Objects, request: &Request) -> Response {
    let mut objects = objects.lock().unwrap();
    if request.header("authorization").is_none() {
        return error(401, "AuthenticationRequired");
    }
    if request
        .query
        .get("comp")
        .is_some_and(|value| value == "batch")
    {
        return batch(&mut objects.1, request);
    }
    let Some(name) = request.path.strip_prefix("/cache") else {
        return error(404, "NoSuchBucket");
    };
    let name = decoded(name.trim_start_matches('/'));
    if name.is_empty() {
        return list(cloud, &objects.1, request);
    }
    let there = objects.1.get(&name).cloned();
    let headers = |version: u64| {
        let mut headers = vec![
            ("etag", format!("\"e{version}\"")),
            ("last-modified", TIME.to_owned()),
        ];
        match cloud {
            Cloud::Google => headers.push(("x-goog-generation", version.to_string())),
            Cloud::Azure => headers.push(("x-ms-blob-type", "BlockBlob".to_owned())),
        }
        headers
    };
    match (request.method.as_str(), there) {
        ("GET" | "HEAD", Some((version, body))) => Response {
            status: 200,
            headers: headers(version),
            body,
        },
        ("PUT", there) => {
            let version = there.map_or(0, |(version, _)| version);
            if cloud == Cloud::Azure && request.header("x-ms-blob-type") != Some("BlockBlob") {
                return error(400, "InvalidHeaderValue");
            }
            let generation = request.header("x-goog-if-generation-match");
            match (
                cloud,
                generation,
                request.header("if-match"),
                request.header("if-none-match"),
            ) {
                (Cloud::Google, Some(wanted), _, _) if *wanted != version.to_string() => {
                    return error(412, "PreconditionFailed");
                }
                (Cloud::Azure, _, Some(tag), _) if tag != format!("\"e{version}\"") => {
                    return error(412, "ConditionNotMet");
                }
                (Cloud::Azure, _, _, Some("*")) if version > 0 => {
                    return error(409, "BlobAlreadyExists");
                }
                _ => {}
            }
            objects.0 += 1;
            let version = objects.0;
            objects.1.insert(name, (version, request.body.clone()));
            Response {
                status: if cloud == Cloud::Azure { 201 } else { 200 },
                headers: headers(version),
                body: Vec::new(),
            }
        }
        ("DELETE", Some(_)) => {
            objects.1.remove(&name);
            Response::status(if cloud == Cloud::Azure { 202 } else { 204 })
        }
        _ => error(404, "NoSuchKey"),
    }
}

/// Azure's deletion of many blobs in one request.
fn batch(objects: &mut BTreeMap<String, (u64, Vec<u8>)>, request: &Request) -> Response {
    let text = String::from_utf8_lossy(&request.body);
    let deleted = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("DELETE /cache/")?;
        rest.split_whitespace().next()
    });
    let mut body = String::new();
    for (number, name) in deleted.enumerate() {
        let status = match objects.remove(&decoded(name)) {
            Some(_) => "202 Accepted",
            None => "404 The specified blob does not exist.",
        };
        body += &format!(
            "--batchresponse_1\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n\
             HTTP/1.1 {status}\r\nx-ms-version: 2018-11-09\r\n\r\n\r\n"
        );
    }
    body += "--batchresponse_1--";
    Response {
        status: 202,
        headers: vec![(
            "content-type",
            "multipart/mixed; boundary=batchresponse_1".to_owned(),
        )],
        body: body.into_bytes(),
    }
}

/// Text without the escapes of URLs.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = u8::from_str_radix(&part[..2], 16).unwrap();
        plain.push(byte.into());
        plain += &part[2..];
    }
    plain
}

fn list(cloud: Cloud, objects: &BTreeMap<String, (u64, Vec<u8>)>, request: &Request) -> Response {
    let prefix = request.query.get("prefix").cloned().unwrap_or_default();
    let prefix = decoded(&prefix);
    let all = objects.iter().filter(|(name, _)| name.starts_with(&prefix));
    let all = all.map(|(name, (version, bytes))| match cloud {
        Cloud::Google => format!(
            "<Contents><Key>{name}</Key><LastModified>2022-10-12T17:50:00.000Z</LastModified>\
             <ETag>\"e{version}\"</ETag><Size>{}</Size></Contents>",
            bytes.len()
        ),
        Cloud::Azure => format!(
            "<Blob><Name>{name}</Name><Properties><Last-Modified>{TIME}</Last-Modified>\
             <Etag>\"e{version}\"</Etag><Content-Length>{}</Content-Length>\
             <Content-Type>application/octet-stream</Content-Type><ResourceType>file</ResourceType>\
             </Properties></Blob>",
            bytes.len()
        ),
    });
    let all: String = all.collect();
    let body = match cloud {
        Cloud::Google => format!(
            "<?xml version=\"1.0\"?><ListBucketResult><Name>cache</Name>\
             <IsTruncated>false</IsTruncated>{all}</ListBucketResult>"
        ),
        Cloud::Azure => format!(
            "<?xml version=\"1.0\"?><EnumerationResults ContainerName=\"cache\">\
             <Blobs>{all}</Blobs><NextMarker/></EnumerationResults>"
        ),
    };
    Response {
        status: 200,
        headers: vec![("content-type", "application/xml".to_owned())],
        body: body.into_bytes(),
    }
}
