//! The API described to clients: `/openapi/v2` whole, `/openapi/v3` a group version at a time.
//!
//! - [`definitions`]: types, from the field table of [`machinery::schema`]
//! - [`operations`]: what can be done at which path, from the catalog
//! - [`swagger`]: both as OpenAPI 2; [`v3`]: as OpenAPI 3; [`gnostic`]: OpenAPI 2 as the protobuf kubectl asks for
//! - [`merge`]: what other servers describe; [`upgrade`]: their OpenAPI 2 as OpenAPI 3
//!
//! kubectl explains, validates and merges by these documents, and decides by the query parameters of the write operations
//! whether the server can validate and dry-run. A document is made when it is asked for, and [`kept`] while it is asked for again; one of a
//! group version is made anew when that group version changes. What the index says of it ([`Catalog::hash`]) is found without making it.

pub mod definitions;
pub mod gnostic;
mod kept;
pub(crate) mod merge;
pub mod operations;
pub mod swagger;
pub(crate) mod upgrade;
pub mod v3;

use crate::answer;
use crate::apart::apart;
use crate::context::{Context, Response};
use crate::discovery::{Catalog, Version};
use crate::paths::Documents;
use crate::{negotiate, query};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH,
    LOCATION, VARY,
};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use kept::{Document, Kept};
use machinery::status::Status;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

/// What the protobuf form of OpenAPI 2 is called, today and by kubectl of old.
const PROTOBUF: [&str; 3] = [
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.googleapis.gnostic.openapiv2@68f4ded+protobuf",
];
const V3: &str = "/openapi/v3";

/// Answers `/openapi/...`.
pub struct OpenApi {
    catalog: Arc<Catalog>,
    index: Mutex<Option<(u64, Arc<Index>)>>,
    kept: Mutex<Kept>,
    /// Held by who makes a description of everything: that takes a second of a processor, and who asks meanwhile wants the same.
    making: Mutex<()>,
}

/// The group versions of one generation of the catalog, by path.
type Index = BTreeMap<String, Place>;

/// A group version, and what changes with its description.
struct Place {
    group: String,
    version: Version,
    hash: String,
}

