//! The machine itself: kernel, cgroups, clock, names, memory and disk.

use super::{Finding, error, install, version, warning};
use crate::check::facts::{Cgroups, Disk, Facts, Packager, Wanted};
use std::collections::{BTreeMap, BTreeSet};

const OLDEST_KERNEL: (u32, u32) = (5, 13);
const MIB: u64 = 1 << 20;
/// Seconds two clocks may differ: certificates are valid from a few minutes before they are made.
const CLOCK_SKEW: i64 = 60;

pub(super) fn kernel(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    match version(&facts.kernel) {
        Some(found) if found >= OLDEST_KERNEL => Vec::new(),
        _ => vec![error(
            "kernel-old",
            format!("Linux {:?} is older than 5.13", facts.kernel),
            "install a newer kernel of your distribution and reboot",
        )],
    }
}

pub(super) fn modules(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    let package = match facts.packager {
        Some(Packager::Apt) => install(facts, "linux-image-$(dpkg --print-architecture)"),
        Some(Packager::Dnf) => install(facts, "kernel-modules-$(uname -r)"),
        None => None,
    };
    let missing = |module: &String| {
        error(
            "module-missing",
            format!("the kernel has no module {module}"),
            "install the package of all modules of this kernel, and reboot where that brings another kernel",
        )
        .by(package.clone())
    };
    let forbidden = |(module, files): &(String, Vec<std::path::PathBuf>)| {
        let load = format!("modprobe {module}");
        let edit = |file: &std::path::PathBuf| {
            format!(
                "sed -i '/^[[:space:]]*install[[:space:]][[:space:]]*{module}[[:space:]]/d' {}",
                file.display()
            )
        };
        error(
            "module-forbidden",
            format!("the kernel module {module} is not loaded, and modprobe's settings forbid it"),
            "take its line `install` out of those settings, and load it",
        )
        .by(files.iter().map(edit).chain([load]))
    };
    let found = facts.missing_modules.iter().map(missing);
    found.chain(facts.forbidden_modules.iter().map(forbidden)).collect()
}

pub(super) fn cgroups(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    let boot = |finding: Finding, parameter: &str| match facts.packager {
        Some(Packager::Apt) if facts.grub => finding.by([
            format!("sed -i 's/^GRUB_CMDLINE_LINUX=\"/&{parameter} /' /etc/default/grub"),
            "update-grub".to_owned(),
            "reboot".to_owned(),
        ]),
        Some(Packager::Dnf) if facts.grub => {
            finding.by([format!("grubby --update-kernel=ALL --args={parameter}"), "reboot".to_owned()])
        }
        _ => finding,
    };
    let lacking = |present: &BTreeSet<String>| -> Vec<Finding> {
        let lacks = ["cpu", "cpuset", "memory", "pids"].into_iter().filter(|c| !present.contains(*c));
        let found = |controller: &str| {
            let parameter = format!("cgroup_enable={controller}");
            let remedy = format!(
                "boot without cgroup_disable={controller}, or with the kernel's parameter {parameter}"
            );
            let found = format!("the cgroup controller {controller} is not there");
            boot(error("cgroup-controller-absent", found, remedy), &parameter)
        };
        lacks.map(found).collect()
    };
    match &facts.cgroups {
        None => vec![
            error(
                "cgroups-absent",
                "no cgroups are mounted",
                "mount cgroup2 on /sys/fs/cgroup, as systemd does",
            )
            .by(["mount -t cgroup2 cgroup2 /sys/fs/cgroup"]),
        ],
        Some(Cgroups::Unified(present)) => lacking(present),
        Some(Cgroups::Legacy(present)) => {
            let mut found = lacking(present);
            let parameter = "systemd.unified_cgroup_hierarchy=1";
            let remedy = format!("boot with the kernel's parameter {parameter}");
            found.push(boot(warning("cgroups-v1", "cgroups are of version 1", remedy), parameter));
            found
        }
    }
}

/// What has a time service keep the clock.
fn keep_clock(facts: &Facts) -> Vec<String> {
    let installed = match facts.packager {
        _ if !facts.systemd => return Vec::new(),
        _ if facts.time_service => None,
        Some(Packager::Apt) => install(facts, "systemd-timesyncd"),
        Some(Packager::Dnf) => install(facts, "chrony"),
        None => return Vec::new(),
    };
    installed.into_iter().chain(["timedatectl set-ntp true".to_owned()]).collect()
}

