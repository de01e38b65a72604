//! Which flow a request belongs to: FlowSchemas by precedence, and what tells one flow from another. Pure.
//! Upstream: `apiserver/pkg/util/flowcontrol/{rule,formatting}.go`.

use crate::context::{RequestInfo, User};
use crate::objects::{list, text, texts};
use serde_json::Value;

const ACCOUNT: &str = "system:serviceaccount:";

/// A subject of a rule.
#[derive(Clone, Debug)]
enum Subject {
    User(String),
    Group(String),
    /// Namespace and name, which may be `*`.
    Account(String, String),
}

impl Subject {
    fn parse(subject: &Value) -> Option<Self> {
        let of = |pointer: &str| text(subject, pointer).to_owned();
        match text(subject, "/kind") {
            "User" if subject.get("user").is_some() => Some(Subject::User(of("/user/name"))),
            "Group" if subject.get("group").is_some() => Some(Subject::Group(of("/group/name"))),
            "ServiceAccount" if subject.get("serviceAccount").is_some() => {
                Some(Subject::Account(of("/serviceAccount/namespace"), of("/serviceAccount/name")))
            }
            _ => None,
        }
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Subject::User(name) => name == "*" || *name == user.name,
            Subject::Group(group) => group == "*" || user.groups.contains(group),
            Subject::Account(namespace, name) => {
                let account = user.name.strip_prefix(ACCOUNT).and_then(|rest| rest.split_once(':'));
                account.is_some_and(|(of, called)| of == namespace && (name == "*" || called == name))
            }
        }
    }
}

#[derive(Clone, Debug)]
struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster_scope: bool,
}

#[derive(Clone, Debug)]
struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

#[derive(Clone, Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

/// What tells the flows of one schema apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    Nothing,
    User,
    Namespace,
}

#[derive(Clone, Debug)]
pub(super) struct Schema {
    pub name: String,
    pub uid: String,
    pub level: String,
    precedence: i64,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

/// A list with the wildcard holds nothing else.
fn holds(list: &[String], wanted: &str) -> bool {
    list.iter().any(|entry| entry == "*" || entry == wanted)
}

impl Schema {
    pub(super) fn parse(object: &Value) -> Self {
        let resource_rule = |r: &Value| ResourceRule {
            verbs: texts(r, "/verbs"),
            groups: texts(r, "/apiGroups"),
            resources: texts(r, "/resources"),
            namespaces: texts(r, "/namespaces"),
            cluster_scope: r.get("clusterScope").and_then(Value::as_bool).unwrap_or_default(),
        };
        let path_rule =
            |r: &Value| PathRule { verbs: texts(r, "/verbs"), paths: texts(r, "/nonResourceURLs") };
        let rule = |r: &Value| Rule {
            subjects: list(r, "/subjects").iter().filter_map(Subject::parse).collect(),
            resources: list(r, "/resourceRules").iter().map(resource_rule).collect(),
            paths: list(r, "/nonResourceRules").iter().map(path_rule).collect(),
        };
        Schema {
            name: text(object, "/metadata/name").to_owned(),
            uid: text(object, "/metadata/uid").to_owned(),
            level: text(object, "/spec/priorityLevelConfiguration/name").to_owned(),
            precedence: object
                .pointer("/spec/matchingPrecedence")
                .and_then(Value::as_i64)
                .unwrap_or(super::LAST_PRECEDENCE),
            distinguisher: match text(object, "/spec/distinguisherMethod/type") {
                "ByUser" => Distinguisher::User,
                "ByNamespace" => Distinguisher::Namespace,
                _ => Distinguisher::Nothing,
            },
            rules: list(object, "/spec/rules").iter().map(rule).collect(),
        }
    }

    /// Schemas are tried in this order: the lowest precedence first, then by name.
    pub(super) fn order(&self) -> (i64, &str) {
        (self.precedence, &self.name)
    }

    pub(super) fn matches(&self, info: &RequestInfo, user: &User) -> bool {
        self.rules.iter().any(|rule| {
            rule.subjects.iter().any(|subject| subject.is(user))
                && if info.is_resource {
                    rule.resources.iter().any(|r| r.matches(info))
                } else {
                    rule.paths.iter().any(|p| p.matches(info))
                }
        })
    }

    /// The flow's name within the schema.
    pub(super) fn distinguish<'a>(&self, info: &'a RequestInfo, user: &'a User) -> &'a str {
        match self.distinguisher {
            Distinguisher::Nothing => "",
            Distinguisher::User => &user.name,
            Distinguisher::Namespace => &info.namespace,
        }
    }
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let joined;
        let resource = if info.subresource.is_empty() {
            &info.resource
        } else {
            joined = format!("{}/{}", info.resource, info.subresource);
            &joined
        };
        holds(&self.verbs, &info.verb)
            && holds(&self.resources, resource)
            && holds(&self.groups, &info.group)
            && if info.namespace.is_empty() {
                self.cluster_scope
            } else {
                holds(&self.namespaces, &info.namespace)
            }
    }
}

impl PathRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        holds(&self.verbs, &info.verb)
            && self.paths.iter().any(|path| {
                let prefix = path.trim_end_matches('*').trim_end_matches('/');
                path == "*"
                    || *path == info.path
                    || info.path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn user(name: &str, groups: &[&str]) -> User {
        User {
            name: name.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..User::default()
        }
    }

    fn leases() -> RequestInfo {
        RequestInfo {
            is_resource: true,
            verb: "update".into(),
            group: "coordination.k8s.io".into(),
            resource: "leases".into(),
            namespace: "kube-system".into(),
            ..RequestInfo::default()
        }
    }

    #[test]
    fn rules_name_subjects_verbs_and_places() {
        let schema = Schema::parse(&json!({"metadata": {"name": "s"}, "spec": {"rules": [{
            "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}}],
            "resourceRules": [{"verbs": ["get", "update"], "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"], "namespaces": ["*"]}],
        }]}}));
        let account = user("system:serviceaccount:kube-system:x", &[]);
        assert!(schema.matches(&leases(), &account));
        assert!(!schema.matches(&leases(), &user("system:serviceaccount:kube-system2:x", &[])));
        let status = RequestInfo { subresource: "status".into(), ..leases() };
        assert!(!schema.matches(&status, &account));
        let everywhere = RequestInfo { namespace: String::new(), ..leases() };
        assert!(!schema.matches(&everywhere, &account), "cluster scope was not asked for");
    }

    #[test]
    fn paths_match_whole_segments() {
        let schema = Schema::parse(&json!({"spec": {"rules": [{
            "subjects": [{"kind": "Group", "group": {"name": "system:authenticated"}}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/logs/*"]}],
        }]}}));
        let caller = user("u", &["system:authenticated"]);
        for (path, fits) in [
            ("/healthz", true),
            ("/healthz/etcd", true),
            ("/healthzz", false),
            ("/logs/x", true),
            ("/log", false),
        ] {
            let info = RequestInfo { verb: "get".into(), path: path.into(), ..RequestInfo::default() };
            assert_eq!(schema.matches(&info, &caller), fits, "{path}");
        }
    }

    #[test]
    fn flows_are_told_apart_as_the_schema_says() {
        let of = |method: &str| {
            Schema::parse(&json!({"spec": {"distinguisherMethod": {"type": method}}}))
                .distinguish(&leases(), &user("u", &[]))
                .to_owned()
        };
        assert_eq!((of("ByUser"), of("ByNamespace"), of("")), ("u".into(), "kube-system".into(), "".into()));
    }
}
