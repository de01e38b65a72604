//! Claims of devices: what drivers said of a device goes with it (upstream: `dropDeallocatedStatusDevices`).

use std::collections::HashSet;

use serde_json::Value;

use crate::access::{Get, existing, remove};

/// Driver, pool, device and share.
fn id(device: &Value) -> [String; 4] {
    ["driver", "pool", "device", "shareID"].map(|part| device.text(part).to_owned())
}

fn given(claim: &Value) -> HashSet<[String; 4]> {
    claim.items("status.allocation.devices.results").iter().map(id).collect()
}

/// Takes out of a claim's status the devices it was given and has no more.
pub(super) fn drop_deallocated(new: &mut Value, old: &Value) {
    let (before, now) = (given(old), given(new));
    let Some(status) = existing(new, "status") else { return };
    let Some(devices) = status.get_mut("devices").and_then(Value::as_array_mut) else { return };
    devices.retain(|device| !before.contains(&id(device)) || now.contains(&id(device)));
    if devices.is_empty() {
        remove(status, "devices");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_device_that_was_given_back_must_not_be_spoken_of() {
        let device = |name: &str| json!({"driver": "d", "pool": "p", "device": name});
        let claim = |given: Value, told: Value| json!({"status": {"allocation": {"devices": {"results": given}}, "devices": told}});
        let old = claim(json!([device("a"), device("b")]), json!([]));
        let mut new = claim(json!([device("b")]), json!([device("a"), device("b"), device("stranger")]));
        drop_deallocated(&mut new, &old);
        let left = json!([device("b"), device("stranger")]);
        assert_eq!(new["status"]["devices"], left, "validation refuses the stranger");
        let mut back = json!({"status": {"devices": [device("a")]}});
        drop_deallocated(&mut back, &old);
        assert_eq!(back, json!({"status": {}}));
    }
}
