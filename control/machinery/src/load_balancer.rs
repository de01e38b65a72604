//! LoadBalancer Services of the built-in provider: the words that users, its controller and its agents share, and which nodes take part.

/// The `loadBalancerClass` of Services that are the built-in provider's, as those without a class are.
pub const CLASS: &str = "windlass.dev/load-balancer";
/// Annotation of users: the pool the addresses come from.
pub const POOL: &str = "windlass.dev/load-balancer-pool";
/// Annotation of users: the addresses, separated by commas; goes before `spec.loadBalancerIP`, which can say one only.
pub const ADDRESSES: &str = "windlass.dev/load-balancer-ips";
/// Annotation of users: Services with the same value may have one address together, as long as no port is wanted twice.
pub const SHARING: &str = "windlass.dev/load-balancer-sharing-key";
/// Annotation of the controller: the addresses in the status are its own, and what is to be done about them ([`ANNOUNCED`] or [`NODES`]).
pub const MODE: &str = "windlass.dev/load-balancer-mode";
/// One node answers for each of the addresses.
pub const ANNOUNCED: &str = "announced";
/// The addresses are nodes' own.
pub const NODES: &str = "nodes";
/// Upstream's finalizer (`k8s.io/cloud-provider/service/helpers`).
pub const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
/// Label of a node that no load balancer sends to, whatever its value.
pub const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Taint of a node that is about to go.
pub const LEAVING: &str = "ToBeDeletedByClusterAutoscaler";

/// Whether a Service of type LoadBalancer with this class is the built-in provider's.
#[must_use]
pub fn is_ours(class: Option<&str>) -> bool {
    class.is_none_or(|class| class == CLASS)
}

/// Whether traffic from outside may come by a node: it is ready and stays, and nobody took it out. Upstream: the predicates of the
/// service controller (`k8s.io/cloud-provider/controllers/service`).
#[must_use]
pub fn takes_traffic<'a>(
    (ready, deleting): (bool, bool),
    labels: impl IntoIterator<Item = &'a str>,
    taints: impl IntoIterator<Item = &'a str>,
) -> bool {
    ready
        && !deleting
        && labels.into_iter().all(|label| label != EXCLUDED)
        && taints.into_iter().all(|taint| taint != LEAVING)
}

/// Whether an endpoint with these conditions takes connections: it is ready, or serves while it terminates. What is not said is as upstream reads it.
#[must_use]
pub fn takes_connections(ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>) -> bool {
    ready.unwrap_or(true) || (serving.unwrap_or(true) && terminating.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_is_not_ready_must_not_take_connections_unless_it_serves_to_its_end() {
        assert!(takes_connections(None, None, None) && takes_connections(Some(true), Some(false), None));
        assert!(
            takes_connections(Some(false), Some(true), Some(true))
                && takes_connections(Some(false), None, Some(true))
        );
        assert!(
            !takes_connections(Some(false), None, None)
                && !takes_connections(Some(false), Some(false), Some(true))
        );
    }

    #[test]
    fn services_of_another_class_must_not_be_taken() {
        assert!(is_ours(None) && is_ours(Some(CLASS)));
        assert!(!is_ours(Some("")) && !is_ours(Some("example.com/lb")));
    }

    #[test]
    fn a_node_that_is_silent_or_on_its_way_out_must_not_get_traffic() {
        assert!(takes_traffic((true, false), ["a"], ["b"]));
        assert!(!takes_traffic((false, false), [], []));
        assert!(!takes_traffic((true, true), [], []));
        assert!(!takes_traffic((true, false), ["a", EXCLUDED], []));
        assert!(!takes_traffic((true, false), [], [LEAVING]));
    }
}
