//! The informers together: every controller reads the same maps.

use crate::informer::{Informer, Kind};
use client::Source;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
    ReplicationController, ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass, VolumeAttachment, VolumeAttributesClass};
use kube::{Api, Client};
use pki::bootstrap::{SECRET_NAMESPACE, SECRET_TYPE};
use std::sync::Arc;
use supervise::Scope;

/// Where a cluster describes itself.
pub(crate) const INFO: (&str, &str) = ("kube-public", "cluster-info");
/// The ConfigMap of load balancers' address pools.
const POOLS: (&str, &str) = ("kube-system", "windlass-load-balancer");
/// The type of such secrets.
pub(crate) const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";

/// What the controllers read.
#[derive(Default)]
#[allow(missing_docs, reason = "each field is the informer of the kind it is named for")]
pub(crate) struct Cluster {
    pub attributes_classes: Arc<Informer<VolumeAttributesClass>>,
    pub autoscalers: Arc<Informer<HorizontalPodAutoscaler>>,
    /// The ConfigMap of load balancers' address pools only.
    pub balancer_pools: Arc<Informer<ConfigMap>>,
    /// Secrets of bootstrap tokens only.
    pub bootstrap_tokens: Arc<Informer<Secret>>,
    pub budgets: Arc<Informer<PodDisruptionBudget>>,
    /// What the cluster says of itself to clients it does not know: that ConfigMap only.
    pub cluster_info: Arc<Informer<ConfigMap>>,
    pub cluster_roles: Arc<Informer<ClusterRole>>,
    pub config_maps: Arc<Informer<ConfigMap>>,
    pub cron_jobs: Arc<Informer<CronJob>>,
    pub csi_drivers: Arc<Informer<CSIDriver>>,
    pub daemon_sets: Arc<Informer<DaemonSet>>,
    pub deployments: Arc<Informer<Deployment>>,
    pub endpoint_slices: Arc<Informer<EndpointSlice>>,
    pub endpoints: Arc<Informer<Endpoints>>,
    pub ip_addresses: Arc<Informer<IPAddress>>,
    pub jobs: Arc<Informer<Job>>,
    /// Leases of nodes only.
    pub leases: Arc<Informer<Lease>>,
    pub namespaces: Arc<Informer<Namespace>>,
    pub nodes: Arc<Informer<Node>>,
    pub persistent_volume_claims: Arc<Informer<PersistentVolumeClaim>>,
    pub persistent_volumes: Arc<Informer<PersistentVolume>>,
    pub pods: Arc<Informer<Pod>>,
    pub quotas: Arc<Informer<ResourceQuota>>,
    pub replica_sets: Arc<Informer<ReplicaSet>>,
    pub replication_controllers: Arc<Informer<ReplicationController>>,
    pub requests: Arc<Informer<CertificateSigningRequest>>,
    pub revisions: Arc<Informer<ControllerRevision>>,
    pub service_accounts: Arc<Informer<ServiceAccount>>,
    /// Secrets with tokens of service accounts only.
    pub service_account_tokens: Arc<Informer<Secret>>,
    pub service_cidrs: Arc<Informer<ServiceCIDR>>,
    pub services: Arc<Informer<Service>>,
    pub stateful_sets: Arc<Informer<StatefulSet>>,
    pub storage_classes: Arc<Informer<StorageClass>>,
    pub volume_attachments: Arc<Informer<VolumeAttachment>>,
}

