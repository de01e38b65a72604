//! A `KubeProxyConfiguration` as the proxy's settings. Pure but for the host's name. Upstream: `pkg/proxy/apis/config` (`v1alpha1` for defaults,
//! `validation` for what is refused).

use crate::component_config::Document;
use anyhow::{anyhow, bail};
use ipnet::IpNet;
use proxy::shape::{Detect, NodePorts, Pods};
use proxy::{HEALTH_PORT, Limits, STATUS_PORT};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// An address that stands for "serve nowhere": what flags make of port 0.
pub(super) const NOWHERE: &str = "-";
/// `nftables`, the mode there is.
const NFTABLES: &str = "nftables";
const MODES: [&str; 4] = ["", "iptables", "ipvs", NFTABLES];
/// Upstream's `KubeProxyOOMScoreAdj`.
pub(super) const OOM_SCORE: i64 = -999;

/// What a proxy that is a program of its own is told.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) proxy: proxy::Config,
    /// Requests to the API a second, and at once; `None`: as many as there are.
    pub(super) requests: Option<(f64, u32)>,
    /// A port that cannot be listened on ends the program.
    pub(super) must_listen: bool,
    /// How gladly the kernel ends us where memory runs out.
    pub(super) oom_score: i32,
}

/// Reads and judges a document; the second are warnings. `name` is the node's, over the document's.
pub(super) fn read(document: &Document, name: Option<&str>) -> anyhow::Result<(Settings, Vec<String>)> {
    let gates = document.0["featureGates"].as_object();
    let gates = gates.into_iter().flatten().map(|(gate, on)| (gate.as_str(), *on == Value::Bool(true)));
    let mut warnings = machinery::gates::check(gates, &[]).map_err(|e| anyhow!(e))?;
    let mode = document.text("/mode").unwrap_or_default();
    if !MODES.contains(&mode) {
        let known = "must be iptables, ipvs, nftables or blank (blank means the best-available proxy [currently iptables])";
        return Err(invalid("Mode.ProxyMode", mode, known));
    }
    if mode != NFTABLES {
        let shown = if mode.is_empty() { "iptables" } else { mode };
        warnings.push(format!("proxy mode {shown} is not here: nftables is used"));
    }
    masquerade_bits(document)?;
    let (audit, pause) = periods(document, section(mode))?;
    let name = super::super::node_name(name.or(document.text("/hostnameOverride")))?;
    let usual = proxy::Config::new(name, Vec::new());
    let proxy = proxy::Config {
        detect: detect(document)?,
        healthz: address(document, "healthzBindAddress")?,
        mode: address(document, "metricsBindAddress")?,
        node_ports: node_ports(document, mode)?,
        bind: Some(bind_address(document)?),
        masquerade_all: document.bool(&format!("/{}/masqueradeAll", masquerading(mode))) == Some(true),
        limits: limits(document)?,
        pause: pause.unwrap_or(usual.pause),
        patience: audit.map_or(usual.patience, |period| period.saturating_mul(2)),
        audit: audit.unwrap_or(usual.audit),
        ..usual
    };
    let oom_score =
        ranged(document, "/oomScoreAdj", "KubeProxyLinuxConfiguration.OOMScoreAdj", -1000..=1000)?;
    let burst = ranged(document, "/clientConnection/burst", "ClientConnection.Burst", 0..=i64::MAX)?;
    let settings = Settings {
        proxy,
        requests: requests(document.0.pointer("/clientConnection/qps").and_then(Value::as_f64), burst),
        must_listen: document.bool("/bindAddressHardFail") == Some(true),
        oom_score: i32::try_from(oom_score.unwrap_or(OOM_SCORE)).unwrap_or_default(),
    };
    Ok((settings, warnings))
}

/// Upstream's numbers stand for the one that is not given; without either there is no limit here. Below zero is none.
fn requests(qps: Option<f64>, burst: Option<i64>) -> Option<(f64, u32)> {
    let (qps, burst) = (qps.filter(|qps| *qps != 0.0), burst.filter(|burst| *burst != 0));
    let given = qps.is_some() || burst.is_some();
    let burst = u32::try_from(burst.unwrap_or(10)).unwrap_or(u32::MAX);
    given.then(|| (qps.unwrap_or(5.0), burst)).filter(|(qps, _)| *qps > 0.0)
}

fn invalid(field: &str, value: impl std::fmt::Debug, why: &str) -> anyhow::Error {
    anyhow!("KubeProxyConfiguration.{field}: Invalid value: {value:?}: {why}")
}

/// The section whose periods count.
fn section(mode: &str) -> &'static str {
    match mode {
        "ipvs" => "ipvs",
        NFTABLES => NFTABLES,
        _ => "iptables",
    }
}

/// The section that says whether everything is masqueraded.
fn masquerading(mode: &str) -> &'static str {
    if mode == NFTABLES { NFTABLES } else { "iptables" }
}

