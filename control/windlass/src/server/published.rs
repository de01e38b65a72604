//! What a start publishes of the cluster, as often as it takes: while members of etcd come and go, a write may stay undecided, and everything here may
//! be done twice.

use super::Plan;
use crate::member::shared::may_pass;
use crate::parts::apiserver::publish;
use anyhow::Context as _;
use pki::Pki;
use std::time::Duration;
use supervise::Backoff;

/// What machines need to join.
pub(super) async fn publish_all(
    plan: &Plan,
    client: &kube::Client,
    pki: &Pki,
    several: bool,
) -> anyhow::Result<()> {
    let server = plan.public_url();
    insist(async || {
        let facts = plan.facts(&server, &pki.trusted, several);
        let published = Box::pin(publish::publish(client, facts, plan.token.as_ref()));
        published.await.context("publish what machines need to join")
    })
    .await
}

/// Tries until it works.
///
/// # Errors
/// What no other attempt would change.
async fn insist(mut work: impl AsyncFnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut pauses = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        match work().await {
            Err(error) if may_pass(&error) => {
                tracing::warn!(error = format!("{error:#}"), "will try again");
                pauses.pause().await;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn refused(code: u16) -> anyhow::Error {
        anyhow::Error::new(kube::Error::Api(Box::new(Status { code, ..Status::default() }))).context("create")
    }

    #[tokio::test]
    async fn a_write_that_stays_undecided_must_not_end_the_server() {
        let mut answers = vec![Ok(()), Err(refused(504)), Err(refused(429))];
        insist(async || answers.pop().unwrap()).await.unwrap();
        assert!(answers.is_empty());
    }

    #[tokio::test]
    async fn what_is_wrong_must_not_be_tried_for_ever() {
        let mut answers = vec![Ok(()), Err(refused(403))];
        let error = insist(async || answers.pop().unwrap()).await.unwrap_err();
        assert_eq!(error.to_string(), "create");
    }
}
