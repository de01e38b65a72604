//! A pod's resolver configuration and names.

use cri_proto::v1;
use k8s_openapi::api::core::v1::Pod;
use machinery::goformat::path_error;
use std::net::IpAddr;
use std::path::Path;

/// The host's resolver file, parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The last `search` line.
    pub searches: Vec<String>,
    pub options: Vec<String>,
    /// There is no such file by configuration: a pod that would have the host's resolvers has nobody to ask but itself.
    absent: bool,
}

/// Upstream's bounds; more is cut.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
/// A longer search path makes some resolvers abort.
const MAX_PATH_CHARS: usize = 253;

/// What could not be had of a pod's resolver configuration; the texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    #[error(
        "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
        .0.join(" ")
    )]
    Servers(Vec<String>),
    #[error(
        "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
        .0.join(" ")
    )]
    Searches(Vec<String>),
    #[error(
        "kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" policy. \
         Falling back to \"Default\" policy."
    )]
    NoCluster,
}

impl Resolver {
    /// What stands for a file where none is configured (`resolvConf: ""`): the loopback address of each family of the node's addresses, so that the
    /// runtime does not take the host's file. Upstream: `GetPodDNS`.
    pub fn absent(node_ips: &[IpAddr]) -> Self {
        let loopback = |ip: &IpAddr| if ip.is_ipv6() { "::1" } else { "127.0.0.1" }.to_owned();
        let mut servers: Vec<String> = node_ips.iter().map(loopback).collect();
        if servers.is_empty() {
            servers.push("127.0.0.1".to_owned());
        }
        Self { servers, absent: true, ..Self::default() }
    }

    /// Reads resolv.conf's text; what is not understood is skipped, as the C library does.
    pub fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let line = line.trim();
            if line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_whitespace();
            let keyword = words.next();
            let rest = || words.map(str::to_owned);
            match keyword {
                Some("nameserver") => resolver.servers.extend(rest().take(1)),
                Some("search") => {
                    let words = rest().filter(|word| word != ".");
                    resolver.searches = words.map(|word| word.trim_end_matches('.').to_owned()).collect();
                }
                Some("options") => rest().for_each(|option| set_option(&mut resolver.options, option)),
                _ => {}
            }
        }
        resolver
    }
}

/// What pods will not have of a host's resolver file, in upstream's words (`CheckLimitsForResolvConf`); the first of several.
pub fn exceeded(path: &Path, text: Result<&str, &std::io::Error>, cluster_domain: &str) -> Option<String> {
    let text = match text {
        Ok(text) => text,
        Err(error) => return Some(path_error("open", path, error)),
    };
    let searches = Resolver::parse(text).searches;
    // The cluster's own three come first.
    let most = if cluster_domain.is_empty() { MAX_SEARCHES } else { MAX_SEARCHES - 3 };
    let file = path.display();
    if searches.len() > most {
        return Some(format!(
            "Resolv.conf file '{file}' contains search line consisting of more than {most} domains!"
        ));
    }
    if searches.iter().any(|search| search.len() > MAX_PATH_CHARS) {
        return Some(format!(
            "Resolv.conf file \"{file}\" contains a search path which length is more than allowed {MAX_PATH_CHARS} chars!"
        ));
    }
    (searches.join(" ").len() > MAX_SEARCH_CHARS).then(|| {
        format!(
            "Resolv.conf file '{file}' contains search line which length is more than allowed {MAX_SEARCH_CHARS} chars!"
        )
    })
}