fn number(document: &Document, pointer: &str) -> Option<i64> {
    document.0.pointer(pointer).and_then(Value::as_i64)
}

fn ranged(
    document: &Document,
    pointer: &str,
    field: &str,
    range: std::ops::RangeInclusive<i64>,
) -> anyhow::Result<Option<i64>> {
    match number(document, pointer) {
        Some(value) if !range.contains(&value) => {
            let why = match *range.end() {
                i64::MAX => "must be greater than or equal to 0".to_owned(),
                end => format!("must be within the range [{}, {end}]", range.start()),
            };
            Err(invalid(field, value, &why))
        }
        value => Ok(value),
    }
}

/// Marks are our own: a bit is judged, and has no effect.
fn masquerade_bits(document: &Document) -> anyhow::Result<()> {
    for (section, kind) in
        [("iptables", "KubeProxyIPTablesConfiguration"), (NFTABLES, "KubeProxyNFTablesConfiguration")]
    {
        ranged(document, &format!("/{section}/masqueradeBit"), &format!("{kind}.MasqueradeBit"), 0..=31)?;
    }
    Ok(())
}

/// A duration in the document, `None` where it is absent or zero; one below zero is refused.
fn span(document: &Document, pointer: &str, field: &str) -> anyhow::Result<Option<Duration>> {
    let Some(text) = document.text(pointer) else { return Ok(None) };
    let nanos = machinery::duration::parse(text).map_err(|e| anyhow!("{field}: {e}"))?;
    match u64::try_from(nanos) {
        Ok(0) => Ok(None),
        Ok(nanos) => Ok(Some(Duration::from_nanos(nanos))),
        Err(_) => Err(invalid(field, text, "must be greater than or equal to 0")),
    }
}

/// `syncPeriod` and `minSyncPeriod` of a section; what upstream resynchronises of the API needs no period here.
fn periods(document: &Document, section: &str) -> anyhow::Result<(Option<Duration>, Option<Duration>)> {
    const USUAL: Duration = Duration::from_secs(30);
    span(document, "/configSyncPeriod", "ConfigSyncPeriod")?;
    let period = span(document, &format!("/{section}/syncPeriod"), "SyncPeriod")?;
    let least = span(document, &format!("/{section}/minSyncPeriod"), "MinSyncPeriod")?;
    if least.unwrap_or_default() > period.unwrap_or(USUAL) {
        let why = "must be greater than or equal to KubeProxyConfiguration.MinSyncPeriod";
        return Err(invalid("SyncPeriod", least.unwrap_or_default(), why));
    }
    Ok((period, least))
}

fn bind_address(document: &Document) -> anyhow::Result<IpAddr> {
    let text = document.text("/bindAddress").unwrap_or("0.0.0.0");
    text.parse()
        .map_err(|_| invalid("BindAddress", text, "not a valid textual representation of an IP address"))
}

/// The ranges, by commas: one, or one of each family.
fn cluster_ranges(document: &Document) -> anyhow::Result<Vec<IpNet>> {
    let texts = document.text("/clusterCIDR").unwrap_or_default().split(',').map(str::trim);
    let ranges = texts.filter(|text| !text.is_empty()).map(|text| {
        let why = "must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)";
        text.parse::<IpNet>().map_err(|_| invalid("DetectLocalConfiguration.ClusterCIDRs", text, why))
    });
    let ranges = ranges.collect::<anyhow::Result<Vec<IpNet>>>()?;
    match ranges.as_slice() {
        [] | [_] => Ok(ranges),
        [a, b] if a.addr().is_ipv4() != b.addr().is_ipv4() => Ok(ranges),
        _ => {
            let why = "must be a either a single CIDR or dual-stack pair of CIDRs (e.g. [10.100.0.0/16, fde4:8dba:82e1::/48]";
            Err(invalid("DetectLocalConfiguration.ClusterCIDRs", ranges, why))
        }
    }
}

fn detect(document: &Document) -> anyhow::Result<Detect> {
    let named = |pointer: &str, field: &str| {
        let name = document.text(pointer).unwrap_or_default().to_owned();
        match name.len() {
            0 => Err(invalid(&format!("DetectLocalConfiguration.{field}"), name, "must not be empty")),
            // IFNAMSIZ, with the zero at its end
            16.. => {
                Err(invalid(&format!("DetectLocalConfiguration.{field}"), name, "must have at most 15 bytes"))
            }
            _ => Ok(name),
        }
    };
    match document.text("/detectLocalMode").unwrap_or_default() {
        "" | "ClusterCIDR" => Ok(Detect::Fixed(Pods::Ranges(cluster_ranges(document)?))),
        "NodeCIDR" => Ok(Detect::NodeRanges),
        "BridgeInterface" => {
            Ok(Detect::Fixed(Pods::Interface(named("/detectLocal/bridgeInterface", "InterfaceName")?)))
        }
        "InterfaceNamePrefix" => {
            let prefix = named("/detectLocal/interfaceNamePrefix", "InterfacePrefix")?;
            Ok(Detect::Fixed(Pods::InterfacePrefix(prefix)))
        }
        other => bail!(
            "KubeProxyConfiguration.DetectLocalMode: Unsupported value: {other:?}: supported values: \"\", \"BridgeInterface\", \"ClusterCIDR\", \"InterfaceNamePrefix\", \"NodeCIDR\""
        ),
    }
}

