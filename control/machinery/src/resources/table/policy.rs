//! Roles, budgets, priorities, autoscalers, webhooks and the rest of what governs.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    age::{age, human_duration, since},
    format::{condition, count, labels, name, or, scalar, some},
};
use crate::access::Get;

pub(super) fn name_and_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

pub(super) fn role_binding(binding: &Value, now: Timestamp) -> Vec<Value> {
    let of = |kind: &str| {
        let all = binding.items("subjects").iter().filter(|subject| subject.text("kind") == kind);
        let texts = all.map(|subject| match (kind, subject.text("namespace")) {
            ("ServiceAccount", namespace) => format!("{namespace}/{}", subject.text("name")),
            _ => subject.text("name").to_owned(),
        });
        json!(texts.collect::<Vec<_>>().join(", "))
    };
    vec![
        name(binding),
        json!(format!("{}/{}", binding.text("roleRef.kind"), binding.text("roleRef.name"))),
        age(binding, now),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}

pub(super) fn disruption_budget(budget: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(budget),
        json!(scalar(budget.at("spec.minAvailable"), "N/A")),
        json!(scalar(budget.at("spec.maxUnavailable"), "N/A")),
        count(budget, "status.disruptionsAllowed"),
        age(budget, now),
    ]
}

pub(super) fn priority_class(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(class),
        count(class, "value"),
        json!(class.flag("globalDefault")),
        age(class, now),
        json!(or(class.text("preemptionPolicy"), "PreemptLowerPriority")),
    ]
}

pub(super) fn runtime_class(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(class), json!(class.text("handler")), age(class, now)]
}

pub(super) fn lease(lease: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(lease), json!(lease.text("spec.holderIdentity")), age(lease, now)]
}

pub(super) fn lease_candidate(candidate: &Value, now: Timestamp) -> Vec<Value> {
    let text = |path: &str| json!(candidate.text(path));
    let versions = [text("spec.leaseName"), text("spec.binaryVersion"), text("spec.emulationVersion")];
    [name(candidate)].into_iter().chain(versions).chain([age(candidate, now)]).collect()
}

pub(super) fn trust_bundle(bundle: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(bundle), json!(or(bundle.text("spec.signerName"), "<none>"))]
}

pub(super) fn pod_certificate_request(request: &Value, _: Timestamp) -> Vec<Value> {
    let mut kinds = request.items("status.conditions").iter().map(|condition| condition.text("type"));
    let state = kinds.rfind(|kind| ["Issued", "Denied", "Failed"].contains(kind));
    let text = |path: &str| json!(request.text(path));
    vec![
        name(request),
        text("spec.podName"),
        text("spec.serviceAccountName"),
        text("spec.nodeName"),
        text("spec.signerName"),
        json!(state.unwrap_or("Pending")),
        json!(labels(request.at("spec.unverifiedUserAnnotations"))),
    ]
}

pub(super) fn device_taint_rule(rule: &Value, now: Timestamp) -> Vec<Value> {
    let taint = rule.at("spec.taint");
    let added = taint.text("timeAdded");
    vec![
        name(rule),
        json!(taint.text("key")),
        json!(taint.text("value")),
        json!(taint.text("effect")),
        json!(if added.is_empty() { String::new() } else { since(added, now) }),
        age(rule, now),
    ]
}

pub(super) fn migration(migration: &Value, _: Timestamp) -> Vec<Value> {
    let (resource, group) = (migration.text("spec.resource.resource"), migration.text("spec.resource.group"));
    let conditions = migration.items("status.conditions").iter().filter(|c| c.text("status") == "True");
    let state = conditions.map(|c| c.text("type")).rfind(|t| ["Running", "Failed", "Succeeded"].contains(t));
    let of = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    vec![name(migration), json!(of), json!(state.unwrap_or("Unknown"))]
}

pub(super) fn scale(scale: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(scale), count(scale, "spec.replicas"), count(scale, "status.replicas"), age(scale, now)]
}

pub(super) fn signing_request(request: &Value, now: Timestamp) -> Vec<Value> {
    let duration = request.int("spec.expirationSeconds").map_or_else(|| "<none>".to_owned(), human_duration);
    let mut state = match (condition(request, "Denied"), condition(request, "Approved")) {
        (Some(_), _) => "Denied",
        (None, Some(_)) => "Approved",
        (None, None) => "Pending",
    }
    .to_owned();
    if condition(request, "Failed").is_some() {
        state.push_str(",Failed");
    }
    if !request.text("status.certificate").is_empty() {
        state.push_str(",Issued");
    }
    vec![
        name(request),
        age(request, now),
        json!(or(request.text("spec.signerName"), "<none>")),
        json!(request.text("spec.username")),
        json!(duration),
        json!(state),
    ]
}

/// How many of an autoscaler's metrics fit into a cell.
const METRICS_SHOWN: usize = 2;

pub(super) fn horizontal_pod_autoscaler(hpa: &Value, now: Timestamp) -> Vec<Value> {
    let target = hpa.at("spec.scaleTargetRef");
    let current = hpa.items("status.currentMetrics");
    let metrics: Vec<String> = hpa
        .items("spec.metrics")
        .iter()
        .enumerate()
        .map(|(index, metric)| metric_text(metric, current.get(index).unwrap_or(&Value::Null)))
        .collect();
    vec![
        name(hpa),
        json!(format!("{}/{}", target.text("kind"), target.text("name"))),
        json!(or(&some(&metrics, METRICS_SHOWN, ", "), "<none>")),
        json!(scalar(hpa.at("spec.minReplicas"), "<unset>")),
        count(hpa, "spec.maxReplicas"),
        count(hpa, "status.currentReplicas"),
        age(hpa, now),
    ]
}

