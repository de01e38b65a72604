//! What an `emptyDir`, and what is written for a pod, is kept on: a disk, memory, or huge pages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use nix::mount::MsFlags;

use super::{Error, io, mount_table};
use crate::cgroup::limits::Limits;
use crate::pod::spec::resources::page_bytes;
use crate::quantity::whole;

/// Where a volume's content is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// The kubelet's root directory.
    Disk,
    /// At most so many bytes of memory; `None`: as many as the kernel lets a tmpfs have.
    Memory(Option<i64>),
    /// Huge pages of so many bytes each.
    HugePages(i64),
}

impl Medium {
    /// What an `emptyDir` asks for.
    pub fn of(
        source: &EmptyDirVolumeSource,
        pod: &Pod,
        offered: &BTreeMap<String, Quantity>,
    ) -> Result<Self, Error> {
        match source.medium.as_deref().unwrap_or_default() {
            "" => Ok(Self::Disk),
            "Memory" => Ok(Self::memory(source.size_limit.as_ref(), pod, offered)),
            medium if medium == HUGE || page_of(medium).is_some() => pages(medium, pod).map(Self::HugePages),
            other => Err(Error::Medium(format!("unknown storage medium \"{other}\""))),
        }
    }

    /// Memory: no more than the node offers pods, the pod may have, and the volume itself. Upstream:
    /// `calculateEmptyDirMemorySize`.
    pub fn memory(own: Option<&Quantity>, pod: &Pod, offered: &BTreeMap<String, Quantity>) -> Self {
        let all =
            [offered.get("memory").map(whole), Limits::of_pod(pod, false, 100_000).memory, own.map(whole)];
        Self::Memory(all.into_iter().flatten().filter(|bytes| *bytes > 0).min())
    }

    /// Makes a volume's directory. Anybody may write there, as upstream has it; in memory nobody may remove what is another's.
    /// What is there already is left as it is.
    pub fn prepare(self, path: &Path) -> Result<(), Error> {
        use std::os::unix::fs::PermissionsExt;
        if path.is_dir() && (self == Self::Disk || mount_table::is_mount_point(path)) {
            return Ok(());
        }
        std::fs::create_dir_all(path).map_err(io("create volume directory", path))?;
        let mode = match self {
            Self::Disk => 0o777,
            Self::Memory(size) => {
                let size = size.map(|size| format!(",size={size}")).unwrap_or_default();
                let options = format!("mode=1777{size}");
                // A kernel before 6.4 does not know how to keep a tmpfs out of swap.
                mount("tmpfs", path, &format!("{options},noswap"))
                    .or_else(|_| mount("tmpfs", path, &options))?;
                0o1777
            }
            Self::HugePages(size) => {
                mount("hugetlbfs", path, &format!("pagesize={size}"))?;
                0o777
            }
        };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io("set mode of", path))
    }
}

fn mount(kind: &'static str, path: &Path, options: &str) -> Result<(), Error> {
    let mounted = nix::mount::mount(Some(kind), path, Some(kind), MsFlags::empty(), Some(options));
    mounted.map_err(|error| io("mount a filesystem in memory on", path)(error.into()))
}

/// The medium that takes the only size of pages its pod asks for.
const HUGE: &str = "HugePages";

/// The bytes of a page, by `HugePages-2Mi`.
fn page_of(medium: &str) -> Option<i64> {
    let size = medium.strip_prefix(HUGE)?.strip_prefix('-')?;
    page_bytes(&format!("hugepages-{size}"))
}

/// The bytes of the pages a medium means, which its pod must ask for. Upstream: `getPageSizeMountOption`.
fn pages(medium: &str, pod: &Pod) -> Result<i64, Error> {
    let own = pod.spec.as_ref().and_then(|s| s.resources.as_ref());
    let lists = crate::pod::containers(pod).filter_map(|(_, c)| c.resources.as_ref()).chain(own);
    let names =
        lists.filter_map(|resources| resources.requests.as_ref()).flat_map(|requests| requests.keys());
    let asked: BTreeSet<i64> = names.filter_map(|name| page_bytes(name)).collect();
    match page_of(medium) {
        Some(size) if asked.contains(&size) => return Ok(size),
        None if asked.len() > 1 => {
            let why = "can't be used if container requests multiple huge page sizes";
            return Err(Error::Medium(format!("medium: {medium} {why}")));
        }
        None => {
            if let Some(size) = asked.first() {
                return Ok(*size);
            }
        }
        Some(_) => {}
    }
    Err(Error::Medium(format!(
        "medium {medium}: hugePages storage requested, but there is no resource request for huge pages"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn of(source: Value, resources: Value) -> Result<Medium, String> {
        let pod = json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
        let offered = BTreeMap::from([("memory".to_owned(), Quantity("1Gi".to_owned()))]);
        let (source, pod) = (serde_json::from_value(source).unwrap(), serde_json::from_value(pod).unwrap());
        Medium::of(&source, &pod, &offered).map_err(|error| error.to_string())
    }

    #[test]
    fn anybody_may_write_into_a_volumes_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        Medium::Disk.prepare(&path).unwrap();
        assert_eq!(mode(&path), 0o777);
        // what a container did to it stays
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        Medium::Disk.prepare(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_tmpfs_must_not_lose_the_sticky_bit() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: a mount needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        Medium::Memory(Some(1 << 20)).prepare(&path).unwrap();
        let found = mode(&path);
        nix::mount::umount(&path).unwrap();
        assert_eq!(found, 0o1777);
    }

    #[test]
    fn a_volume_in_memory_must_not_be_larger_than_its_pod_or_node() {
        let memory =
            |size: Value, resources: Value| of(json!({"medium": "Memory", "sizeLimit": size}), resources);
        let limited = json!({"limits": {"memory": "64Mi"}});
        assert_eq!(memory(Value::Null, json!({})), Ok(Medium::Memory(Some(1 << 30))));
        assert_eq!(memory(Value::Null, limited.clone()), Ok(Medium::Memory(Some(64 << 20))));
        assert_eq!(memory(json!("1Mi"), limited.clone()), Ok(Medium::Memory(Some(1 << 20))));
        assert_eq!(memory(json!("128Mi"), limited), Ok(Medium::Memory(Some(64 << 20))));
        assert_eq!(memory(json!("0"), json!({})), Ok(Medium::Memory(Some(1 << 30))), "zero is no limit");
    }

    #[test]
    fn a_volume_of_huge_pages_must_not_be_a_directory_on_disk() {
        let asks = |sizes: &[&str]| {
            let amounts: BTreeMap<String, &str> =
                sizes.iter().map(|size| (format!("hugepages-{size}"), "4Mi")).collect();
            json!({"requests": amounts})
        };
        let medium = |name: &str, sizes: &[&str]| of(json!({"medium": name}), asks(sizes));
        assert_eq!(medium("HugePages", &["2Mi"]), Ok(Medium::HugePages(2 << 20)));
        assert_eq!(medium("HugePages-1Gi", &["2Mi", "1Gi"]), Ok(Medium::HugePages(1 << 30)));
        for (name, sizes, why) in [
            (
                "HugePages",
                &["2Mi", "1Gi"][..],
                "medium: HugePages can't be used if container requests multiple huge page sizes",
            ),
            (
                "HugePages-2Mi",
                &["1Gi"],
                "medium HugePages-2Mi: hugePages storage requested, but there is no resource request for huge pages",
            ),
            ("Disk", &[], "unknown storage medium \"Disk\""),
        ] {
            assert_eq!(medium(name, sizes).unwrap_err(), why);
        }
    }
}
