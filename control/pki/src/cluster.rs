//! Every key and certificate a control plane needs, in one directory under kubeadm's file names.
//!
//! [`Pki::load_or_create`] is woken at start and before the next renewal, reads the directory, and leaves it complete: an
//! authority is made once and renewed around the same key, leaves are made again when they are missing, do not match
//! their key, were signed by another authority, lack a name, or are past two thirds of their life. A key is written
//! before its certificate, so whatever instruction a crash hits, the next call finishes the work; an authority's key is
//! never overwritten. One process at a time: the caller holds the data directory's lock.

use crate::authority::{Authority, Issued, LEAF_LIFE, Leaf, Purpose};
use crate::certificate::{Certificate, needs_renewal};
use crate::files::{self, PRIVATE, PUBLIC};
use crate::key::parse_key;
use crate::kubeconfig::{Credentials, Kubeconfig};
use crate::service_account::{SigningKey, VerifyingKey};
use crate::{Error, rotation, signer};
use jiff::Timestamp;
use rcgen::PublicKeyData as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names and addresses under which clients reach the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterNames {
    /// Subject alternative names of type DNS.
    pub dns_names: Vec<String>,
    /// Subject alternative names of type IP.
    pub ips: Vec<IpAddr>,
}

impl ClusterNames {
    /// What every API server answers to inside its cluster, on its machine, and under `extra` names or addresses.
    #[must_use]
    pub fn of(cluster_domain: &str, service_ip: IpAddr, extra: &[String]) -> Self {
        let mut dns_names: Vec<String> =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
                .map(str::to_owned)
                .into();
        dns_names.push(format!("kubernetes.default.svc.{cluster_domain}"));
        let mut ips = vec![service_ip, IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()];
        for name in extra {
            match name.parse() {
                Ok(ip) => ips.push(ip),
                Err(_) => dns_names.push(name.clone()),
            }
        }
        dns_names.sort();
        dns_names.dedup();
        ips.sort();
        ips.dedup();
        Self { dns_names, ips }
    }

    /// Names and addresses, as texts.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.dns_names.iter().cloned().chain(self.ips.iter().map(IpAddr::to_string)).collect()
    }
}

/// The cluster's trust, loaded.
#[derive(Clone, Debug)]
pub struct Pki {
    dir: PathBuf,
    /// Signs server and client certificates, kubelets' among them (`ca`).
    pub ca: Arc<Authority>,
    /// The authorities to trust, as PEM: [`Pki::ca`] first, then those of a rotation.
    pub trusted: String,
    /// Signs the proxy in front of extension API servers (`front-proxy-ca`).
    pub front_proxy_ca: Arc<Authority>,
    /// The same of the front proxy's.
    pub front_proxy_trusted: String,
    /// Authorities of either name that others have replaced, as PEM: whatever they signed is not to be trusted.
    pub replaced: String,
    /// Serving certificate of the API server (`apiserver`).
    pub apiserver: Issued,
    /// The API server as a client of kubelets (`apiserver-kubelet-client`).
    pub apiserver_kubelet_client: Issued,
    /// The API server as a client of extension API servers (`front-proxy-client`).
    pub front_proxy_client: Issued,
    /// Signs service account tokens (`sa.key`).
    pub service_account: Arc<SigningKey>,
    /// Verify service account tokens (`sa.pub`): the current key and older ones.
    pub service_account_keys: Vec<VerifyingKey>,
}

impl Pki {
    /// Loads `dir`, completing and renewing what is needed. Idempotent and crash-safe.
    pub fn load_or_create(dir: &Path, names: &ClusterNames, now: Timestamp) -> Result<Self, Error> {
        files::create_private_dir(dir)?;
        let ca = authority(dir, "ca", "kubernetes", now)?;
        let front_proxy_ca = authority(dir, "front-proxy-ca", "front-proxy-ca", now)?;
        let serving = Leaf::server("kube-apiserver", names.dns_names.clone(), names.ips.clone());
        let kubelet_client = Leaf::client("kube-apiserver-kubelet-client", &["system:masters"]);
        let proxy_client = Leaf::client("front-proxy-client", &[]);
        let (service_account, service_account_keys) = service_account(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            apiserver: leaf(dir, "apiserver", &ca, &serving, now)?,
            apiserver_kubelet_client: leaf(dir, "apiserver-kubelet-client", &ca, &kubelet_client, now)?,
            front_proxy_client: leaf(dir, "front-proxy-client", &front_proxy_ca, &proxy_client, now)?,
            trusted: rotation::trusted(dir, "ca", &ca, now)?,
            front_proxy_trusted: rotation::trusted(dir, "front-proxy-ca", &front_proxy_ca, now)?,
            replaced: rotation::replaced(dir, "ca")? + &rotation::replaced(dir, "front-proxy-ca")?,
            ca: Arc::new(ca),
            front_proxy_ca: Arc::new(front_proxy_ca),
            service_account: Arc::new(service_account),
            service_account_keys,
        })
    }

    /// When [`Pki::load_or_create`] has something to renew next.
    pub fn next_renewal(&self) -> Result<Timestamp, Error> {
        let mut next =
            self.ca.certificate().renewal_time().min(self.front_proxy_ca.certificate().renewal_time());
        for issued in [&self.apiserver, &self.apiserver_kubelet_client, &self.front_proxy_client] {
            next = next.min(Certificate::from_pem(&issued.cert_pem)?.renewal_time());
        }
        Ok(next)
    }

    /// Directory of all files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A kubeconfig for a new client certificate of `user` in `groups`.
    pub fn kubeconfig(
        &self,
        server: &str,
        user: &str,
        groups: &[&str],
        now: Timestamp,
    ) -> Result<Kubeconfig, Error> {
        let Issued { cert_pem, key_pem } = self.ca.issue(&Leaf::client(user, groups), now)?;
        let credentials = Credentials::Certificate { cert_pem, key_pem };
        Ok(Kubeconfig::new("kubernetes", server, &self.trusted, user, credentials))
    }

    /// Signs a request under a signer's rules, as the `csrsigning` controllers do. The answer is PEM.
    pub fn sign(
        &self,
        request: &crate::CertificateRequest,
        usages: &[String],
        expiration_seconds: Option<i32>,
        now: Timestamp,
    ) -> Result<String, Error> {
        self.ca.sign(request, usages, signer::lifetime(expiration_seconds, LEAF_LIFE), now)
    }
}

