//! The node's heartbeat: its Lease in `kube-node-lease`.
//!
//! Woken by time alone, at a quarter of the lease's duration. Reads and writes the Lease. Promises: the renewal does not
//! wait for the status; a lease that was deleted is made again; a foreign holder or owner is put right; a failed renewal is
//! tried again with backoff before the next period.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::PostParams;
use std::time::Duration;
use supervise::Backoff;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Where node leases live.
pub const NAMESPACE: &str = "kube-node-lease";
/// First and longest pause after a failure, as upstream's.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(7));

/// Renews until `shutdown`, once the Node is known, as a lease of the Node that has the newest UID.
pub async fn keep(
    client: kube::Client,
    node: &str,
    mut uid: watch::Receiver<Option<String>>,
    duration: Duration,
    shutdown: &CancellationToken,
) {
    let renewing = async {
        loop {
            let known = uid.wait_for(Option::is_some).await.map(|known| known.clone());
            let Ok(Some(owner)) = known else { return };
            let another = async {
                if uid.wait_for(|now| now.as_ref() != Some(&owner)).await.is_err() {
                    // Nobody registers it any more.
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = Box::pin(run(client.clone(), node, &owner, duration, shutdown)) => return,
                () = another => {}
            }
        }
    };
    shutdown.run_until_cancelled(renewing).await;
}

/// Renews until `shutdown`.
async fn run(
    client: kube::Client,
    node: &str,
    node_uid: &str,
    duration: Duration,
    shutdown: &CancellationToken,
) {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let period = duration / 4;
    let mut known: Option<Lease> = None;
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    loop {
        let started = tokio::time::Instant::now();
        let renewal = renew(&api, known.take(), node, node_uid, duration);
        let renewed = tokio::select! {
            () = shutdown.cancelled() => return,
            renewed = tokio::time::timeout(period, renewal) => renewed,
        };
        let wait = match renewed {
            Ok(Ok(lease)) => {
                known = Some(lease);
                backoff.reset();
                period.saturating_sub(started.elapsed())
            }
            Ok(Err(error)) => {
                tracing::warn!(node, error = %error, "renew node lease; will try again");
                backoff.next_pause()
            }
            Err(_) => {
                tracing::warn!(node, "renew node lease: no answer; will try again");
                Duration::ZERO
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Writes the lease once: from what we wrote last, or, when that is refused, from the stored one.
async fn renew(
    api: &Api<Lease>,
    known: Option<Lease>,
    node: &str,
    uid: &str,
    duration: Duration,
) -> Result<Lease, kube::Error> {
    let params = PostParams::default();
    if let Some(known) = known {
        let next = renewed(known, node, uid, duration, Timestamp::now());
        match api.replace(node, &params, &next).await {
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {}
            done => return done,
        }
    }
    match api.get(node).await {
        Ok(found) => api.replace(node, &params, &renewed(found, node, uid, duration, Timestamp::now())).await,
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            let fresh = renewed(Lease::default(), node, uid, duration, Timestamp::now());
            api.create(&params, &fresh).await
        }
        Err(error) => Err(error),
    }
}

/// The lease with a new renewal time, held by and owned by the node. Pure.
fn renewed(mut lease: Lease, node: &str, uid: &str, duration: Duration, now: Timestamp) -> Lease {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    };
    let ObjectMeta { name, namespace, owner_references, .. } = &mut lease.metadata;
    *name = Some(node.to_owned());
    *namespace = Some(NAMESPACE.to_owned());
    let owners = owner_references.get_or_insert_default();
    if !owners.iter().any(|o| o.kind == "Node" && o.name == node && o.uid == uid) {
        // A lease left by a node of the same name that was deleted would be collected with it.
        owners.retain(|o| o.kind != "Node");
        owners.push(owner);
    }
    let micros = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
    let spec: &mut LeaseSpec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(node.to_owned());
    spec.lease_duration_seconds = i32::try_from(duration.as_secs()).ok();
    spec.renew_time = Some(MicroTime(micros));
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_keeps_the_lease_and_moves_its_time() {
        let now = Timestamp::from_microsecond(1_800_000_000_000_001).unwrap();
        let first = renewed(Lease::default(), "n1", "uid-1", Duration::from_secs(40), now);
        let spec = first.spec.clone().unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some("n1"), Some(40)));
        assert_eq!(spec.renew_time, Some(MicroTime(now)));
        let again = renewed(first.clone(), "n1", "uid-1", Duration::from_secs(40), now);
        assert_eq!(again, first);
        let reborn = renewed(first, "n1", "uid-2", Duration::from_secs(40), now);
        let owners = reborn.metadata.owner_references.unwrap();
        assert_eq!(owners.iter().map(|o| o.uid.as_str()).collect::<Vec<_>>(), ["uid-2"]);
    }
}
