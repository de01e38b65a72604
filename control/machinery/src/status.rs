//! `metav1.Status`: the error every client sees, built as apimachinery's `errors` package builds it.

use crate::field::{FieldError, aggregate};
use crate::goformat::go_quote;
use crate::object::{Gk, Gr};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt;

/// The machine readable `reason` of a status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// No reason is known; written as the empty string.
    #[default]
    #[serde(rename = "")]
    Unknown,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 409 on create.
    AlreadyExists,
    /// 409 on update.
    Conflict,
    /// 410.
    Gone,
    /// 422.
    Invalid,
    /// 500, try again.
    ServerTimeout,
    /// 500, what is stored cannot be read.
    StorageReadError,
    /// 504.
    Timeout,
    /// 429.
    TooManyRequests,
    /// 400.
    BadRequest,
    /// 405.
    MethodNotAllowed,
    /// 406.
    NotAcceptable,
    /// 413.
    RequestEntityTooLarge,
    /// 415.
    UnsupportedMediaType,
    /// 500.
    InternalError,
    /// 410, the resource version is too old.
    Expired,
    /// 503.
    ServiceUnavailable,
    /// A reason this version does not know.
    #[serde(other)]
    Other,
}

/// One of several causes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Such as `FieldValueInvalid`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Text for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Path of the field, `spec.ports[0].name`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What the failure is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    /// Name of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group, empty for core.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Resource or kind, as the reason has it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// `metadata.uid` of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// One entry a field error.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to try again.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: i32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// A `v1` `Status` object; also the error type of every operation whose failure a client sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// `Success` or `Failure`.
    pub status: String,
    /// Text for people.
    pub message: String,
    /// Word that programs match on.
    pub reason: Reason,
    /// The reason's own text where it is [`Reason::Other`], as webhooks may invent.
    #[serde(skip)]
    pub other_reason: String,
    /// What it is about.
    pub details: Option<Box<Details>>,
    /// HTTP status.
    pub code: u16,
    /// `metadata.continue`, which only an expired list carries.
    #[serde(skip)]
    pub continue_token: String,
}

/// The text of every optimistic locking conflict.
pub(crate) const OPTIMISTIC_LOCK: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Details {
    fn of(group: &str, kind: &str, name: &str) -> Self {
        Details {
            group: group.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            ..Details::default()
        }
    }

    fn of_resource(resource: &Gr, name: &str) -> Self {
        Self::of(&resource.group, &resource.resource, name)
    }
}

impl Status {
    /// A failure of any kind.
    #[must_use]
    pub fn failure(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Status { status: "Failure".into(), message: message.into(), reason, code, ..Status::default() }
    }

    /// A bare success, the answer of some deletes.
    #[must_use]
    pub fn success() -> Self {
        Status { status: "Success".into(), code: 200, ..Status::default() }
    }

    /// The success a finished delete answers, naming what is gone. Upstream leaves `code` out of it.
    #[must_use]
    pub fn deleted(resource: &Gr, name: &str, uid: &str) -> Self {
        let details = Details { uid: uid.to_owned(), ..Details::of_resource(resource, name) };
        Status { status: "Success".into(), details: Some(Box::new(details)), ..Status::default() }
    }

    /// The same status with these details.
    #[must_use]
    pub fn with_details(mut self, details: Details) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// The same status with one more cause.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        let cause = Cause { reason: reason.into(), message: message.into(), field: field.into() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// 404: `pods "x" not found`.
    #[must_use]
    pub fn not_found(resource: &Gr, name: &str) -> Self {
        Self::failure(404, Reason::NotFound, format!("{resource} {} not found", go_quote(name)))
            .with_details(Details::of_resource(resource, name))
    }

    /// 409: `pods "x" already exists`.
    #[must_use]
    pub fn already_exists(resource: &Gr, name: &str) -> Self {
        Self::failure(409, Reason::AlreadyExists, format!("{resource} {} already exists", go_quote(name)))
            .with_details(Details::of_resource(resource, name))
    }

    /// 409: no free name was found for a `generateName`.
    #[must_use]
    pub fn generate_name_conflict(resource: &Gr, name: &str, retry_after_seconds: i32) -> Self {
        let message = format!(
            "{resource} {} already exists, the server was not able to generate a unique name for the object",
            go_quote(name)
        );
        let details = Details { retry_after_seconds, ..Details::of_resource(resource, name) };
        Self::failure(409, Reason::AlreadyExists, message).with_details(details)
    }

    /// 403: `pods "x" is forbidden: why`.
    #[must_use]
    pub fn forbidden(resource: &Gr, name: &str, why: impl fmt::Display) -> Self {
        let message = match (resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (_, true) => format!("{resource} is forbidden: {why}"),
            _ => format!("{resource} {} is forbidden: {why}", go_quote(name)),
        };
        Self::failure(403, Reason::Forbidden, message).with_details(Details::of_resource(resource, name))
    }

