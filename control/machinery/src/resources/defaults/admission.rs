//! What extends the server: webhooks, admission policies, custom resources, aggregated APIs.

use serde_json::{Value, json};

use crate::access::{Fields, Get, default, default_text, entries, existing, object};

const HTTPS: i64 = 443;

pub(super) fn validating_webhooks(configuration: &mut Value) {
    for hook in entries(configuration, "webhooks") {
        webhook(hook);
    }
}

pub(super) fn mutating_webhooks(configuration: &mut Value) {
    for hook in entries(configuration, "webhooks") {
        webhook(hook);
        default(hook, "reinvocationPolicy", "Never");
    }
}

fn webhook(hook: &mut Value) {
    default(hook, "failurePolicy", "Fail");
    default(hook, "timeoutSeconds", 10);
    match_conditions(hook, "rules");
    if let Some(service) = existing(hook, "clientConfig.service") {
        default(service, "port", HTTPS);
    }
}

/// What requests are meant: shared by webhooks and policies.
fn match_conditions(matcher: &mut Value, rules: &str) {
    default(matcher, "matchPolicy", "Equivalent");
    default(matcher, "namespaceSelector", Fields::new());
    default(matcher, "objectSelector", Fields::new());
    for rule in entries(matcher, rules) {
        default(rule, "scope", "*");
    }
    for rule in entries(matcher, "excludeResourceRules") {
        default(rule, "scope", "*");
    }
}

pub(super) fn policy(policy: &mut Value) {
    let Some(spec) = object(policy, "spec") else { return };
    default(spec, "failurePolicy", "Fail");
    if let Some(constraints) = existing(spec, "matchConstraints") {
        match_conditions(constraints, "resourceRules");
    }
}

pub(super) fn policy_binding(binding: &mut Value) {
    if let Some(resources) = existing(binding, "spec.matchResources") {
        match_conditions(resources, "resourceRules");
    }
}

pub(super) fn custom_resource_definition(definition: &mut Value) {
    let Some(spec) = object(definition, "spec") else { return };
    if let Some(names) = object(spec, "names") {
        let kind = names.text("kind").to_owned();
        if !kind.is_empty() {
            default_text(names, "singular", &kind.to_lowercase());
            default_text(names, "listKind", &format!("{kind}List"));
        }
    }
    default(spec, "conversion", json!({"strategy": "None"}));
    if let Some(service) = existing(spec, "conversion.webhook.clientConfig.service") {
        default(service, "port", HTTPS);
    }
}

pub(super) fn api_service(service: &mut Value) {
    if let Some(reference) = existing(service, "spec.service") {
        default(reference, "port", HTTPS);
    }
}
