//! What the front does for the registry: answers reviews, decides, carries streams.

use crate::authn::{self, Authenticator};
use crate::authz::policy::Policy;
use crate::authz::rbac::{PolicyRule, Rbac};
use crate::authz::{self, Attributes, Authorizer, Verdict, review};
use crate::context::{Context, Request, RequestInfo, Response, User};
use crate::health::Health;
use crate::registry::hooks::{Decision, Hooks};
use crate::stream::Connector;
use futures::future::BoxFuture;
use jiff::Timestamp;
use machinery::status::Status;
use serde_json::Value;
use std::sync::Arc;

/// The front, as the registry sees it.
pub struct Front {
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) health: Arc<Health>,
    pub(crate) connector: Connector,
}

impl Front {
    async fn answer(&self, kind: &str, object: Value, user: &User, namespace: &str) -> Result<Value, Status> {
        let authorizer = &*self.authorizer;
        match kind {
            "TokenReview" => authn::review::token(&self.authenticator, &object, Timestamp::now()).await,
            "SubjectAccessReview" => review::subject_access(authorizer, &object).await,
            "SelfSubjectAccessReview" => review::self_subject_access(authorizer, &object, user).await,
            "LocalSubjectAccessReview" => review::local_subject_access(authorizer, &object, namespace).await,
            "SelfSubjectRulesReview" => review::self_subject_rules(authorizer, &object, user),
            "SelfSubjectReview" => Ok(review::self_subject(&object, user)),
            other => Err(Status::internal_error(format!("nobody answers a {other}"))),
        }
    }
}

impl Hooks for Front {
    fn review<'a>(
        &'a self,
        kind: &'a str,
        review: Value,
        user: &'a User,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(self.answer(kind, review, user, namespace))
    }

    fn passes(&self, check: &str) -> Option<bool> {
        self.health.passes(check)
    }

    fn ask_neighbour<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<Result<String, String>>> {
        Box::pin(self.health.ask(name))
    }

    fn authorize<'a>(&'a self, user: &'a User, info: &'a RequestInfo) -> BoxFuture<'a, Decision> {
        self.authorize_narrowed(user, info, "")
    }

    fn authorize_narrowed<'a>(
        &'a self,
        user: &'a User,
        info: &'a RequestInfo,
        fields: &'a str,
    ) -> BoxFuture<'a, Decision> {
        let attributes = narrowed(user, info, fields);
        Box::pin(async move { told(self.authorizer.decide(&attributes).await) })
    }

    fn authorize_now(&self, user: &User, info: &RequestInfo, fields: &str) -> Decision {
        told(self.authorizer.authorize(&narrowed(user, info, fields)))
    }

    fn rules_of(&self, user: &User, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        Rbac(self.policy.clone()).rules_of(user, namespace)
    }

    fn connect(&self, context: Context, request: Request, target: Value) -> BoxFuture<'static, Response> {
        let connector = self.connector.clone();
        Box::pin(async move { connector.connect(context, request, &target).await })
    }
}

fn narrowed(user: &User, info: &RequestInfo, fields: &str) -> Attributes {
    Attributes::of(info, user, &[("fieldSelector".to_owned(), fields.to_owned())])
}

fn told(decision: authz::Decision) -> Decision {
    match decision.verdict {
        Verdict::Allow => Decision::Allow(decision.reason),
        Verdict::Deny => Decision::Deny(decision.reason),
        Verdict::NoOpinion => Decision::NoOpinion(decision.reason),
    }
}
