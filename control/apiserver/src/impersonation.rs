//! Acting as somebody else, by `Impersonate-*` headers, where the authorizer lets.
//! Upstream: `apiserver/pkg/endpoints/filters/impersonation`.

use crate::authn::header_text::texts;
use crate::authn::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED};
use crate::authz::{Attributes, Authorizer, forbidden};
use crate::context::User;
use crate::query;
use http::HeaderMap;
use machinery::status::Status;
use std::collections::BTreeMap;

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// The user the request goes on as. Takes the headers out of the request.
pub(crate) fn impersonate(
    headers: &mut HeaderMap,
    user: User,
    authorizer: &dyn Authorizer,
) -> Result<User, Status> {
    if !headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Ok(user);
    }
    let wanted = read(headers)?;
    for attributes in wanted.questions(&user) {
        let decision = authorizer.authorize(&attributes);
        if !decision.allowed() {
            return Err(forbidden::status(&attributes, &decision));
        }
    }
    let names: Vec<_> = headers.keys().filter(|n| n.as_str().starts_with("impersonate-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    tracing::debug!(user = user.name, acting_as = wanted.name, "impersonation");
    Ok(wanted.user())
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
        return Err(Status::internal_error(format!("requested {wanted} without impersonating a user")));
    }
    Ok(wanted)
}

impl std::fmt::Display for Impersonation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut all: Vec<String> = self.groups.iter().map(|g| format!("Group {g}")).collect();
        all.extend(
            self.extra.iter().flat_map(|(k, vs)| vs.iter().map(move |v| format!("UserExtra {k}={v}"))),
        );
        all.extend(self.uid.iter().map(|u| format!("UID {u}")));
        write!(f, "[{}]", all.join(" "))
    }
}

impl Impersonation {
    fn service_account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
    }

    /// May `user` take on each of these?
    fn questions(&self, user: &User) -> Vec<Attributes> {
        let ask = |group: &str, resource: &str, name: &str| Attributes {
            user: user.clone(),
            verb: "impersonate".into(),
            is_resource: true,
            group: group.into(),
            version: if group.is_empty() { String::new() } else { "v1".into() },
            resource: resource.into(),
            name: name.into(),
            ..Attributes::default()
        };
        let mut out = Vec::new();
        if let Some((namespace, name)) = self.service_account() {
            out.push(Attributes { namespace: namespace.into(), ..ask("", "serviceaccounts", name) });
        } else if !self.name.is_empty() {
            out.push(ask("", "users", &self.name));
        }
        out.extend(self.groups.iter().map(|g| ask("", "groups", g)));
        for (key, values) in &self.extra {
            out.extend(
                values
                    .iter()
                    .map(|v| Attributes { subresource: key.clone(), ..ask(AUTHENTICATION, "userextras", v) }),
            );
        }
        out.extend(self.uid.iter().map(|u| ask(AUTHENTICATION, "uids", u)));
        out
    }

    fn user(self) -> User {
        let mut groups = self.groups.clone();
        if let Some((namespace, _)) = self.service_account().filter(|_| groups.is_empty()) {
            groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        }
        if !groups.iter().any(|g| g == AUTHENTICATED || g == UNAUTHENTICATED) {
            groups.push(if self.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED }.to_owned());
        }
        User { name: self.name, uid: self.uid.unwrap_or_default(), groups, extra: self.extra }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::policy::Policy;
    use crate::authz::{Masters, Union, rbac::Rbac};
    use serde_json::json;
    use std::sync::Arc;

    fn act(user: &str, groups: &[&str], headers: &[(&'static str, &str)]) -> Result<User, Status> {
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
        let out = impersonate(&mut map, user, &authorizer);
        assert!(out.is_err() || map.is_empty());
        out
    }

    #[test]
    fn only_who_may_can_act_as_another() {
        let bob = act("alice", &[], &[(USER, "bob")]).unwrap();
        assert_eq!((bob.name.as_str(), bob.groups), ("bob", vec!["system:authenticated".to_owned()]));
        assert_eq!(
            act("alice", &[], &[(USER, "carol")]).unwrap_err().message,
            r#"users "carol" is forbidden: User "alice" cannot impersonate resource "users" in API group "" at the cluster scope"#
        );
        assert_eq!(
            act("alice", &[], &[(USER, "bob"), (GROUP, "system:masters")]).unwrap_err().message,
            r#"groups "system:masters" is forbidden: User "alice" cannot impersonate resource "groups" in API group "" at the cluster scope"#
        );
    }

    #[test]
    fn a_service_account_has_its_groups() {
        let sa = act("root", &["system:masters"], &[(USER, "system:serviceaccount:a:b")]).unwrap();
        assert_eq!(sa.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
        let nobody = act("root", &["system:masters"], &[(USER, ANONYMOUS)]).unwrap();
        assert_eq!(nobody.groups, ["system:unauthenticated"]);
    }

    #[test]
    fn extra_keys_are_unescaped() {
        let user = act(
            "root",
            &["system:masters"],
            &[(USER, "bob"), (UID, "7"), ("impersonate-extra-acme.com%2fproject", "x")],
        )
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

    #[test]
    fn a_group_without_a_user_is_an_error() {
        let error = act("root", &["system:masters"], &[(GROUP, "g")]).unwrap_err();
        assert_eq!(
            error.message,
            "Internal error occurred: requested [Group g] without impersonating a user"
        );
    }
}
