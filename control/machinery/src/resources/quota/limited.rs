//! What may be used under a quota that covers it only (`limitedResources` of ResourceQuota's configuration). Upstream:
//! `apiserver/pkg/admission/plugin/resourcequota`.

use super::Counted;
use crate::access::Get;
use crate::totals::Amounts;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;

/// A kind of which some uses are limited.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Limited {
    /// Its group.
    pub api_group: String,
    /// Its plural name.
    pub resource: String,
    /// What the name of a limited use contains.
    pub match_contains: Vec<String>,
    /// Scopes in which an object is limited whatever it uses.
    pub match_scopes: Vec<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    limited_resources: Vec<Limited>,
}

/// Reads a `ResourceQuotaConfiguration`.
///
/// # Errors
/// In words: unknown fields, a kind without a name.
pub fn parse(value: &Value) -> Result<Vec<Limited>, String> {
    let written = Written::deserialize(value).map_err(|e| e.to_string())?;
    match written.limited_resources.iter().position(|limited| limited.resource.is_empty()) {
        Some(i) => Err(format!("limitedResources[{i}].resource: Required value")),
        None => Ok(written.limited_resources),
    }
}

/// The uses in `usage` that a quota is to cover.
#[must_use]
pub fn uses<'u>(all: &[Limited], group: &str, plural: &str, usage: &'u Amounts) -> BTreeSet<&'u str> {
    let own = all.iter().filter(|limited| limited.api_group == group && limited.resource == plural);
    let contains: Vec<&String> = own.flat_map(|limited| &limited.match_contains).collect();
    let used = usage.iter().filter(|(_, amount)| amount.sign() > 0).map(|(name, _)| name.as_str());
    used.filter(|name| contains.iter().any(|part| name.contains(part.as_str()))).collect()
}

/// The scopes that hold the object and are to be covered by a quota of the same scope, as `(name, as Go prints it)`.
#[must_use]
pub fn scopes(all: &[Limited], counted: Counted<'_>, object: &Value) -> Vec<(String, String)> {
    let requirements = all.iter().flat_map(|limited| &limited.match_scopes);
    let printed = |requirement: &Value| {
        let name = requirement.text("scopeName").to_owned();
        let values: Vec<&str> = requirement.items("values").iter().filter_map(Value::as_str).collect();
        let printed = format!("{{{name} {} [{}]}}", requirement.text("operator"), values.join(" "));
        (name, printed)
    };
    requirements.filter(|requirement| counted.is_selected(requirement, object)).map(printed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(limited: Value) -> Vec<Limited> {
        parse(&json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "ResourceQuotaConfiguration",
            "limitedResources": [limited]}))
        .unwrap()
    }

    #[test]
    fn uses_are_limited_by_a_part_of_their_name() {
        let all = read(
            json!({"resource": "persistentvolumeclaims", "matchContains": [".storageclass.", "requests.storage"]}),
        );
        let usage = crate::totals::amounts(
            &json!({"requests.storage": "1Gi", "persistentvolumeclaims": "1", "x.storageclass.y": "0"}),
        );
        let limited: Vec<&str> = uses(&all, "", "persistentvolumeclaims", &usage).into_iter().collect();
        assert_eq!(limited, ["requests.storage"]);
        assert!(
            uses(&all, "", "pods", &usage).is_empty()
                && uses(&all, "apps", "persistentvolumeclaims", &usage).is_empty()
        );
    }

    #[test]
    fn scopes_are_limited_by_what_holds_the_object() {
        let all = read(json!({"resource": "pods", "matchScopes": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["high", "higher"]}]}));
        let pods = Counted::new("", "pods").unwrap();
        let pod = |class: &str| json!({"spec": {"priorityClassName": class}});
        let found = scopes(&all, pods, &pod("high"));
        assert_eq!(found, [("PriorityClass".to_owned(), "{PriorityClass In [high higher]}".to_owned())]);
        assert!(scopes(&all, pods, &pod("low")).is_empty());
        let quota = json!({"spec": {"scopes": ["BestEffort"], "scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "Exists"}]}}});
        assert_eq!(pods.scopes_of(&quota, &pod("high")), ["BestEffort", "PriorityClass"]);
    }

    #[test]
    fn a_kind_without_a_name_is_refused() {
        assert_eq!(
            parse(&json!({"limitedResources": [{}]})).unwrap_err(),
            "limitedResources[0].resource: Required value"
        );
        assert!(parse(&json!({"limited": []})).unwrap_err().contains("unknown field"));
    }
}
