//! Acting as somebody else, by `Impersonate-*` headers, where the authorizer lets.
//! Upstream: `apiserver/pkg/endpoints/filters/impersonation`.
//!
//! There are several ways to be let ([`mode`]), each with verbs of its own; the last is the old one, for any request.

mod mode;

use crate::audit::Trail;
use crate::authn::header_text::texts;
use crate::authn::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED};
use crate::authz::{Attributes, Authorizer, forbidden};
use crate::context::{RequestInfo, User};
use crate::query;
use http::HeaderMap;
use machinery::goformat::go_quote;
use machinery::status::Status;
use std::collections::BTreeMap;

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
const NODE: &str = "system:node:";
const NODES: &str = "system:nodes";

/// The user `user`'s request goes on as. Takes the headers out of the request.
pub(crate) async fn impersonate(
    headers: &mut HeaderMap,
    user: User,
    info: &RequestInfo,
    query: &[(String, String)],
    authorizer: &dyn Authorizer,
    trail: &Trail,
) -> Result<User, Status> {
    if !headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Ok(user);
    }
    let wanted = read(headers)?;
    if wanted.name.is_empty() {
        return Ok(user);
    }
    let request = Attributes::of(info, &user, query);
    let (user, constraint) = mode::impersonated(&wanted, &request, authorizer).await?;
    let names: Vec<_> = headers.keys().filter(|n| n.as_str().starts_with("impersonate-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    trail.impersonates(&user, &constraint);
    tracing::debug!(user = request.user.name, acting_as = user.name, "impersonation");
    Ok(user)
}

/// Refuses what the authorizer does not allow.
async fn ask(authorizer: &dyn Authorizer, attributes: &Attributes) -> Result<(), Status> {
    let decision = authorizer.decide(attributes).await;
    if decision.allowed() { Ok(()) } else { Err(forbidden::status(attributes, &decision)) }
}

#[derive(Debug, Default)]
struct Impersonation {
    name: String,
    uid: Option<String>,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

fn read(headers: &HeaderMap) -> Result<Impersonation, Status> {
    let values = |name: &str| texts(headers, name).map_err(Status::bad_request);
    let first = |name: &str| Ok::<_, Status>(values(name)?.into_iter().next().filter(|v| !v.is_empty()));
    let mut wanted = Impersonation {
        name: first(USER)?.unwrap_or_default(),
        uid: first(UID)?,
        groups: values(GROUP)?,
        extra: BTreeMap::new(),
    };
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            // Header names cannot hold every character of a key, so clients escape it; a broken escape is taken as it is.
            let key = query::decode(key).unwrap_or_else(|| key.to_owned()).to_lowercase();
            wanted.extra.entry(key).or_default().extend(values(name.as_str())?);
        }
    }
    let more = wanted.uid.is_some() || !wanted.groups.is_empty() || !wanted.extra.is_empty();
    if wanted.name.is_empty() && more {
        let why = format!("requested {wanted} without impersonating a user name");
        return Err(Status::bad_request(why));
    }
    Ok(wanted)
}

/// As Go prints a `user.DefaultInfo` with `%#v`.
impl std::fmt::Display for Impersonation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |items: &[String]| {
            let quoted: Vec<String> = items.iter().map(|item| go_quote(item)).collect();
            format!("[]string{{{}}}", quoted.join(", "))
        };
        let groups = if self.groups.is_empty() { "[]string(nil)".to_owned() } else { list(&self.groups) };
        let extra: Vec<String> =
            self.extra.iter().map(|(key, values)| format!("{}:{}", go_quote(key), list(values))).collect();
        let extra = if extra.is_empty() { "(nil)".to_owned() } else { format!("{{{}}}", extra.join(", ")) };
        let uid = go_quote(self.uid.as_deref().unwrap_or_default());
        let name = go_quote(&self.name);
        write!(
            f,
            "&user.DefaultInfo{{Name:{name}, UID:{uid}, Groups:{groups}, Extra:map[string][]string{extra}}}"
        )
    }
}

