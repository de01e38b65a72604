use std::fs;

use serde_json::{Value, json};

use crate::resources::{by_group_resource, by_gvk, defaults, strategy};
use crate::validation::{create, subresource_update, update};

mod devices;
mod jobs;
mod metadata;
mod pod_rules;
mod pod_status;
mod pods;

/// The errors a client would get, after the object went through defaulting and its strategy.
fn created(group: &str, plural: &str, mut object: Value) -> Vec<String> {
    let resource = by_group_resource(group, plural).unwrap();
    defaults::apply(resource, &mut object);
    strategy::prepare_for_create(resource, &mut object);
    create(resource, &object).iter().map(ToString::to_string).collect()
}

fn updated(group: &str, plural: &str, old: &Value, change: impl FnOnce(&mut Value)) -> Vec<String> {
    let resource = by_group_resource(group, plural).unwrap();
    let mut old = old.clone();
    defaults::apply(resource, &mut old);
    strategy::prepare_for_create(resource, &mut old);
    old["metadata"]["resourceVersion"] = json!("1");
    let mut new = old.clone();
    change(&mut new);
    defaults::apply(resource, &mut new);
    strategy::prepare_for_update(resource, &mut new, &old);
    update(resource, &new, &old).iter().map(ToString::to_string).collect()
}

