use serde_json::{Value, json};

use super::*;
use crate::resources::by_group_resource;

fn resource(group: &str, plural: &str) -> &'static Resource {
    by_group_resource(group, plural).unwrap()
}

#[test]
fn a_new_pod_is_pending_whatever_its_client_says() {
    let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]},
        "status": {"phase": "Running"}});
    prepare_for_create(resource("", "pods"), &mut pod);
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!(pod["metadata"]["generation"], 1);
}

#[test]
fn a_new_pod_must_not_lose_a_class_that_its_client_sent() {
    for (sent, kept) in
        [("Guaranteed", "Guaranteed"), ("Burstable", "Burstable"), ("other", "other"), ("", "BestEffort")]
    {
        let mut pod = json!({"spec": {"containers": [{"name": "c"}]}, "status": {"qosClass": sent, "podIP": "1.2.3.4"}});
        prepare_for_create(resource("", "pods"), &mut pod);
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": kept}));
    }
}

#[test]
fn a_gated_pod_says_why_it_is_not_scheduled() {
    let mut pod = json!({"spec": {"schedulingGates": [{"name": "g"}]}});
    prepare_for_create(resource("", "pods"), &mut pod);
    assert_eq!(pod["status"]["conditions"][0]["reason"], "SchedulingGated");
    let mut stamped = json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"schedulingGates": [{"name": "g"}]}});
    prepare_for_create(resource("", "pods"), &mut stamped);
    assert_eq!(stamped["status"]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
}

#[test]
fn quality_of_service_follows_requests_and_limits() {
    let class = |resources: Value| qos_class(&json!({"spec": {"containers": [{"resources": resources}]}}));
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    assert_eq!(class(json!({"requests": {"cpu": "0"}})), "BestEffort");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    let same =
        json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
    assert_eq!(class(same), "Guaranteed");
    let less = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Mi"}});
    assert_eq!(class(less), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})), "Burstable");
    let two = json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}, {}]}});
    assert_eq!(qos_class(&two), "Burstable");
}

#[test]
fn generation_counts_changes_of_the_spec_only() {
    let deployments = resource("apps", "deployments");
    let old = json!({"metadata": {"generation": 3}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
    let mut new = json!({"metadata": {"generation": 9}, "spec": {"replicas": 2}, "status": {"replicas": 7}});
    prepare_for_update(deployments, &mut new, &old);
    assert_eq!((&new["metadata"]["generation"], &new["status"]), (&json!(4), &json!({"replicas": 1})));

    let mut new = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1}});
    prepare_for_update(deployments, &mut new, &old);
    assert_eq!(new["metadata"], json!({"labels": {"a": "b"}, "generation": 3}));
    let mut new = json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"replicas": 1}});
    prepare_for_update(deployments, &mut new, &old);
    assert_eq!(new["metadata"]["generation"], 4);

    let mut new = json!({"metadata": {}, "spec": {"replicas": 9}, "status": {"replicas": 5}});
    prepare_for_status_update(deployments, &mut new, &old);
    assert_eq!(
        new,
        json!({"metadata": {"generation": 3}, "spec": {"replicas": 1}, "status": {"replicas": 5}})
    );
}

#[test]
fn a_new_object_must_not_have_a_generation_its_kind_does_not_count() {
    let made = |group: &str, plural: &str| {
        let mut object = json!({"metadata": {"name": "x"}, "spec": {}});
        prepare_for_create(resource(group, plural), &mut object);
        object["metadata"].get("generation").cloned()
    };
    assert_eq!(made("apps", "deployments"), Some(json!(1)));
    assert_eq!(made("scheduling.k8s.io", "priorityclasses"), Some(json!(1)));
    assert_eq!(made("networking.k8s.io", "servicecidrs"), None);
    assert_eq!(made("", "services"), None);
    // A driver's first change gives it the first generation.
    let drivers = resource("storage.k8s.io", "csidrivers");
    assert_eq!(made("storage.k8s.io", "csidrivers"), None);
    let old = json!({"metadata": {"name": "d"}, "spec": {"podInfoOnMount": false}});
    let mut new = json!({"metadata": {"name": "d"}, "spec": {"podInfoOnMount": true}});
    prepare_for_update(drivers, &mut new, &old);
    assert_eq!(new["metadata"]["generation"], 1);
}