impl Impersonation {
    fn service_account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
    }

    fn node(&self) -> Option<&str> {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let part = |part: &str| {
            part.starts_with(edge) && part.ends_with(edge) && part.chars().all(|c| edge(c) || c == '-')
        };
        self.name.strip_prefix(NODE).filter(|name| name.split('.').all(part))
    }

    fn is_only_a_name(&self) -> bool {
        self.uid.is_none() && self.groups.is_empty() && self.extra.is_empty()
    }

    /// Who this is with all groups; `constrained` ways know those of nodes, too.
    fn user(&self, constrained: bool) -> User {
        let mut groups = self.groups.clone();
        if let Some((namespace, _)) = self.service_account().filter(|_| groups.is_empty()) {
            groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        } else if constrained && self.node().is_some() {
            groups = vec![NODES.to_owned()];
        }
        if !groups.iter().any(|g| g == AUTHENTICATED || g == UNAUTHENTICATED) {
            groups.push(if self.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED }.to_owned());
        }
        let uid = self.uid.clone().unwrap_or_default();
        User { name: self.name.clone(), uid, groups, extra: self.extra.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::policy::Policy;
    use crate::authz::{Masters, Union, rbac::Rbac};
    use serde_json::json;
    use std::sync::Arc;

    async fn act(user: &str, groups: &[&str], headers: &[(&'static str, &str)]) -> Result<User, Status> {
        let policy = Policy::default();
        policy.put(&json!({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [
            {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"]}]}));
        policy.put(&json!({"kind": "ClusterRoleBinding", "metadata": {"name": "b"},
            "roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "User", "name": "alice"}]}));
        let authorizer = Union::new(vec![Arc::new(Masters), Arc::new(Rbac(policy))]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let user = User {
            name: user.into(),
            groups: groups.iter().map(|g| (*g).into()).collect(),
            ..User::default()
        };
        let info = RequestInfo {
            verb: "list".into(),
            is_resource: true,
            resource: "pods".into(),
            ..RequestInfo::default()
        };
        let out = impersonate(&mut map, user, &info, &[], &authorizer, &Trail::default()).await;
        assert!(out.is_err() || map.is_empty());
        out
    }

    #[tokio::test]
    async fn only_who_may_can_act_as_another() {
        let bob = act("alice", &[], &[(USER, "bob")]).await.unwrap();
        assert_eq!((bob.name.as_str(), bob.groups), ("bob", vec!["system:authenticated".to_owned()]));
        assert_eq!(
            act("alice", &[], &[(USER, "carol")]).await.unwrap_err().message,
            // What the first way that fits was refused for.
            r#"pods is forbidden: User "alice" cannot impersonate-on:user-info:list resource "pods" in API group "" at the cluster scope"#
        );
        // Upstream: `getImpersonatedUser`, which tells of the first way, though the last was refused for the group.
        assert_eq!(
            act("alice", &[], &[(USER, "bob"), (GROUP, "system:masters")]).await.unwrap_err().message,
            r#"pods is forbidden: User "alice" cannot impersonate-on:user-info:list resource "pods" in API group "" at the cluster scope"#
        );
    }

    #[tokio::test]
    async fn a_service_account_has_its_groups() {
        let sa = act("root", &["system:masters"], &[(USER, "system:serviceaccount:a:b")]).await.unwrap();
        assert_eq!(sa.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
        let nobody = act("root", &["system:masters"], &[(USER, ANONYMOUS)]).await.unwrap();
        assert_eq!(nobody.groups, ["system:unauthenticated"]);
    }

    #[tokio::test]
    async fn extra_keys_are_unescaped() {
        let user = act(
            "root",
            &["system:masters"],
            &[(USER, "bob"), (UID, "7"), ("impersonate-extra-acme.com%2fproject", "x")],
        )
        .await
        .unwrap();
        assert_eq!(
            (user.uid.as_str(), user.extra["acme.com/project"].as_slice()),
            ("7", &["x".to_owned()][..])
        );
    }

    #[test]
    fn a_name_that_is_not_ascii_must_not_be_lost() {
        let headers = |name: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(USER, http::HeaderValue::from_static("bob"));
            headers.insert(GROUP, http::HeaderValue::from_bytes(name).unwrap());
            read(&headers)
        };
        assert_eq!(headers("組".as_bytes()).unwrap().groups, ["組"]);
        assert_eq!(headers(b"\xff").unwrap_err().code, 400);
    }

    #[tokio::test]
    async fn a_group_without_a_user_is_an_error() {
        let error = act("root", &["system:masters"], &[(GROUP, "g")]).await.unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (
                400,
                "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"g\"}, Extra:map[string][]string(nil)} without \
                 impersonating a user name"
            )
        );
    }

    /// Answers those who wait, and nobody else.
    struct Slow;

    impl Authorizer for Slow {
        fn authorize(&self, _: &Attributes) -> crate::authz::Decision {
            panic!("a thread is blocked")
        }

        fn decide<'a>(&'a self, _: &'a Attributes) -> futures::future::BoxFuture<'a, crate::authz::Decision> {
            Box::pin(async {
                tokio::task::yield_now().await;
                crate::authz::Decision::allow("")
            })
        }

        fn rules_for(&self, _: &User, _: &str) -> crate::authz::Rules {
            crate::authz::Rules::default()
        }
    }

    #[tokio::test]
    async fn a_slow_authorizer_must_not_hold_a_thread_of_who_acts_as_another() {
        let mut headers = HeaderMap::new();
        headers.insert(USER, http::HeaderValue::from_static("bob"));
        assert_eq!(
            impersonate(
                &mut headers,
                User::default(),
                &RequestInfo::default(),
                &[],
                &Slow,
                &Trail::default()
            )
            .await
            .unwrap()
            .name,
            "bob"
        );
    }
}
