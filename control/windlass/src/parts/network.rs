//! The pod network alone: the CNI configuration, routes to other nodes' pods, masquerading, and network policies. Its flags are ours.

use super::{alone, kubeconfig};
use crate::flags::Flags;
use anyhow::Context as _;
use ipnet::IpNet;

/// Runs until a signal.
pub(crate) async fn run(flags: Flags) -> anyhow::Result<()> {
    let settings = settings(&flags)?;
    let (client, renewal) = kubeconfig::of_flags(&flags, None).await?;
    alone::run_all(renewal, |supervisor| {
        vec![
            node::tasks::network(settings.network, client.clone(), client.clone(), supervisor),
            node::tasks::policy(settings.policy, settings.wanted, client, supervisor),
        ]
    })
    .await
}

/// What the part is told.
struct Settings {
    network: network::Config,
    policy: policy::Config,
    /// Policies are in force.
    wanted: bool,
}

fn settings(flags: &Flags) -> anyhow::Result<Settings> {
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
    config.pod_network = crate::settings::pod_network(flags.list("pod-network").unwrap_or_default())?;
    config.network_policy = flags.bool("network-policy") != Some(false);
    Ok(Settings {
        network: config.cluster_network()?,
        policy: config.policy(),
        wanted: config.network_policy,
    })
}
