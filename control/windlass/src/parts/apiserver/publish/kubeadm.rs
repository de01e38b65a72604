//! What `kubeadm join` reads of a cluster: ConfigMaps `kubeadm-config`, `kubelet-config` and `kube-proxy` in `kube-system`
//! (upstream: `cmd/kubeadm/app/phases/{uploadconfig,kubelet,addons/proxy}`).
//!
//! A map that carries the digest of its contents is ours to bring up to date, as kubeadm regenerates its own; one that was changed stays.

use super::{Facts, ensure};
use crate::parts::apiserver::storage::{self, SharedEtcd};
use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use machinery::release::KUBERNETES;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const NAMESPACE: &str = "kube-system";
/// kubeadm's own: the digest of contents that nobody changed.
const DIGEST: &str = "kubeadm.kubernetes.io/component-config.hash";
/// Where kubeadm writes the authority on a node.
const CERTIFICATES: &str = "/etc/kubernetes/pki";
const MANIFESTS: &str = "/etc/kubernetes/manifests";
const CLUSTER: &str = "kubernetes";
const MAP: &str = "kubeadm-config";
const KEY: &str = "ClusterConfiguration";
/// Where an API server on a node of kubeadm's is to find how objects are encrypted; its operator lays it there.
const ENCRYPTION: &str = "/etc/kubernetes/encryption-provider-config.yaml";

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

/// Names the members of etcd as they are now, for another control plane that joins; what somebody changed stays.
pub(crate) async fn follow_etcd(client: &kube::Client, endpoints: &[String]) -> anyhow::Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    // Until a server has published it, there is nothing to bring up to date.
    let Some(map) = api.get_opt(MAP).await.with_context(|| format!("read {MAP}"))? else { return Ok(()) };
    let held = map.data.unwrap_or_default();
    let signed = map.metadata.annotations.unwrap_or_default().remove(DIGEST);
    if signed != Some(digest(held.values())) {
        return Ok(());
    }
    let Some(text) = held.get(KEY).map_or(Ok(None), |text| moved(text, endpoints))? else { return Ok(()) };
    let patch = json!({
        "metadata": {
            "resourceVersion": map.metadata.resource_version,
            "annotations": {DIGEST: digest(std::iter::once(&text))},
        },
        "data": {KEY: &text},
    });
    let patched = api.patch(MAP, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.map(drop).with_context(|| format!("update {MAP}"))
}

/// The text of a configuration with these members; `None` where it names them already, or no etcd.
fn moved(text: &str, endpoints: &[String]) -> anyhow::Result<Option<String>> {
    let mut cluster: Value = serde_saphyr::from_str(text).with_context(|| format!("{MAP}: {KEY}"))?;
    let Some(named) = cluster.pointer_mut("/etcd/external/endpoints") else { return Ok(None) };
    let endpoints = json!(endpoints);
    if *named == endpoints {
        return Ok(None);
    }
    *named = endpoints;
    yaml(&cluster).map(Some)
}

fn yaml(value: &Value) -> anyhow::Result<String> {
    serde_saphyr::to_string(value).context("write a configuration")
}

/// Of the values in the order of their keys.
fn digest<'a>(values: impl Iterator<Item = &'a String>) -> String {
    let all: String = values.map(String::as_str).collect();
    format!("sha256:{}", pki::bootstrap::digest(all.as_bytes()))
}

fn maps(facts: &Facts<'_>) -> anyhow::Result<[(&'static str, Data); 3]> {
    Ok([
        (MAP, Data::from([(KEY, yaml(&cluster(facts))?)])),
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
    let mut cluster = json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "clusterName": CLUSTER,
        // a version of upstream's: kubeadm makes the names of images of it
        "kubernetesVersion": KUBERNETES,
        "controlPlaneEndpoint": facts.server.trim_start_matches("https://"),
        "certificatesDir": CERTIFICATES,
        "encryptionAlgorithm": "ECDSA-P256",
        "networking": {
            "dnsDomain": facts.domain,
            "podSubnet": joined(facts.pod_ranges),
            "serviceSubnet": joined(facts.service_ranges),
        },
    });
    let server = api_server(facts);
    if server.as_object().is_some_and(|server| !server.is_empty()) {
        cluster["apiServer"] = server;
    }
    if let Some(etcd) = facts.etcd {
        cluster["etcd"] = json!({ "external": external(etcd) });
    }
    cluster
}

/// What every API server must be told that kubeadm would not tell it by itself.
fn api_server(facts: &Facts<'_>) -> Value {
    let mut server = serde_json::Map::new();
    if !facts.names.is_empty() {
        server.insert("certSANs".to_owned(), json!(facts.names));
    }
    let mut arguments = Vec::new();
    if let Some(etcd) = facts.etcd {
        if etcd.prefix != storage::PREFIX {
            arguments.push(json!({"name": "etcd-prefix", "value": etcd.prefix}));
        }
        if etcd.encrypted {
            const NAME: &str = "encryption-provider-config";
            arguments.push(json!({"name": NAME, "value": ENCRYPTION}));
            // The pod waits for the file: a server without it would keep secrets in the open.
            let volume = json!({"name": NAME, "hostPath": ENCRYPTION, "mountPath": ENCRYPTION, "pathType": "File", "readOnly": true});
            server.insert("extraVolumes".to_owned(), json!([volume]));
        }
    }
    if !arguments.is_empty() {
        server.insert("extraArgs".to_owned(), arguments.into());
    }
    server.into()
}

/// To kubeadm, members beside our servers are external as those of others are: it would look for its own in static pods. The files are those it
/// gets from the Secret `kubeadm-certs`.
fn external(etcd: &SharedEtcd) -> Value {
    let file = |there: bool, name: &str| match there {
        true => format!("{CERTIFICATES}/{name}"),
        false => String::new(),
    };
    json!({
        "endpoints": etcd.endpoints,
        "caFile": file(etcd.authority, "etcd/ca.crt"),
        "certFile": file(etcd.client, "apiserver-etcd-client.crt"),
        "keyFile": file(etcd.client, "apiserver-etcd-client.key"),
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
