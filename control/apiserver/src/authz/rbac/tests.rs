use super::*;
use crate::authz::bootstrap;
use crate::authz::policy::Policy;
use crate::objects::Observer;
use serde_json::json;

fn user(name: &str, groups: &[&str]) -> User {
    User { name: name.into(), groups: groups.iter().map(|g| (*g).to_owned()).collect(), ..User::default() }
}

fn ask(user: User, verb: &str, group: &str, resource: &str, namespace: &str) -> Attributes {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes {
        user,
        verb: verb.into(),
        is_resource: true,
        group: group.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        ..Attributes::default()
    }
}

fn bootstrapped() -> Rbac<Policy> {
    let policy = Policy::default();
    bootstrap::objects().iter().for_each(|o| policy.put(o));
    Rbac(policy)
}

#[test]
fn the_reason_names_binding_role_and_subject() {
    let rbac = bootstrapped();
    assert_eq!(
        rbac.authorize(&ask(user("root", &["system:masters"]), "delete", "x", "y", "")).reason,
        r#"RBAC: allowed by ClusterRoleBinding "cluster-admin" of ClusterRole "cluster-admin" to Group "system:masters""#
    );
    let sa = user("system:serviceaccount:kube-system:job-controller", &[]);
    let decision = rbac.authorize(&ask(sa, "create", "", "pods", "a"));
    assert_eq!(
        decision.reason,
        r#"RBAC: allowed by ClusterRoleBinding "system:controller:job-controller" of ClusterRole "system:controller:job-controller" to ServiceAccount "job-controller/kube-system""#
    );
}

#[test]
fn a_role_binding_reaches_its_namespace_only() {
    let rbac = bootstrapped();
    rbac.0.put(&json!({
        "kind": "RoleBinding", "metadata": {"namespace": "a", "name": "b"},
        "roleRef": {"kind": "ClusterRole", "name": "system:aggregate-to-view"},
        "subjects": [{"kind": "ServiceAccount", "name": "default"}, {"kind": "User", "name": "alice"}],
    }));
    let alice = || user("alice", &["system:authenticated"]);
    assert!(rbac.authorize(&ask(alice(), "list", "", "pods", "a")).allowed());
    assert!(
        rbac.authorize(&ask(user("system:serviceaccount:a:default", &[]), "list", "", "pods", "a")).allowed()
    );
    assert!(
        !rbac
            .authorize(&ask(user("system:serviceaccount:b:default", &[]), "list", "", "pods", "a"))
            .allowed()
    );
    for (verb, resource, namespace) in [
        ("list", "pods", "b"),
        ("list", "pods", ""),
        ("create", "pods", "a"),
        ("get", "secrets", "a"),
        ("get", "pods/exec", "a"),
    ] {
        let decision = rbac.authorize(&ask(alice(), verb, "", resource, namespace));
        assert_eq!(decision, Decision::no_opinion(""), "{verb} {resource} {namespace}");
    }
    rbac.0.delete(GROUP, "rolebindings", "a", "b");
    assert!(!rbac.authorize(&ask(alice(), "list", "", "pods", "a")).allowed());
}

#[test]
fn a_missing_role_is_named_in_the_refusal() {
    let rbac = Rbac(Policy::default());
    rbac.0.put(&json!({
        "kind": "ClusterRoleBinding", "metadata": {"name": "b"},
        "roleRef": {"kind": "ClusterRole", "name": "gone"}, "subjects": [{"kind": "User", "name": "x"}],
    }));
    assert_eq!(
        rbac.authorize(&ask(user("x", &[]), "get", "", "pods", "")).reason,
        r#"RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#
    );
}

#[test]
fn paths_match_whole_or_by_prefix() {
    let rbac = bootstrapped();
    let get = |user: User, path: &str| {
        let a = Attributes { user, verb: "get".into(), path: path.into(), ..Attributes::default() };
        rbac.authorize(&a).allowed()
    };
    let anonymous = || user("system:anonymous", &["system:unauthenticated"]);
    assert!(["/healthz", "/livez", "/readyz", "/version"].iter().all(|p| get(anonymous(), p)));
    assert!(
        !get(anonymous(), "/apis") && !get(anonymous(), "/metrics") && !get(anonymous(), "/healthz/etcd")
    );
    assert!(get(user("alice", &["system:authenticated"]), "/openapi/v2"));
}

#[test]
fn names_and_subresource_wildcards_are_exact() {
    let rule = |resources: &str, names: &[&str]| PolicyRule {
        verbs: vec!["get".into()],
        api_groups: vec!["*".into()],
        resources: vec![resources.into()],
        resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
        ..PolicyRule::default()
    };
    let mut a = ask(user("x", &[]), "get", "apps", "deployments/scale", "n");
    a.name = "web".into();
    assert!(rule_allows(&rule("*/scale", &[]), &a) && rule_allows(&rule("deployments/scale", &["web"]), &a));
    assert!(!rule_allows(&rule("deployments", &[]), &a) && !rule_allows(&rule("*/status", &[]), &a));
    assert!(!rule_allows(&rule("deployments/scale", &["api"]), &a));
}

#[test]
fn rules_are_listed_for_reviews() {
    let rules = bootstrapped().rules_for(&user("alice", &["system:authenticated"]), "default");
    assert!(
        rules
            .resources
            .iter()
            .any(|r| r.resources == ["selfsubjectaccessreviews", "selfsubjectrulesreviews"])
    );
    assert!(rules.paths.iter().any(|p| p.paths.contains(&"/apis/*".to_owned())));
}
