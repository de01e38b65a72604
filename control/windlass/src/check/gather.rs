//! How a machine's facts are found out. Nothing is decided here, and nothing is changed; whatever cannot be read is left out.
//!
//! - `mounts`: filesystems; `listeners`: who has a port; `firewall`: what drops packets; `cluster`: what the cluster says

mod cluster;
mod firewall;
mod listeners;
mod mounts;

use super::facts::{Cgroups, Facts, Packager, Wanted};
use crate::version;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest that a server is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest that another program is waited for, on a machine that is short of processor time, too.
const PROGRAM: Duration = Duration::from_secs(60);
const MODULES: [&str; 6] = ["overlay", "br_netfilter", "nf_conntrack", "nf_tables", "nft_chain_nat", "veth"];
const SYSCTLS: [&str; 2] = ["net.ipv4.ip_forward", "fs.inotify.max_user_instances"];
const CGROUPS: &str = "/sys/fs/cgroup";
const CONTAINERD: &str = "/var/lib/containerd";
/// Where the installer and the package put our sandbox image.
const OWN_IMAGE: [&str; 2] =
    ["/usr/local/lib/windlass/images/pause.tar", "/usr/lib/windlass/images/pause.tar"];

pub(super) async fn all(wanted: &Wanted) -> Facts {
    let host_name = node::config::host_name().unwrap_or_default();
    let kubelet = wanted.kubelet_config.as_deref().map(kubelet_config).unwrap_or_default();
    let resolv_conf = resolv_conf(&kubelet);
    let (missing_modules, forbidden_modules) = modules().await;
    let containerd_runs = said("ctr", &["version"]).await.is_some();
    let directories = [&*wanted.data_dir, &*wanted.kubelet_root, Path::new(CONTAINERD)];
    Facts {
        kernel: word("/proc/sys/kernel/osrelease"),
        missing_modules,
        forbidden_modules,
        packager: packager(),
        grub: Path::new("/etc/default/grub").is_file(),
        cgroups: cgroups(),
        systemd: Path::new("/run/systemd/system").is_dir(),
        containerd: said("containerd", &["--version"]).await,
        containerd_config: said("containerd", &["config", "dump"]).await,
        containerd_files: containerd_files(),
        // Where nobody answers, each question takes its time.
        images: if containerd_runs { images().await } else { None },
        own_image: OWN_IMAGE.iter().map(PathBuf::from).find(|path| path.is_file()),
        containerd_runs,
        has_low_level_runtime: installed("runc") || installed("crun"),
        nft: said("nft", &["--version"]).await,
        kubelet_driver: kubelet.get("cgroupDriver").and_then(|driver| driver.as_str()).map(str::to_owned),
        kubelet_swaps: kubelet.pointer("/memorySwap/swapBehavior").is_some_and(|how| how == "LimitedSwap"),
        ports_taken: listeners::of(&wanted.ports),
        clock_kept: clock_says("NTPSynchronized").await,
        time_service: clock_says("CanNTP").await == Some(true),
        server_clock: cluster::clock(wanted).await,
        now: Timestamp::now(),
        made: version::COMMITTED.and_then(|at| at.parse().ok()),
        members: cluster::members(wanted, &host_name).await,
        host_name,
        machine_id: word("/etc/machine-id"),
        memory: memory(),
        disks: mounts::disks(directories),
        mounts: mounts::of(directories.into_iter().chain([&*wanted.cni_bin_dir])),
        resolvers: resolvers(&resolv_conf.as_ref().map(text).unwrap_or_default()),
        resolv_conf,
        swaps: text("/proc/swaps").lines().skip(1).filter_map(first_word).collect(),
        network_manager: said("systemctl", &["is-active", "NetworkManager.service"]).await.is_some(),
        firewalld: said("firewall-cmd", &["--list-all-zones"]).await,
        ufw: said("ufw", &["status"]).await.filter(|status| status.contains("Status: active")),
        dropping: firewall::dropping().await,
        cni_files: cni_files(&wanted.cni_conf_dir),
        interfaces_unmanaged: is_told_to_leave_interfaces(),
        selinux: word("/sys/fs/selinux/enforce") == "1",
        selinux_policy: Path::new("/usr/share/selinux/packages/container.pp.bz2").exists()
            || Path::new("/var/lib/selinux/targeted/active/modules/200/container").exists(),
        apparmor: word("/sys/module/apparmor/parameters/enabled") == "Y",
        apparmor_parser: installed("apparmor_parser"),
        sysctls: SYSCTLS.iter().map(|name| ((*name).to_owned(), word(sysctl(name)))).collect(),
    }
}

