//! The core group's smaller kinds.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    age::{age, since},
    format::{len, name, or, scalar},
};
use crate::access::Get;

pub(super) fn component_status(status: &Value, _: Timestamp) -> Vec<Value> {
    let healthy = status.items("conditions").iter().find(|condition| condition.text("type") == "Healthy");
    let (state, message, error) = healthy.map_or(("Unknown", "", ""), |condition| {
        let state = match condition.text("status") {
            "True" => "Healthy",
            "False" => "Unhealthy",
            _ => "Unknown",
        };
        (state, condition.text("message"), condition.text("error"))
    });
    vec![name(status), json!(state), json!(message), json!(error)]
}

pub(super) fn config_map(map: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(map), json!(len(map.fields("data")) + len(map.fields("binaryData"))), age(map, now)]
}

pub(super) fn secret(secret: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(secret), json!(secret.text("type")), json!(len(secret.fields("data"))), age(secret, now)]
}

pub(super) fn service_account(account: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(account), json!(account.items("secrets").len()), age(account, now)]
}

pub(super) fn namespace(namespace: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(namespace), json!(namespace.text("status.phase")), age(namespace, now)]
}

pub(super) fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let first = or(event.text("firstTimestamp"), event.text("eventTime"));
    let series = event.at("series");
    let (last, count) = if series.is_object() {
        (series.text("lastObservedTime"), series.int("count").unwrap_or_default())
    } else {
        (or(event.text("lastTimestamp"), first), event.int("count").unwrap_or_default().max(1))
    };
    let object = event.at("involvedObject");
    let kind = object.text("kind").to_lowercase();
    let target = match object.text("name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        json!(since(last, now)),
        json!(event.text("type")),
        json!(event.text("reason")),
        json!(target),
        json!(object.text("fieldPath")),
        json!(source(event)),
        json!(event.text("message").trim()),
        json!(since(first, now)),
        json!(count),
        name(event),
    ]
}

/// Who reported, and from where.
fn source(event: &Value) -> String {
    let component = or(event.text("source.component"), event.text("reportingComponent"));
    let host = or(event.text("source.host"), event.text("reportingInstance"));
    match host {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}

pub(super) fn resource_quota(quota: &Value, now: Timestamp) -> Vec<Value> {
    let mut columns = [Vec::new(), Vec::new()];
    for (resource, hard) in quota.fields("status.hard").into_iter().flatten() {
        let used = quota.fields("status.used").and_then(|used| used.get(resource)).unwrap_or(&Value::Null);
        let text = format!("{resource}: {}/{}", scalar(used, "0"), scalar(hard, "0"));
        let [requests, limits] = &mut columns;
        if resource.starts_with("limits.") { limits } else { requests }.push(text);
    }
    let [requests, limits] = columns;
    vec![name(quota), json!(requests.join(", ")), json!(limits.join(", ")), age(quota, now)]
}