#[test]
fn a_daemon_set_notes_the_generation_of_its_template() {
    let sets = resource("apps", "daemonsets");
    let noted =
        |set: &Value| set["metadata"]["annotations"]["deprecated.daemonset.template.generation"].clone();
    let mut old = json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": {}}}});
    prepare_for_create(sets, &mut old);
    assert_eq!(noted(&old), "1");
    let mut new =
        json!({"metadata": {"name": "d"}, "spec": {"minReadySeconds": 5, "template": {"spec": {}}}});
    prepare_for_update(sets, &mut new, &old);
    assert_eq!((noted(&new), &new["metadata"]["generation"]), (json!("1"), &json!(2)));
    let mut newer = json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": {"hostPID": true}}}});
    prepare_for_update(sets, &mut newer, &new);
    assert_eq!((noted(&newer), &newer["metadata"]["generation"]), (json!("2"), &json!(3)));
}

#[test]
fn an_annotation_written_with_the_status_must_not_count_as_a_change() {
    let old = json!({"metadata": {"generation": 1}, "spec": {"replicas": 1}, "status": {}});
    let mut new = json!({"metadata": {"generation": 1, "annotations": {"deployment.kubernetes.io/revision": "1"}},
        "spec": {"replicas": 1}, "status": {}});
    prepare_for_status_update(resource("apps", "deployments"), &mut new, &old);
    assert_eq!(new["metadata"]["generation"], 1);
    assert!(new["metadata"]["annotations"].is_object());
}

#[test]
fn a_pods_observed_generations_must_not_be_forgotten() {
    let old = json!({"metadata": {}, "status": {"observedGeneration": 3, "conditions": [
        {"type": "Ready", "observedGeneration": 2}, {"type": "Ready", "observedGeneration": 4}]}});
    let mut new = json!({"metadata": {}, "status": {"conditions": [{"type": "Ready"}, {"type": "Ready"}, {"type": "Ready"},
        {"type": "Other"}]}});
    prepare_for_status_update(resource("", "pods"), &mut new, &old);
    assert_eq!(
        new["status"],
        json!({"observedGeneration": 3, "conditions": [{"type": "Ready", "observedGeneration": 2},
        {"type": "Ready", "observedGeneration": 4}, {"type": "Ready"}, {"type": "Other"}]})
    );
}

