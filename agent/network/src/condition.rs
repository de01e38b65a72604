//! The condition NetworkUnavailable of the node's own Node: true while it reaches no other node's pods because an overlay cannot be made, so that
//! pods are scheduled elsewhere. A node that reaches some is left in service: events tell of the others.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NodeCondition;
use serde_json::{Value, json};

use crate::problem::Problem;

const KIND: &str = "NetworkUnavailable";
const REASON: &str = "NoPodNetworkOverlay";

/// Why no other node's pods are reached, by what cannot be; `None`: some are, or it is not for want of an overlay.
pub(crate) fn unavailable(problems: &BTreeSet<Problem>, reaches_some: bool) -> Option<String> {
    let of_overlay =
        |problem: &&Problem| matches!(problem, Problem::NoOverlay { .. } | Problem::NameTaken { .. });
    let first = problems.iter().find(of_overlay)?;
    (!reaches_some).then(|| first.to_string())
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
    use super::*;
    use crate::overlay::Device;

    #[test]
    fn a_node_that_reaches_some_must_stay_in_service() {
        let problem = Problem::NoOverlay {
            node: "far".into(),
            cidr: "10.244.1.0/24".parse().unwrap(),
            device: Device::Vxlan4,
            why: "Unknown device type".into(),
        };
        let problems = BTreeSet::from([problem]);
        assert!(unavailable(&problems, false).is_some_and(|why| why.ends_with("Unknown device type")));
        assert_eq!(unavailable(&problems, true), None);
        assert_eq!(unavailable(&BTreeSet::new(), false), None, "a cluster of one node");
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
