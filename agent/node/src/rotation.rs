//! Renews the node's certificates.
//!
//! Woken by time: at two thirds of a certificate's life, and at once where there is none; by other authorities. Reads and writes the agent's
//! files and the API's certificate requests. Promises: the client certificate is renewed while it still works; the
//! serving certificate is requested as soon as the node runs, and until somebody signs it the kubelet serves one of its
//! own making; a failed renewal is tried again with backoff; users of the client and of the serving certificate get the
//! new one without a restart.

use crate::authorities;
use crate::bootstrap;
use crate::certificate;
use crate::client::Slot;
use crate::identity::{Files, KeyPair, Role};
use jiff::Timestamp;
use pki::request::Subject;
use pki::{Authority, Certificate, Leaf, needs_renewal};
use std::net::IpAddr;
use std::time::Duration;
use supervise::{Backoff, chain};
use tokio::sync::watch;

/// First and longest pause after a failed renewal.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// The longest sleep before the clock is read again: a suspended machine's timers stand still, a clock that was wrong is set, and authorities change.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_secs(120);

/// Told when the cluster's authorities are others; a certificate may be due by that.
pub(crate) type Changed = watch::Receiver<()>;

/// For credentials whose authorities are an administrator's to change.
pub(crate) fn never() -> Changed {
    watch::Sender::new(()).subscribe()
}

/// Keeps the client certificate young; never returns.
pub(crate) async fn client(
    node: &str,
    files: &Files,
    client: &kube::Client,
    slot: &Slot,
    mut changed: Changed,
) {
    let subject = Subject::node(node);
    loop {
        let current = files.read_pair(Role::Client).ok().flatten();
        due(current.as_ref().map(|pair| &pair.certificate), files, &mut changed).await;
        let renewed = obtain_with_backoff(client, files, Role::Client, &subject).await;
        bootstrap::replace(node, files, slot).await;
        tracing::info!(until = %renewed.certificate.not_after, "renewed the client certificate");
    }
}

/// Keeps the serving certificate young and for the node's present addresses; never returns.
pub(crate) async fn serving(
    node: &str,
    ips: &[IpAddr],
    files: &Files,
    client: &kube::Client,
    mut changed: Changed,
) {
    let subject = serving_subject(node, ips);
    loop {
        let read = || files.read_pair(Role::Serving).ok().flatten().map(|pair| pair.certificate);
        let current = read();
        let good = current.as_ref().filter(|c| serves(c, &subject) && is_signed(c));
        due(good, files, &mut changed).await;
        // On a server's machine, the server renews it.
        if good.is_some() && read() != current {
            continue;
        }
        let renewed = obtain_with_backoff(client, files, Role::Serving, &subject).await;
        tracing::info!(until = %renewed.certificate.not_after, "got a serving certificate");
    }
}

/// Makes sure that there is a serving certificate at all: one of our own making until the cluster signs one.
pub(crate) fn ensure_serving(node: &str, ips: &[IpAddr], files: &Files) -> Result<(), pki::Error> {
    let subject = serving_subject(node, ips);
    let now = Timestamp::now();
    let current = files.read_pair(Role::Serving)?;
    if current.is_some_and(|p| serves(&p.certificate, &subject) && !needs_renewal(&p.certificate, now)) {
        return Ok(());
    }
    let own = Authority::generate(OWN_AUTHORITY, now)?;
    let mut leaf = Leaf::server(&subject.common_name, subject.dns_names, subject.ips);
    leaf.organizations = vec![OWN_AUTHORITY.to_owned()];
    let issued = own.issue(&leaf, now)?;
    let certificate = Certificate::from_pem(&issued.cert_pem)?;
    let pair = KeyPair { certificate, key_pem: issued.key_pem };
    pki::files::write_atomic(&files.pair(Role::Serving), pair.to_pem().as_bytes(), pki::files::PRIVATE)
}

/// Subject `O` of a serving certificate no cluster signed.
const OWN_AUTHORITY: &str = "windlass self-signed";

fn is_signed(certificate: &Certificate) -> bool {
    !certificate.organizations.iter().any(|o| o == OWN_AUTHORITY)
}

fn serving_subject(node: &str, ips: &[IpAddr]) -> Subject {
    Subject { dns_names: vec![node.to_owned()], ips: ips.to_vec(), ..Subject::node(node) }
}

