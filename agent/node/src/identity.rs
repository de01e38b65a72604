//! The agent's credentials on disk, below `agent/`:
//!
//! - `kubeconfig`: the server, its authority, and the path of the client certificate
//! - `pki/client-ca.crt`: the cluster's authority, which signs those who may talk to the kubelet
//! - `pki/kubelet-client-current.pem`, `pki/kubelet-server-current.pem`: certificate and key in one file, as upstream's
//!   kubelet keeps them, so that a renewal is one rename
//! - `pki/PART-client-current.pem`, `PART.kubeconfig`: the same of the node's other parts, which speak as themselves
//! - `pki/kubelet-client.key.new`, `pki/kubelet-server.key.new`: the key of a certificate that is asked for

use pki::kubeconfig::Credentials;
use pki::part::NodePart;
use pki::{Certificate, Kubeconfig, files, pem};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Paths of a node's kubeconfig and certificates.
#[derive(Clone, Debug)]
pub struct Files {
    kubeconfig: PathBuf,
    pki: PathBuf,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct KeyPair {
    /// Parsed leaf.
    pub certificate: Certificate,
    /// Its key, as PEM. Never log it.
    pub key_pem: String,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("not_after", &self.certificate.not_after).finish_non_exhaustive()
    }
}

impl KeyPair {
    /// Reads certificate and key from one PEM text.
    pub fn parse(text: &str) -> Result<Self, pki::Error> {
        let certificate = Certificate::from_pem(text)?;
        let key = pem::private_key(text.as_bytes())?;
        let label = match key {
            rustls::pki_types::PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            rustls::pki_types::PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        Ok(Self { certificate, key_pem: pem::encode(label, key.secret_der()) })
    }

    /// Both as one PEM text.
    #[must_use]
    pub fn to_pem(&self) -> String {
        format!("{}{}", self.certificate.to_pem(), self.key_pem)
    }
}

/// Which of a node's certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The kubelet as a client of the API server.
    Client,
    /// The kubelet's HTTPS port.
    Serving,
    /// Another part of the node as a client of the API server.
    Part(NodePart),
}

fn forget(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), error = %error, "remove a used file");
        }
        _ => {}
    }
}

impl Role {
    /// What its files' names begin with.
    fn prefix(self) -> String {
        match self {
            Self::Client => "kubelet-client".to_owned(),
            Self::Serving => "kubelet-server".to_owned(),
            Self::Part(part) => format!("{}-client", part.name()),
        }
    }
}

impl Files {
    /// The files below `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self::at(dir.join("kubeconfig"), dir.join("pki"))
    }

    /// A kubeconfig and a directory of certificates, wherever they are.
    #[must_use]
    pub fn at(kubeconfig: PathBuf, pki: PathBuf) -> Self {
        Self { kubeconfig, pki }
    }

    /// Creates the directories, mode 0700.
    pub fn create(&self) -> Result<(), pki::Error> {
        files::create_private_dir(&self.pki)
    }

    /// Path of the kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    /// The authority of the kubelet's clients.
    #[must_use]
    pub fn client_ca(&self) -> PathBuf {
        self.pki.join("client-ca.crt")
    }

    /// The current certificate and key of a role.
    #[must_use]
    pub fn pair(&self, role: Role) -> PathBuf {
        self.pki.join(format!("{}-current.pem", role.prefix()))
    }

    /// Reads the current certificate and key of a role. A file that does not parse counts as none: it is replaced.
    pub fn read_pair(&self, role: Role) -> Result<Option<KeyPair>, pki::Error> {
        let path = self.pair(role);
        let Some(text) = files::read_optional(&path)? else { return Ok(None) };
        match KeyPair::parse(&text) {
            Ok(pair) => Ok(Some(pair)),
            Err(error) => {
                tracing::warn!(path = %path.display(), error = %error, "certificate is unusable; asking for another");
                Ok(None)
            }
        }
    }

    /// Replaces the current certificate and key of a role and forgets the key it was asked for with.
    pub fn write_pair(&self, role: Role, pair: &KeyPair) -> Result<(), pki::Error> {
        files::write_atomic(&self.pair(role), pair.to_pem().as_bytes(), files::PRIVATE)?;
        self.forget_pending_key(role);
        Ok(())
    }

    /// The key of a certificate that is being asked for: kept, so that a restart takes up the same request.
    pub fn pending_key(&self, role: Role) -> Result<String, pki::Error> {
        let path = self.pending_path(role);
        if let Some(text) = files::read_optional(&path)?
            && pem::private_key(text.as_bytes()).is_ok()
        {
            return Ok(text);
        }
        let key = pki::request::new_key()?;
        files::write_atomic(&path, key.as_bytes(), files::PRIVATE)?;
        Ok(key)
    }

    /// Deletes the key kept for a pending certificate request.
    pub fn forget_pending_key(&self, role: Role) {
        forget(&self.pending_path(role));
    }

    /// Forgets the parts' certificates: the cluster is another one.
    pub fn forget_parts(&self) {
        for part in NodePart::ALL {
            forget(&self.pair(Role::Part(part)));
            self.forget_pending_key(Role::Part(part));
        }
    }

    fn pending_path(&self, role: Role) -> PathBuf {
        self.pki.join(format!("{}.key.new", role.prefix()))
    }

    /// Writes a part's kubeconfig: the node's with the part's own certificate. Gives where it is.
    pub fn write_part_kubeconfig(&self, part: NodePart) -> Result<PathBuf, pki::Error> {
        let node = Kubeconfig::read(&self.kubeconfig)?;
        let cluster = node.cluster()?;
        let own = self.pair(Role::Part(part)).to_string_lossy().into_owned();
        let path = self.kubeconfig.with_file_name(format!("{}.kubeconfig", part.name()));
        let credentials = Credentials::CertificateFile(own);
        Kubeconfig::new("kubernetes", &cluster.server, &cluster.authority_pem()?, part.user(), credentials)
            .write(&path)?;
        Ok(path)
    }

    /// Writes the kubeconfig for `server`, whose authority is `ca_pem`, and the authority itself.
    pub fn write_kubeconfig(&self, server: &str, ca_pem: &str, user: &str) -> Result<(), pki::Error> {
        files::write_atomic(&self.client_ca(), ca_pem.as_bytes(), files::PUBLIC)?;
        let path = self.pair(Role::Client).to_string_lossy().into_owned();
        let credentials = Credentials::CertificateFile(path);
        let kubeconfig = Kubeconfig::new("kubernetes", server, ca_pem, user, credentials);
        kubeconfig.called(loopback_name(server)).write(&self.kubeconfig())
    }
}

/// A name that is in the certificate of every API server, whatever it is called elsewhere: what pods call it.
pub(crate) const NAME: &str = "kubernetes.default.svc";

/// What `server` is called where it is on the loopback: behind the balancer it may be any, and not all have this address in their certificate.
pub(crate) fn loopback_name(server: &str) -> Option<&'static str> {
    let server: http::Uri = server.parse().ok()?;
    server.host()?.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()).then_some(NAME)
}
