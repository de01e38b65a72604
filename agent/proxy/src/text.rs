//! What [`ruleset`](crate::ruleset) makes, in nft's language: the reference that tests and benches hold it against, and the
//! clearest description of it.

use crate::element::{Balancer, Difference, Element, Key, Value};
use crate::model::Front;
use crate::numbers::GROUPS;
use crate::ruleset::{MASQUERADE_MARK, NODE_PORT_ADDRESSES, STICKY_CLIENTS, TABLE};
use crate::shape::{Pods, Shape};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Words that differ between the two families.
struct Family {
    table: &'static str,
    header: &'static str,
    address: &'static str,
    loopback: &'static str,
}

const IPV4: Family = Family { table: "ip", header: "ip", address: "ipv4_addr", loopback: "127.0.0.0/8" };
const IPV6: Family = Family { table: "ip6", header: "ip6", address: "ipv6_addr", loopback: "::1" };

fn family(ipv6: bool) -> &'static Family {
    if ipv6 { &IPV6 } else { &IPV4 }
}

/// Replaces both tables: empty maps and the rules that read them. A connection to a cluster IP from elsewhere than a pod gets the
/// node's address as its source, since only pods have a way back by themselves.
#[must_use]
pub fn tables(shape: &Shape) -> String {
    let mut out = String::new();
    for ipv6 in [false, true] {
        table(&mut out, shape, ipv6);
    }
    out
}

fn list(ranges: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = ranges.collect();
    if all.is_empty() { String::new() } else { format!("elements = {{ {} }};", all.join(", ")) }
}

/// What tells pods' packets from others; the second is its contrary.
fn sent_by_pod(shape: &Shape, header: &str) -> (String, String) {
    let (what, value) = match &shape.pods {
        Pods::Ranges(_) => (format!("{header} saddr"), "@cluster_cidrs".to_owned()),
        Pods::Interface(name) => ("iifname".to_owned(), format!("{name:?}")),
        Pods::InterfacePrefix(prefix) => ("iifname".to_owned(), format!("\"{prefix}*\"")),
    };
    (format!("{what} {value}"), format!("{what} != {value}"))
}

