//! The roles and bindings every cluster starts with, and what must be written so that a cluster has them.
//!
//! The facts are in `data/bootstrap-rbac.txt`. Upstream: `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`, and for the
//! reconciliation `component-helpers/auth/rbac/reconciliation`: rules, labels and subjects that are missing are added, what an
//! administrator added stays, and an object annotated `rbac.authorization.kubernetes.io/autoupdate: "false"` is left alone.

use super::rbac::GROUP;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::LazyLock;

const DATA: &str = include_str!("../../data/bootstrap-rbac.txt");
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";

static OBJECTS: LazyLock<Vec<Value>> = LazyLock::new(|| match parse(DATA) {
    Ok(objects) => objects,
    Err(e) => {
        // The data is compiled in and parsed by a test, so this cannot be reached by a program that passed it.
        tracing::error!(error = %e, "bootstrap roles are unreadable");
        Vec::new()
    }
});

/// All bootstrap objects: cluster roles, cluster role bindings, roles, role bindings, sorted so within each kind.
#[must_use]
pub fn objects() -> &'static [Value] {
    &OBJECTS
}

/// The rules of a bootstrap cluster role, for authorizers that use them without a binding.
#[must_use]
pub fn rules(cluster_role: &str) -> Vec<super::rbac::PolicyRule> {
    objects()
        .iter()
        .find(|o| o["kind"] == "ClusterRole" && o["metadata"]["name"] == cluster_role)
        .and_then(|o| serde_json::from_value(o["rules"].clone()).ok())
        .unwrap_or_default()
}

/// A line of the data file that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("bootstrap roles, line {line}: {problem}")]
pub struct ParseError {
    /// Counted from one.
    pub line: usize,
    /// What the parser expected.
    pub problem: &'static str,
}

/// Parses the data format that `data/bootstrap-rbac.txt` explains.
pub fn parse(data: &str) -> Result<Vec<Value>, ParseError> {
    let mut objects: Vec<Value> = Vec::new();
    let mut bindings = Vec::new();
    for (index, raw) in data.lines().enumerate() {
        let fail = |problem| ParseError { line: index + 1, problem };
        let words: Vec<&str> = raw.split_whitespace().collect();
        if words.is_empty() || raw.starts_with('#') {
            continue;
        }
        if raw.starts_with(' ') {
            let open = objects.last_mut().ok_or_else(|| fail("rule before any role"))?;
            rule_line(open, &words).map_err(fail)?;
            continue;
        }
        match words.as_slice() {
            ["clusterrole", name, labels @ ..] => objects.push(role(None, name, labels)),
            ["role", namespace, name] => objects.push(role(Some(namespace), name, &[])),
            ["@controller", name] => {
                let role_name = format!("system:controller:{name}");
                objects.push(role(None, &role_name, &[]));
                let subject = format!("sa=kube-system/{name}");
                bindings.push(binding(None, &role_name, &role_name, &[&subject]).map_err(fail)?);
            }
            ["clusterbinding", name, subjects @ ..] => {
                bindings.push(binding(None, name, name, subjects).map_err(fail)?);
            }
            ["binding", namespace, name, role, subjects @ ..] => {
                bindings.push(binding(Some(namespace), name, role, subjects).map_err(fail)?);
            }
            _ => return Err(fail("unknown line")),
        }
    }
    objects.append(&mut bindings);
    objects.sort_by_key(|o| {
        let order =
            ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"].iter().position(|k| o["kind"] == *k);
        (order, o["metadata"]["namespace"].to_string(), o["metadata"]["name"].to_string())
    });
    Ok(objects)
}

