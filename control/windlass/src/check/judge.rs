//! What the facts of a machine mean: findings and their remedies. Pure.
//!
//! - `machine`: kernel, memory, disk, clock, names; `runtime`: containerd and what it runs by; `network`: ports, DNS, what drops packets

mod machine;
mod network;
mod runtime;

use super::facts::{Facts, Packager, Wanted};
use serde::Serialize;
use std::path::Path;

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
    /// Its name, such as `swap-on`, which stays; `None` where nothing was found.
    pub(super) id: Option<&'static str>,
    pub(super) level: Level,
    pub(super) found: String,
    pub(super) remedy: Option<String>,
    /// What does it, in this order: each a line for a root shell of this machine, with nothing left to fill in. Empty where that takes a choice.
    pub(super) commands: Vec<String>,
}

impl Finding {
    pub(super) fn ok() -> Self {
        Self { id: None, level: Level::Ok, found: String::new(), remedy: None, commands: Vec::new() }
    }

    /// The lines that do what the remedy says.
    fn by<C: Into<String>>(mut self, commands: impl IntoIterator<Item = C>) -> Self {
        self.commands.extend(commands.into_iter().map(Into::into));
        self
    }
}

fn error(id: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    let (found, remedy) = (found.into(), Some(remedy.into()));
    Finding { id: Some(id), level: Level::Error, found, remedy, commands: Vec::new() }
}

fn warning(id: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, ..error(id, found, remedy) }
}

type Judge = fn(&Facts, &Wanted) -> Vec<Finding>;

/// Every look by its name.
pub(super) const LOOKS: [(&str, Judge); 23] = [
    ("kernel", machine::kernel),
    ("modules", machine::modules),
    ("cgroups", machine::cgroups),
    ("containerd", runtime::containerd),
    ("cgroup-driver", runtime::cgroup_driver),
    ("sandbox-image", runtime::sandbox_image),
    ("nftables", runtime::nftables),
    ("ports", network::ports),
    ("clock", machine::clock),
    ("hostname", machine::host_name),
    ("machine-id", machine::machine_id),
    ("memory", machine::memory),
    ("disk", machine::disk),
    ("mounts", machine::mounts),
    ("dns", network::dns),
    ("swap", machine::swap),
    ("firewall", network::firewall),
    ("networkmanager", network::network_manager),
    ("cni", network::cni),
    ("selinux", runtime::selinux),
    ("apparmor", runtime::apparmor),
    ("forwarding", network::forwarding),
    ("inotify", machine::inotify),
];

/// The first `MAJOR.MINOR` of a text, such as `6.1.0-44-amd64` or `nftables v1.0.6 (...)`.
fn version(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let (major, rest) = word.trim_start_matches('v').split_once('.')?;
        let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

/// What installs a package, which distributions call alike.
fn install(facts: &Facts, package: &str) -> Option<String> {
    Some(match facts.packager? {
        Packager::Apt => format!("apt-get install -y {package}"),
        Packager::Dnf => format!("dnf install -y {package}"),
    })
}

/// What restarts a service, where systemd does.
fn restart(facts: &Facts, service: &str) -> Option<String> {
    facts.systemd.then(|| format!("systemctl restart {service}"))
}

/// What sets a key of the kubelet's configuration, in a new file where there is none.
fn kubelet_setting(wanted: &Wanted, key: &str, value: &str) -> Vec<String> {
    let line = format!("{key}: {value}");
    match wanted.kubelet_config.as_deref().map(Path::display) {
        Some(path) => vec![format!("sed -i -e '$a {line}' -e '/^{key}:/d' {path}")],
        None => vec![
            format!(
                "mkdir -p /etc/windlass; printf '%s\\n' 'apiVersion: kubelet.config.k8s.io/v1beta1' 'kind: KubeletConfiguration' '{line}' >/etc/windlass/kubelet.yaml"
            ),
            "echo 'kubelet-config: /etc/windlass/kubelet.yaml' >>/etc/windlass/config.yaml".to_owned(),
        ],
    }
}