fn serves(certificate: &Certificate, subject: &Subject) -> bool {
    certificate.common_name == subject.common_name
        && subject.dns_names.iter().all(|name| certificate.dns_names.contains(name))
        && subject.ips.iter().all(|ip| certificate.ips.contains(ip))
}

/// Sleeps until a certificate is due; not at all without one. Where the authorities change and its own was replaced, it is due at once.
async fn due(certificate: Option<&Certificate>, files: &Files, changed: &mut Changed) {
    loop {
        tokio::select! {
            () = until_due(certificate, files) => return,
            Ok(()) = changed.changed() => {
                if certificate.is_none_or(|certificate| authorities::is_replaced(certificate, files)) {
                    return;
                }
            }
        }
    }
}

/// Sleeps until a certificate is due, or its authority was replaced; not at all without one. Whether it was is looked at after a pause each
/// time: whoever goes on signing with an authority that others have replaced must not be asked again at once.
pub(crate) async fn until_due(certificate: Option<&Certificate>, files: &Files) {
    let Some(certificate) = certificate else { return };
    while let Some(left) = time_left(certificate, Timestamp::now()) {
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
        if authorities::is_replaced(certificate, files) {
            return;
        }
    }
}

/// How long until a certificate must be renewed; `None` when it must be now. Pure.
fn time_left(certificate: &Certificate, now: Timestamp) -> Option<Duration> {
    if needs_renewal(certificate, now) {
        return None;
    }
    let left = certificate.renewal_time().duration_since(now);
    Some(Duration::try_from(left).unwrap_or_default().max(Duration::from_secs(1)))
}

async fn obtain_with_backoff(client: &kube::Client, files: &Files, role: Role, subject: &Subject) -> KeyPair {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    loop {
        match certificate::obtain(client, files, role, subject).await {
            Ok(pair) => return pair,
            Err(error) => {
                tracing::warn!(?role, error = %chain(&error), "renew certificate; will try again");
            }
        }
        backoff.pause().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_serves_before_anybody_signs_and_after_it_moved() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path());
        files.create().unwrap();
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let read = || files.read_pair(Role::Serving).unwrap().unwrap().certificate;
        ensure_serving("n1", &[ip], &files).unwrap();
        let first = read();
        assert!(!is_signed(&first) && serves(&first, &serving_subject("n1", &[ip])));
        ensure_serving("n1", &[ip], &files).unwrap();
        assert_eq!(read(), first);
        let moved: IpAddr = "192.0.2.2".parse().unwrap();
        ensure_serving("n1", &[moved], &files).unwrap();
        assert_eq!(read().ips, [moved]);
    }

    #[tokio::test]
    async fn a_certificate_of_a_replaced_authority_must_not_wait_for_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path());
        files.create().unwrap();
        let now = Timestamp::now();
        let [old, new] = ["old", "new"].map(|name| Authority::generate(name, now).unwrap());
        let leaf = old.issue(&Leaf::client("u", &[]), now).unwrap();
        let certificate = Certificate::from_pem(&leaf.cert_pem).unwrap();
        let write =
            |authorities: String| files.write_kubeconfig("https://127.0.0.1:1", &authorities, "u").unwrap();
        let told = watch::Sender::new(());
        let mut changed = told.subscribe();
        // Both are trusted, and the old one signs.
        write(old.cert_pem() + &new.cert_pem());
        told.send_replace(());
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, due(Some(&certificate), &files, &mut changed)).await.is_err());
        write(new.cert_pem() + &old.cert_pem());
        told.send_replace(());
        let at_once = due(Some(&certificate), &files, &mut changed);
        tokio::time::timeout(Duration::from_secs(60), at_once).await.unwrap();
    }

    #[test]
    fn renewal_is_due_at_two_thirds() {
        let start: Timestamp = "2026-01-01T00:05:00Z".parse().unwrap();
        let ca = Authority::generate("test", start).unwrap();
        let certificate = ca.certificate();
        let due = certificate.renewal_time();
        assert_eq!(time_left(certificate, due), None);
        let minute = jiff::SignedDuration::from_mins(1);
        assert_eq!(time_left(certificate, due - minute), Some(Duration::from_secs(60)));
    }
}
