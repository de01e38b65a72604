//! Amounts of resources.

use serde_json::Value;

use super::{Errors, rules::NOT_NEGATIVE};
use crate::{
    field::{FieldError, Path},
    names,
    quantity::Quantity,
    resources::access::{Fields, Get},
};

/// An amount as a client may write it: text, or a plain number.
pub(super) fn parse(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

const UNPARSABLE: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

pub(super) fn amount(path: &Path, value: &Value, errors: &mut Errors) -> Option<Quantity> {
    let Some(quantity) = parse(value) else {
        errors.push(FieldError::invalid(path, value.clone(), UNPARSABLE));
        return None;
    };
    if quantity.sign() < 0 {
        errors.push(FieldError::invalid(path, quantity.canonical(), NOT_NEGATIVE));
    }
    Some(quantity)
}

/// A name with no domain, or with Kubernetes' own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_integer_resource(name: &str) -> bool {
    matches!(
        name,
        "pods" | "services" | "replicationcontrollers" | "resourcequotas" | "secrets" | "configmaps"
    ) || (!is_native(name) && !name.starts_with("requests."))
}

fn resource_name(path: &Path, name: &str, errors: &mut Errors) {
    let messages = names::qualified_name(name);
    if messages.is_empty() && !name.contains('/') {
        let standard =
            matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        if !standard {
            let detail = "must be a standard resource for containers";
            errors.push(FieldError::invalid(path, name, detail));
        }
    }
    super::rules::text(path, name, messages, errors);
    if name.contains('/') && is_native(name) {
        errors.push(FieldError::invalid(path, name, "must be a standard resource type or fully qualified"));
    }
}

/// A container's (or pod's) requests and limits.
pub(super) fn requirements(path: &Path, resources: &Value, errors: &mut Errors) {
    let empty = Fields::new();
    let limits = resources.fields("limits").unwrap_or(&empty);
    let requests = resources.fields("requests").unwrap_or(&empty);
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    for (name, value) in limits {
        let path = limits_path.key(name);
        resource_name(&path, name, errors);
        integral(&path, name, value, errors);
    }
    for (name, value) in requests {
        let path = requests_path.key(name);
        resource_name(&path, name, errors);
        let request = integral(&path, name, value, errors);
        let fixed = name.starts_with("hugepages-") || !is_native(name);
        match (request, limits.get(name).and_then(parse)) {
            (Some(request), Some(limit)) => {
                let (request_text, limit_text) = (request.canonical(), limit.canonical());
                let order = request.sub(&limit).sign();
                if fixed && order != 0 {
                    let detail = format!("must be equal to {name} limit of {limit_text}");
                    errors.push(FieldError::invalid(&requests_path, request_text, detail));
                } else if !fixed && order > 0 {
                    let detail = format!("must be less than or equal to {name} limit of {limit_text}");
                    errors.push(FieldError::invalid(&requests_path, request_text, detail));
                }
            }
            (Some(_), None) if fixed && !limits.contains_key(name) => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(&limits_path, detail));
            }
            _ => {}
        }
    }
    let huge = |name: &String| name.starts_with("hugepages-");
    let computes = |name: &String| name == "cpu" || name == "memory";
    let any = |test: &dyn Fn(&String) -> bool| limits.keys().chain(requests.keys()).any(test);
    if any(&huge) && !any(&computes) {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
}

/// An amount that may have to be whole.
pub(super) fn integral(path: &Path, name: &str, value: &Value, errors: &mut Errors) -> Option<Quantity> {
    let quantity = amount(path, value, errors)?;
    if is_integer_resource(name) && quantity.as_i64().is_none() {
        errors.push(FieldError::invalid(path, quantity.canonical(), "must be an integer"));
    }
    Some(quantity)
}