#[test]
fn label_keys_must_be_merged_into_the_selectors_of_a_new_pod() {
    let term = json!({"labelSelector": {"matchLabels": {"app": "a"}}, "topologyKey": "zone",
        "matchLabelKeys": ["hash", "absent"], "mismatchLabelKeys": ["tenant"]});
    let nothing = json!({"topologyKey": "zone", "matchLabelKeys": ["hash"]});
    let terms = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term, nothing],
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]});
    let mut pod = json!({"metadata": {"labels": {"hash": "1", "tenant": "t"}}, "spec": {
        "affinity": {"podAffinity": terms, "podAntiAffinity": terms},
        "topologySpreadConstraints": [{"topologyKey": "zone", "matchLabelKeys": ["hash"],
            "labelSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}]}});
    prepare_for_create(resource("", "pods"), &mut pod);
    let merged = json!({"matchLabels": {"app": "a"}, "matchExpressions": [
        {"key": "hash", "operator": "In", "values": ["1"]}, {"key": "tenant", "operator": "NotIn", "values": ["t"]}]});
    for kind in ["podAffinity", "podAntiAffinity"] {
        let terms = &pod["spec"]["affinity"][kind];
        let required = &terms["requiredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!(required[0]["labelSelector"], merged);
        assert_eq!(required[1], nothing, "no selector selects nothing, and stays none");
        let preferred = &terms["preferredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!(preferred[0]["podAffinityTerm"]["labelSelector"], merged);
    }
    assert_eq!(
        pod["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchExpressions"],
        json!([{"key": "app", "operator": "Exists"}, {"key": "hash", "operator": "In", "values": ["1"]}])
    );
    // An update keeps them: they are part of what is stored.
    let stored = pod.clone();
    prepare_for_update(resource("", "pods"), &mut pod, &stored);
    assert_eq!(pod, stored);
}

#[test]
fn a_job_selects_its_pods_by_its_uid() {
    let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {}}}});
    let labels = json!({"controller-uid": "u", "job-name": "j",
        "batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "j"});
    prepare_for_create(resource("batch", "jobs"), &mut job);
    assert_eq!(
        job,
        json!({"metadata": {"name": "j", "uid": "u", "generation": 1}, "status": {}, "spec": {
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
            "template": {"spec": {}, "metadata": {"labels": labels}}}})
    );
    let manual = json!({"metadata": {}, "spec": {"manualSelector": true, "selector": {}}});
    let mut job = manual.clone();
    prepare_for_create(resource("batch", "jobs"), &mut job);
    assert_eq!(job["spec"], manual["spec"]);
}

#[test]
fn a_namespace_keeps_its_finalizer_until_finalized() {
    let namespaces = resource("", "namespaces");
    let mut namespace = json!({"metadata": {"name": "n"}, "status": {"phase": "Terminating"}});
    prepare_for_create(namespaces, &mut namespace);
    assert_eq!(namespace["spec"], json!({"finalizers": ["kubernetes"]}));
    assert_eq!(namespace["status"], json!({"phase": "Active"}));
    let mut emptied = json!({"metadata": {"name": "n"}, "spec": {}});
    prepare_for_update(namespaces, &mut emptied, &namespace);
    assert_eq!(emptied, namespace);
    let mut finalized = json!({"metadata": {"name": "n"}, "spec": {}});
    prepare_for_subresource_update(namespaces, "finalize", &mut finalized, &namespace);
    assert_eq!(finalized["spec"], json!({}));
}

#[test]
fn a_service_keeps_what_it_was_given() {
    let services = resource("", "services");
    let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "externalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}, "status": {"loadBalancer": {}}});
    let mut new = json!({"spec": {"type": "NodePort", "externalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "protocol": "TCP", "name": "http"}]}});
    prepare_for_update(services, &mut new, &old);
    assert_eq!(new["spec"]["clusterIPs"], json!(["10.0.0.1"]));
    assert_eq!(new["spec"]["clusterIP"], "10.0.0.1");
    assert_eq!(new["spec"]["ports"][0]["nodePort"], 30080);

    let mut closed = old.clone();
    closed["spec"]["type"] = json!("ClusterIP");
    prepare_for_update(services, &mut closed, &old);
    assert_eq!(closed["spec"]["ports"], json!([{"port": 80, "protocol": "TCP"}]));
    assert_eq!(closed["spec"].get("externalTrafficPolicy"), None);

    let mut external = old.clone();
    external["spec"]["type"] = json!("ExternalName");
    prepare_for_update(services, &mut external, &old);
    assert_eq!(external["spec"], json!({"type": "ExternalName", "ports": [{"port": 80, "protocol": "TCP"}]}));
}

#[test]
fn only_a_running_pod_is_given_time() {
    let grace = |pod: Value, requested| grace_period_seconds(resource("", "pods"), &pod, requested);
    let running = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"}});
    assert_eq!(grace(running.clone(), None), Some(30));
    assert_eq!(grace(running.clone(), Some(5)), Some(5));
    assert_eq!(grace(running, Some(-1)), Some(1));
    assert_eq!(grace(json!({"spec": {"terminationGracePeriodSeconds": 30}}), None), Some(0));
    let done = json!({"spec": {"nodeName": "n"}, "status": {"phase": "Succeeded"}});
    assert_eq!(grace(done, Some(9)), Some(0));
    assert_eq!(grace_period_seconds(resource("", "secrets"), &json!({}), Some(9)), None);
}

#[test]
fn subresources_touch_their_part_only() {
    let old = json!({"metadata": {"name": "p", "resourceVersion": "1", "generation": 1},
        "spec": {"containers": [{"name": "c", "image": "a"}]}, "status": {"phase": "Running"}});
    let mut new = json!({"metadata": {"name": "p", "resourceVersion": "2", "labels": {"x": "y"}},
        "spec": {"containers": [{"name": "c", "image": "b", "resources": {"limits": {"cpu": "1"}}}],
            "ephemeralContainers": [{"name": "e"}]}});
    let mut debugged = new.clone();
    prepare_for_subresource_update(resource("", "pods"), "ephemeralcontainers", &mut debugged, &old);
    assert_eq!(
        debugged,
        json!({"metadata": {"name": "p", "resourceVersion": "2", "generation": 2},
            "spec": {"containers": [{"name": "c", "image": "a"}], "ephemeralContainers": [{"name": "e"}]},
            "status": {"phase": "Running"}})
    );
    prepare_for_subresource_update(resource("", "pods"), "resize", &mut new, &old);
    assert_eq!(
        new["spec"],
        json!({"containers": [{"name": "c", "image": "a", "resources": {"limits": {"cpu": "1"}}}]})
    );
}

#[test]
fn a_signing_requests_decision_and_certificate_have_different_writers() {
    let requests = resource("certificates.k8s.io", "certificatesigningrequests");
    let old =
        json!({"metadata": {}, "spec": {"request": "r"}, "status": {"conditions": [{"type": "Approved"}]}});
    let mut issued = json!({"metadata": {}, "spec": {}, "status": {"certificate": "c", "conditions": [
        {"type": "Denied"}, {"type": "Failed"}]}});
    prepare_for_status_update(requests, &mut issued, &old);
    assert_eq!(
        issued["status"],
        json!({"certificate": "c", "conditions": [{"type": "Approved"}, {"type": "Failed"}]})
    );
    let mut approved =
        json!({"metadata": {}, "status": {"certificate": "mine", "conditions": [{"type": "Denied"}]}});
    prepare_for_subresource_update(requests, "approval", &mut approved, &old);
    assert_eq!(approved["status"], json!({"conditions": [{"type": "Denied"}]}));
    assert_eq!(approved["spec"], old["spec"]);
}

#[test]
fn subsets_of_endpoints_must_not_be_joined_or_sorted() {
    let endpoints = resource("", "endpoints");
    let written = json!({"metadata": {"name": "e"}, "subsets": [
        {"addresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 80}]},
        {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]},
        {"notReadyAddresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.3"}], "ports": [{"port": 80}]}]});
    let mut made = written.clone();
    prepare_for_create(endpoints, &mut made);
    canonicalize(endpoints, &mut made);
    assert_eq!(made["subsets"], written["subsets"]);
    let mut changed = written.clone();
    prepare_for_update(endpoints, &mut changed, &json!({"metadata": {"name": "e"}}));
    canonicalize(endpoints, &mut changed);
    assert_eq!(changed["subsets"], written["subsets"]);
}

#[test]
fn clients_are_warned_in_upstreams_words() {
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}, "containers": [{
        "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "A", "value": "$(A)3"}]}]}});
    assert_eq!(
        warnings(resource("", "pods"), &pod, None),
        [
            "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
        ]
    );
}

#[test]
fn what_stands_in_its_own_way_must_not_pass_in_silence() {
    let pod = json!({"metadata": {"name": "a.b"}, "spec": {
        "imagePullSecrets": [{"name": "s"}, {"name": "s"}, {}],
        "hostAliases": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.4"}],
        "topologySpreadConstraints": [{"topologyKey": "failure-domain.beta.kubernetes.io/zone"}],
        "volumes": [{"name": "v", "rbd": {}}, {"name": "c", "configMap": {"name": "m",
            "items": [{"key": "a", "path": "x"}, {"key": "b", "path": "x/y"}]}}],
        "containers": [
            {"name": "a", "ports": [{"name": "web", "containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"memory": "100m"}}},
            {"name": "b", "ports": [{"name": "web", "containerPort": 80, "protocol": "TCP"},
                {"containerPort": 80, "protocol": "TCP", "hostPort": 8080}]}]}});
    assert_eq!(
        warnings(resource("", "pods"), &pod, None),
        [
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is \
             recommended: [must not contain dots]",
            "spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; \
             use \"topology.kubernetes.io/zone\" instead",
            "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
            "spec.volumes[0].rbd: deprecated in v1.28, non-functional in v1.31+",
            "volume \"c\" (ConfigMap \"m\"): overlapping paths: \"x/y\" with \"x\"",
            "spec.hostAliases[1].ip: duplicate ip \"1.2.3.4\"",
            "spec.imagePullSecrets[1].name: duplicate name \"s\"",
            "spec.imagePullSecrets[2].name: invalid empty name \"\"",
            "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            "spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]",
            "spec.containers[1].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[1].ports[1]: overlapping port definition with spec.containers[1].ports[0]",
            "spec.containers[1].ports[0]: duplicate port name \"web\" with spec.containers[0].ports[0], services and probes \
             that select ports by name will use spec.containers[0].ports[0]",
        ]
    );
    assert!(warnings(resource("", "pods"), &pod, Some(&pod)).is_empty(), "people do not change pods by hand");
}

#[test]
fn every_kind_is_warned_of_in_its_own_words() {
    let warned = |group: &str, plural: &str, object: Value| warnings(resource(group, plural), &object, None);
    assert_eq!(
        warned(
            "",
            "services",
            json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "ClientIP",
            "externalIPs": ["1.2.3.4"], "trafficDistribution": "PreferClose"}})
        ),
        [
            "spec.externalIPs is ignored for headless services",
            "spec.SessionAffinity is ignored for headless services",
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ]
    );
    assert_eq!(
        warned(
            "",
            "persistentvolumes",
            json!({"spec": {"persistentVolumeReclaimPolicy": "Recycle", "storageos": {}}})
        ),
        [
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach \
             is to use dynamic provisioning.",
            "spec.storageOS: deprecated in v1.22, non-functional in v1.25+",
        ]
    );
    assert_eq!(
        warned("", "resourcequotas", json!({"spec": {"hard": {"cpu": "2", "limits.cpu": "1"}}})),
        ["ResourceQuota cpu (2) should be less than limits.cpu (1)"]
    );
    assert_eq!(
        warned(
            "batch",
            "cronjobs",
            json!({"metadata": {"name": "c"}, "spec": {"jobTemplate": {"spec": {"template": {
            "spec": {"terminationGracePeriodSeconds": -1}}}}}})
        ),
        [
            "spec.jobTemplate.spec.template.spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and \
          will be treated as 1"
        ]
    );
    let set = json!({"metadata": {"name": "s", "generation": 1}, "spec": {"revisionHistoryLimit": -1,
        "template": {"spec": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}}}});
    let (sets, limit) = (
        resource("apps", "statefulsets"),
        "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended",
    );
    assert_eq!(warnings(sets, &set, None).len(), 2);
    assert_eq!(
        warnings(sets, &set, Some(&set)),
        [limit],
        "what a change leaves as it was is not warned of again"
    );
}

#[test]
fn updates_that_create_or_overwrite_are_per_kind() {
    assert!(allow_create_on_update(resource("coordination.k8s.io", "leases")));
    assert!(!allow_create_on_update(resource("", "pods")));
    assert!(allow_unconditional_update(resource("", "pods")));
    assert!(!allow_unconditional_update(resource("coordination.k8s.io", "leases")));
    assert_eq!(dependents_by_default(resource("batch", "jobs")), Dependents::Orphan);
}

#[test]
fn a_generated_namespace_is_labelled_too() {
    let mut namespace = json!({"metadata": {"name": "n-x7k2p"}});
    canonicalize(resource("", "namespaces"), &mut namespace);
    assert_eq!(namespace["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "n-x7k2p"}));
}

#[test]
fn a_format_nobody_checks_must_not_pass_without_a_warning() {
    let definition = |properties: Value| json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {"properties": properties}}}]}});
    let crds = resource("apiextensions.k8s.io", "customresourcedefinitions");
    let old = definition(
        json!({"a": {"type": "string", "format": "date-time"}, "b": {"type": "string", "format": "x"}}),
    );
    assert_eq!(warnings(crds, &old, None), ["unrecognized format \"x\""]);
    let new = definition(json!({"a": {"type": "array", "items": {"type": "integer", "format": "uuid"}},
        "b": {"type": "string", "format": "x"}, "c": {"anyOf": [{"type": "object", "format": "date"}]}}));
    let expected = ["unrecognized format \"uuid\"", "unrecognized format \"date\""];
    assert_eq!(warnings(crds, &new, Some(&old)), expected);
}

