//! The ways to be let act as somebody else. All but the last are constrained: the author must be let do the very thing in that way
//! (`impersonate-on:WAY:VERB` on what the request is about), and be that somebody in that way (`impersonate:WAY`).

use super::{Impersonation, ask};
use crate::authz::{Attributes, Authorizer, Decision, MASTERS, forbidden};
use crate::context::User;
use machinery::status::Status;
use std::collections::BTreeMap;

const AUTHENTICATION: &str = "authentication.k8s.io";
/// What the token of a pod's account says of the pod's node.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// All that is left of what such a token says: which things it says.
const NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";
/// From so many groups or values on, one question about all of them comes first.
const MANY: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// An account's pod acts as the node it runs on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    /// Anybody who is neither.
    UserInfo,
    /// Whoever may `impersonate`, for any request.
    Legacy,
}

const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];

/// Who the request goes on as: by the first way that lets; and the verb of that way, where it is constrained. Where none lets, the first
/// refusal is the client's.
pub(super) async fn impersonated(
    wanted: &Impersonation,
    request: &Attributes,
    authorizer: &dyn Authorizer,
) -> Result<(User, String), Status> {
    let mut refusal = None;
    for mode in MODES {
        if !mode.fits(wanted, &request.user) {
            continue;
        }
        match mode.check(wanted, request, authorizer).await {
            Ok(()) => return Ok((wanted.user(mode != Mode::Legacy), mode.constraint())),
            Err(status) => refusal = refusal.or(Some(status)),
        }
    }
    Err(refusal.unwrap_or_else(|| Status::internal_error("all impersonation modes failed")))
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "associated-node",
            Mode::ArbitraryNode => "arbitrary-node",
            Mode::ServiceAccount => "serviceaccount",
            Mode::UserInfo => "user-info",
            Mode::Legacy => "",
        }
    }

    /// The verb of being somebody by this way, but for the old one, which is not constrained.
    fn constraint(self) -> String {
        match self {
            Mode::Legacy => String::new(),
            _ => format!("impersonate:{}", self.name()),
        }
    }

    fn fits(self, wanted: &Impersonation, author: &User) -> bool {
        let is_account = wanted.service_account().is_some();
        match self {
            Mode::AssociatedNode => wanted.is_only_a_name() && is_on(author, wanted),
            Mode::ArbitraryNode => wanted.is_only_a_name() && wanted.node().is_some(),
            Mode::ServiceAccount => wanted.is_only_a_name() && is_account,
            Mode::UserInfo => wanted.node().is_none() && !is_account,
            Mode::Legacy => true,
        }
    }

    async fn check(
        self,
        wanted: &Impersonation,
        request: &Attributes,
        authorizer: &dyn Authorizer,
    ) -> Result<(), Status> {
        let author = self.author(&request.user);
        if self == Mode::Legacy {
            return Question { mode: self, author: &author, verb: "impersonate".to_owned() }
                .all(wanted, authorizer)
                .await;
        }
        let name = self.name();
        let on = Attributes {
            user: author.clone(),
            verb: format!("impersonate-on:{name}:{}", request.verb),
            ..request.clone()
        };
        ask(authorizer, &on).await?;
        Question { mode: self, author: &author, verb: self.constraint() }.all(wanted, authorizer).await
    }

    /// Who asks. What differs from pod to pod of one account is left out where the node was compared already.
    fn author(self, user: &User) -> User {
        let mut author = user.clone();
        if self == Mode::AssociatedNode {
            let keys = user.extra.keys().cloned().collect();
            author.extra = BTreeMap::from([(NODE_KEYS.to_owned(), keys)]);
        }
        author
    }
}

/// Does the author's token say that its pod is on the wanted node?
fn is_on(author: &User, wanted: &Impersonation) -> bool {
    let account = author.name.starts_with("system:serviceaccount:");
    let nodes = author.extra.get(NODE_NAME).map(Vec::as_slice).unwrap_or_default();
    account && matches!((nodes, wanted.node()), ([own], Some(node)) if own == node)
}

/// Whether the author may be each part of somebody.
struct Question<'a> {
    mode: Mode,
    author: &'a User,
    verb: String,
}

