//! What a cluster says about itself to those it does not know: the ConfigMap `cluster-info` in `kube-public`.
//!
//! It is fetched over a connection whose server is not verified, and believed only when the authority it names is the one
//! the join token names. Nothing secret is sent before that.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use pki::Kubeconfig;
use pki::bootstrap::JoinToken;
use std::time::Duration;

/// An answer that takes longer than this is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the cluster's authority is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of the server is no URL.
    #[error("the server {server:?} is not of the form https://HOST:PORT")]
    Server {
        /// As given.
        server: String,
    },
    /// A client could not be made.
    #[error("prepare a connection to {server}")]
    Client {
        /// URL.
        server: String,
        /// Error of the TLS or HTTP client.
        #[source]
        source: Box<kube::Error>,
    },
    /// The ConfigMap could not be read.
    #[error("read kube-public/cluster-info from {server}")]
    Fetch {
        /// URL.
        server: String,
        /// HTTP or API error.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("read kube-public/cluster-info from {server}: no answer within {}s", PATIENCE.as_secs())]
    Silence {
        /// URL.
        server: String,
    },
    /// The ConfigMap lacks its kubeconfig.
    #[error("kube-public/cluster-info of {server} holds no kubeconfig")]
    Incomplete {
        /// URL.
        server: String,
    },
    /// The kubeconfig is unusable, or its authority is not the one the token names.
    #[error("trust {server}")]
    Trust {
        /// URL.
        server: String,
        /// Malformed kubeconfig, or another authority's certificate.
        #[source]
        source: pki::Error,
    },
}

impl Error {
    /// True when trying again cannot help: the configuration is wrong or the server is not the one we look for.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Server { .. } | Self::Trust { .. })
    }
}

/// Checks and parses `https://HOST:PORT`.
pub fn parse_server(server: &str) -> Result<http::Uri, Error> {
    let wrong = || Error::Server { server: server.to_owned() };
    let uri: http::Uri = server.parse().map_err(|_| wrong())?;
    let plain = matches!(uri.path(), "" | "/") && uri.query().is_none();
    if uri.scheme_str() == Some("https") && uri.host().is_some() && plain { Ok(uri) } else { Err(wrong()) }
}

/// The PEM of the cluster's authorities, verified against the token.
pub async fn authority(server: &str, token: &JoinToken) -> Result<String, Error> {
    let mut config = kube::Config::new(parse_server(server)?);
    config.accept_invalid_certs = true;
    let text = read(server, config).await?;
    verify(&text, token).map_err(|source| Error::Trust { server: server.to_owned(), source })
}

/// The text of `cluster-info`, from a server that one of `authorities` (PEM) vouches for.
pub(crate) async fn verified(server: &str, authorities: &str) -> Result<String, Error> {
    let mut config = kube::Config::new(parse_server(server)?);
    let trust = |source| Error::Trust { server: server.to_owned(), source };
    let all = pki::pem::certificates(authorities.as_bytes()).map_err(trust)?;
    config.root_cert = Some(all.iter().map(|certificate| certificate.to_vec()).collect());
    read(server, config).await
}

/// Reads it as nobody.
async fn read(server: &str, mut config: kube::Config) -> Result<String, Error> {
    config.connect_timeout = Some(PATIENCE);
    let client = kube::Client::try_from(config)
        .map_err(|source| Error::Client { server: server.to_owned(), source: Box::new(source) })?;
    let api: Api<ConfigMap> = Api::namespaced(client, "kube-public");
    let info = tokio::time::timeout(PATIENCE, api.get("cluster-info"))
        .await
        .map_err(|_| Error::Silence { server: server.to_owned() })?
        .map_err(|source| Error::Fetch { server: server.to_owned(), source: Box::new(source) })?;
    let text = info.data.and_then(|mut data| data.remove("kubeconfig"));
    text.ok_or_else(|| Error::Incomplete { server: server.to_owned() })
}

fn verify(kubeconfig: &str, token: &JoinToken) -> Result<String, pki::Error> {
    let authority = Kubeconfig::parse(kubeconfig)?.cluster()?.authority_pem()?;
    token.check_authority(&authority)?;
    Ok(authority)
}