    /// 409: `Operation cannot be fulfilled on pods "x": why`.
    #[must_use]
    pub fn conflict(resource: &Gr, name: &str, why: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {}: {why}", go_quote(name));
        Self::failure(409, Reason::Conflict, message).with_details(Details::of_resource(resource, name))
    }

    /// 409 with the text of a lost compare-and-swap.
    #[must_use]
    pub fn conflict_modified(resource: &Gr, name: &str) -> Self {
        Self::conflict(resource, name, OPTIMISTIC_LOCK)
    }

    /// 409 of server-side apply, one cause a field.
    #[must_use]
    pub(crate) fn apply_conflict(causes: Vec<Cause>, message: impl Into<String>) -> Self {
        Self::failure(409, Reason::Conflict, message).with_details(Details { causes, ..Details::default() })
    }

    /// 410 `Gone`; prefer [`Status::expired`].
    #[must_use]
    pub fn gone(message: impl Into<String>) -> Self {
        Self::failure(410, Reason::Gone, message)
    }

    /// 410 `Expired`: a resource version or continue token that is too old.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, Reason::Expired, message)
    }

    /// 422: `Pod "x" is invalid: a`, or `[a, b]` for more.
    #[must_use]
    pub fn invalid(kind: &Gk, name: &str, errors: &[FieldError]) -> Self {
        let causes = errors
            .iter()
            .map(|e| Cause { reason: e.error_type.cause().into(), message: e.body(), field: e.field.clone() })
            .collect();
        let mut message = format!("{kind} {} is invalid", go_quote(name));
        if let Some(text) = aggregate(errors) {
            message.push_str(": ");
            message.push_str(&text);
        }
        Self::failure(422, Reason::Invalid, message)
            .with_details(Details { causes, ..Details::of(&kind.group, &kind.kind, name) })
    }

    /// 400.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, Reason::BadRequest, message)
    }

    /// 429 with `Retry-After`.
    #[must_use]
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        Self::failure(429, Reason::TooManyRequests, message)
            .with_details(Details { retry_after_seconds, ..Details::default() })
    }

    /// 503.
    #[must_use]
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, Reason::ServiceUnavailable, message)
    }

    /// 405: `delete is not supported on resources of kind "pods"`.
    #[must_use]
    pub fn method_not_supported(resource: &Gr, action: &str) -> Self {
        let message =
            format!("{action} is not supported on resources of kind {}", go_quote(&resource.to_string()));
        Self::failure(405, Reason::MethodNotAllowed, message).with_details(Details::of_resource(resource, ""))
    }

    /// 406; `accepted` are the media types on offer.
    #[must_use]
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::failure(406, Reason::NotAcceptable, message)
    }

    /// 415; `accepted` are the media types understood.
    #[must_use]
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::failure(415, Reason::UnsupportedMediaType, message)
    }

    /// 413: `Request entity too large: why`.
    #[must_use]
    pub fn request_entity_too_large(why: impl fmt::Display) -> Self {
        Self::failure(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {why}"))
    }

    /// 504: `Timeout: why`.
    #[must_use]
    pub fn timeout(why: impl fmt::Display, retry_after_seconds: i32) -> Self {
        Self::failure(504, Reason::Timeout, format!("Timeout: {why}"))
            .with_details(Details { retry_after_seconds, ..Details::default() })
    }

    /// 500 `ServerTimeout`: the operation may be tried again.
    #[must_use]
    pub fn server_timeout(resource: &Gr, operation: &str, retry_after_seconds: i32) -> Self {
        let message = format!(
            "The {operation} operation against {resource} could not be completed at this time, please try again."
        );
        let details = Details { retry_after_seconds, ..Details::of_resource(resource, operation) };
        Self::failure(500, Reason::ServerTimeout, message).with_details(details)
    }

    /// 500: `Internal error occurred: why`.
    #[must_use]
    pub fn internal_error(why: impl fmt::Display) -> Self {
        Self::failure(500, Reason::InternalError, format!("Internal error occurred: {why}")).with_cause(
            "",
            why.to_string(),
            "",
        )
    }

    /// An answer (usually somebody else's) that says no more than its code.
    #[must_use]
    pub fn generic_server_response(
        code: u16,
        verb: &str,
        resource: &Gr,
        name: &str,
        server_message: &str,
        retry_after_seconds: i32,
        is_unexpected_response: bool,
    ) -> Self {
        let (reason, mut message) = generic_reason(code, verb, server_message);
        if !resource.is_empty() {
            let verb = verb.to_lowercase();
            let subject = if name.is_empty() {
                format!("{verb} {resource}")
            } else {
                format!("{verb} {resource} {name}")
            };
            message = format!("{message} ({subject})");
        }
        let details = Details { retry_after_seconds, ..Details::of_resource(resource, name) };
        let status = Self::failure(code, reason, message).with_details(details);
        if is_unexpected_response {
            status.with_cause("UnexpectedServerResponse", server_message, "")
        } else {
            status
        }
    }

    /// The status as a `v1` object, fields omitted as Go omits them.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut out = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}});
        if !self.continue_token.is_empty() {
            out["metadata"]["continue"] = self.continue_token.clone().into();
        }
        for (key, text) in [("status", &self.status), ("message", &self.message)] {
            if !text.is_empty() {
                out[key] = text.clone().into();
            }
        }
        if self.reason != Reason::Unknown {
            let other = self.reason == Reason::Other && !self.other_reason.is_empty();
            out["reason"] = if other { json!(self.other_reason) } else { json!(self.reason) };
        }
        if let Some(details) = &self.details {
            out["details"] = json!(details);
        }
        if self.code != 0 {
            out["code"] = self.code.into();
        }
        out
    }

    /// Reads a `Status` object somebody else answered; `None` where `value` is not one.
    #[must_use]
    pub fn from_value(value: &Value) -> Option<Self> {
        if value.get("kind").and_then(Value::as_str) != Some("Status") {
            return None;
        }
        Status::deserialize(value).ok()
    }
}

