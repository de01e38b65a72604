//! What the facts of a machine mean: findings and their remedies. Pure.

use super::facts::{Cgroups, Disk, Facts, Wanted};
use serde::Serialize;
use std::collections::BTreeMap;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Nothing was found.
    Ok,
    /// Works, but not as well or not for long.
    Warning,
    /// Keeps the machine from working.
    Error,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) found: String,
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok() -> Self {
        Self { level: Level::Ok, found: String::new(), remedy: None }
    }
}

fn error(found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { level: Level::Error, found: found.into(), remedy: Some(remedy.into()) }
}

fn warning(found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, ..error(found, remedy) }
}

type Judge = fn(&Facts, &Wanted) -> Vec<Finding>;

/// Every look by its name.
pub(super) const LOOKS: [(&str, Judge); 20] = [
    ("kernel", kernel),
    ("modules", modules),
    ("cgroups", cgroups),
    ("containerd", containerd),
    ("cgroup-driver", cgroup_driver),
    ("nftables", nftables),
    ("ports", ports),
    ("clock", clock),
    ("hostname", host_name),
    ("machine-id", machine_id),
    ("memory", memory),
    ("disk", disk),
    ("dns", dns),
    ("swap", swap),
    ("firewall", firewall),
    ("networkmanager", network_manager),
    ("selinux", selinux),
    ("apparmor", apparmor),
    ("forwarding", forwarding),
    ("inotify", inotify),
];

const OLDEST_KERNEL: (u32, u32) = (5, 13);
const OLDEST_CONTAINERD: (u32, u32) = (1, 6);
const OLDEST_NFT: (u32, u32) = (1, 0);
const MIB: u64 = 1 << 20;
/// Seconds two clocks may differ: certificates are valid from a few minutes before they are made.
const CLOCK_SKEW: i64 = 60;

/// The first `MAJOR.MINOR` of a text, such as `6.1.0-44-amd64` or `nftables v1.0.6 (...)`.
fn version(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let (major, rest) = word.trim_start_matches('v').split_once('.')?;
        let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

fn kernel(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    match version(&facts.kernel) {
        Some(found) if found >= OLDEST_KERNEL => Vec::new(),
        _ => vec![error(
            format!("Linux {:?} is older than 5.13", facts.kernel),
            "install a newer kernel of your distribution and reboot",
        )],
    }
}

fn modules(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    let remedy = |module: &str| {
        format!(
            "modprobe {module}; where that fails, install the package of all modules of this kernel (linux-image-..., kernel-modules)"
        )
    };
    let found =
        |module: &String| error(format!("the kernel module {module} cannot be loaded"), remedy(module));
    facts.missing_modules.iter().map(found).collect()
}

fn cgroups(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    const BOOT: &str = "boot with the kernel's parameter";
    let lacking = |present: &std::collections::BTreeSet<String>, how: &str| -> Vec<Finding> {
        let lacks = ["cpu", "cpuset", "memory", "pids"].into_iter().filter(|c| !present.contains(*c));
        lacks
            .map(|c| error(format!("the cgroup controller {c} is not there"), format!("{BOOT} {how}{c}")))
            .collect()
    };
    match &facts.cgroups {
        None => vec![error("no cgroups are mounted", "mount cgroup2 on /sys/fs/cgroup, as systemd does")],
        Some(Cgroups::Unified(present)) => lacking(present, "cgroup_enable="),
        Some(Cgroups::Legacy(present)) => {
            let mut found = lacking(present, "cgroup_enable=");
            found.push(warning(
                "cgroups are of version 1",
                format!("{BOOT} systemd.unified_cgroup_hierarchy=1"),
            ));
            found
        }
    }
}

fn containerd(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    if wanted.is_other_runtime {
        return Vec::new();
    }
    let Some(text) = &facts.containerd else {
        return vec![error(
            "containerd is not installed",
            "apt-get install containerd, or dnf install containerd",
        )];
    };
    let mut found = Vec::new();
    // "containerd github.com/containerd/containerd 1.6.20~ds1 ..."
    let words: Vec<&str> = text.split_whitespace().skip(2).collect();
    if version(&words.join(" ")).is_none_or(|version| version < OLDEST_CONTAINERD) {
        found.push(error(format!("{text:?} is older than 1.6"), "install containerd 1.6 or newer"));
    }
    if !facts.has_low_level_runtime {
        found.push(error("neither runc nor crun is installed", "apt-get install runc, or dnf install runc"));
    }
    if !facts.containerd_runs {
        found.push(error(
            "containerd does not answer on /run/containerd/containerd.sock",
            "systemctl enable --now containerd; journalctl -u containerd says why it does not start",
        ));
    }
    let disables = |line: &str| {
        line.trim_start().starts_with("disabled_plugins")
            && ["\"cri\"", "io.containerd.grpc.v1.cri\""].iter().any(|name| line.contains(name))
    };
    match &facts.containerd_config {
        None => found.push(error(
            "containerd cannot read its configuration",
            "see what `containerd config dump` says, and mend /etc/containerd/config.toml",
        )),
        Some(config) if config.lines().any(disables) => found.push(error(
            "containerd's CRI plugin is disabled",
            "take \"cri\" out of disabled_plugins in /etc/containerd/config.toml, and restart containerd",
        )),
        Some(_) => {}
    }
    found
}

/// containerd's cgroup driver for runc, as its configuration says it.
fn runtime_driver(config: &str) -> &'static str {
    let mut inside = false;
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.contains("runtimes.runc.options") || line.contains("runtimes.\"runc\".options");
        } else if inside && line.starts_with("SystemdCgroup") && line.ends_with("true") {
            return "systemd";
        }
    }
    "cgroupfs"
}

