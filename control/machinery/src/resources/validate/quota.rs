//! What a namespace may use, in all and in each object: quotas and limit ranges.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Errors, quantities, rules};
use crate::{
    field::{FieldError, Path},
    names,
    quantity::Quantity,
    resources::access::{Fields, Get},
};

pub(super) fn limit_range(range: &Value, errors: &mut Errors) {
    let limits_path = Path::new("spec").child("limits");
    let limits = range.items("spec.limits");
    for (index, item) in limits.iter().enumerate() {
        let path = limits_path.index(index);
        let (kind, kind_path) = (item.text("type"), path.child("type"));
        let messages = names::qualified_name(kind);
        if messages.is_empty()
            && !kind.contains('/')
            && !["Container", "PersistentVolumeClaim", "Pod"].contains(&kind)
        {
            let detail = "must be a standard limit type or fully qualified";
            errors.push(FieldError::invalid(&kind_path, kind, detail));
        }
        rules::text(&kind_path, kind, messages, errors);
        if limits.iter().take(index).any(|other| other.text("type") == kind) {
            errors.push(FieldError::duplicate(&kind_path, kind));
        }
        limit(&path, kind, item, errors);
    }
}

fn limit(path: &Path, kind: &str, item: &Value, errors: &mut Errors) {
    let named = |key: &str, errors: &mut Errors| {
        for name in item.fields(key).into_iter().flat_map(Fields::keys) {
            quantities::limited_name(&path.child(key).key(name), kind, name, errors);
        }
    };
    named("max", errors);
    named("min", errors);
    for key in ["default", "defaultRequest"] {
        if kind != "Pod" {
            named(key, errors);
        } else if item.fields(key).is_some_and(|list| !list.is_empty()) {
            errors.push(FieldError::forbidden(&path.child(key), "may not be specified when `type` is 'Pod'"));
        }
    }
    let bounds_storage = |key: &str| item.at(key).has("storage");
    if kind == "PersistentVolumeClaim" && !bounds_storage("min") && !bounds_storage("max") {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(&path.child("limits"), detail));
    }
    named("maxLimitRequestRatio", errors);
    let mut keys: Vec<&str> = vec!["max", "min", "maxLimitRequestRatio"];
    if kind != "Pod" {
        keys.extend(["default", "defaultRequest"]);
    }
    let resources: BTreeSet<&String> =
        keys.iter().filter_map(|key| item.fields(key)).flat_map(Fields::keys).collect();
    for name in resources {
        let get = |key: &str| {
            let list = keys.contains(&key).then(|| item.fields(key)).flatten();
            list.and_then(|list| list.get(name)).and_then(quantities::parse)
        };
        Bounds { path, name, get: &get }.check(errors);
    }
}

/// The bounds of one resource.
struct Bounds<'a> {
    path: &'a Path,
    name: &'a str,
    get: &'a dyn Fn(&str) -> Option<Quantity>,
}

/// Two bounds by key, what they are called, the key that is blamed and the one whose value is shown.
type Order = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

/// The lower bound of each pair may not exceed the higher one.
const ORDERED: [Order; 6] = [
    ("min", "max", "min value", "max value", "min", "min"),
    ("min", "defaultRequest", "min value", "default request value", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "max", "default request value", "max value", "defaultRequest", "defaultRequest"),
    (
        "defaultRequest",
        "default",
        "default request value",
        "default limit value",
        "defaultRequest",
        "defaultRequest",
    ),
    ("min", "default", "min value", "default value", "default", "min"),
    ("default", "max", "default value", "max value", "default", "max"),
];

impl Bounds<'_> {
    fn at(&self, key: &str) -> Path {
        self.path.child(key).key(self.name)
    }

    fn check(&self, errors: &mut Errors) {
        for (low_key, high_key, low_text, high_text, blamed, shown) in ORDERED {
            if let (Some(low), Some(high)) = ((self.get)(low_key), (self.get)(high_key))
                && low > high
            {
                let (low, high) = (low.canonical(), high.canonical());
                let detail = format!("{low_text} {low} is greater than {high_text} {high}");
                let shown = if shown == low_key { low } else { high };
                errors.push(FieldError::invalid(&self.at(blamed), shown, detail));
            }
        }
        self.ratio(errors);
        if !quantities::overcommits(self.name)
            && let (Some(limit), Some(request)) = ((self.get)("default"), (self.get)("defaultRequest"))
            && limit != request
        {
            let (limit, request) = (limit.canonical(), request.canonical());
            let detail = format!(
                "default value {limit} must equal to defaultRequest value {request} in {}",
                self.name
            );
            errors.push(FieldError::invalid(&self.at("defaultRequest"), request, detail));
        }
    }

    fn ratio(&self, errors: &mut Errors) {
        let Some(ratio) = (self.get)("maxLimitRequestRatio") else { return };
        let (path, text) = (self.at("maxLimitRequestRatio"), ratio.canonical());
        if Quantity::parse("1").is_ok_and(|one| ratio < one) {
            let detail = format!("ratio {text} is less than 1");
            errors.push(FieldError::invalid(&path, text.clone(), detail));
        }
        if let (Some(min), Some(max)) = ((self.get)("min"), (self.get)("max")) {
            let most = max.as_f64() / min.as_f64();
            if ratio.as_f64() > most {
                let detail = format!("ratio {text} is greater than max/min = {most:.6}");
                errors.push(FieldError::invalid(&path, text, detail));
            }
        }
    }
}

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// Scopes that exclude each other.
const CONFLICTING: [(&str, &str); 2] = [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];

