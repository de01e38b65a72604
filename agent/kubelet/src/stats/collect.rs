//! One measurement of the node and its pods.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};

use super::disk::{Filesystem, Used};
use super::network::{self, Interface};
use super::system::{self, System};
use super::{Stats, disk};
use crate::cgroup::Cgroups;
use crate::cgroup::usage::Usage;
use crate::pod::observed::State;
use crate::pods::View;

/// A container that runs.
#[derive(Clone, Debug)]
pub struct Container {
    pub name: String,
    pub id: String,
    pub image: String,
    pub started: Option<Timestamp>,
    /// What its cgroup counts.
    pub usage: Option<Usage>,
    /// Nanoseconds of processor time a second.
    pub rate: Option<u64>,
    pub layer: Option<Used>,
    pub logs: Option<Used>,
}

/// A volume of a pod.
#[derive(Clone, Debug)]
pub struct VolumeUsage {
    /// Its name in the pod.
    pub name: String,
    /// The claim it is behind.
    pub claim: Option<String>,
    pub used: Used,
    /// The filesystem it is on.
    pub filesystem: Filesystem,
    /// Its bytes are the node's own disk.
    pub ephemeral: bool,
}

#[derive(Clone, Debug)]
pub struct PodStats {
    /// The pod and what is known of it.
    pub view: View,
    /// What its cgroup counts.
    pub usage: Option<Usage>,
    /// Nanoseconds of processor time a second.
    pub rate: Option<u64>,
    /// Running ones only.
    pub containers: Vec<Container>,
    pub interfaces: Vec<Interface>,
    /// Its volumes; empty where disks were not asked for.
    pub volumes: Vec<VolumeUsage>,
    /// Everything of it on the node's disk.
    pub ephemeral: Option<Used>,
}

#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub at: Timestamp,
    pub machine: Option<Usage>,
    /// Nanoseconds of processor time a second, of the machine.
    pub machine_rate: Option<u64>,
    pub all_pods: Option<Usage>,
    /// The same rate for them.
    pub all_pods_rate: Option<u64>,
    /// What the machine runs beside pods.
    pub systems: Vec<System>,
    pub interfaces: Vec<Interface>,
    /// The filesystem of the kubelet's root.
    pub root: Option<Filesystem>,
    /// The filesystem of images, and what they take of it.
    pub images: Option<(Filesystem, Used)>,
    /// Running ones only.
    pub pods: Vec<PodStats>,
}

/// What is measured beside processor and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Nothing else: cgroups alone are read.
    Cgroups,
    /// Networks and disks; directories are walked again when they were longer ago than this.
    Everything(Duration),
}

impl Stats {
    /// Measures the node, and those pods that `only` names.
    pub async fn measure(&self, depth: Depth, only: fn(&Pod) -> bool) -> Measured {
        let disks = matches!(depth, Depth::Everything(_));
        let (layers, images) = match disks {
            true => (self.layers().await, self.images().await),
            false => (HashMap::new(), None),
        };
        let stats = self.clone();
        let runtime = system::runtime(&self.config.container_runtime_endpoint).await;
        let measured = tokio::task::spawn_blocking(move || Measured {
            systems: stats.systems(runtime),
            ..stats.measure_blocking(depth, only, &layers, images)
        });
        measured.await.unwrap_or_default()
    }

    fn systems(&self, runtime: Option<u32>) -> Vec<System> {
        let one = |(name, path): (&'static str, String)| {
            let usage = Cgroups::usage_of(&path)?;
            let started = (name == "kubelet").then_some(self.began);
            Some(System { name, rate: self.rate(&path, usage.cpu, started), usage, started })
        };
        system::cgroups(&self.config, runtime).into_iter().filter_map(one).collect()
    }

    /// Writable layers by container id.
    async fn layers(&self) -> HashMap<String, Used> {
        let listed = self.runtime.list_container_stats(HashMap::new()).await.unwrap_or_default();
        let of = |value: Option<cri_proto::v1::UInt64Value>| value.map_or(0, |v| v.value);
        listed
            .into_iter()
            .filter_map(|stats| {
                let layer = stats.writable_layer?;
                let used = Used { bytes: of(layer.used_bytes), inodes: of(layer.inodes_used) };
                Some((stats.attributes?.id, used))
            })
            .collect()
    }

    /// Where images live, and what they take.
    async fn images(&self) -> Option<(PathBuf, Used)> {
        let info = self.runtime.image_fs_info().await.ok()?;
        let first = info.image_filesystems.into_iter().next()?;
        let of = |value: Option<cri_proto::v1::UInt64Value>| value.map_or(0, |v| v.value);
        let used = Used { bytes: of(first.used_bytes), inodes: of(first.inodes_used) };
        Some((first.fs_id?.mountpoint.into(), used))
    }

    fn measure_blocking(
        &self,
        depth: Depth,
        only: fn(&Pod) -> bool,
        layers: &HashMap<String, Used>,
        images: Option<(PathBuf, Used)>,
    ) -> Measured {
        let machine = self.cgroups.machine_usage();
        let all_pods = self.cgroups.pods_usage();
        let running = |view: &View| view.observed.containers.iter().any(|c| c.state == State::Running);
        let views = self.pods.all().into_iter().filter(|view| running(view) && only(&view.pod));
        let mut measured = Measured {
            at: Timestamp::now(),
            machine_rate: machine.as_ref().and_then(|u| self.rate("/", u.cpu, boot_time())),
            all_pods_rate: all_pods.as_ref().and_then(|u| self.rate("/pods", u.cpu, None)),
            machine,
            all_pods,
            pods: views.map(|view| self.pod(view, depth, layers)).collect(),
            ..Measured::default()
        };
        if let Depth::Everything(_) = depth {
            measured.interfaces = network::of_process(None);
            measured.root = Filesystem::of(&self.config.root_dir);
            measured.images = images.and_then(|(path, used)| Some((Filesystem::of(&path)?, used)));
        }
        measured
    }

