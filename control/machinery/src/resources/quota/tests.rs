use super::*;
use serde_json::json;

fn shown(used: &Amounts) -> BTreeMap<&str, String> {
    used.iter().map(|(name, amount)| (name.as_str(), amount.canonical())).collect()
}

fn counted<'a>(group: &'a str, plural: &'a str) -> Counted<'a> {
    Counted::new(group, plural).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pod() -> Value {
    let resources = json!({"requests": {"cpu": "1", "example.com/gpu": "2", "hugepages-2Mi": "4Mi"},
        "limits": {"memory": "1Gi", "example.com/gpu": "2"}});
    json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
}

#[test]
fn pods_count_until_they_have_ended() {
    let used = counted("", "pods").usage(&pod(), at(0));
    let expected = [
        ("count/pods", "1"),
        ("cpu", "1"),
        ("hugepages-2Mi", "4Mi"),
        ("limits.memory", "1Gi"),
        ("pods", "1"),
        ("requests.cpu", "1"),
        ("requests.example.com/gpu", "2"),
        ("requests.hugepages-2Mi", "4Mi"),
    ];
    assert_eq!(shown(&used), expected.map(|(name, amount)| (name, amount.to_owned())).into());
    assert!(used.keys().all(|name| counted("", "pods").tracks(name)));

    let mut ended = pod();
    ended["status"] = json!({"phase": "Succeeded"});
    assert_eq!(shown(&counted("", "pods").usage(&ended, at(0))), [("count/pods", "1".to_owned())].into());

    let mut stuck = pod();
    stuck["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:01:40Z");
    stuck["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    assert!(charged(&stuck, at(130)));
    assert!(!charged(&stuck, at(131)));
}

#[test]
fn services_and_claims_count_by_what_they_take() {
    let ports = json!([{"port": 1, "nodePort": 30000}, {"port": 2}]);
    let service = |kind: &str| json!({"spec": {"type": kind, "ports": ports}});
    let node_ports =
        |service: &Value| counted("", "services").usage(service, at(0))["services.nodeports"].value();
    assert_eq!(node_ports(&service("ClusterIP")), 0);
    assert_eq!(node_ports(&service("NodePort")), 2);
    let mut sparing = service("LoadBalancer");
    sparing["spec"]["allocateLoadBalancerNodePorts"] = json!(false);
    assert_eq!(node_ports(&sparing), 1);

    let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"allocatedResources": {"storage": "2Gi"}}});
    let used = counted("", "persistentvolumeclaims").usage(&claim, at(0));
    assert_eq!(used["gold.storageclass.storage.k8s.io/requests.storage"].canonical(), "2Gi");
    assert!(used.keys().all(|name| counted("", "persistentvolumeclaims").tracks(name)));
}

#[test]
fn any_kind_is_counted_by_name_and_events_are_not() {
    let used = counted("apps", "deployments").usage(&json!({}), at(0));
    assert_eq!(shown(&used), [("count/deployments.apps", "1".to_owned())].into());
    let used = counted("", "secrets").usage(&json!({}), at(0));
    assert_eq!(used.keys().collect::<Vec<_>>(), ["count/secrets", "secrets"]);
    assert_eq!(Counted::new("", "events"), None);
    assert!(!counted("", "secrets").tracks("configmaps"));
}

#[test]
fn scopes_hold_pods_by_class_quality_and_deadline() {
    let quota = |scope: &str, operator: &str, values: Value| json!({"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": scope, "operator": operator, "values": values}]}}});
    let holds = |quota: Value, pod: &Value| counted("", "pods").in_scopes(&quota, pod);
    let mut pod = pod();
    assert!(holds(json!({"spec": {"scopes": ["NotTerminating", "NotBestEffort"]}}), &pod));
    assert!(!holds(json!({"spec": {"scopes": ["NotTerminating", "BestEffort"]}}), &pod));
    assert!(!holds(quota("PriorityClass", "Exists", json!([])), &pod));
    assert!(holds(quota("PriorityClass", "NotIn", json!(["high"])), &pod));
    pod["spec"]["priorityClassName"] = json!("high");
    pod["spec"]["activeDeadlineSeconds"] = json!(0);
    assert!(holds(quota("PriorityClass", "In", json!(["high", "low"])), &pod));
    assert!(!holds(quota("PriorityClass", "DoesNotExist", json!([])), &pod));
    assert!(holds(json!({"spec": {"scopes": ["Terminating"]}}), &pod));
    assert!(!holds(json!({"spec": {"scopes": ["CrossNamespacePodAffinity"]}}), &pod));
    let term = json!({"podAffinityTerm": {"namespaceSelector": {}}});
    pod["spec"]["affinity"] =
        json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}});
    assert!(holds(json!({"spec": {"scopes": ["CrossNamespacePodAffinity"]}}), &pod));
    // what is in no scope is never counted by a quota with scopes
    assert!(!counted("", "services").in_scopes(&json!({"spec": {"scopes": ["NotTerminating"]}}), &json!({})));
}

#[test]
fn what_containers_must_state() {
    let hard = amounts(&json!({"cpu": "1", "limits.memory": "1Gi", "limits.cpu": "1", "pods": "1"}));
    let mut pod = pod();
    pod["spec"]["initContainers"] = json!([{"name": "i"}]);
    assert_eq!(
        counted("", "pods").unstated(&pod, &hard).as_deref(),
        Some("must specify cpu for: i; limits.cpu for: c,i; limits.memory for: i")
    );
    pod["spec"]["resources"] = json!({"limits": {"cpu": "1"}});
    assert_eq!(counted("", "pods").unstated(&pod, &hard), None);
}

#[test]
fn writes_that_change_nothing_counted_are_not_charged() {
    let pods = counted("", "pods");
    let mut dated = pod();
    dated["spec"]["activeDeadlineSeconds"] = json!(5);
    assert!(pods.handles(Write::Create, "", &pod(), &Value::Null));
    assert!(!pods.handles(Write::Update, "", &pod(), &pod()));
    assert!(pods.handles(Write::Update, "", &dated, &pod()));
    assert!(pods.handles(Write::Update, "resize", &pod(), &pod()));
    assert!(!pods.handles(Write::Update, "status", &pod(), &pod()));
    assert!(!counted("", "secrets").handles(Write::Update, "", &json!({}), &json!({})));
    assert!(counted("", "services").handles(Write::Update, "", &json!({}), &json!({})));
}

#[test]
fn an_update_frees_when_a_pod_ends() {
    let mut ended = pod();
    ended["status"] = json!({"phase": "Failed"});
    assert!(frees("", "pods", &pod(), &ended, at(0)));
    assert!(!frees("", "pods", &pod(), &pod(), at(0)));
    assert!(!frees("", "pods", &ended, &ended, at(0)));
}