/// Whether what a quota limits can be told apart by a scope.
fn scope_applies(scope: &str, resource: &str) -> bool {
    let computes = ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"]
        .contains(&resource);
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => resource == "pods" || computes,
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

pub(super) fn resource_quota(quota: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), quota.at("spec"));
    limited(&path.child("hard"), spec.at("hard"), errors);
    scopes(&path.child("scopes"), spec, errors);
    if spec.has("scopeSelector") {
        scope_selector(&path, spec, errors);
    }
}

fn limited(path: &Path, amounts: &Value, errors: &mut Errors) {
    for (name, value) in amounts.as_object().into_iter().flatten() {
        let path = path.key(name);
        quantities::quota_name(&path, name, errors);
        quantities::integral(&path, name, value, errors);
    }
}

fn limited_names(spec: &Value) -> impl Iterator<Item = &String> {
    spec.fields("hard").into_iter().flat_map(Fields::keys).filter(|name| quantities::is_quota_name(name))
}

fn scopes(path: &Path, spec: &Value, errors: &mut Errors) {
    let list: Vec<&str> = spec.items("scopes").iter().filter_map(Value::as_str).collect();
    let mut refuse = |detail: &str| {
        errors.push(FieldError::invalid(path, spec.at("scopes").clone(), detail));
    };
    for scope in &list {
        if !SCOPES.contains(scope) {
            refuse("unsupported scope");
        }
        for _ in limited_names(spec).filter(|name| !scope_applies(scope, name)) {
            refuse("unsupported scope applied to resource");
        }
    }
    for _ in CONFLICTING.iter().filter(|(a, b)| list.contains(a) && list.contains(b)) {
        refuse("conflicting scopes");
    }
}

fn scope_selector(spec_path: &Path, spec: &Value, errors: &mut Errors) {
    let path = spec_path.child("scopeSelector").child("matchExpressions");
    let requirements = spec.items("scopeSelector.matchExpressions");
    for requirement in requirements {
        let (scope, operator) = (requirement.text("scopeName"), requirement.text("operator"));
        let (values, operator_path) = (requirement.items("values"), path.child("operator"));
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(&path.child("scopeName"), scope, "unsupported scope"));
        }
        for _ in limited_names(spec).filter(|name| !scope_applies(scope, name)) {
            let detail = "unsupported scope applied to resource";
            errors.push(FieldError::invalid(&path, spec.at("scopeSelector").clone(), detail));
        }
        let exists_only =
            !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && SCOPES.contains(&scope);
        if exists_only && operator != "Exists" {
            let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                          ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                          ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(FieldError::invalid(&operator_path, operator, detail));
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let detail =
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(&path.child("values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail =
                    "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                let value = requirement.at("values").clone();
                errors.push(FieldError::invalid(&path.child("values"), value, detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                errors.push(FieldError::invalid(&operator_path, other, "not a valid selector operator"));
            }
        }
    }
    let has = |scope: &str| requirements.iter().any(|requirement| requirement.text("scopeName") == scope);
    for _ in CONFLICTING.iter().filter(|(a, b)| has(a) && has(b)) {
        let value = spec.at("scopes").clone();
        errors.push(FieldError::invalid(
            &spec_path.child("scopeSelector").child("matchExpressions"),
            value,
            "conflicting scopes",
        ));
    }
}

pub(super) fn resource_quota_update(new: &Value, old: &Value, errors: &mut Errors) {
    let set = |quota: &Value| -> BTreeSet<String> {
        quota.items("spec.scopes").iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    if set(new) != set(old) {
        let path = Path::new("spec").child("scopes");
        errors.push(FieldError::invalid(&path, new.at("spec.scopes").clone(), rules::IMMUTABLE));
    }
}

pub(super) fn resource_quota_status(new: &Value, _old: &Value, errors: &mut Errors) {
    for key in ["hard", "used"] {
        limited(&Path::new("status").child(key), new.at("status").at(key), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(check: fn(&Value, &mut Errors), object: &Value) -> Vec<String> {
        let mut errors = Errors::new();
        check(object, &mut errors);
        errors.into_iter().map(|e| e.to_string()).collect()
    }

    #[test]
    fn a_scope_must_be_able_to_tell_what_is_limited() {
        let quota = json!({"spec": {"hard": {"pods": "1", "cpu": "1"}, "scopes": ["BestEffort"]}});
        assert_eq!(
            said(resource_quota, &quota),
            ["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"]
        );
        let quota = json!({"spec": {"hard": {"nonsense": "1.5"},
            "scopeSelector": {"matchExpressions": [{"scopeName": "Terminating", "operator": "In"}]}}});
        let found = said(resource_quota, &quota);
        assert_eq!(found.len(), 4, "{found:#?}");
        assert!(found[0].ends_with("must be a standard resource type or fully qualified"));
        assert!(found[1].ends_with("must be a standard resource for quota"));
        assert!(found[3].ends_with("when `operator` is 'In' or 'NotIn' for scope selector"));
    }

    #[test]
    fn bounds_are_in_order() {
        let range = json!({"spec": {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "4"},
            "default": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "3"}}]}});
        assert_eq!(
            said(limit_range, &range),
            [
                "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000",
            ]
        );
    }
}
