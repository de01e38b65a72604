//! Answers as upstream's kubelet writes them: plain text for errors, JSON for objects.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};

/// A body, whatever it comes from.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;
/// What every handler gives.
pub type HttpResponse = Response<Body>;

/// Everything in one piece.
pub fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A text of that type.
pub fn typed(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> HttpResponse {
    let mut answer = Response::new(body(bytes));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// A plain text, as restful's `WriteError` does.
pub fn text(status: StatusCode, message: impl Into<String>) -> HttpResponse {
    typed(status, "text/plain; charset=utf-8", message.into())
}

/// A plain text with a new line, as Go's `http.Error` does.
pub fn refused(status: StatusCode, message: impl Into<String>) -> HttpResponse {
    sniffless(text(status, message.into() + "\n"))
}

/// Its content type is to be believed.
pub fn sniffless(mut answer: HttpResponse) -> HttpResponse {
    answer.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

pub fn json(value: &impl serde::Serialize) -> HttpResponse {
    match serde_json::to_vec(value) {
        Ok(bytes) => typed(StatusCode::OK, "application/json", bytes),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// The head of an answer alone: HTTP/2 takes bytes after the head for a broken protocol where none were asked for.
pub fn head(answer: HttpResponse) -> HttpResponse {
    use hyper::body::Body as _;
    let (mut parts, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.entry(CONTENT_LENGTH).or_insert(length.into());
    }
    Response::from_parts(parts, http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync())
}

/// A runtime's error, as CRI streaming servers answer it.
pub fn runtime(error: &cri_proto::client::Error) -> HttpResponse {
    use tonic::Code;
    let message = error.runtime_message();
    match error.code() {
        Code::NotFound => text(StatusCode::NOT_FOUND, message),
        Code::ResourceExhausted => {
            let mut answer = text(StatusCode::TOO_MANY_REQUESTS, message);
            answer.headers_mut().insert("retry-after", HeaderValue::from_static("60"));
            answer
        }
        _ => text(StatusCode::INTERNAL_SERVER_ERROR, message),
    }
}
