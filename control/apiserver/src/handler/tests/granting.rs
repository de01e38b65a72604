//! Authorization by a function, where a test asks what becomes of who may not.

use super::*;
use crate::authz::rbac::PolicyRule;
use crate::context::{Request, RequestInfo};
use crate::registry::hooks::{Decision, Hooks};
use futures::future::BoxFuture;
use machinery::status::Status;

pub(super) struct Granting {
    pub(super) may: fn(&User, &RequestInfo) -> bool,
    /// What everybody's roles say.
    pub(super) rules: Vec<PolicyRule>,
}

impl Granting {
    /// No roles; `may` alone decides.
    pub(super) fn by(may: fn(&User, &RequestInfo) -> bool) -> Arc<Self> {
        Arc::new(Self { may, rules: Vec::new() })
    }
}

impl Hooks for Granting {
    fn review<'a>(
        &'a self,
        _: &'a str,
        review: Value,
        _: &'a User,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(async { Ok(review) })
    }

    fn authorize<'a>(&'a self, user: &'a User, info: &'a RequestInfo) -> BoxFuture<'a, Decision> {
        let decision = match (self.may)(user, info) {
            true => Decision::Allow(String::new()),
            false => Decision::NoOpinion(String::new()),
        };
        Box::pin(std::future::ready(decision))
    }

    fn rules_of(&self, _: &User, _: &str) -> (Vec<PolicyRule>, Vec<String>) {
        (self.rules.clone(), Vec::new())
    }

    fn connect(&self, _: Context, _: Request, _: Value) -> BoxFuture<'static, Response> {
        Box::pin(async { Response::default() })
    }
}
