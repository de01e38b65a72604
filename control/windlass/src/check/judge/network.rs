//! Ports, DNS, what drops packets, and who else configures pods' interfaces.

use super::{Finding, error, kubelet_setting, warning};
use crate::check::facts::{Dropping, Facts, Taken, Wanted};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The bridge of pods, and our CNI configuration: containerd takes the first by name.
const BRIDGE: &str = "cni0";
const OWN_CNI: &str = "10-windlass.conflist";
const OWN_PROGRAM: &str = "windlass";

pub(super) fn ports(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    if wanted.is_running {
        return Vec::new();
    }
    let taken = |Taken { port, by }: &Taken| {
        let Some(by) = by else {
            let remedy =
                format!("stop what has it (another Kubernetes, perhaps): `ss -ltnp 'sport = :{port}'`");
            return error("port-taken", format!("port {port} is taken"), remedy);
        };
        let found = format!("port {port} is taken by {} (process {})", by.program, by.pid);
        let remedy = "stop that (another Kubernetes, perhaps), and keep it from starting again";
        // systemd itself listens for a unit that it starts then.
        let stop = match &by.unit {
            _ if by.pid == 1 => None,
            Some(unit) => Some(format!("systemctl disable --now {unit}")),
            None => Some(format!("kill {}", by.pid)),
        };
        error("port-taken", found, remedy).by(stop)
    };
    let is_own = |taken: &&Taken| taken.by.as_ref().is_some_and(|by| by.program == OWN_PROGRAM);
    facts.ports_taken.iter().filter(|taken| !is_own(taken)).map(taken).collect()
}

pub(super) fn dns(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    const BEHIND: &str = "/etc/windlass/resolv.conf";
    // The kubelet is told that there is none.
    let Some(path) = &facts.resolv_conf else { return Vec::new() };
    let file = path.display();
    if facts.resolvers.is_empty() {
        let found = format!("{file} names no resolver: pods resolve the cluster's names only");
        return vec![warning("dns-absent", found, "name a resolver there that this machine's pods reach")];
    }
    let is_loop = |ip: &&IpAddr| ip.is_loopback() || wanted.cluster_dns.contains(ip);
    let (loops, others): (Vec<&IpAddr>, Vec<&IpAddr>) = facts.resolvers.iter().partition(is_loop);
    let Some(first) = loops.first() else { return Vec::new() };
    let found = format!("{file} names {first}: questions of pods would come back to the cluster's DNS");
    let remedy = format!(
        "give pods a file of their own, which names the network's resolvers (none: pods resolve the cluster's names only), by resolvConf in the kubelet's configuration, such as {BEHIND}; then restart the node"
    );
    let lines: String = others.iter().map(|ip| format!(" 'nameserver {ip}'")).collect();
    let write = if lines.is_empty() {
        format!("mkdir -p /etc/windlass; : >{BEHIND}")
    } else {
        format!("mkdir -p /etc/windlass; printf '%s\\n'{lines} >{BEHIND}")
    };
    vec![error("dns-loop", found, remedy).by([write]).by(kubelet_setting(wanted, "resolvConf", BEHIND))]
}

/// Whether a listing of rules has a port as a number of its own.
fn names_port(rules: &str, port: u16) -> bool {
    rules.split(|c: char| !c.is_ascii_digit()).any(|number| number.parse() == Ok(port))
}