fn text(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn word(path: impl AsRef<Path>) -> String {
    text(path).trim().to_owned()
}

fn first_word(line: &str) -> Option<String> {
    line.split_whitespace().next().map(str::to_owned)
}

fn sysctl(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}

fn installed(program: &str) -> bool {
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&dirs).chain(usual).any(|dir| dir.join(program).is_file())
}

/// What a program prints, where it ends well and in time.
async fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let said = crate::program::run(program, arguments, PROGRAM).await.ok()?;
    Some(said.trim().to_owned())
}

/// Modules that can not be loaded: those that are not there, and those that may not be, with the files that say so.
async fn modules() -> (Vec<String>, Vec<(String, Vec<PathBuf>)>) {
    let (mut missing, mut forbidden) = (Vec::new(), Vec::new());
    for module in MODULES {
        if Path::new("/sys/module").join(module).is_dir() {
            continue;
        }
        // What is part of the kernel itself is known to modprobe, too.
        match said("modprobe", &["-n", "-v", module]).await {
            None => missing.push(module.to_owned()),
            Some(plan) if is_forbidden(&plan) => {
                forbidden.push((module.to_owned(), forbidding(module, &listing("/etc/modprobe.d"))));
            }
            Some(_) => {}
        }
    }
    (missing, forbidden)
}

/// `modprobe -n -v` would run a program that does nothing in the module's place.
fn is_forbidden(plan: &str) -> bool {
    let nothing = |line: &str| {
        line.starts_with("install ")
            && (line.trim_end().ends_with("/false") || line.trim_end().ends_with("/true"))
    };
    plan.lines().any(nothing)
}

/// Files that have a line `install MODULE ...`.
fn forbidding(module: &str, files: &[PathBuf]) -> Vec<PathBuf> {
    let says = |line: &str| {
        let mut words = line.split_whitespace();
        words.next() == Some("install") && words.next() == Some(module)
    };
    files.iter().filter(|file| text(file).lines().any(says)).cloned().collect()
}

fn packager() -> Option<Packager> {
    let all = [("apt-get", Packager::Apt), ("dnf", Packager::Dnf)];
    all.into_iter().find(|(program, _)| installed(program)).map(|(_, packager)| packager)
}

