//! What the registry asks of the front: who a token is, who may do what, and a way to kubelets.

use apiserver::authn::Authenticator;
use apiserver::authz::{Attributes, Authorizer, Verdict, review};
use apiserver::context::{Context, Request, RequestInfo, Response, User};
use apiserver::registry::hooks::{Decision, Hooks};
use apiserver::stream::Connector;
use futures::future::BoxFuture;
use jiff::Timestamp;
use machinery::status::Status;
use serde_json::{Value, json};
use std::sync::Arc;

/// The front's answers.
pub(super) struct Front {
    /// Tells callers apart.
    pub(super) authenticator: Arc<Authenticator>,
    /// Decides.
    pub(super) authorizer: Arc<dyn Authorizer>,
    /// Reaches kubelets, pods and services.
    pub(super) connector: Connector,
}

impl Hooks for Front {
    fn review<'a>(
        &'a self,
        kind: &'a str,
        object: Value,
        user: &'a User,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(async move {
            let authorizer = &*self.authorizer;
            match kind {
                "TokenReview" => self.review_token(object).await,
                "SelfSubjectReview" => Ok(review::self_subject(&object, user)),
                "SubjectAccessReview" => review::subject_access(authorizer, &object),
                "SelfSubjectAccessReview" => review::self_subject_access(authorizer, &object, user),
                "LocalSubjectAccessReview" => review::local_subject_access(authorizer, &object, namespace),
                "SelfSubjectRulesReview" => review::self_subject_rules(authorizer, &object, user),
                other => Err(Status::internal_error(format!("nobody answers a {other}"))),
            }
        })
    }

    fn authorize<'a>(&'a self, user: &'a User, info: &'a RequestInfo) -> BoxFuture<'a, Decision> {
        let decision = self.authorizer.authorize(&Attributes::of(info, user, &[]));
        Box::pin(async move {
            match decision.verdict {
                Verdict::Allow => Decision::Allow(decision.reason),
                Verdict::Deny => Decision::Deny(decision.reason),
                Verdict::NoOpinion => Decision::NoOpinion(decision.reason),
            }
        })
    }

    fn connect(&self, context: Context, request: Request, target: Value) -> BoxFuture<'static, Response> {
        let connector = self.connector.clone();
        Box::pin(async move { connector.connect(context, request, &target).await })
    }
}

impl Front {
    /// Answers a TokenReview. Upstream: `pkg/registry/authentication/tokenreview`.
    async fn review_token(&self, mut object: Value) -> Result<Value, Status> {
        let token = object.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let asked = object.pointer("/spec/audiences").and_then(Value::as_array);
        let audiences: Vec<String> =
            asked.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let found = self.authenticator.authenticate_token(token, &audiences, Timestamp::now()).await;
        object["status"] = match found {
            Ok(Some(identity)) => {
                let mut status = json!({"authenticated": true, "user": review::user_info(&identity.user)});
                if !identity.audiences.is_empty() {
                    status["audiences"] = json!(identity.audiences);
                }
                status
            }
            Ok(None) => json!({"user": {}}),
            Err(error) => json!({"user": {}, "error": error}),
        };
        Ok(object)
    }
}