pub(super) fn firewall(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    let lets_pass =
        |rules: &str| rules.contains(BRIDGE) && wanted.ports.iter().all(|port| names_port(rules, *port));
    let mut found = Vec::new();
    if facts.firewalld.as_ref().is_some_and(|zones| !lets_pass(zones)) {
        let open: String = wanted.ports.iter().map(|port| format!(" --add-port={port}/tcp")).collect();
        let pods: String = wanted.pod_ranges.iter().map(|range| format!(" --add-source={range}")).collect();
        found.push(
            warning(
                "firewalld-blocks",
                "firewalld is active: it may drop what pods and nodes say to each other",
                "trust the pods' bridge and addresses, and open the ports",
            )
            .by([
                format!("firewall-cmd -q --permanent --zone=trusted --add-interface={BRIDGE}{pods}"),
                format!("firewall-cmd -q --permanent{open}"),
                "firewall-cmd -q --reload".to_owned(),
            ]),
        );
    }
    if facts.ufw.as_ref().is_some_and(|status| !lets_pass(status)) {
        let routes = ["ufw allow in on cni0", "ufw route allow in on cni0", "ufw route allow out on cni0"];
        let open = wanted.ports.iter().map(|port| format!("ufw allow {port}/tcp"));
        found.push(
            warning(
                "ufw-blocks",
                "ufw is active: it may drop what pods and nodes say to each other",
                "let the pods' bridge and the ports pass",
            )
            .by(routes)
            .by(open),
        );
    }
    // ufw's own chains are iptables', which keep their rules in others.
    let of_ufw = |chain: &&Dropping| facts.ufw.is_some() && chain.table == "filter" && chain.family != "inet";
    found.extend(
        facts.dropping.iter().filter(|chain| !of_ufw(chain)).filter_map(|chain| drops(chain, wanted)),
    );
    found
}

fn drops(chain: &Dropping, wanted: &Wanted) -> Option<Finding> {
    let Dropping { family, table, chain, hook, rules } = chain;
    let insert = format!("nft insert rule {family} {table} {chain}");
    let mut commands = Vec::new();
    if !rules.contains(BRIDGE) {
        commands.push(format!("{insert} iifname \"{BRIDGE}\" accept"));
        if hook == "forward" {
            commands.push(format!("{insert} oifname \"{BRIDGE}\" accept"));
        }
    }
    let closed: Vec<String> = if hook == "input" {
        wanted.ports.iter().filter(|port| !names_port(rules, **port)).map(u16::to_string).collect()
    } else {
        Vec::new()
    };
    if !closed.is_empty() {
        commands.push(format!("{insert} tcp dport {{ {} }} accept", closed.join(", ")));
    }
    if commands.is_empty() {
        return None;
    }
    let (id, what) = if hook == "input" {
        ("firewall-drops-input", "says to this machine")
    } else {
        ("firewall-drops-forward", "sends and gets through this machine")
    };
    let found = format!(
        "the chain {chain} of the nftables table {family} {table} drops what it does not name: it may drop what a pod or a node {what}"
    );
    let remedy = "accept that, also in what makes this table when the machine starts (/etc/nftables.conf, iptables' own)";
    Some(warning(id, found, remedy).by(commands))
}

pub(super) fn network_manager(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    if !facts.network_manager || facts.interfaces_unmanaged {
        return Vec::new();
    }
    vec![
        warning(
            "networkmanager-manages",
            "NetworkManager may take over the pods' interfaces",
            "have it leave them alone",
        )
        .by([
            "printf '%s\\n' '[keyfile]' 'unmanaged-devices=interface-name:cni0;interface-name:veth*' >/etc/NetworkManager/conf.d/windlass.conf",
            "systemctl reload NetworkManager",
        ]),
    ]
}

pub(super) fn cni(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    let path = |name: &String| wanted.cni_conf_dir.join(name);
    let before: Vec<PathBuf> =
        facts.cni_files.iter().filter(|name| name.as_str() < OWN_CNI).map(path).collect();
    let Some(first) = before.first() else { return Vec::new() };
    let found = format!("the runtime takes the CNI configuration {} before ours", first.display());
    let remedy = "none where pods are to have that network; else move it away";
    let moved = |path: &Path| format!("mv {0} {0}.off", path.display());
    vec![warning("cni-other", found, remedy).by(before.iter().map(|path| moved(path)))]
}

pub(super) fn forwarding(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    // A node that runs turns it on itself; what stands here before matters only where something turns it off again.
    let off = facts.sysctls.get("net.ipv4.ip_forward").is_some_and(|value| value == "0");
    if !off {
        return Vec::new();
    }
    let found = "packets are not forwarded (net.ipv4.ip_forward = 0)";
    let remedy = "turn it on, and keep that in /etc/sysctl.d (install.sh does)";
    let finding = if wanted.is_running {
        error("forwarding-off", found, remedy)
    } else {
        warning("forwarding-off", found, remedy)
    };
    vec![finding.by(["sysctl -w net.ipv4.ip_forward=1"])]
}
