//! What a kubelet may do: its own node, lease and CSINode, the pods bound to it, and what these pods refer to.
//! Upstream: `plugin/pkg/auth/authorizer/node/node_authorizer.go`.

use super::graph::{Graph, Vertex};
use super::rbac::{PolicyRule, rule_allows};
use super::{Attributes, Authorizer, Decision, Rules, bootstrap};
use crate::context::User;
use machinery::goformat::go_quote;
use std::sync::Arc;

const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The name of the node a user is; `Some("")` for a member of `system:nodes` that names none.
#[must_use]
pub fn identity(user: &User) -> Option<&str> {
    pki::node::of_user(&user.name, &user.groups)
}

pub struct Node {
    graph: Arc<Graph>,
    rules: Vec<PolicyRule>,
}

type Verdict = Result<(), String>;

fn refuse(reason: impl Into<String>) -> Verdict {
    Err(reason.into())
}

impl Node {
    /// Decides by `graph`, and by the rules of the bootstrap role `system:node`.
    #[must_use]
    pub fn new(graph: Arc<Graph>) -> Self {
        Node { graph, rules: bootstrap::rules("system:node") }
    }

    fn decide(&self, node: &str, a: &Attributes) -> Verdict {
        if a.is_resource {
            match (a.group.as_str(), a.resource.as_str()) {
                ("", "secrets") => return self.read(node, Vertex::Secret, a),
                ("", "configmaps") => return self.read(node, Vertex::ConfigMap, a),
                ("", "persistentvolumeclaims") if a.subresource == "status" => {
                    return self.claim_status(node, a);
                }
                ("", "persistentvolumeclaims") => return self.get(node, Vertex::VolumeClaim, a),
                ("", "persistentvolumes") => return self.get(node, Vertex::Volume, a),
                ("resource.k8s.io", "resourceclaims") => return self.get(node, Vertex::ResourceClaim, a),
                ("storage.k8s.io", "volumeattachments") => {
                    return self.get(node, Vertex::VolumeAttachment, a);
                }
                ("", "serviceaccounts") => return self.service_account(node, a),
                ("coordination.k8s.io", "leases") => return lease(node, a),
                ("storage.k8s.io", "csinodes") => return csi_node(node, a),
                ("resource.k8s.io", "resourceslices") => return self.slice(node, a),
                ("", "nodes") => return own_node(node, a),
                ("", "pods") => return self.pod(node, a),
                _ => {}
            }
        }
        if self.rules.iter().any(|r| rule_allows(r, a)) { Ok(()) } else { refuse("") }
    }

    fn related(&self, node: &str, kind: Vertex, a: &Attributes) -> Verdict {
        if a.name.is_empty() {
            return refuse("No Object name found");
        }
        let namespace = match kind {
            Vertex::Volume | Vertex::VolumeAttachment | Vertex::ResourceSlice => "",
            _ => &a.namespace,
        };
        if self.graph.related(node, kind, namespace, &a.name) {
            return Ok(());
        }
        refuse(format!("no relationship found between node '{node}' and this object"))
    }

    fn get(&self, node: &str, kind: Vertex, a: &Attributes) -> Verdict {
        if a.verb != "get" {
            return refuse("can only get individual resources of this type");
        }
        if !a.subresource.is_empty() {
            return refuse("cannot get subresource");
        }
        self.related(node, kind, a)
    }

    fn read(&self, node: &str, kind: Vertex, a: &Attributes) -> Verdict {
        if !matches!(a.verb.as_str(), "get" | "list" | "watch") {
            return refuse("can only read resources of this type");
        }
        if !a.subresource.is_empty() {
            return refuse("cannot read subresource");
        }
        if a.namespace.is_empty() {
            return refuse("can only read namespaced object of this type");
        }
        self.related(node, kind, a)
    }

    fn claim_status(&self, node: &str, a: &Attributes) -> Verdict {
        if !matches!(a.verb.as_str(), "update" | "patch") {
            return refuse("can only get/update/patch this type");
        }
        self.related(node, Vertex::VolumeClaim, a)
    }

