//! The agent as a whole: credentials first, then the list of tasks.
//!
//! This is the one place that knows all of the agent's parts. A part is an entry of [`cluster_tasks`] or
//! [`standalone_tasks`], after the kubelet; the order of the list is the order of shutdown, so what serves others comes last.

use crate::balancer::Balancer;
use crate::bootstrap;
use crate::client::{self, Slot};
use crate::config::{Config, check_node_name};
use crate::identity::Files;
use crate::parts::Parts;
use crate::progress::Progress;
use crate::tasks::until;
use crate::{authorities, cluster_info, facts, kubelet_parts, lost, rotation, tasks};
use std::path::Path;
use std::sync::Arc;
use supervise::{Scope, Supervisor, Task, chain};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be right.
    #[error("{0}")]
    Config(String),
    #[error(transparent)]
    Server(#[from] cluster_info::Error),
    /// Our own place, beside which the CNI plugins' program is.
    #[error("find our own executable")]
    Executable(#[source] std::io::Error),
    #[error("configure the kubelet")]
    Kubelet(#[from] kubelet::ConfigError),
    /// The CNI configuration of a stand-alone node.
    #[error("configure the pod network")]
    Network(#[from] network::ConflistError),
    #[error("join the cluster")]
    Join(#[from] bootstrap::Error),
    /// The API servers' place on this machine.
    #[error("listen for this machine's clients of the API")]
    Balancer(#[source] std::io::Error),
    #[error("make a serving certificate")]
    Serving(#[source] pki::Error),
}

/// Runs the agent until `shutdown`, its tasks kept by `supervisor` and those of `beside` with them, which stop first. `progress` is told how far the
/// start has come. Errors are those of the start; later ones are a task's own, logged and survived.
pub async fn run(
    mut config: Config,
    supervisor: &Supervisor,
    mut beside: Vec<Task>,
    progress: Progress,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    check_node_name(&config.node_name).map_err(Error::Config)?;
    if config.node_ips.is_empty() {
        return Err(Error::Config("the node has no address".to_owned()));
    }
    // The way to the servers outlasts those who use it.
    let (tasks, _way) = match config.server.clone() {
        Some(server) => {
            let (dir, first) = (config.agent_dir(), cluster_info::parse_server(&server)?);
            let balancer = Balancer::bind(&dir, &first).await.map_err(Error::Balancer)?;
            let scope = Scope::new(supervisor, "", &CancellationToken::new());
            scope.keep(balancer.connections(supervisor));
            let server = balancer.url();
            let joined = Box::pin(bootstrap::join(&config, &server, &shutdown)).await;
            let (first, files) = match joined {
                Err(bootstrap::Error::Stopped) => return Ok(()),
                joined => joined?,
            };
            facts::learn(&first, &mut config).await;
            let config = Arc::new(config);
            let network = config.cluster_network().map_err(Error::Executable)?;
            let (client, slot) = client::renewable(first);
            rotation::ensure_serving(&config.node_name, &config.node_ips, &files).map_err(Error::Serving)?;
            let kubelet = kubelet_parts::settings(&config, &files)?;
            let lost = lost::task(&kubelet.container_runtime_endpoint, &network);
            let dns = dns_settings(&config, kubelet.resolv_conf.as_deref());
            let mut tasks = vec![kubelet_task(kubelet, Some(client.clone()), supervisor, progress), lost];
            tasks.extend(cluster_tasks(
                &config,
                &server,
                &balancer,
                (client, slot),
                files,
                (network, dns),
                supervisor,
            ));
            (tasks, Some(scope))
        }
        None => {
            tracing::info!("no server is configured: static pods only");
            let config = Arc::new(config);
            let network = config.network().map_err(Error::Executable)?;
            if config.pod_cidrs.is_empty() {
                tracing::warn!("no pod range is configured: only pods on the host's network can run");
            } else {
                network::write_static(&network, &config.pod_cidrs)?;
            }
            let files = Files::new(&config.agent_dir());
            let prepared = files
                .create()
                .and_then(|()| rotation::ensure_serving(&config.node_name, &config.node_ips, &files));
            prepared.map_err(Error::Serving)?;
            let kubelet = kubelet_parts::settings(&config, &files)?;
            let lost = lost::task(&kubelet.container_runtime_endpoint, &network);
            let mut tasks = vec![kubelet_task(kubelet, None, supervisor, progress), lost];
            tasks.extend(standalone_tasks(&config, files));
            (tasks, None)
        }
    };
    beside.extend(tasks);
    supervisor.run(beside, &shutdown).await;
    Ok(())
}

/// The kubelet stops first: it must not start pods while their network and services go.
pub(crate) fn kubelet_task(
    settings: kubelet::Config,
    client: Option<kube::Client>,
    supervisor: &Supervisor,
    progress: Progress,
) -> Task {
    let supervisor = supervisor.clone();
    Task::new("kubelet", move |token| {
        kubelet_parts::run(settings.clone(), client.clone(), supervisor.clone(), progress.clone(), token)
    })
}

/// What a node of a cluster runs beside its kubelet.
fn cluster_tasks(
    config: &Arc<Config>,
    server: &str,
    balancer: &Balancer,
    (client, slot): (kube::Client, Slot),
    files: Files,
    (network, dns): (network::Config, dns::Config),
    supervisor: &Supervisor,
) -> Vec<Task> {
    let files = Arc::new(files);
    let changed = watch::Sender::new(());
    let seen = changed.subscribe();
    let parts = Parts::new(config, &files, &client, &seen);
    let mut tasks = parts.tasks;
    tasks.extend([
        // The node itself may not read endpoints; its proxy does.
        balancer.others(parts.proxy.clone()),
        {
            let (config, files, slot) = (config.clone(), files.clone(), slot.clone());
            let server = server.to_owned();
            Task::new("authorities", move |token| {
                let (config, files, server) = (config.clone(), files.clone(), server.clone());
                let (slot, changed) = (slot.clone(), changed.clone());
                until(token, async move {
                    // Whose authorities they are comes first.
                    bootstrap::settle(&config, &server, &files, &slot, &changed).await;
                    authorities::follow(&config.node_name, &files, &slot, &changed).await;
                })
            })
        },
        {
            let (config, client, files) = (config.clone(), client.clone(), files.clone());
            let seen = seen.clone();
            Task::new("client-certificate", move |token| {
                let (config, client, files, slot) =
                    (config.clone(), client.clone(), files.clone(), slot.clone());
                let seen = seen.clone();
                until(token, async move {
                    rotation::client(&config.node_name, &files, &client, &slot, seen).await;
                })
            })
        },
        {
            let (config, client) = (config.clone(), client.clone());
            Task::new("serving-certificate", move |token| {
                let (config, client, files) = (config.clone(), client.clone(), files.clone());
                let seen = seen.clone();
                until(token, async move {
                    rotation::serving(&config.node_name, &config.node_ips, &files, &client, seen).await;
                })
            })
        },
        // Traffic is led elsewhere before those who take it end.
        tasks::announcer(&config.node_name, parts.proxy.clone(), supervisor),
        tasks::network(network, client, parts.network.clone(), supervisor),
        tasks::policy(config.policy(), config.network_policy, parts.network, supervisor),
        tasks::dns(dns, parts.dns, supervisor),
        tasks::proxy(proxy_settings(config), parts.proxy, supervisor),
    ]);
    tasks
}

/// The cluster's DNS asks whom pods would ask that have the node's resolvers: those of the kubelet's file, where it has one.
fn dns_settings(config: &Config, resolv_conf: Option<&Path>) -> dns::Config {
    dns::Config {
        addresses: config.cluster_dns.clone(),
        domain: config.cluster_domain.clone(),
        resolv_conf: resolv_conf.unwrap_or(Path::new("")).to_owned(),
    }
}

fn proxy_settings(config: &Config) -> proxy::Config {
    proxy::Config {
        local_addresses: config.cluster_dns.clone(),
        ..proxy::Config::new(config.node_name.clone(), config.cluster_cidrs.clone())
    }
}

/// What a node without a cluster runs beside its kubelet.
fn standalone_tasks(config: &Arc<Config>, files: Files) -> Vec<Task> {
    let config = config.clone();
    vec![Task::new("serving-certificate", move |token| {
        let (config, files) = (config.clone(), files.clone());
        until(token, async move {
            loop {
                if let Err(error) = rotation::ensure_serving(&config.node_name, &config.node_ips, &files) {
                    tracing::error!(error = %chain(&error), "renew the serving certificate");
                }
                tokio::time::sleep(rotation::LONGEST_SLEEP).await;
            }
        })
    })]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_dns_must_not_ask_others_than_the_kubelets_file_names() {
        let config = Config::new("n1", Vec::new());
        let of = |file: Option<&str>| dns_settings(&config, file.map(Path::new)).resolv_conf;
        assert_eq!(of(Some("/etc/windlass/resolv.conf")), Path::new("/etc/windlass/resolv.conf"));
        assert_eq!(of(None), Path::new(""), "a kubelet that is told of none");
    }
}