fn table(out: &mut String, shape: &Shape, ipv6: bool) {
    let Family { table, header: h, address: a, loopback } = family(ipv6);
    let own = shape.pod_ranges().iter().filter(|range| range.addr().is_ipv6() == ipv6);
    let elements = list(own.map(ToString::to_string));
    let (pod, stranger) = sent_by_pod(shape, h);
    let mark = format!("{h} daddr @cluster_ips meta mark set meta mark | {MASQUERADE_MARK:#x}");
    let strangers = match shape.masquerade_all {
        true => mark,
        false if shape.knows_pods(ipv6) => format!("{stranger} {mark}"),
        false => String::new(),
    };
    let (ports, on_ports) = match shape.node_ports(ipv6) {
        Some(ranges) => {
            let elements = list(ranges.iter().map(ToString::to_string));
            let set = format!("set {NODE_PORT_ADDRESSES} {{ type {a}; flags interval; {elements} }}");
            (set, format!("{h} daddr @{NODE_PORT_ADDRESSES}"))
        }
        None => (String::new(), String::new()),
    };
    // `table; delete; table` in one transaction replaces it whether it was there or not
    let _ = write!(
        out,
        "table {table} {TABLE}\ndelete table {table} {TABLE}\ntable {table} {TABLE} {{
  set cluster_cidrs {{ type {a}; flags interval; {elements} }}
  {ports}
  set service_cidrs {{ type {a}; flags interval; }}
  set cluster_ips {{ type {a}; }}
  set hairpin {{ type {a} . {a}; }}
  map services {{ type {a} . inet_proto . inet_service : verdict; }}
  map node_ports {{ type inet_proto . inet_service : verdict; }}
  map inside {{ type {a} . inet_proto . inet_service : verdict; }}
  map inside_ports {{ type inet_proto . inet_service : verdict; }}
  map endpoints {{ type {a} . inet_proto . inet_service . classid : {a} . inet_service; }}
  map port_endpoints {{ type inet_proto . inet_service . classid : {a} . inet_service; }}
  map sticky {{ type {a} . inet_proto . inet_service . classid : classid; }}
  map port_sticky {{ type inet_proto . inet_service . classid : classid; }}
  map affinity {{ type {a} . inet_proto . inet_service : classid; }}
  map port_affinity {{ type inet_proto . inet_service : classid; }}
  map clients {{ type classid . {a} : classid; size {STICKY_CLIENTS}; flags dynamic,timeout; }}
  map closed {{ type {a} . inet_proto . inet_service : verdict; }}
  map closed_ports {{ type inet_proto . inet_service : verdict; }}
  set guarded {{ type {a} . inet_proto . inet_service; }}
  set allowed {{ type {a} . inet_proto . inet_service . {a}; flags interval; }}
  chain refuse {{ meta l4proto tcp reject with tcp reset; reject; }}
  chain services {{
    {strangers}
    {pod} {h} daddr . meta l4proto . th dport vmap @inside
    fib saddr type local {h} daddr . meta l4proto . th dport vmap @inside
    {h} daddr . meta l4proto . th dport vmap @services
    {pod} fib daddr type local {on_ports} {h} daddr != {loopback} meta l4proto . th dport vmap @inside_ports
    fib saddr type local fib daddr type local {on_ports} {h} daddr != {loopback} meta l4proto . th dport vmap @inside_ports
    fib daddr type local {on_ports} {h} daddr != {loopback} meta l4proto . th dport vmap @node_ports
  }}
  chain nat_prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
  chain nat_output {{ type nat hook output priority -100; jump services; }}
  chain nat_postrouting {{ type nat hook postrouting priority srcnat;
    ct status & dnat != dnat return
    meta mark & {MASQUERADE_MARK:#x} != 0 meta mark set meta mark ^ {MASQUERADE_MARK:#x} masquerade fully-random
    {h} saddr . {h} daddr @hairpin masquerade fully-random
  }}
  chain closed_services {{
    {h} daddr . meta l4proto . th dport vmap @closed
    {h} daddr @cluster_ips goto refuse
  }}
  chain unallocated {{ {h} daddr @service_cidrs fib daddr type != local drop; }}
  chain guard {{
    {h} daddr . meta l4proto . th dport @guarded {h} daddr . meta l4proto . th dport . {h} saddr != @allowed drop
  }}
  chain guard_prerouting {{ type filter hook prerouting priority -110; ct state new jump guard; }}
  chain guard_output {{ type filter hook output priority -110; ct state new jump guard; }}
  chain filter_input {{ type filter hook input priority -1;
    ct state new jump closed_services
    ct state new fib daddr type local {on_ports} {h} daddr != {loopback} meta l4proto . th dport vmap @closed_ports
  }}
  chain filter_forward {{ type filter hook forward priority -1;
    ct state new jump closed_services
    ct state new jump unallocated
  }}
  chain filter_output {{ type filter hook output priority -1;
    ct state new jump closed_services
    ct state new jump unallocated
  }}
}}
"
    );
}

/// The chains a difference needs that are not there yet; makes them in both tables and remembers them in `known`.
#[must_use]
pub fn balancers(difference: &Difference, known: &mut BTreeSet<Balancer>) -> String {
    let mut out = String::new();
    for element in &difference.add {
        if let Value::Balance(balancer) = element.value
            && known.insert(balancer)
        {
            balancer_chain(&mut out, &IPV4, balancer);
            balancer_chain(&mut out, &IPV6, balancer);
        }
    }
    out
}

