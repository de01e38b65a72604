//! Cgroups in a directory of the tests' own.

use super::systemd::fake::{self, Jobs};
use super::*;
use crate::dbus::wire::Value;
use serde_json::json;

/// Cgroups of version 2 in a directory.
pub(crate) fn cgroups(dir: &Path) -> Cgroups {
    Cgroups(Some(Arc::new(Inner {
        tree: Tree::V2(dir.to_owned()),
        driver: CgroupDriver::Cgroupfs,
        systemd: Systemd::new(&dir.join("no-bus")),
        root: Vec::new(),
        cfs_quota: true,
        cfs_period_us: 100_000,
        pids: None,
        page_sizes: vec![2 << 20, 1 << 30],
        cpus: None,
        unmet: Mutex::default(),
        made: Mutex::default(),
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
    assert!(limited.enforce().await.is_err(), "they use too much still");
    std::fs::remove_dir(&limit).unwrap();
    std::fs::write(&limit, "max").unwrap();
    assert!(limited.enforce().await.unwrap());
    assert_eq!(std::fs::read_to_string(&limit).unwrap(), "1073741824");
    std::fs::write(&limit, "max").unwrap();
    assert!(limited.enforce().await.unwrap());
    assert_eq!(std::fs::read_to_string(&limit).unwrap(), "max", "what is set is not set again");
}

#[tokio::test]
async fn what_is_reserved_is_a_limit_of_the_cgroup_it_is_reserved_for() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str| file(dir.path(), "system.slice", name);
    let (memory, pids, cpu) = (of("memory.max"), of("pids.max"), of("cpu.weight"));
    let amounts = [("cpu", "1"), ("memory", "1Gi"), ("pid", "100")];
    let amounts = amounts.map(|(name, amount)| (name.to_owned(), amount.to_owned())).into();
    let reserved =
        |cgroup: &str, compressible| Reserved { title: "System", cgroup: cgroup.to_owned(), compressible };
    let limited = cgroups(dir.path());
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    limited.limit_reserved(&reserved("/system.slice", true), &amounts).await.unwrap();
    assert_eq!((text(&memory).as_str(), text(&pids).as_str(), text(&cpu).as_str()), ("", "", "39"));
    limited.limit_reserved(&reserved("/system.slice", false), &amounts).await.unwrap();
    assert_eq!((text(&memory).as_str(), text(&pids).as_str()), ("1073741824", "100"));
    let error = limited.limit_reserved(&reserved("/none", false), &amounts).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "Failed to enforce System Reserved Cgroup Limits on \"/none\": /none cgroup does not exist"
    );
    let error = limited.limit_reserved(&reserved("/none", true), &amounts).await.unwrap_err().to_string();
    assert!(error.starts_with("Failed to enforce System Reserved Compressible Cgroup Limits"), "{error}");
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
        cpus: Some("0-1".to_owned()),
        unmet: Mutex::default(),
        made: Mutex::default(),
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
    assert_eq!(bus.members(), ["Hello", "Get", "SetUnitProperties"]);
    let told = fake::set(&bus.calls("SetUnitProperties").remove(0));
    assert_eq!(told[0], ("AllowedCPUs".to_owned(), Value::Array("y".to_owned(), vec![Value::Byte(3)])));
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

/// Puts another directory, with these empty files, into a cgroup's place.
fn remake(dir: &Path, cgroup: &str, files: &[&str]) {
    let (own, next) = (dir.join(cgroup), dir.join("next"));
    std::fs::create_dir(&next).unwrap();
    for file in files {
        std::fs::write(next.join(file), "").unwrap();
    }
    std::fs::remove_dir_all(&own).unwrap();
    std::fs::rename(&next, &own).unwrap();
}

#[tokio::test]
async fn a_cgroup_that_was_removed_and_made_again_must_not_be_without_limits() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["memory.max", "cpu.weight"] {
        file(dir.path(), "kubepods", name);
    }
    let limited = cgroups(dir.path());
    let allocatable = Resources::from([("memory".to_owned(), Quantity("1Gi".to_owned()))]);
    limited.prepare(&allocatable).await.unwrap();
    let limit = || std::fs::read_to_string(dir.path().join("kubepods/memory.max")).unwrap();
    assert_eq!(limit(), "1073741824");
    limited.share(0).await.unwrap();
    std::fs::write(dir.path().join("kubepods/memory.max"), "max").unwrap();
    limited.share(0).await.unwrap();
    assert_eq!(limit(), "max", "one that stayed is let be");
    remake(dir.path(), "kubepods", &["memory.max"]);
    limited.share(0).await.unwrap();
    assert_eq!(limit(), "1073741824");
    assert!(dir.path().join("kubepods/burstable").is_dir());
}

#[tokio::test]
async fn systemd_must_not_be_left_without_the_limits_of_a_slice_that_was_made_again() {
    let bus = fake::systemd(Jobs::Exists);
    let dir = tempfile::tempdir().unwrap();
    let limited = by_systemd(dir.path(), bus.path());
    let pod = json!({"metadata": {"uid": "1-2"}, "spec": {"containers": [{"name": "c",
        "resources": {"requests": {"cpu": "1"}}}]}});
    let pod: Arc<Pod> = Arc::new(serde_json::from_value(pod).unwrap());
    let told = || bus.calls("SetUnitProperties").len();
    limited.ensure(&pod).await.unwrap();
    limited.ensure(&pod).await.unwrap();
    assert_eq!(told(), 1);
    remake(dir.path(), "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice", &[]);
    limited.ensure(&pod).await.unwrap();
    assert_eq!(told(), 2);
    // One that went away by itself is not remembered either.
    std::fs::remove_dir_all(dir.path().join("kubepods.slice")).unwrap();
    limited.remove("1-2").await.unwrap();
    let inner = limited.0.as_ref().unwrap();
    assert!(inner.made.lock().is_empty() && inner.systemd.told_nothing());
}

#[tokio::test]
async fn pods_together_must_not_have_the_process_ids_that_are_reserved() {
    let dir = tempfile::tempdir().unwrap();
    let pids = file(dir.path(), "kubepods", "pids.max");
    let limit = Resources::from([("pid".to_owned(), Quantity("3500".to_owned()))]);
    cgroups(dir.path()).prepare(&limit).await.unwrap();
    assert_eq!(std::fs::read_to_string(pids).unwrap(), "3500");
}

#[tokio::test]
async fn pods_have_all_processors_by_the_unit_and_by_the_file() {
    let bus = fake::systemd(Jobs::Exists);
    let dir = tempfile::tempdir().unwrap();
    let cpus = file(dir.path(), "kubepods.slice", "cpuset.cpus");
    by_systemd(dir.path(), bus.path()).prepare(&Resources::new()).await.unwrap();
    let told = fake::set(&bus.calls("SetUnitProperties").remove(0));
    assert!(told.contains(&("AllowedCPUs".to_owned(), Value::Array("y".to_owned(), vec![Value::Byte(3)]))));
    assert_eq!(std::fs::read_to_string(cpus).unwrap(), "0-1");
}
