//! Pod cgroups: `kubepods[/burstable|/besteffort]/pod<uid>` below the configured root, and nothing outside it.
//!
//! The kubelet makes the pod's cgroup with the sums of its containers' requests and limits; the runtime makes the
//! containers' cgroups inside. Everything here blocks on the kernel, so it runs off the reactor.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use parking_lot::Mutex;

use crate::config::reserved::Reserved;
use crate::config::{CgroupDriver, Config};
use crate::dbus::SYSTEM_BUS;
use crate::node::machine;
use crate::node::resources::{PIDS, Resources};
use crate::pod::qos::{self, Class};

pub(crate) mod limits;
pub(crate) mod pressure;
mod process;
pub mod record;
pub(crate) mod systemd;
pub(crate) mod tree;
pub(crate) mod usage;

use limits::Limits;
use systemd::Systemd;
use tree::Tree;
use usage::Usage;

/// A cgroup operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory could not be made.
    #[error("create cgroup {}: {source}", .path.display())]
    Create { path: PathBuf, source: std::io::Error },
    /// A directory could not be removed.
    #[error("remove cgroup {}: {source}", .path.display())]
    Remove { path: PathBuf, source: std::io::Error },
    /// A limit could not be written.
    #[error("write {value:?} to {}: {source}", .path.display())]
    Write {
        path: PathBuf,
        /// What was to be written.
        value: String,
        source: std::io::Error,
    },
    #[error("systemd slice {slice}: {reason}")]
    Systemd { slice: String, reason: String },
    /// A cgroup of version 2 that limits nothing.
    #[error("cgroup {cgroup} has some missing controllers: {missing}")]
    Controllers { cgroup: String, missing: String },
    /// What is reserved cannot be enforced.
    #[error("Failed to enforce {title} Cgroup Limits on {cgroup:?}: {reason}")]
    Reserved {
        /// `Kube Reserved`, `System Reserved Compressible`.
        title: String,
        /// As configured.
        cgroup: String,
        reason: String,
    },
    /// The blocking task died.
    #[error("cgroup operation interrupted")]
    Interrupted,
}

/// The cgroup tree of this kubelet's pods.
#[derive(Clone)]
pub struct Cgroups(Option<Arc<Inner>>);

struct Inner {
    tree: Tree,
    driver: CgroupDriver,
    systemd: Systemd,
    root: Vec<String>,
    cfs_quota: bool,
    cfs_period_us: i64,
    pids: Option<i64>,
    /// The sizes of the machine's huge pages, in bytes.
    page_sizes: Vec<i64>,
    /// The machine's processors, as the kernel lists them.
    cpus: Option<String>,
    /// Limits of all pods together that could not be set yet.
    unmet: Mutex<Option<Limits>>,
    made: Mutex<BTreeMap<PathBuf, Made>>,
}

/// A cgroup as it was when it got its limits last.
struct Made {
    identity: Vec<u64>,
    limits: Limits,
}

impl Cgroups {
    /// The tree as configured; nothing is made yet.
    pub fn new(config: &Config) -> Self {
        if !config.cgroups_per_qos {
            return Self(None);
        }
        let root = config.cgroup_root.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        Self(Some(Arc::new(Inner {
            tree: Tree::detect(),
            driver: config.cgroup_driver,
            systemd: Systemd::new(SYSTEM_BUS.as_ref()),
            root,
            cfs_quota: config.cpu_cfs_quota,
            cfs_period_us: i64::try_from(config.cpu_cfs_quota_period.as_micros()).unwrap_or(100_000),
            pids: config.pod_pids_limit,
            page_sizes: machine::page_sizes(),
            cpus: Some(machine::online()).filter(|cpus| !cpus.is_empty()),
            unmet: Mutex::default(),
            made: Mutex::default(),
        })))
    }

    /// Makes the classes' cgroups, bounded to `limit`.
    pub async fn prepare(&self, limit: &Resources) -> Result<(), Error> {
        let Some(inner) = self.0.clone() else { return Ok(()) };
        let of = |name: &str| limit.get(name);
        let cpu = of("cpu").map_or(0, crate::quantity::milli);
        let memory = of("memory").map_or(0, crate::quantity::whole);
        let pids = of(PIDS).map(crate::quantity::whole);
        blocking(move || {
            // systemd takes the controller away again that it was not told is needed. Upstream: `getCgroupConfig`.
            let cpus = inner.cpus.clone();
            let all = Limits { cpu_milli: Some(cpu), memory: Some(memory), cpus, pids, ..Limits::default() };
            let names = inner.names(None, None);
            match inner.apply(&names, &all) {
                Err(error @ Error::Write { .. }) => inner.not_yet(all, &error),
                other => other?,
            }
            let missing = inner.settled(&inner.path(&names))?;
            if !missing.is_empty() {
                return Err(Error::Controllers { cgroup: names.join("/"), missing: missing.join(", ") });
            }
            let least = Limits { cpu_milli: Some(0), ..Limits::default() };
            inner.apply(&inner.names(Some(Class::BestEffort), None), &least)?;
            inner.apply(&inner.names(Some(Class::Burstable), None), &Limits::default())
        })
        .await
    }

