//! Roles, budgets, priorities, leases, signing requests, autoscalers, runtime classes.

use serde_json::Value;

use super::{Errors, rules, selector};
use crate::{
    field::{FieldError, Path},
    names,
    resources::access::{Get, same},
};

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn role(role: &Value, errors: &mut Errors) {
    let cluster = role.text("metadata.namespace").is_empty();
    for (index, rule) in role.items("rules").iter().enumerate() {
        policy_rule(&Path::new("rules").index(index), rule, !cluster, errors);
    }
    for (index, selector) in role.items("aggregationRule.clusterRoleSelectors").iter().enumerate() {
        let path = Path::new("aggregationRule").child("clusterRoleSelectors").index(index);
        selector::label_selector(&path, selector, errors);
    }
}

fn policy_rule(path: &Path, rule: &Value, namespaced: bool, errors: &mut Errors) {
    if rule.items("verbs").is_empty() {
        errors.push(FieldError::required(&path.child("verbs"), "verbs must contain at least one value"));
    }
    if !rule.items("nonResourceURLs").is_empty() {
        let urls = rule.at("nonResourceURLs").clone();
        if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.push(FieldError::invalid(&path.child("nonResourceURLs"), urls.clone(), detail));
        }
        if ["apiGroups", "resources", "resourceNames"].iter().any(|key| !rule.items(key).is_empty()) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(&path.child("nonResourceURLs"), urls, detail));
        }
        return;
    }
    if rule.items("apiGroups").is_empty() {
        let detail = "resource rules must supply at least one api group";
        errors.push(FieldError::required(&path.child("apiGroups"), detail));
    }
    if rule.items("resources").is_empty() {
        let detail = "resource rules must supply at least one resource";
        errors.push(FieldError::required(&path.child("resources"), detail));
    }
}

pub(super) fn role_binding(binding: &Value, errors: &mut Errors) {
    let (path, role) = (Path::new("roleRef"), binding.at("roleRef"));
    let namespaced = !binding.text("metadata.namespace").is_empty();
    let group = role.text("apiGroup");
    if group != RBAC {
        errors.push(FieldError::not_supported(&path.child("apiGroup"), group, &[RBAC]));
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    let kind = role.text("kind");
    if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported(&path.child("kind"), kind, kinds));
    }
    let name = role.text("name");
    if rules::required(&path.child("name"), name, errors) {
        rules::text(&path.child("name"), name, names::path_segment(name), errors);
    }
    for (index, subject) in binding.items("subjects").iter().enumerate() {
        role_subject(&Path::new("subjects").index(index), subject, namespaced, errors);
    }
}

fn role_subject(path: &Path, subject: &Value, namespaced: bool, errors: &mut Errors) {
    let (name, group) = (subject.text("name"), subject.text("apiGroup"));
    rules::required(&path.child("name"), name, errors);
    let expected = match subject.text("kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                rules::subdomain(&path.child("name"), name, errors);
            }
            if !namespaced && subject.text("namespace").is_empty() {
                errors.push(FieldError::required(&path.child("namespace"), ""));
            }
            ""
        }
        "User" | "Group" => RBAC,
        other => {
            let kinds = ["ServiceAccount", "User", "Group"];
            errors.push(FieldError::not_supported(&path.child("kind"), other, &kinds));
            return;
        }
    };
    if group != expected {
        errors.push(FieldError::not_supported(&path.child("apiGroup"), group, &[expected]));
    }
}

pub(super) fn role_binding_update(new: &Value, old: &Value, errors: &mut Errors) {
    if !same(new.at("roleRef"), old.at("roleRef")) {
        let detail = "cannot change roleRef";
        errors.push(FieldError::invalid(&Path::new("roleRef"), new.at("roleRef").clone(), detail));
    }
}

pub(super) fn disruption_budget(budget: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), budget.at("spec"));
    if spec.has("minAvailable") && spec.has("maxUnavailable") {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid(&path, spec.clone(), detail));
    }
    for key in ["minAvailable", "maxUnavailable"] {
        rules::count_or_percent(&path.child(key), spec.at(key), errors);
        rules::not_over_100_percent(&path.child(key), spec.at(key), errors);
    }
    selector::label_selector(&path.child("selector"), spec.at("selector"), errors);
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    let policy = spec.text("unhealthyPodEvictionPolicy");
    rules::supported_or_empty(&path.child("unhealthyPodEvictionPolicy"), policy, &policies, errors);
}

/// Above this are the system's own classes.
const USER_PRIORITY_MAX: i64 = 1_000_000_000;

pub(super) fn priority_class(class: &Value, errors: &mut Errors) {
    let (name, value) = (class.text("metadata.name"), class.int("value").unwrap_or_default());
    if let Some(known) = match name {
        "system-cluster-critical" => Some(2_000_000_000),
        "system-node-critical" => Some(2_000_001_000),
        _ => None,
    } {
        if value != known {
            let detail = format!("value of {name} PriorityClass must be {known}");
            errors.push(FieldError::forbidden(&Path::from("metadata.name"), detail));
        }
    } else if name.starts_with("system-") {
        let detail = "priority class names with 'system-' prefix are reserved for system use only. error: "
            .to_owned()
            + name
            + " is not a known system priority class";
        errors.push(FieldError::forbidden(&Path::from("metadata.name"), detail));
    } else if value > USER_PRIORITY_MAX {
        let detail = format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
        errors.push(FieldError::forbidden(&Path::new("value"), detail));
    }
    let policies = ["PreemptLowerPriority", "Never"];
    let policy = class.text("preemptionPolicy");
    rules::supported_or_empty(&Path::new("preemptionPolicy"), policy, &policies, errors);
}

