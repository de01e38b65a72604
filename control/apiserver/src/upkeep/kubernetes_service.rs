//! The `kubernetes` Service in `default`: how pods reach the API servers.
//!
//! Woken at the start and every ten seconds. Reads the Service, its endpoints, and the leases of the API servers there are, ours and
//! upstream's (`leases`). Writes the Service if it is missing, this server's lease, and the addresses of those that have one into the
//! Endpoints and EndpointSlice named `kubernetes` (`endpoints`). Promises that while a server runs its address is listed, that one that
//! stops in order is no longer listed afterwards, and that one that died is not once its lease ran out. The Service takes the first
//! address of the primary range. Upstream: `pkg/controlplane/controller/kubernetesservice`, `pkg/controlplane/reconcilers`.

mod endpoints;
mod leases;

use crate::registry::EndpointReconciler;
use crate::registry::kind::Kind;
use crate::write::Writer;
use endpoints::Ports;
use machinery::access::set_at;
use machinery::status::Status;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const NAME: &str = "kubernetes";
const NAMESPACE: &str = "default";
/// How often all is looked at, and a lease renewed.
const EVERY: Duration = Duration::from_secs(10);

/// What a server does for the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// The first time: ports that an earlier life left are replaced.
    Starts,
    Runs,
    Stops,
}

/// Makes the Service, and lists this server. What fails is tried again by [`keep`]: another server may be making the Service right now, or
/// one that died may have left its address taken.
pub(super) async fn start(writer: &Writer) {
    look(writer, Doing::Starts).await;
}

/// Goes on until `stop`, and takes this server off the list then.
pub(super) async fn keep(writer: &Writer, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        look(writer, Doing::Runs).await;
    }
    look(writer, Doing::Stops).await;
}

async fn look(writer: &Writer, doing: Doing) {
    if doing != Doing::Stops
        && let Err(error) = make_service(writer).await
    {
        tracing::warn!(%error, "make the kubernetes service");
    }
    if let Err(error) = list(writer, doing).await {
        tracing::warn!(%error, ?doing, "list the API servers behind the kubernetes service");
    }
}

async fn make_service(writer: &Writer) -> Result<(), Status> {
    let Some(kind) = Kind::of("", "services") else { return Ok(()) };
    writer.ensure(&kind, service(writer)).await
}

fn service(writer: &Writer) -> Value {
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"provider": "kubernetes", "component": "apiserver"},
        },
        "spec": {
            "type": "ClusterIP",
            "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": writer.registry.config.secure_port}],
        },
    });
    if let Some(port) = writer.registry.config.service_node_port {
        set_at(&mut service, "spec.type", "NodePort");
        set_at(
            &mut service,
            "spec.ports",
            json!([{
                "name": "https", "protocol": "TCP", "port": 443, "targetPort": writer.registry.config.secure_port, "nodePort": port,
            }]),
        );
    }
    if let Some(ip) = service_ip(writer) {
        set_at(&mut service, "spec.clusterIP", ip.to_string());
        set_at(&mut service, "spec.clusterIPs", json!([ip.to_string()]));
    }
    service
}

/// The first address of the primary range.
fn service_ip(writer: &Writer) -> Option<IpAddr> {
    writer.registry.config.service_cidrs.first().and_then(|n| n.hosts().find(|ip| *ip != n.network()))
}

async fn list(writer: &Writer, doing: Doing) -> Result<(), Status> {
    let config = &writer.registry.config;
    let Some(ours) = config.advertise_address.map(|ip| ip.to_string()) else { return Ok(()) };
    let ports = if doing == Doing::Runs { Ports::AsTheyAre } else { Ports::Ours };
    match config.endpoint_reconciler {
        EndpointReconciler::None => Ok(()),
        EndpointReconciler::MasterCount(count) => {
            let wanted = |listed: Vec<String>| match doing {
                Doing::Stops => endpoints::without(listed, &ours),
                Doing::Starts | Doing::Runs => endpoints::counted(listed, &ours, count),
            };
            endpoints::write(writer, ports, doing != Doing::Stops, &wanted).await
        }
        EndpointReconciler::Lease => {
            match doing {
                Doing::Stops => leases::remove(&writer.registry, &ours).await?,
                Doing::Starts | Doing::Runs => leases::renew(&writer.registry, &ours).await?,
            }
            let there = leases::list(&writer.registry).await?;
            if there.is_empty() && doing != Doing::Stops {
                let why = "no API server IP addresses were listed in storage, refusing to erase all endpoints for the kubernetes Service";
                return Err(Status::internal_error(why));
            }
            endpoints::write(writer, ports, doing != Doing::Stops, &|_| there.clone()).await
        }
    }
}
