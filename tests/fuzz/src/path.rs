//! URLs.

use apiserver::{query, request};
use http::Method;

/// A path with its query.
pub fn request(bytes: &[u8]) {
    let Ok(url) = std::str::from_utf8(bytes) else { return };
    let (path, parameters) = url.split_once('?').unwrap_or((url, ""));
    let parameters = query::parse(parameters);
    for method in [Method::GET, Method::POST, Method::DELETE] {
        if let Ok(info) = request::parse(&method, path, &parameters) {
            let _ = (request::is_long_running(&info), request::is_read_only(&info));
        }
    }
    for (_, value) in &parameters {
        assert_eq!(query::decode(&query::escape(value)).as_ref(), Some(value));
    }
}
