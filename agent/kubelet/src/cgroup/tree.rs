//! The cgroup file systems: one hierarchy a controller (v1), or one for all (v2).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::limits::Limits;
use crate::pod::spec::resources::{page_size, shares};

/// v1 controllers pods get a cgroup in; a hierarchy may carry several.
const CONTROLLERS: [&str; 9] =
    ["cpu", "cpuacct", "cpuset", "memory", "pids", "hugetlb", "blkio", "freezer", "devices"];
/// v2 controllers that pods' limits are of.
const NEEDED: [&str; 5] = ["cpu", "cpuset", "hugetlb", "memory", "pids"];
/// What the option of a v1 hierarchy without controllers begins with, as systemd's own does.
const NAMED: &str = "name=";
/// The v2 hierarchy of a hybrid machine, among its v1 ones.
const UNIFIED: &str = "unified";
/// Our files are tried this often before a busy cgroup is an error: the kernel empties it asynchronously.
const REMOVE_TRIES: u32 = 10;

/// Where the hierarchies are mounted.
#[derive(Clone, Debug)]
pub enum Tree {
    /// Controller to mount point; and the hierarchies without controllers, in which runtimes put processes too.
    V1(BTreeMap<String, PathBuf>),
    /// The unified mount point.
    V2(PathBuf),
}

