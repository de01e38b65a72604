//! The service proxy alone, as kube-proxy.

use super::{alone, kubeconfig};
use crate::component_config::{self, Document, Kind};
use crate::flags::Flags;
use anyhow::{Context as _, anyhow};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

/// The kind of the file.
const KIND: Kind = Kind {
    api_version: "kubeproxy.config.k8s.io/v1alpha1",
    kind: "KubeProxyConfiguration",
    fields: include_str!("../../data/config/KubeProxyConfiguration.txt"),
};
/// Upstream's ports.
const HEALTH_PORT: u16 = 10256;
const STATUS_PORT: u16 = 10249;

/// Runs until a signal.
pub(crate) async fn run(flags: Flags) -> anyhow::Result<()> {
    super::refuse_once(&flags)?;
    let file = match flags.text("config") {
        Some(path) => component_config::load(Path::new(path), &KIND).context("--config")?,
        None => Document(serde_json::Value::Null),
    };
    let settings = settings(&flags, &file)?;
    let client = kubeconfig::of_flags(&flags, file.text("/clientConnection/kubeconfig")).await?;
    alone::run(|supervisor| vec![node::tasks::proxy(settings, client, supervisor)]).await
}

/// Flags count where there is no file, as upstream's; the node's name always does.
fn settings(flags: &Flags, file: &Document) -> anyhow::Result<proxy::Config> {
    let flag = |name: &str| flags.text(name).filter(|_| file.0.is_null());
    if let Some(mode) = flag("proxy-mode").or(file.text("/mode")).filter(|mode| *mode != "nftables") {
        tracing::warn!("proxy mode {mode} is not here: nftables is used");
    }
    let name = flags.text("hostname-override").or(file.text("/hostnameOverride"));
    let cidrs = flag("cluster-cidr").or(file.text("/clusterCIDR")).unwrap_or_default().split(',');
    let cidrs = cidrs.map(str::trim).filter(|text| !text.is_empty());
    let address = |name: &str, field: &str, default: (Ipv4Addr, u16)| {
        let text = flag(name).or(file.text(field));
        text.map_or(Ok(default.into()), |text| endpoint(text, default.1).map_err(|e| anyhow!("{name}: {e}")))
    };
    Ok(proxy::Config {
        node: super::node_name(name)?,
        cluster_cidrs: cidrs
            .map(|text| text.parse::<IpNet>().with_context(|| format!("cluster CIDR {text:?}")))
            .collect::<anyhow::Result<_>>()?,
        // Its DNS is a Service like others.
        local_addresses: Vec::new(),
        healthz: address(
            "healthz-bind-address",
            "/healthzBindAddress",
            (Ipv4Addr::UNSPECIFIED, HEALTH_PORT),
        )?,
        mode: address("metrics-bind-address", "/metricsBindAddress", (Ipv4Addr::LOCALHOST, STATUS_PORT))?,
    })
}

/// An address with or without a port.
fn endpoint(text: &str, port: u16) -> anyhow::Result<SocketAddr> {
    let with_port = text.parse::<SocketAddr>().ok();
    let address = with_port.or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port)));
    address.with_context(|| format!("{text:?} is no address"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;
    use serde_json::json;

    fn of(line: &str, file: serde_json::Value) -> anyhow::Result<proxy::Config> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let flags = Component::named("kube-proxy").unwrap().table().parse(&arguments)?;
        settings(&flags, &Document(file))
    }

    #[test]
    fn the_file_counts_and_the_node_is_named_by_the_flag() {
        let file = json!({"clusterCIDR": "10.1.0.0/16,fd00::/48", "hostnameOverride": "other",
            "healthzBindAddress": "127.0.0.1:1", "metricsBindAddress": "::1"});
        let config = of("--hostname-override=N1 --cluster-cidr=10.2.0.0/16", file).unwrap();
        assert_eq!((config.node.as_str(), config.cluster_cidrs.len()), ("n1", 2));
        assert_eq!(config.healthz, "127.0.0.1:1".parse().unwrap());
        assert_eq!(config.mode, "[::1]:10249".parse().unwrap());
        let bare = of("--hostname-override=n --cluster-cidr=10.2.0.0/16", serde_json::Value::Null).unwrap();
        assert_eq!(bare.cluster_cidrs, ["10.2.0.0/16".parse().unwrap()]);
        assert_eq!(bare.healthz, "0.0.0.0:10256".parse().unwrap());
        assert!(of("--cluster-cidr=x", serde_json::Value::Null).is_err());
    }
}
