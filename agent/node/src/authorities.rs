//! Follows the cluster's authorities, which change while one is put in the place of another.
//!
//! Woken: at start, every [`PERIOD`], and soon after a look that failed. Reads: `kube-public/cluster-info`, as nobody, from a server that an authority known so far vouches
//! for. Writes: the node's kubeconfig and the authority of the kubelet's clients. Promises: authorities are taken over only if they vouch for
//! that server as well; a cluster that publishes none changes nothing.

use crate::bootstrap;
use crate::client::Slot;
use crate::cluster_info;
use crate::identity::Files;
use pki::{Certificate, Kubeconfig};
use std::collections::BTreeSet;
use std::time::Duration;
use supervise::{Backoff, chain};
use tokio::sync::watch;

/// How often they are asked for; a rotation's steps are to be further apart ([`LEARNT`]).
pub(crate) const PERIOD: Duration = Duration::from_secs(600);
/// The pauses after a look that failed, the first and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// How long after they are published every node whose server can be asked has learnt of them: one look that fails, the next, and both answers.
pub const LEARNT: Duration = Duration::from_secs(2 * PERIOD.as_secs() + 2 * AGAIN.1.as_secs());

/// When they are asked for again.
struct Pauses(Backoff);

impl Pauses {
    fn new() -> Self {
        Self(Backoff::new(AGAIN.0, AGAIN.1))
    }

    /// Until the next look after one that went well, or failed.
    async fn after(&mut self, failed: bool) {
        if failed {
            self.0.pause().await;
        } else {
            self.0.reset();
            tokio::time::sleep(PERIOD).await;
        }
    }
}

/// Never returns. Others are told through `changed`, the node's own client is replaced.
pub(crate) async fn follow(node: &str, files: &Files, slot: &Slot, changed: &watch::Sender<()>) {
    let mut pauses = Pauses::new();
    loop {
        let learnt = learn(files).await;
        let failed = learnt.is_err();
        match learnt {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!("the cluster's authorities are others than before");
                changed.send_replace(());
                bootstrap::replace(node, files, slot).await;
            }
            Err(error) => tracing::warn!(error, "ask for the cluster's authorities; will try again"),
        }
        pauses.after(failed).await;
    }
}

/// True when others than before are on disk now.
pub(crate) async fn learn(files: &Files) -> Result<bool, String> {
    let kubeconfig = Kubeconfig::read(&files.kubeconfig()).map_err(|e| chain(&e))?;
    let cluster = kubeconfig.cluster().map_err(|e| chain(&e))?;
    let known = cluster.authority_pem().map_err(|e| chain(&e))?;
    let published = published(&cluster.server, &known).await?;
    if set(&published)? == set(&known)? && first(&published)? == first(&known)? {
        return Ok(false);
    }
    // The server that said so must be theirs, too.
    self::published(&cluster.server, &published).await?;
    let user = kubeconfig.users.first().map(|user| user.name.clone()).unwrap_or_default();
    files.write_kubeconfig(&cluster.server, &published, &user).map_err(|e| chain(&e))?;
    Ok(true)
}

/// What a server that `authorities` vouch for says of the cluster's.
async fn published(server: &str, authorities: &str) -> Result<String, String> {
    let text = cluster_info::verified(server, authorities).await.map_err(|e| chain(&e))?;
    let read = Kubeconfig::parse(&text).and_then(|info| info.cluster()?.authority_pem());
    read.map_err(|e| chain(&e))
}

fn set(pem: &str) -> Result<BTreeSet<Vec<u8>>, String> {
    let all = Certificate::list_from_pem(pem).map_err(|e| chain(&e))?;
    Ok(all.into_iter().map(|certificate| certificate.der).collect())
}

/// The one that signs.
fn first(pem: &str) -> Result<Option<Vec<u8>>, String> {
    let all = Certificate::list_from_pem(pem).map_err(|e| chain(&e))?;
    Ok(all.into_iter().next().map(|certificate| certificate.der))
}

/// Whether a certificate was signed by an authority that another has replaced: the first one signs now.
pub(crate) fn is_replaced(certificate: &Certificate, files: &Files) -> bool {
    let authorities = || Kubeconfig::read(&files.kubeconfig()).ok()?.cluster().ok()?.authority_pem().ok();
    let all = authorities().and_then(|pem| Certificate::list_from_pem(&pem).ok()).unwrap_or_default();
    let Some((signing, others)) = all.split_first() else { return false };
    !certificate.is_signed_by(signing) && others.iter().any(|other| certificate.is_signed_by(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::tests::{cluster, config};
    use crate::identity::Role;
    use jiff::Timestamp;
    use pki::Authority;
    use pki::bootstrap::JoinToken;
    use tokio_util::sync::CancellationToken;

    #[tokio::test(start_paused = true)]
    async fn a_look_that_failed_must_not_be_the_last_for_a_period() {
        let mut pauses = Pauses::new();
        let began = tokio::time::Instant::now();
        for _ in 0..20 {
            let last = tokio::time::Instant::now();
            pauses.after(true).await;
            assert!(last.elapsed() <= 2 * AGAIN.1, "{:?}", last.elapsed());
        }
        assert!(began.elapsed() > AGAIN.1, "nor is it asked without a pause");
        let last = tokio::time::Instant::now();
        pauses.after(false).await;
        assert!(last.elapsed() >= PERIOD && LEARNT > 2 * PERIOD);
    }

    #[tokio::test]
    async fn authorities_that_do_not_vouch_for_their_server_must_not_be_believed() {
        let (cluster, dir) = (cluster().await, tempfile::tempdir().unwrap());
        let token = JoinToken::new(cluster.token.clone(), cluster.pki.ca.certificate());
        let server = cluster.server.lock().unwrap().clone();
        let config = config(dir.path(), Some(token));
        let (_, files) = bootstrap::join(&config, &server, &CancellationToken::new()).await.unwrap();
        assert_eq!(learn(&files).await, Ok(false));
        let held = files.read_pair(Role::Client).unwrap().unwrap().certificate;
        assert!(!is_replaced(&held, &files));

        let other = Authority::generate("kubernetes", Timestamp::now()).unwrap();
        *cluster.published.lock().unwrap() = Some(other.cert_pem());
        assert!(learn(&files).await.is_err());
        // beside the one that vouches it is; and once it signs, certificates of the other are due
        let both = format!("{}{}", other.cert_pem(), cluster.pki.ca.cert_pem());
        *cluster.published.lock().unwrap() = Some(both.clone());
        assert_eq!(learn(&files).await, Ok(true));
        let written =
            Kubeconfig::read(&files.kubeconfig()).unwrap().cluster().unwrap().authority_pem().unwrap();
        assert_eq!(written, both);
        assert_eq!(std::fs::read_to_string(files.client_ca()).unwrap(), both);
        assert!(is_replaced(&held, &files));
        assert_eq!(learn(&files).await, Ok(false));
    }
}
