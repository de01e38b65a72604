//! What a caller may do: the API server is asked (SubjectAccessReview of the path), and its answers are kept for a while.
//! Upstream: `apiserver/plugin/pkg/authorizer/webhook`.

use crate::flags::Flags;
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use kubelet::server::{Cache, User};
use std::time::{Duration, Instant};

/// How long an answer is kept that the flags say nothing about.
pub(super) const KEPT: Duration = Duration::from_secs(10);
/// Answers kept at once.
const MOST: usize = 1024;
/// Longer paths are asked about each time: what is kept is bounded.
const LONGEST_PATH: usize = 1024;

/// Asks the API server what callers may do.
pub(super) struct Reviews {
    client: kube::Client,
    answers: Cache<(User, String, String), bool>,
    /// How long it is kept that something is allowed.
    allowed: Duration,
    /// The same where it is not.
    denied: Duration,
}

impl Reviews {
    pub(super) fn new(flags: &Flags, client: kube::Client) -> Self {
        let span =
            |name: &str| flags.duration(&format!("authorization-webhook-cache-{name}-ttl")).unwrap_or(KEPT);
        let (allowed, denied) = (span("authorized"), span("unauthorized"));
        Self { client, answers: Cache::new(MOST), allowed, denied }
    }

    /// Whether the caller may `verb` the path.
    pub(super) async fn may(&self, user: &User, verb: &str, path: &str) -> Result<bool, kube::Error> {
        let key = (user.clone(), verb.to_owned(), path.to_owned());
        if let Some(known) = self.answers.get(&key, Instant::now()) {
            return Ok(known);
        }
        let answer = self.ask(user, verb, path).await?;
        if path.len() <= LONGEST_PATH {
            let life = if answer { self.allowed } else { self.denied };
            self.answers.put(key, answer, life, Instant::now());
        }
        Ok(answer)
    }

    async fn ask(&self, user: &User, verb: &str, path: &str) -> Result<bool, kube::Error> {
        let attributes = NonResourceAttributes { path: Some(path.to_owned()), verb: Some(verb.to_owned()) };
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(user.groups.clone()),
            extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
            non_resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let answer = Api::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(
            |status: k8s_openapi::api::authorization::v1::SubjectAccessReviewStatus| {
                status.allowed && status.denied != Some(true)
            },
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;
    use http::{Request, Response};
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use serde_json::{Value, json};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// One who asks an API server that allows only `/metrics`, and how often that was asked.
    fn reviews(line: &str) -> (Reviews, Arc<AtomicUsize>) {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let flags = Component::named("kube-scheduler").unwrap().table().parse(&arguments).unwrap();
        assert!(flags.unused().is_empty(), "{line}");
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let server = tower::service_fn(move |request: Request<Body>| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut review: Value = serde_json::from_slice(&body).unwrap();
                let allowed = review["spec"]["nonResourceAttributes"]["path"] == "/metrics";
                review["status"] = json!({ "allowed": allowed });
                Ok::<_, std::convert::Infallible>(Response::new(Body::from(review.to_string().into_bytes())))
            }
        });
        (Reviews::new(&flags, kube::Client::new(server, "default")), asked)
    }

    #[tokio::test]
    async fn an_answer_is_kept_as_long_as_the_flags_say() {
        let user =
            User { name: "u".to_owned(), uid: String::new(), groups: Vec::new(), extra: Default::default() };
        for (line, times) in [
            ("", 2),
            ("--authorization-webhook-cache-authorized-ttl=0s", 3),
            ("--authorization-webhook-cache-unauthorized-ttl=0s", 3),
            (
                "--authorization-webhook-cache-authorized-ttl=0s --authorization-webhook-cache-unauthorized-ttl=0s",
                4,
            ),
        ] {
            let (reviews, asked) = reviews(line);
            for path in ["/metrics", "/configz", "/metrics", "/configz"] {
                assert_eq!(reviews.may(&user, "get", path).await.unwrap(), path == "/metrics", "{line}");
            }
            assert_eq!(asked.load(Ordering::SeqCst), times, "{line}");
        }
        let (reviews, asked) = reviews("");
        for (name, verb) in [("a", "get"), ("b", "get"), ("a", "head"), ("a", "get")] {
            let user = User { name: name.to_owned(), ..user.clone() };
            reviews.may(&user, verb, "/metrics").await.unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 3, "an answer about one caller is none about another");
    }
}
