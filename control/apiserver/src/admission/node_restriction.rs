//! NodeRestriction: a kubelet writes its own node, its own pods, and little else.
//! Upstream: `plugin/pkg/admission/noderestriction/admission.go`.
//!
//! [`pods`]: mirror pods, statuses, evictions; [`nodes`]: the Node object; [`tokens`]: tokens of its pods' accounts.

mod nodes;
mod pods;
mod tokens;

use super::{Attributes, Operation, Seen, Verdict};
use crate::authz::node::identity;
use crate::registry::Registry;
use base64::Engine as _;
use machinery::access::{Get as _, remove_at};
use machinery::goformat::go_quote;
use machinery::object;
use machinery::status::Status;
use serde_json::{Map, Value};

const LEASES: &str = "kube-node-lease";
/// Signers whose certificates make a kubelet.
const KUBELET_SIGNERS: [&str; 2] =
    ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

pub(super) fn check<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        // What the server does itself to carry out a request is part of what was judged when it was sent.
        if a.operation == Operation::Connect || matches!(a.seen, Seen::Already) {
            return Ok(());
        }
        let Some(node) = identity(a.user) else { return Ok(()) };
        if node.is_empty() {
            return Err(a.forbidden(format!("could not determine node from user {}", go_quote(&a.user.name))));
        }
        match (a.kind.resource.group, a.kind.resource.plural, a.subresource) {
            ("", "pods", "") => pods::pod(registry, a, node).await,
            ("", "pods", "status") => pods::status(a, node),
            ("", "pods", "eviction") => pods::eviction(registry, a, node).await,
            ("", "pods", sub) => Err(a.forbidden(format!(
                "unexpected pod subresource {}, only 'status' and 'eviction' are allowed",
                go_quote(sub)
            ))),
            ("", "nodes", _) => nodes::own(a, node),
            ("", "persistentvolumeclaims", "status") => claim_status(a, node),
            ("", "persistentvolumeclaims", _) => Err(a.forbidden("may only update PVC status")),
            ("", "serviceaccounts", "token") if a.operation == Operation::Create => {
                tokens::requested(registry, a, node).await
            }
            ("coordination.k8s.io", "leases", _) => lease(a, node),
            ("storage.k8s.io", "csinodes", _) if a.name != node => {
                Err(a.forbidden("can only access CSINode with the same name as the requesting node"))
            }
            ("resource.k8s.io", "resourceslices", _) => slice(a, node),
            ("certificates.k8s.io", "certificatesigningrequests", _) => signing_request(a, node),
            _ => Ok(()),
        }
    })
}

fn unexpected(a: &Attributes<'_>) -> Status {
    a.forbidden(format!("unexpected operation {}", go_quote(a.operation.text())))
}

/// What a kubelet reports of a claim whose volume it makes larger.
const CLAIM_STATUS: [&str; 4] = ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"];

fn claim_status(a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    if a.operation != Operation::Update {
        return Err(unexpected(a));
    }
    let rest = |claim: &Value| {
        let mut rest = claim.clone();
        for field in ["resourceVersion", "managedFields"] {
            remove_at(&mut rest, &format!("metadata.{field}"));
        }
        for field in CLAIM_STATUS {
            remove_at(&mut rest, &format!("status.{field}"));
        }
        if rest.present("status").and_then(Value::as_object).is_some_and(Map::is_empty) {
            remove_at(&mut rest, "status");
        }
        rest
    };
    if rest(a.old_object()) != rest(a.new_object()) {
        return Err(a.forbidden(format!(
            "node {} is not allowed to update fields other than status.quantity and status.conditions",
            go_quote(node)
        )));
    }
    Ok(())
}

fn lease(a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    if a.namespace != LEASES {
        let only = format!("can only access leases in the {} system namespace", go_quote(LEASES));
        return Err(a.forbidden(only));
    }
    if a.name != node {
        return Err(a.forbidden("can only access node lease with the same name as the requesting node"));
    }
    Ok(())
}

/// Updates are the authorizer's business, which knows whose the slice is.
fn slice(a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let (slice, doing) = match a.operation {
        Operation::Create => (a.new_object(), "create"),
        Operation::Delete => (a.old_object(), "delete"),
        _ => return Ok(()),
    };
    if slice.text("spec.nodeName") == node {
        return Ok(());
    }
    Err(a.forbidden(format!("can only {doing} ResourceSlice with the same NodeName as the requesting node")))
}

/// A node asks for certificates of its own name only; the rest is its signer's to check.
fn signing_request(a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let request = a.new_object();
    if a.operation != Operation::Create || !KUBELET_SIGNERS.contains(&request.text("spec.signerName")) {
        return Ok(());
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(request.text("spec.request"));
    let pem = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let Some(parsed) = pem.and_then(|pem| pki::CertificateRequest::from_pem(&pem).ok()) else {
        return Err(a.forbidden("unable to parse csr: PEM block type must be CERTIFICATE REQUEST"));
    };
    let user = pki::node::user(node);
    if parsed.common_name != user {
        return Err(a.forbidden(format!("can only create a node CSR with CN={user}")));
    }
    Ok(())
}

/// Owner references as they are compared: none are as good as an empty list.
fn owners(object: &Value) -> &[Value] {
    object::owner_references(object)
}