/// The resolver configuration of a pod, and what is missing of it.
pub fn config(
    pod: &Pod,
    host: &Resolver,
    cluster_dns: &[String],
    cluster_domain: &str,
) -> (v1::DnsConfig, Vec<Warning>) {
    let mut warnings = Vec::new();
    let spec = pod.spec.as_ref();
    let policy = spec.and_then(|s| s.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let cluster = match policy {
        "None" => None,
        "Default" => Some(false),
        "ClusterFirstWithHostNet" => Some(true),
        _ => Some(!crate::pod::host_network(pod)),
    };
    if cluster == Some(true) && cluster_dns.is_empty() {
        warnings.push(Warning::NoCluster);
    }
    let mut got = match cluster {
        None => v1::DnsConfig::default(),
        // Without a cluster DNS server ClusterFirst falls back to the host's, as upstream's does.
        Some(true) if !cluster_dns.is_empty() => {
            let mut searches = Vec::new();
            if !cluster_domain.is_empty() {
                let namespace = crate::pod::namespace(pod);
                searches.push(format!("{namespace}.svc.{cluster_domain}"));
                searches.push(format!("svc.{cluster_domain}"));
                searches.push(cluster_domain.to_owned());
            }
            searches.extend(host.searches.iter().cloned());
            v1::DnsConfig {
                servers: cluster_dns.to_vec(),
                searches: unique(searches),
                options: vec!["ndots:5".to_owned()],
            }
        }
        Some(_) => v1::DnsConfig {
            servers: host.servers.clone(),
            searches: if host.absent { vec![".".to_owned()] } else { host.searches.clone() },
            options: host.options.clone(),
        },
    };
    if let Some(own) = spec.and_then(|s| s.dns_config.as_ref()) {
        got.servers.extend(own.nameservers.iter().flatten().cloned());
        got.searches.extend(own.searches.iter().flatten().cloned());
        got.servers = unique(got.servers);
        got.searches = unique(got.searches);
        for option in own.options.iter().flatten() {
            let Some(name) = option.name.as_deref() else { continue };
            let value = option.value.as_deref().filter(|value| !value.is_empty());
            set_option(&mut got.options, value.map_or(name.to_owned(), |value| format!("{name}:{value}")));
        }
    }
    if got.servers.len() > MAX_SERVERS {
        got.servers.truncate(MAX_SERVERS);
        warnings.push(Warning::Servers(got.servers.clone()));
    }
    let asked = got.searches.len();
    got.searches.truncate(MAX_SEARCHES);
    got.searches.retain(|path| path.len() <= MAX_PATH_CHARS);
    while got.searches.join(" ").len() > MAX_SEARCH_CHARS {
        got.searches.pop();
    }
    if got.searches.len() < asked {
        warnings.push(Warning::Searches(got.searches.clone()));
    }
    (got, warnings)
}

/// Sets an option in place of one of the same name.
fn set_option(options: &mut Vec<String>, option: String) {
    let name = |option: &str| option.split(':').next().map(str::to_owned);
    let own = name(&option);
    options.retain(|known| name(known) != own);
    options.push(option);
}

fn unique(all: Vec<String>) -> Vec<String> {
    let mut seen = Vec::new();
    for item in all {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}

/// A pod's host name, at most 63 characters.
pub fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let name = spec.and_then(|s| s.hostname.as_deref()).filter(|h| !h.is_empty());
    let name = overridden(pod).or(name).unwrap_or(crate::pod::name(pod));
    let cut: String = name.chars().take(63).collect();
    match name.len() {
        0..=63 => cut,
        _ => cut.trim_end_matches(['-', '.']).to_owned(),
    }
}

fn overridden(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.hostname_override.as_deref()
}

/// `subdomain.namespace.svc.domain`, when the pod has a subdomain and takes no name from elsewhere.
pub fn host_domain(pod: &Pod, cluster_domain: &str) -> Option<String> {
    let subdomain = pod.spec.as_ref()?.subdomain.as_deref().filter(|s| !s.is_empty())?;
    let full = || format!("{subdomain}.{}.svc.{cluster_domain}", crate::pod::namespace(pod));
    overridden(pod).is_none().then(full)
}

/// A name the kernel has no room for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long ({KERNEL_NAME} characters is the max, {} characters requested)",
    name.len()
)]
pub struct TooLong {
    pub name: String,
}

/// Characters of the kernel's node name.
const KERNEL_NAME: usize = 64;

