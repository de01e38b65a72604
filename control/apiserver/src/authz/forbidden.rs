//! The words of a refusal, which clients and people match on.
//! Upstream: `apiserver/pkg/endpoints/handlers/responsewriters/errors.go`.

use super::{Attributes, Decision};
use machinery::goformat::go_quote;
use machinery::object::Gr;
use machinery::status::Status;

/// `User "x" cannot list resource "pods" in API group "" in the namespace "default"`.
#[must_use]
pub fn message(a: &Attributes) -> String {
    let user = go_quote(&a.user.name);
    if !a.is_resource {
        return format!("User {user} cannot {} path {}", a.verb, go_quote(&a.path));
    }
    let (resource, group) = (go_quote(&a.combined_resource()), go_quote(&a.group));
    let scope = match a.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {}", go_quote(namespace)),
    };
    format!("User {user} cannot {} resource {resource} in API group {group} {scope}", a.verb)
}

/// The 403 that answers a refused request.
#[must_use]
pub fn status(a: &Attributes, decision: &Decision) -> Status {
    let mut why = message(a);
    if !decision.reason.is_empty() {
        why = format!("{why}: {}", decision.reason);
    }
    Status::forbidden(&Gr::new(&a.group, &a.resource), &a.name, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::User;

    fn attributes() -> Attributes {
        Attributes {
            user: User { name: "x".into(), ..User::default() },
            verb: "list".into(),
            is_resource: true,
            resource: "pods".into(),
            namespace: "default".into(),
            ..Attributes::default()
        }
    }

    fn text(a: &Attributes) -> String {
        status(a, &Decision::no_opinion("")).message
    }

    #[test]
    fn refusals_read_as_upstream() {
        let mut a = attributes();
        assert_eq!(
            text(&a),
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#
        );
        a.namespace.clear();
        (a.group, a.resource, a.name) = ("apps".into(), "deployments".into(), "web".into());
        (a.verb, a.subresource) = ("get".into(), "scale".into());
        assert_eq!(
            text(&a),
            r#"deployments.apps "web" is forbidden: User "x" cannot get resource "deployments/scale" in API group "apps" at the cluster scope"#
        );
        assert!(status(&a, &Decision::no_opinion("why")).message.ends_with("at the cluster scope: why"));
    }

    #[test]
    fn a_refused_path_is_named() {
        let a = Attributes {
            path: "/metrics".into(),
            is_resource: false,
            verb: "get".into(),
            resource: String::new(),
            ..attributes()
        };
        assert_eq!(text(&a), r#"forbidden: User "x" cannot get path "/metrics""#);
        assert_eq!(status(&a, &Decision::no_opinion("")).code, 403);
    }
}
