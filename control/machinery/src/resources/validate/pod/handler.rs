//! Probes and lifecycle hooks.

use serde_json::Value;

use super::rules;
use crate::{
    field::{FieldError, Path},
    names,
    resources::{access::Get, validate::Errors},
};

/// Which way of acting a probe or hook has; each in upstream's order.
const PROBES: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const HOOKS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];

pub(super) fn lifecycle(path: &Path, lifecycle: &Value, grace: Option<i64>, errors: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        if lifecycle.has(hook) {
            handler(&path.child(hook), lifecycle.at(hook), &HOOKS, grace, errors);
        }
    }
}

pub(super) fn probes(path: &Path, container: &Value, grace: Option<i64>, errors: &mut Errors) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.at(name);
        if probe.is_null() {
            continue;
        }
        let path = path.child(name);
        handler(&path, probe, &PROBES, grace, errors);
        let counts = [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ];
        rules::not_negatives(&path, probe, &counts, errors);
        let own_grace = probe.int("terminationGracePeriodSeconds");
        let grace_path = path.child("terminationGracePeriodSeconds");
        if let Some(seconds) = own_grace.filter(|seconds| *seconds <= 0) {
            errors.push(FieldError::invalid(&grace_path, seconds, "must be greater than 0"));
        }
        match (name, own_grace) {
            ("readinessProbe", Some(seconds)) => {
                errors.push(FieldError::invalid(&grace_path, seconds, "must not be set for readinessProbes"));
            }
            ("readinessProbe", None) => {}
            _ => {
                let threshold = probe.int("successThreshold").unwrap_or_default();
                if threshold != 1 {
                    errors.push(FieldError::invalid(&path.child("successThreshold"), threshold, "must be 1"));
                }
            }
        }
    }
}

fn handler(path: &Path, handler: &Value, kinds: &[&str], grace: Option<i64>, errors: &mut Errors) {
    let mut found = false;
    for kind in kinds.iter().filter(|kind| handler.has(kind)) {
        let (path, action) = (path.child(kind), handler.at(kind));
        if found {
            errors.push(FieldError::forbidden(&path, "may not specify more than 1 handler type"));
            continue;
        }
        found = true;
        match *kind {
            "exec" => {
                if action.items("command").is_empty() {
                    errors.push(FieldError::required(&path.child("command"), ""));
                }
            }
            "httpGet" => http_get(&path, action, errors),
            "tcpSocket" | "grpc" => rules::port(&path.child("port"), action.at("port"), errors),
            _ => sleep(&path, action, grace, errors),
        }
    }
    if !found {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
}

fn http_get(path: &Path, action: &Value, errors: &mut Errors) {
    rules::required(&path.child("path"), action.text("path"), errors);
    rules::port(&path.child("port"), action.at("port"), errors);
    let scheme = action.text("scheme");
    if !["HTTP", "HTTPS"].contains(&scheme) {
        errors.push(FieldError::not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]));
    }
    for header in action.items("httpHeaders") {
        let name = header.text("name");
        rules::text(&path.child("httpHeaders"), name, names::http_header_name(name), errors);
    }
}

fn sleep(path: &Path, action: &Value, grace: Option<i64>, errors: &mut Errors) {
    let seconds = action.int("seconds").unwrap_or_default();
    if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.push(FieldError::invalid(path, seconds, detail));
    }
}