impl OpenApi {
    /// Describes what `catalog` serves.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>) -> Self {
        OpenApi { catalog, index: Mutex::default(), kept: Mutex::default(), making: Mutex::default() }
    }

    fn v2(&self, headers: &HeaderMap) -> Response {
        let offered = [answer::JSON, PROTOBUF[0], PROTOBUF[1], PROTOBUF[2]];
        let Some(chosen) = negotiate::choose(headers, &offered) else {
            return answer::status(&Status::not_acceptable(&offered));
        };
        let catalog = &self.catalog;
        let of = || catalog.generation().to_string();
        let document = apart(|| {
            if chosen == answer::JSON {
                self.document("v2", of, answer::JSON, headers, || swagger::json(catalog))
            } else {
                let make = || gnostic::encode(&swagger::document(catalog));
                self.document("v2+protobuf", of, PROTOBUF[0], headers, make)
            }
        });
        send(document, headers)
    }

    fn index(&self) -> Arc<Index> {
        let generation = self.catalog.generation();
        if let Some((of, index)) = &*self.index.lock()
            && *of == generation
        {
            return index.clone();
        }
        let mut index = Index::new();
        for group in self.catalog.groups().iter() {
            for version in &group.versions {
                let hash = self.catalog.hash(&group.name, version);
                let place = Place { group: group.name.clone(), version: version.clone(), hash };
                index.insert(group_version_path(&group.name, &version.name), place);
            }
        }
        let index = Arc::new(index);
        // Documents of what is no longer served are not asked for again.
        self.kept.lock().retain(|key| !key.contains('/') || index.contains_key(key));
        *self.index.lock() = Some((generation, index.clone()));
        index
    }

    /// The list of group versions, each with a URL that changes with its content.
    fn listed(&self) -> Value {
        let url = |(path, place): (&String, &Place)| {
            (path.clone(), json!({"serverRelativeURL": format!("{V3}/{path}?hash={}", place.hash)}))
        };
        let paths: serde_json::Map<String, Value> = self.index().iter().map(url).collect();
        json!({"paths": paths})
    }

    fn group_version(&self, path: &str, context: &Context, headers: &HeaderMap) -> Option<Response> {
        let index = self.index();
        let place = index.get(path)?;
        let asked = query::first(&context.query, "hash");
        if asked.is_some_and(|h| h != place.hash) {
            let mut response = answer::text(StatusCode::MOVED_PERMANENTLY, "");
            answer::set(&mut response, LOCATION, &format!("{V3}/{path}?hash={}", place.hash));
            return Some(response);
        }
        if negotiate::choose(headers, &[answer::JSON]).is_none() {
            return Some(answer::status(&Status::not_acceptable(&[answer::JSON])));
        }
        let document = self.document(
            path,
            || place.hash.clone(),
            answer::JSON,
            headers,
            || match self.catalog.described(&place.group, &place.version.name).v3 {
                Some(theirs) => theirs.to_vec(),
                None => v3::document(&self.catalog, &place.group, &place.version).to_string().into_bytes(),
            },
        );
        let mut response = send(document, headers);
        if asked.is_some() {
            answer::set(&mut response, CACHE_CONTROL, "public, immutable");
        }
        Some(response)
    }

    /// The document of `key` as it is `of`, in the encoding that is asked for.
    fn document(
        &self,
        key: &str,
        of: impl Fn() -> String,
        media_type: &'static str,
        headers: &HeaderMap,
        make: impl FnOnce() -> Vec<u8>,
    ) -> io::Result<Document> {
        let gzip = accepts_gzip(headers);
        // The whole of the API is large, and read by few: it is kept compressed only.
        let whole = key.starts_with("v2");
        let mut state = of();
        let known = |of: &str| {
            let mut kept = self.kept.lock();
            let exact = kept.get(key, of, gzip);
            let other = if exact.is_none() { kept.get(key, of, !gzip) } else { None };
            (exact, other)
        };
        let mut found = known(&state);
        let making = match &found {
            (None, None) if whole => Some(self.making.lock()),
            _ => None,
        };
        if making.is_some() {
            // Somebody else may have made it just now, of what was new by then.
            state = of();
            found = known(&state);
        }
        let of = state.as_str();
        let (exact, other) = found;
        if let Some(document) = exact {
            return Ok(document);
        }
        let level = if whole { Compression::default() } else { Compression::fast() };
        let document = match other {
            Some(other) => {
                let bytes = if gzip { compressed(&other.bytes, level)? } else { plain(&other.bytes)? };
                Document { bytes: bytes.into(), gzip, ..other }
            }
            None => {
                let bytes = make();
                let etag = HeaderValue::from_str(&format!("\"{}\"", hex(&Sha512::digest(&bytes))))
                    .unwrap_or_else(|_| HeaderValue::from_static("\"\""));
                let made = Document { bytes: bytes.into(), etag, media_type, gzip: false };
                let zipped = match gzip || whole {
                    true => Some(compressed(&made.bytes, level)?),
                    false => None,
                };
                let zipped = zipped.map(|bytes| Document { bytes: bytes.into(), gzip: true, ..made.clone() });
                if let Some(zipped) = zipped.clone().filter(|_| !gzip) {
                    self.kept.lock().put(key, of, zipped);
                }
                zipped.filter(|_| gzip).unwrap_or(made)
            }
        };
        if gzip || !whole {
            self.kept.lock().put(key, of, document.clone());
        }
        Ok(document)
    }
}

fn compressed(bytes: &[u8], level: Compression) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), level);
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn plain(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain)?;
    Ok(plain)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

fn group_version_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn send(document: io::Result<Document>, headers: &HeaderMap) -> Response {
    let document = match document {
        Ok(document) => document,
        Err(e) => return answer::status(&Status::internal_error(e)),
    };
    let mut response = Response::new(answer::body(""));
    if headers.get(IF_NONE_MATCH) == Some(&document.etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        *response.body_mut() = answer::body(document.bytes.clone());
        if document.gzip {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(document.media_type));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    headers.insert(ETAG, document.etag);
    response
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).any(|v| {
        v.split(',').any(|e| {
            let mut parts = e.split(';').map(str::trim);
            parts.next() == Some("gzip") && !parts.any(|p| p == "q=0")
        })
    })
}

impl Documents for OpenApi {
    fn paths(&self) -> Vec<String> {
        let fixed = ["/openapi/v2".to_owned(), V3.to_owned()];
        fixed.into_iter().chain(self.index().keys().map(|path| format!("{V3}/{path}"))).collect()
    }

    fn answer(&self, context: &Context, request: &Parts) -> Option<Response> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return None;
        }
        match context.info.path.trim_end_matches('/') {
            "/openapi/v2" => Some(self.v2(&request.headers)),
            V3 => Some(answer::json(StatusCode::OK, &self.listed())),
            path => self.group_version(path.strip_prefix(V3)?.strip_prefix('/')?, context, &request.headers),
        }
    }
}

#[cfg(test)]
mod tests;
