//! What a proxy changes on the way: hop-by-hop headers, where a server behind redirects to, and what it is told of the
//! client. Upstream: `apimachinery/pkg/util/proxy`.

use http::header::{
    CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Uri};

/// Headers that are about one connection only.
const HOP_BY_HOP: [HeaderName; 5] = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
const HOP_BY_HOP_TEXT: [&str; 4] =
    ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"];

/// Whether the request wants to leave HTTP.
#[must_use]
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .any(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case("upgrade")))
}

/// Removes what concerns this connection only; keeps an upgrade's headers where it goes on.
pub fn drop_hop_by_hop(headers: &mut HeaderMap, keep_upgrade: bool) {
    let upgrade = headers.get(UPGRADE).cloned().filter(|_| keep_upgrade);
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|t| t.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    HOP_BY_HOP_TEXT.iter().for_each(|name| {
        headers.remove(*name);
    });
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
}

/// Tells the server behind where the client believes to be.
pub fn forwarded(headers: &mut HeaderMap, prefix: &str, path: &str) {
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set("x-forwarded-uri", &format!("{prefix}{}", path.split('?').next().unwrap_or_default()));
    set("x-forwarded-proto", "https");
    if let Some(host) = headers.get(HOST).cloned() {
        headers.insert("x-forwarded-host", host);
    }
}

/// Turns a redirect within the server behind into one within the proxy.
pub fn location(headers: &mut HeaderMap, prefix: &str, authority: &str) {
    let Some(uri) = headers.get(LOCATION).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<Uri>().ok())
    else {
        return;
    };
    let elsewhere = uri.authority().is_some_and(|a| a.as_str() != authority);
    if elsewhere || !uri.path().starts_with('/') || uri.path().starts_with(prefix) {
        return;
    }
    let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    if let Ok(value) = HeaderValue::from_str(&format!("{prefix}{}{query}", uri.path())) {
        headers.insert(LOCATION, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    #[test]
    fn hop_by_hop_headers_stay_here() {
        let all = [
            ("connection", "keep-alive, x-mine"),
            ("keep-alive", "1"),
            ("x-mine", "1"),
            ("te", "x"),
            ("accept", "y"),
        ];
        let mut headers = map(&all);
        drop_hop_by_hop(&mut headers, false);
        assert_eq!(headers, map(&[("accept", "y")]));
        let mut headers = map(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]);
        assert!(is_upgrade(&headers));
        drop_hop_by_hop(&mut headers, true);
        assert!(is_upgrade(&headers) && headers["upgrade"] == "SPDY/3.1");
        drop_hop_by_hop(&mut headers, false);
        assert!(headers.is_empty());
    }

    #[test]
    fn redirects_stay_within_the_proxy() {
        let prefix = "/api/v1/namespaces/a/pods/p/proxy";
        for (from, to) in [
            ("/x?q=1", format!("{prefix}/x?q=1")),
            ("http://10.0.0.1:80/x", format!("{prefix}/x")),
            ("http://example.com/x", "http://example.com/x".to_owned()),
        ] {
            let mut headers = map(&[("location", from)]);
            location(&mut headers, prefix, "10.0.0.1:80");
            assert_eq!(headers["location"], to.as_str(), "{from}");
        }
    }
}