fn metadata(namespace: Option<&str>, name: &str) -> Value {
    let mut metadata = json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {AUTOUPDATE: "true"},
    });
    if let Some(namespace) = namespace {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

fn role(namespace: Option<&str>, name: &str, labels: &[&str]) -> Value {
    let kind = if namespace.is_some() { "Role" } else { "ClusterRole" };
    let mut object =
        json!({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata(namespace, name), "rules": []});
    for label in labels {
        object["metadata"]["labels"][full_label(label)] = "true".into();
    }
    object
}

fn full_label(label: &str) -> String {
    label.replacen("rbac:", "rbac.authorization.k8s.io/", 1)
}

fn rule_line(role: &mut Value, words: &[&str]) -> Result<(), &'static str> {
    let rule = match words {
        ["aggregate", label] => {
            role["aggregationRule"] =
                json!({"clusterRoleSelectors": [{"matchLabels": {full_label(label): "true"}}]});
            role["rules"] = Value::Null;
            return Ok(());
        }
        ["@events"] => {
            json!({"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]})
        }
        [verbs, "url", paths] => json!({"verbs": sorted(verbs), "nonResourceURLs": sorted(paths)}),
        [verbs, groups, resources, names @ ..] if names.len() < 2 => {
            let mut rule =
                json!({"apiGroups": sorted(groups), "resources": sorted(resources), "verbs": sorted(verbs)});
            if let [names] = names {
                rule["resourceNames"] = sorted(names).into();
            }
            rule
        }
        _ => return Err("unknown rule"),
    };
    role["rules"].as_array_mut().ok_or("rule in an aggregated role")?.push(rule);
    Ok(())
}

fn sorted(words: &str) -> Vec<&str> {
    const READ: [&str; 3] = ["get", "list", "watch"];
    const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];
    let mut out = BTreeSet::new();
    for word in words.split(',') {
        match word {
            "@read" => out.extend(READ),
            "@write" => out.extend(WRITE),
            "@all" => out.extend(READ.into_iter().chain(WRITE)),
            "core" => out.extend([""]),
            word => out.extend([word]),
        }
    }
    out.into_iter().collect()
}

fn binding(
    namespace: Option<&str>,
    name: &str,
    role: &str,
    subjects: &[&str],
) -> Result<Value, &'static str> {
    let (kind, role_kind) =
        if namespace.is_some() { ("RoleBinding", "Role") } else { ("ClusterRoleBinding", "ClusterRole") };
    let subjects = subjects
        .iter()
        .map(|s| match s.split_once('=') {
            Some(("user", name)) => Ok(json!({"apiGroup": GROUP, "kind": "User", "name": name})),
            Some(("group", name)) => Ok(json!({"apiGroup": GROUP, "kind": "Group", "name": name})),
            Some(("sa", name)) => {
                let (namespace, name) = name.split_once('/').ok_or("service account without namespace")?;
                Ok(json!({"kind": "ServiceAccount", "namespace": namespace, "name": name}))
            }
            _ => Err("unknown subject"),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut object = json!({
        "apiVersion": API_VERSION, "kind": kind, "metadata": metadata(namespace, name),
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role},
    });
    if !subjects.is_empty() {
        object["subjects"] = subjects.into();
    }
    Ok(object)
}

/// One write that brings the cluster's policy up to date.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// The object does not exist.
    Create(Value),
    /// The object exists and lacks something; the value carries its resource version.
    Update(Value),
    /// A binding refers to another role, which cannot be changed in place: delete, then create.
    Recreate(Value),
}

/// What to write so that there are `wanted`, given how to look up what exists: `existing(kind, namespace, name)`. Pure; converges in one
/// round.
pub fn reconcile(wanted: &[Value], existing: impl Fn(&str, &str, &str) -> Option<Value>) -> Vec<Write> {
    wanted.iter().filter_map(|wanted| plan(wanted, &existing)).collect()
}

