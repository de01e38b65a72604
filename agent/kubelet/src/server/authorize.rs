//! What a caller may do: requests to the port are `nodes` subresources to the API server, which decides.
//!
//! Since 1.36 fine-grained subresources are asked for first (`nodes/pods`), and `nodes/proxy` only when they are denied.

use super::authenticate::{REVIEW_PATIENCE, User};
use super::cache::Cache;
use super::config::Authorization;
use http::Method;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use std::time::Instant;

/// Reviews that are kept.
const MOST_REVIEWS: usize = 4096;

/// Path prefixes and the subresources that allow them, the first that allows is enough.
const SUBRESOURCES: &[(&str, &[&str])] = &[
    ("/pods", &["pods", "proxy"]),
    ("/runningpods", &["pods", "proxy"]),
    ("/healthz", &["healthz", "proxy"]),
    ("/configz", &["configz", "proxy"]),
    ("/statusz", &["statusz"]),
    ("/flagz", &["configz"]),
    ("/stats", &["stats"]),
    ("/metrics", &["metrics"]),
    ("/logs", &["log"]),
    ("/checkpoint", &["checkpoint"]),
];

/// The API's verb of a method; empty for those the API does not know.
pub fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// The subresources of `nodes`, any of which allows a path.
pub fn subresources(path: &str) -> &'static [&'static str] {
    let below =
        |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    SUBRESOURCES.iter().find(|(prefix, _)| below(prefix)).map_or(&["proxy"], |(_, allowed)| allowed)
}

/// The verdict on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// 403 with this text.
    Forbidden(String),
    /// 500 with this text: nobody could decide.
    Failed(String),
}

/// Decides by asking the API server.
pub struct Authorizer {
    mode: Authorization,
    node: String,
    client: Option<kube::Client>,
    reviews: Cache<(User, &'static str, &'static str), bool>,
}

impl Authorizer {
    /// One for the node of that name.
    pub fn new(mode: Authorization, node: &str, client: Option<kube::Client>) -> Self {
        Self { mode, node: node.to_owned(), client, reviews: Cache::new(MOST_REVIEWS) }
    }

    /// Whether `user` may send a request of this method to this path.
    pub async fn verdict(&self, user: &User, method: &Method, path: &str) -> Verdict {
        let Authorization::Webhook { allowed, denied } = self.mode else { return Verdict::Allowed };
        let (verb, subresources) = (verb(method), subresources(path));
        for &subresource in subresources {
            let key = (user.clone(), verb, subresource);
            let answer = match self.reviews.get(&key, Instant::now()) {
                Some(known) => known,
                None => match self.review(user, verb, subresource).await {
                    Ok(answer) => {
                        let life = if answer { allowed } else { denied };
                        self.reviews.put(key, answer, life, Instant::now());
                        answer
                    }
                    Err(error) => {
                        let text = format!(
                            "Authorization error (user={}, verb={verb}, resource=nodes, subresource={subresource})",
                            user.name
                        );
                        tracing::warn!(error, "{text}");
                        return Verdict::Failed(text);
                    }
                },
            };
            if answer {
                return Verdict::Allowed;
            }
        }
        Verdict::Forbidden(format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
            user.name,
            subresources.join(" ")
        ))
    }

    async fn review(&self, user: &User, verb: &str, subresource: &str) -> Result<bool, String> {
        let client = self.client.clone().ok_or("there is no API server")?;
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: text(&user.name),
                uid: text(&user.uid),
                groups: Some(user.groups.clone()),
                extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: text(verb),
                    version: text("v1"),
                    resource: text("nodes"),
                    subresource: text(subresource),
                    name: text(&self.node),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(client);
        let parameters = PostParams::default();
        let answer = tokio::time::timeout(REVIEW_PATIENCE, api.create(&parameters, &review)).await;
        let answer = answer.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
        Ok(answer.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_upstreams_subresources() {
        for (path, want) in [
            ("/pods", &["pods", "proxy"][..]),
            ("/pods/", &["pods", "proxy"]),
            ("/podsx", &["proxy"]),
            ("/runningpods/", &["pods", "proxy"]),
            ("/healthz/log", &["healthz", "proxy"]),
            ("/configz", &["configz", "proxy"]),
            ("/stats/summary", &["stats"]),
            ("/metrics/cadvisor", &["metrics"]),
            ("/logs/", &["log"]),
            ("/checkpoint/a/b/c", &["checkpoint"]),
            ("/containerLogs/a/b/c", &["proxy"]),
            ("/exec/a/b/c", &["proxy"]),
            ("/", &["proxy"]),
        ] {
            assert_eq!(subresources(path), want, "{path}");
        }
        assert_eq!((verb(&Method::GET), verb(&Method::POST), verb(&Method::HEAD)), ("get", "create", ""));
    }
}
