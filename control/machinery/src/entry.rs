//! Expressions of the files that say who may enter and what he may do (upstream: `apiserver/pkg/authorization/cel`,
//! `apiserver/pkg/authentication/cel`).
//!
//! - [`on_review`]: conditions on a SubjectAccessReview, `request`
//! - [`on_claims`]: what a token's claims mean, `claims`; [`on_user`]: conditions on who that makes its bearer, `user`

use crate::admission::{CompileError, Expression, ResultType, compile_in};
use crate::cel::{self, ObjectType, Type};
use std::sync::Arc;

/// Compiles a condition on `request`, the spec of a review.
///
/// # Errors
/// In upstream's words.
pub fn on_review(source: &str) -> Result<Expression, CompileError> {
    compile_in(source, &[("request", review())], &[ResultType::Bool])
}

/// Compiles an expression on `claims`; with `condition`, one that is true or false.
///
/// # Errors
/// In upstream's words.
pub fn on_claims(source: &str, condition: bool) -> Result<Expression, CompileError> {
    let results: &[ResultType] = if condition { &[ResultType::Bool] } else { &[] };
    compile_in(source, &[("claims", Type::map(Type::Dyn))], results)
}

/// Whether an expression on `claims` reads this one of them.
#[must_use]
pub fn reads_claim(source: &str, claim: &str) -> bool {
    cel::selects(source, "claims", claim)
}

/// Compiles a condition on `user`.
///
/// # Errors
/// In upstream's words.
pub fn on_user(source: &str) -> Result<Expression, CompileError> {
    let mut user = texts(&["username", "uid"]);
    user.extend(lists());
    compile_in(source, &[("user", object("kubernetes.UserInfo", user))], &[ResultType::Bool])
}

fn object(name: &str, fields: Vec<(&str, Type)>) -> Type {
    let fields = fields.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
    Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields, open: false }))
}

fn texts(names: &[&'static str]) -> Vec<(&'static str, Type)> {
    names.iter().map(|name| (*name, Type::text())).collect()
}

fn lists() -> [(&'static str, Type); 2] {
    [("groups", Type::list(Type::text())), ("extra", Type::map(Type::list(Type::text())))]
}

fn review() -> Type {
    let selector = |name: &str| {
        let mut fields = texts(&["key", "operator"]);
        fields.push(("values", Type::list(Type::text())));
        let requirements = Type::list(object("kubernetes.SelectorRequirement", fields));
        object(name, vec![("rawSelector", Type::text()), ("requirements", requirements)])
    };
    let mut resource = texts(&["namespace", "verb", "group", "version", "resource", "subresource", "name"]);
    resource.push(("fieldSelector", selector("kubernetes.FieldSelectorAttributes")));
    resource.push(("labelSelector", selector("kubernetes.LabelSelectorAttributes")));
    let mut spec = texts(&["user", "uid"]);
    spec.extend(lists());
    spec.push(("resourceAttributes", object("kubernetes.ResourceAttributes", resource)));
    spec.push((
        "nonResourceAttributes",
        object("kubernetes.NonResourceAttributes", texts(&["path", "verb"])),
    ));
    object("kubernetes.SubjectAccessReviewSpec", spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Evaluator;
    use serde_json::{Value, json};

    fn value(expression: Result<Expression, CompileError>, name: &'static str, of: &Value) -> Value {
        let mut evaluator = Evaluator::default();
        evaluator.bind(name, of);
        evaluator.evaluate(&expression.unwrap()).unwrap()
    }

    #[test]
    fn a_condition_sees_the_review_and_nothing_else() {
        let request = json!({"user": "alice", "groups": ["g"], "resourceAttributes": {"namespace": "a", "verb": "get"}});
        for (source, expected) in [
            ("has(request.resourceAttributes)", true),
            ("has(request.nonResourceAttributes)", false),
            ("request.resourceAttributes.namespace == 'a' && 'g' in request.groups", true),
            ("request.user.startsWith('system:')", false),
        ] {
            assert_eq!(value(on_review(source), "request", &request), json!(expected), "{source}");
        }
        for wrong in ["request.name == 'x'", "object.x", "request.user", "claims.sub == 'x'"] {
            assert!(on_review(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn claims_are_of_any_type_and_a_user_is_not() {
        let claims = json!({"sub": "1", "roles": ["a", "b"], "nested": {"k": 3}});
        assert_eq!(value(on_claims("claims.sub", false), "claims", &claims), json!("1"));
        assert_eq!(
            value(on_claims("claims.roles.map(r, 'x:' + r)", false), "claims", &claims),
            json!(["x:a", "x:b"])
        );
        assert_eq!(value(on_claims("claims.nested.k == 3", true), "claims", &claims), json!(true));
        assert!(on_claims("claims.sub + 'x'", true).is_err(), "a condition is true or false");
        let user = json!({"username": "alice", "groups": []});
        assert_eq!(value(on_user("!user.username.startsWith('system:')"), "user", &user), json!(true));
        assert!(on_user("user.name == ''").is_err());
    }

    #[test]
    fn a_claim_that_is_only_written_about_must_not_pass_for_one_that_is_read() {
        for reads in [
            "claims.email_verified",
            "claims . email_verified",
            "claims.?email_verified.orValue(false)",
            "has(claims.email_verified) && true",
            "[1].exists(x, claims.email_verified)",
            "{'a': claims.email_verified}",
            "string(claims.email_verified)",
        ] {
            assert!(reads_claim(reads, "email_verified"), "{reads}");
        }
        for writes in [
            "claims.email + 'claims.email_verified'",
            "claims.email // claims.email_verified",
            "claims.email_verified_at",
            "claims.nested.email_verified",
            "others.claims.email_verified",
            "claims.email_verified +",
        ] {
            assert!(!reads_claim(writes, "email_verified"), "{writes}");
        }
    }
}
