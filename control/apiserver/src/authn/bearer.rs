//! Where a request carries its token: the `Authorization` header, or for browsers, which cannot set it on a WebSocket, a
//! subprotocol. Upstream: `apiserver/pkg/authentication/request/{bearertoken,websocket}`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue, SEC_WEBSOCKET_PROTOCOL};

const SUBPROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Takes the token out of the headers, with everything else that names one.
pub fn take(headers: &mut HeaderMap) -> Option<String> {
    let header = headers.remove(AUTHORIZATION);
    from_header(header.as_ref()).or_else(|| from_subprotocol(headers))
}

fn from_header(header: Option<&HeaderValue>) -> Option<String> {
    let (scheme, token) = header?.to_str().ok()?.trim().split_once(' ')?;
    // A double space leaves an empty token, which upstream ignores.
    let token = token.split(' ').next().unwrap_or_default();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

fn from_subprotocol(headers: &mut HeaderMap) -> Option<String> {
    let offered = headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?.to_owned();
    let (tokens, rest): (Vec<&str>, Vec<&str>) =
        offered.split(',').map(str::trim).partition(|p| p.starts_with(SUBPROTOCOL));
    let [token] = tokens.as_slice() else { return None };
    // The token is no protocol: without another one the handshake could not be answered.
    if rest.is_empty() {
        return None;
    }
    let token = URL_SAFE_NO_PAD.decode(token.strip_prefix(SUBPROTOCOL)?).ok()?;
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(&rest.join(", ")).ok()?);
    String::from_utf8(token).ok().filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.clone(), HeaderValue::from_str(v).unwrap())).collect()
    }

    #[test]
    fn the_header_is_read_and_removed() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc def", Some("abc")),
            ("Basic abc", None),
            ("Bearer  x", None),
            ("Bearer", None),
        ] {
            let mut h = headers(&[(AUTHORIZATION, value)]);
            assert_eq!(take(&mut h).as_deref(), token, "{value}");
            assert!(h.is_empty());
        }
    }

    #[test]
    fn a_subprotocol_carries_a_token() {
        let mut h = headers(&[(
            SEC_WEBSOCKET_PROTOCOL,
            "base64url.bearer.authorization.k8s.io.YWJj, v5.channel.k8s.io",
        )]);
        assert_eq!(take(&mut h).as_deref(), Some("abc"));
        assert_eq!(h[SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
        let mut alone = headers(&[(SEC_WEBSOCKET_PROTOCOL, "base64url.bearer.authorization.k8s.io.YWJj")]);
        assert_eq!(take(&mut alone), None);
    }
}