pub(super) fn priority_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    if new.int("value").unwrap_or_default() != old.int("value").unwrap_or_default() {
        let detail = "may not be changed in an update.";
        errors.push(FieldError::forbidden(&Path::new("value"), detail));
    }
    let key = "preemptionPolicy";
    rules::immutable(&Path::new(key), new.at(key), old.at(key), errors);
}

pub(super) fn lease(lease: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), lease.at("spec"));
    if let Some(seconds) = spec.int("leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
        let detail = "must be greater than 0";
        errors.push(FieldError::invalid(&path.child("leaseDurationSeconds"), seconds, detail));
    }
    if let Some(count) = spec.int("leaseTransitions").filter(|count| *count < 0) {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(&path.child("leaseTransitions"), count, detail));
    }
}

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

pub(super) fn signing_request(request: &Value, errors: &mut Errors) {
    use base64::Engine as _;
    let (path, spec) = (Path::new("spec"), request.at("spec"));
    let decoded = base64::engine::general_purpose::STANDARD.decode(spec.text("request")).unwrap_or_default();
    let pem = String::from_utf8_lossy(&decoded);
    if !pem.contains("-----BEGIN CERTIFICATE REQUEST-----")
        && !pem.contains("-----BEGIN NEW CERTIFICATE REQUEST-----")
    {
        let detail = "PEM block type must be CERTIFICATE REQUEST";
        errors.push(FieldError::invalid(&path.child("request"), spec.at("request").clone(), detail));
    }
    let usages = spec.items("usages");
    if usages.is_empty() {
        errors.push(FieldError::required(&path.child("usages"), ""));
    }
    for (index, usage) in usages.iter().enumerate() {
        let text = usage.as_str().unwrap_or_default();
        let path = path.child("usages").index(index);
        if !USAGES.contains(&text) {
            errors.push(FieldError::not_supported(&path, text, USAGES));
        }
        if usages.iter().take(index).any(|other| other == usage) {
            errors.push(FieldError::duplicate(&path, text));
        }
    }
    signer_name(&path.child("signerName"), spec.text("signerName"), errors);
    if let Some(seconds) = spec.int("expirationSeconds").filter(|seconds| *seconds < 600) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid(&path.child("expirationSeconds"), seconds, detail));
    }
}

fn signer_name(path: &Path, name: &str, errors: &mut Errors) {
    if !rules::required(path, name, errors) {
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(path, name, detail));
        return;
    };
    for message in names::dns1123_subdomain(domain) {
        errors.push(FieldError::invalid(path, domain, format!("validating label \"{domain}\": {message}")));
    }
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, domain, detail));
    }
    if rest.is_empty() {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(path, name, detail));
    }
}

/// A decision is one or the other, and is not taken back.
pub(super) fn signing_request_conditions(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("status").child("conditions");
    let conditions = new.items("status.conditions");
    let has = |list: &[Value], kind: &str| list.iter().any(|condition| condition.text("type") == kind);
    if has(conditions, "Approved") && has(conditions, "Denied") {
        let index = conditions.iter().rposition(|c| matches!(c.text("type"), "Approved" | "Denied"));
        let path = path.index(index.unwrap_or_default()).child("type");
        errors.push(FieldError::invalid(
            &path,
            "Denied",
            "Approved and Denied conditions are mutually exclusive",
        ));
    }
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        rules::required(&path.child("type"), condition.text("type"), errors);
        match condition.text("status") {
            "" => errors.push(FieldError::required(&path.child("status"), "")),
            "True" => {}
            "False" | "Unknown" if matches!(condition.text("type"), "Approved" | "Denied" | "Failed") => {
                let status = condition.text("status");
                errors.push(FieldError::not_supported(&path.child("status"), status, &["True"]));
            }
            "False" | "Unknown" => {}
            other => {
                let supported = ["True", "False", "Unknown"];
                errors.push(FieldError::not_supported(&path.child("status"), other, &supported));
            }
        }
    }
    for kind in ["Approved", "Denied", "Failed"] {
        if has(old.items("status.conditions"), kind) && !has(conditions, kind) {
            let detail = format!("updates may not remove a condition of type \"{kind}\"");
            errors.push(FieldError::forbidden(&path, detail));
        }
    }
    let certificate = old.text("status.certificate");
    if !certificate.is_empty() && new.text("status.certificate") != certificate {
        let path = Path::new("status").child("certificate");
        errors.push(FieldError::forbidden(&path, "updates may not modify a non-empty certificate"));
    }
}

pub(super) fn horizontal_pod_autoscaler(hpa: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), hpa.at("spec"));
    let (min, max) = (spec.int("minReplicas"), spec.int("maxReplicas").unwrap_or_default());
    if let Some(min) = min.filter(|min| *min < 1) {
        let detail = "must be greater than or equal to 1";
        errors.push(FieldError::invalid(&path.child("minReplicas"), min, detail));
    }
    if max < 1 {
        errors.push(FieldError::invalid(&path.child("maxReplicas"), max, "must be greater than 0"));
    }
    if min.is_some_and(|min| max < min) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid(&path.child("maxReplicas"), max, detail));
    }
    let (path, target) = (path.child("scaleTargetRef"), spec.at("scaleTargetRef"));
    for key in ["kind", "name"] {
        let value = target.text(key);
        if rules::required(&path.child(key), value, errors) {
            rules::text(&path.child(key), value, names::path_segment(value), errors);
        }
    }
}

pub(super) fn runtime_class(class: &Value, errors: &mut Errors) {
    rules::label(&Path::new("handler"), class.text("handler"), errors);
    rules::labels(
        &Path::new("scheduling").child("nodeSelector"),
        class.at("scheduling.nodeSelector"),
        errors,
    );
}

pub(super) fn runtime_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    rules::immutable(&Path::new("handler"), new.at("handler"), old.at("handler"), errors);
}
