//! The lab's links: bridges in the supervisor's network namespace, which routes between them, one veth pair a node, and no way out.

use crate::layout::{APART_GATEWAYS, Family, is_apart};
use crate::shell::run;
use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

const BRIDGE: &str = "lab0";
/// That of nodes behind the lab's router.
const APART_BRIDGE: &str = "lab1";

/// Makes the bridges in the present network namespace.
///
/// # Errors
/// `ip` fails.
pub fn make_bridges(family: Family) -> Result<()> {
    run("ip", &["link", "set", "lo", "up"])?;
    for (bridge, gateways) in [(BRIDGE, family.gateways()), (APART_BRIDGE, APART_GATEWAYS)] {
        run("ip", &["link", "add", bridge, "type", "bridge"])?;
        for (address, length) in gateways {
            run("ip", &as_words(&adding(&format!("{address}/{length}"), bridge)))?;
        }
        run("ip", &["link", "set", bridge, "up"])?;
    }
    // a packet to anywhere else is answered at once: no route
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    if family != Family::Ipv4 {
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
    }
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

/// The words that give a link an address, which is used at once: nobody else can have it here.
fn adding(address: &str, link: &str) -> Vec<String> {
    let mut words = ["addr", "add", address, "dev", link].map(str::to_owned).to_vec();
    words.extend(address.contains(':').then(|| "nodad".to_owned()));
    words
}

fn as_words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Connects the network namespace of process `pid` to the bridge of `addresses` as `eth0`; on the first one they are of these families.
///
/// # Errors
/// `ip` fails.
pub fn attach(node: &str, pid: i32, addresses: &[String], family: Family) -> Result<()> {
    let apart = addresses.iter().any(|address| is_apart(address));
    let (bridge, gateways) = if apart { (APART_BRIDGE, APART_GATEWAYS) } else { (BRIDGE, family.gateways()) };
    let port = port(node);
    let pid_text = pid.to_string();
    run("ip", &["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &pid_text])?;
    run("ip", &["link", "set", &port, "master", bridge, "up"])?;
    let inside = |args: &[&str]| {
        let mut all = vec!["-t", pid_text.as_str(), "-n", "--", "ip"];
        all.extend_from_slice(args);
        run("nsenter", &all)
    };
    inside(&["link", "set", "lo", "up"])?;
    for (address, (_, length)) in addresses.iter().zip(gateways) {
        inside(&as_words(&adding(&format!("{address}/{length}"), "eth0")))?;
    }
    inside(&["link", "set", "eth0", "up"])?;
    for (gateway, _) in gateways {
        let kind = if gateway.contains(':') { "-6" } else { "-4" };
        inside(&[kind, "route", "add", "default", "via", gateway])?;
    }
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
