//! A kubelet that is a program of its own: credentials by kubeconfigs, as upstream's kubelet takes them, and its certificates' renewal.
//!
//! Woken once at start. Reads the kubeconfig, or without one the bootstrap kubeconfig, by which it asks for a client certificate; writes the
//! kubeconfig then. Promises: credentials that are there are used as they are; only a client certificate of its own making is renewed.

use crate::identity::{Files, Role};
use crate::run::{Error, kubelet_task};
use crate::tasks::until;
use crate::{Config, bootstrap, certificate, client, kubelet_parts, rotation};
use jiff::Timestamp;
use pki::Kubeconfig;
use pki::request::Subject;
use std::path::PathBuf;
use std::sync::Arc;
use supervise::{Backoff, Supervisor, Task, chain};
use tokio_util::sync::CancellationToken;

/// Where its credentials are (upstream's flags).
#[derive(Clone, Debug)]
pub struct Credentials {
    /// `--kubeconfig`; without one the kubelet is stand-alone.
    pub kubeconfig: Option<PathBuf>,
    /// `--bootstrap-kubeconfig`.
    pub bootstrap: Option<PathBuf>,
    /// `--cert-dir`.
    pub certificates: PathBuf,
}

/// Runs the kubelet alone until `shutdown`.
///
/// # Errors
/// Those of its start.
pub async fn run(config: Config, credentials: Credentials, shutdown: CancellationToken) -> Result<(), Error> {
    crate::config::check_node_name(&config.node_name).map_err(Error::Config)?;
    let (config, supervisor) = (Arc::new(config), Supervisor::default());
    let Credentials { kubeconfig, bootstrap, certificates } = credentials;
    let files = Files::at(kubeconfig.clone().unwrap_or_default(), certificates);
    files.create().map_err(Error::Serving)?;
    let client = match &kubeconfig {
        Some(_) => match Box::pin(connect(&config, &files, bootstrap, &shutdown)).await {
            Err(bootstrap::Error::Stopped) => return Ok(()),
            client => Some(client?),
        },
        None => None,
    };
    rotation::ensure_serving(&config.node_name, &config.node_ips, &files).map_err(Error::Serving)?;
    let settings = kubelet_parts::settings(&config, &files)?;
    let files = Arc::new(files);
    let tasks = match client {
        Some(first) => {
            let (client, slot) = client::renewable(first);
            let (rotate_client, rotate_serving) = (settings.rotate_client, settings.rotate_serving);
            let mut tasks =
                vec![kubelet_task(settings, Some(client.clone()), &supervisor, Progress::default())];
            if rotate_client && files.read_pair(Role::Client).map_err(Error::Serving)?.is_some() {
                let (config, files, client) = (config.clone(), files.clone(), client.clone());
                tasks.push(Task::new("client-certificate", move |token| {
                    let (config, client, files, slot) =
                        (config.clone(), client.clone(), files.clone(), slot.clone());
                    until(token, async move {
                        rotation::client(&config.node_name, &files, &client, &slot, rotation::never()).await;
                    })
                }));
            }
            // Otherwise it is the one of our own making, as upstream's, or what the files name.
            if rotate_serving {
                tasks.push(Task::new("serving-certificate", move |token| {
                    let (config, client, files) = (config.clone(), client.clone(), files.clone());
                    until(token, async move {
                        let never = rotation::never();
                        rotation::serving(&config.node_name, &config.node_ips, &files, &client, never).await;
                    })
                }));
            }
            tasks
        }
        None => vec![kubelet_task(settings, None, &supervisor, Progress::default())],
    };
    supervisor.run(tasks, &shutdown).await;
    Ok(())
}

/// A client of the kubeconfig, which is made by the bootstrap kubeconfig where it is not there.
async fn connect(
    config: &Config,
    files: &Files,
    bootstrap: Option<PathBuf>,
    shutdown: &CancellationToken,
) -> Result<kube::Client, bootstrap::Error> {
    if !files.kubeconfig().exists() {
        let path = bootstrap.ok_or_else(|| bootstrap::Error::Client {
            node: config.node_name.clone(),
            reason: format!("there is no {}, and no --bootstrap-kubeconfig", files.kubeconfig().display()),
        })?;
        obtain(config, files, &path, shutdown).await?;
    }
    bootstrap::client(&config.node_name, files).await
}

async fn obtain(
    config: &Config,
    files: &Files,
    path: &std::path::Path,
    shutdown: &CancellationToken,
) -> Result<(), bootstrap::Error> {
    let wrap = |source| bootstrap::Error::Files { node: config.node_name.clone(), source };
    let kubeconfig = Kubeconfig::read(path).map_err(wrap)?;
    let cluster = kubeconfig.cluster().map_err(wrap)?;
    let (server, authority) = (cluster.server.clone(), cluster.authority_pem().map_err(wrap)?);
    let text = pki::files::read(path).map_err(wrap)?;
    let client = bootstrap::client_of(&text)
        .await
        .map_err(|reason| bootstrap::Error::Client { node: config.node_name.clone(), reason })?;
    let subject = Subject::node(&config.node_name);
    let mut backoff = Backoff::new(bootstrap::BACKOFF.0, bootstrap::BACKOFF.1);
    loop {
        let asked = certificate::obtain(&client, files, Role::Client, &subject);
        match shutdown.run_until_cancelled(Box::pin(asked)).await {
            None => return Err(bootstrap::Error::Stopped),
            Some(Ok(pair)) => {
                let left = pair.certificate.not_after.duration_since(Timestamp::now());
                tracing::info!(name = pair.certificate.common_name, ?left, "joined the cluster");
                return files.write_kubeconfig(&server, &authority, &subject.common_name).map_err(wrap);
            }
            Some(Err(error)) => {
                tracing::warn!(error = %chain(&error), "get a client certificate; will try again")
            }
        }
        if shutdown.run_until_cancelled(backoff.pause()).await.is_none() {
            return Err(bootstrap::Error::Stopped);
        }
    }
}
