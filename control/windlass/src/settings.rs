//! A command's settings: flags over environment (both by clap) over the configuration file over defaults.
//!
//! The file is YAML whose keys are flags without their dashes. `server` and `agent` may share one: keys of the other are
//! fine, keys of neither are an error.

use crate::cli::{AgentFlags, DATA_DIR, NodeFlags, ServerFlags};
use crate::ranges;
use anyhow::{Context as _, anyhow, bail};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Taint;
use node::config::Unsaid;
use pki::part::NodePart;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where the configuration file is looked for.
const FILE: &str = "/etc/windlass/config.yaml";

/// Fills what flags leave open from the file: the named one, or the usual one if it is there. An empty name means none.
pub(crate) fn merge<T: Serialize + DeserializeOwned>(flags: T, file: &Option<PathBuf>) -> anyhow::Result<T> {
    let Some((path, text)) = read(file)? else { return Ok(flags) };
    merge_text(flags, &text).with_context(|| reading(&path))
}

/// The same, and the settings that are wrong: for those who undo, whom no wrong word may keep from it.
///
/// # Errors
/// The file cannot be read as settings at all: nobody knows then where the machine's things are.
pub(crate) fn merge_leniently<T: Serialize + DeserializeOwned>(
    flags: T,
    file: &Option<PathBuf>,
) -> anyhow::Result<(T, Vec<anyhow::Error>)> {
    let Some((path, text)) = read(file)? else { return Ok((flags, Vec::new())) };
    let (merged, wrong) = laid_over(flags, &text).with_context(|| reading(&path))?;
    Ok((merged, wrong.into_iter().map(|error| error.context(reading(&path))).collect()))
}

fn reading(path: &Path) -> String {
    format!("read configuration {}", path.display())
}

/// The file and its text; none where there is none to be read.
fn read(file: &Option<PathBuf>) -> anyhow::Result<Option<(PathBuf, String)>> {
    let path = file.clone().unwrap_or_else(|| FILE.into());
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(e) if file.is_none() && e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| reading(&path)),
    }
}

fn merge_text<T: Serialize + DeserializeOwned>(flags: T, text: &str) -> anyhow::Result<T> {
    let (merged, wrong) = laid_over(flags, text)?;
    wrong.into_iter().next().map_or(Ok(merged), Err)
}

/// Flags, and what a file says where they say nothing; what of the file is wrong is told, and left out.
fn laid_over<T: Serialize + DeserializeOwned>(
    flags: T,
    text: &str,
) -> anyhow::Result<(T, Vec<anyhow::Error>)> {
    let file: Value = serde_saphyr::from_str(text).map_err(|e| anyhow!("{}", e.to_string().trim()))?;
    let mut file = match file {
        Value::Null => return Ok((flags, Vec::new())),
        Value::Object(map) => map,
        _ => bail!("a mapping of settings is expected"),
    };
    let mut merged = fields(&flags)?;
    let known: [Map<String, Value>; 2] = [fields(&ServerFlags::default())?, fields(&AgentFlags::default())?];
    let unknown = file.keys().filter(|key| !known.iter().any(|k| k.contains_key(*key)));
    let mut wrong: Vec<anyhow::Error> = unknown.map(|key| anyhow!("unknown setting {key:?}")).collect();
    for (name, value) in &mut merged {
        let unset =
            matches!(value, Value::Null | Value::Bool(false)) || value.as_array().is_some_and(Vec::is_empty);
        let Some(given) = file.remove(name).filter(|_| unset) else { continue };
        // A list of one may be written without its dash.
        let listed = value.is_array() && !given.is_array();
        let given = if listed { Value::Array(vec![given]) } else { given };
        // One setting at a time, so that an error names its setting.
        let one = Map::from_iter([(name.clone(), given.clone())]);
        match serde_json::from_value::<T>(Value::Object(one)).with_context(|| format!("setting {name:?}")) {
            Ok(_) => *value = given,
            Err(error) => wrong.push(error),
        }
    }
    Ok((serde_json::from_value(Value::Object(merged))?, wrong))
}

