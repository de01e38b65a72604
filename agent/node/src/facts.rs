//! What nobody told an agent and its cluster says: ranges of pods and Services, the domain and where it is answered. From the ConfigMaps that
//! `kubeadm join` reads, ours or kubeadm's.
//!
//! Asked once at each start, with the node's own credentials, before anything is started; kept on disk for a start while no server answers. What
//! flags or files say goes before it; a cluster that says nothing leaves the defaults.

use crate::Config;
use crate::address;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use supervise::chain;

const NAMESPACE: &str = "kube-system";
/// A map and what of it is read.
const CLUSTER: (&str, &str) = ("kubeadm-config", "ClusterConfiguration");
const KUBELET: (&str, &str) = ("kubelet-config", "kubelet");
/// Where they are kept in the agent's directory.
const FILE: &str = "cluster.json";
/// How long a server may take to answer: what was known is as good.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a cluster says; empty where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    domain: String,
    dns: Vec<IpAddr>,
    pods: Vec<IpNet>,
    services: Vec<IpNet>,
}

impl Facts {
    /// Reads a `ClusterConfiguration` of kubeadm's and a `KubeletConfiguration`; what of them cannot be read is not said.
    fn read(cluster: &str, kubelet: &str) -> Self {
        let parse = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap_or_default();
        let (cluster, kubelet) = (parse(cluster), parse(kubelet));
        let text = |value: &Value, pointer: &str| {
            value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let ranges = |pointer: &str| nets(text(&cluster, pointer).split(','));
        let domain = text(&kubelet, "/clusterDomain");
        let dns = kubelet["clusterDNS"].as_array().into_iter().flatten();
        Self {
            domain: if domain.is_empty() { text(&cluster, "/networking/dnsDomain") } else { domain },
            dns: dns.filter_map(|ip| ip.as_str()?.parse().ok()).collect(),
            pods: ranges("/networking/podSubnet"),
            services: ranges("/networking/serviceSubnet"),
        }
    }

    fn of_file(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let texts = |field: &str| -> Vec<String> {
            value[field]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|t| Some(t.as_str()?.to_owned()))
                .collect()
        };
        Self {
            domain: value["domain"].as_str().unwrap_or_default().to_owned(),
            dns: texts("dns").iter().filter_map(|ip| ip.parse().ok()).collect(),
            pods: nets(texts("pods").iter().map(String::as_str)),
            services: nets(texts("services").iter().map(String::as_str)),
        }
    }

    fn to_file(&self) -> String {
        let texts = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
        let Self { domain, dns, pods, services } = self;
        json!({"domain": domain, "dns": dns, "pods": texts(pods), "services": texts(services)}).to_string()
    }

    /// Fills in what nobody said. `find` gives the node's addresses for pods of these ranges, when one was found already.
    fn fill(self, config: &mut Config, find: impl FnOnce(IpAddr, &[IpNet]) -> Vec<IpAddr>) {
        let unsaid = config.unsaid;
        if unsaid.cluster_cidrs && !self.pods.is_empty() {
            config.cluster_cidrs = self.pods;
        }
        if unsaid.service_cidrs && !self.services.is_empty() {
            config.service_cidrs = self.services;
        }
        if unsaid.cluster_dns && !self.dns.is_empty() {
            config.cluster_dns = self.dns;
        }
        if unsaid.cluster_domain && !self.domain.is_empty() {
            config.cluster_domain = self.domain;
        }
        if unsaid.node_ips
            && let Some(first) = config.node_ips.first().copied()
        {
            config.node_ips = find(first, &config.cluster_cidrs);
        }
    }
}

fn nets<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<IpNet> {
    texts.filter_map(|text| text.trim().parse().ok()).collect()
}

/// Asks the cluster, and fills in what nobody said.
pub(crate) async fn learn(client: &kube::Client, config: &mut Config) {
    if config.unsaid == crate::config::Unsaid::default() {
        return;
    }
    let path = config.agent_dir().join(FILE);
    let asked = tokio::time::timeout(PATIENCE, ask(client)).await;
    let facts = match asked.unwrap_or(Err(None)) {
        Ok(facts) => {
            keep(&path, &facts);
            facts
        }
        Err(error) => {
            let why = error.map_or_else(|| "no answer".to_owned(), |error| chain(&error));
            tracing::info!(why, "what the cluster says of itself is as it was");
            Facts::of_file(&pki::files::read_optional(&path).ok().flatten().unwrap_or_default())
        }
    };
    facts.fill(config, address::of_node);
    tracing::info!(
        ips = ?config.node_ips, pods = ?config.cluster_cidrs, dns = ?config.cluster_dns, domain = config.cluster_domain,
        "the cluster as it is known"
    );
}