/// `cpu: 10%/80%`: what is, and what is aimed at.
fn metric_text(metric: &Value, current: &Value) -> String {
    let (field, label) = match metric.text("type") {
        "Resource" => ("resource", format!("{}: ", metric.text("resource.name"))),
        "ContainerResource" => ("containerResource", format!("{}: ", metric.text("containerResource.name"))),
        "Pods" => ("pods", String::new()),
        "Object" => ("object", String::new()),
        "External" => ("external", String::new()),
        _ => return "<unknown type>".to_owned(),
    };
    let (target, now) = (metric.at(field).at("target"), current.at(field).at("current"));
    let unknown = "<unknown>";
    for (key, unit, suffix) in
        [("averageUtilization", "%", ""), ("averageValue", "", " (avg)"), ("value", "", "")]
    {
        if !target.has(key) {
            continue;
        }
        let has = if now.has(key) { scalar(now.at(key), unknown) + unit } else { unknown.to_owned() };
        let suffix = if matches!(field, "object" | "external") { suffix } else { "" };
        return format!("{label}{has}/{}{unit}{suffix}", scalar(target.at(key), unknown));
    }
    format!("{label}{unknown}/<auto>")
}

pub(super) fn webhooks(configuration: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(configuration), json!(configuration.items("webhooks").len()), age(configuration, now)]
}

fn parameters(policy: &Value) -> String {
    let kind = policy.at("spec.paramKind");
    if !kind.is_object() {
        return "<unset>".to_owned();
    }
    format!("{}/{}", kind.text("apiVersion"), kind.text("kind"))
}

pub(super) fn validating_policy(policy: &Value, now: Timestamp) -> Vec<Value> {
    let rules = policy.items("spec.validations").len();
    vec![name(policy), json!(rules), json!(parameters(policy)), age(policy, now)]
}

pub(super) fn mutating_policy(policy: &Value, now: Timestamp) -> Vec<Value> {
    let rules = policy.items("spec.mutations").len();
    vec![name(policy), json!(rules), json!(parameters(policy)), age(policy, now)]
}

pub(super) fn policy_binding(binding: &Value, now: Timestamp) -> Vec<Value> {
    let reference = binding.at("spec.paramRef");
    let text = match (reference.text("namespace"), reference.text("name")) {
        _ if !reference.is_object() => "<unset>".to_owned(),
        (_, "") => "<selector>".to_owned(),
        ("", name) => format!("*/{name}"),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    vec![name(binding), json!(binding.text("spec.policyName")), json!(text), age(binding, now)]
}

pub(super) fn api_service(service: &Value, now: Timestamp) -> Vec<Value> {
    let reference = service.at("spec.service");
    let behind = if reference.is_object() {
        format!("{}/{}", reference.text("namespace"), reference.text("name"))
    } else {
        "Local".to_owned()
    };
    let available = condition(service, "Available").map_or_else(
        || "Unknown".to_owned(),
        |condition| match (condition.text("status"), condition.text("reason")) {
            ("True", _) => "True".to_owned(),
            (status, reason) => format!("{status} ({reason})"),
        },
    );
    vec![name(service), json!(behind), json!(available), age(service, now)]
}

pub(super) fn flow_schema(schema: &Value, now: Timestamp) -> Vec<Value> {
    let missing = condition(schema, "Dangling").map_or("?", |condition| condition.text("status"));
    vec![
        name(schema),
        json!(schema.text("spec.priorityLevelConfiguration.name")),
        count(schema, "spec.matchingPrecedence"),
        json!(or(schema.text("spec.distinguisherMethod.type"), "<none>")),
        age(schema, now),
        json!(missing),
    ]
}

pub(super) fn priority_level(level: &Value, now: Timestamp) -> Vec<Value> {
    let spec = level.at("spec");
    let shares = if spec.has("limited") {
        spec.at("limited.nominalConcurrencyShares")
    } else {
        spec.at("exempt.nominalConcurrencyShares")
    };
    let queuing = spec.at("limited.limitResponse.queuing");
    let none = |value: &Value| json!(scalar(value, "<none>"));
    vec![
        name(level),
        json!(spec.text("type")),
        none(shares),
        none(queuing.at("queues")),
        none(queuing.at("handSize")),
        none(queuing.at("queueLengthLimit")),
        age(level, now),
    ]
}

pub(super) fn resource_claim(claim: &Value, now: Timestamp) -> Vec<Value> {
    let mut states = Vec::new();
    if claim.has("metadata.deletionTimestamp") {
        states.push("deleted");
    }
    if claim.has("status.allocation") {
        states.push("allocated");
    }
    if !claim.items("status.reservedFor").is_empty() {
        states.push("reserved");
    }
    vec![name(claim), json!(or(&states.join(","), "pending")), age(claim, now)]
}

pub(super) fn resource_slice(slice: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(slice),
        json!(or(slice.text("spec.nodeName"), "<unset>")),
        json!(slice.text("spec.driver")),
        json!(slice.text("spec.pool.name")),
        age(slice, now),
    ]
}
