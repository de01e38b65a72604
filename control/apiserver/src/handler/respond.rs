//! Answers: objects, lists and statuses, in the shape and encoding the client negotiated.

use super::negotiate::{Accept, Media, Shape};
use super::table;
use crate::audit::{Level, Logged};
use crate::context::Response;
use crate::registry::kind::Kind;
use crate::registry::list::List;
use crate::registry::stored;
use crate::write::Written;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use http::{HeaderName, StatusCode};
use machinery::status::Status;
use machinery::{codec, schema};
use serde_json::{Value, json};
use std::io::Write as _;

/// Smaller answers are not worth compressing (upstream: `defaultGzipThresholdBytes`).
const GZIP_FROM: usize = 128 * 1024;
const WARNING: HeaderName = HeaderName::from_static("warning");
/// Bounds of warnings in one answer (upstream: `filters/warning.go`).
const MAX_WARNINGS_BYTES: usize = 4 * 1024;

/// The bytes of a value; protobuf falls back to an error where a kind has no protobuf form.
pub(crate) fn encode(value: &Value, media: Media, pretty: bool) -> Result<Vec<u8>, Status> {
    match media {
        Media::Json => {
            let mut out = if pretty {
                serde_json::to_vec_pretty(value).map_err(Status::internal_error)?
            } else {
                codec::json::encode(value)
            };
            out.push(b'\n');
            Ok(out)
        }
        Media::Yaml => Ok(codec::yaml::encode(value).into_bytes()),
        Media::Proto => codec::proto::encode(schema::builtin(), value).map_err(Status::internal_error),
    }
}

/// Whether an answer's bytes are its object's JSON, and nothing else.
fn is_plain(accept: &Accept) -> bool {
    accept.media == Media::Json && !accept.pretty
}

fn answer(code: StatusCode, accept: &Accept, bytes: Vec<u8>) -> Response {
    let compressed = (accept.gzip && bytes.len() >= GZIP_FROM)
        .then(|| {
            let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
            encoder.write_all(&bytes).and_then(|()| encoder.finish()).ok()
        })
        .flatten();
    let gzipped = compressed.is_some();
    let bytes = Bytes::from(bytes);
    // A copy is shared, which costs: none is made for nobody.
    let wanted = accept.audit == Level::RequestResponse && is_plain(accept);
    let logged = wanted.then(|| bytes.clone());
    let body = compressed.map_or(bytes, Bytes::from);
    let mut response = Response::new(crate::answer::body(body));
    *response.status_mut() = code;
    if logged.is_some() {
        response.extensions_mut().insert(Logged { object: logged, status: None });
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(accept.media.content_type()));
    if gzipped {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

/// A value as it is.
pub(crate) fn value(code: StatusCode, accept: &Accept, value: &Value) -> Response {
    let mut response = match encode(value, accept.media, accept.pretty) {
        Ok(bytes) => answer(code, accept, bytes),
        Err(status) => return failure(&status),
    };
    log(&mut response, accept, value);
    response
}

/// Leaves with an answer what the audit log wants of it and its bytes do not say.
fn log(response: &mut Response, accept: &Accept, value: &Value) {
    let status = machinery::object::kind(value) == "Status";
    let encoded = accept.audit == Level::RequestResponse && !is_plain(accept);
    if accept.audit == Level::None || !(status || encoded) {
        return;
    }
    let mut logged = response.extensions_mut().remove::<Logged>().unwrap_or_default();
    if encoded {
        logged.object = Some(codec::json::encode(value).into());
    }
    logged.status = status.then(|| value.clone());
    response.extensions_mut().insert(logged);
}

/// A failure, to be encoded as its client asked.
pub(crate) fn failure(status: &Status) -> Response {
    crate::answer::status(status)
}

/// One object of the stored version, in the negotiated shape.
pub(crate) fn object(
    code: StatusCode,
    accept: &Accept,
    kind: &Kind,
    mut object: Value,
    include: table::Include,
) -> Response {
    let shaped = match accept.shape {
        Shape::Table(version) => {
            table::of(kind, version, std::slice::from_ref(&object), table::single_meta(&object), include)
        }
        Shape::Partial(version) => table::partial(version, &object),
        Shape::Full => {
            kind.to_client(&mut object);
            object
        }
    };
    value(code, accept, &shaped)
}

/// Whether stored bytes of a built-in kind are the answer a client negotiated.
pub(crate) fn as_stored(accept: &Accept, kind: &Kind) -> bool {
    is_plain(accept) && accept.shape == Shape::Full && kind.reads_as_stored() && kind.is_storage()
}

/// What a write left behind, as the bytes that are stored where those are the answer.
pub(crate) fn written(accept: &Accept, kind: &Kind, written: Written, include: table::Include) -> Response {
    let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    left(code, accept, kind, written, include)
}

/// The same with a code of the caller's.
pub(crate) fn left(
    code: StatusCode,
    accept: &Accept,
    kind: &Kind,
    written: Written,
    include: table::Include,
) -> Response {
    match written.entry {
        Some(entry) if as_stored(accept, kind) => {
            let mut out = Vec::new();
            stored::append(&mut out, &entry.value, entry.mod_revision);
            out.push(b'\n');
            answer(code, accept, out)
        }
        _ => object(code, accept, kind, written.object, include),
    }
}

/// Bytes on the wire, for [`as_stored`].
pub(crate) fn bytes(accept: &Accept, bytes: &[u8]) -> Response {
    let mut out = Vec::with_capacity(bytes.len() + 1);
    out.extend_from_slice(bytes);
    out.push(b'\n');
    answer(StatusCode::OK, accept, out)
}

/// A list, in the negotiated shape; JSON of the stored version is put together from stored bytes.
pub(crate) fn list(accept: &Accept, kind: &Kind, list: &List, include: table::Include) -> Response {
    if is_plain(accept) && accept.shape == Shape::Full && kind.is_storage() {
        return answer(StatusCode::OK, accept, concatenate(kind, list));
    }
    let mut items = Vec::with_capacity(list.items.len());
    for bytes in &list.items {
        match kind.decode_wire(bytes) {
            Ok(object) => items.push(object),
            Err(status) => return failure(&status),
        }
    }
    let meta = list_meta(list);
    let shaped = match accept.shape {
        Shape::Table(version) => table::of(kind, version, &items, meta, include),
        Shape::Partial(version) => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": meta,
            "items": items.iter().map(|i| table::partial(version, i)).collect::<Vec<_>>(),
        }),
        Shape::Full => {
            for item in &mut items {
                kind.to_client(item);
                if let Some(item) = item.as_object_mut().filter(|_| kind.custom.is_none()) {
                    item.remove("apiVersion");
                    item.remove("kind");
                }
            }
            json!({"kind": kind.resource.list_kind, "apiVersion": kind.api_version(), "metadata": meta, "items": items})
        }
    };
    value(StatusCode::OK, accept, &shaped)
}

