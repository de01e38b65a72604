//! Failures, encoded as their client asked.

use super::negotiate::{Media, Shape, best, pretty};
use super::respond::encode;
use crate::answer::Failure;
use crate::context::Response;
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, USER_AGENT};

/// What a failure is encoded as: a `Status` has one shape, and is JSON where that cannot be had as asked.
#[derive(Clone, Debug)]
pub(crate) struct FailureLooks {
    media: Media,
    pretty: bool,
}

impl FailureLooks {
    /// As the request with these headers and this query wants it.
    pub(crate) fn of(headers: &HeaderMap, query: &[(String, String)]) -> Self {
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let asked = query.iter().find(|(name, _)| name == "pretty").map(|(_, v)| v.as_str());
        FailureLooks {
            media: best(text(ACCEPT), false, |_, shape| shape == Shape::Full)
                .map_or(Media::Json, |(media, _)| media),
            pretty: pretty(asked, text(USER_AGENT)),
        }
    }

    /// The answer, encoded again where it is a failure that is to look otherwise.
    pub(crate) fn dress(&self, mut response: Response) -> Response {
        let Some(Failure(status)) = response.extensions_mut().remove() else { return response };
        if let Ok(bytes) = encode(&status, self.media, self.pretty) {
            *response.body_mut() = crate::answer::body(bytes);
            let media_type = HeaderValue::from_static(self.media.content_type());
            response.headers_mut().insert(CONTENT_TYPE, media_type);
        }
        response
    }
}
