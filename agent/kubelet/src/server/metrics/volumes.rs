//! What claims' volumes hold and have left, as monitors of storage look for it. Upstream: `volumeStatsCollector`.

use super::family;
use crate::stats::collect::Measured;
use crate::stats::disk::{Filesystem, Used};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;

/// One family of metrics: its name, its help, and where its value is.
type Family = (&'static str, &'static str, fn(&Filesystem, &Used) -> u64);

const FAMILIES: [Family; 6] = [
    ("capacity_bytes", "Capacity in bytes of the volume", |f, _| f.capacity),
    ("available_bytes", "Number of available bytes in the volume", |f, _| f.available),
    ("used_bytes", "Number of used bytes in the volume", |_, used| used.bytes),
    ("inodes", "Maximum number of inodes in the volume", |f, _| f.inodes),
    ("inodes_free", "Number of free inodes in the volume", |f, _| f.inodes_free),
    ("inodes_used", "Number of used inodes in the volume", |_, used| used.inodes),
];

/// Whether a pod has volumes of claims.
pub fn has_claims(pod: &Pod) -> bool {
    let mut volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.any(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some())
}

/// Writes what is known of claims, each once, however many pods have it.
pub fn write(out: &mut String, measured: &Measured) -> std::fmt::Result {
    let mut claims = BTreeMap::new();
    for pod in &measured.pods {
        for volume in &pod.volumes {
            if let Some(claim) = &volume.claim {
                let key = (crate::pod::namespace(&pod.view.pod), claim.as_str());
                claims.entry(key).or_insert((&volume.filesystem, &volume.used));
            }
        }
    }
    for (name, help, value) in FAMILIES {
        let series: Vec<(String, f64)> = claims
            .iter()
            .map(|((namespace, claim), (filesystem, used))| {
                let labels = format!("{{namespace=\"{namespace}\",persistentvolumeclaim=\"{claim}\"}}");
                (labels, value(filesystem, used) as f64)
            })
            .collect();
        family(out, &format!("kubelet_volume_stats_{name}"), "gauge", help, &series)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::View;
    use crate::stats::collect::{PodStats, VolumeUsage};
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn the_room_of_a_claim_must_not_be_left_out_nor_told_twice() {
        let spec = json!({"containers": [], "volumes": [
            {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "w", "emptyDir": {}}]});
        let pod: Arc<Pod> =
            Arc::new(serde_json::from_value(json!({"metadata": {"namespace": "n"}, "spec": spec})).unwrap());
        assert!(has_claims(&pod));
        let volume = |name: &str, claim: Option<&str>| VolumeUsage {
            name: name.to_owned(),
            claim: claim.map(str::to_owned),
            used: Used { bytes: 5, inodes: 2 },
            filesystem: Filesystem {
                available: 7,
                capacity: 12,
                inodes: 9,
                inodes_free: 6,
                ..Default::default()
            },
            ephemeral: false,
        };
        let stats = PodStats {
            view: View { pod, status: Arc::default(), observed: Arc::default() },
            usage: None,
            rate: None,
            containers: Vec::new(),
            interfaces: Vec::new(),
            volumes: vec![volume("v", Some("c")), volume("w", None)],
            ephemeral: None,
        };
        let measured = Measured { pods: vec![stats.clone(), stats], ..Measured::default() };
        let mut out = String::new();
        write(&mut out, &measured).unwrap();
        let values: Vec<&str> = out.lines().filter(|line| !line.starts_with('#')).collect();
        let labels = "{namespace=\"n\",persistentvolumeclaim=\"c\"}";
        let want = [
            ("capacity_bytes", 12),
            ("available_bytes", 7),
            ("used_bytes", 5),
            ("inodes", 9),
            ("inodes_free", 6),
            ("inodes_used", 2),
        ];
        assert_eq!(values, want.map(|(name, value)| format!("kubelet_volume_stats_{name}{labels} {value}")));
    }
}
