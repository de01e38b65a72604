//! A part of which one leads: it works while it holds its lease, by upstream's names, so that ours and theirs exclude each other.

use anyhow::Context as _;
use client::leader::{Elector, Lost};
use std::path::Path;
use supervise::{Task, TaskError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The identity of a program that lives once: `HOST_UUID`.
pub(crate) fn identity() -> anyhow::Result<String> {
    named(&Uuid::new_v4())
}

/// The identity of whoever holds the lock of `dir`: the same after a restart, so that a server that was killed need not wait until its own
/// lease is over.
pub(crate) fn kept_identity(dir: &Path) -> anyhow::Result<String> {
    let path = dir.join("leader-identity");
    let kept = pki::files::read_optional(&path)?.and_then(|text| text.trim().parse().ok());
    let id = match kept {
        Some(id) => id,
        None => {
            let id = Uuid::new_v4();
            pki::files::write_atomic(&path, format!("{id}\n").as_bytes(), pki::files::PRIVATE)?;
            id
        }
    };
    named(&id)
}

fn named(id: &Uuid) -> anyhow::Result<String> {
    let host = node::config::host_name().context("read the host name")?;
    Ok(format!("{host}_{id}"))
}

/// What a part does that lost its lease.
#[derive(Clone)]
pub(crate) enum OnLoss {
    /// Contends again: it shares its process with others.
    Contend,
    /// Cancels this and stops working: its process ends, as upstream's do.
    End(CancellationToken),
}

/// The task of a part that does `work` while it leads; without an elector it always does.
pub(crate) fn task<W, F>(name: &'static str, elector: Option<Elector>, on_loss: OnLoss, work: W) -> Task
where
    W: Fn(CancellationToken) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), TaskError>> + Send + 'static,
{
    Task::new(name, move |token| {
        let (elector, on_loss, work) = (elector.clone(), on_loss.clone(), work.clone());
        async move {
            let Some(elector) = elector else { return work(token).await };
            loop {
                match (Box::pin(elector.lead(&token, &work)).await, &on_loss) {
                    (Ok(done), _) => return done.unwrap_or(Ok(())),
                    (Err(Lost), OnLoss::Contend) => {}
                    (Err(Lost), OnLoss::End(lost)) => {
                        lost.cancel();
                        token.cancelled().await;
                        return Ok(());
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_must_not_be_a_stranger_to_its_own_lease_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = kept_identity(dir.path()).unwrap();
        assert_eq!(kept_identity(dir.path()).unwrap(), first);
        let (host, id) = first.rsplit_once('_').unwrap();
        assert!(!host.is_empty() && id.parse::<Uuid>().is_ok(), "{first}");
        let other = tempfile::tempdir().unwrap();
        assert_ne!(kept_identity(other.path()).unwrap(), first, "two servers of one machine");
        assert_ne!(identity().unwrap(), identity().unwrap());
    }

    #[test]
    fn an_identity_that_cannot_be_read_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("leader-identity"), "").unwrap();
        let made = kept_identity(dir.path()).unwrap();
        assert_eq!(kept_identity(dir.path()).unwrap(), made);
    }
}
