//! PATCH: a change described by the client, applied to the object in the version the client speaks.

use super::table::Include;
use super::{Exchange, body, negotiate, respond};
use crate::context::{Body, Response};
use crate::registry::call::Call;
use crate::registry::kind::Kind;
use crate::registry::options::FieldValidation;
use crate::write::managed::Configuration;
use bytes::Bytes;
use http::HeaderMap;
use machinery::field::{FieldError, Path};
use machinery::goformat::go_value;
use machinery::object;
use machinery::object::{Gk, Gvk};
use machinery::patch::{self, APPLY, JSON, MERGE, STRATEGIC, json, merge, strategic};
use machinery::schema::{self, TypeId};
use machinery::status::{Reason, Status};
use parking_lot::Mutex;
use serde_json::Value;

/// A patch and how to read it.
pub(super) struct Patch {
    format: Format,
    bytes: Bytes,
}

enum Format {
    Json,
    Merge,
    Strategic(TypeId),
}

impl Patch {
    /// A patch of an object of `gvk`; 415 for a format it does not take.
    pub(super) fn parse(content_type: &str, bytes: &Bytes, gvk: &Gvk) -> Result<Self, Status> {
        let format = match content_type.split(';').next().unwrap_or_default().trim() {
            JSON => {
                json::parse(bytes)?;
                Format::Json
            }
            MERGE => Format::Merge,
            STRATEGIC => match schema::builtin().kind(gvk) {
                Some(id) => Format::Strategic(id),
                None => return Err(Status::unsupported_media_type(patch::media_types(gvk))),
            },
            _ => return Err(Status::unsupported_media_type(patch::media_types(gvk))),
        };
        Ok(Patch { format, bytes: bytes.clone() })
    }

    /// Applies it, and says which fields it gave twice.
    pub(super) fn apply(&self, object: &mut Value) -> Result<Vec<String>, Status> {
        match self.format {
            Format::Json => json::apply(object, &self.bytes).map(|()| Vec::new()),
            Format::Merge => merge::apply(object, &self.bytes),
            Format::Strategic(id) => strategic::apply(schema::builtin(), id, object, &self.bytes),
        }
    }
}

/// The media type a request's body is said to have.
pub(super) fn content_type(headers: &HeaderMap) -> &str {
    let header = headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    header.split(';').next().unwrap_or_default().trim()
}

/// Is the request's patch a configuration to apply?
pub(super) fn applies(headers: &HeaderMap) -> bool {
    content_type(headers) == APPLY
}

pub(super) async fn patch(x: &Exchange<'_>, body: Body) -> Result<Response, Status> {
    let accept = x.accept(false)?;
    let call = x.call()?;
    let bytes = body::read(body).await?;
    x.context.audit.request_patch(&bytes);
    if applies(&x.headers) {
        return apply(x, &accept, call, &bytes).await;
    }
    let patch = Patch::parse(content_type(&x.headers), &bytes, &x.kind.gvk())?;
    let warnings = Mutex::new(Vec::new());
    let change = |old: &Value| {
        let (new, found) = patched(&x.kind, old, &patch, &bytes, call.options.field_validation)?;
        *warnings.lock() = found;
        Ok(new)
    };
    let updated = x.writer.update(&call, &change, None).await?;
    x.warn(warnings.into_inner());
    Ok(respond::written(&accept, &x.kind, updated, Include::parse(x.context)))
}

fn patched(
    kind: &Kind,
    old: &Value,
    patch: &Patch,
    text: &Bytes,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let mut object = old.clone();
    kind.to_client(&mut object);
    let mut problems = patch.apply(&mut object)?;
    // A patch that names no resourceVersion is not held to the one it was applied to; yet patches may test or replace it.
    if object::resource_version(&object) == object::resource_version(old) {
        object::set_resource_version(&mut object, "");
    }
    let refused = |why: String| {
        let error = FieldError::invalid(&Path::new("patch"), printed(text), why);
        Status::invalid(&Gk::default(), "", &[error])
    };
    let gvk = kind.gvk();
    if object::kind(&object) != gvk.kind || object::api_version(&object) != gvk.api_version() {
        return Err(Status::bad_request(format!(
            "the kind and version of the patched object ({}, {}) do not match those of the request",
            object::kind(&object),
            object::api_version(&object)
        )));
    }
    let (normalized, unknown) = kind.normalize(object).map_err(refused)?;
    problems.extend(unknown);
    let warnings = body::judge(validation, problems).map_err(refused)?;
    let mut object = normalized;
    object::set_gvk(&mut object, &gvk);
    kind.to_storage(&mut object);
    kind.default(&mut object);
    Ok((object, warnings))
}

