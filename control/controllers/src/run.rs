//! Every controller with its queue and workers, in one list.

use crate::attach_detach::AttachDetach;
use crate::autoscaler::Autoscalers;
use crate::bootstrap_token::{BootstrapSigner, TokenCleaner};
use crate::cluster::Cluster;
use crate::cron_job::CronJobs;
use crate::daemon_set::DaemonSets;
use crate::deployment::Deployments;
use crate::disruption::Disruptions;
use crate::endpoint_mirror::EndpointMirror;
use crate::endpoints::EndpointSlices;
use crate::ephemeral_volume::EphemeralVolumes;
use crate::garbage;
use crate::inventory::Inventory;
use crate::job::Jobs;
use crate::namespace::Namespaces;
use crate::node_ipam::NodeRanges;
use crate::node_lifecycle::NodeLifecycle;
use crate::node_ttl::NodeTtl;
use crate::pod_garbage::PodGarbage;
use crate::queue::Queue;
use crate::reconcile::{Reconcile, work};
use crate::recorder::Recorder;
use crate::replica_set::{ReplicaSets, ReplicationControllers};
use crate::resource_quota::ResourceQuotas;
use crate::role_aggregation::RoleAggregation;
use crate::root_ca::RootCa;
use crate::service_account::ServiceAccounts;
use crate::service_account_token::ServiceAccountTokens;
use crate::service_address::ServiceAddresses;
use crate::service_cidr::ServiceCidrs;
use crate::signing::Signing;
use crate::stateful_set::StatefulSets;
use crate::taint_eviction::TaintEviction;
use crate::ttl_after_finished::TtlAfterFinished;
use crate::volume_binder::{ClaimBinder, VolumeBinder};
use crate::volume_expand::Expansion;
use crate::volume_protection::{ClaimProtection, VolumeProtection};
use ipnet::IpNet;
use kube::Client;
use pki::authority::Authority;
use pki::service_account::SigningKey;
use std::sync::Arc;
use supervise::{Scope, Supervisor};
use tokio_util::sync::CancellationToken;

/// What the controllers must know.
pub struct Config {
    /// Where nodes' pod ranges come from, at most one a family.
    pub cluster_cidrs: Vec<IpNet>,
    /// Signs certificate requests; its certificate is every namespace's root certificate.
    pub authority: Arc<Authority>,
    /// Signs the tokens of service accounts that are kept in secrets.
    pub service_account_key: Arc<SigningKey>,
}

