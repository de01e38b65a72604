//! Every controller with its queue and workers, in one list.

use crate::attach_detach::AttachDetach;
use crate::attributes_class_protection::AttributesClassProtection;
use crate::autoscaler::Autoscalers;
use crate::bootstrap_token::{BootstrapSigner, TokenCleaner};
use crate::cluster::Cluster;
use crate::cron_job::CronJobs;
use crate::daemon_set::DaemonSets;
use crate::deployment::Deployments;
use crate::disruption::Disruptions;
use crate::disruption::stale::StaleDisruptions;
use crate::endpoint_mirror::EndpointMirror;
use crate::endpoints::{EndpointSlices, EndpointsObjects};
use crate::ephemeral_volume::EphemeralVolumes;
use crate::garbage;
use crate::inventory::{self, Inventory};
use crate::job::Jobs;
use crate::legacy_token::LegacyTokens;
use crate::namespace::Namespaces;
use crate::node_ipam::{NodeRanges, Ranges};
use crate::node_lifecycle::NodeLifecycle;
use crate::node_ttl::NodeTtl;
use crate::options::Options;
use crate::pod_garbage::PodGarbage;
use crate::queue::Queue;
use crate::reconcile::{Reconcile, resync, work};
use crate::recorder::Recorder;
use crate::replica_set::{ReplicaSets, ReplicationControllers};
use crate::resource_quota::ResourceQuotas;
use crate::role_aggregation::RoleAggregation;
use crate::root_ca::RootCa;
use crate::selection::Selection;
use crate::service_account::ServiceAccounts;
use crate::service_account_token::ServiceAccountTokens;
use crate::service_cidr::ServiceCidrs;
use crate::service_lb::ServiceBalancers;
use crate::signing::{Approving, Authorities, Cleaner, Signing};
use crate::stateful_set::StatefulSets;
use crate::taint_eviction::TaintEviction;
use crate::ttl_after_finished::TtlAfterFinished;
use crate::volume_binder::{ClaimBinder, VolumeBinder};
use crate::volume_expand::Expansion;
use crate::volume_protection::{ClaimProtection, VolumeProtection};
use crate::workers::Workers;
use ipnet::IpNet;
use kube::Client;
use pki::authority::Authority;
use pki::service_account::SigningKey;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Scope, Supervisor, Task};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A client for the controller with the service account of this name (in `kube-system`).
pub type Clients = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// What the controllers must know.
#[derive(Clone)]
pub struct Config {
    /// Which of them run.
    pub selection: Selection,
    /// The user each writes as.
    pub clients: Clients,
    /// Where nodes' pod ranges come from.
    pub node_ranges: Ranges,
    /// Who signs certificate requests.
    pub authorities: Authorities,
    /// Every namespace's root certificates, as PEM; without them none are published.
    pub root_ca: Option<watch::Receiver<String>>,
    /// Signs the tokens of service accounts that are kept in secrets; without one nobody does.
    pub service_account_key: Option<Arc<SigningKey>>,
    /// Names and addresses of API servers beside those that the cluster tells of: no kubelet's certificate is to bear them.
    pub api_servers: Vec<String>,
    /// All else that may be set.
    pub options: Options,
}

impl Config {
    /// Every controller, as `client`; nodes' ranges come out of `cluster_cidrs`, and `authority` is trusted by all.
    #[must_use]
    pub fn new(
        client: &Client,
        cluster_cidrs: Vec<IpNet>,
        authority: Arc<Authority>,
        key: Arc<SigningKey>,
    ) -> Self {
        let client = client.clone();
        Self {
            selection: Selection::all(),
            clients: Arc::new(move |_| client.clone()),
            node_ranges: Ranges { cluster: cluster_cidrs, ..Ranges::default() },
            root_ca: Some(watch::Sender::new(authority.cert_pem()).subscribe()),
            authorities: Authorities::all(&watch::Sender::new(authority).subscribe()),
            service_account_key: Some(key),
            api_servers: Vec::new(),
            options: Options::default(),
        }
    }
}

