//! From a join token to credentials of our own.
//!
//! Woken once at start. Reads the agent's files and, where they do not suffice, the cluster; writes the files. Promises:
//! credentials that work are kept and nothing is asked for, whatever became of the authority the token names; a server that is
//! not up yet is waited for; a server that is not the one the token names is refused at once; the token is sent only to a server whose
//! authority was verified.

use crate::Config;
use crate::certificate;
use crate::client::Slot;
use crate::cluster_info;
use crate::identity::{Files, Role};
use jiff::Timestamp;
use pki::kubeconfig::Credentials;
use pki::request::Subject;
use pki::{Certificate, Kubeconfig, files};
use std::path::Path;
use std::time::Duration;
use supervise::{Backoff, chain};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// First and longest pause between attempts.
pub(crate) const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Why the node cannot join.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are no usable credentials and no token to get some with.
    #[error(
        "no valid credentials in {dir} and no token to join with; \
         make one on the server with `windlass token create` and give it with --token"
    )]
    NoToken { dir: String },
    #[error("keep the credentials of {node}")]
    Files {
        node: String,
        #[source]
        source: pki::Error,
    },
    /// A client could not be made of the credentials.
    #[error("use the credentials of {node}: {reason}")]
    Client { node: String, reason: String },
    /// The cluster's authority is unknown.
    #[error("learn about the cluster")]
    ClusterInfo(#[from] cluster_info::Error),
    #[error("get a client certificate for {node}")]
    Certificate {
        node: String,
        #[source]
        source: Box<certificate::Error>,
    },
    /// Stopped before it was done.
    #[error("join: stopped")]
    Stopped,
}

impl Error {
    fn is_final(&self) -> bool {
        match self {
            Self::ClusterInfo(error) => error.is_final(),
            Self::Certificate { .. } => false,
            _ => true,
        }
    }
}

/// Makes sure that there are valid credentials for `server` and gives a client that uses them.
pub(crate) async fn join(
    config: &Config,
    server: &str,
    shutdown: &CancellationToken,
) -> Result<(kube::Client, Files), Error> {
    let files = Files::new(&config.agent_dir());
    let wrap = |source| Error::Files { node: config.node_name.clone(), source };
    files.create().map_err(wrap)?;
    if have_credentials(config, server, &files).await.map_err(wrap)? {
        tracing::info!(node = config.node_name, "credentials of an earlier life are still valid");
    } else {
        obtain_with_retries(config, server, &files, shutdown).await?;
    }
    let client = client(&config.node_name, &files).await?;
    Ok((client, files))
}

/// Has the slot's users speak by the stored credentials, as soon as a client can be made of them.
pub(crate) async fn replace(node: &str, files: &Files, slot: &Slot) {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    loop {
        match client(node, files).await {
            Ok(client) => return slot.replace(client),
            Err(error) => {
                tracing::error!(error = %chain(&error), "use the node's credentials; will try again");
            }
        }
        backoff.pause().await;
    }
}

/// A client of the stored credentials.
pub(crate) async fn client(node: &str, files: &Files) -> Result<kube::Client, Error> {
    let fail = |reason: String| Error::Client { node: node.to_owned(), reason };
    let text =
        files::read(&files.kubeconfig()).map_err(|source| Error::Files { node: node.to_owned(), source })?;
    client_of(&text).await.map_err(fail)
}

pub(crate) async fn client_of(kubeconfig: &str) -> Result<kube::Client, String> {
    client_of_parsed(kube::config::Kubeconfig::from_yaml(kubeconfig).map_err(|e| e.to_string())?).await
}

/// The same of a file, whose relative paths are beside it.
pub(crate) async fn client_of_file(path: &Path) -> Result<kube::Client, String> {
    client_of_parsed(kube::config::Kubeconfig::read_from(path).map_err(|e| e.to_string())?).await
}

async fn client_of_parsed(parsed: kube::config::Kubeconfig) -> Result<kube::Client, String> {
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(parsed, &options).await.map_err(|e| e.to_string())?;
    ::client::connect(config).map(::client::bounded).map_err(|e| e.to_string())
}

/// What an earlier life has left.
struct Left {
    server: String,
    authority: String,
    user: String,
}

impl Left {
    /// `None` without a certificate for this node that is alive.
    fn of(config: &Config, files: &Files) -> Result<Option<Self>, pki::Error> {
        if !files.kubeconfig().exists() {
            return Ok(None);
        }
        let Some(pair) = files.read_pair(Role::Client)? else { return Ok(None) };
        let kubeconfig = Kubeconfig::read(&files.kubeconfig())?;
        let cluster = kubeconfig.cluster()?;
        let authority = cluster.authority_pem()?;
        let user = pair.certificate.common_name.clone();
        let ours = user == Subject::node(&config.node_name).common_name;
        let alive = pair.certificate.is_valid_at(Timestamp::now());
        Ok((ours && alive).then(|| Self { server: cluster.server.clone(), authority, user }))
    }

    /// The server moved; who we are did not.
    fn move_to(&self, server: &str, files: &Files) -> Result<bool, pki::Error> {
        let moves = self.server != server;
        if moves {
            files.write_kubeconfig(server, &self.authority, &self.user)?;
        }
        Ok(moves)
    }
}