async fn ask(client: &kube::Client) -> Result<Facts, Option<kube::Error>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let text = async |(name, key): (&str, &str)| {
        let map = match api.get_opt(name).await {
            // Not every cluster shows it to its nodes.
            Err(kube::Error::Api(status)) if status.code == 403 => None,
            other => other.map_err(Some)?,
        };
        let text = map.and_then(|map| map.data?.remove(key));
        Ok::<_, Option<kube::Error>>(text.unwrap_or_default())
    };
    let (cluster, kubelet) = tokio::try_join!(text(CLUSTER), text(KUBELET))?;
    Ok(Facts::read(&cluster, &kubelet))
}

fn keep(path: &Path, facts: &Facts) {
    let text = facts.to_file();
    if pki::files::read_optional(path).ok().flatten().as_deref() == Some(&text) {
        return;
    }
    if let Err(error) = pki::files::write_atomic(path, text.as_bytes(), pki::files::PRIVATE) {
        tracing::warn!(error = %chain(&error), "keep what the cluster says of itself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Unsaid;

    const OURS: &str = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nnetworking:\n  dnsDomain: c.example\n  \
        podSubnet: 10.1.0.0/16,fd01::/56\n  serviceSubnet: 10.2.0.0/16, fd02::/112\n";
    const KUBELETS: &str =
        "kind: KubeletConfiguration\nclusterDNS: [10.2.0.10, 'fd02::a']\nclusterDomain: c.example\n";

    fn config(unsaid: Unsaid) -> Config {
        let mut config = Config::new("n1", vec![[192, 0, 2, 1].into()]);
        config.cluster_cidrs = nets(["10.244.0.0/16"].into_iter());
        config.unsaid = unsaid;
        config
    }

    fn both(own: IpAddr, ranges: &[IpNet]) -> Vec<IpAddr> {
        let other = ranges.iter().find(|range| range.addr().is_ipv6() != own.is_ipv6());
        std::iter::once(own).chain(other.map(IpNet::addr)).collect()
    }

    #[test]
    fn a_node_must_not_keep_defaults_that_are_not_its_clusters() {
        let unsaid = Unsaid {
            node_ips: true,
            cluster_cidrs: true,
            service_cidrs: true,
            cluster_dns: true,
            cluster_domain: true,
        };
        let mut config = config(unsaid);
        Facts::read(OURS, KUBELETS).fill(&mut config, both);
        assert_eq!(config.cluster_cidrs, nets(["10.1.0.0/16", "fd01::/56"].into_iter()));
        assert_eq!(config.service_cidrs, nets(["10.2.0.0/16", "fd02::/112"].into_iter()));
        assert_eq!(config.cluster_dns.len(), 2);
        assert_eq!(config.cluster_domain, "c.example");
        assert_eq!(config.node_ips.len(), 2, "one of each family");
    }

    #[test]
    fn what_was_said_must_not_be_the_clusters() {
        let mut said = config(Unsaid { cluster_domain: true, ..Unsaid::default() });
        let before = said.clone();
        Facts::read(OURS, KUBELETS).fill(&mut said, both);
        assert_eq!(said.cluster_domain, "c.example");
        assert_eq!((said.cluster_cidrs, said.cluster_dns), (before.cluster_cidrs, before.cluster_dns));
        assert_eq!(said.node_ips, before.node_ips);
    }

    #[test]
    fn a_cluster_that_says_nothing_must_not_take_the_defaults_away() {
        let all =
            Unsaid { cluster_cidrs: true, cluster_dns: true, cluster_domain: true, ..Unsaid::default() };
        for (cluster, kubelet) in
            [("", ""), ("- a\n", "x: ["), ("networking: {podSubnet: ''}", "clusterDNS: []")]
        {
            let mut config = config(all);
            let before = config.clone();
            Facts::read(cluster, kubelet).fill(&mut config, both);
            assert_eq!(
                (&config.cluster_cidrs, &config.cluster_domain),
                (&before.cluster_cidrs, &before.cluster_domain)
            );
            assert_eq!(config.cluster_dns, before.cluster_dns, "{cluster:?} {kubelet:?}");
        }
    }

    #[test]
    fn what_is_kept_is_read_again_and_nonsense_is_nothing() {
        let facts = Facts::read(OURS, KUBELETS);
        assert_eq!(Facts::of_file(&facts.to_file()), facts);
        for nonsense in ["", "[]", "{\"pods\": 1, \"dns\": [2, \"x\"]}"] {
            assert_eq!(Facts::of_file(nonsense), Facts::default(), "{nonsense}");
        }
    }
}