fn plan(wanted: &Value, existing: &impl Fn(&str, &str, &str) -> Option<Value>) -> Option<Write> {
    let (namespace, name) = crate::objects::names(wanted);
    let kind = crate::objects::text(wanted, "/kind");
    let Some(found) = existing(kind, namespace, name) else {
        return Some(Write::Create(wanted.clone()));
    };
    if found["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return None;
    }
    let mut merged = found.clone();
    for part in ["labels", "annotations"] {
        let mut all = wanted["metadata"][part].as_object().cloned().unwrap_or_default();
        // What is stored wins over what is wanted: upstream merges specified over expected.
        all.extend(found["metadata"][part].as_object().cloned().unwrap_or_default());
        if !all.is_empty() {
            merged["metadata"][part] = Value::Object(all);
        }
    }
    if kind.ends_with("Binding") {
        if found["roleRef"] != wanted["roleRef"] {
            let mut fresh = wanted.clone();
            fresh["metadata"] = bare(&merged["metadata"]);
            return Some(Write::Recreate(fresh));
        }
        add_missing(&mut merged, &found, wanted, "subjects", |have, want| have.contains(want));
    } else if wanted.get("aggregationRule").is_some() {
        // An aggregated role's rules belong to its controller.
        if found.get("aggregationRule").is_none() {
            merged["aggregationRule"] = wanted["aggregationRule"].clone();
        }
        let _ = merged.as_object_mut().map(|o| o.entry("rules").or_insert(Value::Null));
    } else {
        add_missing(&mut merged, &found, wanted, "rules", covers);
    }
    let same = |field: &str| {
        let empty = |v: &Value| v.is_null() || v.as_array().is_some_and(Vec::is_empty);
        merged[field] == found[field] || (empty(&merged[field]) && empty(&found[field]))
    };
    let unchanged = merged["metadata"]["labels"] == found["metadata"]["labels"]
        && merged["metadata"]["annotations"] == found["metadata"]["annotations"]
        && ["rules", "subjects", "aggregationRule"].into_iter().all(same);
    (!unchanged).then_some(Write::Update(merged))
}

/// Metadata a new object may be created with.
fn bare(metadata: &Value) -> Value {
    let mut out = Map::new();
    for field in ["name", "namespace", "labels", "annotations"] {
        if let Some(value) = metadata.get(field) {
            out.insert(field.to_owned(), value.clone());
        }
    }
    Value::Object(out)
}

fn add_missing(
    merged: &mut Value,
    found: &Value,
    wanted: &Value,
    field: &str,
    has: impl Fn(&[Value], &Value) -> bool,
) {
    let mut have = found[field].as_array().cloned().unwrap_or_default();
    for item in wanted[field].as_array().into_iter().flatten() {
        if !has(&have, item) {
            have.push(item.clone());
        }
    }
    if !have.is_empty() || merged.get(field).is_some() {
        merged[field] = have.into();
    }
}

/// Whether rules together grant everything `wanted` grants, one verb on one resource at a time.
fn covers(have: &[Value], wanted: &Value) -> bool {
    if wanted.get("nonResourceURLs").is_some() {
        return pairs(wanted, &["verbs", "nonResourceURLs"]).iter().all(|want| {
            have.iter().any(|rule| contains(rule, "verbs", &want[0]) && path_contains(rule, &want[1]))
        });
    }
    let named = wanted.get("resourceNames").is_some();
    let fields: &[&str] = &["verbs", "apiGroups", "resources", "resourceNames"];
    pairs(wanted, if named { fields } else { &fields[..3] }).iter().all(|want| {
        have.iter().any(|rule| {
            let unnamed = rule["resourceNames"].as_array().is_none_or(Vec::is_empty);
            contains(rule, "verbs", &want[0])
                && contains(rule, "apiGroups", &want[1])
                && contains(rule, "resources", &want[2])
                && (unnamed || (named && contains(rule, "resourceNames", &want[3])))
        })
    })
}

fn contains(rule: &Value, field: &str, item: &str) -> bool {
    let subresource = (field == "resources").then(|| item.split_once('/')).flatten();
    rule[field].as_array().into_iter().flatten().any(|v| {
        v == item
            || (v == "*" && field != "resourceNames")
            || subresource.is_some_and(|(_, sub)| v.as_str().and_then(|v| v.strip_prefix("*/")) == Some(sub))
    })
}

