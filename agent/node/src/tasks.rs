//! The parts of a node beside its kubelet, each as a task: one way to make them, whether an agent assembles them or one is a program of
//! its own.

use supervise::{Supervisor, Task, TaskError};
use tokio_util::sync::CancellationToken;

/// The pod network: `node` reads the node's own object, `client` those of others.
#[must_use]
pub fn network(
    settings: network::Config,
    node: kube::Client,
    client: kube::Client,
    supervisor: &Supervisor,
) -> Task {
    let supervisor = supervisor.clone();
    Task::new("network", move |token| {
        let (node, client) = (node.clone(), client.clone());
        let (settings, supervisor) = (settings.clone(), supervisor.clone());
        async move { Ok(network::run(settings, node, client, &supervisor, token).await?) }
    })
}

/// Task that keeps the rules of network policies; `wanted` false: the one that takes them away.
#[must_use]
pub fn policy(settings: policy::Config, wanted: bool, client: kube::Client, supervisor: &Supervisor) -> Task {
    let supervisor = supervisor.clone();
    Task::new("policy", move |token| {
        let (client, settings, supervisor) = (client.clone(), settings.clone(), supervisor.clone());
        async move {
            if wanted {
                return Ok(policy::run(settings, client, &supervisor, token).await?);
            }
            policy::apply::remove_table().await?;
            token.cancelled().await;
            Ok(())
        }
    })
}

/// Task that answers the cluster's DNS.
#[must_use]
pub fn dns(settings: dns::Config, client: kube::Client, supervisor: &Supervisor) -> Task {
    let supervisor = supervisor.clone();
    Task::new("dns", move |token| {
        let (client, settings, supervisor) = (client.clone(), settings.clone(), supervisor.clone());
        async move { Ok(dns::run(settings, client, &supervisor, token).await?) }
    })
}

/// Task that keeps the service proxy's rules.
#[must_use]
pub fn proxy(settings: proxy::Config, client: kube::Client, supervisor: &Supervisor) -> Task {
    let supervisor = supervisor.clone();
    Task::new("proxy", move |token| {
        let (client, settings, supervisor) = (client.clone(), settings.clone(), supervisor.clone());
        async move { Ok(proxy::run(settings, client, &supervisor, token).await?) }
    })
}

/// Task that answers for load balancers' addresses, as the node of this name.
#[must_use]
pub fn announcer(node: &str, client: kube::Client, supervisor: &Supervisor) -> Task {
    let (node, supervisor) = (node.to_owned(), supervisor.clone());
    Task::new("announcer", move |token| {
        let (client, node, supervisor) = (client.clone(), node.clone(), supervisor.clone());
        async move { Ok(announcer::run(node, client, &supervisor, token).await?) }
    })
}

/// Work that never ends, ended by the token.
pub(crate) async fn until<T>(
    token: CancellationToken,
    work: impl Future<Output = T>,
) -> Result<(), TaskError> {
    token.run_until_cancelled(work).await;
    Ok(())
}
