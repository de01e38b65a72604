//! This server's identity: a Lease in `kube-system`, by which others know which API servers there are.
//!
//! Woken at the start and every ten seconds; every hour for those of others. Reads and writes Leases that are labelled so. Promises that
//! while a server runs its Lease is young, that one that stops in order leaves none, and that the Lease of one that died goes an hour after
//! its end. Upstream: `pkg/controlplane/apiserver/server.go`, `component-helpers/apimachinery/lease`, `controller/apiserverleasegc`.

use crate::registry::kind::Kind;
use crate::registry::options::DeleteOptions;
use crate::write::Writer;
use jiff::{SignedDuration, Timestamp};
use machinery::access::{Get as _, object_at, set_at};
use machinery::object;
use machinery::status::Status;
use machinery::time;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kube-system";
const LABEL: &str = "apiserver.kubernetes.io/identity";
const IDENTITY: &str = "kube-apiserver";
const HOST: &str = "kubernetes.io/hostname";
/// How often it is renewed, a little more or less.
const RENEW: Duration = Duration::from_secs(10);
/// How long a Lease is good without being renewed.
const SECONDS: i64 = 3600;
/// How often those of others are looked at.
const COLLECT: Duration = Duration::from_secs(3600);

/// The name of the server on a host (upstream: `NewConfig` of `apiserver/pkg/server/config.go`).
pub(super) fn name(host: &str) -> String {
    let mut hash = Sha256::new();
    for part in [host, IDENTITY] {
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        hash.update(length.to_be_bytes());
        hash.update(part);
    }
    format!("apiserver-{}", base32(hash.finalize().get(..16).unwrap_or_default()))
}

/// RFC 4648 in lower case, without padding.
fn base32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let digit = |start: usize| (start..start + 5).fold(0_u8, |value, at| value << 1 | bit(at));
    (0..bytes.len() * 8).step_by(5).map(|start| char::from(DIGITS[usize::from(digit(start))])).collect()
}

/// What a renewed Lease says; the holder stays.
fn renew(lease: &mut Value, host: &str, now: Timestamp) {
    object_at(lease, "metadata.labels").insert(LABEL.to_owned(), IDENTITY.into());
    object_at(lease, "metadata.labels").insert(HOST.to_owned(), host.into());
    set_at(lease, "spec.leaseDurationSeconds", SECONDS);
    set_at(lease, "spec.renewTime", time::format_micro(now));
}

/// Whether a Lease is nobody's any more, or never was one.
fn is_expired(lease: &Value, now: Timestamp) -> bool {
    let renewed = time::parse_micro(lease.text("spec.renewTime")).ok();
    let seconds = lease.present("spec.leaseDurationSeconds").and_then(Value::as_i64);
    let ends = renewed.zip(seconds).and_then(|(at, s)| at.checked_add(SignedDuration::from_secs(s)).ok());
    ends.is_none_or(|ends| ends < now)
}

struct Identity<'w> {
    writer: &'w Writer,
    kind: Kind,
    host: &'w str,
    name: String,
    holder: String,
}

/// Keeps the Lease until `stop`.
pub(super) async fn keep(writer: &Writer, stop: CancellationToken) {
    let (Some(kind), Some(host)) =
        (Kind::of("coordination.k8s.io", "leases"), writer.registry.config.host_name.as_deref())
    else {
        return stop.cancelled().await;
    };
    let name = name(host);
    let holder = format!("{name}_{}", uuid::Uuid::new_v4());
    let identity = Identity { writer, kind, host, name, holder };
    // An earlier life's.
    identity.told("remove the Lease of an earlier life", identity.remove().await);
    let mut collects = Instant::now();
    loop {
        identity.told("renew this server's Lease", identity.renew().await);
        if Instant::now() >= collects {
            collects = Instant::now() + COLLECT;
            identity.told("collect Leases of servers that are gone", identity.collect().await);
        }
        let jitter = u32::try_from(writer.registry.random() % 400).unwrap_or(0);
        let pause = RENEW + RENEW * jitter / 10_000;
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            break;
        }
    }
    identity.told("remove this server's Lease", identity.remove().await);
}

impl Identity<'_> {
    fn told(&self, what: &str, done: Result<(), Status>) {
        if let Err(error) = done {
            tracing::warn!(%error, lease = self.name, what);
        }
    }

    async fn remove(&self) -> Result<(), Status> {
        self.writer.discard(&self.kind, NAMESPACE, &self.name, &DeleteOptions::default()).await
    }

    async fn renew(&self) -> Result<(), Status> {
        let change = |old: &Value| {
            let mut new = old.clone();
            object::set_resource_version(&mut new, "");
            renew(&mut new, self.host, Timestamp::now());
            Ok(new)
        };
        match self.writer.amend(&self.kind, NAMESPACE, &self.name, "", &change).await {
            Err(error) if error.code == 404 => {}
            amended => return amended.map(drop),
        }
        let mut lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": NAMESPACE},
            "spec": {"holderIdentity": self.holder},
        });
        renew(&mut lease, self.host, Timestamp::now());
        self.writer.ensure(&self.kind, lease).await
    }

    async fn collect(&self) -> Result<(), Status> {
        let registry = &self.writer.registry;
        for lease in registry.cached(&self.kind, NAMESPACE)? {
            let ours = object::label(&lease, LABEL).unwrap_or_default() == IDENTITY;
            if !ours || !is_expired(&lease, Timestamp::now()) {
                continue;
            }
            let name = object::name(&lease);
            let now = registry.read(&self.kind, NAMESPACE, name).await?;
            if let Some(now) = now.filter(|lease| is_expired(lease, Timestamp::now())) {
                self.writer.discard_seen(&self.kind, &now).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_by_its_host() {
        // RFC 4648's own example, without its padding.
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
        let own = name("a");
        assert_eq!((own.len(), &own), (36, &name("a")));
        assert!(own.starts_with("apiserver-") && own != name("b"));
    }

    #[test]
    fn a_lease_that_is_renewed_must_not_be_collected() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut lease = json!({"spec": {"holderIdentity": "x"}});
        assert!(is_expired(&lease, now));
        renew(&mut lease, "h", now);
        assert_eq!(lease["metadata"]["labels"], json!({(LABEL): IDENTITY, (HOST): "h"}));
        let later = |seconds| now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        assert!(!is_expired(&lease, later(3600)) && is_expired(&lease, later(3601)));
    }
}
