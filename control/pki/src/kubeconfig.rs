//! The kubeconfig file: written for administrators and agents, read back by ourselves.

use crate::{Error, files};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A kubeconfig. Parts we do not use are kept out: this is for files of our own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the fields of kubectl's configuration file")]
pub struct Kubeconfig {
    #[serde(rename = "apiVersion", default = "v1")]
    pub api_version: String,
    #[serde(default = "config")]
    pub kind: String,
    #[serde(default)]
    pub clusters: Vec<NamedCluster>,
    #[serde(default)]
    pub contexts: Vec<NamedContext>,
    #[serde(default)]
    pub current_context: String,
    #[serde(default)]
    pub users: Vec<NamedUser>,
}

fn v1() -> String {
    "v1".into()
}

fn config() -> String {
    "Config".into()
}

/// An entry of `clusters`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields of kubectl's configuration file")]
pub struct NamedCluster {
    #[serde(default)]
    pub name: String,
    pub cluster: Cluster,
}

/// Where an API server is and which authority it must show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the fields of kubectl's configuration file")]
pub struct Cluster {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_authority_data: Option<String>,
    #[serde(default)]
    pub server: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tls_server_name: Option<String>,
}

/// An entry of `contexts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields of kubectl's configuration file")]
pub struct NamedContext {
    pub name: String,
    pub context: Context,
}

/// A cluster seen as a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields of kubectl's configuration file")]
pub struct Context {
    pub cluster: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(default)]
    pub user: String,
}

/// An entry of `users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields of kubectl's configuration file")]
pub struct NamedUser {
    pub name: String,
    pub user: User,
}

/// Credentials, inline or as files.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the fields of kubectl's configuration file")]
pub struct User {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("client_certificate", &self.client_certificate).finish_non_exhaustive()
    }
}

/// How a kubeconfig's user proves who they are.
#[derive(Clone)]
pub enum Credentials {
    /// Certificate and key, as PEM, kept inside the file.
    Certificate {
        /// PEM, leaf first.
        cert_pem: String,
        /// PEM. Never log it.
        key_pem: String,
    },
    /// One file that holds both and is replaced at renewal.
    CertificateFile(String),
    /// Bearer token. Never log it.
    Token(String),
    /// Nobody: `cluster-info` has no user.
    Anonymous,
}

impl Kubeconfig {
    /// A kubeconfig with one cluster, one user and one context `USER@CLUSTER`.
    #[must_use]
    pub fn new(cluster: &str, server: &str, ca_pem: &str, user: &str, credentials: Credentials) -> Self {
        let data = |pem: &str| Some(STANDARD.encode(pem));
        let credentials = match credentials {
            Credentials::Certificate { cert_pem, key_pem } => User {
                client_certificate_data: data(&cert_pem),
                client_key_data: data(&key_pem),
                ..User::default()
            },
            Credentials::CertificateFile(path) => {
                User { client_certificate: Some(path.clone()), client_key: Some(path), ..User::default() }
            }
            Credentials::Token(token) => User { token: Some(token), ..User::default() },
            Credentials::Anonymous => {
                return Self {
                    clusters: vec![NamedCluster {
                        name: cluster.to_owned(),
                        cluster: Cluster {
                            certificate_authority_data: data(ca_pem),
                            server: server.to_owned(),
                            ..Cluster::default()
                        },
                    }],
                    ..Self::empty()
                };
            }
        };
        let context = format!("{user}@{cluster}");
        Self {
            contexts: vec![NamedContext {
                name: context.clone(),
                context: Context { cluster: cluster.to_owned(), namespace: None, user: user.to_owned() },
            }],
            current_context: context,
            users: vec![NamedUser { name: user.to_owned(), user: credentials }],
            ..Self::new(cluster, server, ca_pem, user, Credentials::Anonymous)
        }
    }

    /// The same for servers that show certificates of this name, whatever their address.
    #[must_use]
    pub fn called(mut self, name: Option<&str>) -> Self {
        self.clusters.iter_mut().for_each(|named| named.cluster.tls_server_name = name.map(str::to_owned));
        self
    }