/// What the pod's kernel calls its host: with the domain where `setHostnameAsFQDN` asks for it. Upstream:
/// `GetNodenameForKernel`.
///
/// # Errors
///
/// The kernel has no room for it.
pub fn kernel_name(pod: &Pod, cluster_domain: &str) -> Result<String, TooLong> {
    let asked = pod.spec.as_ref().and_then(|s| s.set_hostname_as_fqdn) == Some(true);
    let (host, domain) = (hostname(pod), host_domain(pod, cluster_domain).filter(|_| asked));
    match domain.map(|domain| format!("{host}.{domain}")) {
        None => Ok(host),
        Some(name) if name.len() > KERNEL_NAME => Err(TooLong { name }),
        Some(name) => Ok(name),
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json!() arguments read better by value")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_search_line_that_pods_cannot_have_must_not_pass_in_silence() {
        let path = Path::new("/etc/resolv.conf");
        let told = |searches: &[String], domain: &str| {
            exceeded(path, Ok(&format!("nameserver 9.9.9.9\nsearch {}\n", searches.join(" "))), domain)
        };
        let many = |count: usize, length: usize| vec!["a".repeat(length); count];
        assert_eq!(told(&many(29, 5), "cluster.local"), None);
        assert_eq!(told(&many(32, 5), ""), None);
        let start = "Resolv.conf file '/etc/resolv.conf' contains search line";
        let domains = format!("{start} consisting of more than 29 domains!");
        assert_eq!(told(&many(30, 5), "cluster.local"), Some(domains));
        let path_length = "Resolv.conf file \"/etc/resolv.conf\" contains a search path which length is more than allowed 253 chars!";
        assert_eq!(told(&many(1, 254), "cluster.local").as_deref(), Some(path_length));
        let line_length = format!("{start} which length is more than allowed 2048 chars!");
        assert_eq!(told(&many(20, 200), "cluster.local"), Some(line_length));
        let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(
            exceeded(path, Err(&gone), "cluster.local").as_deref(),
            Some("open /etc/resolv.conf: no such file or directory")
        );
    }

    fn host() -> Resolver {
        Resolver::parse("# x\nnameserver 9.9.9.9\nsearch a.example. b.example\noptions ndots:2 rotate\n")
    }

    fn servers(spec: Value) -> (Vec<String>, Vec<String>, Vec<String>) {
        let (got, _) = config(&pod(spec), &host(), &["10.96.0.10".to_owned()], "cluster.local");
        (got.servers, got.searches, got.options)
    }

    #[test]
    fn policies() {
        let (s, d, o) = servers(json!({"containers": []}));
        assert_eq!(s, ["10.96.0.10"]);
        assert_eq!(
            d,
            ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "a.example", "b.example"]
        );
        assert_eq!(o, ["ndots:5"]);
        let (s, _, o) = servers(json!({"containers": [], "hostNetwork": true}));
        assert_eq!((s, o), (vec!["9.9.9.9".to_owned()], vec!["ndots:2".to_owned(), "rotate".to_owned()]));
        let (s, _, _) =
            servers(json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}));
        assert_eq!(s, ["10.96.0.10"]);
        let (s, d, o) = servers(json!({"containers": [], "dnsPolicy": "None", "dnsConfig":
            {"nameservers": ["1.1.1.1"], "searches": ["x"], "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}]}}));
        assert_eq!((s, d), (vec!["1.1.1.1".to_owned()], vec!["x".to_owned()]));
        assert_eq!(o, ["ndots:1", "edns0"]);
        let (_, _, o) =
            servers(json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}}));
        assert_eq!(o, ["ndots:1"]);
    }

    #[test]
    fn a_resolver_file_must_not_be_read_by_other_rules_than_upstreams() {
        let text = "domain corp.local\nsearch a.\nnameserver 9.9.9.9\noptions ndots:2 rotate\ndomain x\noptions ndots:3 edns0\n";
        let read = Resolver::parse(text);
        assert_eq!(read.searches, ["a"], "`domain` is no search path");
        assert_eq!(read.options, ["rotate", "ndots:3", "edns0"], "lines add up");
        let (_, _, options) = servers(json!({"containers": [], "dnsConfig": {"options": [
            {"name": "single-request-reopen", "value": ""}, {"name": "ndots"}]}}));
        assert_eq!(options, ["single-request-reopen", "ndots"], "no value, no colon");
    }

    #[test]
    fn a_pod_must_not_get_the_hosts_resolvers_where_there_are_none_for_it() {
        let of = |policy: &str, ips: &[&str]| {
            let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            let pod = pod(json!({"containers": [], "dnsPolicy": policy}));
            let (got, _) = config(&pod, &Resolver::absent(&ips), &["10.96.0.10".to_owned()], "cluster.local");
            (got.servers.join(" "), got.searches.join(" "))
        };
        let words = |servers: &str, searches: &str| (servers.to_owned(), searches.to_owned());
        assert_eq!(of("Default", &["192.0.2.1", "fd00::1"]), words("127.0.0.1 ::1", "."));
        assert_eq!(of("Default", &[]), words("127.0.0.1", "."));
        let cluster = words("10.96.0.10", "ns.svc.cluster.local svc.cluster.local cluster.local");
        assert_eq!(of("ClusterFirst", &["192.0.2.1"]), cluster);
    }

    #[test]
    fn what_is_left_out_of_a_resolver_file_must_not_be_left_out_in_silence() {
        let told = |spec: Value, cluster: &[String]| -> Vec<String> {
            let (_, warnings) = config(&pod(spec), &host(), cluster, "cluster.local");
            warnings.iter().map(ToString::to_string).collect()
        };
        let cluster = ["10.96.0.10".to_owned()];
        assert!(told(json!({"containers": []}), &cluster).is_empty());
        let text = "kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" \
                    policy. Falling back to \"Default\" policy.";
        assert_eq!(told(json!({"containers": []}), &[]), [text]);
        assert!(told(json!({"containers": [], "dnsPolicy": "Default"}), &[]).is_empty());
        let own = |config: Value| json!({"containers": [], "dnsPolicy": "None", "dnsConfig": config});
        let servers = own(json!({"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]}));
        assert_eq!(
            told(servers, &cluster),
            [
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: \
              1.1.1.1 1.1.1.2 1.1.1.3"
            ]
        );
        let searches = own(json!({"nameservers": ["1.1.1.1"], "searches": ["a", "b".repeat(254), "c"]}));
        assert_eq!(
            told(searches, &cluster),
            [
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: a c"
            ]
        );
        let many: Vec<String> = (0..33).map(|n| format!("s{n}")).collect();
        assert_eq!(told(own(json!({"nameservers": ["1.1.1.1"], "searches": many})), &cluster).len(), 1);
    }

    #[test]
    fn a_host_is_called_by_its_full_name_where_asked_and_never_longer_than_the_kernel_has_room() {
        let name = |spec: Value| kernel_name(&pod(spec), "cluster.local");
        let asks = |more: Value| {
            let mut spec = json!({"containers": [], "setHostnameAsFQDN": true, "subdomain": "sub"});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        assert_eq!(name(asks(json!({}))).unwrap(), "p.sub.ns.svc.cluster.local");
        assert_eq!(name(asks(json!({"setHostnameAsFQDN": false}))).unwrap(), "p");
        assert_eq!(name(asks(json!({"subdomain": ""}))).unwrap(), "p");
        assert_eq!(name(asks(json!({"hostname": "h".repeat(39)}))).unwrap().len(), 64);
        let long = "h".repeat(40);
        assert_eq!(
            name(asks(json!({"hostname": long}))).unwrap_err().to_string(),
            format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {long}.sub.ns.svc.cluster.local \
                 is too long (64 characters is the max, 65 characters requested)"
            )
        );
    }

    #[test]
    fn an_overriding_name_has_no_domain_and_is_cut() {
        let over = |name: &str| pod(json!({"containers": [], "subdomain": "sub", "hostnameOverride": name}));
        assert_eq!(kernel_name(&over("a.b.c"), "d").unwrap(), "a.b.c");
        assert_eq!(host_domain(&over("a.b.c"), "d"), None);
        assert_eq!(hostname(&over(&format!("{}.b", "a".repeat(62)))), "a".repeat(62));
    }

    #[test]
    fn hostnames_are_cut() {
        let long: Pod =
            serde_json::from_value(json!({"metadata": {"name": format!("{}-b", "a".repeat(62))}})).unwrap();
        assert_eq!(hostname(&long), "a".repeat(62));
        assert_eq!(hostname(&pod(json!({"containers": [], "hostname": "h"}))), "h");
    }
}
