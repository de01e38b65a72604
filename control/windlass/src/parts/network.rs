//! The pod network alone: the CNI configuration, routes to other nodes' pods and masquerading. Its flags are ours.

use super::{alone, kubeconfig};
use crate::flags::Flags;
use anyhow::Context as _;
use ipnet::IpNet;

/// Runs until a signal.
pub(crate) async fn run(flags: Flags) -> anyhow::Result<()> {
    let settings = settings(&flags)?;
    let (client, renewal) = kubeconfig::of_flags(&flags, None).await?;
    alone::run(renewal, |supervisor| node::tasks::network(settings, client.clone(), client, supervisor)).await
}

fn settings(flags: &Flags) -> anyhow::Result<network::Config> {
    let cidrs = flags.list("cluster-cidr").unwrap_or_default();
    let parse = |text: &String| text.parse::<IpNet>().with_context(|| format!("--cluster-cidr: {text:?}"));
    let mut config = node::Config::new(&super::node_name(flags.text("hostname-override"))?, Vec::new());
    config.cluster_cidrs = cidrs.iter().map(parse).collect::<anyhow::Result<_>>()?;
    for (name, field) in
        [("cni-conf-dir", &mut config.cni_conf_dir), ("cni-bin-dir", &mut config.cni_bin_dir)]
    {
        if let Some(path) = flags.text(name) {
            *field = path.into();
        }
    }
    Ok(config.network()?)
}
