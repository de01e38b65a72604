//! Small finished answers.

use crate::facts::{Body, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderName, StatusCode};
use http_body_util::{BodyExt as _, Full};
use machinery::status::Status;
use serde_json::Value;

/// Media type of JSON.
pub const JSON: &str = "application/json";
/// Media type of plain text, as Go's `http.Error` names it.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// A body of bytes.
pub fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer with a body of one media type.
pub fn bytes(code: StatusCode, media_type: &'static str, content: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body(content));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// An answer of plain text.
pub fn text(code: StatusCode, content: impl Into<String>) -> Response {
    let mut response = bytes(code, TEXT, content.into());
    set(&mut response, http::header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

pub fn json(code: StatusCode, value: &Value) -> Response {
    bytes(code, JSON, value.to_string())
}

/// The `Status` an answer is, until the answer is encoded as its client asked.
#[derive(Clone, Debug)]
pub(crate) struct Failure(pub Value);

/// A failure, as a `Status` object: in JSON here, in what the client asked for on its way out.
pub fn status(status: &Status) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let value = status.to_value();
    let mut response = json(code, &value);
    response.extensions_mut().insert(Failure(value));
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// What Go's mux answers where nothing is served.
pub fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Sets a header; a value that cannot stand in a header is dropped.
pub(crate) fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
