//! The cluster's DNS alone: what answers a node's pods on the cluster's DNS addresses. Its flags are ours.

use super::{alone, kubeconfig};
use crate::flags::Flags;
use anyhow::bail;
use std::net::IpAddr;

/// Runs until a signal.
pub(crate) async fn run(flags: Flags) -> anyhow::Result<()> {
    let settings = settings(&flags)?;
    let (client, renewal) = kubeconfig::of_flags(&flags, None).await?;
    alone::run(renewal, |supervisor| node::tasks::dns(settings, client, supervisor)).await
}

fn settings(flags: &Flags) -> anyhow::Result<dns::Config> {
    let addresses = flags.list("cluster-dns").unwrap_or_default();
    if addresses.is_empty() {
        bail!("--cluster-dns is a required flag");
    }
    let parse =
        |text: &String| text.parse().map_err(|_| anyhow::anyhow!("--cluster-dns: {text:?} is no address"));
    Ok(dns::Config {
        addresses: addresses.iter().map(parse).collect::<anyhow::Result<Vec<IpAddr>>>()?,
        domain: flags.text("cluster-domain").unwrap_or("cluster.local").to_owned(),
        resolv_conf: flags.text("resolv-conf").map_or_else(node::config::default_resolv_conf, Into::into),
    })
}