/// Runs the controllers until cancelled; what they watch they watch as `client`.
pub async fn run(client: Client, config: Config, supervisor: &Supervisor, shutdown: CancellationToken) {
    let scope = Scope::new(supervisor, "controllers/", &shutdown);
    let cluster = Cluster::default();
    let (recorder, writer) = Recorder::new(Some(client.clone()), None);
    scope.keep(writer.task("events"));
    let Config {
        selection,
        clients,
        node_ranges,
        authorities,
        root_ca,
        service_account_key,
        api_servers,
        options,
    } = config;
    let mut start =
        Starter { tasks: Vec::new(), selection, clients: clients.clone(), workers: options.workers.clone() };
    let rec = &recorder;
    let inventory = Arc::new(Inventory::default());
    start.add("replicaset-controller", "replicaset-controller", |queue, cl| {
        ReplicaSets::new(&cluster, cl, rec.clone(), queue)
    });
    start.add("replicationcontroller-controller", "replication-controller", |queue, cl| {
        ReplicationControllers::new(&cluster, cl, rec.clone(), queue)
    });
    start.add("daemonset-controller", "daemon-set-controller", |queue, cl| {
        DaemonSets::new(&cluster, cl, rec.clone(), queue)
    });
    start.add("statefulset-controller", "statefulset-controller", |queue, cl| {
        StatefulSets::new(&cluster, cl, rec.clone(), queue)
    });
    start.add("job-controller", "job-controller", |queue, cl| Jobs::new(&cluster, cl, rec.clone(), queue));
    start.add("cronjob-controller", "cronjob-controller", |queue, cl| {
        CronJobs::new(&cluster, cl, rec.clone(), queue)
    });
    start.add("ttl-after-finished-controller", "ttl-after-finished-controller", |queue, cl| {
        TtlAfterFinished::new(&cluster, cl, queue)
    });
    start.add("disruption-controller", "disruption-controller", |queue, cl| {
        Disruptions::new(&cluster, cl, rec.clone(), inventory.clone(), queue)
    });
    start.add("disruption-controller", "disruption-controller", |queue, cl| {
        StaleDisruptions::new(&cluster, cl, queue)
    });
    start.add("deployment-controller", "deployment-controller", |queue, cl| {
        Deployments::new(&cluster, cl, rec.clone(), queue)
    });
    start.add("endpoints-controller", "endpoint-controller", |queue, cl| {
        EndpointsObjects::new(&cluster, cl, rec.clone(), options.endpoints, queue)
    });
    start.add("endpointslice-controller", "endpointslice-controller", |queue, cl| {
        EndpointSlices::new(&cluster, cl, rec.clone(), options.endpoints, queue)
    });
    start.add("endpointslice-mirroring-controller", "endpointslicemirroring-controller", |queue, cl| {
        EndpointMirror::new(&cluster, cl, rec.clone(), options.endpoints, queue)
    });
    let namespaces = start.add("namespace-controller", "namespace-controller", |queue, cl| {
        Namespaces::new(&cluster, cl, queue)
    });
    if let Some((queue, namespaces)) = namespaces {
        let terminating = move || namespaces.terminating();
        resync(&scope, "terminating-namespaces", &queue, options.namespace_period, terminating);
    }
    start.add("clusterrole-aggregation-controller", "clusterrole-aggregation-controller", |queue, cl| {
        RoleAggregation::new(&cluster, cl, queue)
    });
    start.add("serviceaccount-controller", "service-account-controller", |queue, cl| {
        ServiceAccounts::new(&cluster, cl, queue)
    });
    let bundle = root_ca.clone().unwrap_or_else(|| watch::Sender::new(String::new()).subscribe());
    if let Some(key) = service_account_key {
        let tokens = start.add("serviceaccount-token-controller", "", |queue, cl| {
            ServiceAccountTokens::new(&cluster, cl, key, bundle, queue)
        });
        if let Some((queue, tokens)) = tokens {
            scope.keep(Task::endless("service-account-token-changes", move || {
                tokens.clone().follow(queue.clone())
            }));
        }
    }
    let name = "legacy-serviceaccount-token-cleaner-controller";
    start.add(name, "legacy-service-account-token-cleaner", |queue, cl| {
        LegacyTokens::new(&cluster, cl, options.unused_tokens, queue)
    });
    start.add("service-cidr-controller", "service-cidrs-controller", |queue, cl| {
        ServiceCidrs::new(&cluster, cl, queue)
    });
    start.add("persistentvolumeclaim-protection-controller", "pvc-protection-controller", |queue, cl| {
        ClaimProtection::new(&cluster, cl, queue)
    });
    start.add("persistentvolume-protection-controller", "pv-protection-controller", |queue, cl| {
        VolumeProtection::new(&cluster, cl, queue)
    });
    let name = "volumeattributesclass-protection-controller";
    start.add(name, name, |queue, cl| AttributesClassProtection::new(&cluster, cl, queue));
    let binder = ("persistentvolume-binder-controller", "persistent-volume-binder");
    let claims = start.add(binder.0, binder.1, |queue, cl| {
        ClaimBinder::new(&cluster, cl, rec.clone(), options.volumes, queue)
    });
    if let Some((claims, _)) = claims {
        start.add(binder.0, binder.1, |queue, cl| {
            VolumeBinder::new(&cluster, cl, rec.clone(), options.volumes, &claims, queue)
        });
    }
    start.add("ephemeral-volume-controller", "ephemeral-volume-controller", |queue, cl| {
        EphemeralVolumes::new(&cluster, cl, rec.clone(), queue)
    });
    let name = "persistentvolume-attach-detach-controller";
    let attaching = start.add(name, "attachdetach-controller", |queue, cl| {
        AttachDetach::new(&cluster, cl, rec.clone(), options.volumes.force_detach, queue)
    });
    if let Some(((queue, attaching), period)) = attaching.zip(options.volumes.attach_period) {
        resync(&scope, "attachments", &queue, period, move || attaching.nodes());
    }
    start.add("persistentvolume-expander-controller", "expand-controller", |queue, cl| {
        Expansion::new(&cluster, cl, rec.clone(), queue)
    });
    if let Some(bundle) = root_ca {
        let name = "root-ca-certificate-publisher-controller";
        let publisher =
            start.add(name, "root-ca-cert-publisher", |queue, cl| RootCa::new(&cluster, cl, bundle, queue));
        if let Some((queue, publisher)) = publisher {
            scope.keep(Task::endless("root-ca-changes", move || publisher.clone().follow(queue.clone())));
        }
    }
    start.add("service-lb-controller", "service-controller", |queue, cl| {
        ServiceBalancers::new(&cluster, cl, rec.clone(), options.load_balancing.clone(), queue)
    });
    start.add("node-ipam-controller", "node-controller", |queue, cl| {
        NodeRanges::new(&cluster, cl, rec.clone(), node_ranges, queue)
    });
    if !authorities.is_empty() {
        start.add("certificatesigningrequest-signing-controller", "certificate-controller", |queue, cl| {
            Signing::new(&cluster, cl, authorities, options.certificate_life, queue)
        });
    }
    start.add("certificatesigningrequest-approving-controller", "certificate-controller", |queue, cl| {
        Approving::new(&cluster, cl, rec.clone(), api_servers, queue)
    });
    start.add("certificatesigningrequest-cleaner-controller", "certificate-controller", |queue, cl| {
        Cleaner::new(&cluster, cl, queue)
    });
    start.add("bootstrap-signer-controller", "bootstrap-signer", |queue, cl| {
        BootstrapSigner::new(&cluster, cl, queue)
    });
    start
        .add("token-cleaner-controller", "token-cleaner", |queue, cl| TokenCleaner::new(&cluster, cl, queue));
    start.add("node-lifecycle-controller", "node-controller", |queue, cl| {
        NodeLifecycle::new(&cluster, cl, rec.clone(), options.nodes, queue)
    });
    start.add("ttl-controller", "ttl-controller", |queue, cl| NodeTtl::new(&cluster, cl, queue));
    start.add("taint-eviction-controller", "node-controller", |queue, cl| {
        TaintEviction::new(&cluster, cl, rec.clone(), queue)
    });
    let pod_garbage = start.add("pod-garbage-collector-controller", "pod-garbage-collector", |queue, cl| {
        PodGarbage::new(&cluster, cl, options.ended_pods, queue)
    });
    start.add("horizontal-pod-autoscaler-controller", "horizontal-pod-autoscaler", |queue, cl| {
        Autoscalers::new(&cluster, cl, rec.clone(), inventory.clone(), options.autoscaling, queue)
    });
    start.add("resourcequota-controller", "resourcequota-controller", |queue, cl| {
        ResourceQuotas::new(&cluster, cl, inventory.clone(), options.quota_period, queue)
    });
    cluster.start(&scope, &client);
    // no controller acts before it knows everything there is
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = cluster.synced() => {}
    }
    if let Some((left_over, pod_garbage)) = pod_garbage {
        pod_garbage.adopt_existing(&left_over);
    }
    let on = |name: &str| start.selection.has(name);
    let (collects, counts) =
        (options.collects_garbage && on("garbage-collector-controller"), on("resourcequota-controller"));
    if collects || counts || on("disruption-controller") || on("horizontal-pod-autoscaler-controller") {
        scope.keep(inventory::follow(client, inventory.clone()));
    }
    for begin in start.tasks {
        if shutdown.run_until_cancelled(pause(options.start_interval)).await.is_none() {
            return;
        }
        begin(&scope);
    }
    if collects {
        let (collector, workers) =
            ("generic-garbage-collector", start.workers.of("garbage-collector-controller"));
        garbage::start(&scope, clients(collector), recorder, inventory, workers).await;
    } else if counts {
        garbage::listen(&scope, clients("resourcequota-controller"), recorder, inventory);
    }
    scope.ended().await;
}

/// Between the starts of two controllers: one interval to two, so that several programs do not start in step.
async fn pause(interval: Duration) {
    if !interval.is_zero() {
        tokio::time::sleep(supervise::jittered(interval * 3 / 2)).await;
    }
}

type Begin = Box<dyn FnOnce(&Scope) + Send>;

struct Starter {
    tasks: Vec<Begin>,
    selection: Selection,
    clients: Clients,
    workers: Workers,
}

impl Starter {
    /// Makes the controller of upstream's name, unless it is not to run; it registers for what wakes it, and its workers start later.
    fn add<R: Reconcile>(
        &mut self,
        name: &str,
        account: &str,
        make: impl FnOnce(&Arc<Queue>, Client) -> R,
    ) -> Option<(Arc<Queue>, Arc<R>)> {
        if !self.selection.has(name) {
            return None;
        }
        let queue = Arc::new(Queue::default());
        let controller = Arc::new(make(&queue, (self.clients)(account)));
        let (working, running, workers) = (queue.clone(), controller.clone(), self.workers.of(name));
        self.tasks.push(Box::new(move |scope| work(scope, &working, &running, workers)));
        Some((queue, controller))
    }
}
