//! What a start publishes of the cluster, as often as it takes: while members of etcd come and go, a write may stay undecided, and everything here may
//! be done twice.

use super::Plan;
use crate::member::shared::may_pass;
use crate::parts::apiserver::publish;
use crate::parts::apiserver::storage::SharedEtcd;
use anyhow::Context as _;
use pki::Pki;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Backoff, Task, jittered};
use tokio::sync::watch;

/// Between two looks whether the server that machines are told of is there.
const LOOK: Duration = Duration::from_secs(30);

/// What machines need to join.
pub(super) async fn publish_all(
    plan: &Plan,
    client: &kube::Client,
    pki: &Pki,
    etcd: Option<&SharedEtcd>,
) -> anyhow::Result<()> {
    let server = plan.public_url();
    insist(async || {
        let facts = plan.facts(&server, &pki.trusted, etcd);
        let published = Box::pin(publish::publish(client, facts, plan.token.as_ref()));
        published.await.context("publish what machines need to join")
    })
    .await
}

/// Keeps machines that join from being sent to a server that is gone, where there are several; `bundle` are the authorities of the time.
pub(super) fn endpoint(
    plan: Arc<Plan>,
    client: kube::Client,
    etcd: SharedEtcd,
    bundle: watch::Receiver<String>,
) -> Task {
    Task::endless("published-endpoint", move || {
        let (plan, client, etcd, bundle) = (plan.clone(), client.clone(), etcd.clone(), bundle.clone());
        async move {
            let mut missing = Missing::default();
            loop {
                tokio::time::sleep(jittered(LOOK)).await;
                let looked = look(&plan, &client, &etcd, &bundle, &mut missing).await;
                if let Err(error) = looked {
                    tracing::debug!(
                        error = format!("{error:#}"),
                        "look at what machines are told; will try again"
                    );
                }
            }
        }
    })
}

async fn look(
    plan: &Plan,
    client: &kube::Client,
    etcd: &SharedEtcd,
    bundle: &watch::Receiver<String>,
    missing: &mut Missing,
) -> anyhow::Result<()> {
    let Some(told) = publish::told(client).await? else { return Ok(()) };
    let is_there = publish::is_there(&told, &publish::living(client).await?, &plan.names.ips);
    let Some(gone) = missing.seen(&told, is_there) else { return Ok(()) };
    let (server, ca_pem) = (plan.public_url(), bundle.borrow().clone());
    publish::endpoint(client, publish::Facts { gone, ..plan.facts(&server, &ca_pem, Some(etcd)) }).await
}

/// The server that machines are told of and that was not there at the last look: one may be missing while it starts.
#[derive(Debug, Default)]
struct Missing {
    server: Option<String>,
    /// Another was written: once more, as others may have done so at the same time.
    again: bool,
}

impl Missing {
    /// Takes note of a look; gives what is to be written, if anything: in place of which server, or over what was written. Pure.
    fn seen<'a>(&mut self, told: &'a str, is_there: bool) -> Option<Option<&'a str>> {
        if is_there {
            self.server = None;
            return std::mem::take(&mut self.again).then_some(None);
        }
        if self.server.as_deref() == Some(told) {
            self.again = true;
            return Some(Some(told));
        }
        self.server = Some(told.to_owned());
        None
    }
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

    #[test]
    fn a_server_that_restarts_must_not_be_taken_for_gone() {
        let mut missing = Missing::default();
        assert_eq!(missing.seen("n1", true), None);
        assert_eq!(missing.seen("n1", false), None);
        assert_eq!(missing.seen("n1", true), None, "it is there again");
        assert_eq!(missing.seen("n1", false), None);
        assert_eq!(missing.seen("n1", false), Some(Some("n1")));
        assert_eq!(missing.seen("n2", true), Some(None), "two may have written at the same time");
        assert_eq!(missing.seen("n2", true), None);
        assert_eq!(missing.seen("n2", false), None);
        assert_eq!(missing.seen("n3", false), None, "each for itself");
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
