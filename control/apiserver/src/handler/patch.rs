//! PATCH: a change described by the client, applied to the object in the version the client speaks.

use super::table::Include;
use super::{Exchange, body, negotiate, respond};
use crate::context::{Body, Response};
use crate::registry::kind::Kind;
use crate::registry::options::FieldValidation;
use bytes::Bytes;
use http::StatusCode;
use machinery::field::{FieldError, Path};
use machinery::object;
use machinery::object::{Gk, Gvk};
use machinery::patch::{json, merge, strategic};
use machinery::schema::{self, TypeId};
use machinery::status::Status;
use parking_lot::Mutex;
use serde_json::Value;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
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
                None => return Err(Status::unsupported_media_type(&[JSON, MERGE])),
            },
            _ => return Err(Status::unsupported_media_type(&[JSON, MERGE, STRATEGIC])),
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

/// An object changed.
pub(super) async fn patch(x: &Exchange<'_>, body: Body) -> Result<Response, Status> {
    let accept = negotiate::accept(&x.headers, x.context, false)?;
    let call = x.call()?;
    let content_type =
        x.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let bytes = body::read(body).await?;
    let patch = Patch::parse(content_type, &bytes, &x.kind.gvk())?;
    let warnings = Mutex::new(Vec::new());
    let change = |old: &Value| {
        let (new, found) = patched(&x.kind, old, &patch, &bytes, call.options.field_validation)?;
        *warnings.lock() = found;
        Ok(new)
    };
    let updated = x.registry.update(&call, &change, None).await?;
    x.warn(warnings.into_inner());
    Ok(respond::object(StatusCode::OK, &accept, &x.kind, updated.object, Include::parse(x.context)))
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
    // A patch that names no resourceVersion is not held to the one it was applied to.
    object::set_resource_version(&mut object, "");
    let mut problems = patch.apply(&mut object)?;
    let refused = |why: String| {
        let error = FieldError::invalid(&Path::new("patch"), String::from_utf8_lossy(text).into_owned(), why);
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
    let normalized = body::normalize(object, &gvk).map_err(refused)?;
    problems.extend(normalized.problems);
    let warnings = body::judge(validation, problems).map_err(refused)?;
    let mut object = normalized.value;
    object::set_gvk(&mut object, &gvk);
    kind.to_storage(&mut object);
    kind.default(&mut object);
    Ok((object, warnings))
}