/// Every setting by name, those that are not given as null, false or an empty list.
pub(crate) fn fields(flags: &impl Serialize) -> anyhow::Result<Map<String, Value>> {
    match serde_json::to_value(flags)? {
        Value::Object(map) => Ok(map),
        _ => bail!("settings are no mapping"),
    }
}

impl NodeFlags {
    /// The directory of all state of ours.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| DATA_DIR.into())
    }

    /// Address ranges of all pods.
    pub(crate) fn cluster_cidrs(&self) -> Vec<IpNet> {
        or_default(&self.cluster_cidr, IpNet::new_assert([10, 244, 0, 0].into(), 16))
    }

    /// Address ranges of services.
    pub(crate) fn service_cidrs(&self) -> Vec<IpNet> {
        or_default(&self.service_cidr, IpNet::new_assert([10, 96, 0, 0].into(), 12))
    }

    /// Addresses of the cluster's DNS.
    pub(crate) fn cluster_dns(&self) -> anyhow::Result<Vec<IpAddr>> {
        if !self.cluster_dns.is_empty() {
            return Ok(self.cluster_dns.clone());
        }
        self.service_cidrs().iter().map(|range| nth_address(range, 10)).collect()
    }

    pub(crate) fn cluster_domain(&self) -> String {
        self.cluster_domain.clone().unwrap_or_else(|| "cluster.local".to_owned())
    }

    /// The node's configuration; `towards` is the server, which its own address is found by.
    pub(crate) fn config(&self, towards: Option<&http::Uri>) -> anyhow::Result<node::Config> {
        let name = match &self.node_name {
            Some(name) => name.clone(),
            None => node::config::host_name().context("read the host name; give --node-name")?,
        };
        node::config::check_node_name(&name).map_err(|e| anyhow!(e))?;
        ranges::check("cluster-cidr", &self.cluster_cidr)?;
        ranges::check("service-cidr", &self.service_cidr)?;
        let ips = match self.node_ip.as_slice() {
            [] => node::address::of_node(node::address::own(towards)?, &self.cluster_cidr),
            ips => ips.to_vec(),
        };
        let mut config = node::Config::new(&name, ips);
        let set = |to: &mut PathBuf, from: &Option<PathBuf>| {
            if let Some(path) = from {
                to.clone_from(path);
            }
        };
        config.unsaid = Unsaid {
            node_ips: self.node_ip.is_empty(),
            cluster_cidrs: self.cluster_cidr.is_empty(),
            service_cidrs: self.service_cidr.is_empty(),
            cluster_dns: self.cluster_dns.is_empty() && self.service_cidr.is_empty(),
            cluster_domain: self.cluster_domain.is_none(),
        };
        config.data_dir = self.data_dir();
        set(&mut config.kubelet_root, &self.kubelet_root);
        set(&mut config.pod_logs_dir, &self.pod_logs_dir);
        set(&mut config.container_logs_dir, &self.container_logs_dir);
        set(&mut config.cni_conf_dir, &self.cni_conf_dir);
        set(&mut config.cni_bin_dir, &self.cni_bin_dir);
        config.runtime_endpoint.clone_from(&self.container_runtime_endpoint);
        config.cluster_dns = self.cluster_dns()?;
        config.cluster_domain = self.cluster_domain();
        config.cluster_cidrs = self.cluster_cidrs();
        config.service_cidrs = self.service_cidrs();
        if self.static_pod_path.is_some() {
            config.static_pod_path.clone_from(&self.static_pod_path);
        }
        let given = [
            (NodePart::Proxy, &self.proxy_kubeconfig),
            (NodePart::Dns, &self.dns_kubeconfig),
            (NodePart::Network, &self.network_kubeconfig),
        ];
        config.part_kubeconfigs =
            given.into_iter().filter_map(|(part, path)| Some((part, path.clone()?))).collect();
        config.kubelet_config.clone_from(&self.kubelet_config);
        config.credential_providers =
            self.image_credential_provider_config.clone().zip(self.image_credential_provider_bin_dir.clone());
        config.cgroup_root.clone_from(&self.cgroup_root);
        config.network_policy = !self.no_network_policy;
        config.pod_network = pod_network(&self.pod_network)?;
        config.labels = self.node_label.iter().map(|l| parse_label(l)).collect::<Result<_, _>>()?;
        config.taints = self.node_taint.iter().map(|t| parse_taint(t)).collect::<Result<_, _>>()?;
        Ok(config)
    }
}

