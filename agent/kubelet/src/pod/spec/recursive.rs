//! Mounts that are to be read-only with everything mounted below them. Upstream: `resolveRecursiveReadOnly`.

use k8s_openapi::api::core::v1::VolumeMount;

/// Whether a mount is made so; `supported`: the pod's runtime handler can.
///
/// # Errors
///
/// It is asked for, and cannot be had.
pub fn resolve(mount: &VolumeMount, supported: bool) -> Result<bool, String> {
    let mode = mount.recursive_read_only.as_deref().unwrap_or("Disabled");
    if mode == "Disabled" {
        return Ok(false);
    }
    let refused =
        |why: &str| format!("volume \"{}\" requested recursive read-only mode, but it is {why}", mount.name);
    if mount.read_only != Some(true) {
        return Err(refused("not read-only"));
    }
    if let Some(propagation) = mount.mount_propagation.as_deref().filter(|p| *p != "None") {
        return Err(refused(&format!("not compatible with propagation \"{propagation}\"")));
    }
    match mode {
        "IfPossible" => Ok(supported),
        "Enabled" if supported => Ok(true),
        "Enabled" => Err(refused("not supported by the runtime")),
        other => Err(format!("unknown recursive read-only mode \"{other}\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_mount_must_not_be_less_read_only_than_was_asked_in_silence() {
        let resolved = |mode: &str, propagation: &str, supported| {
            let mount = json!({"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": mode,
                "mountPropagation": propagation});
            resolve(&serde_json::from_value(mount).unwrap(), supported)
        };
        assert_eq!(resolved("Disabled", "None", true), Ok(false));
        assert_eq!(resolved("Enabled", "None", true), Ok(true));
        assert_eq!(resolved("IfPossible", "None", true), Ok(true));
        assert_eq!(resolved("IfPossible", "None", false), Ok(false));
        assert_eq!(
            resolved("Enabled", "None", false).unwrap_err(),
            "volume \"v\" requested recursive read-only mode, but it is not supported by the runtime"
        );
        assert_eq!(
            resolved("IfPossible", "HostToContainer", true).unwrap_err(),
            "volume \"v\" requested recursive read-only mode, but it is not compatible with propagation \
             \"HostToContainer\""
        );
    }
}
