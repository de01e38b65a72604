//! What pods send beyond the cluster seems to come from their node: the table `windlass-network`.
//!
//! It is a table of its own, so that the service proxy's resynchronisation never touches it.

use std::{collections::BTreeSet, fmt::Write, io, net::IpAddr, process::Stdio};

use ipnet::IpNet;
use tokio::{io::AsyncWriteExt, process::Command};

const TABLE: &str = "windlass-network";

/// The rules could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum MasqueradeError {
    /// `nft` is missing or cannot be fed.
    #[error("run nft")]
    Run(#[source] io::Error),
    /// `nft` said no.
    #[error("apply the nftables table {TABLE}: {0}")]
    Refused(String),
}

/// The whole table, as one transaction that replaces the one before.
///
/// `pods` are this node's pods' ranges; traffic to `ranges` and `addresses` keeps its source.
pub(crate) fn render(pods: &[IpNet], ranges: &BTreeSet<IpNet>, addresses: &BTreeSet<IpAddr>) -> String {
    let mut text = format!("add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    let direct: BTreeSet<IpNet> =
        ranges.iter().copied().chain(addresses.iter().copied().map(IpNet::from)).collect();
    for (v4, family, kind) in [(true, "ip", "ipv4_addr"), (false, "ip6", "ipv6_addr")] {
        let of_family = |net: &&IpNet| net.addr().is_ipv4() == v4;
        set(&mut text, &format!("pods_{family}"), kind, pods.iter().filter(of_family));
        set(&mut text, &format!("direct_{family}"), kind, direct.iter().filter(of_family));
    }
    text.push_str("  chain postrouting {\n    type nat hook postrouting priority srcnat; policy accept;\n");
    for (family, multicast) in [("ip", "224.0.0.0/4"), ("ip6", "ff00::/8")] {
        // A String takes every write.
        let _infallible = writeln!(
            text,
            "    {family} saddr @pods_{family} {family} daddr != @direct_{family} {family} daddr != {multicast} \
             masquerade fully-random"
        );
    }
    text.push_str("  }\n}\n");
    text
}

fn set<'a>(text: &mut String, name: &str, kind: &str, elements: impl Iterator<Item = &'a IpNet>) {
    let elements: Vec<String> = elements.map(|net| net.trunc().to_string()).collect();
    let _infallible = write!(text, "  set {name} {{\n    type {kind}\n    flags interval\n    auto-merge\n");
    if !elements.is_empty() {
        let _infallible = writeln!(text, "    elements = {{ {} }}", elements.join(", "));
    }
    text.push_str("  }\n");
}

pub(crate) async fn apply(text: &str) -> Result<(), MasqueradeError> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(MasqueradeError::Run)?;
    if let Some(mut stdin) = child.stdin.take() {
        // If nft ends early it says why on stderr; a broken pipe here does not.
        let _unread = stdin.write_all(text.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(MasqueradeError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    Err(MasqueradeError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_addresses_are_sorted_by_family() {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        let text = render(
            &nets(&["10.244.0.0/24", "fd00::/64"]),
            &nets(&["10.244.0.0/16"]).into_iter().collect(),
            &["192.0.2.2".parse().unwrap(), "2001:db8::2".parse().unwrap()].into_iter().collect(),
        );
        for line in [
            "set pods_ip {\n    type ipv4_addr\n    flags interval\n    auto-merge\n    elements = { 10.244.0.0/24 }",
            "elements = { 10.244.0.0/16, 192.0.2.2/32 }",
            "elements = { fd00::/64 }",
            "elements = { 2001:db8::2/128 }",
            "ip6 saddr @pods_ip6 ip6 daddr != @direct_ip6 ip6 daddr != ff00::/8 masquerade fully-random",
        ] {
            assert!(text.contains(line), "no {line:?} in\n{text}");
        }
    }
}
