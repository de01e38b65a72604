//! Policies of a file, a line each. Upstream: `pkg/auth/authorizer/abac`, `pkg/apis/abac`.

use super::{Attributes, Authorizer, Decision, PathRule, ResourceRule, Rules};
use crate::context::User;
use crate::facts::AUTHENTICATED;
use serde::Deserialize;
use serde_json::Value;

const VERSIONED: &str = "abac.authorization.kubernetes.io/v1beta1";
const ANY: &str = "*";
const READING: [&str; 3] = ["get", "list", "watch"];

/// The authorizer: what a policy matches is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abac(Vec<Policy>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    resource: String,
    namespace: String,
    non_resource_path: String,
}

impl Abac {
    /// Of a file's text; empty lines and those that begin with `#` are none.
    ///
    /// # Errors
    /// For a line that is no policy, with its number.
    pub fn parse(path: &str, text: &str) -> Result<Self, String> {
        let lines = text.lines().enumerate().filter(|(_, line)| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with('#')
        });
        let (mut policies, mut old) = (Vec::new(), false);
        for (index, line) in lines {
            let policy = Policy::parse(line, &mut old).map_err(|why| {
                format!("error reading policy file {path}, line {}: {line}: {why}", index + 1)
            })?;
            policies.push(policy);
        }
        if old {
            tracing::warn!(
                "Policy file {path} contained unversioned rules. See docs/admin/authorization.md#abac-mode for ABAC file format details."
            );
        }
        Ok(Self(policies))
    }
}

impl Policy {
    fn parse(line: &str, old: &mut bool) -> Result<Self, String> {
        let value: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let said = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        let read = |value: Value| serde_json::from_value::<Policy>(value).map_err(|e| e.to_string());
        let versioned = match (said("apiVersion"), said("kind")) {
            (VERSIONED, "Policy") => true,
            ("", _) | (_, "") => false,
            (version, kind) => return Err(format!("no kind {kind:?} is registered for version {version:?}")),
        };
        let mut policy = match versioned {
            true => read(value.get("spec").cloned().unwrap_or_else(|| Value::Object(Default::default())))?,
            false => read(value)?,
        };
        if !versioned {
            *old = true;
            policy = policy.unversioned();
        }
        if policy.user == ANY || policy.group == ANY {
            policy.group = AUTHENTICATED.to_owned();
            policy.user.clear();
        }
        Ok(policy)
    }

    /// What is not said stands for all.
    fn unversioned(mut self) -> Self {
        let (everywhere, everything) = (self.namespace.is_empty(), self.resource.is_empty());
        if self.user.is_empty() && self.group.is_empty() {
            self.group = AUTHENTICATED.to_owned();
        }
        if everywhere {
            self.namespace = ANY.to_owned();
        }
        if everything {
            self.resource = ANY.to_owned();
        }
        let path = if everywhere && everything { ANY } else { "" };
        Policy { api_group: ANY.to_owned(), non_resource_path: path.to_owned(), ..self }
    }

    fn is_about(&self, user: &User) -> bool {
        let named = self.user.is_empty() || self.user == user.name;
        let member = self.group.is_empty() || user.groups.contains(&self.group);
        named && member && !(self.user.is_empty() && self.group.is_empty())
    }

    fn matches(&self, asked: &Attributes) -> bool {
        let is = |said: &str, asked: &str| said == ANY || said == asked;
        let reads = READING.contains(&asked.verb.as_str());
        let what = match asked.is_resource {
            true => {
                is(&self.namespace, &asked.namespace)
                    && is(&self.resource, &asked.resource)
                    && is(&self.api_group, &asked.group)
            }
            false => {
                let path = &self.non_resource_path;
                let below = path.ends_with(ANY) && asked.path.starts_with(path.trim_end_matches(ANY));
                *path == asked.path || below
            }
        };
        self.is_about(&asked.user) && (reads || !self.readonly) && what
    }

    fn verbs(&self) -> Vec<String> {
        if self.readonly { READING.map(str::to_owned).to_vec() } else { vec![ANY.to_owned()] }
    }
}