/// A patch as upstream prints what it refuses: a decoded Go value, `map[a:map[b:1] c:[2 3]]`.
fn printed(patch: &[u8]) -> String {
    match serde_json::from_slice(patch) {
        Ok(decoded) => go_value(&decoded),
        Err(_) => String::from_utf8_lossy(patch).into_owned(),
    }
}

#[cfg(test)]
#[test]
fn refused_patches_are_printed_as_maps() {
    assert_eq!(printed(br#"{"b":{"c":[1,"x",null]},"a":true}"#), "map[a:true b:map[c:[1 x <nil>]]]");
    assert_eq!(printed(br#"{"a":1e21,"b":1e-7,"c":1.5}"#), "map[a:1e+21 b:1e-07 c:1.5]");
    assert_eq!(printed(b"{"), "{");
}

/// The refusal of a configuration that is not one of its schema; each error as `.spec.x: what is wrong with it`.
fn untyped(call: &Call<'_>, gvk: &Gvk, config: &Value, errors: &[String]) -> Status {
    let why = match errors {
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    let name = Some(object::name(config)).filter(|n| !n.is_empty()).unwrap_or(&call.name);
    let what = format!("{}/{name}; {gvk}", call.namespace);
    Status::failure(500, Reason::Unknown, format!("failed to create typed patch object ({what}): {why}"))
}

/// A configuration to apply: of this version and kind, and without owners. Beside it, the fields it gave twice.
pub(super) fn configuration(bytes: &Bytes, gvk: &Gvk) -> Result<(Value, Vec<String>), Status> {
    let decoded = machinery::codec::yaml::decode(bytes)
        .map_err(|e| Status::bad_request(format!("error decoding YAML: {e}")))?;
    let config = decoded.value;
    if object::api_version(&config) != gvk.api_version() {
        return Err(Status::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {}, expected: {}",
            object::api_version(&config),
            gvk.api_version()
        )));
    }
    if object::kind(&config) != gvk.kind {
        return Err(Status::bad_request(format!(
            "the object to apply must be a {} of {}",
            gvk.kind,
            gvk.api_version()
        )));
    }
    if object::metadata(&config).get("managedFields").is_some() {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Ok((config, decoded.duplicates))
}

/// Server-side apply.
async fn apply(
    x: &Exchange<'_>,
    accept: &negotiate::Accept,
    mut call: Call<'_>,
    bytes: &Bytes,
) -> Result<Response, Status> {
    call.options.applies = true;
    let gvk = x.kind.gvk();
    let (mut config, duplicates) = configuration(bytes, &gvk)?;
    // Nobody can own what no schema has: upstream refuses it however lenient the client is.
    let untypable = x.kind.rules().untypable(&config);
    if !untypable.is_empty() {
        return Err(untyped(&call, &gvk, &config, &untypable));
    }
    let warnings = body::judge(call.options.field_validation, duplicates).map_err(Status::bad_request)?;
    x.warn(warnings);
    // What a schema takes and does not keep goes when it is merged, without a word; yet who applies it owns it, as upstream has it.
    if object::name(&config).is_empty() {
        object::set_name(&mut config, &call.name);
    }
    if x.kind.resource.namespaced && object::namespace(&config).is_empty() {
        object::set_namespace(&mut config, &call.namespace);
    }
    let change = Configuration { registry: x.registry, call: &call, config: &config };
    let fresh = match call.subresource {
        "" => Some(change.over(None).await?),
        _ => None,
    };
    let updated = x.writer.update(&call, &change, fresh.as_ref()).await?;
    Ok(respond::written(accept, &x.kind, updated, Include::parse(x.context)))
}
