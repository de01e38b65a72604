//! What may be set of the controllers, with upstream's defaults (`cmd/kube-controller-manager/app/options`, `pkg/controller/*/config`).

use crate::address_pools::Pool;
use crate::workers::Workers;
use jiff::SignedDuration;
use std::time::Duration;

/// Nothing is looked at again more often by itself, whatever its period.
const SHORTEST: Duration = Duration::from_secs(1);

/// A period that keeps nobody busy.
pub(crate) fn paced(period: Duration) -> Duration {
    period.max(SHORTEST)
}

/// Everything that may be set.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// How many keys each controller works on at once (`--concurrent-*-syncs`).
    pub workers: Workers,
    /// Between the starts of two controllers, up to twice as long (`--controller-start-interval`).
    pub start_interval: Duration,
    /// What follows from a node's silence.
    pub nodes: NodeHealth,
    /// Horizontal pod autoscaling.
    pub autoscaling: Autoscaling,
    /// Endpoints and EndpointSlices.
    pub endpoints: EndpointWrites,
    /// Volumes.
    pub volumes: Volumes,
    /// LoadBalancer Services.
    pub load_balancing: LoadBalancing,
    /// How many pods that have ended may stay; `None`: all (`--terminated-pod-gc-threshold`).
    pub ended_pods: Option<usize>,
    /// How often every quota is counted again (`--resource-quota-sync-period`).
    pub quota_period: Duration,
    /// How often every namespace that is being deleted is looked at again (`--namespace-sync-period`).
    pub namespace_period: Duration,
    /// Whether objects go when their owners are gone (`--enable-garbage-collector`).
    pub collects_garbage: bool,
    /// The longest life of a certificate (`--cluster-signing-duration`).
    pub certificate_life: SignedDuration,
    /// How long a token in a secret may be unused (`--legacy-service-account-token-clean-up-period`).
    pub unused_tokens: SignedDuration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: Workers::default(),
            start_interval: Duration::ZERO,
            nodes: NodeHealth::default(),
            autoscaling: Autoscaling::default(),
            endpoints: EndpointWrites::default(),
            volumes: Volumes::default(),
            load_balancing: LoadBalancing::default(),
            ended_pods: Some(12_500),
            quota_period: Duration::from_secs(300),
            namespace_period: Duration::from_secs(300),
            collects_garbage: true,
            certificate_life: pki::authority::LEAF_LIFE,
            unused_tokens: SignedDuration::from_hours(365 * 24),
        }
    }
}

/// LoadBalancer Services.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadBalancing {
    /// The pools there are without the ConfigMap; where there is one, it counts alone.
    pub pools: Vec<Pool>,
    /// A cloud's own program does it (`--cloud-provider=external`).
    pub external: bool,
}

/// What follows from a node's silence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeHealth {
    /// How often a silent node is looked at (`--node-monitor-period`).
    pub period: Duration,
    /// How long a node may be silent (`--node-monitor-grace-period`).
    pub grace: Duration,
    /// How long a node may take to say anything at all (`--node-startup-grace-period`).
    pub startup: Duration,
    /// Of how many nodes a second pods are sent away; 0: of none (`--node-eviction-rate`).
    pub rate: f32,
    /// The same where much of a large zone is lost (`--secondary-node-eviction-rate`).
    pub slow_rate: f32,
    /// Which part of a zone's nodes, at least three of them, makes it unhealthy (`--unhealthy-zone-threshold`).
    pub unhealthy: f32,
    /// A zone with more nodes is large (`--large-cluster-size-threshold`).
    pub large: i64,
}

impl Default for NodeHealth {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(5),
            grace: Duration::from_secs(50),
            startup: Duration::from_secs(60),
            rate: 0.1,
            slow_rate: 0.01,
            unhealthy: 0.55,
            large: 50,
        }
    }
}

/// Horizontal pod autoscaling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Autoscaling {
    /// How often metrics are asked for (`--horizontal-pod-autoscaler-sync-period`).
    pub period: Duration,
    /// How far use may be from its target, as a part of it (`--horizontal-pod-autoscaler-tolerance`).
    pub tolerance: f64,
    /// For how long the highest wish counts before replicas are taken away (`--horizontal-pod-autoscaler-downscale-stabilization`).
    pub steady: Duration,
    /// How long a pod's CPU use may be that of its start (`--horizontal-pod-autoscaler-cpu-initialization-period`).
    pub cpu_start: Duration,
    /// How long a pod may take to say for the first time whether it is ready (`--horizontal-pod-autoscaler-initial-readiness-delay`).
    pub first_readiness: Duration,
}

impl Default for Autoscaling {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(15),
            tolerance: 0.1,
            steady: Duration::from_secs(300),
            cpu_start: Duration::from_secs(300),
            first_readiness: Duration::from_secs(30),
        }
    }
}

/// How Endpoints and EndpointSlices are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointWrites {
    /// Most endpoints in a slice (`--max-endpoints-per-slice`).
    pub per_slice: usize,
    /// How long changes of pods are gathered before slices are written (`--endpointslice-updates-batch-period`).
    pub slices_gather: Duration,
    /// The same for Endpoints (`--endpoint-updates-batch-period`).
    pub endpoints_gather: Duration,
    /// Most addresses of a subset that are mirrored (`--mirroring-max-endpoints-per-subset`).
    pub mirrored: usize,
    /// How long changes of mirrored slices are gathered (`--mirroring-endpointslice-updates-batch-period`).
    pub mirror_gather: Duration,
}

impl Default for EndpointWrites {
    fn default() -> Self {
        Self {
            per_slice: 100,
            slices_gather: Duration::ZERO,
            endpoints_gather: Duration::ZERO,
            mirrored: 1000,
            mirror_gather: Duration::ZERO,
        }
    }
}

/// Volumes and their attachments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volumes {
    /// How often a claim or volume that waits is looked at again (`--pvclaimbinder-sync-period`).
    pub bind_period: Duration,
    /// Whether provisioners are asked for volumes (`--enable-dynamic-provisioning`).
    pub provisions: bool,
    /// How often every node's attachments are looked at again; `None`: only when something changes
    /// (`--attach-detach-reconcile-sync-period`, `--disable-attach-detach-reconcile-sync`).
    pub attach_period: Option<Duration>,
    /// Whether the volumes of a node that is silent for long are detached while it has them in use
    /// (`--disable-force-detach-on-timeout`).
    pub force_detach: bool,
}

impl Default for Volumes {
    fn default() -> Self {
        Self {
            bind_period: Duration::from_secs(15),
            provisions: true,
            attach_period: Some(Duration::from_secs(60)),
            force_detach: true,
        }
    }
}