fn pod() -> Value {
    json!({"metadata": {"name": "p", "namespace": "d"},
        "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}})
}

fn pod_with(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut pod = pod();
    change(&mut pod);
    created("", "pods", pod)
}

fn deployment() -> Value {
    json!({"metadata": {"name": "w", "namespace": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}})
}

#[test]
fn metadata_is_checked_in_upstreams_words() {
    assert_eq!(
        created("", "configmaps", json!({"metadata": {}})),
        [
            "metadata.name: Required value: name or generateName is required",
            "metadata.namespace: Required value"
        ]
    );
    assert_eq!(
        created("", "configmaps", json!({"metadata": {"name": "A", "namespace": "d"}})),
        [
            "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
          characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used \
          for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        ]
    );
    assert_eq!(
        created("", "namespaces", json!({"metadata": {"name": "n", "namespace": "d"}})),
        ["metadata.namespace: Forbidden: not allowed on this type"]
    );
    // Roles have names of colons, services names that start with a letter.
    let role = json!({"metadata": {"name": "system:x", "namespace": "d"}, "rules": []});
    assert_eq!(created("rbac.authorization.k8s.io", "roles", role), Vec::<String>::new());
}

#[test]
fn metadata_stays_what_it_was() {
    let map = json!({"metadata": {"name": "m", "namespace": "d", "uid": "u"}});
    assert_eq!(
        updated("", "configmaps", &map, |new| new["metadata"]["uid"] = json!("v")),
        ["metadata.uid: Invalid value: \"v\": field is immutable"]
    );
    assert_eq!(
        updated("", "configmaps", &map, |new| new["metadata"]["resourceVersion"] = json!("")),
        ["metadata.resourceVersion: Invalid value: \"\": must be specified for an update"]
    );
    let mut deleted = map;
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(
        updated("", "configmaps", &deleted, |new| new["metadata"]["finalizers"] = json!(["a.b/c"])),
        [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
          finalizers []string{\"a.b/c\"}"
        ]
    );
}

#[test]
fn a_deployment_selects_its_own_pods_for_good() {
    assert_eq!(created("apps", "deployments", deployment()), Vec::<String>::new());
    let mut other = deployment();
    other["spec"]["template"]["metadata"]["labels"] = json!({"a": "c"});
    assert_eq!(
        created("apps", "deployments", other),
        [
            "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`"
        ]
    );
    let mut none = deployment();
    none["spec"].as_object_mut().unwrap().remove("selector");
    none["spec"]["template"]["spec"]["containers"] = json!([]);
    assert_eq!(
        created("apps", "deployments", none.clone()),
        [
            "spec.selector: Required value",
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            "spec.template.spec.containers: Required value"
        ]
    );
    none["spec"]["template"].as_object_mut().unwrap().remove("metadata");
    for kind in ["deployments", "replicasets", "statefulsets"] {
        let why =
            "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`";
        assert!(created("apps", kind, none.clone()).contains(&why.to_owned()), "{kind}");
    }
    let mut once = deployment();
    once["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    assert_eq!(
        created("apps", "deployments", once),
        ["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""]
    );
    let select = |new: &mut Value| {
        new["spec"]["selector"]["matchLabels"] = json!({"a": "z"});
        new["spec"]["template"]["metadata"]["labels"] = json!({"a": "z"});
    };
    assert_eq!(
        updated("apps", "deployments", &deployment(), select),
        ["spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"z\"}}: field is immutable"]
    );
    let mut still = deployment();
    still["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}});
    assert_eq!(
        created("apps", "deployments", still),
        ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"]
    );
}

#[test]
fn a_stateful_set_is_mostly_fixed() {
    assert_eq!(created("apps", "statefulsets", deployment()), Vec::<String>::new());
    assert_eq!(
        updated("apps", "statefulsets", &deployment(), |new| new["spec"]["serviceName"] = json!("x")),
        [
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
          'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are \
          forbidden"
        ]
    );
    let scale = |new: &mut Value| new["spec"]["replicas"] = json!(3);
    assert_eq!(updated("apps", "statefulsets", &deployment(), scale), Vec::<String>::new());
}

#[test]
fn a_job_ends() {
    let job = |policy: &str| {
        json!({"metadata": {"name": "j", "namespace": "d", "uid": "u"}, "spec": {"template": {"spec": {
            "restartPolicy": policy, "containers": [{"name": "c", "image": "i:1"}]}}}})
    };
    assert_eq!(created("batch", "jobs", job("Never")), Vec::<String>::new());
    assert_eq!(
        created("batch", "jobs", job("Always")),
        ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
    );
    let errors = updated("batch", "jobs", &job("Never"), |new| new["spec"]["completions"] = json!(2));
    assert_eq!(errors, ["spec.completions: Invalid value: 2: field is immutable"]);
    let cron = json!({"metadata": {"name": "j", "namespace": "d"}, "spec": {"schedule": "* * *",
        "jobTemplate": {"spec": job("Never")["spec"]}}});
    assert_eq!(
        created("batch", "cronjobs", cron),
        ["spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]"]
    );
}

#[test]
fn a_service_has_ports_and_keeps_its_address() {
    let service = json!({"metadata": {"name": "s", "namespace": "d"}, "spec": {"ports": [{"port": 80}],
        "clusterIP": "10.0.0.1"}});
    assert_eq!(created("", "services", service.clone()), Vec::<String>::new());
    let mut bare = service.clone();
    bare["spec"]["ports"] = json!([]);
    assert_eq!(created("", "services", bare), ["spec.ports: Required value"]);
    let mut unnamed = service.clone();
    unnamed["spec"]["ports"] = json!([{"port": 80}, {"port": 81}]);
    assert_eq!(
        created("", "services", unnamed),
        ["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"]
    );
    let mut closed = service.clone();
    closed["spec"]["ports"][0]["nodePort"] = json!(30000);
    assert_eq!(
        created("", "services", closed),
        ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]
    );
    assert_eq!(
        updated("", "services", &service, |new| new["spec"]["clusterIP"] = json!("10.0.0.2")),
        ["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"]
    );
    let dotted = json!({"metadata": {"name": "1.s", "namespace": "d"}, "spec": {"ports": [{"port": 80}]}});
    assert_eq!(
        created("", "services", dotted),
        ["metadata.name: Invalid value: \"1.s\": must not contain dots"]
    );
    let digit = json!({"metadata": {"name": "1s", "namespace": "d"}, "spec": {"ports": [{"port": 80}]}});
    assert_eq!(created("", "services", digit), Vec::<String>::new());
}

#[test]
fn a_service_of_every_type_is_checked_in_upstreams_words() {
    let errors = |spec: Value| {
        created("", "services", json!({"metadata": {"name": "s", "namespace": "d"}, "spec": spec}))
    };
    assert_eq!(
        errors(json!({"type": "ExternalName", "clusterIP": "10.0.0.1"})),
        [
            "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
            "spec.externalName: Required value",
        ]
    );
    let port = json!({"port": 80, "name": "a", "nodePort": 30000});
    let again = json!({"port": 81, "name": "b", "nodePort": 30000});
    assert_eq!(
        errors(json!({"type": "NodePort", "ports": [port, again]})),
        ["spec.ports[1].nodePort: Duplicate value: 30000"]
    );
    assert_eq!(
        errors(json!({"ports": [{"port": 80}], "externalTrafficPolicy": "Local"})),
        [
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services"
        ]
    );
    assert_eq!(
        errors(json!({"ports": [{"port": 80}], "loadBalancerSourceRanges": ["10.0.0.0/8"]})),
        ["spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"]
    );
    assert_eq!(
        errors(json!({"ports": [{"port": 80}], "type": "Magic"})),
        ["spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \
          \"LoadBalancer\", \"NodePort\""]
    );
}

#[test]
fn a_templates_metadata_is_named_as_upstream_names_it() {
    let mut odd = deployment();
    odd["spec"]["template"]["metadata"]["annotations"] = json!({"a b": ""});
    let errors = created("apps", "deployments", odd);
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].starts_with("spec.template.annotations: Invalid value: \"a b\": name part must consist of")
    );
}

#[test]
fn config_maps_and_secrets_are_bounded_and_may_be_frozen() {
    let map = json!({"metadata": {"name": "m", "namespace": "d"}, "data": {"a b": ""}});
    assert!(
        created("", "configmaps", map)[0]
            .starts_with("data[a b]: Invalid value: \"a b\": a valid config key")
    );
    let big =
        json!({"metadata": {"name": "m", "namespace": "d"}, "data": {"a": "x".repeat(1024 * 1024 + 1)}});
    assert_eq!(created("", "configmaps", big), ["[]: Too long: may not be more than 1048576 bytes"]);
    let frozen = json!({"metadata": {"name": "m", "namespace": "d"}, "data": {"a": "b"}, "immutable": true});
    assert_eq!(
        updated("", "configmaps", &frozen, |new| new["data"]["a"] = json!("c")),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    let tls = json!({"metadata": {"name": "s", "namespace": "d"}, "type": "kubernetes.io/tls"});
    assert_eq!(
        created("", "secrets", tls),
        ["data[tls.crt]: Required value", "data[tls.key]: Required value"]
    );
}

#[test]
fn roles_and_bindings_say_whom_and_what() {
    let rbac = "rbac.authorization.k8s.io";
    let role = json!({"metadata": {"name": "r"}, "rules": [{}]});
    assert_eq!(
        created(rbac, "clusterroles", role),
        [
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[0].resources: Required value: resource rules must supply at least one resource",
        ]
    );
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "s"}]});
    assert_eq!(
        created(rbac, "clusterrolebindings", binding.clone()),
        ["subjects[0].namespace: Required value"]
    );
    assert!(
        updated(rbac, "clusterrolebindings", &binding, |new| new["roleRef"]["name"] = json!("x")).contains(
            &"roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\
                        \"name\":\"x\"}: cannot change roleRef"
                .to_owned()
        )
    );
}