pub(super) fn clock(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    const REMEDY: &str = "set it, and have a time service keep it";
    let apart = facts.server_clock.map(|server| facts.now.as_second() - server.as_second());
    let apart = apart.filter(|apart| apart.abs() > CLOCK_SKEW);
    // Relative: seconds pass until it is run.
    let set = apart.map(|apart| {
        let sign = if apart > 0 { '-' } else { '+' };
        format!("date -s 'now {sign} {} seconds'", apart.abs())
    });
    if let Some(apart) = apart {
        let how = if apart > 0 { "ahead of" } else { "behind" };
        let found = format!("the clock is {} s {how} the server's", apart.abs());
        return vec![error("clock-apart", found, format!("{REMEDY}, here and on the server")).by(set)];
    }
    if let Some(made) = facts.made.filter(|made| facts.now < *made) {
        let found = format!("the clock says {}, before this program was made ({made})", facts.now);
        return vec![error("clock-past", found, REMEDY).by(keep_clock(facts))];
    }
    match facts.clock_kept {
        Some(false) => vec![
            warning(
                "clock-unkept",
                "no time service keeps the clock",
                "have one keep it, that reaches its servers",
            )
            .by(keep_clock(facts)),
        ],
        _ => Vec::new(),
    }
}

fn has_id(facts: &Facts) -> bool {
    facts.machine_id.len() == 32 && facts.machine_id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A name like `name` that a node may have, and that another machine will hardly have where `unique`.
fn node_name(name: &str, unique: bool, facts: &Facts) -> String {
    let plain = |label: &str| {
        let known = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        label.chars().map(known).collect::<String>().trim_matches('-').to_owned()
    };
    let labels: Vec<String> = name.split('.').map(plain).filter(|label| !label.is_empty()).collect();
    let mut name = labels.join(".");
    if name.is_empty() {
        "node".clone_into(&mut name);
    }
    if unique || labels.is_empty() {
        name = format!("{name}-{}", facts.machine_id.chars().take(6).collect::<String>().to_lowercase());
    }
    name
}

pub(super) fn host_name(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    let name = wanted.node_name.as_ref().unwrap_or(&facts.host_name);
    let remedy = "give the machine another name, or its node one by node-name in /etc/windlass/config.yaml";
    let rename = |finding: Finding, to: String| match (&wanted.node_name, facts.systemd) {
        (None, true) => finding.by([format!("hostnamectl set-hostname {to}")]),
        (None, false) => finding.by([format!("hostname {to}; echo {to} >/etc/hostname")]),
        // What set the name, a flag or the file, is the operator's to change.
        (Some(_), _) => finding,
    };
    if let Err(why) = node::config::check_node_name(name) {
        return vec![rename(error("hostname-invalid", why, remedy), node_name(name, false, facts))];
    }
    if name == "localhost" || name.starts_with("localhost.") {
        let found = format!("the machine is called {name}, as others will be");
        return vec![rename(error("hostname-common", found, remedy), node_name("node", true, facts))];
    }
    // Without an id nobody can say whose node it is.
    let others = facts.members.iter().filter(|_| has_id(facts));
    let mut others = others.filter(|member| member.name == *name && member.machine_id != facts.machine_id);
    match others.next() {
        Some(other) if other.is_ready => {
            let found = format!("another machine that is up is the cluster's node {name}");
            vec![rename(error("hostname-taken", found, remedy), node_name(name, true, facts))]
        }
        Some(_) => vec![warning(
            "hostname-inherited",
            format!(
                "the cluster has a node {name} of another machine, which is down; this one takes its place"
            ),
            format!("none if this machine was installed anew; else {remedy}"),
        )],
        None => Vec::new(),
    }
}

pub(super) fn machine_id(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    const REMEDY: &str = "have a new one made, and reboot";
    let anew = ["rm -f /etc/machine-id /var/lib/dbus/machine-id", "systemd-machine-id-setup"];
    let anew = anew.into_iter().filter(|_| facts.systemd);
    if !has_id(facts) {
        let found = format!("/etc/machine-id holds no id: {:?}", facts.machine_id);
        return vec![error("machine-id-invalid", found, REMEDY).by(anew)];
    }
    let mut of_id: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for member in &facts.members {
        of_id.entry(&member.machine_id).or_default().push(&member.name);
    }
    let several = of_id.into_iter().filter(|(_, names)| names.len() > 1);
    let shared = |(id, names): (&str, Vec<&str>)| {
        let found = format!("nodes {} have one machine id ({id}), as clones have", names.join(", "));
        // The lines are for the clones, of which this machine may be none.
        let here = anew.clone().filter(|_| id == facts.machine_id);
        warning("machine-id-shared", found, format!("on all but one of them {REMEDY}")).by(here)
    };
    several.map(shared).collect()
}

pub(super) fn memory(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    let (least, comfortable) = if wanted.is_server { (384, 1024) } else { (192, 512) };
    let (have, remedy) = (facts.memory / MIB, format!("give the machine {comfortable} MiB or more"));
    match have {
        have if have < least => {
            vec![error("memory-short", format!("{have} MiB of memory; {least} is the least"), remedy)]
        }
        have if have < comfortable * 9 / 10 => {
            vec![warning("memory-tight", format!("{have} MiB of memory"), remedy)]
        }
        _ => Vec::new(),
    }
}

pub(super) fn disk(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    let clean = match facts.packager {
        Some(Packager::Apt) => Some("apt-get clean"),
        Some(Packager::Dnf) => Some("dnf clean all"),
        None => None,
    };
    let journal = facts.systemd.then_some("journalctl --vacuum-size=100M");
    let judged = |Disk { path, size, available }: &Disk| {
        let (path, free) = (path.display(), available / MIB);
        let remedy = format!(
            "free space below {path}: packages' and journals' first, else what `du -xh -d 3 {path} | sort -h` ends with; or give it a larger filesystem"
        );
        let found = if free < 1024 {
            error("disk-full", format!("{free} MiB are free at {path}"), remedy)
        } else if available.saturating_mul(100) < size.saturating_mul(15) {
            // Pods are evicted below 10 % (node) and 15 % (images).
            warning(
                "disk-filling",
                format!("less than 15 % is free at {path}, where pods are evicted"),
                remedy,
            )
        } else {
            return None;
        };
        Some(found.by(clean.into_iter().chain(journal)))
    };
    facts.disks.iter().filter_map(judged).collect()
}

pub(super) fn mounts(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut judged = BTreeSet::new();
    for mount in &facts.mounts {
        let (directory, at) = (mount.directory.display(), mount.at.display());
        if mount.read_only && judged.insert(("rw", &mount.at)) {
            let what = format!("{directory} cannot be written to: {at} is mounted read-only");
            let remedy = "mount it writable, and see in `dmesg` and /etc/fstab why it is not";
            found.push(error("mount-read-only", what, remedy).by([format!("mount -o remount,rw {at}")]));
        }
        // Programs of containers, and plugins that the runtime runs.
        let runs = mount.directory.ends_with("containerd") || mount.directory == wanted.cni_bin_dir;
        if runs && mount.noexec && judged.insert(("exec", &mount.at)) {
            let what = format!("no program below {directory} can be run: {at} is mounted noexec");
            let remedy = "mount it without noexec, and take that out of /etc/fstab";
            found.push(error("mount-noexec", what, remedy).by([format!("mount -o remount,exec {at}")]));
        }
    }
    found
}

pub(super) fn swap(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    if facts.swaps.is_empty() || facts.kubelet_swaps {
        return Vec::new();
    }
    let found =
        format!("memory is swapped to {}: limits and evictions are less exact", facts.swaps.join(", "));
    let remedy = "end it and take it out of /etc/fstab (zram: out of systemd's generators); or have the kubelet bound it, by memorySwap.swapBehavior: LimitedSwap in its configuration";
    vec![
        warning("swap-on", found, remedy)
            .by(["swapoff -a", "sed -i '/^[^#].*[[:space:]]swap[[:space:]]/s/^/#/' /etc/fstab"]),
    ]
}

pub(super) fn inotify(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    const LEAST: u64 = 512;
    let value = facts.sysctls.get("fs.inotify.max_user_instances").and_then(|text| text.parse::<u64>().ok());
    match value {
        Some(value) if value < LEAST => vec![
            warning(
                "inotify-short",
                format!("fs.inotify.max_user_instances is {value}: pods run out of them"),
                "raise it, and keep that in /etc/sysctl.d (install.sh does)",
            )
            .by(["sysctl -w fs.inotify.max_user_instances=8192"]),
        ],
        _ => Vec::new(),
    }
}
