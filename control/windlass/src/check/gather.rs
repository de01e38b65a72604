//! How a machine's facts are found out. Nothing is decided here, and nothing is changed; whatever cannot be read is left out.

use super::facts::{Cgroups, Disk, Facts, Member, Wanted};
use crate::{settings, version};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use node::identity::Files;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest that another program, or a server, is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
const MODULES: [&str; 6] = ["overlay", "br_netfilter", "nf_conntrack", "nf_tables", "nft_chain_nat", "veth"];
const SERVICES: [&str; 3] = ["firewalld.service", "ufw.service", "NetworkManager.service"];
const SYSCTLS: [&str; 2] = ["net.ipv4.ip_forward", "fs.inotify.max_user_instances"];
const CGROUPS: &str = "/sys/fs/cgroup";

pub(super) async fn all(wanted: &Wanted) -> Facts {
    let host_name = node::config::host_name().unwrap_or_default();
    let resolv_conf = node::config::default_resolv_conf();
    Facts {
        kernel: word("/proc/sys/kernel/osrelease"),
        missing_modules: missing_modules().await,
        cgroups: cgroups(),
        systemd: Path::new("/run/systemd/system").is_dir(),
        containerd: said("containerd", &["--version"]).await,
        containerd_config: said("containerd", &["config", "dump"]).await,
        containerd_runs: said("ctr", &["version"]).await.is_some(),
        has_low_level_runtime: installed("runc") || installed("crun"),
        nft: said("nft", &["--version"]).await,
        kubelet_driver: wanted.kubelet_config.as_deref().and_then(kubelet_driver),
        ports_taken: wanted.ports.iter().copied().filter(|port| is_taken(*port)).collect(),
        clock_kept: clock_kept().await,
        server_clock: server_clock(wanted).await,
        now: Timestamp::now(),
        made: version::COMMITTED.and_then(|at| at.parse().ok()),
        members: members(wanted, &host_name).await,
        host_name,
        machine_id: word("/etc/machine-id"),
        memory: memory(),
        disks: disks([&*wanted.data_dir, &*wanted.kubelet_root, Path::new("/var/lib/containerd")]),
        resolvers: resolvers(&text(&resolv_conf)),
        resolv_conf,
        swaps: text("/proc/swaps").lines().skip(1).filter_map(first_word).collect(),
        services: active_services().await,
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
    let said = crate::program::run(program, arguments, PATIENCE).await.ok()?;
    Some(said.trim().to_owned())
}

async fn missing_modules() -> Vec<String> {
    let mut missing = Vec::new();
    for module in MODULES {
        // What is part of the kernel itself is known to modprobe, too.
        let there = Path::new("/sys/module").join(module).is_dir();
        if !there && said("modprobe", &["-n", "-q", module]).await.is_none() {
            missing.push(module.to_owned());
        }
    }
    missing
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

fn kubelet_driver(path: &Path) -> Option<String> {
    let config: serde_json::Value = serde_saphyr::from_str(&text(path)).ok()?;
    config.get("cgroupDriver")?.as_str().map(str::to_owned)
}

fn is_taken(port: u16) -> bool {
    let bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
    bound.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

async fn clock_kept() -> Option<bool> {
    let told = said("timedatectl", &["show", "-p", "NTPSynchronized", "--value"]).await?;
    match told.as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// What the server's clock says, by the date of an answer; whose it is matters to nobody here.
async fn server_clock(wanted: &Wanted) -> Option<Timestamp> {
    let mut config = kube::Config::new(wanted.server.as_ref()?.parse().ok()?);
    config.accept_invalid_certs = true;
    let client = kube::Client::try_from(config).ok()?;
    let request = http::Request::get("/version").body(kube::client::Body::empty()).ok()?;
    let answer = tokio::time::timeout(PATIENCE, client.send(request)).await.ok()?.ok()?;
    let date = answer.headers().get(http::header::DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::parse(date).ok().map(|at| at.timestamp())
}

/// The cluster's nodes as far as this machine may see them: a server all, a node itself.
async fn members(wanted: &Wanted, host_name: &str) -> Vec<Member> {
    let seen = async {
        let admin = settings::admin_kubeconfig(&wanted.data_dir);
        if admin.exists() {
            let nodes: Api<Node> = Api::all(crate::parts::kubeconfig::client(&admin, None).await.ok()?);
            return nodes.list(&ListParams::default()).await.ok().map(|list| list.items);
        }
        let own = Files::new(&wanted.data_dir.join("agent")).kubeconfig();
        let nodes: Api<Node> = Api::all(crate::parts::kubeconfig::client(&own, None).await.ok()?);
        let name = wanted.node_name.as_deref().unwrap_or(host_name);
        nodes.get_opt(name).await.ok()?.map(|node| vec![node])
    };
    let seen = tokio::time::timeout(PATIENCE, seen).await.ok().flatten().unwrap_or_default();
    seen.into_iter().filter_map(member).collect()
}

fn member(node: Node) -> Option<Member> {
    let status = node.status?;
    let conditions = status.conditions.unwrap_or_default();
    Some(Member {
        name: node.metadata.name?,
        machine_id: status.node_info?.machine_id,
        is_ready: conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
    })
}

fn memory() -> u64 {
    let info = text("/proc/meminfo");
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(first_word).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// The filesystems of these directories, each once; of one that is not there yet, that of the nearest above it.
fn disks<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Vec<Disk> {
    let mut found: Vec<Disk> = Vec::new();
    let mut seen = BTreeSet::new();
    for path in paths {
        let Some(there) = path.ancestors().find(|above| above.is_dir()) else { continue };
        let Ok(disk) = nix::sys::statvfs::statvfs(there) else { continue };
        if seen.insert(disk.filesystem_id()) {
            found.push(Disk {
                path: there.to_owned(),
                size: disk.fragment_size() * disk.blocks(),
                available: disk.fragment_size() * disk.blocks_available(),
            });
        }
    }
    found
}

fn resolvers(resolv_conf: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        words.next()?.parse().ok()
    };
    resolv_conf.lines().filter_map(address).collect()
}

async fn active_services() -> BTreeSet<String> {
    let mut active = BTreeSet::new();
    for service in SERVICES {
        if said("systemctl", &["is-active", service]).await.is_some() {
            active.insert(service.to_owned());
        }
    }
    active
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

    #[test]
    fn resolvers_are_read_as_the_resolver_reads_them() {
        let read =
            resolvers("# nameserver 192.0.2.1\nnameserver\t192.0.2.2\nsearch x\nnameserver 2001:db8::1\n");
        assert_eq!(read, ["192.0.2.2".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
    }

    #[test]
    fn a_filesystem_must_not_be_judged_twice() {
        let dir = tempfile::tempdir().unwrap();
        let found = disks([dir.path(), &*dir.path().join("not/there"), dir.path()]);
        assert_eq!(found.len(), 1);
        assert!(found[0].size >= found[0].available);
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_taken() {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_taken(port));
        drop(listener);
        assert!(!is_taken(port));
    }
}
