//! Forwarding, and bridged packets that nftables sees: a Service of one pod to another on the same node is answered
//! on the bridge, past the translation that has to be undone, unless bridged packets go through the rules.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

/// A switch could not be set.
#[derive(Debug, thiserror::Error)]
#[error("set sysctl net/{name} to 1")]
pub(crate) struct SysctlError {
    name: &'static str,
    source: io::Error,
}

/// A switch of a link could not be set.
#[derive(Debug, thiserror::Error)]
#[error("set {} to {value}", path.display())]
pub(crate) struct OverlayError {
    path: PathBuf,
    value: &'static str,
    source: io::Error,
}

const FORWARD4: &str = "ipv4/ip_forward";
const FORWARD6: &str = "ipv6/conf/all/forwarding";
const BRIDGED: [&str; 2] = ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"];

/// Has the kernel load the module that shows bridged packets to nftables, if it is a module and not loaded yet.
/// Whether that worked is seen when the switches are set.
pub(crate) async fn load_bridge_filter() {
    if Path::new("/proc/sys/net/bridge").exists() {
        return;
    }
    let mut modprobe = Command::new("modprobe");
    let quiet = modprobe.arg("br_netfilter").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = quiet.kill_on_drop(true).status().await {
        tracing::debug!(%error, "modprobe not run");
    }
}

/// Sets what pods of these families need, in the calling thread's namespace. Every switch is tried.
pub(crate) fn set(v4: bool, v6: bool) -> Vec<SysctlError> {
    let forwarding = [(v4, FORWARD4), (v6, FORWARD6)].into_iter().filter(|(wanted, _)| *wanted);
    let names = forwarding.map(|(_, name)| name).chain(BRIDGED);
    names.filter_map(|name| turn_on(name).err().map(|source| SysctlError { name, source })).collect()
}

/// What a link to other nodes needs: packets may come by it whose answers go another way (while nodes change theirs), and IPv6.
pub(crate) fn set_overlay(link: &str) -> Vec<OverlayError> {
    // loose, which of two settings counts before strict
    let wanted = [("ipv4", "rp_filter", "2"), ("ipv6", "disable_ipv6", "0"), ("ipv6", "accept_ra", "0")];
    let failed = wanted.into_iter().filter_map(|(family, name, value)| {
        let path = Path::new("/proc/sys/net").join(family).join("conf").join(link).join(name);
        match fs::write(&path, value) {
            // a kernel without IPv6
            Err(source) if source.kind() == io::ErrorKind::NotFound => None,
            done => done.err().map(|source| OverlayError { path, value, source }),
        }
    });
    failed.collect()
}

fn turn_on(name: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys/net").join(name);
    // Writing where nothing changes would wake whoever watches.
    if fs::read_to_string(&path)?.trim() == "1" { Ok(()) } else { fs::write(&path, "1") }
}