fn list_meta(list: &List) -> Value {
    let mut meta = json!({"resourceVersion": list.revision.to_string()});
    if !list.continue_token.is_empty() {
        meta["continue"] = list.continue_token.clone().into();
        if let Some(remaining) = list.remaining {
            meta["remainingItemCount"] = remaining.into();
        }
    }
    meta
}

/// The list's JSON from its items' bytes. As upstream's, items of a list do not repeat `apiVersion` and `kind`, but those of custom resources:
/// both are the first members of stored bytes, so leaving them out is a cut.
fn concatenate(kind: &Kind, list: &List) -> Vec<u8> {
    let head =
        format!("{{\"apiVersion\":{},\"kind\":{},", json!(kind.api_version()), json!(kind.resource.kind));
    let size: usize = list.items.iter().map(|i| i.len() + 1).sum();
    let mut out = Vec::with_capacity(size + 256);
    out.extend_from_slice(
        format!(
            "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{},\"items\":[",
            json!(kind.resource.list_kind),
            json!(kind.api_version()),
            list_meta(list)
        )
        .as_bytes(),
    );
    for (i, item) in list.items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        match item.strip_prefix(head.as_bytes()).filter(|_| kind.custom.is_none()) {
            Some(rest) => {
                out.push(b'{');
                out.extend_from_slice(rest);
            }
            None => out.extend_from_slice(item),
        }
    }
    out.extend_from_slice(b"]}\n");
    out
}

/// Adds `Warning` headers, each once, within upstream's bounds.
pub(crate) fn warn(response: &mut Response, warnings: &[String]) {
    let mut seen = std::collections::BTreeSet::new();
    let mut size = 0;
    for warning in warnings.iter().filter(|w| seen.insert(w.as_str())) {
        let escaped: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c]))
            .collect();
        size += escaped.len();
        if size > MAX_WARNINGS_BYTES {
            break;
        }
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