fn cgroup_driver(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    if wanted.is_other_runtime {
        return Vec::new();
    }
    let Some(config) = &facts.containerd_config else { return Vec::new() };
    let (runtime, kubelet) = (runtime_driver(config), facts.kubelet_driver.as_deref().unwrap_or("cgroupfs"));
    let mut found = Vec::new();
    if runtime != kubelet {
        let remedy = format!(
            "set SystemdCgroup = {} for runc in containerd's configuration, or cgroupDriver: {runtime} in the file that `kubelet-config` names",
            kubelet == "systemd"
        );
        found
            .push(error(format!("containerd's cgroup driver is {runtime}, the kubelet's {kubelet}"), remedy));
    }
    let unified = matches!(facts.cgroups, Some(Cgroups::Unified(_)));
    if facts.systemd && unified && runtime == kubelet && runtime == "cgroupfs" {
        found.push(warning(
            "systemd and cgroupfs both manage cgroups",
            "run install.sh again, which sets the driver systemd for both",
        ));
    }
    found
}

fn nftables(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    const REMEDY: &str = "apt-get install nftables, or dnf install nftables";
    match &facts.nft {
        None => vec![error("nft is not installed", REMEDY)],
        Some(text) if version(text).is_none_or(|version| version < OLDEST_NFT) => {
            vec![error(format!("{text:?} is older than 1.0"), REMEDY)]
        }
        Some(_) => Vec::new(),
    }
}

fn ports(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    if wanted.is_running {
        return Vec::new();
    }
    let taken = |port: &u16| {
        error(
            format!("port {port} is taken"),
            format!("ss -ltnp 'sport = :{port}' says by whom; stop that (another Kubernetes, perhaps)"),
        )
    };
    facts.ports_taken.iter().map(taken).collect()
}

