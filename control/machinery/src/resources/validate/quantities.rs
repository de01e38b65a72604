//! Amounts of resources, and the names resources have.

use serde_json::Value;

use super::{
    Errors,
    rules::{self, NOT_NEGATIVE},
};
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

/// An amount of something that there must be some of.
pub(super) fn positive(path: &Path, value: &Value, errors: &mut Errors) -> Option<Quantity> {
    match parse(value) {
        Some(quantity) if quantity.sign() <= 0 => {
            errors.push(FieldError::invalid(path, quantity.canonical(), "must be greater than zero"));
            None
        }
        Some(quantity) => Some(quantity),
        None => amount(path, value, errors),
    }
}

/// What is counted, and quotas of it.
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// What is measured, and quotas of it.
const MEASURED: [&str; 10] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether a quota may limit a resource by this name.
pub(super) fn is_quota_name(name: &str) -> bool {
    COUNTED.contains(&name)
        || MEASURED.contains(&name)
        || is_huge(name)
        || name.starts_with("requests.hugepages-")
}

/// A name with no domain, or with Kubernetes' own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// A resource somebody else offers, in whole units.
fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether limits may be above requests.
pub(super) fn overcommits(name: &str) -> bool {
    is_native(name) && !is_huge(name)
}

/// A resource by any name. False where it is none.
fn any_name(path: &Path, name: &str, errors: &mut Errors) -> bool {
    let messages = names::qualified_name(name);
    let qualified = messages.is_empty();
    rules::text(path, name, messages, errors);
    if qualified && !name.contains('/') && !is_quota_name(name) && name != "storage" {
        errors.push(FieldError::invalid(path, name, "must be a standard resource type or fully qualified"));
        return false;
    }
    qualified
}

/// What a container may ask for.
pub(super) fn resource_name(path: &Path, name: &str, errors: &mut Errors) {
    any_name(path, name, errors);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge(name) {
            errors.push(FieldError::invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(FieldError::invalid(path, name, "doesn't follow extended resource name standard"));
    }
}

/// What a pod may ask for as a whole.
fn pod_resource_name(path: &Path, name: &str, errors: &mut Errors) {
    if any_name(path, name, errors) && !matches!(name, "cpu" | "memory") && !is_huge(name) {
        errors.push(FieldError::not_supported(path, name, &["cpu", "hugepages-", "memory"]));
    }
}

/// What a quota may limit.
pub(super) fn quota_name(path: &Path, name: &str, errors: &mut Errors) {
    any_name(path, name, errors);
    if !name.contains('/') && !is_quota_name(name) {
        errors.push(FieldError::invalid(path, name, "must be a standard resource for quota"));
    }
}

/// What a limit range may bound for things of a kind.
pub(super) fn limited_name(path: &Path, kind: &str, name: &str, errors: &mut Errors) {
    match kind {
        "Pod" | "Container" => resource_name(path, name, errors),
        _ => {
            any_name(path, name, errors);
        }
    }
}

/// A container's requests and limits.
pub(super) fn requirements(path: &Path, resources: &Value, errors: &mut Errors) {
    amounts(path, resources, resource_name, errors);
}

/// A whole pod's requests and limits.
pub(super) fn pod_requirements(path: &Path, resources: &Value, errors: &mut Errors) {
    amounts(path, resources, pod_resource_name, errors);
}

fn amounts(path: &Path, resources: &Value, named: fn(&Path, &str, &mut Errors), errors: &mut Errors) {
    let empty = Fields::new();
    let limits = resources.fields("limits").unwrap_or(&empty);
    let requests = resources.fields("requests").unwrap_or(&empty);
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    for (name, value) in limits {
        let path = limits_path.key(name);
        named(&path, name, errors);
        integral(&path, name, value, errors);
        whole_pages(&path, name, value, errors);
    }
    for (name, value) in requests {
        let path = requests_path.key(name);
        named(&path, name, errors);
        let request = integral(&path, name, value, errors);
        let fixed = !overcommits(name);
        match (request, limits.get(name).and_then(parse)) {
            (Some(request), Some(limit)) => {
                let (request_text, limit_text) = (request.canonical(), limit.canonical());
                let order = request.sub(&limit).sign();
                if fixed && order != 0 {
                    let detail = format!("must be equal to {name} limit of {limit_text}");
                    errors.push(FieldError::invalid(&requests_path, request_text, detail));
                } else if order > 0 {
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
        whole_pages(&path, name, value, errors);
    }
    let computes = |name: &String| name == "cpu" || name == "memory";
    let any = |test: &dyn Fn(&String) -> bool| limits.keys().chain(requests.keys()).any(test);
    if any(&|name| is_huge(name)) && !any(&computes) {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
}

/// Huge pages are given out whole.
fn whole_pages(path: &Path, name: &str, value: &Value, errors: &mut Errors) {
    let Some(size) = name.strip_prefix("hugepages-") else { return };
    let Some(amount) = parse(value) else { return };
    let size = Quantity::parse(size).ok().and_then(|size| size.as_i64()).filter(|size| *size > 0);
    let divides = size.zip(amount.as_i64()).is_some_and(|(size, amount)| amount % size == 0);
    if !divides {
        let text = amount.canonical();
        let detail = format!("{text} is not positive integer multiple of {name}");
        errors.push(FieldError::invalid(path, text, detail));
    }
}

/// An amount that may have to be whole.
pub(super) fn integral(path: &Path, name: &str, value: &Value, errors: &mut Errors) -> Option<Quantity> {
    let quantity = amount(path, value, errors)?;
    if (COUNTED.contains(&name) || is_extended(name)) && quantity.as_i64().is_none() {
        errors.push(FieldError::invalid(path, quantity.canonical(), "must be an integer"));
    }
    Some(quantity)
}
