//! What a namespace may use, in all and in each object: quotas and limit ranges.

use std::collections::BTreeSet;

use super::{
    checks::IMMUTABLE,
    cursor::Cursor,
    quantities::{is_quota_name, overcommits},
};
use crate::{access::Fields, names, quantity::Quantity};

pub(super) fn limit_range(range: Cursor<'_>) {
    let mut kinds = BTreeSet::new();
    for limit in range.each("spec.limits") {
        let kind = limit.field("type");
        let messages = names::qualified_name(kind.str());
        if messages.is_empty() && !kind.str().contains('/') && !kind.is_enumerated() {
            kind.invalid("must be a standard limit type or fully qualified");
        }
        messages.into_iter().for_each(|message| kind.invalid(message));
        if !kinds.insert(kind.str()) {
            kind.duplicate();
        }
        self::limit(limit, kind.str());
    }
}

fn limit(limit: Cursor<'_>, kind: &str) {
    let named = |key: &'static str| {
        limit.field(key).entries().for_each(|(name, bound)| bound.limited_resource(kind, name));
    };
    named("max");
    named("min");
    for key in ["default", "defaultRequest"] {
        if kind != "Pod" {
            named(key);
        } else if !limit.field(key).is_empty() {
            limit.field(key).forbidden("may not be specified when `type` is 'Pod'");
        }
    }
    if kind == "PersistentVolumeClaim" && !limit.has("min.storage") && !limit.has("max.storage") {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        limit.field("limits").missing(detail);
    }
    named("maxLimitRequestRatio");
    let bounds = Bounds { limit, in_pods: kind == "Pod" };
    let resources: BTreeSet<&str> =
        bounds.keys().filter_map(|key| limit.map(key)).flat_map(Fields::keys).map(String::as_str).collect();
    resources.into_iter().for_each(|name| bounds.check(name));
}

/// The bounds of the resources of one kind of thing.
struct Bounds<'v> {
    limit: Cursor<'v>,
    in_pods: bool,
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

impl<'v> Bounds<'v> {
    fn keys(&self) -> impl Iterator<Item = &'static str> + use<> {
        let count = if self.in_pods { 3 } else { 5 };
        ["max", "min", "maxLimitRequestRatio", "default", "defaultRequest"].into_iter().take(count)
    }

    fn at(&self, key: &'v str, name: &'v str) -> Cursor<'v> {
        self.limit.field(key).key(name)
    }

    fn get(&self, key: &'v str, name: &'v str) -> Option<Quantity> {
        if self.keys().any(|known| known == key) { self.at(key, name).quantity() } else { None }
    }

    fn check(&self, name: &'v str) {
        for (low_key, high_key, low_text, high_text, blamed, shown) in ORDERED {
            if let (Some(low), Some(high)) = (self.get(low_key, name), self.get(high_key, name))
                && low > high
            {
                let (low, high) = (low.canonical(), high.canonical());
                let detail = format!("{low_text} {low} is greater than {high_text} {high}");
                self.at(blamed, name).invalid_value(if shown == low_key { low } else { high }, detail);
            }
        }
        self.ratio(name);
        if !overcommits(name)
            && let (Some(limit), Some(request)) =
                (self.get("default", name), self.get("defaultRequest", name))
            && limit != request
        {
            let (limit, request) = (limit.canonical(), request.canonical());
            let detail =
                format!("default value {limit} must equal to defaultRequest value {request} in {name}");
            self.at("defaultRequest", name).invalid_value(request, detail);
        }
    }

    fn ratio(&self, name: &'v str) {
        let Some(ratio) = self.get("maxLimitRequestRatio", name) else { return };
        let (there, text) = (self.at("maxLimitRequestRatio", name), ratio.canonical());
        if Quantity::parse("1").is_ok_and(|one| ratio < one) {
            there.invalid_value(text.clone(), format!("ratio {text} is less than 1"));
        }
        if let (Some(min), Some(max)) = (self.get("min", name), self.get("max", name)) {
            let most = max.as_f64() / min.as_f64();
            if ratio.as_f64() > most {
                let detail = format!("ratio {text} is greater than max/min = {most:.6}");
                there.invalid_value(text, detail);
            }
        }
    }
}

/// Scopes that exclude each other.
const CONFLICTING: [(&str, &str); 2] = [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];