fn clock(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    const REMEDY: &str =
        "set the clock and keep it: apt-get install systemd-timesyncd (or chrony), timedatectl set-ntp true";
    if let Some(made) = facts.made.filter(|made| facts.now < *made) {
        return vec![error(
            format!("the clock says {}, before this program was made ({made})", facts.now),
            REMEDY,
        )];
    }
    if let Some(server) = facts.server_clock {
        let apart = facts.now.as_second() - server.as_second();
        if apart.abs() > CLOCK_SKEW {
            let how = if apart > 0 { "ahead of" } else { "behind" };
            return vec![error(format!("the clock is {} s {how} the server's", apart.abs()), REMEDY)];
        }
    }
    match facts.clock_kept {
        Some(false) => vec![warning("no time service keeps the clock", REMEDY)],
        _ => Vec::new(),
    }
}

fn host_name(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    let name = wanted.node_name.as_ref().unwrap_or(&facts.host_name);
    let remedy = "hostnamectl set-hostname NAME, or node-name: NAME in /etc/windlass/config.yaml";
    if let Err(why) = node::config::check_node_name(name) {
        return vec![error(why, remedy)];
    }
    if name == "localhost" || name.starts_with("localhost.") {
        return vec![error(format!("the machine is called {name}, as others will be"), remedy)];
    }
    let other =
        facts.members.iter().find(|member| member.name == *name && member.machine_id != facts.machine_id);
    match other {
        Some(other) if other.is_ready => {
            vec![error(format!("another machine that is up is the cluster's node {name}"), remedy)]
        }
        Some(_) => vec![warning(
            format!(
                "the cluster has a node {name} of another machine, which is down; this one takes its place"
            ),
            format!("none if this machine was installed anew; else give it another name: {remedy}"),
        )],
        None => Vec::new(),
    }
}

fn machine_id(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    const REMEDY: &str = "rm /etc/machine-id /var/lib/dbus/machine-id; systemd-machine-id-setup; reboot";
    let valid = facts.machine_id.len() == 32 && facts.machine_id.bytes().all(|b| b.is_ascii_hexdigit());
    if !valid {
        return vec![error(format!("/etc/machine-id holds no id: {:?}", facts.machine_id), REMEDY)];
    }
    let mut of_id: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for member in &facts.members {
        of_id.entry(&member.machine_id).or_default().push(&member.name);
    }
    let several = of_id.into_iter().filter(|(_, names)| names.len() > 1);
    several
        .map(|(id, names)| {
            let found = format!("nodes {} have one machine id ({id}), as clones have", names.join(", "));
            warning(found, format!("on all but one of them: {REMEDY}"))
        })
        .collect()
}

fn memory(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    let (least, comfortable) = if wanted.is_server { (384, 1024) } else { (192, 512) };
    let (have, remedy) = (facts.memory / MIB, format!("give the machine {comfortable} MiB or more"));
    match have {
        have if have < least => vec![error(format!("{have} MiB of memory; {least} is the least"), remedy)],
        have if have < comfortable * 9 / 10 => vec![warning(format!("{have} MiB of memory"), remedy)],
        _ => Vec::new(),
    }
}

fn disk(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    let judged = |Disk { path, size, available }: &Disk| {
        let (path, free) = (path.display(), available / MIB);
        let remedy = format!("free space below {path}, or give it a larger filesystem");
        if free < 1024 {
            Some(error(format!("{free} MiB are free at {path}"), remedy))
        } else if available.saturating_mul(100) < size.saturating_mul(15) {
            // Pods are evicted below 10 % (node) and 15 % (images).
            Some(warning(format!("less than 15 % is free at {path}, where pods are evicted"), remedy))
        } else {
            None
        }
    };
    facts.disks.iter().filter_map(judged).collect()
}

fn dns(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    let file = facts.resolv_conf.display();
    if facts.resolvers.is_empty() {
        let remedy = "name a resolver there that this machine's pods reach";
        return vec![warning(
            format!("{file} names no resolver: pods resolve the cluster's names only"),
            remedy,
        )];
    }
    let loops = facts.resolvers.iter().filter(|ip| ip.is_loopback() || wanted.cluster_dns.contains(ip));
    loops
        .map(|ip| {
            error(
                format!("{file} names {ip}: questions of pods would come back to the cluster's DNS"),
                "name the network's resolver there, or a file that does by resolvConf in the file that `kubelet-config` names",
            )
        })
        .collect()
}

