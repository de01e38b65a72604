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
use crate::node::resources::Resources;
use crate::pod::qos::{self, Class};

pub(crate) mod limits;
pub(crate) mod pressure;
mod process;
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
    #[error("Failed to enforce {title} Reserved Cgroup Limits on {cgroup:?}: {reason}")]
    Reserved {
        /// `Kube` or `System`.
        title: &'static str,
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
    /// Limits of all pods together that could not be set yet.
    unmet: Mutex<Option<Limits>>,
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
            unmet: Mutex::default(),
        })))
    }

    /// Makes the classes' cgroups, bounded to `limit`.
    pub async fn prepare(&self, limit: &Resources) -> Result<(), Error> {
        let Some(inner) = self.0.clone() else { return Ok(()) };
        let of = |name: &str| limit.get(name);
        let cpu = of("cpu").map_or(0, crate::quantity::milli);
        let memory = of("memory").map_or(0, crate::quantity::whole);
        blocking(move || {
            let all = Limits { cpu_milli: Some(cpu), memory: Some(memory), ..Limits::default() };
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

    /// Whether the cgroup of all pods has its limits: there is one, and it took them.
    pub(crate) fn is_limited(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.unmet.lock().is_none())
    }

    /// Limits a cgroup of others to what is reserved for it; it must be there.
    pub(crate) async fn limit_reserved(
        &self,
        reserved: &Reserved,
        amounts: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let Some(inner) = self.0.clone() else { return Ok(()) };
        let Reserved { title, cgroup, compressible } = reserved.clone();
        let limits = limits_of(amounts, compressible);
        let failed = move |reason| Error::Reserved { title, cgroup: cgroup.clone(), reason };
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

    /// Gives the class of burstable pods its share of the processors, in thousandths of a core. What could not be set before is tried again.
    pub async fn share(&self, burstable: i64) -> Result<(), Error> {
        let Some(inner) = self.0.clone() else { return Ok(()) };
        blocking(move || {
            let unmet = inner.unmet.lock().take();
            if let Some(limits) = unmet
                && let Err(error) = inner.apply(&inner.names(None, None), &limits)
            {
                inner.not_yet(limits, &error);
            }
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
        pids: whole("pid").filter(|count| *count > 0),
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

    fn apply(&self, names: &[String], limits: &Limits) -> Result<(), Error> {
        let (mut limits, path) = (limits.clone(), self.path(names));
        if self.driver == CgroupDriver::Systemd {
            limits.cpu_quota = limits.cpu_quota.map(systemd::rounded);
            self.systemd.ensure(names, &limits, self.unified(), self.tree.exists(&path))?;
        }
        self.tree.ensure(&path)?;
        self.tree.apply(&path, &limits)
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
        if !self.tree.exists(&path) {
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
mod tests {
    use super::systemd::fake::{self, Jobs};
    use super::*;
    use serde_json::json;

    fn cgroups(dir: &Path) -> Cgroups {
        Cgroups(Some(Arc::new(Inner {
            tree: Tree::V2(dir.to_owned()),
            driver: CgroupDriver::Cgroupfs,
            systemd: Systemd::new(&dir.join("no-bus")),
            root: Vec::new(),
            cfs_quota: true,
            cfs_period_us: 100_000,
            pids: None,
            page_sizes: vec![2 << 20, 1 << 30],
            unmet: Mutex::default(),
        })))
    }

    fn file(dir: &Path, cgroup: &str, name: &str) -> PathBuf {
        let path = dir.join(cgroup);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join(name), "").unwrap();
        path.join(name)
    }

    #[tokio::test]
    async fn burstable_pods_must_not_share_what_a_pod_without_requests_gets() {
        let dir = tempfile::tempdir().unwrap();
        let of = |class: &str| file(dir.path(), &format!("kubepods/{class}"), "cpu.weight");
        let (burstable, best_effort) = (of("burstable"), of("besteffort"));
        cgroups(dir.path()).share(1000).await.unwrap();
        let weight = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!((weight(&burstable).as_str(), weight(&best_effort).as_str()), ("39", "1"));
    }

    #[tokio::test]
    async fn pods_that_use_too_much_must_not_keep_the_kubelet_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let limit = dir.path().join("kubepods/memory.max");
        // Writing to it fails, as the kernel has it where more is in use.
        std::fs::create_dir_all(&limit).unwrap();
        let limited = cgroups(dir.path());
        let allocatable = Resources::from([("memory".to_owned(), Quantity("1Gi".to_owned()))]);
        limited.prepare(&allocatable).await.unwrap();
        std::fs::remove_dir(&limit).unwrap();
        std::fs::write(&limit, "max").unwrap();
        limited.share(0).await.unwrap();
        assert_eq!(std::fs::read_to_string(&limit).unwrap(), "1073741824");
        std::fs::write(&limit, "max").unwrap();
        limited.share(0).await.unwrap();
        assert_eq!(std::fs::read_to_string(&limit).unwrap(), "max", "what is set is not set again");
    }

    #[tokio::test]
    async fn what_is_reserved_is_a_limit_of_the_cgroup_it_is_reserved_for() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str| file(dir.path(), "system.slice", name);
        let (memory, pids, cpu) = (of("memory.max"), of("pids.max"), of("cpu.weight"));
        let amounts = [("cpu", "1"), ("memory", "1Gi"), ("pid", "100")];
        let amounts = amounts.map(|(name, amount)| (name.to_owned(), amount.to_owned())).into();
        let reserved = |cgroup: &str, compressible| Reserved {
            title: "System",
            cgroup: cgroup.to_owned(),
            compressible,
        };
        let limited = cgroups(dir.path());
        let text = |path: &Path| std::fs::read_to_string(path).unwrap();
        limited.limit_reserved(&reserved("/system.slice", true), &amounts).await.unwrap();
        assert_eq!((text(&memory).as_str(), text(&pids).as_str(), text(&cpu).as_str()), ("", "", "39"));
        limited.limit_reserved(&reserved("/system.slice", false), &amounts).await.unwrap();
        assert_eq!((text(&memory).as_str(), text(&pids).as_str()), ("1073741824", "100"));
        let error =
            limited.limit_reserved(&reserved("/none", false), &amounts).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "Failed to enforce System Reserved Cgroup Limits on \"/none\": /none cgroup does not exist"
        );
    }

    fn by_systemd(dir: &Path, bus: &Path) -> Cgroups {
        Cgroups(Some(Arc::new(Inner {
            tree: Tree::V2(dir.to_owned()),
            driver: CgroupDriver::Systemd,
            systemd: Systemd::new(bus),
            root: Vec::new(),
            cfs_quota: true,
            cfs_period_us: 100_000,
            pids: None,
            page_sizes: Vec::new(),
            unmet: Mutex::default(),
        })))
    }

    #[test]
    fn what_watches_a_container_must_not_be_counted_as_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"containers": []}})).unwrap();
        for (child, bytes, pid) in [("crio-f1", "500", "7"), ("crio-conmon-f1", "3", "5")] {
            let cgroup = format!("kubepods/besteffort/podu/{child}");
            for (name, text) in [
                ("memory.current", bytes),
                ("memory.stat", "anon 1\n"),
                ("cpu.stat", "usage_usec 1\n"),
                ("cgroup.procs", pid),
            ] {
                std::fs::write(file(dir.path(), &cgroup, name), text).unwrap();
            }
        }
        let used = cgroups(dir.path()).pod_usage(&pod, &["f1".to_owned()]);
        assert_eq!(used.containers["f1"].memory, 500);
        assert_eq!(used.process, Some(7));
    }

    #[tokio::test]
    async fn pods_are_slices_whose_files_say_what_their_units_do() {
        let bus = fake::systemd(Jobs::Exists);
        let dir = tempfile::tempdir().unwrap();
        let pod = json!({"metadata": {"uid": "1-2"}, "spec": {"containers": [{"name": "c",
            "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "123m"}}}]}});
        let pod: Arc<Pod> = Arc::new(serde_json::from_value(pod).unwrap());
        let slice = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice";
        let quota = file(dir.path(), slice, "cpu.max");
        let limited = by_systemd(dir.path(), bus.path());
        assert_eq!(limited.parent(&pod), format!("/{slice}"));
        limited.ensure(&pod).await.unwrap();
        assert_eq!(std::fs::read_to_string(quota).unwrap(), "13000 100000");
        assert_eq!(bus.calls("SetUnitProperties").len(), 1);
        assert_eq!(limited.pods().await, ["1-2"]);
    }

    #[tokio::test]
    async fn a_reserved_slice_must_not_be_limited_behind_systemds_back() {
        let bus = fake::systemd(Jobs::Succeed);
        let dir = tempfile::tempdir().unwrap();
        let memory = file(dir.path(), "a.slice/a-b.slice", "memory.max");
        let amounts = BTreeMap::from([("memory".to_owned(), "1Gi".to_owned())]);
        let reserved = Reserved { title: "Kube", cgroup: "/a-b.slice".to_owned(), compressible: false };
        by_systemd(dir.path(), bus.path()).limit_reserved(&reserved, &amounts).await.unwrap();
        assert_eq!(std::fs::read_to_string(memory).unwrap(), "1073741824");
        assert_eq!(bus.members(), ["Hello", "SetUnitProperties"]);
    }

    #[tokio::test]
    async fn a_pod_must_not_have_huge_pages_it_did_not_ask_for() {
        let dir = tempfile::tempdir().unwrap();
        let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "c",
            "resources": {"requests": {"hugepages-2Mi": "4Mi", "cpu": "1"}, "limits": {"hugepages-2Mi": "4Mi"}}}]}});
        let of = |size: &str| file(dir.path(), "kubepods/burstable/podu", &format!("hugetlb.{size}.max"));
        let (small, large) = (of("2MB"), of("1GB"));
        cgroups(dir.path()).ensure(&Arc::new(serde_json::from_value(pod).unwrap())).await.unwrap();
        let limit = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!((limit(&small).as_str(), limit(&large).as_str()), ("4194304", "0"));
    }
}