    /// Gives the cgroup of all pods the limits that it could not get before; false where pods have none. Upstream:
    /// `enforceNodeAllocatableCgroups`.
    pub(crate) async fn enforce(&self) -> Result<bool, Error> {
        let Some(inner) = self.0.clone() else { return Ok(false) };
        let enforcing = blocking(move || {
            let unmet = inner.unmet.lock().clone();
            if let Some(limits) = unmet {
                inner.apply(&inner.names(None, None), &limits)?;
                *inner.unmet.lock() = None;
            }
            Ok(())
        });
        enforcing.await.map(|()| true)
    }

    /// The cgroup of all pods, as upstream's messages name it: `["kubepods"]`.
    pub(crate) fn shown(&self) -> String {
        let names = self.0.as_ref().map(|inner| inner.names(None, None)).unwrap_or_default();
        let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        format!("[{}]", quoted.join(" "))
    }

    /// Limits a cgroup of others to what is reserved for it; it must be there.
    pub(crate) async fn limit_reserved(
        &self,
        reserved: &Reserved,
        amounts: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let Some(inner) = self.0.clone() else { return Ok(()) };
        let Reserved { title, cgroup, compressible } = reserved.clone();
        let limits = Limits { cpus: inner.cpus.clone(), ..limits_of(amounts, compressible) };
        let title = format!("{title} Reserved{}", if compressible { " Compressible" } else { "" });
        let failed = move |reason| Error::Reserved { title: title.clone(), cgroup: cgroup.clone(), reason };
        let path = reserved.cgroup.clone();
        blocking(move || {
            let slice = (inner.driver == CgroupDriver::Systemd).then(|| systemd::names(&path));
            let place: PathBuf = match &slice {
                Some(names) => systemd::path(names),
                // As it is spelt.
                None => path.split('/').filter(|part| !part.is_empty()).collect(),
            };
            if !inner.tree.exists(&place) {
                return Err(failed(format!("{path} cgroup does not exist")));
            }
            let missing = inner.tree.missing(&place);
            if !missing.is_empty() {
                let missing = missing.join(", ");
                return Err(failed(format!("cgroup {path:?} has some missing controllers: {missing}")));
            }
            let told = slice.map_or(Ok(()), |names| inner.systemd.limit(&names, &limits, inner.unified()));
            told.and_then(|()| inner.tree.apply(&place, &limits)).map_err(|error| failed(error.to_string()))
        })
        .await
    }

    /// Gives the class of burstable pods its share of the processors, in thousandths of a core.
    pub async fn share(&self, burstable: i64) -> Result<(), Error> {
        let Some(inner) = self.0.clone() else { return Ok(()) };
        blocking(move || {
            for (class, milli) in [(Class::BestEffort, 0), (Class::Burstable, burstable)] {
                let limits = Limits { cpu_milli: Some(milli), ..Limits::default() };
                inner.apply(&inner.names(Some(class), None), &limits)?;
            }
            Ok(())
        })
        .await
    }

    /// What the runtime is told to put a pod's containers under; empty without per-QoS cgroups.
    pub fn parent(&self, pod: &Pod) -> String {
        let Some(inner) = &self.0 else { return String::new() };
        let names = inner.names(Some(qos::class(pod)), Some(crate::pod::uid(pod)));
        match inner.driver {
            CgroupDriver::Cgroupfs => format!("/{}", names.join("/")),
            // Runtimes take the slice's name of it, the path's last part.
            CgroupDriver::Systemd => format!("/{}", systemd::path(&names).display()),
        }
    }

    /// Makes a pod's cgroup and sets its limits; an existing one is kept and gets the limits again.
    pub async fn ensure(&self, pod: &Arc<Pod>) -> Result<(), Error> {
        let pod = Arc::clone(pod);
        self.apply(pod, |limits| limits).await
    }