impl ServerFlags {
    /// Bits of the ranges of pods that each node gets, of IPv4 and of IPv6.
    pub(crate) fn node_prefixes(&self) -> (u8, u8) {
        let usual = controllers::Ranges::default().prefixes;
        (self.node_cidr_mask_size_ipv4.unwrap_or(usual.0), self.node_cidr_mask_size_ipv6.unwrap_or(usual.1))
    }
}

fn or_default(given: &[IpNet], default: IpNet) -> Vec<IpNet> {
    if given.is_empty() { vec![default] } else { given.to_vec() }
}

/// The n-th address of a range, counted from its first (the network's own).
pub(crate) fn nth_address(range: &IpNet, n: u32) -> anyhow::Result<IpAddr> {
    let address = match range.network() {
        IpAddr::V4(first) => {
            u32::from(first).checked_add(n).map(|a| IpAddr::from(std::net::Ipv4Addr::from(a)))
        }
        IpAddr::V6(first) => {
            u128::from(first).checked_add(n.into()).map(|a| IpAddr::from(std::net::Ipv6Addr::from(a)))
        }
    };
    address
        .filter(|a| range.contains(a))
        .ok_or_else(|| anyhow!("the range {range} has no address number {n}"))
}

/// Settings of the pod network, each `key=value`.
pub(crate) fn pod_network(texts: &[String]) -> anyhow::Result<network::Settings> {
    let mut settings = network::Settings::default();
    for text in texts {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        settings.set(key, value).map_err(|reason| anyhow!("pod network setting {text:?}: {reason}"))?;
    }
    Ok(settings)
}

pub(crate) fn parse_label(text: &str) -> anyhow::Result<(String, String)> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        bail!("node label {text:?} is not of the form key=value");
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `key=value:Effect`, `key:Effect`, as upstream's `--register-with-taints`.
pub(crate) fn parse_taint(text: &str) -> anyhow::Result<Taint> {
    let wrong = || anyhow!("invalid taint spec: {text}");
    let (rest, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        bail!("invalid taint effect: {effect}, unsupported taint effect");
    }
    let (key, value) = match rest.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (rest, None),
    };
    if key.is_empty() {
        return Err(wrong());
    }
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

/// The arguments that give `flags` to a command again.
pub(crate) fn to_arguments(flags: &impl Serialize) -> anyhow::Result<Vec<String>> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut arguments = Vec::new();
    for (name, value) in fields(flags)? {
        match &value {
            Value::Null | Value::Bool(false) => {}
            Value::Bool(true) => arguments.push(format!("--{name}")),
            Value::Array(list) => arguments.extend(list.iter().map(|v| format!("--{name}={}", text(v)))),
            one => arguments.push(format!("--{name}={}", text(one))),
        }
    }
    Ok(arguments)
}

/// Where the server keeps its own state.
pub(crate) fn server_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("server")
}

/// The embedded store's file in the server's directory.
pub(crate) const STORE_FILE: &str = "store.redb";

pub(crate) fn store_file(server_dir: &Path) -> PathBuf {
    server_dir.join(STORE_FILE)
}

/// etcd's objects as a snapshot has them, beside what a server has: the next start makes its first member of them.
pub(crate) const ETCD_FILE: &str = "etcd.db";

pub(crate) fn etcd_file(server_dir: &Path) -> PathBuf {
    server_dir.join(ETCD_FILE)
}

/// What it is called once that is done.
pub(crate) fn restored_etcd_file(server_dir: &Path) -> PathBuf {
    server_dir.join(format!("{ETCD_FILE}.restored"))
}

/// What the embedded store is called once it has moved to etcd.
pub(crate) fn moved_store_file(server_dir: &Path) -> PathBuf {
    server_dir.join(format!("{STORE_FILE}.moved"))
}

/// Where snapshots go unless told otherwise.
pub(crate) fn snapshot_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("snapshots")
}

pub(crate) fn admin_kubeconfig(data_dir: &Path) -> PathBuf {
    server_dir(data_dir).join("admin.kubeconfig")
}

#[cfg(test)]
mod tests;
