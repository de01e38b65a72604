//! The service outside that is asked, by a kubeconfig: its server is the address that reviews are posted to, path and all.

use anyhow::Context as _;
use apiserver::authorization_webhook::{Failure, Reviewer};
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// Bytes of an answer.
const LONGEST_ANSWER: usize = 1 << 20;

/// Posts reviews there.
pub(super) struct Remote {
    client: kube::Client,
    path: String,
    timeout: Duration,
}

impl Remote {
    /// By a kubeconfig, or by the pod's own account.
    pub(super) async fn new(kubeconfig: Option<&Path>, timeout: Duration) -> anyhow::Result<Self> {
        let mut config = match kubeconfig {
            Some(path) => crate::parts::kubeconfig::config(path, None).await?,
            None => kube::Config::incluster().context("connectionInfo: InClusterConfig, and in no pod")?,
        };
        let path = match config.cluster_url.path().trim_end_matches('/') {
            "" => "/".to_owned(),
            path => path.to_owned(),
        };
        let mut parts = config.cluster_url.clone().into_parts();
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        config.cluster_url = http::Uri::from_parts(parts).context("the server of a kubeconfig")?;
        Ok(Self { client: kube::Client::try_from(config)?, path, timeout })
    }

    async fn post(&self, review: &Value) -> Result<Value, Failure> {
        let broken = |text: String| Failure { text, passing: false };
        let request = http::Request::post(&self.path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json, */*")
            .body(Body::from(review.to_string().into_bytes()))
            .map_err(|e| broken(e.to_string()))?;
        let response = self.client.send(request).await;
        let response = response.map_err(|e| Failure { text: supervise::chain(&e), passing: is_reset(&e) })?;
        let (code, delayed) = (response.status(), asks_for_delay(response.headers()));
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map_err(|e| broken(format!("read the answer: {e}")))?.to_bytes();
        if !code.is_success() {
            let text = format!("the server answered {code}: {}", String::from_utf8_lossy(&body).trim());
            return Err(Failure { text, passing: delayed || matches!(code.as_u16(), 429 | 500 | 504) });
        }
        serde_json::from_slice(&body).map_err(|e| broken(format!("read the answer: {e}")))
    }
}

/// Whether the connection was lost under way. A service that is not there is not asked again: everybody would wait for it.
fn is_reset(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    })
}

/// Whether the service says when it is to be asked again.
fn asks_for_delay(headers: &http::HeaderMap) -> bool {
    let seconds = headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    seconds.and_then(|seconds| seconds.parse().ok()).is_some_and(|seconds: u32| seconds > 0)
}

impl Reviewer for Remote {
    fn review<'a>(&'a self, review: &'a Value) -> BoxFuture<'a, Result<Value, Failure>> {
        Box::pin(async move {
            let late = |_| Err(Failure { text: "context deadline exceeded".to_owned(), passing: false });
            tokio::time::timeout(self.timeout, self.post(review)).await.unwrap_or_else(late)
        })
    }
}
