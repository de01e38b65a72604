//! A proxy in front says who a caller is: in headers that are believed of those whose certificate an authority of their own signed.
//! Upstream: `apiserver/pkg/authentication/request/headerrequest`.

use super::certificate::{Authorities, Peer};
use super::header_text::{text, texts};
use crate::context::User;
use http::HeaderMap;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Which proxies are believed, and the headers they use.
#[derive(Clone)]
pub struct FrontProxies {
    /// Who signs their certificates.
    pub authorities: Authorities,
    /// Their common names; any where there is none.
    pub allowed: Vec<String>,
    /// Headers of the user's name: the first that is there counts.
    pub users: Vec<String>,
    /// Headers of the user's unique id.
    pub uids: Vec<String>,
    /// Headers of the user's groups.
    pub groups: Vec<String>,
    /// What headers of everything else begin with.
    pub extras: Vec<String>,
}

impl FrontProxies {
    /// The caller the headers name, which are taken out of the request; `None` where they name nobody, or nobody said so who might.
    ///
    /// # Errors
    /// The peer's certificate is none of these authorities', or of another name; or a header is no text.
    pub fn user(&self, peer: &Peer, headers: &mut HeaderMap, now: Timestamp) -> Result<Option<User>, String> {
        let Some(name) = first(headers, &self.users)? else { return Ok(None) };
        let Some(proxy) = peer.user_by(&self.authorities, now)? else { return Ok(None) };
        if !self.allowed.is_empty() && !self.allowed.contains(&proxy.name) {
            return Err(format!("x509: subject with cn={} is not in the allowed list", proxy.name));
        }
        let groups: Vec<_> =
            self.groups.iter().map(|header| texts(headers, header)).collect::<Result<_, _>>()?;
        let user = User {
            name,
            uid: first(headers, &self.uids)?.unwrap_or_default(),
            groups: groups.concat(),
            extra: extra(headers, &self.extras)?,
        };
        for header in self.users.iter().chain(&self.uids).chain(&self.groups) {
            headers.remove(header.as_str());
        }
        let of_extra = |name: &str| self.extras.iter().any(|prefix| after(name, prefix).is_some());
        let extras: Vec<_> = headers.keys().filter(|name| of_extra(name.as_str())).cloned().collect();
        extras.into_iter().for_each(|name| drop(headers.remove(name)));
        Ok(Some(user))
    }
}

fn first(headers: &HeaderMap, names: &[String]) -> Result<Option<String>, String> {
    for name in names {
        if let Some(value) = texts(headers, name)?.into_iter().next().filter(|value| !value.is_empty()) {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// What follows a prefix, whose case does not matter.
fn after<'n>(name: &'n str, prefix: &str) -> Option<&'n str> {
    let (start, rest) = name.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn extra(headers: &HeaderMap, prefixes: &[String]) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut out = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in headers {
        let key = prefixes.iter().find_map(|prefix| after(name.as_str(), prefix));
        let Some(key) = key else { continue };
        let value = text(name, value)?;
        // A key that is escaped badly is taken as it is, as upstream takes it.
        let key = crate::query::decode(key).unwrap_or_else(|| key.to_owned()).to_lowercase();
        out.entry(key).or_default().push(value);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use pki::{Authority, Leaf};

    struct World {
        front: Authority,
        proxies: FrontProxies,
        now: Timestamp,
    }

    fn world() -> World {
        let now = Timestamp::now();
        let front = Authority::generate("front-proxy-ca", now).unwrap();
        let words = |word: &str| vec![word.to_owned()];
        let proxies = FrontProxies {
            authorities: Authorities::from_pem(&front.cert_pem()).unwrap(),
            allowed: words("front-proxy-client"),
            users: words("X-Remote-User"),
            uids: words("X-Remote-Uid"),
            groups: words("X-Remote-Group"),
            extras: words("X-Remote-Extra-"),
        };
        World { front, proxies, now }
    }

    fn peer(authority: &Authority, name: &str, now: Timestamp) -> Peer {
        let issued = authority.issue(&Leaf::client(name, &[]), now).unwrap();
        Peer::new(None, pki::pem::certificates(issued.cert_pem.as_bytes()).unwrap())
    }

    fn headers() -> HeaderMap {
        let pairs = [
            ("x-remote-user", "alice"),
            ("x-remote-uid", "7"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-example.com%2fkey", "1"),
            ("accept", "*/*"),
        ];
        let pair = |(name, value): (&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in pairs.map(pair) {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn a_proxy_in_front_says_who_calls() {
        let World { front, proxies, now } = world();
        let mut headers = headers();
        let user =
            proxies.user(&peer(&front, "front-proxy-client", now), &mut headers, now).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("alice", "7"));
        assert_eq!(user.groups, ["a", "b"]);
        assert_eq!(user.extra["example.com/key"], ["1"]);
        assert_eq!(
            headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["accept"],
            "nobody else sees them"
        );
    }

    #[test]
    fn a_name_that_is_not_ascii_must_not_be_lost() {
        let World { front, proxies, now } = world();
        let peer = peer(&front, "front-proxy-client", now);
        let bytes = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
        let mut named = headers();
        named.insert("x-remote-user", bytes("Grüße"));
        named.append("x-remote-group", bytes("組"));
        named.insert("x-remote-extra-k", bytes("é"));
        let user = proxies.user(&peer, &mut named, now).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.extra["k"][0].as_str()), ("Grüße", "é"));
        assert_eq!(user.groups, ["a", "b", "組"]);
        for name in ["x-remote-user", "x-remote-group", "x-remote-uid", "x-remote-extra-k"] {
            let mut broken = headers();
            broken.insert(name, HeaderValue::from_bytes(b"\xff").unwrap());
            let error = proxies.user(&peer, &mut broken, now).unwrap_err();
            assert_eq!(error, format!("header {name} is not UTF-8"));
        }
    }

    #[test]
    fn headers_of_a_stranger_must_not_be_believed() {
        let World { front, proxies, now } = world();
        let stranger = Authority::generate("other", now).unwrap();
        for peer in [peer(&stranger, "front-proxy-client", now), peer(&front, "somebody", now)] {
            let mut headers = headers();
            assert!(proxies.user(&peer, &mut headers, now).is_err());
            assert_eq!(headers.len(), 6);
        }
        let nobody = proxies.user(&Peer::default(), &mut headers(), now);
        assert_eq!(nobody.unwrap(), None, "no certificate at all");
        let silent = proxies.user(&peer(&front, "front-proxy-client", now), &mut HeaderMap::new(), now);
        assert_eq!(silent.unwrap(), None);
    }
}