/// Without any, node ports are on the node's primary addresses in the mode nftables, and on all in others, as upstream's.
fn node_ports(document: &Document, mode: &str) -> anyhow::Result<NodePorts> {
    const PRIMARY: &str = "primary";
    let field = |index: usize| format!("NodePortAddresses[{index}]");
    let given: Vec<&str> = document.items("/nodePortAddresses").iter().filter_map(Value::as_str).collect();
    match given.as_slice() {
        [] if mode == NFTABLES => return Ok(NodePorts::Primary),
        [PRIMARY] => return Ok(NodePorts::Primary),
        _ => {}
    }
    let ranges = given.iter().enumerate().map(|(index, text)| match *text {
        PRIMARY => Err(invalid(&field(index), PRIMARY, "can't use both 'primary' and CIDRs")),
        text => text.parse().map_err(|_| invalid(&field(index), text, "must be a valid CIDR")),
    });
    ranges.collect::<anyhow::Result<_>>().map(NodePorts::Ranges)
}

fn limits(document: &Document) -> anyhow::Result<Limits> {
    const KIND: &str = "KubeProxyLinuxConfiguration.KubeProxyConntrackConfiguration";
    let usual = Limits::default();
    let count = |name: &str, field: &str, usual: u64| {
        let given =
            ranged(document, &format!("/conntrack/{name}"), &format!("{KIND}.{field}"), 0..=i64::MAX)?;
        anyhow::Ok(given.map_or(usual, |count| u64::try_from(count).unwrap_or_default()))
    };
    // Zero is a wish of its own here: leave it as it is.
    let time = |name: &str, field: &str, usual: Duration| {
        let pointer = format!("/conntrack/{name}");
        match document.text(&pointer) {
            None => anyhow::Ok(usual),
            Some(_) => Ok(span(document, &pointer, &format!("{KIND}.{field}"))?.unwrap_or_default()),
        }
    };
    Ok(Limits {
        per_cpu: count("maxPerCore", "MaxPerCore", usual.per_cpu)?,
        least: count("min", "Min", usual.least)?,
        established: time("tcpEstablishedTimeout", "TCPEstablishedTimeout", usual.established)?,
        close_wait: time("tcpCloseWaitTimeout", "TCPCloseWaitTimeout", usual.close_wait)?,
        liberal: document.bool("/conntrack/tcpBeLiberal") == Some(true),
        udp: time("udpTimeout", "UDPTimeout", usual.udp)?,
        udp_stream: time("udpStreamTimeout", "UDPStreamTimeout", usual.udp_stream)?,
    })
}

/// An address without a port gets this one; what is no address stays as it is, to be refused later.
pub(super) fn with_port(text: &str, port: u16) -> String {
    text.parse::<IpAddr>().map_or_else(|_| text.to_owned(), |ip| SocketAddr::new(ip, port).to_string())
}

/// Where a port is served by default: in the family of the bind address; health for everybody, metrics for this machine.
pub(super) fn default_address(document: &Value, field: &str, port: u16) -> String {
    let bind = document["bindAddress"].as_str().and_then(|text| text.parse::<IpAddr>().ok());
    let ip = match (bind.is_some_and(|ip| ip.is_ipv6()), field == "healthzBindAddress") {
        (false, true) => "0.0.0.0",
        (false, false) => "127.0.0.1",
        (true, true) => "::",
        (true, false) => "::1",
    };
    with_port(ip, port)
}

fn address(document: &Document, field: &str) -> anyhow::Result<Option<SocketAddr>> {
    let port = if field == "healthzBindAddress" { HEALTH_PORT } else { STATUS_PORT };
    let text = match document.text(&format!("/{field}")) {
        Some(NOWHERE) => return Ok(None),
        Some(text) => with_port(text, port),
        None => default_address(&document.0, field, port),
    };
    let parsed: SocketAddr =
        text.parse().map_err(|_| invalid(&capitalised(field), &text, "must be IP:port"))?;
    match parsed.port() {
        0 => Err(invalid(&capitalised(field), "0", "must be a valid port")),
        _ => Ok(Some(parsed)),
    }
}

fn capitalised(field: &str) -> String {
    let mut letters = field.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
