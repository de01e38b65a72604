//! Fields of features that are off: they are dropped, unless what is stored uses the feature already (upstream: the
//! `dropDisabled` functions of each strategy, of which `pkg/api/pod/util.go` has the most).

use serde_json::Value;

use crate::{access::Get as _, resources::Resource};

/// A feature of this release that is off by default, and where its fields are: names with dots between, `[]` for each item of a list or map.
struct Feature {
    paths: &'static [&'static str],
    /// A field above that goes when nothing is left in it.
    holder: Option<&'static str>,
}

const fn feature(paths: &'static [&'static str]) -> Feature {
    Feature { paths, holder: None }
}

/// Of pod specs, wherever they are.
const POD_SPEC: &[Feature] = &[
    // ContainerStopSignals
    Feature {
        paths: &[
            "initContainers[].lifecycle.stopSignal",
            "containers[].lifecycle.stopSignal",
            "ephemeralContainers[].lifecycle.stopSignal",
        ],
        holder: Some("lifecycle"),
    },
    // ClusterTrustBundleProjection
    feature(&["volumes[].projected.sources[].clusterTrustBundle"]),
    // PodCertificateRequest
    feature(&["volumes[].projected.sources[].podCertificate"]),
    // GenericWorkload
    feature(&["schedulingGroup"]),
];

/// Where a kind has a pod spec.
const POD_SPECS: &[(&str, &str, &str)] = &[
    ("", "Pod", "spec"),
    ("", "PodTemplate", "template.spec"),
    ("", "ReplicationController", "spec.template.spec"),
    ("apps", "DaemonSet", "spec.template.spec"),
    ("apps", "Deployment", "spec.template.spec"),
    ("apps", "ReplicaSet", "spec.template.spec"),
    ("apps", "StatefulSet", "spec.template.spec"),
    ("batch", "CronJob", "spec.jobTemplate.spec.template.spec"),
    ("batch", "Job", "spec.template.spec"),
];

/// Where the objects of a resource have a pod spec; nowhere, for most.
#[must_use]
pub fn pod_spec(resource: &Resource) -> Option<&'static str> {
    let is = |(group, kind, _): &&(&str, &str, &str)| (resource.group, resource.kind) == (*group, *kind);
    POD_SPECS.iter().find(is).map(|(.., path)| *path)
}

/// Of whole objects.
const OBJECTS: &[(&str, &str, &[Feature])] = &[
    (
        "",
        "Pod",
        &[
            // DRANodeAllocatableResources
            feature(&["status.nodeAllocatableResourceClaimStatuses"]),
            // ImageVolumeWithDigest
            feature(&[
                "status.containerStatuses[].volumeMounts[].volumeStatus",
                "status.initContainerStatuses[].volumeMounts[].volumeStatus",
                "status.ephemeralContainerStatuses[].volumeMounts[].volumeStatus",
            ]),
        ],
    ),
    // MaxUnavailableStatefulSet
    ("apps", "StatefulSet", &[feature(&["spec.updateStrategy.rollingUpdate.maxUnavailable"])]),
    // CoordinatedLeaderElection
    ("coordination.k8s.io", "Lease", &[feature(&["spec.strategy"]), feature(&["spec.preferredHolder"])]),
    (
        "resource.k8s.io",
        "ResourceSlice",
        &[
            // DRANodeAllocatableResources
            feature(&["spec.devices[].nodeAllocatableResourceMappings"]),
            // DRAListTypeAttributes
            feature(&[
                "spec.devices[].attributes[].bools",
                "spec.devices[].attributes[].ints",
                "spec.devices[].attributes[].strings",
                "spec.devices[].attributes[].versions",
            ]),
        ],
    ),
    // Kubelets were configured by objects once.
    ("", "Node", &[feature(&["spec.configSource"]), feature(&["status.config"])]),
    // VolumeLimitScaling
    ("storage.k8s.io", "CSIDriver", &[feature(&["spec.preventPodSchedulingIfMissing"])]),
];

/// Takes out of an object what belongs to features that are off and `old` (null for a new object) does not use.
pub(super) fn drop(resource: &Resource, new: &mut Value, old: &Value) {
    let is = |group: &str, kind: &str| (resource.group, resource.kind) == (group, kind);
    if let Some(path) = pod_spec(resource)
        && let Some(spec) = path.split('.').try_fold(&mut *new, |value, key| value.get_mut(key))
    {
        drop_features(POD_SPEC, spec, old.at(path));
    }
    if let Some((.., features)) = OBJECTS.iter().find(|(group, kind, _)| is(group, kind)) {
        drop_features(features, new, old);
    }
}

fn drop_features(features: &[Feature], new: &mut Value, old: &Value) {
    for feature in features.iter().filter(|f| !f.paths.iter().any(|path| is_used(old, path))) {
        feature.paths.iter().for_each(|path| remove(new, path, feature.holder));
    }
}

