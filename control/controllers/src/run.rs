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
use crate::endpoints::EndpointSlices;
use crate::ephemeral_volume::EphemeralVolumes;
use crate::garbage;
use crate::inventory::{self, Inventory};
use crate::job::Jobs;
use crate::namespace::Namespaces;
use crate::node_ipam::{NodeRanges, Ranges};
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
use crate::selection::Selection;
use crate::service_account::ServiceAccounts;
use crate::service_account_token::ServiceAccountTokens;
use crate::service_cidr::ServiceCidrs;
use crate::signing::{Approving, Cleaner, Signing};
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
    /// Signs certificate requests, as it is at the time; without one nobody does.
    pub authority: Option<watch::Receiver<Arc<Authority>>>,
    /// Every namespace's root certificates, as PEM; without them none are published.
    pub root_ca: Option<watch::Receiver<String>>,
    /// Signs the tokens of service accounts that are kept in secrets; without one nobody does.
    pub service_account_key: Option<Arc<SigningKey>>,
    /// Names and addresses of API servers beside those that the cluster tells of: no kubelet's certificate is to bear them.
    pub api_servers: Vec<String>,
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
            authority: Some(watch::Sender::new(authority).subscribe()),
            service_account_key: Some(key),
            api_servers: Vec::new(),
        }
    }
}

