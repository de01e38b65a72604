//! The condition NetworkUnavailable of the node's own Node: true while it reaches no other node's pods because an overlay cannot be made, so that
//! pods are scheduled elsewhere. A node that reaches some is left in service: events tell of the others.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NodeCondition;
use serde_json::{Value, json};

use crate::{plan::Desired, problem::Problem};

const KIND: &str = "NetworkUnavailable";
const REASON: &str = "NoPodNetworkOverlay";

/// Why no other node's pods are reached; `None`: some are, or it is not for want of an overlay.
pub(crate) fn unavailable(desired: &Desired) -> Option<String> {
    let of_overlay =
        |problem: &&Problem| matches!(problem, Problem::NoOverlay { .. } | Problem::NameTaken { .. });
    let first = desired.problems.iter().find(of_overlay)?;
    desired.routes.is_empty().then(|| first.to_string())
}

/// Whether it says that the network is unavailable, and we said so.
pub(crate) fn is_ours(condition: &NodeCondition) -> bool {
    condition.type_ == KIND && condition.status == "True" && condition.reason.as_deref() == Some(REASON)
}

/// A strategic merge patch of the Node's status.
pub(crate) fn patch(why: Option<&str>, now: Timestamp) -> Value {
    let (status, reason, message) = match why {
        Some(why) => ("True", REASON, why),
        None => ("False", "PodNetworkReady", "other nodes' pods are reached"),
    };
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({ "status": { "conditions": [{
        "type": KIND,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }] } })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        overlay::Device,
        plan::{
            Out, PodRoute,
            tests::{ip, net},
        },
    };

    fn without_overlay() -> Desired {
        let problem = Problem::NoOverlay {
            node: "far".into(),
            cidr: net("10.244.1.0/24"),
            device: Device::Vxlan4,
            why: "Unknown device type".into(),
        };
        Desired { problems: BTreeSet::from([problem]), ..Desired::default() }
    }

    #[test]
    fn a_node_that_reaches_some_must_stay_in_service() {
        let mut desired = without_overlay();
        assert!(unavailable(&desired).is_some_and(|why| why.ends_with("Unknown device type")));
        let dst = net("10.244.2.0/24");
        desired.routes.insert(dst, PodRoute { dst, via: ip("192.0.2.2"), out: Out::Link(2) });
        assert_eq!(unavailable(&desired), None);
        assert_eq!(unavailable(&Desired::default()), None, "a cluster of one node");
    }

    #[test]
    fn what_is_said_is_known_again_and_anothers_is_not_ours() {
        let said = |why| -> NodeCondition {
            let patch = patch(why, Timestamp::UNIX_EPOCH);
            serde_json::from_value(patch["status"]["conditions"][0].clone()).unwrap()
        };
        assert!(is_ours(&said(Some("no overlay"))));
        assert!(!is_ours(&said(None)));
        assert!(!is_ours(&NodeCondition { reason: Some("NoRouteCreated".into()), ..said(Some("x")) }));
    }
}
