//! Forgetting flows whose translation no longer holds. A UDP flow has no end the kernel could see: while its client goes on sending,
//! the flow's old entry would carry it to an endpoint that is gone, or keep it from one that has come.
//!
//! As upstream (`pkg/proxy/conntrack/cleanup.go`): a flow stays while its endpoint serves, whatever policies, hints or its being about to
//! end say of new flows; and where nothing serves, there is nothing better for the old ones.

use crate::model::{Endpoint, Front, Rules};
use crate::service::Protocol;
use netlink::conntrack::{self, End, Flow, UDP};
use netlink::{Error, Kernel, Protocol as Netlink};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Which UDP flows to forget: those to these fronts that none of the front's serving endpoints answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stale(BTreeMap<Front, Arc<BTreeSet<Endpoint>>>);

impl Stale {
    /// Whether nothing is to be forgotten.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what becomes stale where a service's rules change.
    pub(crate) fn add(&mut self, old: &Rules, new: &Rules) {
        let changed = new.serving.iter().filter(|(front, serving)| {
            !serving.is_empty() && old.serving.get(front).is_none_or(|before| before != *serving)
        });
        self.0.extend(changed.map(|(front, serving)| (*front, serving.clone())));
    }

    fn holds(&self, (to, port): End, (from, answering): End) -> bool {
        let endpoint = Endpoint { address: from, port: answering };
        let fronts =
            [Front::Address(to, Protocol::Udp, port), Front::NodePort(to.is_ipv6(), Protocol::Udp, port)];
        fronts.iter().filter_map(|front| self.0.get(front)).any(|serving| !serving.contains(&endpoint))
    }
}

/// Deletes the entries that are stale, and says how many of each family. Costs nothing when no UDP front is touched.
///
/// # Errors
/// The kernel does not list or delete entries.
pub async fn forget(stale: Stale) -> Result<[usize; 2], Error> {
    if stale.is_empty() {
        return Ok([0; 2]);
    }
    let forget = move |socket: &mut netlink::Socket| {
        let mut counts = [0; 2];
        for (count, ipv6) in counts.iter_mut().zip([false, true]) {
            *count = conntrack::forget(socket, |flow: &Flow| {
                flow.protocol == UDP
                    && flow.destination.0.is_ipv6() == ipv6
                    && stale.holds(flow.destination, flow.answers_from)
            })?;
        }
        Ok(counts)
    };
    Kernel::of(Netlink::Netfilter).call(forget).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> End {
        let at: std::net::SocketAddr = text.parse().unwrap();
        (at.ip(), at.port())
    }

    fn serving(endpoints: &[&str]) -> Rules {
        let endpoints = endpoints.iter().map(|text| {
            let (address, port) = end(text);
            Endpoint { address, port }
        });
        let all = Arc::new(endpoints.collect::<BTreeSet<_>>());
        let address = Front::Address("10.96.0.5".parse().unwrap(), Protocol::Udp, 53);
        let fronts = [address, Front::NodePort(false, Protocol::Udp, 30053)];
        Rules { serving: fronts.into_iter().map(|front| (front, all.clone())).collect(), ..Rules::default() }
    }

    fn stale(old: &[&str], new: &[&str]) -> Stale {
        let mut stale = Stale::default();
        stale.add(&serving(old), &serving(new));
        stale
    }

    #[test]
    fn a_flow_must_not_be_cut_while_its_endpoint_serves() {
        let (a, b, c) = ("10.244.0.1:5353", "10.244.0.2:5353", "10.244.0.3:5353");
        let fronts = ["10.96.0.5:53", "192.168.7.1:30053"];
        let moved = stale(&[a, b], &[b, c]);
        for front in fronts {
            assert!(moved.holds(end(front), end(a)), "its endpoint is gone");
            assert!(!moved.holds(end(front), end(b)), "its endpoint is still there");
            assert!(moved.holds(end(front), end(front)), "it began before there was any");
        }
        assert!(!moved.holds(end("10.96.0.6:53"), end(a)), "somebody else's");
        assert_eq!(stale(&[a, b], &[a, b]), Stale::default());
        assert_eq!(stale(&[a, b], &[]), Stale::default(), "there is nothing better");
        assert!(stale(&[], &[a]).holds(end(fronts[0]), end(fronts[0])));
    }
}
