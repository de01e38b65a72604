//! What is served here: `/api`, `/apis`, the groups and versions below, and all of it in one aggregated document.
//!
//! - [`catalog`]: groups, versions, resources; `custom`: those that are custom; [`documents`]: the catalog as clients read it
//!
//! Built-in resources come from [`machinery::resources`], others from [`Source`]s such as the custom resource
//! definitions. Documents are made when first asked for, and again when a source's generation changes.

mod catalog;
pub(crate) mod custom;
mod documents;

pub use catalog::Catalog;
pub(crate) use catalog::{Described, Group, Resource, Source, Subresource, Version};
pub use custom::CustomResources;

use crate::context::Response;
use crate::{answer, negotiate};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, StatusCode};
use machinery::status::Status;
use machinery::{codec, schema};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde_json::Value;
use sha2::{Digest as _, Sha512};
use std::sync::Arc;

const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const LIST: &str = "APIGroupDiscoveryList";
const GROUP: &str = "apidiscovery.k8s.io";
/// Documents kept; there are as many as groups and versions, so only a flood of custom resources exceeds it.
const MOST: usize = 1024;

pub struct Discovery {
    catalog: Arc<Catalog>,
    /// Shown to clients as where this server is: `host:port`.
    address: String,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    generation: u64,
    documents: FxHashMap<(String, Form), Document>,
}

#[derive(Clone)]
struct Document {
    bytes: Bytes,
    etag: HeaderValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Plain,
    Yaml,
    Protobuf,
    Aggregated,
    AggregatedBeta,
}

impl Form {
    fn is_aggregated(self) -> bool {
        matches!(self, Form::Aggregated | Form::AggregatedBeta)
    }

    fn encode(self, document: &Value) -> Option<Vec<u8>> {
        match self {
            Form::Yaml => Some(codec::yaml::encode(document).into_bytes()),
            Form::Protobuf => {
                let kind = document["kind"].as_str().unwrap_or_default();
                let id = schema::builtin().named("v1", kind)?;
                let encoded = codec::proto::encode_as(schema::builtin(), id, document);
                encoded.inspect_err(|e| tracing::error!(error = %e, kind, "discovery in protobuf")).ok()
            }
            _ => Some(document.to_string().into_bytes()),
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Form::Plain => answer::JSON,
            Form::Yaml => YAML,
            Form::Protobuf => PROTOBUF,
            Form::Aggregated => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Form::AggregatedBeta => {
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
            }
        }
    }
}

impl Discovery {
    #[must_use]
    pub fn new(catalog: Arc<Catalog>, address: String) -> Self {
        Discovery { catalog, address, cache: Mutex::default() }
    }

    /// Answers `/api...` and `/apis...`; `None` for a path that names no group or version served.
    pub fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Response> {
        let path = path.trim_end_matches('/');
        let aggregates = matches!(path, "/api" | "/apis");
        let Some(form) = form(headers, aggregates) else {
            return Some(answer::status(&Status::not_acceptable(&[answer::JSON, YAML, PROTOBUF])));
        };
        let document = self.document(path, form)?;
        if headers.get(IF_NONE_MATCH) == Some(&document.etag) {
            return Some(finish(answer::body(""), StatusCode::NOT_MODIFIED, form, &document, aggregates));
        }
        Some(finish(answer::body(document.bytes.clone()), StatusCode::OK, form, &document, aggregates))
    }

    fn document(&self, path: &str, form: Form) -> Option<Document> {
        let generation = self.catalog.generation();
        let key = (path.to_owned(), form);
        {
            let cache = self.cache.lock();
            if cache.generation == generation
                && let Some(document) = cache.documents.get(&key)
            {
                return Some(document.clone());
            }
        }
        let bytes = Bytes::from(form.encode(&self.make(path, form)?)?);
        let digest = Sha512::digest(&bytes);
        let hex: String = digest.iter().map(|b| format!("{b:02X}")).collect();
        let etag = HeaderValue::from_str(&format!("\"{hex}\"")).ok()?;
        let document = Document { bytes, etag };
        let mut cache = self.cache.lock();
        if cache.generation != generation || cache.documents.len() >= MOST {
            cache.documents.clear();
            cache.generation = generation;
        }
        cache.documents.insert(key, document.clone());
        Some(document)
    }

    fn make(&self, path: &str, form: Form) -> Option<Value> {
        let groups = self.catalog.groups();
        let aggregated = |core: bool| {
            let chosen: Vec<&Group> = groups.iter().filter(|g| g.name.is_empty() == core).collect();
            documents::aggregated(&chosen, form == Form::AggregatedBeta)
        };
        match path.split('/').skip(1).collect::<Vec<_>>().as_slice() {
            ["api"] if !form.is_aggregated() => Some(documents::api_versions(&groups, &self.address)),
            ["api"] => Some(aggregated(true)),
            ["apis"] if !form.is_aggregated() => Some(documents::group_list(&groups)),
            ["apis"] => Some(aggregated(false)),
            ["api", version] => documents::resource_list(&groups, "", version),
            ["apis", group] => {
                groups.iter().find(|g| g.name == *group && !g.name.is_empty()).map(documents::group)
            }
            ["apis", group, version] if !group.is_empty() => {
                documents::resource_list(&groups, group, version)
            }
            _ => None,
        }
    }

    /// Every path answered here, for the list at `/`.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
        for group in self.catalog.groups().iter() {
            let root =
                if group.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group.name) };
            paths.extend(group.versions.iter().map(|v| format!("{root}/{}", v.name)));
            if !group.name.is_empty() {
                paths.push(root);
            }
        }
        paths
    }
}

fn finish(
    body: crate::context::Body,
    code: StatusCode,
    form: Form,
    document: &Document,
    aggregates: bool,
) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
    if aggregates {
        headers.insert(VARY, HeaderValue::from_static("Accept"));
    }
    if form.is_aggregated() {
        headers.insert(ETAG, document.etag.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    }
    response
}

/// The form a client wants most. An aggregated form it names but that is not known is skipped.
fn form(headers: &HeaderMap, aggregates: bool) -> Option<Form> {
    negotiate::accepted(headers).iter().find_map(|range| {
        if !range.covers(answer::JSON) {
            let plain = range.parameter("as").is_none();
            let others = [(YAML, Form::Yaml), (PROTOBUF, Form::Protobuf)];
            return others.into_iter().find(|(t, _)| plain && range.covers(t)).map(|(_, form)| form);
        }
        match (range.parameter("as"), range.parameter("g"), range.parameter("v")) {
            (None, ..) => Some(Form::Plain),
            (Some(LIST), Some(GROUP), Some("v2")) if aggregates => Some(Form::Aggregated),
            (Some(LIST), Some(GROUP), Some("v2beta1")) if aggregates => Some(Form::AggregatedBeta),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests;
