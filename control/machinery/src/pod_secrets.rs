//! Which secrets of its own namespace a pod names. Pure. Upstream: `VisitPodSecretNames` of `pkg/api/v1/pod`.

use crate::access::Get as _;
use serde_json::Value;

/// Where a pod's volume names a secret.
const IN_VOLUMES: [&str; 10] = [
    "secret.secretName",
    "azureFile.secretName",
    "cephfs.secretRef.name",
    "cinder.secretRef.name",
    "flexVolume.secretRef.name",
    "rbd.secretRef.name",
    "scaleIO.secretRef.name",
    "iscsi.secretRef.name",
    "storageos.secretRef.name",
    "csi.nodePublishSecretRef.name",
];

/// The secrets' names; one that is named twice is there twice.
#[must_use]
pub fn named(pod: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    names.extend(pod.items("spec.imagePullSecrets").iter().map(|secret| secret.text("name")));
    for containers in ["spec.containers", "spec.initContainers", "spec.ephemeralContainers"] {
        for container in pod.items(containers) {
            names.extend(container.items("envFrom").iter().map(|source| source.text("secretRef.name")));
            let variables = container.items("env").iter();
            names.extend(variables.map(|variable| variable.text("valueFrom.secretKeyRef.name")));
        }
    }
    for volume in pod.items("spec.volumes") {
        names.extend(IN_VOLUMES.iter().map(|path| volume.text(path)));
        let projected = volume.items("projected.sources").iter();
        names.extend(projected.map(|source| source.text("secret.name")));
    }
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_secret_is_found_wherever_a_pod_names_it() {
        let container = |name: &str| {
            json!({"envFrom": [{"secretRef": {"name": format!("{name}-all")}}, {"configMapRef": {"name": "map"}}],
                "env": [{"name": "A", "value": "v"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": format!("{name}-one")}}}]})
        };
        let mut volumes: Vec<Value> = IN_VOLUMES
            .iter()
            .enumerate()
            .map(|(index, path)| {
                let name = json!(format!("volume-{index}"));
                path.rsplit('.').fold(name, |value, part| json!({part: value}))
            })
            .collect();
        volumes.push(json!({"projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "map"}}]}}));
        volumes.push(json!({"configMap": {"name": "map"}}));
        let pod = json!({"spec": {"imagePullSecrets": [{"name": "pull"}, {}], "containers": [container("c")],
            "initContainers": [container("i")], "ephemeralContainers": [container("e")], "volumes": volumes}});
        let mut expected: Vec<String> =
            ["pull", "c-all", "c-one", "i-all", "i-one", "e-all", "e-one"].map(str::to_owned).into();
        expected.extend((0..IN_VOLUMES.len()).map(|index| format!("volume-{index}")));
        expected.push("projected".to_owned());
        assert_eq!(named(&pod), expected);
        assert!(named(&json!({})).is_empty());
    }
}