#[test]
fn an_address_of_a_status_in_an_odd_spelling_must_not_pass_without_a_warning() {
    let canonical = |path: &str| {
        format!("{path}: IPv6 address \"FE80::1\" should be in RFC 5952 canonical format (\"fe80::1\")")
    };
    let addresses = json!([{"ip": "10.0.0.1"}, {"ip": "FE80::1"}, {"hostname": "h"}]);
    let pod = json!({"status": {"podIPs": addresses, "hostIPs": addresses}});
    let expected = [canonical("status.podIPs[1].ip"), canonical("status.hostIPs[1].ip")];
    assert_eq!(status_warnings(resource("", "pods"), &pod), expected);
    let balanced = json!({"status": {"loadBalancer": {"ingress": addresses}}});
    for (group, plural) in [("", "services"), ("networking.k8s.io", "ingresses")] {
        assert_eq!(
            status_warnings(resource(group, plural), &balanced),
            [canonical("status.loadBalancer.ingress[1]")]
        );
    }
    assert!(status_warnings(resource("", "nodes"), &pod).is_empty());
}

#[test]
fn a_put_must_not_be_held_to_the_rules_of_another_kind() {
    assert!(allow_create_on_update(resource("node.k8s.io", "runtimeclasses")));
    assert!(allow_unconditional_update(resource("", "serviceaccounts")));
    for (group, plural) in [("apiregistration.k8s.io", "apiservices"), ("networking.k8s.io", "servicecidrs")]
    {
        let old = json!({"metadata": {"name": "x", "labels": {"a": "b"}}});
        let mut new = json!({"metadata": {"name": "x", "labels": {"a": "c"}}, "status": {}});
        prepare_for_status_update(resource(group, plural), &mut new, &old);
        assert_eq!(new["metadata"]["labels"], json!({"a": "b"}), "{plural}");
    }
}