fn path_contains(rule: &Value, path: &str) -> bool {
    rule["nonResourceURLs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .any(|url| url == path || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix)))
}

fn pairs(rule: &Value, fields: &[&str]) -> Vec<Vec<String>> {
    let mut out = vec![Vec::new()];
    for field in fields {
        let items = crate::objects::texts(rule, &format!("/{field}"));
        out = out
            .into_iter()
            .flat_map(|head: Vec<String>| {
                items.iter().map(move |item| head.iter().cloned().chain([item.clone()]).collect())
            })
            .collect();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    type Cluster = HashMap<(String, String, String), Value>;

    fn key(o: &Value) -> (String, String, String) {
        let (namespace, name) = crate::objects::names(o);
        (o["kind"].as_str().unwrap().into(), namespace.into(), name.into())
    }

    fn round(cluster: &mut Cluster) -> Vec<Write> {
        let writes = reconcile(objects(), |k, ns, n| cluster.get(&(k.into(), ns.into(), n.into())).cloned());
        for write in &writes {
            let (Write::Create(o) | Write::Update(o) | Write::Recreate(o)) = write;
            cluster.insert(key(o), o.clone());
        }
        writes
    }

    #[test]
    fn the_data_parses_and_is_complete() {
        let objects = parse(DATA).unwrap();
        let count = |kind: &str| objects.iter().filter(|o| o["kind"] == kind).count();
        assert!(count("ClusterRole") > 65 && count("ClusterRoleBinding") > 45, "{}", count("ClusterRole"));
        assert_eq!((count("Role"), count("RoleBinding")), (7, 7));
        let mut keys: Vec<_> = objects.iter().map(key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), objects.len(), "a name is there twice");
        for binding in objects.iter().filter(|o| o["kind"].as_str().unwrap().ends_with("Binding")) {
            let role = &binding["roleRef"];
            let found =
                objects.iter().any(|o| o["kind"] == role["kind"] && o["metadata"]["name"] == role["name"]);
            assert!(found, "{binding}");
        }
    }

    #[test]
    fn a_broken_line_is_named() {
        assert_eq!(
            parse("# x\nnonsense here").unwrap_err().to_string(),
            "bootstrap roles, line 2: unknown line"
        );
        assert_eq!(parse("  get core pods").unwrap_err().problem, "rule before any role");
        assert_eq!(parse("clusterbinding a robot=x").unwrap_err().problem, "unknown subject");
    }

    #[test]
    fn an_empty_cluster_converges_in_one_round() {
        let mut cluster = Cluster::new();
        assert_eq!(round(&mut cluster).len(), objects().len());
        assert_eq!(round(&mut cluster), []);
    }

    #[test]
    fn missing_rules_are_added_and_additions_stay() {
        let mut cluster = Cluster::new();
        round(&mut cluster);
        let at = ("ClusterRole".to_owned(), String::new(), "system:basic-user".to_owned());
        let own = json!({"apiGroups": ["x"], "resources": ["y"], "verbs": ["get"]});
        cluster.get_mut(&at).unwrap()["rules"] = json!([own]);
        assert_eq!(round(&mut cluster).len(), 1);
        assert_eq!(cluster[&at]["rules"][0], own);
        assert_eq!(cluster[&at]["rules"].as_array().unwrap().len(), 3);
        cluster.get_mut(&at).unwrap()["rules"] =
            json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
        assert_eq!(round(&mut cluster), [], "a wider rule covers what is wanted");
    }

    #[test]
    fn autoupdate_false_is_left_alone() {
        let mut cluster = Cluster::new();
        round(&mut cluster);
        let at = ("ClusterRole".to_owned(), String::new(), "system:discovery".to_owned());
        let role = cluster.get_mut(&at).unwrap();
        role["rules"] = json!([]);
        role["metadata"]["annotations"][AUTOUPDATE] = "false".into();
        assert_eq!(round(&mut cluster), []);
    }

    #[test]
    fn a_binding_to_another_role_is_made_anew() {
        let mut cluster = Cluster::new();
        round(&mut cluster);
        let at = ("ClusterRoleBinding".to_owned(), String::new(), "cluster-admin".to_owned());
        let binding = cluster.get_mut(&at).unwrap();
        binding["roleRef"]["name"] = "view".into();
        binding["metadata"]["uid"] = "1".into();
        assert!(
            matches!(round(&mut cluster).as_slice(), [Write::Recreate(o)] if o["metadata"].get("uid").is_none())
        );
        assert_eq!(round(&mut cluster), []);
    }

    #[test]
    fn an_aggregated_role_keeps_the_rules_its_controller_wrote() {
        let mut cluster = Cluster::new();
        round(&mut cluster);
        let at = ("ClusterRole".to_owned(), String::new(), "view".to_owned());
        cluster.get_mut(&at).unwrap()["rules"] = json!([{"verbs": ["get"]}]);
        assert_eq!(round(&mut cluster), []);
    }
}