/// Runs the controllers until cancelled; what they watch they watch as `client`.
pub async fn run(client: Client, config: Config, supervisor: &Supervisor, shutdown: CancellationToken) {
    let scope = Scope::new(supervisor, "controllers/", &shutdown);
    let cluster = Cluster::default();
    let (recorder, writer) = Recorder::new(Some(client.clone()), None);
    scope.keep(writer.task("events"));
    let Config { selection, clients, node_ranges, authority, root_ca, service_account_key, api_servers } =
        config;
    let mut start = Starter { tasks: Vec::new(), selection, clients: clients.clone() };
    let rec = &recorder;
    let inventory = Arc::new(Inventory::default());
    start.add("replicaset-controller", "replicaset-controller", 5, |queue, cl| {
        ReplicaSets::new(&cluster, cl, rec.clone(), queue)
    });
    start.add("replicationcontroller-controller", "replication-controller", 5, |queue, cl| {
        ReplicationControllers::new(&cluster, cl, rec.clone(), queue)
    });
    start.add("daemonset-controller", "daemon-set-controller", 5, |queue, cl| {
        DaemonSets::new(&cluster, cl, rec.clone(), queue)
    });
    start.add("statefulset-controller", "statefulset-controller", 5, |queue, cl| {
        StatefulSets::new(&cluster, cl, rec.clone(), queue)
    });
    start.add("job-controller", "job-controller", 5, |queue, cl| Jobs::new(&cluster, cl, rec.clone(), queue));
    start.add("cronjob-controller", "cronjob-controller", 5, |queue, cl| {
        CronJobs::new(&cluster, cl, rec.clone(), queue)
    });
    start.add("ttl-after-finished-controller", "ttl-after-finished-controller", 1, |queue, cl| {
        TtlAfterFinished::new(&cluster, cl, queue)
    });
    start.add("disruption-controller", "disruption-controller", 1, |queue, cl| {
        Disruptions::new(&cluster, cl, rec.clone(), inventory.clone(), queue)
    });
    start.add("disruption-controller", "disruption-controller", 1, |queue, cl| {
        StaleDisruptions::new(&cluster, cl, queue)
    });
    start.add("deployment-controller", "deployment-controller", 5, |queue, cl| {
        Deployments::new(&cluster, cl, rec.clone(), queue)
    });
    // Upstream has a controller, and an account, for each of the two kinds.
    let of_endpoints = start.selection.has("endpoints-controller").then(|| clients("endpoint-controller"));
    start.add("endpointslice-controller", "endpointslice-controller", 5, |queue, cl| {
        EndpointSlices::new(&cluster, cl, of_endpoints, rec.clone(), queue)
    });
    start.add("endpointslice-mirroring-controller", "endpointslicemirroring-controller", 5, |queue, cl| {
        EndpointMirror::new(&cluster, cl, rec.clone(), queue)
    });
    start.add("namespace-controller", "namespace-controller", 2, |queue, cl| {
        Namespaces::new(&cluster, cl, queue)
    });
    start.add("clusterrole-aggregation-controller", "clusterrole-aggregation-controller", 1, |queue, cl| {
        RoleAggregation::new(&cluster, cl, queue)
    });
    start.add("serviceaccount-controller", "service-account-controller", 1, |queue, cl| {
        ServiceAccounts::new(&cluster, cl, queue)
    });
    let bundle = root_ca.clone().unwrap_or_else(|| watch::Sender::new(String::new()).subscribe());
    if let Some(key) = service_account_key {
        let tokens = start.add("serviceaccount-token-controller", "", 5, |queue, cl| {
            ServiceAccountTokens::new(&cluster, cl, key, bundle, queue)
        });
        if let Some((queue, tokens)) = tokens {
            scope.keep(Task::endless("service-account-token-changes", move || {
                tokens.clone().follow(queue.clone())
            }));
        }
    }
    start.add("service-cidr-controller", "service-cidrs-controller", 1, |queue, cl| {
        ServiceCidrs::new(&cluster, cl, queue)
    });
    start.add("persistentvolumeclaim-protection-controller", "pvc-protection-controller", 1, |queue, cl| {
        ClaimProtection::new(&cluster, cl, queue)
    });
    start.add("persistentvolume-protection-controller", "pv-protection-controller", 1, |queue, cl| {
        VolumeProtection::new(&cluster, cl, queue)
    });
    let name = "volumeattributesclass-protection-controller";
    start.add(name, name, 1, |queue, cl| AttributesClassProtection::new(&cluster, cl, queue));
    let binder = ("persistentvolume-binder-controller", "persistent-volume-binder");
    let claims =
        start.add(binder.0, binder.1, 1, |queue, cl| ClaimBinder::new(&cluster, cl, rec.clone(), queue));
    if let Some((claims, _)) = claims {
        start.add(binder.0, binder.1, 1, |queue, cl| {
            VolumeBinder::new(&cluster, cl, rec.clone(), &claims, queue)
        });
    }
    start.add("ephemeral-volume-controller", "ephemeral-volume-controller", 5, |queue, cl| {
        EphemeralVolumes::new(&cluster, cl, rec.clone(), queue)
    });
    start.add("persistentvolume-attach-detach-controller", "attachdetach-controller", 1, |queue, cl| {
        AttachDetach::new(&cluster, cl, rec.clone(), queue)
    });
    start.add("persistentvolume-expander-controller", "expand-controller", 1, |queue, cl| {
        Expansion::new(&cluster, cl, rec.clone(), queue)
    });
    if let Some(bundle) = root_ca {
        let name = "root-ca-certificate-publisher-controller";
        let publisher = start
            .add(name, "root-ca-cert-publisher", 1, |queue, cl| RootCa::new(&cluster, cl, bundle, queue));
        if let Some((queue, publisher)) = publisher {
            scope.keep(Task::endless("root-ca-changes", move || publisher.clone().follow(queue.clone())));
        }
    }
    start.add("node-ipam-controller", "node-controller", 1, |queue, cl| {
        NodeRanges::new(&cluster, cl, rec.clone(), node_ranges, queue)
    });
    if let Some(authority) = authority {
        start.add(
            "certificatesigningrequest-signing-controller",
            "certificate-controller",
            5,
            |queue, cl| Signing::new(&cluster, cl, authority, queue),
        );
    }
    start.add("certificatesigningrequest-approving-controller", "certificate-controller", 5, |queue, cl| {
        Approving::new(&cluster, cl, rec.clone(), api_servers, queue)
    });
    start.add("certificatesigningrequest-cleaner-controller", "certificate-controller", 1, |queue, cl| {
        Cleaner::new(&cluster, cl, queue)
    });
    start.add("bootstrap-signer-controller", "bootstrap-signer", 1, |queue, cl| {
        BootstrapSigner::new(&cluster, cl, queue)
    });
    start.add("token-cleaner-controller", "token-cleaner", 1, |queue, cl| {
        TokenCleaner::new(&cluster, cl, queue)
    });
    start.add("node-lifecycle-controller", "node-controller", 2, |queue, cl| {
        NodeLifecycle::new(&cluster, cl, rec.clone(), queue)
    });
    start.add("ttl-controller", "ttl-controller", 1, |queue, cl| NodeTtl::new(&cluster, cl, queue));
    start.add("taint-eviction-controller", "node-controller", 2, |queue, cl| {
        TaintEviction::new(&cluster, cl, rec.clone(), queue)
    });
    let pod_garbage =
        start.add("pod-garbage-collector-controller", "pod-garbage-collector", 2, |queue, cl| {
            PodGarbage::new(&cluster, cl, queue)
        });
    start.add("horizontal-pod-autoscaler-controller", "horizontal-pod-autoscaler", 5, |queue, cl| {
        Autoscalers::new(&cluster, cl, rec.clone(), inventory.clone(), queue)
    });
    start.add("resourcequota-controller", "resourcequota-controller", 2, |queue, cl| {
        ResourceQuotas::new(&cluster, cl, inventory.clone(), queue)
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
    let collects = start.selection.has("garbage-collector-controller");
    let readers =
        ["disruption-controller", "horizontal-pod-autoscaler-controller", "resourcequota-controller"];
    let reads = readers.iter().any(|name| start.selection.has(name));
    for begin in start.tasks {
        begin(&scope);
    }
    if collects {
        garbage::start(&scope, clients("generic-garbage-collector"), recorder, inventory).await;
    } else if reads {
        scope.keep(inventory::follow(client, inventory));
    }
    scope.ended().await;
}

type Begin = Box<dyn FnOnce(&Scope) + Send>;

struct Starter {
    tasks: Vec<Begin>,
    selection: Selection,
    clients: Clients,
}

impl Starter {
    /// Makes the controller of upstream's name, unless it is not to run; it registers for what wakes it, and its workers start later.
    fn add<R: Reconcile>(
        &mut self,
        name: &str,
        account: &str,
        workers: usize,
        make: impl FnOnce(&Arc<Queue>, Client) -> R,
    ) -> Option<(Arc<Queue>, Arc<R>)> {
        if !self.selection.has(name) {
            return None;
        }
        let queue = Arc::new(Queue::default());
        let controller = Arc::new(make(&queue, (self.clients)(account)));
        let (working, running) = (queue.clone(), controller.clone());
        self.tasks.push(Box::new(move |scope| work(scope, &working, &running, workers)));
        Some((queue, controller))
    }
}