#[test]
fn a_custom_resource_is_described_structurally() {
    let definition = |schema: Value| {
        json!({"metadata": {"name": "things.a.b"}, "spec": {"group": "a.b", "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
    };
    let fine = json!({"type": "object", "properties": {"spec": {"type": "object",
        "x-kubernetes-preserve-unknown-fields": true}}});
    let crds = "customresourcedefinitions";
    assert_eq!(created("apiextensions.k8s.io", crds, definition(fine)), Vec::<String>::new());
    let untyped = json!({"type": "object", "properties": {"spec": {}}});
    assert_eq!(
        created("apiextensions.k8s.io", crds, definition(untyped)),
        ["spec.validation.openAPIV3Schema.properties[spec].type: Required value: must not be empty for \
          specified object fields"]
    );
}

#[test]
fn no_object_however_odd_makes_validation_panic() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/kubernetes-1.36/golden");
    let Ok(entries) = fs::read_dir(folder) else {
        println!("skipped: no golden objects at {folder}");
        return;
    };
    for entry in entries.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "json")) {
        let object: Value = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
        let api = object["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        let Some(resource) = by_gvk(group, version, object["kind"].as_str().unwrap_or_default()) else {
            continue;
        };
        for odd in [object.clone(), json!({}), json!({"metadata": [], "spec": "x", "status": 3}), json!([])] {
            create(resource, &odd);
            update(resource, &odd, &object);
            update(resource, &object, &odd);
        }
    }
}

