//! PodTopologyLabels: a pod carries the zone and region of the node it is put on.
//! Upstream: `plugin/pkg/admission/podtopologylabels`.

use super::{Attributes, Operation, Verdict};
use crate::registry::Registry;
use crate::registry::kind::Kind;
use machinery::access::Get as _;
use machinery::object;
use machinery::status::Status;
use serde_json::Value;

const COPIED: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// Labels a new pod that names its node, and a Binding: the bound pod takes over the Binding's labels.
pub(super) fn copy<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if a.operation != Operation::Create {
            return Ok(());
        }
        let node = match &a.sent {
            Some(sent) if sent.kind == "Binding" => bound_to(a.new_object()),
            None if a.is("", "pods", "") => a.new_object().text("spec.nodeName"),
            _ => return Ok(()),
        };
        if node.is_empty() {
            return Ok(());
        }
        if let (Some(node), Some(object)) = (find(registry, node).await?, &mut a.object) {
            label(object, &node);
        }
        Ok(())
    })
}

/// The node a Binding names; nothing where its target is not said to be one.
fn bound_to(binding: &Value) -> &str {
    if binding.text("target.kind") == "Node" { binding.text("target.name") } else { "" }
}

async fn find(registry: &Registry, node: &str) -> Result<Option<Value>, Status> {
    let Some(nodes) = Kind::of("", "nodes") else { return Ok(None) };
    registry.lookup(&nodes, "", node).await
}

/// Overwrites what the object says of its place.
fn label(object: &mut Value, node: &Value) {
    for key in COPIED {
        if let Some(value) = object::label(node, key) {
            object::set_label(object, key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_must_not_keep_a_zone_its_node_is_not_in() {
        let node = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "b", "kubernetes.io/hostname": "n"}}});
        let mut pod = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "a", "app": "x"}}});
        label(&mut pod, &node);
        assert_eq!(pod["metadata"]["labels"], json!({"topology.kubernetes.io/zone": "b", "app": "x"}));
    }

    #[test]
    fn a_binding_to_something_that_is_not_called_a_node_must_not_be_labelled() {
        assert_eq!(bound_to(&json!({"target": {"kind": "Node", "name": "n"}})), "n");
        assert_eq!(bound_to(&json!({"target": {"name": "n"}})), "");
    }
}