impl Tree {
    pub fn detect() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self::from_mountinfo(&mounts)
    }

    fn from_mountinfo(text: &str) -> Self {
        let mut v1: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut v2 = None;
        for line in text.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(mount) = left.split(' ').nth(4) else { continue };
            let mut right = right.split(' ');
            let (kind, options) = (right.next().unwrap_or_default(), right.nth(1).unwrap_or_default());
            match kind {
                "cgroup2" => v2 = Some(PathBuf::from(mount)),
                "cgroup" => {
                    let known =
                        options.split(',').filter(|o| CONTROLLERS.contains(o) || o.starts_with(NAMED));
                    for controller in known {
                        v1.entry(controller.to_owned()).or_insert_with(|| mount.into());
                    }
                }
                _ => {}
            }
        }
        // A hybrid machine has its controllers in v1 and an empty v2 beside them.
        let controlled = v1.keys().any(|name| CONTROLLERS.contains(&name.as_str()));
        match v2 {
            Some(mount) if !controlled => Self::V2(mount),
            _ if !controlled => Self::V2("/sys/fs/cgroup".into()),
            mount => {
                v1.extend(mount.map(|mount| (UNIFIED.to_owned(), mount)));
                Self::V1(v1)
            }
        }
    }

    /// The hierarchies with controllers.
    fn roots(&self) -> Vec<&Path> {
        self.roots_of(|name| CONTROLLERS.contains(&name))
    }

    fn all_roots(&self) -> Vec<&Path> {
        self.roots_of(|_| true)
    }

    fn roots_of(&self, wanted: impl Fn(&str) -> bool) -> Vec<&Path> {
        match self {
            Self::V2(mount) => vec![mount],
            Self::V1(mounts) => {
                let wanted = mounts.iter().filter(|(name, _)| wanted(name));
                let mut roots: Vec<&Path> = wanted.map(|(_, mount)| mount.as_path()).collect();
                roots.sort();
                roots.dedup();
                roots
            }
        }
    }

    /// Any hierarchy has that cgroup.
    pub fn exists(&self, path: &Path) -> bool {
        self.all_roots().iter().any(|root| root.join(path).is_dir())
    }

    /// What tells a cgroup from another one that had its name before, or has it later: none where it is not there.
    pub fn identity(&self, path: &Path) -> Vec<u64> {
        // Of those we make alone: runtimes make the others' when they need them.
        let found = self.roots().into_iter().filter_map(|root| std::fs::metadata(root.join(path)).ok());
        found.map(|directory| directory.ino()).collect()
    }

    /// Makes a cgroup and its parents in every hierarchy.
    pub fn ensure(&self, path: &Path) -> Result<(), Error> {
        for root in self.roots() {
            let mut at = root.to_owned();
            for name in path {
                if let Self::V2(_) = self {
                    enable_controllers(&at);
                }
                let parent = at.clone();
                at.push(name);
                match std::fs::create_dir(&at) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    Err(source) => return Err(Error::Create { path: at, source }),
                }
                // A v1 cpuset without CPUs takes no process.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    inherit(&parent.join(file), &at.join(file))?;
                }
            }
        }
        Ok(())
    }

    /// Controllers that pods need, that the machine has, and that were not passed on to a cgroup: what is written to it would limit nothing.
    /// Upstream: `Validate` of `cgroupV2impl`.
    pub fn missing(&self, path: &Path) -> Vec<&'static str> {
        let mount = match self {
            Self::V2(mount) => mount,
            Self::V1(mounts) => {
                let lacks = |name: &&'static str| mounts.get(*name).is_some_and(|at| !at.join(path).is_dir());
                return NEEDED.into_iter().filter(lacks).collect();
            }
        };
        let read = |at: &Path| std::fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
        let (offered, own) = (read(mount), read(&mount.join(path)));
        let has = |text: &str, name: &str| text.split_whitespace().any(|found| found == name);
        NEEDED.into_iter().filter(|name| has(&offered, name) && !has(&own, name)).collect()
    }

    pub fn apply(&self, path: &Path, limits: &Limits) -> Result<(), Error> {
        for (controller, file, value) in self.files(limits) {
            let root = match self {
                Self::V2(mount) => Some(mount),
                Self::V1(mounts) => mounts.get(controller),
            };
            let Some(file) = root.map(|root| root.join(path).join(&*file)) else { continue };
            // An absent file is a controller this kernel lacks.
            if file.exists() {
                write(&file, &value)?;
            }
        }
        Ok(())
    }

    fn files(&self, limits: &Limits) -> Vec<(&'static str, Cow<'static, str>, String)> {
        let mut files: Vec<(_, &'static str, _)> = Vec::new();
        let unified = matches!(self, Self::V2(_));
        if let Some(milli) = limits.cpu_milli {
            let shares = shares(milli);
            files.push(match unified {
                true => ("cpu", "cpu.weight", weight(shares).to_string()),
                false => ("cpu", "cpu.shares", shares.to_string()),
            });
        }
        if let Some((quota, period)) = limits.cpu_quota {
            if unified {
                files.push(("cpu", "cpu.max", format!("{quota} {period}")));
            } else {
                files.push(("cpu", "cpu.cfs_period_us", period.to_string()));
                files.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
            }
        }
        // One of v1 has its parent's.
        if let Some(cpus) = limits.cpus.as_ref().filter(|_| unified) {
            files.push(("cpuset", "cpuset.cpus", cpus.clone()));
        }
        if let Some(bytes) = limits.memory {
            let file = if unified { "memory.max" } else { "memory.limit_in_bytes" };
            files.push(("memory", file, bytes.to_string()));
        }
        if let Some(pids) = limits.pids {
            files.push(("pids", "pids.max", pids.to_string()));
        }
        // Those in use, and those that are reserved for mappings, which older kernels do not limit.
        let huge_pages = limits.huge_pages.iter().flat_map(|(size, bytes)| {
            let (size, file) = (page_size(*size), if unified { "max" } else { "limit_in_bytes" });
            [format!("hugetlb.{size}.{file}"), format!("hugetlb.{size}.rsvd.{file}")]
                .map(|file| ("hugetlb", file.into(), bytes.to_string()))
        });
        files.into_iter().map(|(of, file, value)| (of, file.into(), value)).chain(huge_pages).collect()
    }

    /// Bytes of memory in use below a cgroup, the page cache included.
    pub fn memory_used(&self, path: &Path) -> Option<i64> {
        let file = match self {
            Self::V2(mount) => mount.join(path).join("memory.current"),
            Self::V1(mounts) => mounts.get("memory")?.join(path).join("memory.usage_in_bytes"),
        };
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// Removes a cgroup and those inside it from every hierarchy; never leaves the given path.
    pub fn remove(&self, path: &Path) -> Result<(), Error> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        for root in self.all_roots() {
            remove_tree(&root.join(path))?;
        }
        Ok(())
    }

    /// The names of the cgroups inside one, over all hierarchies.
    pub fn children(&self, path: &Path) -> Vec<String> {
        let mut names: Vec<String> = self
            .all_roots()
            .iter()
            .filter_map(|root| std::fs::read_dir(root.join(path)).ok())
            .flat_map(|entries| entries.flatten())
            .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Shares of v1 (2..262144) as weight of v2 (1..10000), as upstream's kubelet converts them for pods and their classes. Runtimes convert those of containers, newer
/// ones by another formula.
pub(super) fn weight(shares: i64) -> i64 {
    1 + ((shares.clamp(2, 262_144) - 2) * 9999) / 262_142
}

fn enable_controllers(at: &Path) {
    let Ok(available) = std::fs::read_to_string(at.join("cgroup.controllers")) else { return };
    for controller in available.split_whitespace() {
        // One by one: a controller that cannot be delegated must not keep the others away.
        if let Err(error) = std::fs::write(at.join("cgroup.subtree_control"), format!("+{controller}")) {
            tracing::debug!(%error, controller, at = %at.display(), "controller not delegated");
        }
    }
}

fn inherit(parent: &Path, own: &Path) -> Result<(), Error> {
    let Ok(now) = std::fs::read_to_string(own) else { return Ok(()) };
    if !now.trim().is_empty() {
        return Ok(());
    }
    match std::fs::read_to_string(parent) {
        Ok(value) if !value.trim().is_empty() => write(own, value.trim()),
        _ => Ok(()),
    }
}

fn write(file: &Path, value: &str) -> Result<(), Error> {
    std::fs::write(file, value).map_err(|source| Error::Write {
        path: file.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// Kills what is still inside a cgroup that goes: the runtime knows of nothing there any more, but may have been killed itself between
/// starting a process and noting it (upstream: `tryKillingCgroupProcesses`).
fn kill_inside(path: &Path) {
    // a frozen process dies only once it is thawed
    if path.join("freezer.state").exists() {
        let _ = std::fs::write(path.join("freezer.state"), "THAWED");
    }
    let processes = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0) {
        tracing::info!(pid, cgroup = %path.display(), "killing a process no container owns");
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

fn remove_tree(path: &Path) -> Result<(), Error> {
    let Ok(entries) = std::fs::read_dir(path) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    let mut tries = 0;
    loop {
        match std::fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ResourceBusy && tries < REMOVE_TRIES => {
                tries += 1;
                kill_inside(path);
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Err(source) => return Err(Error::Remove { path: path.to_owned(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
25 20 0:22 / /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory
26 20 0:23 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct
27 20 0:24 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw
";

    #[test]
    fn a_hybrid_machine_is_v1() {
        let Tree::V1(mounts) = Tree::from_mountinfo(HYBRID) else { panic!("want v1") };
        assert_eq!(mounts["cpu"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(mounts["memory"], Path::new("/sys/fs/cgroup/memory"));
        assert!(matches!(Tree::from_mountinfo(HYBRID.lines().last().unwrap()), Tree::V2(_)));
    }

    #[test]
    fn a_pods_cgroup_must_not_stay_in_a_hierarchy_without_controllers() {
        let dir = tempfile::tempdir().unwrap();
        let line = |name: &str, kind: &str, options: &str| {
            let mount = dir.path().join(name);
            std::fs::create_dir_all(&mount).unwrap();
            format!("25 20 0:22 / {} rw shared:1 - {kind} cgroup rw,{options}\n", mount.display())
        };
        let text = line("memory", "cgroup", "memory")
            + &line("systemd", "cgroup", "xattr,name=systemd")
            + &line("unified", "cgroup2", "nsdelegate");
        let tree = Tree::from_mountinfo(&text);
        let path = Path::new("kubepods/podx");
        for name in ["memory", "systemd", "unified"] {
            // as the runtime makes them for a container
            std::fs::create_dir_all(dir.path().join(name).join(path).join("container")).unwrap();
        }
        std::fs::remove_dir_all(dir.path().join("memory/kubepods")).unwrap();
        assert_eq!(tree.children(Path::new("kubepods")), ["podx"]);
        tree.remove(path).unwrap();
        for name in ["memory", "systemd", "unified"] {
            assert!(!dir.path().join(name).join(path).exists(), "{name}");
        }
        // limits are for controllers: nothing is made where there are none
        tree.ensure(path).unwrap();
        assert!(dir.path().join("memory").join(path).exists());
        assert!(!dir.path().join("unified").join(path).exists());
    }

    #[test]
    fn a_named_hierarchy_alone_makes_no_v1_machine() {
        let text = "25 20 0:22 / /sys/fs/cgroup/systemd rw shared:1 - cgroup cgroup rw,name=systemd\n";
        let both = format!("{text}27 20 0:24 / /sys/fs/cgroup rw shared:1 - cgroup2 cgroup2 rw\n");
        let Tree::V2(mount) = Tree::from_mountinfo(&both) else { panic!("want v2") };
        assert_eq!(mount, Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn a_cgroup_without_controllers_must_not_be_taken_for_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let put = |cgroup: &str, text: &str| {
            let path = dir.path().join(cgroup);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("cgroup.controllers"), text).unwrap();
        };
        let tree = Tree::V2(dir.path().to_owned());
        put("", "cpuset cpu io memory pids misc\n");
        put("kubepods", "cpu memory\n");
        assert_eq!(tree.missing(Path::new("kubepods")), ["cpuset", "pids"]);
        put("kubepods", "cpuset cpu memory pids\n");
        assert!(tree.missing(Path::new("kubepods")).is_empty());
        assert!(Tree::V1(BTreeMap::new()).missing(Path::new("kubepods")).is_empty());
    }

    #[test]
    fn limits_are_written_as_each_version_spells_them() {
        let limits = Limits {
            cpu_milli: Some(1000),
            cpu_quota: Some((50_000, 100_000)),
            cpus: Some("0-3".to_owned()),
            memory: Some(1 << 20),
            pids: Some(5),
            huge_pages: BTreeMap::from([(2 << 20, 7)]),
        };
        let dir = tempfile::tempdir().unwrap();
        for (tree, want) in [
            (
                Tree::V2(dir.path().into()),
                vec![
                    ("cpu.weight", "39"),
                    ("cpu.max", "50000 100000"),
                    ("cpuset.cpus", "0-3"),
                    ("memory.max", "1048576"),
                    ("hugetlb.2MB.rsvd.max", "7"),
                ],
            ),
            (
                Tree::V1(CONTROLLERS.iter().map(|c| ((*c).to_owned(), dir.path().to_owned())).collect()),
                vec![
                    ("cpu.shares", "1024"),
                    ("cpu.cfs_quota_us", "50000"),
                    ("pids.max", "5"),
                    ("hugetlb.2MB.limit_in_bytes", "7"),
                ],
            ),
        ] {
            let path = Path::new("kubepods/podx");
            tree.ensure(path).unwrap();
            for (file, value) in want {
                std::fs::write(dir.path().join(path).join(file), "").unwrap();
                tree.apply(path, &limits).unwrap();
                assert_eq!(
                    std::fs::read_to_string(dir.path().join(path).join(file)).unwrap(),
                    value,
                    "{file}"
                );
            }
            assert_eq!(tree.children(Path::new("kubepods")), ["podx"]);
        }
    }
}