/// Whose a server is.
enum Whose {
    Ours,
    /// It has proved, by the authority the token names, that it is of another cluster.
    Foreign,
    /// It does not say.
    Unknown(cluster_info::Error),
}

/// True when the files hold a certificate for this node that is alive, and name this server.
///
/// Who this machine is outweighs the token it was given: a new token of the same cluster changes nothing, nor does an old one whose authority
/// was replaced since. Only where the server proves, by the authority the token names, that it is of another cluster, that one is to be joined.
/// What a server is that is not up yet is found out later ([`settle`]); until then all stays as it is.
async fn have_credentials(config: &Config, server: &str, files: &Files) -> Result<bool, pki::Error> {
    let Some(left) = Left::of(config, files)? else { return Ok(false) };
    match whose(config, server, &left.authority).await? {
        Whose::Ours => left.move_to(server, files).map(|_| true),
        Whose::Foreign => Ok(false),
        Whose::Unknown(error) => {
            tracing::warn!(error = %chain(&error), "whether the server is of another cluster, as the token says, is not known yet");
            Ok(true)
        }
    }
}

/// Whether the server's authorities, the token's among them, are all others than ours.
async fn whose(config: &Config, server: &str, ours: &str) -> Result<Whose, pki::Error> {
    let Some(token) = config.token.as_ref().filter(|token| token.authority.is_some()) else {
        return Ok(Whose::Ours);
    };
    if token.check_authority(ours).is_ok() {
        return Ok(Whose::Ours);
    }
    let theirs = match cluster_info::authority(server, token).await {
        Ok(theirs) => theirs,
        // It is not the one the token names.
        Err(error) if error.is_final() => return Ok(Whose::Ours),
        Err(error) => return Ok(Whose::Unknown(error)),
    };
    let keys = |pem: &str| -> Result<Vec<String>, pki::Error> {
        Ok(Certificate::list_from_pem(pem)?.iter().map(Certificate::public_key_hash).collect())
    };
    let ours = keys(ours)?;
    Ok(if keys(&theirs)?.iter().any(|key| ours.contains(key)) { Whose::Ours } else { Whose::Foreign })
}

/// Asks until it is known whether the server is of the cluster that the token names, and joins that where it is another one. Others are told
/// through `changed`, the node's own client is replaced.
pub(crate) async fn settle(
    config: &Config,
    server: &str,
    files: &Files,
    slot: &Slot,
    changed: &watch::Sender<()>,
) {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    loop {
        match settle_once(config, server, files).await {
            Ok(false) => return,
            Ok(true) => {
                changed.send_replace(());
                return replace(&config.node_name, files, slot).await;
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "find out whose the server is; will try again")
            }
        }
        backoff.pause().await;
    }
}

/// True where the credentials are others than before.
async fn settle_once(config: &Config, server: &str, files: &Files) -> Result<bool, Error> {
    let wrap = |source| Error::Files { node: config.node_name.clone(), source };
    if let Some(left) = Left::of(config, files).map_err(wrap)? {
        match whose(config, server, &left.authority).await.map_err(wrap)? {
            Whose::Ours => return left.move_to(server, files).map_err(wrap),
            Whose::Unknown(error) => return Err(error.into()),
            Whose::Foreign => {}
        }
    }
    obtain(config, server, files).await?;
    Ok(true)
}

async fn obtain_with_retries(
    config: &Config,
    server: &str,
    files: &Files,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    loop {
        let attempt = tokio::select! {
            () = shutdown.cancelled() => return Err(Error::Stopped),
            attempt = Box::pin(obtain(config, server, files)) => attempt,
        };
        match attempt {
            Ok(()) => return Ok(()),
            Err(error) if error.is_final() => return Err(error),
            Err(error) => tracing::warn!(error = %chain(&error), "join the cluster; will try again"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Err(Error::Stopped),
            () = backoff.pause() => {}
        }
    }
}

async fn obtain(config: &Config, server: &str, files: &Files) -> Result<(), Error> {
    let node = &config.node_name;
    let wrap = |source| Error::Files { node: node.clone(), source };
    let no_token = || Error::NoToken { dir: config.agent_dir().display().to_string() };
    let token = config.token.as_ref().ok_or_else(no_token)?;
    let authority = cluster_info::authority(server, token).await?;
    let credentials = Credentials::Token(token.token.expose());
    let bootstrap = Kubeconfig::new("kubernetes", server, &authority, "bootstrap", credentials);
    let bootstrap = bootstrap.called(crate::identity::loopback_name(server));
    let client = client_of(&bootstrap.to_yaml().map_err(wrap)?)
        .await
        .map_err(|reason| Error::Client { node: node.clone(), reason })?;
    let subject = Subject::node(node);
    let pair = certificate::obtain(&client, files, Role::Client, &subject)
        .await
        .map_err(|source| Error::Certificate { node: node.clone(), source: Box::new(source) })?;
    log_new(&pair.certificate);
    files.forget_parts();
    files.write_kubeconfig(server, &authority, &subject.common_name).map_err(wrap)
}

fn log_new(certificate: &Certificate) {
    tracing::info!(name = certificate.common_name, until = %certificate.not_after, "joined the cluster");
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]
pub(crate) mod tests;
