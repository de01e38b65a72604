//! The service a kubeconfig names: its server is the address that reviews are posted to, path and all.

use anyhow::Context as _;
use apiserver::authz::webhook::{Failure, Reviewer};
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
        let passing = |text: String| Failure { text, passing: true };
        let broken = |text: String| Failure { text, passing: false };
        let request = http::Request::post(&self.path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json, */*")
            .body(Body::from(review.to_string().into_bytes()))
            .map_err(|e| broken(e.to_string()))?;
        let response = self.client.send(request).await.map_err(|e| passing(supervise::chain(&e)))?;
        let code = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map_err(|e| broken(format!("read the answer: {e}")))?.to_bytes();
        if !code.is_success() {
            let text = format!("the server answered {code}: {}", String::from_utf8_lossy(&body).trim());
            return Err(Failure { text, passing: matches!(code.as_u16(), 429 | 500 | 503 | 504) });
        }
        serde_json::from_slice(&body).map_err(|e| broken(format!("read the answer: {e}")))
    }
}

impl Reviewer for Remote {
    fn review<'a>(&'a self, review: &'a Value) -> BoxFuture<'a, Result<Value, Failure>> {
        Box::pin(async move {
            let late = |_| Err(Failure { text: "context deadline exceeded".to_owned(), passing: false });
            tokio::time::timeout(self.timeout, self.post(review)).await.unwrap_or_else(late)
        })
    }
}
