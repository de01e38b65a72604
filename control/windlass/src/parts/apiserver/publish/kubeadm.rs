//! What `kubeadm join` reads of a cluster: ConfigMaps `kubeadm-config`, `kubelet-config` and `kube-proxy` in `kube-system`
//! (upstream: `cmd/kubeadm/app/phases/{uploadconfig,kubelet,addons/proxy}`).
//!
//! A map that carries the digest of its contents is ours to bring up to date, as kubeadm regenerates its own; one that was changed stays.

use super::{Facts, ensure};
use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use machinery::release::GIT_VERSION;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const NAMESPACE: &str = "kube-system";
/// kubeadm's own: the digest of contents that nobody changed.
const DIGEST: &str = "kubeadm.kubernetes.io/component-config.hash";
/// Where kubeadm writes the authority on a node.
const CERTIFICATES: &str = "/etc/kubernetes/pki";
const MANIFESTS: &str = "/etc/kubernetes/manifests";
const CLUSTER: &str = "kubernetes";

type Data = BTreeMap<&'static str, String>;

pub(super) async fn write(client: &kube::Client, facts: &Facts<'_>) -> anyhow::Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    for (name, data) in maps(facts)? {
        let mut map =
            json!({"metadata": {"name": name, "annotations": {DIGEST: digest(data.values())}}, "data": data});
        if name == "kube-proxy" {
            map["metadata"]["labels"] = json!({"app": "kube-proxy"});
        }
        let stored = ensure(&api, map.clone()).await?;
        let held = stored.data.unwrap_or_default();
        let signed = stored.metadata.annotations.unwrap_or_default().remove(DIGEST);
        if signed.as_ref() == Some(&digest(held.values()))
            && !data.iter().all(|(k, v)| held.get(*k) == Some(v))
        {
            let patch = Patch::Merge(map);
            api.patch(name, &PatchParams::default(), &patch)
                .await
                .with_context(|| format!("update config map {NAMESPACE}/{name}"))?;
        }
    }
    Ok(())
}

/// Of the values in the order of their keys.
fn digest<'a>(values: impl Iterator<Item = &'a String>) -> String {
    let all: String = values.map(String::as_str).collect();
    format!("sha256:{}", pki::bootstrap::digest(all.as_bytes()))
}

fn maps(facts: &Facts<'_>) -> anyhow::Result<[(&'static str, Data); 3]> {
    let yaml = |value: &Value| serde_saphyr::to_string(value).context("write a configuration");
    Ok([
        ("kubeadm-config", Data::from([("ClusterConfiguration", yaml(&cluster(facts))?)])),
        ("kubelet-config", Data::from([("kubelet", yaml(&kubelet(facts))?)])),
        (
            "kube-proxy",
            Data::from([
                ("config.conf", yaml(&proxy(facts))?),
                ("kubeconfig.conf", yaml(&proxy_kubeconfig(facts))?),
            ]),
        ),
    ])
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn cluster(facts: &Facts<'_>) -> Value {
    json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "clusterName": CLUSTER,
        "kubernetesVersion": GIT_VERSION,
        "controlPlaneEndpoint": facts.server.trim_start_matches("https://"),
        "certificatesDir": CERTIFICATES,
        "encryptionAlgorithm": "ECDSA-P256",
        "networking": {
            "dnsDomain": facts.domain,
            "podSubnet": joined(facts.pod_ranges),
            "serviceSubnet": joined(facts.service_ranges),
        },
    })
}

fn kubelet(facts: &Facts<'_>) -> Value {
    let dns: Vec<String> = facts.dns.iter().map(ToString::to_string).collect();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"cacheTTL": "0s", "enabled": true},
            "x509": {"clientCAFile": format!("{CERTIFICATES}/ca.crt")},
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": {"cacheAuthorizedTTL": "0s", "cacheUnauthorizedTTL": "0s"},
        },
        "cgroupDriver": "systemd",
        "clusterDNS": dns,
        "clusterDomain": facts.domain,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        "rotateCertificates": true,
        // the API server asks kubelets for certificates of the cluster's authority
        "serverTLSBootstrap": true,
        "staticPodPath": MANIFESTS,
    })
}

fn proxy(facts: &Facts<'_>) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf"},
        "clusterCIDR": joined(facts.pod_ranges),
        "mode": "nftables",
    })
}

/// What a proxy in a pod reads: its account's token, as every pod has it.
fn proxy_kubeconfig(facts: &Facts<'_>) -> Value {
    const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default", "cluster": {
            "certificate-authority": format!("{ACCOUNT}/ca.crt"), "server": facts.server}}],
        "contexts": [{"name": "default", "context": {"cluster": "default", "namespace": "default", "user": "default"}}],
        "current-context": "default",
        "users": [{"name": "default", "user": {"tokenFile": format!("{ACCOUNT}/token")}}],
    })
}
