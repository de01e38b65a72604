//! Endpoints once said by labels where they are; today's version of EndpointSlice has a field for the node, and takes no such labels
//! (upstream: `dropTopologyOnV1`).

use std::collections::HashSet;

use serde_json::Value;

use crate::access::{Get, entries, remove, same, set};

const LABELS: &str = "deprecatedTopology";
const HOSTNAME: &str = "kubernetes.io/hostname";

fn node(endpoint: &Value) -> Option<&str> {
    endpoint.fields(LABELS)?.get(HOSTNAME)?.as_str().filter(|name| !name.is_empty())
}

/// Drops the labels of endpoints that are new or changed; a node that was told by label before is told by its field.
pub(super) fn drop_labels(new: &mut Value, old: &Value) {
    if !old.is_null() && same(new.at("endpoints"), old.at("endpoints")) {
        return;
    }
    let known: HashSet<&str> = old.items("endpoints").iter().filter_map(node).collect();
    for endpoint in entries(new, "endpoints") {
        let told = node(endpoint).filter(|name| known.contains(name)).map(str::to_owned);
        if let Some(name) = told.filter(|_| !endpoint.has("nodeName")) {
            set(endpoint, "nodeName", name);
        }
        remove(endpoint, LABELS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_endpoint_must_not_be_placed_by_labels_nor_lose_its_node_with_them() {
        let slice = |endpoint: Value| json!({"endpoints": [endpoint]});
        let labelled = |address: &str| json!({"addresses": [address], LABELS: {HOSTNAME: "n1"}});
        let mut created = slice(labelled("10.0.0.1"));
        drop_labels(&mut created, &Value::Null);
        assert_eq!(created, slice(json!({"addresses": ["10.0.0.1"]})));
        let old = slice(labelled("10.0.0.1"));
        let mut same = old.clone();
        drop_labels(&mut same, &old);
        assert_eq!(same, old, "endpoints that did not change");
        let mut moved = slice(labelled("10.0.0.2"));
        drop_labels(&mut moved, &old);
        assert_eq!(moved, slice(json!({"addresses": ["10.0.0.2"], "nodeName": "n1"})));
    }
}