#[test]
fn a_status_is_held_to_what_was_reported() {
    let resource = by_group_resource("", "pods").unwrap();
    let mut old = pod();
    defaults::apply(resource, &mut old);
    old["metadata"]["resourceVersion"] = json!("1");
    old["spec"]["nodeName"] = json!("n");
    old["status"] = json!({"qosClass": "BestEffort", "podIPs": [{"ip": "010.0.0.1"}]});
    let mut new = old.clone();
    assert_eq!(subresource_update(resource, "status", &new, &old), []);
    new["status"] = json!({"qosClass": "Burstable", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
        "nominatedNodeName": "m"});
    let errors: Vec<String> =
        subresource_update(resource, "status", &new, &old).iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "status.nominatedNodeName: Forbidden: may not be set on pods that are already bound to a node",
            "status.qosClass: Invalid value: \"Burstable\": field is immutable",
            "status.podIPs: Invalid value: [{\"ip\":\"10.0.0.1\"},{\"ip\":\"10.0.0.2\"}]: may specify no more than one IP \
             for each IP family",
        ]
    );
}

#[test]
fn an_empty_text_in_a_pointer_must_not_pass_for_absent() {
    assert_eq!(
        pod_with(|p| p["spec"]["preemptionPolicy"] = json!("")),
        ["spec.preemptionPolicy: Required value"]
    );
    assert_eq!(
        pod_with(|p| p["spec"]["containers"][0]["securityContext"] = json!({"procMount": ""})),
        [
            "spec.containers[0].securityContext.procMount: Unsupported value: \"\": supported values: \"Default\", \
          \"Unmasked\""
        ]
    );
    let budget = json!({"metadata": {"name": "b", "namespace": "d"}, "spec": {"minAvailable": 1,
        "selector": {"matchLabels": {"a": "b"}}, "unhealthyPodEvictionPolicy": ""}});
    assert_eq!(
        created("policy", "poddisruptionbudgets", budget),
        ["spec.unhealthyPodEvictionPolicy: Unsupported value: \"\": supported values: \"AlwaysAllow\", \
          \"IfHealthyBudget\""]
    );
    // Where upstream looks past it, it passes.
    let class = json!({"metadata": {"name": "c"}, "provisioner": "a.b/c", "reclaimPolicy": ""});
    assert_eq!(created("storage.k8s.io", "storageclasses", class), Vec::<String>::new());
}

#[test]
fn what_the_table_calls_fixed_must_not_change() {
    let class = json!({"metadata": {"name": "c"}, "provisioner": "a.b/c", "parameters": {"a": "b"}});
    let change = |new: &mut Value| {
        new["volumeBindingMode"] = json!("WaitForFirstConsumer");
        new["provisioner"] = json!("a.b/d");
        new["parameters"] = json!({});
    };
    assert_eq!(
        updated("storage.k8s.io", "storageclasses", &class, change),
        [
            "parameters: Invalid value: {}: field is immutable",
            "provisioner: Invalid value: \"a.b/d\": field is immutable",
            "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
        ]
    );
    let runtime = json!({"metadata": {"name": "r"}, "handler": "a"});
    assert_eq!(
        updated("node.k8s.io", "runtimeclasses", &runtime, |new| new["handler"] = json!("b")),
        ["handler: Invalid value: \"b\": field is immutable"]
    );
}
