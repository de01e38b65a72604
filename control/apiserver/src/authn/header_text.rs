//! Headers that say who a caller is: UTF-8, as Go's programs write them. One that is not is refused, since whoever leaves
//! it out takes the caller for somebody else.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A header's value as text.
///
/// # Errors
/// It is none; the text names the header.
pub(crate) fn text(name: &HeaderName, value: &HeaderValue) -> Result<String, String> {
    std::str::from_utf8(value.as_bytes())
        .map(str::to_owned)
        .map_err(|_| format!("header {name} is not UTF-8"))
}

/// Every value of a header, in order.
///
/// # Errors
/// One is no text.
pub(crate) fn texts(headers: &HeaderMap, name: &str) -> Result<Vec<String>, String> {
    let Ok(name) = HeaderName::try_from(name) else { return Ok(Vec::new()) };
    headers.get_all(&name).iter().map(|value| text(&name, value)).collect()
}