    /// Widens a pod's limits so that there is room for what it has and for what it is to have.
    pub async fn widen(&self, now: &Arc<Pod>, next: &Arc<Pod>) -> Result<(), Error> {
        let Some(inner) = self.0.clone() else { return Ok(()) };
        let next = Limits::of_pod(next, inner.cfs_quota, inner.cfs_period_us);
        self.apply(Arc::clone(now), move |limits| limits.widest(next)).await
    }

    async fn apply(
        &self,
        pod: Arc<Pod>,
        change: impl FnOnce(Limits) -> Limits + Send + 'static,
    ) -> Result<(), Error> {
        let Some(inner) = self.0.clone() else { return Ok(()) };
        blocking(move || {
            let mut limits = change(Limits::of_pod(&pod, inner.cfs_quota, inner.cfs_period_us));
            limits.pids = inner.pids;
            for size in &inner.page_sizes {
                limits.huge_pages.entry(*size).or_insert(0);
            }
            inner.apply(&inner.names(Some(qos::class(&pod)), Some(crate::pod::uid(&pod))), &limits)
        })
        .await
    }

    /// Bytes of memory a pod uses, as far as its cgroup tells.
    pub async fn memory_used(&self, pod: &Arc<Pod>) -> Option<i64> {
        let inner = self.0.clone()?;
        let names = inner.names(Some(qos::class(pod)), Some(crate::pod::uid(pod)));
        tokio::task::spawn_blocking(move || inner.tree.memory_used(&inner.path(&names))).await.ok()?
    }

    /// Removes a pod's cgroup, whatever its class was; fine when it is gone.
    pub async fn remove(&self, uid: &str) -> Result<(), Error> {
        let Some(inner) = self.0.clone() else { return Ok(()) };
        let uid = uid.to_owned();
        blocking(move || {
            for class in [Class::Guaranteed, Class::Burstable, Class::BestEffort] {
                inner.remove(&inner.names(Some(class), Some(&uid)))?;
            }
            Ok(())
        })
        .await
    }

    /// The UIDs of pods that have a cgroup.
    pub async fn pods(&self) -> Vec<String> {
        let Some(inner) = self.0.clone() else { return Vec::new() };
        let found = tokio::task::spawn_blocking(move || {
            let classes = [Class::Guaranteed, Class::Burstable, Class::BestEffort];
            classes.iter().flat_map(|class| inner.list(*class)).collect()
        });
        found.await.unwrap_or_default()
    }
}

/// Reserved amounts as a cgroup's limits.
fn limits_of(amounts: &BTreeMap<String, String>, compressible: bool) -> Limits {
    let quantity = |name: &str| amounts.get(name).map(|text| Quantity(text.clone()));
    let whole =
        |name: &str| quantity(name).map(|amount| crate::quantity::whole(&amount)).filter(|_| !compressible);
    Limits {
        cpu_milli: quantity("cpu").map(|amount| crate::quantity::milli(&amount)),
        memory: whole("memory").filter(|bytes| *bytes > 0),
        pids: whole(PIDS).filter(|count| *count > 0),
        ..Limits::default()
    }
}

/// What a pod and its containers use. Blocking.
#[derive(Clone, Debug, Default)]
pub struct PodUsage {
    /// The pod's own cgroup.
    pub pod: Option<Usage>,
    /// By container id.
    pub containers: BTreeMap<String, Usage>,
    /// A process of the pod: its network is the pod's.
    pub process: Option<u32>,
}

impl Cgroups {
    /// What the machine uses. Blocking.
    pub fn machine_usage(&self) -> Option<Usage> {
        Tree::detect().usage(Path::new(""))
    }

    /// What all pods use. Blocking.
    pub fn pods_usage(&self) -> Option<Usage> {
        let inner = self.0.as_ref()?;
        inner.tree.usage(&inner.path(&inner.names(None, None)))
    }

    /// What a pod uses, and those of its containers. Blocking.
    pub fn pod_usage(&self, pod: &Pod, containers: &[String]) -> PodUsage {
        let Some(inner) = &self.0 else { return PodUsage::default() };
        let path = inner.path(&inner.names(Some(qos::class(pod)), Some(crate::pod::uid(pod))));
        let mut usage = PodUsage { pod: inner.tree.usage(&path), ..PodUsage::default() };
        let children = inner.tree.children(&path);
        for id in containers {
            // Runtimes name a container's cgroup by its id alone, or put it into a scope's name. The shortest is its own: what watches
            // it may have one that is named for it, too, and is not of the pod's network.
            let named = children.iter().filter(|child| child.contains(id.as_str()));
            let Some(own) = named.min_by_key(|child| child.len()).map(|child| path.join(child)) else {
                continue;
            };
            usage.process = usage.process.or_else(|| inner.tree.any_process(&own));
            usage.containers.extend(inner.tree.usage(&own).map(|u| (id.clone(), u)));
        }
        usage.process = usage.process.or_else(|| inner.tree.any_process(&path));
        usage
    }
}

