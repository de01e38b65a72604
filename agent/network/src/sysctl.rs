//! Forwarding, and bridged packets that nftables sees: a Service of one pod to another on the same node is answered
//! on the bridge, past the translation that has to be undone, unless bridged packets go through the rules.

use std::{collections::BTreeSet, fs, io, path::Path, process::Stdio};

use tokio::process::Command;

/// A switch could not be set.
#[derive(Debug, thiserror::Error)]
#[error("set sysctl net/{name} to {value}")]
pub(crate) struct SysctlError {
    name: String,
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
    let mut failures = Vec::new();
    let mut put = |name: String, value: &'static str| {
        if let Err(source) = write(&name, value) {
            failures.push(SysctlError { name, value, source });
        }
    };
    // Before forwarding begins: a link whose `accept_ra` is 1 follows no router any more once the machine is one, and forgets those it
    // followed, the machine's way out among them. Others are left alone: pods must not announce themselves as routers.
    if v6 && read(FORWARD6).is_ok_and(|value| value == "0") {
        let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
        for link in advertised(&routes) {
            let name = format!("ipv6/conf/{link}/accept_ra");
            if read(&name).is_ok_and(|value| value == "1") {
                put(name, "2");
            }
        }
    }
    let forwarding = [(v4, FORWARD4), (v6, FORWARD6)].into_iter().filter(|(wanted, _)| *wanted);
    forwarding.map(|(_, name)| name).chain(BRIDGED).for_each(|name| put(name.to_owned(), "1"));
    failures
}

fn read(name: &str) -> io::Result<String> {
    fs::read_to_string(Path::new("/proc/sys/net").join(name)).map(|text| text.trim().to_owned())
}

fn write(name: &str, value: &str) -> io::Result<()> {
    // Writing where nothing changes would wake whoever watches.
    if read(name)? == value { Ok(()) } else { fs::write(Path::new("/proc/sys/net").join(name), value) }
}

/// What a link to other nodes needs: packets may come by it whose answers go another way (while nodes change theirs), and IPv6.
pub(crate) fn set_overlay(link: &str) -> Vec<SysctlError> {
    // loose, which of two settings counts before strict
    let wanted = [("ipv4", "rp_filter", "2"), ("ipv6", "disable_ipv6", "0"), ("ipv6", "accept_ra", "0")];
    let failed = wanted.into_iter().filter_map(|(family, name, value)| {
        let name = format!("{family}/conf/{link}/{name}");
        match write(&name, value) {
            // a kernel without IPv6
            Err(source) if source.kind() == io::ErrorKind::NotFound => None,
            done => done.err().map(|source| SysctlError { name, value, source }),
        }
    });
    failed.collect()
}

/// The links of the default routes that routers advertised, of the kernel's table `ipv6_route`.
fn advertised(table: &str) -> BTreeSet<&str> {
    /// `RTF_ADDRCONF`: learnt from an advertisement.
    const LEARNT: u32 = 0x0004_0000;
    fn link(line: &str) -> Option<&str> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, length, .., flags, link] = fields.as_slice() else { return None };
        let everywhere = *length == "00" && destination.bytes().all(|digit| digit == b'0');
        let learnt = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & LEARNT != 0);
        (everywhere && learnt).then_some(*link)
    }
    table.lines().filter_map(link).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_links_of_routers_that_announced_themselves_go_on_following_them() {
        let zero = "0".repeat(32);
        let route = |destination: &str, length: &str, flags: &str, link: &str| {
            format!("{destination} {length} {zero} 00 {zero} 00000400 00000001 00000000 {flags} {link}\n")
        };
        let net = "fd770000000000000000000000000000";
        let table = [
            route(&zero, "00", "00450003", "   eth0"),
            route(&zero, "00", "00000003", "   eth1"),
            route(net, "40", "00440001", "   eth2"),
            route(&zero, "00", "00200200", "     lo"),
            "nonsense\n".to_owned(),
        ];
        assert_eq!(advertised(&table.concat()), BTreeSet::from(["eth0"]));
        assert_eq!(advertised(""), BTreeSet::new());
    }
}
