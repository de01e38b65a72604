//! The API described to clients: `/openapi/v2` whole, `/openapi/v3` a group version at a time.
//!
//! - [`definitions`]: types, from the field table of [`machinery::schema`]
//! - [`operations`]: what can be done at which path, from the catalog
//! - [`swagger`]: both as OpenAPI 2; [`v3`]: as OpenAPI 3; [`gnostic`]: OpenAPI 2 as the protobuf kubectl asks for
//!
//! kubectl explains, validates and merges by these documents, and decides by the query parameters of the write operations
//! whether the server can validate and dry-run. A document is made when first asked for and kept compressed; it is made
//! again when the catalog's generation changes.

pub mod definitions;
pub mod gnostic;
pub mod operations;
pub mod swagger;
pub mod v3;

use crate::answer;
use crate::context::{Context, Response};
use crate::discovery::Catalog;
use crate::paths::Documents;
use crate::{negotiate, query};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH,
    LOCATION, VARY,
};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use machinery::release;
use machinery::status::Status;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

/// What the protobuf form of OpenAPI 2 is called, today and by kubectl of old.
const PROTOBUF: [&str; 3] = [
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.googleapis.gnostic.openapiv2@68f4ded+protobuf",
];
const V3: &str = "/openapi/v3";
/// Documents kept; there is one a group version.
const MOST: usize = 512;

/// Answers `/openapi/...`.
pub struct OpenApi {
    catalog: Arc<Catalog>,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    generation: u64,
    documents: FxHashMap<String, Document>,
}

/// A document, compressed.
#[derive(Clone)]
struct Document {
    gzip: Bytes,
    etag: HeaderValue,
    media_type: &'static str,
}

impl OpenApi {
    /// Describes what `catalog` serves.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>) -> Self {
        OpenApi { catalog, cache: Mutex::default() }
    }

    fn v2(&self, headers: &HeaderMap) -> Response {
        let offered = [answer::JSON, PROTOBUF[0], PROTOBUF[1], PROTOBUF[2]];
        let Some(chosen) = negotiate::choose(headers, &offered) else {
            return answer::status(&Status::not_acceptable(&offered));
        };
        let catalog = &self.catalog;
        let document = if chosen == answer::JSON {
            self.document("v2", answer::JSON, || swagger::document(catalog).to_string().into_bytes())
        } else {
            self.document("v2+protobuf", PROTOBUF[0], || gnostic::encode(&swagger::document(catalog)))
        };
        send(document, headers)
    }

    /// The list of group versions, each with a URL that changes with its content.
    fn index(&self) -> Value {
        let mut paths = serde_json::Map::new();
        for group in self.catalog.groups() {
            for version in &group.versions {
                let path = group_version_path(&group.name, &version.name);
                let url = format!("{V3}/{path}?hash={}", self.hash(&path));
                paths.insert(path, json!({"serverRelativeURL": url}));
            }
        }
        json!({"paths": paths})
    }

    /// Built-in descriptions change with the program only, others with the catalog.
    fn hash(&self, path: &str) -> String {
        let mut hash = Sha512::new();
        hash.update(release::GIT_VERSION);
        hash.update(self.catalog.generation().to_le_bytes());
        hash.update(path);
        hex(&hash.finalize())
    }

    fn group_version(&self, path: &str, context: &Context, headers: &HeaderMap) -> Option<Response> {
        let groups = self.catalog.groups();
        let (group, version) = groups.iter().find_map(|group| {
            let named = |v: &&crate::discovery::Version| group_version_path(&group.name, &v.name) == path;
            Some((group, group.versions.iter().find(named)?))
        })?;
        let current = self.hash(path);
        let asked = query::first(&context.query, "hash");
        if asked.is_some_and(|h| h != current) {
            let mut response = answer::text(StatusCode::MOVED_PERMANENTLY, "");
            answer::set(&mut response, LOCATION, &format!("{V3}/{path}?hash={current}"));
            return Some(response);
        }
        if negotiate::choose(headers, &[answer::JSON]).is_none() {
            return Some(answer::status(&Status::not_acceptable(&[answer::JSON])));
        }
        let catalog = &self.catalog;
        let document = self.document(path, answer::JSON, || {
            v3::document(catalog, &group.name, version).to_string().into_bytes()
        });
        let mut response = send(document, headers);
        if asked.is_some() {
            answer::set(&mut response, CACHE_CONTROL, "public, immutable");
        }
        Some(response)
    }

    fn document(
        &self,
        key: &str,
        media_type: &'static str,
        make: impl FnOnce() -> Vec<u8>,
    ) -> io::Result<Document> {
        let generation = self.catalog.generation();
        {
            let cache = self.cache.lock();
            if cache.generation == generation
                && let Some(document) = cache.documents.get(key)
            {
                return Ok(document.clone());
            }
        }
        let bytes = make();
        let etag = HeaderValue::from_str(&format!("\"{}\"", hex(&Sha512::digest(&bytes))))
            .unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::default());
        encoder.write_all(&bytes)?;
        let document = Document { gzip: encoder.finish()?.into(), etag, media_type };
        let mut cache = self.cache.lock();
        if cache.generation != generation || cache.documents.len() >= MOST {
            cache.documents.clear();
            cache.generation = generation;
        }
        cache.documents.insert(key.to_owned(), document.clone());
        Ok(document)
    }
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
    } else if accepts_gzip(headers) {
        *response.body_mut() = answer::body(document.gzip.clone());
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    } else {
        let mut plain = Vec::new();
        if let Err(e) = GzDecoder::new(&*document.gzip).read_to_end(&mut plain) {
            return answer::status(&Status::internal_error(e));
        }
        *response.body_mut() = answer::body(plain);
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
        let mut paths = vec!["/openapi/v2".to_owned(), V3.to_owned()];
        for group in self.catalog.groups() {
            let of =
                |v: &crate::discovery::Version| format!("{V3}/{}", group_version_path(&group.name, &v.name));
            paths.extend(group.versions.iter().map(of));
        }
        paths
    }

    fn answer(&self, context: &Context, request: &Parts) -> Option<Response> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return None;
        }
        match context.info.path.trim_end_matches('/') {
            "/openapi/v2" => Some(self.v2(&request.headers)),
            V3 => Some(answer::json(StatusCode::OK, &self.index())),
            path => self.group_version(path.strip_prefix(V3)?.strip_prefix('/')?, context, &request.headers),
        }
    }
}

#[cfg(test)]
mod tests;