fn generic_reason(code: u16, verb: &str, server_message: &str) -> (Reason, String) {
    let fixed = |reason, text: &str| (reason, text.to_owned());
    match code {
        409 if verb == "POST" => fixed(Reason::AlreadyExists, "the server reported a conflict"),
        409 => fixed(Reason::Conflict, "the server reported a conflict"),
        404 => fixed(Reason::NotFound, "the server could not find the requested resource"),
        400 => fixed(Reason::BadRequest, "the server rejected our request for an unknown reason"),
        401 => fixed(Reason::Unauthorized, "the server has asked for the client to provide credentials"),
        403 => fixed(Reason::Forbidden, server_message),
        406 if server_message.is_empty() || server_message == "unknown" => fixed(
            Reason::NotAcceptable,
            "the server was unable to respond with a content type that the client supports",
        ),
        406 => fixed(Reason::NotAcceptable, server_message),
        415 => fixed(Reason::UnsupportedMediaType, server_message),
        405 => {
            fixed(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
        }
        422 => fixed(Reason::Invalid, "the server rejected our request due to an error in our request"),
        503 => fixed(Reason::ServiceUnavailable, "the server is currently unable to handle the request"),
        504 => fixed(
            Reason::Timeout,
            "the server was unable to return a response in the time allotted, but may still be processing the request",
        ),
        429 => fixed(
            Reason::TooManyRequests,
            "the server has received too many requests and has asked us to try again later",
        ),
        500.. => (
            Reason::InternalError,
            format!(
                "an error on the server ({}) has prevented the request from succeeding",
                go_quote(server_message)
            ),
        ),
        _ => (
            Reason::Unknown,
            format!("the server responded with the status code {code} but did not return more information"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Path;

    #[test]
    fn a_lost_compare_and_swap_reads_as_upstream() {
        let status = Status::conflict_modified(&Gr::new("apps", "deployments"), "web");
        assert_eq!(
            status.to_value(),
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Conflict", "code": 409,
                "message": "Operation cannot be fulfilled on deployments.apps \"web\": the object has been modified; \
                            please apply your changes to the latest version and try again",
                "details": {"name": "web", "group": "apps", "kind": "deployments"},
            })
        );
    }

    #[test]
    fn invalid_lists_every_cause() {
        let errors = [
            FieldError::required(&Path::new("spec").child("a"), ""),
            FieldError::invalid(&Path::new("spec").child("b"), 0, "must be greater than zero"),
        ];
        let status = Status::invalid(&Gk::new("", "Pod"), "x", &errors);
        assert_eq!(
            status.message,
            "Pod \"x\" is invalid: [spec.a: Required value, spec.b: Invalid value: 0: must be greater than zero]"
        );
        assert_eq!(
            status.to_value()["details"]["causes"][1],
            json!({"reason": "FieldValueInvalid", "message": "Invalid value: 0: must be greater than zero", "field": "spec.b"})
        );
        let one = Status::invalid(&Gk::new("apps", "Deployment"), "x", &errors[..1]);
        assert_eq!(one.message, "Deployment.apps \"x\" is invalid: spec.a: Required value");
    }

    #[test]
    fn a_status_reads_back() {
        let status = Status::internal_error("boom");
        assert_eq!(Status::from_value(&status.to_value()), Some(status));
        assert_eq!(Status::from_value(&json!({"kind": "Pod"})), None);
    }
}