/// Whether what a quota limits can be distinguished by a scope.
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

pub(super) fn resource_quota(quota: Cursor<'_>) {
    let spec = quota.field("spec");
    limited(spec.field("hard"));
    scopes(spec);
    if spec.has("scopeSelector") {
        scope_selector(spec);
    }
}

fn limited(amounts: Cursor<'_>) {
    for (name, amount) in amounts.entries() {
        amount.quota_resource(name);
        amount.integral(name);
    }
}

/// How many of the limited resources a scope cannot tell apart.
fn out_of_scope(spec: Cursor<'_>, scope: &str) -> usize {
    let names = spec.map("hard").into_iter().flat_map(Fields::keys);
    names.filter(|name| is_quota_name(name) && !scope_applies(scope, name)).count()
}

fn conflicts(scopes: &[&str]) -> usize {
    CONFLICTING.iter().filter(|(a, b)| scopes.contains(a) && scopes.contains(b)).count()
}

fn scopes(spec: Cursor<'_>) {
    let scopes = spec.field("scopes");
    for scope in scopes.items() {
        if !scope.is_enumerated() {
            scopes.invalid("unsupported scope");
        }
        for _ in 0..out_of_scope(spec, scope.str()) {
            scopes.invalid("unsupported scope applied to resource");
        }
    }
    (0..conflicts(&scopes.strs())).for_each(|_| scopes.invalid("conflicting scopes"));
}

/// Upstream leaves the index out of these paths.
fn scope_selector(spec: Cursor<'_>) {
    let selector = spec.field("scopeSelector");
    let requirements = selector.field("matchExpressions");
    for requirement in requirements.items().map(|requirement| requirement.reported_at(requirements)) {
        let (scope, operator) = (requirement.field("scopeName"), requirement.field("operator"));
        let values = requirement.field("values");
        if !scope.is_enumerated() {
            scope.invalid("unsupported scope");
        }
        for _ in 0..out_of_scope(spec, scope.str()) {
            selector.reported_at(requirements).invalid("unsupported scope applied to resource");
        }
        let valued = matches!(scope.str(), "PriorityClass" | "VolumeAttributesClass");
        if scope.is_enumerated() && !valued && operator.str() != "Exists" {
            operator.invalid(
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                 ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                 ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
        match (operator.str(), values.is_empty()) {
            ("In" | "NotIn", true) => {
                values.missing(
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                );
            }
            ("Exists" | "DoesNotExist", false) => {
                values.invalid(
                    "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
                );
            }
            _ if operator.is_enumerated() => {}
            _ => operator.invalid("not a valid selector operator"),
        }
    }
    let named: Vec<&str> = requirements.items().map(|requirement| requirement.text("scopeName")).collect();
    let scopes = spec.field("scopes").reported_at(requirements);
    (0..conflicts(&named)).for_each(|_| scopes.invalid("conflicting scopes"));
}

pub(super) fn resource_quota_update(quota: Cursor<'_>) {
    let scopes = quota.field("spec.scopes");
    let set = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    if set(scopes.strs()) != set(scopes.old_strs()) {
        scopes.invalid(IMMUTABLE);
    }
}

pub(super) fn resource_quota_status(quota: Cursor<'_>) {
    limited(quota.field("status.hard"));
    limited(quota.field("status.used"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{resources::validate::cursor::look, schema::builtin};
    use serde_json::{Value, json};

    fn said(kind: &str, object: &Value) -> Vec<String> {
        let check = if kind == "LimitRange" { limit_range } else { resource_quota };
        let errors = look(builtin().named("v1", kind), object, None, check);
        errors.into_iter().map(|e| e.to_string()).collect()
    }

    #[test]
    fn a_scope_must_be_able_to_tell_what_is_limited() {
        let quota = json!({"spec": {"hard": {"pods": "1", "cpu": "1"}, "scopes": ["BestEffort"]}});
        assert_eq!(
            said("ResourceQuota", &quota),
            ["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"]
        );
        let quota = json!({"spec": {"hard": {"nonsense": "1.5"},
            "scopeSelector": {"matchExpressions": [{"scopeName": "Terminating", "operator": "In"}]}}});
        let found = said("ResourceQuota", &quota);
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
            said("LimitRange", &range),
            [
                "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000",
            ]
        );
    }
}