    fn empty() -> Self {
        Self {
            api_version: v1(),
            kind: config(),
            clusters: Vec::new(),
            contexts: Vec::new(),
            current_context: String::new(),
            users: Vec::new(),
        }
    }

    /// Parses YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, Error> {
        serde_saphyr::from_str(text).map_err(|e| Error::Kubeconfig { path: None, reason: e.to_string() })
    }

    /// Reads and parses a file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&files::read(path)?).map_err(|e| match e {
            Error::Kubeconfig { reason, .. } => Error::Kubeconfig { path: Some(path.to_owned()), reason },
            other => other,
        })
    }

    /// Writes it as YAML.
    pub fn to_yaml(&self) -> Result<String, Error> {
        // Credentials are long words: some readers of YAML do not know folded text.
        let plain = serde_saphyr::ser_options! { prefer_block_scalars: false };
        serde_saphyr::to_string_with_options(self, plain)
            .map_err(|e| Error::Kubeconfig { path: None, reason: e.to_string() })
    }

    /// Writes the file, readable by its owner alone.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        files::write_atomic(path, self.to_yaml()?.as_bytes(), files::PRIVATE)
    }

    /// The inline client certificate of the current context's user, as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> Option<String> {
        let context = self.contexts.iter().find(|c| c.name == self.current_context)?;
        let user = self.users.iter().find(|u| u.name == context.context.user)?;
        let data = user.user.client_certificate_data.as_ref()?;
        String::from_utf8(STANDARD.decode(data.trim()).ok()?).ok()
    }

    /// The cluster of the current context, or the only one there is.
    pub fn cluster(&self) -> Result<&Cluster, Error> {
        let fail = |reason: String| Error::Kubeconfig { path: None, reason };
        if self.current_context.is_empty() {
            return match self.clusters.as_slice() {
                [only] => Ok(&only.cluster),
                _ => Err(fail("no current-context is set".into())),
            };
        }
        let context = self
            .contexts
            .iter()
            .find(|c| c.name == self.current_context)
            .ok_or_else(|| fail(format!("context {:?} does not exist", self.current_context)))?;
        self.clusters
            .iter()
            .find(|c| c.name == context.context.cluster)
            .map(|c| &c.cluster)
            .ok_or_else(|| fail(format!("cluster {:?} does not exist", context.context.cluster)))
    }
}

impl Cluster {
    /// The authorities the server must be signed by, as PEM.
    pub fn authority_pem(&self) -> Result<String, Error> {
        if let Some(data) = &self.certificate_authority_data {
            let bytes = STANDARD.decode(data.trim()).ok().and_then(|b| String::from_utf8(b).ok());
            return bytes.ok_or_else(|| Error::Kubeconfig {
                path: None,
                reason: "certificate-authority-data is not base64 of PEM text".into(),
            });
        }
        match &self.certificate_authority {
            Some(path) => files::read(Path::new(path)),
            None => Err(Error::Kubeconfig { path: None, reason: "no certificate authority is given".into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_reads_back_and_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.conf");
        let credentials = Credentials::Certificate { cert_pem: "CERT\n".into(), key_pem: "KEY\n".into() };
        let written = Kubeconfig::new("kubernetes", "https://10.0.0.1:6443", "CA\n", "admin", credentials);
        written.write(&path).unwrap();
        let read = Kubeconfig::read(&path).unwrap();
        assert_eq!(read, written);
        assert_eq!(read.current_context, "admin@kubernetes");
        assert_eq!(read.cluster().unwrap().authority_pem().unwrap(), "CA\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn cluster_info_needs_no_context_and_nonsense_is_an_error() {
        let info = Kubeconfig::new("", "https://h:6443", "CA", "", Credentials::Anonymous);
        let read = Kubeconfig::parse(&info.to_yaml().unwrap()).unwrap();
        assert_eq!(read.cluster().unwrap().server, "https://h:6443");
        for bad in ["", "[]", "clusters: 7", "current-context: x"] {
            assert!(Kubeconfig::parse(bad).and_then(|k| k.cluster().cloned()).is_err(), "{bad}");
        }
    }
}
