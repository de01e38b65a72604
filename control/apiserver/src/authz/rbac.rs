//! The RBAC evaluator: which bindings name the user, which of their roles' rules cover the request.
//! Upstream: `plugin/pkg/auth/authorizer/rbac`, `pkg/registry/rbac/validation/rule.go`.

pub mod escalation;

use super::{Attributes, Authorizer, Decision, PathRule, ResourceRule, Rules, Verdict, aggregate};
use crate::context::User;
use machinery::goformat::go_quote;
use serde::Deserialize;
use std::sync::Arc;

/// API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// One rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    /// Verbs, or `*`.
    pub verbs: Vec<String>,
    /// API groups, or `*`.
    pub api_groups: Vec<String>,
    /// Resources: `pods`, `pods/log`, `*/scale` or `*`.
    pub resources: Vec<String>,
    /// Object names; empty for all.
    pub resource_names: Vec<String>,
    /// Paths, or path prefixes that end in `*`.
    #[serde(rename = "nonResourceURLs")]
    pub non_resource_urls: Vec<String>,
}

/// A subject of a binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subject {
    /// `User`, `Group` or `ServiceAccount`.
    pub kind: String,
    /// API group of the kind.
    pub api_group: String,
    pub name: String,
    /// Namespace of a service account.
    pub namespace: String,
}

/// Which role a binding grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleRef {
    pub api_group: String,
    /// `Role` or `ClusterRole`.
    pub kind: String,
    pub name: String,
}

/// A RoleBinding, or with an empty namespace a ClusterRoleBinding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// Empty for a ClusterRoleBinding.
    pub namespace: String,
    pub name: String,
    pub role: RoleRef,
    pub subjects: Vec<Subject>,
}

/// Reads roles and bindings; the registry's cache or a fake.
pub trait PolicySource: Send + Sync {
    fn cluster_bindings(&self) -> Arc<Vec<Arc<Binding>>>;
    /// The RoleBindings of a namespace.
    fn bindings(&self, namespace: &str) -> Arc<Vec<Arc<Binding>>>;
    /// The rules of a ClusterRole.
    fn cluster_role(&self, name: &str) -> Option<Arc<Vec<PolicyRule>>>;
    /// The rules of a Role.
    fn role(&self, namespace: &str, name: &str) -> Option<Arc<Vec<PolicyRule>>>;
}

pub struct Rbac<P>(pub P);

impl<P: PolicySource> Rbac<P> {
    /// Calls `visit` with every rule that applies to the user, and the binding and subject it comes from, until `visit`
    /// says stop. Answers what could not be resolved.
    fn visit(
        &self,
        user: &User,
        namespace: &str,
        mut visit: impl FnMut(&Binding, &Subject, &PolicyRule) -> bool,
    ) -> Vec<String> {
        let mut errors = Vec::new();
        let cluster = self.0.cluster_bindings();
        let local = (!namespace.is_empty()).then(|| self.0.bindings(namespace));
        for binding in cluster.iter().chain(local.iter().flat_map(|b| b.iter())) {
            let Some(subject) = binding.subjects.iter().find(|s| applies(s, user, &binding.namespace)) else {
                continue;
            };
            match self.rules(binding) {
                Err(e) => errors.push(e),
                Ok(rules) => {
                    if rules.iter().any(|rule| visit(binding, subject, rule)) {
                        return errors;
                    }
                }
            }
        }
        errors
    }

    fn rules(&self, binding: &Binding) -> Result<Arc<Vec<PolicyRule>>, String> {
        let role = &binding.role;
        let (found, resource) = match role.kind.as_str() {
            "ClusterRole" => (self.0.cluster_role(&role.name), "clusterrole"),
            "Role" => (self.0.role(&binding.namespace, &role.name), "role"),
            other => return Err(format!("unsupported role reference kind: {}", go_quote(other))),
        };
        found.ok_or_else(|| format!("{resource}.{GROUP} {} not found", go_quote(&role.name)))
    }

    /// Every rule the user holds in `namespace` (or cluster-wide with an empty one), for escalation checks and reviews.
    pub fn rules_of(&self, user: &User, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let mut rules = Vec::new();
        let errors = self.visit(user, namespace, |_, _, rule| {
            rules.push(rule.clone());
            false
        });
        (rules, errors)
    }
}

