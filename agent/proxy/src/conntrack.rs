//! Forgetting flows whose translation no longer holds. A UDP flow has no end the kernel could see: while its client goes on sending,
//! the flow's old entry would carry it to an endpoint that is gone, or keep it from one that has come (upstream: `pkg/proxy/conntrack`).

use crate::element::{Difference, Element, Key, Set, Value};
use crate::model::{Endpoint, Front};
use crate::service::Protocol;
use netlink::conntrack::{self, Flow, UDP};
use netlink::{Error, Kernel, Protocol as Netlink};
use std::collections::BTreeSet;

/// Which UDP flows to forget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// Flows to a front that were translated to this endpoint.
    translated: BTreeSet<(Front, Endpoint)>,
    /// Flows to a front that were not translated: it had no endpoint, now it has.
    untranslated: BTreeSet<Front>,
}

impl Stale {
    /// What a difference makes stale.
    #[must_use]
    pub fn of(difference: &Difference) -> Self {
        let mut stale = Self::default();
        let slots = |list: &[Element]| -> BTreeSet<(Front, Endpoint)> {
            let pairs = list.iter().filter_map(|e| match (&e.key, &e.value) {
                (Key::Slot(front, _), Value::Endpoint(endpoint)) if front.port().0 == Protocol::Udp => {
                    Some((*front, *endpoint))
                }
                _ => None,
            });
            pairs.collect()
        };
        let fronts = |list: &[Element]| -> BTreeSet<Front> {
            let keys = list
                .iter()
                .filter(|e| matches!(e.set, Set::Services | Set::NodePorts | Set::Inside | Set::InsidePorts))
                .filter_map(|e| match e.key {
                    Key::Front(front) if front.port().0 == Protocol::Udp => Some(front),
                    _ => None,
                });
            keys.collect()
        };
        // an endpoint that only changed its slot is in both lists
        let added = slots(&difference.add);
        stale.translated =
            slots(&difference.delete).into_iter().filter(|pair| !added.contains(pair)).collect();
        let before = fronts(&difference.delete);
        stale.untranslated =
            fronts(&difference.add).into_iter().filter(|front| !before.contains(front)).collect();
        stale
    }

    fn is_empty(&self) -> bool {
        self.translated.is_empty() && self.untranslated.is_empty()
    }

    fn matches(&self, flow: &Flow) -> bool {
        if flow.protocol != UDP {
            return false;
        }
        let (to, port) = flow.destination;
        let fronts =
            [Front::Address(to, Protocol::Udp, port), Front::NodePort(to.is_ipv6(), Protocol::Udp, port)];
        if flow.destination == flow.answers_from {
            return fronts.iter().any(|front| self.untranslated.contains(front));
        }
        let endpoint = Endpoint { address: flow.answers_from.0, port: flow.answers_from.1 };
        fronts.iter().any(|front| self.translated.contains(&(*front, endpoint)))
    }
}

/// Deletes the entries a difference made stale. Costs nothing when no UDP front is touched.
///
/// # Errors
/// The kernel does not list or delete entries.
pub async fn forget(difference: &Difference) -> Result<usize, Error> {
    let stale = Stale::of(difference);
    if stale.is_empty() {
        return Ok(0);
    }
    let forget = move |socket: &mut netlink::Socket| conntrack::forget(socket, |flow| stale.matches(flow));
    Kernel::of(Netlink::Netfilter).call(forget).await
}
