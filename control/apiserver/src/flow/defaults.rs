//! The FlowSchemas and PriorityLevelConfigurations every cluster has: mandatory ones, which are always as here, and
//! suggested ones, which users may change. Upstream: `apiserver/pkg/apis/flowcontrol/bootstrap`.

use serde_json::{Value, json};

const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
/// Whether the server keeps an object's spec as it is here.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

fn level(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "PriorityLevelConfiguration",
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}},
        "spec": spec,
    })
}

/// A limited level: name, shares, percentage others may borrow, and queues with the hand dealt of them.
fn queued((name, shares, lendable, queues, hand): (&str, i64, i64, i64, i64)) -> Value {
    let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
    let response = json!({"type": "Queue", "queuing": queuing});
    let limited =
        json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
    level(name, json!({"type": "Limited", "limited": limited}))
}

/// `exempt` and `catch-all`.
#[must_use]
pub fn mandatory_levels() -> Vec<Value> {
    let exempt = json!({"nominalConcurrencyShares": 0, "lendablePercent": 0});
    let limited =
        json!({"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}});
    vec![
        level("catch-all", json!({"type": "Limited", "limited": limited})),
        level("exempt", json!({"type": "Exempt", "exempt": exempt})),
    ]
}

/// The levels that divide a usual cluster's work.
#[must_use]
pub fn suggested_levels() -> Vec<Value> {
    [
        ("system", 30, 33, 64, 6),
        ("node-high", 40, 25, 64, 6),
        ("leader-election", 10, 0, 16, 4),
        ("workload-high", 40, 50, 128, 6),
        ("workload-low", 100, 90, 128, 6),
        ("global-default", 20, 50, 128, 6),
    ]
    .into_iter()
    .map(queued)
    .collect()
}

fn groups(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

/// Every account in `kube-system`.
fn system_accounts() -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}})
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster_scope: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster_scope {
        rule["clusterScope"] = true.into();
    }
    rule
}

/// A rule for whatever these subjects ask.
fn everything(subjects: Value) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [resources(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

fn schema(name: &str, level: &str, precedence: i64, by: &str, rule: Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": [rule],
    });
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": "FlowSchema",
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}},
        "spec": spec,
    })
}

/// Everybody, whether known or not.
const ANYBODY: [&str; 2] = ["system:unauthenticated", "system:authenticated"];
const USER: &str = "ByUser";
const NAMESPACE: &str = "ByNamespace";

/// `exempt` and `catch-all`.
#[must_use]
pub fn mandatory_schemas() -> Vec<Value> {
    vec![
        schema("exempt", "exempt", 1, "", everything(groups(&["system:masters"]))),
        schema("catch-all", "catch-all", 10000, USER, everything(groups(&ANYBODY))),
    ]
}

/// The schemas that sort a usual cluster's work.
#[must_use]
pub fn suggested_schemas() -> Vec<Value> {
    let nodes = || groups(&["system:nodes"]);
    let probes = json!({
        "subjects": groups(&ANYBODY),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    });
    let elections = json!({
        "subjects": [user("system:kube-controller-manager"), user("system:kube-scheduler"), system_accounts()],
        "resourceRules": [resources(&["get", "create", "update"], "coordination.k8s.io", &["leases"], false)],
    });
    let node_health = json!({
        "subjects": nodes(),
        "resourceRules": [
            resources(&["*"], "", &["nodes", "nodes/status"], true),
            resources(&["*"], "coordination.k8s.io", &["leases"], false),
        ],
    });
    let of = |subject: Value| everything(json!([subject]));
    vec![
        schema("system-nodes", "system", 500, USER, everything(nodes())),
        schema("system-node-high", "node-high", 400, USER, node_health),
        schema("probes", "exempt", 2, "", probes),
        schema("system-leader-election", "leader-election", 100, USER, elections),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            NAMESPACE,
            of(user("system:kube-controller-manager")),
        ),
        schema("kube-scheduler", "workload-high", 800, NAMESPACE, of(user("system:kube-scheduler"))),
        schema("kube-system-service-accounts", "workload-high", 900, NAMESPACE, of(system_accounts())),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            USER,
            everything(groups(&["system:serviceaccounts"])),
        ),
        schema("global-default", "global-default", 9900, USER, everything(groups(&ANYBODY))),
    ]
}