impl Authorizer for Abac {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        match self.0.iter().any(|policy| policy.matches(attributes)) {
            true => Decision::allow(""),
            false => Decision::no_opinion("No policy matched."),
        }
    }

    fn rules_for(&self, user: &User, namespace: &str) -> Rules {
        let mut rules = Rules::default();
        let there = |policy: &&Policy| policy.namespace == ANY || policy.namespace == namespace;
        for policy in self.0.iter().filter(|policy| policy.is_about(user)).filter(there) {
            if !policy.resource.is_empty() {
                rules.resources.push(ResourceRule {
                    verbs: policy.verbs(),
                    api_groups: vec![policy.api_group.clone()],
                    resources: vec![policy.resource.clone()],
                    resource_names: Vec::new(),
                });
            }
            if !policy.non_resource_path.is_empty() {
                let paths = vec![policy.non_resource_path.clone()];
                rules.paths.push(PathRule { verbs: policy.verbs(), paths });
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
# people
{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "alice", "namespace": "*", "resource": "*", "apiGroup": "*"}}
{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"group": "ops", "readonly": true, "namespace": "a", "resource": "pods"}}
{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "*", "readonly": true, "nonResourcePath": "/healthz*"}}
{"user": "old", "resource": "events"}
"#;

    fn ask(user: &str, group: &str, verb: &str, what: (&str, &str, &str)) -> Attributes {
        let user = User { name: user.to_owned(), groups: vec![group.to_owned()], ..User::default() };
        let (namespace, group, resource) = what;
        Attributes {
            user,
            verb: verb.to_owned(),
            is_resource: true,
            namespace: namespace.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            ..Attributes::default()
        }
    }

    #[test]
    fn what_no_line_says_must_not_be_allowed() {
        let policies = Abac::parse("/p", FILE).unwrap();
        let pods = ("a", "", "pods");
        for (asked, allowed) in [
            (ask("alice", "", "delete", ("b", "apps", "deployments")), true),
            (ask("bob", "ops", "list", pods), true),
            (ask("bob", "ops", "create", pods), false),
            (ask("bob", "ops", "list", ("b", "", "pods")), false),
            (ask("bob", "ops", "list", ("a", "apps", "pods")), false),
            (ask("bob", "", "list", pods), false),
            (ask("old", "", "create", ("x", "events.k8s.io", "events")), true),
            (ask("old", "", "get", pods), false),
        ] {
            assert_eq!(policies.authorize(&asked).allowed(), allowed, "{asked:?}");
        }
        let path = |path: &str, group: &str| {
            let asked = ask("carol", group, "get", ("", "", ""));
            Attributes { is_resource: false, path: path.to_owned(), ..asked }
        };
        assert!(policies.authorize(&path("/healthz/ping", AUTHENTICATED)).allowed());
        assert!(!policies.authorize(&path("/metrics", AUTHENTICATED)).allowed());
        assert!(!policies.authorize(&path("/healthz", "system:unauthenticated")).allowed());
        assert_eq!(policies.authorize(&path("/metrics", "")).reason, "No policy matched.");
    }

    #[test]
    fn an_old_line_that_says_nothing_is_for_everybody_who_is_somebody() {
        let policies = Abac::parse("/p", "{}").unwrap();
        assert!(policies.authorize(&ask("x", AUTHENTICATED, "delete", ("a", "g", "r"))).allowed());
        assert!(!policies.authorize(&ask("x", "system:unauthenticated", "get", ("a", "g", "r"))).allowed());
    }

    #[test]
    fn rules_are_told_of_a_user() {
        let policies = Abac::parse("/p", FILE).unwrap();
        let user = User { name: "bob".into(), groups: vec!["ops".into()], ..User::default() };
        let rules = policies.rules_for(&user, "a");
        assert_eq!(rules.resources.len(), 1);
        assert_eq!(rules.resources[0].verbs, ["get", "list", "watch"]);
        assert!(policies.rules_for(&user, "b").resources.is_empty() && !rules.incomplete);
    }

    #[test]
    fn a_line_that_is_no_policy_is_refused_by_its_number() {
        for (text, start) in [
            ("\n{", "error reading policy file /p, line 2: {: "),
            (r#"{"apiVersion": "v1", "kind": "Pod"}"#, "error reading policy file /p, line 1: "),
            (r#"{"readonly": "yes"}"#, "error reading policy file /p, line 1: "),
        ] {
            let error = Abac::parse("/p", text).unwrap_err();
            assert!(error.starts_with(start), "{error}");
        }
    }
}