    /// Tokens for the accounts of its pods; and reading such an account, for image credential providers.
    fn service_account(&self, node: &str, a: &Attributes) -> Verdict {
        if a.verb == "get" && a.subresource.is_empty() {
            return self.read(node, Vertex::ServiceAccount, a);
        }
        if a.verb != "create" || a.name.is_empty() {
            return refuse("can only create tokens for individual service accounts");
        }
        if a.subresource != "token" {
            return refuse("can only create token subresource of serviceaccount");
        }
        self.related(node, Vertex::ServiceAccount, a)
    }

    fn slice(&self, node: &str, a: &Attributes) -> Verdict {
        if !a.subresource.is_empty() {
            return refuse("cannot authorize ResourceSlice subresources");
        }
        match a.verb.as_str() {
            // Whose slice it is can only be seen in its content: admission checks it.
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(node, Vertex::ResourceSlice, a),
            "watch" | "list" | "deletecollection" if selects(a, "spec.nodeName", node) => Ok(()),
            "watch" | "list" | "deletecollection" => {
                refuse("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => refuse(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, \
                 delete, deletecollection",
            ),
        }
    }

    fn pod(&self, node: &str, a: &Attributes) -> Verdict {
        match (a.subresource.as_str(), a.verb.as_str()) {
            ("", "get") => self.get(node, Vertex::Pod, a),
            ("", "list" | "watch") if selects(a, "spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") if !a.name.is_empty() => self.related(node, Vertex::Pod, a),
            ("", "list" | "watch") => refuse("can only list/watch pods with spec.nodeName field selector"),
            // Which pods those may be, admission decides.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => refuse(""),
        }
    }
}

fn selects(a: &Attributes, field: &str, node: &str) -> bool {
    a.fields.required(field) == Some(node)
}

fn lease(node: &str, a: &Attributes) -> Verdict {
    if !matches!(a.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a node lease");
    }
    if a.namespace != LEASE_NAMESPACE {
        return refuse(format!(
            "can only access leases in the {} system namespace",
            go_quote(LEASE_NAMESPACE)
        ));
    }
    // A create carries its name in the body: admission checks it.
    if a.verb != "create" && a.name != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn csi_node(node: &str, a: &Attributes) -> Verdict {
    if !matches!(a.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a CSINode");
    }
    if !a.subresource.is_empty() {
        return refuse("cannot authorize CSINode subresources");
    }
    if a.verb != "create" && a.name != node {
        return refuse("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

fn own_node(node: &str, a: &Attributes) -> Verdict {
    match (a.subresource.as_str(), a.verb.as_str()) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") if a.name == node => Ok(()),
        ("", "get" | "list" | "watch") if a.name.is_empty() => {
            refuse(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            refuse(format!("node '{node}' cannot read '{}', only its own Node object", a.name))
        }
        _ => refuse(""),
    }
}

impl Authorizer for Node {
    fn authorize(&self, a: &Attributes) -> Decision {
        match identity(&a.user) {
            None => Decision::no_opinion(""),
            Some("") => Decision::no_opinion(format!("unknown node for user {}", go_quote(&a.user.name))),
            Some(node) => match self.decide(node, a) {
                Ok(()) => Decision::allow(""),
                Err(reason) => Decision::no_opinion(reason),
            },
        }
    }

    fn rules_for(&self, user: &User, _namespace: &str) -> Rules {
        match identity(user) {
            None => Rules::default(),
            Some(_) => Rules {
                incomplete: true,
                errors: vec!["node authorizer does not support user rule resolution".into()],
                ..Rules::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Observer;
    use serde_json::json;

    fn node() -> Node {
        let graph = Graph::default();
        graph.put("", "pods", &json!({
            "metadata": {"namespace": "a", "name": "p"},
            "spec": {"nodeName": "n1", "serviceAccountName": "sa", "volumes": [{"secret": {"secretName": "s"}}]},
        }));
        Node::new(Arc::new(graph))
    }

    fn decide(request: &str) -> Decision {
        let (verb, url) = request.split_once(' ').unwrap();
        let (path, q) = url.split_once('?').unwrap_or((url, ""));
        let query = crate::query::parse(q);
        let mut info = crate::request::parse(&http::Method::GET, path, &query).unwrap();
        info.verb = verb.into();
        let user =
            User { name: "system:node:n1".into(), groups: vec![pki::node::GROUP.into()], ..User::default() };
        node().authorize(&Attributes::of(&info, &user, &query))
    }

    #[test]
    fn a_kubelet_may_do_its_work() {
        for request in [
            "get /api/v1/namespaces/a/secrets/s",
            "watch /api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Ds",
            "create /api/v1/namespaces/a/serviceaccounts/sa/token",
            "get /api/v1/namespaces/a/pods/p",
            "watch /api/v1/pods?fieldSelector=spec.nodeName%3Dn1",
            "patch /api/v1/namespaces/a/pods/p/status",
            "create /api/v1/nodes",
            "get /api/v1/nodes/n1",
            "watch /api/v1/nodes?fieldSelector=metadata.name%3Dn1",
            "patch /api/v1/nodes/n1/status",
            "create /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
            "update /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1",
            "list /api/v1/services",
            "create /api/v1/namespaces/a/events",
            "create /apis/authentication.k8s.io/v1/tokenreviews",
            "list /apis/node.k8s.io/v1/runtimeclasses",
            "create /apis/events.k8s.io/v1/namespaces/a/events",
            "deletecollection /apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName%3Dn1",
        ] {
            assert!(decide(request).allowed(), "{request}: {:?}", decide(request));
        }
    }

    #[test]
    fn a_kubelet_may_do_nothing_else() {
        let unrelated = "no relationship found between node 'n1' and this object";
        for (request, reason) in [
            ("get /api/v1/namespaces/a/secrets/other", unrelated),
            ("list /api/v1/namespaces/a/secrets", "No Object name found"),
            ("list /api/v1/secrets", "can only read namespaced object of this type"),
            ("delete /api/v1/namespaces/a/secrets/s", "can only read resources of this type"),
            ("create /api/v1/namespaces/a/serviceaccounts/other/token", unrelated),
            ("list /api/v1/pods", "can only list/watch pods with spec.nodeName field selector"),
            ("get /api/v1/nodes/n2", "node 'n1' cannot read 'n2', only its own Node object"),
            ("list /api/v1/nodes", "node 'n1' cannot read all nodes, only its own Node object"),
            (
                "get /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2",
                "can only access node lease with the same name as the requesting node",
            ),
            (
                "get /apis/coordination.k8s.io/v1/namespaces/x/leases/n1",
                "can only access leases in the \"kube-node-lease\" system namespace",
            ),
            (
                "list /apis/resource.k8s.io/v1/resourceslices?fieldSelector=nodeName%3Dn1",
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            ("delete /apis/apps/v1/namespaces/a/deployments/d", ""),
            // what is its proxy's, its DNS's and its network's business is not its own
            ("list /apis/discovery.k8s.io/v1/endpointslices", ""),
            ("watch /api/v1/endpoints", ""),
            ("list /api/v1/namespaces", ""),
            ("list /apis/networking.k8s.io/v1/servicecidrs", ""),
            ("create /apis/certificates.k8s.io/v1beta1/namespaces/a/podcertificaterequests", ""),
        ] {
            assert_eq!(decide(request), Decision::no_opinion(reason), "{request}");
        }
    }

    #[test]
    fn others_are_no_business_of_ours() {
        let user = User { name: "system:node:n1".into(), ..User::default() };
        assert_eq!(identity(&user), None);
        let nameless = User {
            name: pki::node::USER_PREFIX.into(),
            groups: vec![pki::node::GROUP.into()],
            ..User::default()
        };
        let a = Attributes { user: nameless, ..Attributes::default() };
        assert_eq!(node().authorize(&a).reason, "unknown node for user \"system:node:\"");
    }
}
