//! The strategic merge patch that turns one node status into another. Pure.
//!
//! Only fields that differ are sent, so that writers of other fields are not overwritten. Addresses are replaced whole:
//! their merge key is the type, and a dual-stack node has two of one type.

use k8s_openapi::api::core::v1::NodeStatus;
use serde_json::{Map, Value, json};

/// The patch for the `status` subresource, or `None` when nothing differs.
pub fn status_patch(old: &NodeStatus, new: &NodeStatus) -> Result<Option<Value>, serde_json::Error> {
    let (old, new) = (fields(old)?, fields(new)?);
    let mut changed = Map::new();
    for (name, value) in &new {
        let before = old.get(name);
        if before == Some(value) {
            continue;
        }
        let value = match (name.as_str(), value, before) {
            ("addresses", Value::Array(list), _) => {
                Value::Array(list.iter().cloned().chain([json!({"$patch": "replace"})]).collect())
            }
            ("conditions", Value::Array(list), Some(Value::Array(before))) => {
                Value::Array(list.iter().filter(|c| !before.contains(c)).cloned().collect())
            }
            ("capacity" | "allocatable", Value::Object(map), Some(Value::Object(before))) => {
                Value::Object(map_changes(before, map))
            }
            _ => value.clone(),
        };
        changed.insert(name.clone(), value);
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        changed.insert(name.clone(), Value::Null);
    }
    Ok((!changed.is_empty()).then(|| json!({ "status": changed })))
}

fn fields(status: &NodeStatus) -> Result<Map<String, Value>, serde_json::Error> {
    match serde_json::to_value(status)? {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}

fn map_changes(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let set = new.iter().filter(|(k, v)| old.get(*k) != Some(v)).map(|(k, v)| (k.clone(), v.clone()));
    let gone = old.keys().filter(|k| !new.contains_key(*k)).map(|k| (k.clone(), Value::Null));
    set.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: Value) -> NodeStatus {
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn only_what_differs_is_sent() {
        let old = status(json!({
            "capacity": {"cpu": "2", "hugepages-2Mi": "0"},
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "False"}],
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
            "volumesInUse": ["a"],
            "phase": "x"
        }));
        let new = status(json!({
            "capacity": {"cpu": "4"},
            "conditions": [{"type": "Ready", "status": "False"}, {"type": "NetworkUnavailable", "status": "False"}],
            "addresses": [{"type": "InternalIP", "address": "192.0.2.2"}],
            "phase": "x"
        }));
        assert_eq!(
            status_patch(&old, &new).unwrap().unwrap(),
            json!({"status": {
                "capacity": {"cpu": "4", "hugepages-2Mi": null},
                "conditions": [{"type": "Ready", "status": "False"}],
                "addresses": [{"type": "InternalIP", "address": "192.0.2.2"}, {"$patch": "replace"}],
                "volumesInUse": null
            }})
        );
        assert_eq!(status_patch(&new, &new).unwrap(), None);
    }
}
