//! Flags of `server` about LoadBalancer Services.

use anyhow::{Context as _, bail};
use clap::Args;
use controllers::{LoadBalancing, Pool};
use serde::{Deserialize, Serialize};

/// The pool that a flag makes.
const POOL: &str = "default";

/// Where LoadBalancer Services get their addresses.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct BalancingFlags {
    /// Addresses of LoadBalancer Services: FIRST-LAST or CIDR, or `nodes` for the nodes' own; the ConfigMap
    /// kube-system/windlass-load-balancer counts in its place [default: none; such Services stay pending]
    #[arg(long, env = "WINDLASS_LOAD_BALANCER_POOL", value_delimiter = ',', value_name = "RANGE")]
    pub(crate) load_balancer_pool: Vec<String>,
    /// `external`: a program of the cloud gives Services their load balancers
    #[arg(long, env = "WINDLASS_CLOUD_PROVIDER", value_name = "NAME")]
    pub(crate) cloud_provider: Option<String>,
}

impl BalancingFlags {
    /// What the controller is told.
    pub(crate) fn settings(&self) -> anyhow::Result<LoadBalancing> {
        let external = match self.cloud_provider.as_deref() {
            None | Some("") => false,
            Some("external") => true,
            Some(other) => bail!("--cloud-provider={other}: only `external` is known"),
        };
        let pools = match self.load_balancer_pool.as_slice() {
            [] => Vec::new(),
            [nodes] if nodes == "nodes" => vec![Pool::of_nodes(POOL)],
            ranges => vec![Pool::of_ranges(POOL, ranges).context("--load-balancer-pool")?],
        };
        Ok(LoadBalancing { pools, external })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pool: &[&str], cloud: Option<&str>) -> Result<LoadBalancing, String> {
        let load_balancer_pool = pool.iter().map(|range| (*range).to_owned()).collect();
        let flags = BalancingFlags { load_balancer_pool, cloud_provider: cloud.map(str::to_owned) };
        flags.settings().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn without_flags_nothing_is_given() {
        assert_eq!(of(&[], None), Ok(LoadBalancing::default()));
        assert!(of(&["192.0.2.1-192.0.2.9", "2001:db8::/120"], None).is_ok_and(|set| set.pools.len() == 1));
        assert!(of(&["nodes"], Some("external")).is_ok_and(|set| set.external && set.pools[0].is_nodes()));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        assert!(of(&["nodes", "192.0.2.1"], None).unwrap_err().contains("\"nodes\""));
        assert!(of(&["192.0.2.9-192.0.2.1"], None).unwrap_err().contains("--load-balancer-pool"));
        assert!(of(&[], Some("aws")).unwrap_err().contains("aws"));
    }
}
