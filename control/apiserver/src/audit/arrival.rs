//! What is known of a request when it comes. Upstream: `LogRequestMetadata` in `apiserver/pkg/audit/request.go`.

use super::event::{Event, ObjectReference};
use super::level::Level;
use crate::facts::{RequestInfo, User};
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue, Uri};
use jiff::Timestamp;
use std::net::{IpAddr, Ipv6Addr};

/// Bytes of a user agent that are written.
const LONGEST_AGENT: usize = 1024;

/// A request as it came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The audit id, given or made.
    pub id: &'a HeaderValue,
    /// When it came.
    pub at: Timestamp,
    /// Its target, as it was written.
    pub uri: &'a Uri,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The other end of the connection; none for parts of this program.
    pub address: Option<IpAddr>,
}

impl Arrival<'_> {
    pub(super) fn event(&self, level: Level, user: Option<&User>, info: &RequestInfo) -> Event {
        let id = String::from_utf8_lossy(self.id.as_bytes()).into_owned();
        let target = self.uri.path_and_query().map_or("/", |target| target.as_str());
        Event {
            request_uri: target.to_owned(),
            verb: info.verb.clone(),
            user: user.map(Into::into).unwrap_or_default(),
            source_ips: self.source_ips().iter().map(ToString::to_string).collect(),
            user_agent: self.user_agent(),
            object_ref: info.is_resource.then(|| ObjectReference::of(info)),
            ..Event::new(level, id, self.at)
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())
    }

    /// Those who say they passed it on, then who really sent it. Upstream: `SourceIPs` in `apimachinery/pkg/util/net/http.go`.
    fn source_ips(&self) -> Vec<IpAddr> {
        let chain = self.header("x-forwarded-for").unwrap_or_default().split(',');
        let mut all: Vec<IpAddr> = chain.filter_map(|ip| ip.trim().parse().ok()).collect();
        let real = self.header("x-real-ip").and_then(|ip| ip.parse().ok());
        all.extend(real.filter(|ip| !all.contains(ip)));
        // Upstream's own requests come from a loopback, too.
        let sender = self.address.map_or(Ipv6Addr::LOCALHOST.into(), |ip| ip.to_canonical());
        if all.last() != Some(&sender) {
            all.push(sender);
        }
        all
    }

    fn user_agent(&self) -> String {
        let agent = self.headers.get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
        match agent.get(..LONGEST_AGENT).filter(|_| agent.len() > LONGEST_AGENT) {
            Some(start) => format!("{}...TRUNCATED", String::from_utf8_lossy(start)),
            None => String::from_utf8_lossy(agent).into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(headers: &[(&'static str, &str)], address: &str) -> Event {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let (id, uri) = (HeaderValue::from_static("id"), Uri::from_static("https://h:1/api?watch=1&a=%20"));
        let at = Timestamp::UNIX_EPOCH;
        let arrival =
            Arrival { id: &id, at, uri: &uri, headers: &map, address: Some(address.parse().unwrap()) };
        arrival.event(Level::Metadata, None, &RequestInfo::default())
    }

    #[test]
    fn the_sender_is_the_last_address_and_stands_once() {
        for (headers, address, expected) in [
            (&[][..], "192.0.2.1", &["192.0.2.1"][..]),
            (
                &[("x-forwarded-for", "10.0.0.1, nonsense,10.0.0.2")],
                "192.0.2.1",
                &["10.0.0.1", "10.0.0.2", "192.0.2.1"],
            ),
            (&[("x-forwarded-for", "10.0.0.1"), ("x-real-ip", "10.0.0.1")], "10.0.0.1", &["10.0.0.1"]),
            (&[("x-real-ip", "2001:db8::1")], "::ffff:192.0.2.1", &["2001:db8::1", "192.0.2.1"]),
        ] {
            assert_eq!(event(headers, address).source_ips, expected, "{headers:?}");
        }
    }

    #[test]
    fn the_target_is_as_sent_and_a_long_agent_is_cut() {
        let long = "a".repeat(1100);
        let event = event(&[("user-agent", &long)], "::1");
        assert_eq!(event.request_uri, "/api?watch=1&a=%20");
        assert_eq!(event.user_agent, format!("{}...TRUNCATED", "a".repeat(1024)));
    }
}