/// Runs every controller until cancelled.
pub async fn run(client: Client, config: Config, supervisor: &Supervisor, shutdown: CancellationToken) {
    let scope = Scope::new(supervisor, "controllers/", &shutdown);
    let cluster = Cluster::default();
    let (recorder, writer) = Recorder::new(Some(client.clone()), None);
    scope.keep(writer.task("events"));
    let mut start = Starter { tasks: Vec::new() };
    let bundle = config.authority.cert_pem();
    let (cl, rec) = (&client, &recorder);
    let inventory = Arc::new(Inventory::default());
    start.add(5, |queue| ReplicaSets::new(&cluster, cl.clone(), rec.clone(), queue));
    start.add(5, |queue| ReplicationControllers::new(&cluster, cl.clone(), rec.clone(), queue));
    start.add(5, |queue| DaemonSets::new(&cluster, cl.clone(), rec.clone(), queue));
    start.add(5, |queue| StatefulSets::new(&cluster, cl.clone(), rec.clone(), queue));
    start.add(5, |queue| Jobs::new(&cluster, cl.clone(), rec.clone(), queue));
    start.add(5, |queue| CronJobs::new(&cluster, cl.clone(), rec.clone(), queue));
    start.add(1, |queue| TtlAfterFinished::new(&cluster, cl.clone(), queue));
    start.add(1, |queue| Disruptions::new(&cluster, cl.clone(), rec.clone(), inventory.clone(), queue));
    start.add(5, |queue| Deployments::new(&cluster, cl.clone(), rec.clone(), queue));
    start.add(5, |queue| EndpointSlices::new(&cluster, cl.clone(), queue));
    start.add(5, |queue| EndpointMirror::new(&cluster, cl.clone(), rec.clone(), queue));
    start.add(2, |queue| Namespaces::new(&cluster, cl.clone(), queue));
    start.add(1, |queue| RoleAggregation::new(&cluster, cl.clone(), queue));
    start.add(1, |queue| ServiceAccounts::new(&cluster, cl.clone(), queue));
    let key = config.service_account_key;
    start.add(5, |queue| ServiceAccountTokens::new(&cluster, cl.clone(), key, bundle.clone(), queue));
    start.add(1, |queue| ServiceAddresses::new(&cluster, cl.clone(), queue));
    start.add(1, |queue| ServiceCidrs::new(&cluster, cl.clone(), queue));
    start.add(1, |queue| ClaimProtection::new(&cluster, cl.clone(), queue));
    start.add(1, |queue| VolumeProtection::new(&cluster, cl.clone(), queue));
    let (claim_queue, _) = start.add(1, |queue| ClaimBinder::new(&cluster, cl.clone(), rec.clone(), queue));
    start.add(1, |queue| VolumeBinder::new(&cluster, cl.clone(), rec.clone(), &claim_queue, queue));
    start.add(5, |queue| EphemeralVolumes::new(&cluster, cl.clone(), rec.clone(), queue));
    start.add(1, |queue| AttachDetach::new(&cluster, cl.clone(), rec.clone(), queue));
    start.add(1, |queue| Expansion::new(&cluster, cl.clone(), rec.clone(), queue));
    start.add(1, |queue| RootCa::new(&cluster, cl.clone(), bundle, queue));
    start.add(1, |queue| NodeRanges::new(&cluster, cl.clone(), rec.clone(), config.cluster_cidrs, queue));
    start.add(2, |queue| Signing::new(&cluster, cl.clone(), config.authority.clone(), queue));
    start.add(1, |queue| BootstrapSigner::new(&cluster, cl.clone(), queue));
    start.add(1, |queue| TokenCleaner::new(&cluster, cl.clone(), queue));
    start.add(2, |queue| NodeLifecycle::new(&cluster, cl.clone(), rec.clone(), queue));
    start.add(1, |queue| NodeTtl::new(&cluster, cl.clone(), queue));
    start.add(2, |queue| TaintEviction::new(&cluster, cl.clone(), rec.clone(), queue));
    let (left_over, pod_garbage) = start.add(2, |queue| PodGarbage::new(&cluster, cl.clone(), queue));
    start.add(5, |queue| Autoscalers::new(&cluster, cl.clone(), rec.clone(), inventory.clone(), queue));
    start.add(2, |queue| ResourceQuotas::new(&cluster, cl.clone(), inventory.clone(), queue));
    cluster.start(&scope, &client);
    // no controller acts before it knows everything there is
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = cluster.synced() => {}
    }
    pod_garbage.adopt_existing(&left_over);
    for begin in start.tasks {
        begin(&scope);
    }
    garbage::start(&scope, client, recorder, inventory).await;
    scope.ended().await;
}

type Begin = Box<dyn FnOnce(&Scope) + Send>;

struct Starter {
    tasks: Vec<Begin>,
}

impl Starter {
    /// Makes a controller, which registers for what wakes it; its workers start later.
    fn add<R: Reconcile>(
        &mut self,
        workers: usize,
        make: impl FnOnce(&Arc<Queue>) -> R,
    ) -> (Arc<Queue>, Arc<R>) {
        let queue = Arc::new(Queue::default());
        let controller = Arc::new(make(&queue));
        let (working, running) = (queue.clone(), controller.clone());
        self.tasks.push(Box::new(move |scope| work(scope, &working, &running, workers)));
        (queue, controller)
    }
}
