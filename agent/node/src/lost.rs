//! Addresses and host ports of sandboxes that the container runtime forgot, and results of theirs that a power cut tore.
//!
//! Woken by the clock, and at once. Reads the leases of addresses and the runtime's list of sandboxes; has the CNI plugins detach what is on the first
//! list for long and not on the second. Removes torn results, which keep the runtime from stopping their sandboxes. Promises: a sandbox that is being made, or that the runtime lists in whatever state, keeps
//! what it has.

use cri_proto::client::{Deadlines, Runtime};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;
use supervise::{Task, chain};
use tokio::time::sleep;

/// How often it is looked; a host port that is in the way of a new pod is not for longer.
const PERIOD: Duration = Duration::from_secs(900);

/// Looks after what the runtime at `endpoint` forgot of `network`.
pub(crate) fn task(endpoint: &str, network: &network::Config) -> Task {
    let (endpoint, network) = (endpoint.to_owned(), network.clone());
    Task::endless("lost-sandboxes", move || {
        let (endpoint, network) = (endpoint.clone(), network.clone());
        async move {
            loop {
                match network::remove_torn(Path::new(network::RESULTS)) {
                    Ok(torn) if torn.is_empty() => {}
                    Ok(torn) => {
                        tracing::warn!(?torn, "a power cut tore these results of CNI plugins; removed");
                    }
                    Err(error) => tracing::warn!(%error, "look for torn results in {}", network::RESULTS),
                }
                match round(&endpoint, &network).await {
                    Ok(lost) if lost.is_empty() => {}
                    Ok(lost) => tracing::warn!(?lost, "the container runtime forgot these; detached"),
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "look for sandboxes the runtime forgot");
                    }
                }
                sleep(PERIOD).await;
            }
        }
    })
}

async fn round(
    endpoint: &str,
    network: &network::Config,
) -> Result<Vec<network::Attached>, network::GarbageError> {
    network::release_lost(network, async {
        let runtime = Runtime::connect(endpoint, Deadlines::default())?;
        let sandboxes = runtime.list_pod_sandboxes(HashMap::new()).await?;
        Ok::<_, cri_proto::client::Error>(sandboxes.into_iter().map(|sandbox| sandbox.id).collect())
    })
    .await
}