    fn pod(&self, view: View, depth: Depth, layers: &HashMap<String, Used>) -> PodStats {
        let uid = crate::pod::uid(&view.pod).to_owned();
        let running: Vec<_> =
            view.observed.containers.iter().filter(|c| c.state == State::Running).cloned().collect();
        let ids: Vec<String> = running.iter().map(|c| c.id.clone()).collect();
        let mut usage = self.cgroups.pod_usage(&view.pod, &ids);
        let containers = running.into_iter().map(|c| {
            let used = usage.containers.remove(&c.id);
            Container {
                rate: used.as_ref().and_then(|u| self.rate(&c.id, u.cpu, c.started_at)),
                usage: used,
                layer: layers.get(&c.id).copied(),
                logs: None,
                id: c.id,
                image: c.image,
                started: c.started_at,
                name: c.name,
            }
        });
        let mut stats = PodStats {
            containers: containers.collect(),
            rate: usage.pod.as_ref().and_then(|u| self.rate(&uid, u.cpu, began(&view))),
            usage: usage.pod,
            interfaces: Vec::new(),
            volumes: Vec::new(),
            ephemeral: None,
            view,
        };
        if let Depth::Everything(age) = depth {
            if !crate::pod::host_network(&stats.view.pod) {
                stats.interfaces =
                    usage.process.map(|pid| network::of_process(Some(pid))).unwrap_or_default();
            }
            self.disks(&mut stats, age);
        }
        stats
    }

    /// Fills in what the pod takes of disks.
    fn disks(&self, stats: &mut PodStats, age: Duration) {
        let pod = stats.view.pod.clone();
        let (namespace, name, uid) =
            (crate::pod::namespace(&pod), crate::pod::name(&pod), crate::pod::uid(&pod));
        let logs = self.config.pod_log_dir(namespace, name, uid);
        let mut all = Used::default();
        for container in &mut stats.containers {
            let used = self.disk.walk(&logs.join(&container.name), age);
            container.logs = Some(used);
            all += used;
            if let Some(layer) = container.layer {
                all += layer;
            }
        }
        stats.volumes = self.volumes(&pod, age);
        for volume in stats.volumes.iter().filter(|v| v.ephemeral) {
            all += volume.used;
        }
        let hosts = self.config.pod_dir(uid).join("etc-hosts");
        if hosts.exists() {
            all += disk::walk(&hosts);
        }
        stats.ephemeral = Some(all);
    }

    /// Nothing where volumes are not to be measured.
    fn volumes(&self, pod: &Pod, age: Duration) -> Vec<VolumeUsage> {
        if self.config.volume_stats_period.is_none() {
            return Vec::new();
        }
        let claims = self.claims.of_pod(crate::pod::uid(pod));
        let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        volumes.filter_map(|volume| self.volume(pod, volume, &claims, age)).collect()
    }

    fn volume(
        &self,
        pod: &Pod,
        volume: &Volume,
        claims: &BTreeMap<String, std::sync::Arc<crate::volume::claim::Claimed>>,
        age: Duration,
    ) -> Option<VolumeUsage> {
        let directory = |kind: &str, name: &str| {
            let volumes = self.config.pod_dir(crate::pod::uid(pod)).join("volumes");
            volumes.join(format!("kubernetes.io~{kind}")).join(name)
        };
        if let Some(claimed) = claims.get(&volume.name) {
            // A mounted filesystem knows itself how full it is.
            let kinds = ["local-volume", "csi"];
            let path = kinds.iter().map(|kind| directory(kind, claimed.name())).find(|p| p.is_dir())?;
            let path = if path.join("mount").is_dir() { path.join("mount") } else { path };
            let filesystem = Filesystem::of(&path)?;
            return Some(VolumeUsage {
                name: volume.name.clone(),
                claim: Some(claimed.claim.clone()),
                used: filesystem.taken(),
                filesystem,
                ephemeral: false,
            });
        }
        let memory = |v: &Volume| v.empty_dir.as_ref().is_some_and(|e| e.medium.as_deref() == Some("Memory"));
        let (kind, ephemeral) = match volume {
            v if v.empty_dir.is_some() => ("empty-dir", !memory(v)),
            v if v.config_map.is_some() => ("configmap", true),
            v if v.secret.is_some() => ("secret", false),
            v if v.downward_api.is_some() => ("downward-api", false),
            v if v.projected.is_some() => ("projected", false),
            _ => return None,
        };
        let path = directory(kind, &volume.name);
        let filesystem = Filesystem::of(&path)?;
        let used = self.disk.walk(&path, age);
        Some(VolumeUsage { name: volume.name.clone(), claim: None, used, filesystem, ephemeral })
    }
}

/// When the pod started here.
pub fn began(view: &View) -> Option<Timestamp> {
    view.status.start_time.as_ref().map(|t| t.0)
}

/// When the machine did.
pub fn boot_time() -> Option<Timestamp> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let seconds = text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Timestamp::from_second(seconds).ok()
}
