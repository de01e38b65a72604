//! Request bodies: bounded reading, decoding, and what a strict client wants to know of it.

use super::negotiate::{Media, content_type};
use crate::context::{Body, BoxError};
use crate::registry::kind::Kind;
use crate::registry::options::FieldValidation;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use machinery::object::Gvk;
use machinery::schema;
use machinery::status::Status;
use machinery::{codec, object};
use serde_json::Value;

/// The most a request body may hold (upstream: `MaxRequestBodyBytes`).
pub(crate) const LIMIT: usize = 3 * 1024 * 1024;
/// How much of an unrecognisable body is quoted.
const QUOTED: usize = 30;

/// Reads a whole body.
pub(crate) async fn read(mut body: Body) -> Result<Bytes, Status> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| broken(&e))?;
        if let Ok(data) = frame.into_data() {
            if all.len() + data.len() > LIMIT {
                return Err(Status::request_entity_too_large(format!("limit is {LIMIT}")));
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(all.freeze())
}

fn broken(error: &BoxError) -> Status {
    if error.is::<http_body_util::LengthLimitError>() {
        return Status::request_entity_too_large(format!("limit is {LIMIT}"));
    }
    Status::bad_request(format!("unable to read the request body: {error}"))
}

/// As [`decode`] for a resource's own kind: the object in the stored version, defaulted.
pub(crate) fn decode_kind(
    headers: &HeaderMap,
    bytes: &[u8],
    kind: &Kind,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    // Said in the words of Go's decoder, which knows the type's name only.
    const UNDECODABLE: &str = "object *unstructured.Unstructured does not implement the protobuf marshalling interface \
                               and cannot be encoded to a protobuf message";
    let header = headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !kind.rules().has_protobuf()
        && content_type(header)? == Media::Proto
        && bytes.starts_with(codec::proto::MAGIC)
    {
        let (name, version) = (kind.resource.kind, kind.version);
        return Err(Status::bad_request(format!(
            "{name} in version {version:?} cannot be handled as a {name}: {UNDECODABLE}"
        )));
    }
    let normalize = |value| {
        let (value, problems) = kind.normalize(value)?;
        Ok(Decoded { value, problems })
    };
    let (mut value, warnings) = decode_by(headers, bytes, &kind.gvk(), validation, normalize)?;
    kind.to_storage(&mut value);
    kind.default(&mut value);
    Ok((value, warnings))
}

/// Decodes the body of a create or update of `expected`, a kind of the field table: the object in the client's version, and
/// warnings.
pub(crate) fn decode(
    headers: &HeaderMap,
    bytes: &[u8],
    expected: &Gvk,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    decode_by(headers, bytes, expected, validation, |value| normalize(value, expected))
}

fn decode_by(
    headers: &HeaderMap,
    bytes: &[u8],
    expected: &Gvk,
    validation: FieldValidation,
    normalize: impl FnOnce(Value) -> Result<Decoded, String>,
) -> Result<(Value, Vec<String>), Status> {
    let header = headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media = content_type(header)?;
    let unrecognized = |why: &str| {
        let quoted: String = String::from_utf8_lossy(bytes).chars().take(QUOTED).collect();
        let dots = if bytes.len() > QUOTED { " ..." } else { "" };
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {why} ({quoted}{dots})",
            expected.kind
        ))
    };
    let mut decoded = parse(bytes, media, expected).map_err(|e| {
        if media == Media::Proto {
            unrecognized(&e)
        } else {
            unrecognized(&format!("couldn't get version/kind; json parse error: {e}"))
        }
    })?;
    if !decoded.value.is_object() {
        return Err(unrecognized(
            "couldn't get version/kind; json parse error: json: cannot unmarshal into Go value of type struct { APIVersion string; Kind string }",
        ));
    }
    let found = Gvk::of(&decoded.value);
    let (api_version, kind) =
        (object::api_version(&decoded.value).to_owned(), object::kind(&decoded.value).to_owned());
    let version = found.map(|g| g.version).unwrap_or_default();
    let wrong = |why: &str| {
        let kind = if kind.is_empty() { &expected.kind } else { &kind };
        let version = if version.is_empty() { &expected.version } else { &version };
        Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}: {why}",
            expected.kind
        ))
    };
    if !api_version.is_empty() && api_version != expected.api_version() {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            expected.api_version()
        )));
    }
    if !kind.is_empty() && kind != expected.kind {
        let package = if expected.group.is_empty() {
            "core"
        } else {
            expected.group.split('.').next().unwrap_or_default()
        };
        return Err(wrong(&format!(
            "converting ({version}.{kind}) to ({package}.{}): unknown conversion",
            expected.kind
        )));
    }
    object::set_gvk(&mut decoded.value, expected);
    let normalized = normalize(decoded.value).map_err(|e| wrong(&e))?;
    let mut problems = decoded.problems;
    problems.extend(normalized.problems);
    if media == Media::Json {
        codec::json::in_order(bytes, &mut problems);
    }
    let warnings = judge(validation, problems).map_err(|e| wrong(&e))?;
    let mut value = normalized.value;
    object::set_gvk(&mut value, expected);
    Ok((value, warnings))
}

/// A decoded body and what a strict client would have refused.
pub(crate) struct Decoded {
    pub value: Value,
    pub problems: Vec<String>,
}

/// Reads bytes of a media type; no type is assumed beyond `default` for protobuf that names none.
pub(crate) fn parse(bytes: &[u8], media: Media, default: &Gvk) -> Result<Decoded, String> {
    match media {
        Media::Json => {
            let decoded = codec::json::decode(bytes).map_err(|e| e.to_string())?;
            Ok(Decoded { value: decoded.value, problems: decoded.duplicates })
        }
        Media::Yaml => {
            let decoded = codec::yaml::decode(bytes).map_err(|e| e.to_string())?;
            Ok(Decoded { value: decoded.value, problems: decoded.duplicates })
        }
        Media::Proto => {
            let value =
                codec::proto::decode(schema::builtin(), bytes, Some(default)).map_err(|e| e.to_string())?;
            Ok(Decoded { value, problems: Vec::new() })
        }
    }
}

/// The canonical form of `value` as `gvk`, and the fields it does not know.
pub(crate) fn normalize(value: Value, gvk: &Gvk) -> Result<Decoded, String> {
    let table = schema::builtin();
    let Some(id) = table.kind(gvk) else {
        return Ok(Decoded { value, problems: Vec::new() });
    };
    let normalized = table.normalize(id, value).map_err(|e| e.to_string())?;
    Ok(Decoded { value: normalized.value, problems: normalized.unknown })
}

/// Meets unknown and duplicate fields as the client asked: the problems to warn of, or the strict refusal.
pub(crate) fn judge(validation: FieldValidation, problems: Vec<String>) -> Result<Vec<String>, String> {
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(problems),
        FieldValidation::Strict => match codec::json::strict_error(&problems) {
            Some(error) => Err(error),
            None => Ok(problems),
        },
    }
}