impl Question<'_> {
    fn of(&self, group: &str, resource: &str, name: &str) -> Attributes {
        Attributes {
            user: self.author.clone(),
            verb: self.verb.clone(),
            is_resource: true,
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            name: name.into(),
            ..Attributes::default()
        }
    }

    fn constrained(&self) -> bool {
        self.mode != Mode::Legacy
    }

    /// Users and groups were of the core group before there were other ways.
    fn group(&self) -> &'static str {
        if self.constrained() { AUTHENTICATION } else { "" }
    }

    async fn all(&self, wanted: &Impersonation, authorizer: &dyn Authorizer) -> Result<(), Status> {
        ask(authorizer, &self.name(wanted)).await?;
        if let Some(uid) = &wanted.uid {
            ask(authorizer, &self.of(AUTHENTICATION, "uids", uid)).await?;
        }
        self.groups(wanted, authorizer).await?;
        self.extra(wanted, authorizer).await
    }

    fn name(&self, wanted: &Impersonation) -> Attributes {
        if let Some((namespace, name)) = wanted.service_account() {
            return Attributes {
                namespace: namespace.into(),
                ..self.of(self.group(), "serviceaccounts", name)
            };
        }
        match (self.mode, wanted.node()) {
            (Mode::AssociatedNode, _) => self.of(self.group(), "nodes", "*"),
            (Mode::ArbitraryNode, Some(node)) => self.of(self.group(), "nodes", node),
            _ => self.of(self.group(), "users", &wanted.name),
        }
    }

    fn refuse(&self, attributes: &Attributes, why: &str) -> Result<(), Status> {
        Err(forbidden::status(attributes, &Decision::no_opinion(why)))
    }

    async fn groups(&self, wanted: &Impersonation, authorizer: &dyn Authorizer) -> Result<(), Status> {
        let of = |name: &str| self.of(self.group(), "groups", name);
        if self.constrained() {
            if wanted.groups.iter().any(String::is_empty) {
                return self.refuse(&of(""), "impersonating the empty string group is not allowed");
            }
            if wanted.groups.iter().any(|group| group == MASTERS) {
                return self.refuse(&of(MASTERS), "impersonating the system:masters group is not allowed");
            }
            if wanted.groups.len() >= MANY && ask(authorizer, &of("*")).await.is_ok() {
                return Ok(());
            }
        }
        for group in &wanted.groups {
            ask(authorizer, &of(group)).await?;
        }
        Ok(())
    }

    async fn extra(&self, wanted: &Impersonation, authorizer: &dyn Authorizer) -> Result<(), Status> {
        let of = |key: &str, value: &str| Attributes {
            subresource: key.into(),
            ..self.of(AUTHENTICATION, "userextras", value)
        };
        if self.constrained() {
            if let Some(why) = odd(&wanted.extra) {
                return self.refuse(&of("", ""), why);
            }
            let values: usize = wanted.extra.values().map(Vec::len).sum();
            if values.max(wanted.extra.len()) >= MANY && ask(authorizer, &of("*", "*")).await.is_ok() {
                return Ok(());
            }
        }
        for (key, values) in &wanted.extra {
            for value in values {
                ask(authorizer, &of(key, value)).await?;
            }
        }
        Ok(())
    }
}

/// Why such details are nobody's.
fn odd(extra: &BTreeMap<String, Vec<String>>) -> Option<&'static str> {
    extra.iter().find_map(|(key, values)| match (key.as_str(), values.as_slice()) {
        ("", _) => Some("impersonating the empty string key in extra is not allowed"),
        (_, []) => Some("impersonating empty values in extra is not allowed"),
        (_, values) if values.iter().any(String::is_empty) => {
            Some("impersonating the empty string value in extra is not allowed")
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::NODES;
    use super::*;
    use crate::authz::policy::Policy;
    use crate::authz::rbac::Rbac;
    use serde_json::json;

    async fn act(
        rules: serde_json::Value,
        extra: &[(&str, &str)],
        wanted: &str,
        verb: &str,
    ) -> Result<User, Status> {
        let policy = Policy::default();
        policy.put(&json!({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": rules}));
        policy.put(&json!({"kind": "ClusterRoleBinding", "metadata": {"name": "b"},
            "roleRef": {"kind": "ClusterRole", "name": "r"},
            "subjects": [{"kind": "ServiceAccount", "namespace": "a", "name": "b"}]}));
        let user = User {
            name: "system:serviceaccount:a:b".into(),
            extra: extra.iter().map(|(k, v)| ((*k).to_owned(), vec![(*v).to_owned()])).collect(),
            ..User::default()
        };
        let request = Attributes {
            user,
            verb: verb.into(),
            is_resource: true,
            resource: "pods".into(),
            ..Attributes::default()
        };
        let wanted = Impersonation { name: wanted.to_owned(), ..Impersonation::default() };
        impersonated(&wanted, &request, &Rbac(policy)).await.map(|(user, _)| user)
    }

    #[tokio::test]
    async fn who_may_act_as_a_node_for_one_verb_must_not_for_another() {
        let rules = json!([
            {"verbs": ["impersonate:arbitrary-node"], "apiGroups": ["authentication.k8s.io"], "resources": ["nodes"], "resourceNames": ["n"]},
            {"verbs": ["impersonate-on:arbitrary-node:list"], "apiGroups": [""], "resources": ["pods"]},
        ]);
        let node = act(rules.clone(), &[], "system:node:n", "list").await.unwrap();
        assert_eq!(node.groups, [NODES, "system:authenticated"]);
        assert_eq!(
            act(rules.clone(), &[], "system:node:n", "delete").await.unwrap_err().message,
            "pods is forbidden: User \"system:serviceaccount:a:b\" cannot impersonate-on:arbitrary-node:delete resource \"pods\" in \
             API group \"\" at the cluster scope"
        );
        assert!(act(rules, &[], "system:node:m", "list").await.is_err());
    }

    #[tokio::test]
    async fn a_pod_must_not_act_as_a_node_it_is_not_on() {
        let rules = json!([
            {"verbs": ["impersonate:associated-node"], "apiGroups": ["authentication.k8s.io"], "resources": ["nodes"]},
            {"verbs": ["impersonate-on:associated-node:get"], "apiGroups": [""], "resources": ["pods"]},
        ]);
        assert!(act(rules.clone(), &[(NODE_NAME, "n")], "system:node:n", "get").await.is_ok());
        assert!(act(rules.clone(), &[(NODE_NAME, "m")], "system:node:n", "get").await.is_err());
        assert!(act(rules, &[], "system:node:n", "get").await.is_err());
    }

    #[tokio::test]
    async fn nobody_constrained_must_become_a_master() {
        let rules = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
        let wanted = Impersonation { groups: vec![MASTERS.to_owned()], ..Impersonation::default() };
        let author = User::default();
        let question =
            Question { mode: Mode::UserInfo, author: &author, verb: "impersonate:user-info".into() };
        let policy = Policy::default();
        policy.put(&json!({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": rules}));
        let refused = question.groups(&wanted, &Rbac(policy)).await.unwrap_err();
        assert!(
            refused.message.ends_with("impersonating the system:masters group is not allowed"),
            "{}",
            refused.message
        );
    }
}
