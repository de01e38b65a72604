//! Nobody grants what he does not hold: which of some wanted rules a user's own rules leave uncovered, and how a refusal
//! words them. Pure. Upstream: `k8s.io/component-helpers/auth/rbac/validation`, `pkg/registry/rbac/validation`.

use super::PolicyRule;
use crate::context::User;
use machinery::goformat::go_quote;
use std::collections::BTreeSet;

/// The rules that whoever may do everything holds.
#[must_use]
pub fn full_authority() -> Vec<PolicyRule> {
    let any = || vec!["*".to_owned()];
    vec![
        PolicyRule { verbs: any(), api_groups: any(), resources: any(), ..PolicyRule::default() },
        PolicyRule { verbs: any(), non_resource_urls: any(), ..PolicyRule::default() },
    ]
}

/// What of `wanted` no single rule of `owned` covers, each as a rule of one verb on one thing.
#[must_use]
pub fn missing(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted.iter().flat_map(atoms).filter(|atom| !owned.iter().any(|rule| covers(rule, atom))).collect()
}

/// The refusal's words; `errors` are roles that could not be resolved.
#[must_use]
pub fn refusal(user: &User, missing: &[PolicyRule], errors: &[String]) -> String {
    let lines: BTreeSet<String> = compact(missing).iter().map(describe).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    let mut text = format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        go_quote(&user.name),
        quoted(&user.groups),
        lines.join("\n")
    );
    if !errors.is_empty() {
        text.push_str(&format!("; resolution errors: [{}]", super::aggregate(errors)));
    }
    text
}

/// A rule as rules of one verb, one group, one resource and one name each.
fn atoms(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |s: &String| vec![s.clone()];
    let mut atoms = Vec::new();
    let names: Vec<Vec<String>> = match rule.resource_names.as_slice() {
        [] => vec![Vec::new()],
        names => names.iter().map(one).collect(),
    };
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                atoms.extend(names.iter().map(|name| PolicyRule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    resource_names: name.clone(),
                    ..PolicyRule::default()
                }));
            }
        }
    }
    for path in &rule.non_resource_urls {
        atoms.extend(rule.verbs.iter().map(|verb| PolicyRule {
            verbs: one(verb),
            non_resource_urls: one(path),
            ..PolicyRule::default()
        }));
    }
    atoms
}

fn covers(owner: &PolicyRule, atom: &PolicyRule) -> bool {
    let all = |owned: &[String], wanted: &[String]| {
        owned.iter().any(|o| o == "*") || wanted.iter().all(|w| owned.contains(w))
    };
    all(&owner.verbs, &atom.verbs)
        && all(&owner.api_groups, &atom.api_groups)
        && covers_resources(&owner.resources, &atom.resources)
        && atom
            .non_resource_urls
            .iter()
            .all(|path| owner.non_resource_urls.iter().any(|o| covers_path(o, path)))
        && (owner.resource_names.is_empty()
            || (!atom.resource_names.is_empty()
                && atom.resource_names.iter().all(|n| owner.resource_names.contains(n))))
}

fn covers_resources(owned: &[String], wanted: &[String]) -> bool {
    let has = |resource: &str| owned.iter().any(|o| o == resource);
    has("*")
        || wanted.iter().all(|resource| {
            has(resource) || resource.split_once('/').is_some_and(|(_, sub)| has(&format!("*/{sub}")))
        })
}

fn covers_path(owned: &str, path: &str) -> bool {
    owned == path || (owned.ends_with('*') && path.starts_with(owned.trim_end_matches('*')))
}

/// Joins the rules that differ only by verb.
fn compact(rules: &[PolicyRule]) -> Vec<PolicyRule> {
    let mut compacted: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let simple = rule.non_resource_urls.is_empty();
        let same = compacted.iter_mut().find(|c| {
            simple
                && c.non_resource_urls.is_empty()
                && c.api_groups == rule.api_groups
                && c.resources == rule.resources
                && c.resource_names == rule.resource_names
        });
        match same {
            Some(same) => {
                for verb in &rule.verbs {
                    if !same.verbs.contains(verb) {
                        same.verbs.push(verb.clone());
                    }
                }
            }
            None => compacted.push(rule.clone()),
        }
    }
    compacted
}

fn describe(rule: &PolicyRule) -> String {
    let parts: Vec<String> = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ]
    .into_iter()
    .filter(|(_, values)| !values.is_empty())
    .map(|(name, values)| format!("{name}:{}", quoted(values)))
    .collect();
    format!("{{{}}}", parts.join(", "))
}

/// Go's `%q` of a list of strings.
fn quoted(values: &[String]) -> String {
    let values: Vec<String> = values.iter().map(|v| go_quote(v)).collect();
    format!("[{}]", values.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> PolicyRule {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        PolicyRule {
            verbs: own(verbs),
            api_groups: own(groups),
            resources: own(resources),
            resource_names: own(names),
            ..PolicyRule::default()
        }
    }

    #[test]
    fn what_is_held_by_several_rules_together_may_be_granted_by_one() {
        let owned = [rule(&["get"], &[""], &["pods"], &[]), rule(&["list"], &[""], &["pods"], &[])];
        assert!(missing(&owned, &[rule(&["get", "list"], &[""], &["pods"], &[])]).is_empty());
        assert_eq!(missing(&owned, &[rule(&["get", "watch"], &[""], &["pods"], &[])]).len(), 1);
    }

    #[test]
    fn a_name_is_covered_by_its_name_or_by_all_names_only() {
        let named = [rule(&["get"], &[""], &["secrets"], &["a"])];
        assert!(missing(&named, &[rule(&["get"], &[""], &["secrets"], &["a"])]).is_empty());
        assert_eq!(missing(&named, &[rule(&["get"], &[""], &["secrets"], &["a", "b"])]).len(), 1);
        assert_eq!(missing(&named, &[rule(&["get"], &[""], &["secrets"], &[])]).len(), 1);
        let all = [rule(&["get"], &[""], &["secrets"], &[])];
        assert!(missing(&all, &named).is_empty());
    }

    #[test]
    fn subresources_and_paths_have_their_own_wildcards() {
        let scale = [rule(&["*"], &["*"], &["*/scale"], &[])];
        assert!(missing(&scale, &[rule(&["update"], &["apps"], &["deployments/scale"], &[])]).is_empty());
        assert_eq!(missing(&scale, &[rule(&["update"], &["apps"], &["deployments"], &[])]).len(), 1);
        let path = |p: &str| PolicyRule {
            verbs: vec!["get".into()],
            non_resource_urls: vec![p.into()],
            ..PolicyRule::default()
        };
        assert!(missing(&[path("/api*")], &[path("/apis/x")]).is_empty());
        assert_eq!(missing(&[path("/api/")], &[path("/api")]).len(), 1);
        assert!(missing(&full_authority(), &[path("/x"), scale[0].clone()]).is_empty());
    }

    #[test]
    fn a_refusal_joins_verbs_and_sorts_lines() {
        let user = User { name: "x".into(), groups: vec!["a".into(), "b".into()], ..User::default() };
        let wanted =
            [rule(&["list", "get"], &[""], &["pods"], &[]), rule(&["get"], &["apps"], &["*"], &["n"])];
        assert_eq!(
            refusal(&user, &missing(&[], &wanted), &[]),
            "user \"x\" (groups=[\"a\" \"b\"]) is attempting to grant RBAC permissions not currently held:\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\" \"get\"]}\n\
             {APIGroups:[\"apps\"], Resources:[\"*\"], ResourceNames:[\"n\"], Verbs:[\"get\"]}"
        );
    }
}