impl<P: PolicySource> Authorizer for Rbac<P> {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        let mut allowed = None;
        let errors = self.visit(&attributes.user, &attributes.namespace, |binding, subject, rule| {
            let hit = rule_allows(rule, attributes);
            if hit {
                allowed = Some(format!("RBAC: allowed by {}", describe(binding, subject)));
            }
            hit
        });
        if let Some(reason) = allowed {
            return Decision::allow(reason);
        }
        let error = aggregate(&errors);
        let reason = if error.is_empty() { String::new() } else { format!("RBAC: {error}") };
        Decision { verdict: Verdict::NoOpinion, reason, error: String::new() }
    }

    fn rules_for(&self, user: &User, namespace: &str) -> Rules {
        let (rules, errors) = self.rules_of(user, namespace);
        let mut out = Rules { errors, ..Rules::default() };
        for rule in rules {
            if !rule.resources.is_empty() {
                out.resources.push(ResourceRule {
                    verbs: rule.verbs.clone(),
                    api_groups: rule.api_groups,
                    resources: rule.resources,
                    resource_names: rule.resource_names,
                });
            }
            if !rule.non_resource_urls.is_empty() {
                out.paths.push(PathRule { verbs: rule.verbs, paths: rule.non_resource_urls });
            }
        }
        out
    }
}

impl<P: PolicySource + ?Sized> PolicySource for Arc<P> {
    fn cluster_bindings(&self) -> Arc<Vec<Arc<Binding>>> {
        (**self).cluster_bindings()
    }
    fn bindings(&self, namespace: &str) -> Arc<Vec<Arc<Binding>>> {
        (**self).bindings(namespace)
    }
    fn cluster_role(&self, name: &str) -> Option<Arc<Vec<PolicyRule>>> {
        (**self).cluster_role(name)
    }
    fn role(&self, namespace: &str, name: &str) -> Option<Arc<Vec<PolicyRule>>> {
        (**self).role(namespace, name)
    }
}

/// Whether a binding's subject is the user.
fn applies(subject: &Subject, user: &User, binding_namespace: &str) -> bool {
    match subject.kind.as_str() {
        "User" => user.name == subject.name,
        "Group" => user.groups.contains(&subject.name),
        "ServiceAccount" => {
            let namespace = if subject.namespace.is_empty() { binding_namespace } else { &subject.namespace };
            !namespace.is_empty()
                && user
                    .name
                    .strip_prefix("system:serviceaccount:")
                    .and_then(|rest| rest.split_once(':'))
                    .is_some_and(|(ns, name)| ns == namespace && name == subject.name)
        }
        _ => false,
    }
}

/// `ClusterRoleBinding "a" of ClusterRole "b" to User "c"`.
fn describe(binding: &Binding, subject: &Subject) -> String {
    let (kind, name) = if binding.namespace.is_empty() {
        ("ClusterRoleBinding", binding.name.clone())
    } else {
        ("RoleBinding", format!("{}/{}", binding.name, binding.namespace))
    };
    let to = match subject.kind.as_str() {
        "ServiceAccount" => format!("{}/{}", subject.name, subject.namespace),
        _ => subject.name.clone(),
    };
    let (role_kind, role) = (&binding.role.kind, go_quote(&binding.role.name));
    format!("{kind} {} of {role_kind} {role} to {} {}", go_quote(&name), subject.kind, go_quote(&to))
}

/// Whether a rule covers a request.
#[must_use]
pub fn rule_allows(rule: &PolicyRule, a: &Attributes) -> bool {
    let any = |list: &[String], value: &str| list.iter().any(|l| l == "*" || l == value);
    if !any(&rule.verbs, &a.verb) {
        return false;
    }
    if !a.is_resource {
        return rule.non_resource_urls.iter().any(|url| path_matches(url, &a.path));
    }
    any(&rule.api_groups, &a.group)
        && rule.resources.iter().any(|r| resource_matches(r, a))
        && (rule.resource_names.is_empty() || rule.resource_names.contains(&a.name))
}

fn resource_matches(resource: &str, a: &Attributes) -> bool {
    if resource == "*" {
        return true;
    }
    match resource.split_once('/') {
        None => a.subresource.is_empty() && resource == a.resource,
        Some((parent, sub)) => {
            !a.subresource.is_empty() && sub == a.subresource && (parent == "*" || parent == a.resource)
        }
    }
}

fn path_matches(url: &str, path: &str) -> bool {
    url == "*"
        || url == path
        || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix.trim_end_matches('*')))
}

#[cfg(test)]
mod tests;