fn swap(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    if facts.swaps.is_empty() {
        return Vec::new();
    }
    let found =
        format!("memory is swapped to {}: limits and evictions are less exact", facts.swaps.join(", "));
    vec![warning(found, "swapoff -a, and take swap out of /etc/fstab (systemd: systemctl mask swap.target)")]
}

fn firewall(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    let ports: Vec<String> = wanted.ports.iter().map(|port| format!("{port}/tcp")).collect();
    let has = |service: &str| facts.services.contains(service);
    let mut found = Vec::new();
    if has("firewalld.service") {
        let open: Vec<String> = ports.iter().map(|port| format!("--add-port={port}")).collect();
        found.push(warning(
            "firewalld is active: it may drop what pods and nodes say to each other",
            format!(
                "firewall-cmd --permanent --zone=trusted --add-interface=cni0 --add-source=POD-RANGE; firewall-cmd --permanent {}; firewall-cmd --reload",
                open.join(" ")
            ),
        ));
    }
    if has("ufw.service") {
        let open: Vec<String> = ports.iter().map(|port| format!("ufw allow {port}")).collect();
        found.push(warning(
            "ufw is active: it may drop what pods and nodes say to each other",
            format!(
                "ufw allow in on cni0; ufw route allow in on cni0; ufw route allow out on cni0; {}",
                open.join("; ")
            ),
        ));
    }
    found
}

fn network_manager(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    if !facts.services.contains("NetworkManager.service") || facts.interfaces_unmanaged {
        return Vec::new();
    }
    vec![warning(
        "NetworkManager may take over the pods' interfaces",
        "write `[keyfile]` and `unmanaged-devices=interface-name:cni0;interface-name:veth*` to /etc/NetworkManager/conf.d/windlass.conf; systemctl reload NetworkManager",
    )]
}

fn selinux(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    if facts.selinux && !facts.selinux_policy {
        return vec![error(
            "SELinux is enforcing and has no policy for containers",
            "dnf install container-selinux, and enable_selinux = true in containerd's CRI configuration",
        )];
    }
    let labels = |config: &String| config.lines().any(|line| line.trim() == "enable_selinux = true");
    if facts.selinux && !facts.containerd_config.as_ref().is_some_and(labels) {
        return vec![warning(
            "SELinux is enforcing, but containerd labels no containers",
            "enable_selinux = true in containerd's CRI configuration, and restart containerd",
        )];
    }
    Vec::new()
}

fn apparmor(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    if !facts.apparmor || facts.apparmor_parser {
        return Vec::new();
    }
    vec![warning(
        "AppArmor is on, but apparmor_parser is not installed: containers run without a profile",
        "apt-get install apparmor, and restart containerd",
    )]
}

fn forwarding(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    // A node that runs turns it on itself; what stands here before matters only where something turns it off again.
    let off = facts.sysctls.get("net.ipv4.ip_forward").is_some_and(|value| value == "0");
    if !off {
        return Vec::new();
    }
    let remedy = "sysctl -w net.ipv4.ip_forward=1, and keep it in /etc/sysctl.d (install.sh does)";
    let found = "packets are not forwarded (net.ipv4.ip_forward = 0)";
    vec![if wanted.is_running { error(found, remedy) } else { warning(found, remedy) }]
}

fn inotify(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    const LEAST: u64 = 512;
    let value = facts.sysctls.get("fs.inotify.max_user_instances").and_then(|text| text.parse::<u64>().ok());
    match value {
        Some(value) if value < LEAST => vec![warning(
            format!("fs.inotify.max_user_instances is {value}: pods run out of them"),
            "sysctl -w fs.inotify.max_user_instances=8192, and keep it in /etc/sysctl.d (install.sh does)",
        )],
        _ => Vec::new(),
    }
}