/// Leaves, the authority of each, and what it is for.
pub const LEAVES: [(&str, &str, Purpose); 3] = [
    ("apiserver", "ca", Purpose::Server),
    ("apiserver-kubelet-client", "ca", Purpose::Client),
    ("front-proxy-client", "front-proxy-ca", Purpose::Client),
];

/// An authority that exists, with its key.
pub fn load_authority(dir: &Path, name: &str) -> Result<Authority, Error> {
    let (cert_path, key_path) = files::paths(dir, name);
    Authority::from_pem(&files::read(&cert_path)?, &files::read(&key_path)?)
}

pub(crate) fn authority(
    dir: &Path,
    name: &str,
    common_name: &str,
    now: Timestamp,
) -> Result<Authority, Error> {
    rotation::mend(dir, name)?;
    let (cert_path, key_path) = files::paths(dir, name);
    let cert = files::read_optional(&cert_path)?;
    let key = files::read_optional(&key_path)?;
    let fail = |reason: String| Error::Authority { name: name.to_owned(), reason };
    let found = match (cert, key) {
        (Some(cert), Some(key)) => Authority::from_pem(&cert, &key).map_err(|e| fail(e.to_string()))?,
        (Some(_), None) => return Err(fail(format!("{} is missing", key_path.display()))),
        // The creation was interrupted between the two files.
        (None, Some(key)) => {
            let made = Authority::with_key(common_name, parse_key(name, &key)?, now)?;
            files::write_atomic(&cert_path, made.cert_pem().as_bytes(), PUBLIC)?;
            made
        }
        (None, None) => {
            let made = Authority::generate(common_name, now)?;
            files::write_atomic(&key_path, made.key_pem().as_bytes(), PRIVATE)?;
            files::write_atomic(&cert_path, made.cert_pem().as_bytes(), PUBLIC)?;
            made
        }
    };
    if !needs_renewal(found.certificate(), now) {
        return Ok(found);
    }
    let renewed = found.renewed(now)?;
    files::write_atomic(&cert_path, renewed.cert_pem().as_bytes(), PUBLIC)?;
    Ok(renewed)
}

pub(crate) fn leaf(
    dir: &Path,
    name: &str,
    ca: &Authority,
    wanted: &Leaf,
    now: Timestamp,
) -> Result<Issued, Error> {
    let (cert_path, key_path) = files::paths(dir, name);
    if let (Some(cert_pem), Some(key_pem)) =
        (files::read_optional(&cert_path)?, files::read_optional(&key_path)?)
    {
        let issued = Issued { cert_pem, key_pem };
        if still_good(&issued, ca, wanted, now) {
            return Ok(issued);
        }
    }
    let issued = ca.issue(wanted, now)?;
    files::write_atomic(&key_path, issued.key_pem.as_bytes(), PRIVATE)?;
    files::write_atomic(&cert_path, issued.cert_pem.as_bytes(), PUBLIC)?;
    Ok(issued)
}

/// A leaf is kept while it is young, ours, matches its key and says at least what is wanted.
fn still_good(issued: &Issued, ca: &Authority, wanted: &Leaf, now: Timestamp) -> bool {
    let Ok(cert) = Certificate::from_pem(&issued.cert_pem) else { return false };
    let Ok(key) = parse_key(&wanted.common_name, &issued.key_pem) else { return false };
    !needs_renewal(&cert, now)
        && key.subject_public_key_info() == cert.public_key
        && cert.common_name == wanted.common_name
        && wanted.organizations.iter().all(|o| cert.organizations.contains(o))
        && wanted.dns_names.iter().all(|n| cert.dns_names.contains(n))
        && wanted.ips.iter().all(|ip| cert.ips.contains(ip))
        && cert.is_signed_by(ca.certificate())
}

fn service_account(dir: &Path) -> Result<(SigningKey, Vec<VerifyingKey>), Error> {
    let (private, public) = (dir.join("sa.key"), dir.join("sa.pub"));
    let key = match files::read_optional(&private)? {
        Some(text) => SigningKey::from_pem(&text)?,
        None => {
            let key = SigningKey::generate()?;
            files::write_atomic(&private, key.to_pem().as_bytes(), PRIVATE)?;
            key
        }
    };
    let mut keys = match files::read_optional(&public)? {
        Some(text) => VerifyingKey::list_from_pem(&text)?,
        None => Vec::new(),
    };
    if !keys.contains(key.public()) {
        keys.insert(0, key.public().clone());
        let text: String = keys.iter().map(VerifyingKey::to_pem).collect();
        files::write_atomic(&public, text.as_bytes(), PUBLIC)?;
    }
    Ok((key, keys))
}

#[cfg(test)]
mod tests;