/// The files of a directory, sorted.
fn listing(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = files.map(|file| file.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn containerd_files() -> BTreeMap<PathBuf, String> {
    let all =
        [PathBuf::from("/etc/containerd/config.toml")].into_iter().chain(listing("/etc/containerd/conf.d"));
    let toml = all.filter(|path| path.extension().is_some_and(|end| end == "toml") && path.is_file());
    toml.map(|path| (path.clone(), text(&path))).collect()
}

async fn images() -> Option<BTreeSet<String>> {
    let listed = said("ctr", &["-n", "k8s.io", "images", "ls", "-q"]).await?;
    Some(listed.lines().map(str::to_owned).collect())
}

/// What of a directory containerd takes for CNI configurations.
fn cni_files(dir: &Path) -> BTreeSet<String> {
    let is_one = |path: &PathBuf| {
        path.extension().is_some_and(|end| ["conf", "conflist", "json"].iter().any(|known| end == *known))
    };
    let files = listing(dir).into_iter().filter(is_one);
    files.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
}

fn cgroups() -> Option<Cgroups> {
    let root = Path::new(CGROUPS);
    if let Ok(controllers) = std::fs::read_to_string(root.join("cgroup.controllers")) {
        return Some(Cgroups::Unified(controllers.split_whitespace().map(str::to_owned).collect()));
    }
    // "#subsys_name hierarchy num_cgroups enabled"
    let known = text("/proc/cgroups");
    let enabled = known.lines().filter(|line| !line.starts_with('#') && line.ends_with('1'));
    let controllers: BTreeSet<String> = enabled.filter_map(first_word).collect();
    root.is_dir().then_some(Cgroups::Legacy(controllers)).filter(|_| !known.is_empty())
}

fn kubelet_config(path: &Path) -> serde_json::Value {
    serde_saphyr::from_str(&text(path)).unwrap_or_default()
}

/// The file that the kubelet gives pods; an empty name stands for none.
fn resolv_conf(kubelet: &serde_json::Value) -> Option<PathBuf> {
    // As the node reads it: the default's name is no choice.
    match kubelet.get("resolvConf").and_then(|path| path.as_str()) {
        Some("") => None,
        Some(path) if path != "/etc/resolv.conf" => Some(path.into()),
        _ => Some(node::config::default_resolv_conf()),
    }
}

async fn clock_says(property: &str) -> Option<bool> {
    let told = said("timedatectl", &["show", "-p", property, "--value"]).await?;
    match told.as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

fn memory() -> u64 {
    let info = text("/proc/meminfo");
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(first_word).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024
}

fn resolvers(resolv_conf: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        words.next()?.parse().ok()
    };
    resolv_conf.lines().filter_map(address).collect()
}

/// Whether a file of NetworkManager's names the pods' interfaces among those that it does not manage.
fn is_told_to_leave_interfaces() -> bool {
    ["/etc/NetworkManager/conf.d", "/usr/lib/NetworkManager/conf.d"].iter().any(|dir| {
        let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
        files.map(|file| text(file.path())).any(|conf| {
            conf.lines().any(|line| line.starts_with("unmanaged-devices") && line.contains("cni0"))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn resolvers_are_read_as_the_resolver_reads_them() {
        let read =
            resolvers("# nameserver 192.0.2.1\nnameserver\t192.0.2.2\nsearch x\nnameserver 2001:db8::1\n");
        assert_eq!(read, ["192.0.2.2".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
    }

    #[test]
    fn a_file_of_the_kubelets_own_must_not_be_passed_over() {
        let of = |config: serde_json::Value| resolv_conf(&config);
        assert_eq!(
            of(json!({"resolvConf": "/etc/windlass/resolv.conf"})),
            Some("/etc/windlass/resolv.conf".into())
        );
        assert_eq!(of(json!({"resolvConf": ""})), None);
        let usual = node::config::default_resolv_conf();
        for config in [json!({}), json!({"resolvConf": "/etc/resolv.conf"}), json!(null)] {
            assert_eq!(of(config), Some(usual.clone()));
        }
    }

    #[test]
    fn a_module_that_loads_by_a_command_must_not_be_called_forbidden() {
        for plan in ["install /bin/false", "install /usr/bin/true ", "insmod /lib/a.ko\ninstall /bin/false"] {
            assert!(is_forbidden(plan), "{plan}");
        }
        for plan in
            ["", "insmod /lib/modules/6.1/overlay.ko", "install /sbin/modprobe --ignore-install overlay"]
        {
            assert!(!is_forbidden(plan), "{plan}");
        }
    }

    #[test]
    fn the_file_that_forbids_a_module_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("a.conf", "install overlay /bin/false\n"),
            ("b.conf", "# install overlay /bin/false\ninstall overlayfs /bin/false\n"),
            ("c.conf", "options x\n  install\toverlay\t/bin/true"),
        ] {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let found = forbidding("overlay", &listing(dir.path()));
        assert_eq!(found, ["a.conf", "c.conf"].map(|name| dir.path().join(name)));
    }

    #[test]
    fn what_containerd_does_not_read_is_no_cni_configuration() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["10-a.conflist", "05-b.conf", "20-c.conflist.off", ".10-windlass.new", "d.json"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let found: Vec<String> = cni_files(dir.path()).into_iter().collect();
        assert_eq!(found, ["05-b.conf", "10-a.conflist", "d.json"]);
    }
}