impl Cluster {
    /// Starts every watch; register handlers before.
    pub(crate) fn start(&self, scope: &Scope, client: &Client) {
        let starter = Starter { scope, client };
        // of the config maps only the one every namespace has
        let root_ca = Source::all::<ConfigMap>(client).named("kube-root-ca.crt");
        starter.start(&self.config_maps, "configmaps", root_ca);
        let pools = Source::of(Api::<ConfigMap>::namespaced(client.clone(), POOLS.0)).named(POOLS.1);
        starter.start(&self.balancer_pools, "load-balancer-pools", pools);
        starter.all(&self.attributes_classes);
        starter.all(&self.autoscalers);
        let tokens = Source::of(Api::<Secret>::namespaced(client.clone(), SECRET_NAMESPACE));
        starter.start(
            &self.bootstrap_tokens,
            "bootstrap-tokens",
            tokens.fields(&format!("type={SECRET_TYPE}")),
        );
        starter.all(&self.budgets);
        let info = Source::of(Api::<ConfigMap>::namespaced(client.clone(), INFO.0)).named(INFO.1);
        starter.start(&self.cluster_info, "cluster-info", info);
        starter.all(&self.cluster_roles);
        starter.all(&self.cron_jobs);
        starter.all(&self.daemon_sets);
        starter.all(&self.deployments);
        starter.all(&self.endpoint_slices);
        starter.all(&self.endpoints);
        starter.all(&self.ip_addresses);
        starter.all(&self.jobs);
        let leases = Source::of(Api::<Lease>::namespaced(client.clone(), "kube-node-lease"));
        starter.start(&self.leases, "leases", leases);
        starter.all(&self.namespaces);
        starter.all(&self.nodes);
        starter.all(&self.persistent_volume_claims);
        starter.all(&self.persistent_volumes);
        starter.all(&self.pods);
        starter.all(&self.quotas);
        starter.all(&self.replica_sets);
        starter.all(&self.replication_controllers);
        starter.all(&self.requests);
        starter.all(&self.revisions);
        starter.all(&self.service_accounts);
        let tokens = Source::all::<Secret>(client).fields(&format!("type={TOKEN_TYPE}"));
        starter.start(&self.service_account_tokens, "service-account-tokens", tokens);
        starter.all(&self.service_cidrs);
        starter.all(&self.services);
        starter.all(&self.stateful_sets);
        starter.all(&self.storage_classes);
        starter.all(&self.csi_drivers);
        starter.all(&self.volume_attachments);
    }

    /// Waits until every first list is complete: before that, what is not in a map may still exist.
    pub(crate) async fn synced(&self) {
        tokio::join!(
            self.attributes_classes.synced(),
            self.autoscalers.synced(),
            self.balancer_pools.synced(),
            self.bootstrap_tokens.synced(),
            self.budgets.synced(),
            self.cluster_info.synced(),
            self.cluster_roles.synced(),
            self.config_maps.synced(),
            self.cron_jobs.synced(),
            self.daemon_sets.synced(),
            self.deployments.synced(),
            self.endpoint_slices.synced(),
            self.endpoints.synced(),
            self.ip_addresses.synced(),
            self.jobs.synced(),
            self.leases.synced(),
            self.namespaces.synced(),
            self.nodes.synced(),
            self.persistent_volume_claims.synced(),
            self.persistent_volumes.synced(),
            self.pods.synced(),
            self.quotas.synced(),
            self.replica_sets.synced(),
            self.replication_controllers.synced(),
            self.requests.synced(),
            self.revisions.synced(),
            self.service_accounts.synced(),
            self.service_account_tokens.synced(),
            self.service_cidrs.synced(),
            self.services.synced(),
            self.stateful_sets.synced(),
            self.storage_classes.synced(),
            self.csi_drivers.synced(),
            self.volume_attachments.synced(),
        );
    }
}

struct Starter<'a> {
    scope: &'a Scope,
    client: &'a Client,
}

impl Starter<'_> {
    fn all<K: Kind<DynamicType = ()>>(&self, informer: &Arc<Informer<K>>) {
        self.start(informer, &K::plural(&()), Source::all::<K>(self.client));
    }

    fn start<K: Kind>(&self, informer: &Arc<Informer<K>>, name: &str, source: Source) {
        self.scope.keep(informer.task(format!("watch/{name}"), source));
    }
}