/// The first name of a path, whether it is of a list or map, and what follows.
fn step(path: &str) -> (&str, bool, Option<&str>) {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let name = first.strip_suffix("[]");
    (name.unwrap_or(first), name.is_some(), rest)
}

fn is_used(value: &Value, path: &str) -> bool {
    let (name, is_list, rest) = step(path);
    let Some(below) = value.get(name).filter(|below| !below.is_null()) else { return false };
    match rest {
        None => true,
        Some(rest) if is_list => {
            let entries = below.as_object().into_iter().flat_map(serde_json::Map::values);
            below.items("").iter().chain(entries).any(|item| is_used(item, rest))
        }
        Some(rest) => is_used(below, rest),
    }
}

fn remove(value: &mut Value, path: &str, holder: Option<&str>) {
    let (name, is_list, rest) = step(path);
    let Some(fields) = value.as_object_mut() else { return };
    let Some(rest) = rest else {
        fields.remove(name);
        return;
    };
    let Some(below) = fields.get_mut(name) else { return };
    if is_list {
        match below {
            Value::Array(items) => items.iter_mut().for_each(|item| remove(item, rest, holder)),
            Value::Object(entries) => entries.values_mut().for_each(|entry| remove(entry, rest, holder)),
            _ => {}
        }
        return;
    }
    let before = below.clone();
    remove(below, rest, holder);
    if holder == Some(name) && *below != before && below.as_object().is_some_and(serde_json::Map::is_empty) {
        fields.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::by_group_resource;
    use serde_json::json;

    #[test]
    fn a_field_of_a_feature_that_is_off_must_not_be_stored() {
        let pods = by_group_resource("", "pods").unwrap();
        let bundle = json!({"clusterTrustBundle": {"path": "x"}});
        let spec = json!({
            "containers": [
                {"name": "a", "lifecycle": {"stopSignal": "SIGUSR1"}},
                {"name": "b", "lifecycle": {"stopSignal": "SIGUSR1", "preStop": {}}},
            ],
            "volumes": [{"name": "v", "projected": {"sources": [bundle, {"secret": {"name": "s"}}]}}],
            "schedulingGroup": {"podGroupName": "g"},
        });
        let used = json!({"spec": spec});
        let mut pod = used.clone();
        drop(pods, &mut pod, &Value::Null);
        assert_eq!(
            pod["spec"],
            json!({
                "containers": [{"name": "a"}, {"name": "b", "lifecycle": {"preStop": {}}}],
                "volumes": [{"name": "v", "projected": {"sources": [{}, {"secret": {"name": "s"}}]}}],
            })
        );
        let mut kept = used.clone();
        drop(pods, &mut kept, &used);
        assert_eq!(kept, used, "what is used already stays");
        let jobs = by_group_resource("batch", "cronjobs").unwrap();
        let mut job =
            json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"schedulingGroup": {}}}}}}});
        drop(jobs, &mut job, &Value::Null);
        assert_eq!(job["spec"]["jobTemplate"]["spec"]["template"]["spec"], json!({}));
    }

    #[test]
    fn an_object_must_not_keep_what_only_a_feature_that_is_off_reads() {
        for (group, plural, object, path) in [
            (
                "apps",
                "statefulsets",
                json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}}}}),
                "spec.updateStrategy.rollingUpdate.maxUnavailable",
            ),
            ("", "nodes", json!({"spec": {"configSource": {}}}), "spec.configSource"),
            ("", "nodes", json!({"status": {"config": {}}}), "status.config"),
            (
                "storage.k8s.io",
                "csidrivers",
                json!({"spec": {"preventPodSchedulingIfMissing": true}}),
                "spec.preventPodSchedulingIfMissing",
            ),
            ("coordination.k8s.io", "leases", json!({"spec": {"strategy": "s"}}), "spec.strategy"),
        ] {
            let mut new = object.clone();
            drop(by_group_resource(group, plural).unwrap(), &mut new, &Value::Null);
            assert!(!new.has(path), "{plural} {new}");
        }
    }

    #[test]
    fn a_device_must_not_have_attributes_of_a_feature_that_is_off() {
        let slices = by_group_resource("resource.k8s.io", "resourceslices").unwrap();
        let slice =
            |attributes: Value| json!({"spec": {"devices": [{"name": "d", "attributes": attributes}]}});
        let used = slice(json!({"a": {"ints": [1]}, "b": {"string": "x"}}));
        let mut new = used.clone();
        drop(slices, &mut new, &Value::Null);
        assert_eq!(new, slice(json!({"a": {}, "b": {"string": "x"}})));
        let mut kept = used.clone();
        drop(slices, &mut kept, &slice(json!({"z": {"bools": [true]}})));
        assert_eq!(kept, used, "any list that is used already keeps all");
        let mut mapped = json!({"spec": {"devices": [{"nodeAllocatableResourceMappings": {"cpu": {}}}]}});
        drop(slices, &mut mapped, &used);
        assert_eq!(mapped, json!({"spec": {"devices": [{}]}}), "of another feature");
    }
}