async fn blocking(work: impl FnOnce() -> Result<(), Error> + Send + 'static) -> Result<(), Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Interrupted))
}

impl Inner {
    /// The names from the hierarchy's root down.
    fn names(&self, class: Option<Class>, uid: Option<&str>) -> Vec<String> {
        let mut names = self.root.clone();
        names.push("kubepods".to_owned());
        match class {
            Some(Class::Burstable) => names.push("burstable".to_owned()),
            Some(Class::BestEffort) => names.push("besteffort".to_owned()),
            Some(Class::Guaranteed) | None => {}
        }
        names.extend(uid.map(|uid| format!("pod{uid}")));
        names
    }

    fn path(&self, names: &[String]) -> PathBuf {
        match self.driver {
            CgroupDriver::Cgroupfs => names.iter().collect(),
            CgroupDriver::Systemd => systemd::path(names),
        }
    }

    /// Pods use more than they may have from now on: who evicts them must be able to start.
    fn not_yet(&self, limits: Limits, error: &Error) {
        tracing::warn!(%error, "pods are not limited to what is allocatable yet");
        *self.unmet.lock() = Some(limits);
    }

    fn unified(&self) -> bool {
        matches!(self.tree, Tree::V2(_))
    }

    /// Makes a cgroup that has these limits. Those above it that others removed since they had theirs get them again.
    fn apply(&self, names: &[String], limits: &Limits) -> Result<(), Error> {
        for above in (self.root.len() + 1..names.len()).filter_map(|depth| names.get(..depth)) {
            let path = self.path(above);
            let lost = self.made.lock().get(&path).map(|made| (made.identity.clone(), made.limits.clone()));
            if let Some((identity, limits)) = lost
                && identity != self.tree.identity(&path)
            {
                tracing::warn!(cgroup = %path.display(), "a cgroup of pods was removed, and is made again");
                self.limit(above, &limits)?;
            }
        }
        self.limit(names, limits)
    }

    fn limit(&self, names: &[String], limits: &Limits) -> Result<(), Error> {
        let (mut limits, path) = (limits.clone(), self.path(names));
        if self.driver == CgroupDriver::Systemd {
            limits.cpu_quota = limits.cpu_quota.map(systemd::rounded);
            let identity = self.tree.identity(&path);
            let here = self.made.lock().get(&path).is_some_and(|made| made.identity == identity);
            self.systemd.ensure(names, &limits, self.unified(), here)?;
        }
        self.tree.ensure(&path)?;
        self.tree.apply(&path, &limits)?;
        let identity = self.tree.identity(&path);
        self.made.lock().insert(path, Made { identity, limits });
        Ok(())
    }

    /// The controllers that a cgroup lacks. systemd takes away what it was not asked for, some time after it was told limits: passed on again.
    fn settled(&self, path: &Path) -> Result<Vec<&'static str>, Error> {
        let mut missing = self.tree.missing(path);
        for _ in 0..10 {
            if missing.is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
            self.tree.ensure(path)?;
            missing = self.tree.missing(path);
        }
        Ok(missing)
    }

    fn remove(&self, names: &[String]) -> Result<(), Error> {
        let path = self.path(names);
        self.made.lock().remove(&path);
        if !self.tree.exists(&path) {
            self.systemd.forget(names);
            return Ok(());
        }
        // The directories go whatever systemd says of the unit.
        if self.driver == CgroupDriver::Systemd
            && let Err(error) = self.systemd.stop(names)
        {
            tracing::warn!(%error, "a slice is not stopped; its cgroup goes all the same");
        }
        self.tree.remove(&path)
    }

    fn list(&self, class: Class) -> Vec<String> {
        let parent = self.names(Some(class), None);
        self.tree.children(&self.path(&parent)).into_iter().filter_map(|name| pod_uid(&name)).collect()
    }
}

/// The UID a pod's cgroup is named for.
fn pod_uid(name: &str) -> Option<String> {
    if let Some(slice) = name.strip_suffix(".slice") {
        let uid = slice.rsplit('-').next()?.strip_prefix("pod")?;
        return Some(uid.replace('_', "-"));
    }
    name.strip_prefix("pod").map(str::to_owned)
}

#[cfg(test)]
pub(crate) mod tests;
