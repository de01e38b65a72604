//! What a proxy changes on the way: hop-by-hop headers, where a server behind redirects to, and what it says of the
//! client. Upstream: `apimachinery/pkg/util/proxy`.

use http::HeaderMap;
use http::header::{
    CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

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

/// What leads to the server behind, and where it leads instead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links<'a> {
    /// Our path that stands for its root.
    pub(super) prefix: &'a str,
    /// Its host and port.
    pub(super) authority: &'a str,
    /// The host the client asked for.
    pub(super) asked: Option<&'a str>,
}

impl Links<'_> {
    /// A link within the server behind as one within the proxy; `None` for one that stays as it is.
    pub(super) fn rewrite(&self, link: &str) -> Option<String> {
        let after_scheme = ["http:", "https:"].iter().find_map(|scheme| {
            let head = link.get(..scheme.len())?;
            head.eq_ignore_ascii_case(scheme).then(|| &link[scheme.len()..])
        });
        let rest = after_scheme.unwrap_or(link);
        let path = match rest.strip_prefix("//") {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
                if authority != self.authority && Some(authority) != self.asked {
                    return None;
                }
                path
            }
            None => rest,
        };
        if !path.starts_with('/') || path.starts_with(self.prefix) {
            return None;
        }
        Some(format!("{}{path}", self.prefix))
    }
}

/// Turns a redirect within the server behind into one within the proxy.
pub(super) fn location(headers: &mut HeaderMap, links: &Links<'_>) {
    let new = headers.get(LOCATION).and_then(|v| v.to_str().ok()).and_then(|target| links.rewrite(target));
    if let Some(value) = new.and_then(|new| HeaderValue::from_str(&new).ok()) {
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
            location(&mut headers, &Links { prefix, authority: "10.0.0.1:80", asked: None });
            assert_eq!(headers["location"], to.as_str(), "{from}");
        }
    }
}
