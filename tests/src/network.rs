//! The lab's links: bridges in the supervisor's network namespace, which routes between them, one veth pair a node, and no way out.

use crate::layout::{APART_GATEWAY, GATEWAY, PREFIX};
use crate::shell::run;
use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

/// A bridge, and the lab's address on it.
struct Link {
    bridge: &'static str,
    gateway: &'static str,
}

const LINKS: [Link; 2] =
    [Link { bridge: "lab0", gateway: GATEWAY }, Link { bridge: "lab1", gateway: APART_GATEWAY }];

impl Link {
    /// The one a node's address is on.
    fn of(address: &str) -> &'static Self {
        let network = |address: &str| address.rsplit_once('.').map(|(network, _)| network.to_owned());
        LINKS.iter().find(|link| network(link.gateway) == network(address)).unwrap_or(&LINKS[0])
    }
}

/// Makes the bridges in the present network namespace.
///
/// # Errors
/// `ip` fails.
pub fn make_bridges() -> Result<()> {
    run("ip", &["link", "set", "lo", "up"])?;
    for Link { bridge, gateway } in LINKS {
        run("ip", &["link", "add", bridge, "type", "bridge"])?;
        run("ip", &["addr", "add", &format!("{gateway}/{PREFIX}"), "dev", bridge])?;
        run("ip", &["link", "set", bridge, "up"])?;
    }
    // a packet to anywhere else is answered at once: no route
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    // frames between nodes are switched, not filtered: the lab's own netfilter must not see them
    for family in ["iptables", "ip6tables", "arptables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        if std::path::Path::new(&path).exists() {
            std::fs::write(&path, "0")?;
        }
    }
    Ok(())
}

/// Enters the network of process `pid` on this thread: sockets are made in the network of the thread that makes them.
///
/// # Errors
/// The process is gone, or the kernel refuses.
pub fn enter(pid: i32) -> Result<()> {
    let network = std::fs::File::open(format!("/proc/{pid}/ns/net")).context("find the lab's network")?;
    setns(network, CloneFlags::CLONE_NEWNET).context("enter the lab's network")
}

/// Connects the network namespace of process `pid` to the bridge of `address` as `eth0`.
///
/// # Errors
/// `ip` fails.
pub fn attach(node: &str, pid: i32, address: &str) -> Result<()> {
    let (port, link) = (port(node), Link::of(address));
    let pid_text = pid.to_string();
    run("ip", &["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &pid_text])?;
    run("ip", &["link", "set", &port, "master", link.bridge, "up"])?;
    let inside = |args: &[&str]| {
        let mut all = vec!["-t", pid_text.as_str(), "-n", "--", "ip"];
        all.extend_from_slice(args);
        run("nsenter", &all)
    };
    inside(&["link", "set", "lo", "up"])?;
    inside(&["addr", "add", &format!("{address}/{PREFIX}"), "dev", "eth0"])?;
    inside(&["link", "set", "eth0", "up"])?;
    inside(&["route", "add", "default", "via", link.gateway])?;
    Ok(())
}

/// Cuts (`up == false`) or mends the node's link.
///
/// # Errors
/// The node has no link.
pub fn set_link(node: &str, up: bool) -> Result<()> {
    run("ip", &["link", "set", &port(node), if up { "up" } else { "down" }]).map(drop)
}

/// Removes the node's link; the kernel does so too, a moment after the node's last process is gone.
pub fn detach(node: &str) {
    let _ = run("ip", &["link", "del", &port(node)]);
}

fn port(node: &str) -> String {
    format!("v-{node}")
}