fn balancer_chain(out: &mut String, family: &Family, balancer: Balancer) {
    let Family { table, header: h, .. } = family;
    let (front, endpoints, sticky, affinity) = if balancer.node_port {
        ("meta l4proto . th dport".to_owned(), "port_endpoints", "port_sticky", "port_affinity")
    } else {
        (format!("{h} daddr . meta l4proto . th dport"), "endpoints", "sticky", "affinity")
    };
    let base = balancer.base();
    let dnat = format!("dnat {h} to {front} . meta priority map @{endpoints}");
    let draw = format!("meta priority set numgen random mod {} offset {base}", balancer.slots);
    let mark = format!("meta mark set meta mark | {MASQUERADE_MARK:#010x}");
    let mut rules = Vec::new();
    if balancer.masquerade {
        rules.push(mark.clone());
    }
    if balancer.inside {
        rules.push(format!("fib saddr type local {mark}"));
    }
    let Some(seconds) = balancer.sticky else {
        rules.extend([draw, dnat]);
        return chain(out, table, &balancer.to_string(), &rules);
    };
    let (mask, within) = (number(GROUPS.mask), number(GROUPS.inside));
    let remember = format!(
        "update @clients {{ meta priority & {mask} . {h} saddr timeout {seconds}s : meta priority }}"
    );
    let forget = format!("delete @clients {{ meta priority & {mask} . {h} saddr : meta priority }}");
    let (known, fresh) = (format!("{balancer}-known"), format!("{balancer}-fresh"));
    let mut to_endpoint = Vec::new();
    if balancer.inside {
        to_endpoint.push(format!("meta priority set meta priority | {within}"));
    }
    to_endpoint.push(dnat);
    let numbered = format!("meta priority set {front} . meta priority map @{sticky}");
    chain(out, table, &fresh, &[&[draw, numbered, remember.clone()][..], &to_endpoint].concat());
    // a client whose endpoint is gone, or not behind this front, finds none for its number and goes on to a new draw, which is kept
    // only if the old one is forgotten: the kernel renews an element's time and not its value
    chain(out, table, &known, &[&[remember][..], &to_endpoint, &[forget, format!("goto {fresh}")]].concat());
    rules.push(format!("meta priority set {front} map @{affinity}"));
    rules.push(format!("meta priority set meta priority . {h} saddr map @clients goto {known}"));
    rules.push(format!("goto {fresh}"));
    chain(out, table, &balancer.to_string(), &rules);
}

fn chain(out: &mut String, table: &str, name: &str, rules: &[String]) {
    let _ = writeln!(out, "add chain {table} {TABLE} {name}\nflush chain {table} {TABLE} {name}");
    for rule in rules {
        let _ = writeln!(out, "add rule {table} {TABLE} {name} {rule}");
    }
}

/// Deletes, then adds; runs of the same set share a command.
#[must_use]
pub fn elements(difference: &Difference) -> String {
    let mut out = String::new();
    commands(&mut out, "delete", &difference.delete);
    commands(&mut out, "add", &difference.add);
    out
}

fn commands(out: &mut String, verb: &str, elements: &[Element]) {
    let mut sorted: Vec<&Element> = elements.iter().collect();
    sorted.sort_by_key(|e| (e.ipv6, e.set));
    for run in sorted.chunk_by(|a, b| (a.ipv6, a.set) == (b.ipv6, b.set)) {
        let table = family(run[0].ipv6).table;
        let _ = write!(out, "{verb} element {table} {TABLE} {} {{ ", run[0].set.name());
        for element in run {
            key(out, element.key);
            if verb == "add" {
                value(out, &element.value);
            }
            out.push_str(", ");
        }
        out.push_str("}\n");
    }
}

fn key(out: &mut String, key: Key) {
    let front = |out: &mut String, front: Front| {
        if let Front::Address(ip, ..) = front {
            let _ = write!(out, "{ip} . ");
        }
        let (protocol, port) = front.port();
        let _ = write!(out, "{} . {port}", protocol.name());
    };
    let _ = match key {
        Key::Address(ip) => write!(out, "{ip}"),
        Key::Pair(ip) => write!(out, "{ip} . {ip}"),
        Key::Front(f) => {
            front(out, f);
            Ok(())
        }
        Key::Slot(f, slot) => {
            front(out, f);
            write!(out, " . {}", number(slot))
        }
        Key::Source(f, range) => {
            front(out, f);
            write!(out, " . {range}")
        }
    };
}

fn value(out: &mut String, value: &Value) {
    let _ = match value {
        Value::Member => Ok(()),
        Value::Balance(balancer) => write!(out, " : goto {balancer}"),
        Value::Refuse => write!(out, " : goto refuse"),
        Value::Drop => write!(out, " : drop"),
        Value::Endpoint(endpoint) => write!(out, " : {} . {}", endpoint.address, endpoint.port),
        Value::Number(own) => write!(out, " : {}", number(*own)),
    };
}

/// A number as nft writes a class of traffic.
fn number(number: u32) -> String {
    format!("{:x}:{:x}", number >> 16, number & 0xffff)
}