#[test]
fn a_claim_must_not_be_filled_from_what_no_driver_is_asked_for() {
    let claims = resource("", "persistentvolumeclaims");
    let made = |spec: Value| {
        let mut claim = json!({"metadata": {"name": "c"}, "spec": spec});
        prepare_for_create(claims, &mut claim);
        claim["spec"].clone()
    };
    let foreign = json!({"apiGroup": "example.com", "kind": "Thing", "name": "t"});
    assert_eq!(made(json!({"dataSource": foreign})), json!({}));
    assert_eq!(
        made(json!({"dataSourceRef": foreign})),
        json!({"dataSource": foreign, "dataSourceRef": foreign}),
        "a reference may name anything"
    );
    let mut elsewhere = foreign;
    elsewhere["namespace"] = json!("other");
    assert_eq!(made(json!({"dataSourceRef": elsewhere})), json!({}));
    let old = json!({"metadata": {"name": "c"}, "spec": {"dataSourceRef": elsewhere}});
    let mut new = old.clone();
    prepare_for_update(claims, &mut new, &old);
    assert_eq!(new["spec"], old["spec"], "what is used already stays");
}

#[test]
fn an_app_armor_annotation_must_not_be_left_to_readers_of_fields_to_find() {
    let pods = resource("", "pods");
    let key = "container.apparmor.security.beta.kubernetes.io/c";
    let made = |annotation: &str, context: Value| {
        let mut pod = json!({"metadata": {"name": "p", "annotations": {key: annotation}},
            "spec": {"containers": [{"name": "c"}], "securityContext": context}});
        let warned = warnings_of_outdated(pods, &pod);
        prepare_for_create(pods, &mut pod);
        (pod["spec"]["containers"][0]["securityContext"]["appArmorProfile"].clone(), warned.len())
    };
    let local = json!({"type": "Localhost", "localhostProfile": "x"});
    assert_eq!(made("localhost/x", json!({})), (local.clone(), 1));
    assert_eq!(
        made("localhost/x", json!({"appArmorProfile": local})),
        (Value::Null, 0),
        "the pod says it already"
    );
    assert_eq!(made("odd", json!({})), (Value::Null, 1));
}
