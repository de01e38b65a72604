//! What a new cluster needs to be joined, written through its own API: the system namespaces, `cluster-info` for machines
//! that do not know us yet, the bindings that let bootstrap tokens ask for node certificates, and the given token.
//!
//! Runs once at every start. Promises: what is there and right stays; what an administrator added to roles and bindings stays, and what he
//! took from them where he says so ([`super::roles`]).
//! Names are kubeadm's, so that its users and tools find what they know. [`roles`]: who may what; [`kubeadm`]: what `kubeadm join` reads.

pub(crate) mod kubeadm;
mod roles;

use super::storage::SharedEtcd;
use anyhow::Context as _;
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use pki::Kubeconfig;
use pki::bootstrap::{BootstrapToken, SECRET_NAMESPACE, SECRET_TYPE};
use pki::kubeconfig::Credentials;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};

/// Namespaces every cluster has.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const INFO_NAMESPACE: &str = "kube-public";
const INFO: &str = "cluster-info";
/// On it: the server that the operator has chosen for all.
const CHOSEN: &str = "windlass.dev/control-plane-endpoint";
const RBAC: &str = "rbac.authorization.k8s.io";

/// What joining machines read of a cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// The API server as they reach it.
    pub(crate) server: &'a str,
    /// With several servers, another one's address in `cluster-info` is as good as ours.
    pub(crate) several: bool,
    /// The operator has chosen it for all servers.
    pub(crate) chosen: bool,
    /// The one that is there no more, where `cluster-info` names such.
    pub(crate) gone: Option<&'a str>,
    /// The authorities of its certificate, as PEM.
    pub(crate) ca_pem: &'a str,
    /// The cluster's DNS domain, and where it is answered.
    pub(crate) domain: &'a str,
    pub(crate) dns: &'a [IpAddr],
    pub(crate) pod_ranges: &'a [IpNet],
    pub(crate) service_ranges: &'a [IpNet],
    /// Other names and addresses of every API server's certificate.
    pub(crate) names: &'a [String],
    /// Where objects are; none where nobody else can get at them.
    pub(crate) etcd: Option<&'a SharedEtcd>,
}

pub(crate) async fn publish(
    client: &kube::Client,
    facts: Facts<'_>,
    token: Option<&BootstrapToken>,
) -> anyhow::Result<()> {
    namespaces(client).await?;
    endpoint(client, facts).await?;
    roles::write(client).await?;
    if let Some(token) = token {
        let description = "The server's --token";
        match create_token(client, token, description, None).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            done => done.context("create the bootstrap token")?,
        }
        sign_cluster_info(client, token).await?;
    }
    Ok(())
}

/// The server that those are told of who join, in all that names it.
pub(crate) async fn endpoint(client: &kube::Client, facts: Facts<'_>) -> anyhow::Result<()> {
    let told = cluster_info(client, &facts).await?;
    // One endpoint for all who join: servers that start one after the other must not each write their own.
    kubeadm::write(client, &Facts { server: &told, ..facts }).await
}

/// The server that `cluster-info` names, unless the operator has chosen it: then it is nobody's to look after.
pub(crate) async fn told(client: &kube::Client) -> anyhow::Result<Option<String>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), INFO_NAMESPACE);
    let info = api.get_opt(INFO).await.context("read kube-public/cluster-info")?;
    let text = info.filter(|info| !is_chosen(info)).and_then(|info| info.data?.remove("kubeconfig"));
    Ok(text.and_then(|text| Some(Kubeconfig::parse(&text).ok()?.cluster().ok()?.server.clone())))
}

/// The API servers there are: the endpoints of the Service `kubernetes`.
pub(crate) async fn living(client: &kube::Client) -> anyhow::Result<Vec<SocketAddr>> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let of_api = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
    let slices = api.list(&of_api).await.context("list the API servers")?;
    let each = slices.items.iter().flat_map(|slice| {
        let ports = slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok());
        let ports: Vec<u16> = ports.collect();
        let addresses = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
        let ips = addresses.filter_map(|text| text.parse::<IpAddr>().ok());
        ips.flat_map(move |ip| ports.clone().into_iter().map(move |port| SocketAddr::new(ip, port)))
    });
    Ok(each.collect())
}

/// Whether `server` may be told to those who join, where `living` are the servers there are and `own` the addresses in this one's certificate. A
/// name, and an address that this server's operator has given it, lead to whichever server is there. Pure.
pub(crate) fn is_there(server: &str, living: &[SocketAddr], own: &[IpAddr]) -> bool {
    let Ok(server) = server.parse::<http::Uri>() else { return false };
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let Ok(ip) = host.parse::<IpAddr>() else { return true };
    // Servers on a loopback are in nobody's endpoints.
    living.is_empty()
        || own.contains(&ip)
        || living.contains(&SocketAddr::new(ip, server.port_u16().unwrap_or(443)))
}

/// The namespaces every cluster has.
pub(super) async fn namespaces(client: &kube::Client) -> anyhow::Result<()> {
    for name in NAMESPACES {
        let namespace = json!({"metadata": {"name": name}});
        ensure::<Namespace>(&Api::all(client.clone()), namespace).await?;
    }
    Ok(())
}

fn is_chosen(info: &ConfigMap) -> bool {
    info.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(CHOSEN))
}

/// What a cluster says to machines that do not know it; gives the server it names.
pub(crate) async fn cluster_info(client: &kube::Client, facts: &Facts<'_>) -> anyhow::Result<String> {
    let Facts { server, ca_pem, several, chosen, gone, .. } = *facts;
    let text = |server: &str| Kubeconfig::new("", server, ca_pem, "", Credentials::Anonymous).to_yaml();
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), INFO_NAMESPACE);
    let annotations = if chosen { json!({CHOSEN: server}) } else { json!({}) };
    let metadata = json!({"name": INFO, "annotations": annotations});
    let stored = ensure(&api, json!({"metadata": metadata, "data": {"kubeconfig": text(server)?}})).await?;
    let current = stored.data.as_ref().and_then(|data| data.get("kubeconfig"));
    let said = current.and_then(|text| Kubeconfig::parse(text).ok());
    let said = said.as_ref().and_then(|said| said.cluster().ok());
    // What was chosen at one server is kept by those that say nothing.
    // But the one that withdraws it does not.
    let kept =
        said.filter(|said| several && !chosen && is_chosen(&stored) && gone != Some(said.server.as_str()));
    let (server, chosen) = kept.map_or((server, chosen), |said| (said.server.as_str(), true));
    let kubeconfig = text(server)?;
    let other = said.filter(|said| {
        let good = gone != Some(&said.server) && said.authority_pem().is_ok_and(|pem| pem == ca_pem);
        several && !chosen && good
    });
    let moved = current != Some(&kubeconfig);
    if (moved || is_chosen(&stored) != chosen) && other.is_none() {
        // Signatures of other tokens are of the old text: their holders must not take this one for genuine.
        let mut data = serde_json::Map::from_iter([("kubeconfig".to_owned(), Value::String(kubeconfig))]);
        let keys = stored.data.iter().flatten().map(|(key, _)| key);
        data.extend(
            keys.filter(|k| moved && k.starts_with("jws-kubeconfig-")).map(|k| (k.clone(), Value::Null)),
        );
        let note = if chosen { json!(server) } else { Value::Null };
        let patch = Patch::Merge(json!({"metadata": {"annotations": {CHOSEN: note}}, "data": data}));
        api.patch(INFO, &PatchParams::default(), &patch).await.context("update kube-public/cluster-info")?;
    }
    let told = other.map_or_else(|| server.to_owned(), |said| said.server.clone());
    let roles: Api<Role> = Api::namespaced(client.clone(), INFO_NAMESPACE);
    let name = "kubeadm:bootstrap-signer-clusterinfo";
    let rule =
        json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [INFO], "verbs": ["get"]});
    ensure(&roles, json!({"metadata": {"name": name}, "rules": [rule]})).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), INFO_NAMESPACE);
    let binding = json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": "system:anonymous"}],
    });
    ensure(&bindings, binding).await?;
    Ok(told)
}

/// Creates the object unless there is one of its name; gives what is stored.
async fn ensure<K>(api: &Api<K>, object: Value) -> anyhow::Result<K>
where
    K: Clone + Debug + DeserializeOwned + Serialize + Resource<DynamicType = ()>,
{
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let what = || format!("{} {name}", K::kind(&()));
    let typed: K = serde_json::from_value(object).with_context(what)?;
    match api.create(&PostParams::default(), &typed).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            api.get(&name).await.with_context(|| format!("read {}", what()))
        }
        done => done.with_context(|| format!("create {}", what())),
    }
}

/// Stores a bootstrap token.
pub(crate) async fn create_token(
    client: &kube::Client,
    token: &BootstrapToken,
    description: &str,
    expiration: Option<Timestamp>,
) -> Result<(), kube::Error> {
    let data = token.secret_data(description, expiration);
    let secret = Secret {
        metadata: kube::core::ObjectMeta { name: Some(token.secret_name()), ..Default::default() },
        type_: Some(SECRET_TYPE.to_owned()),
        data: Some(data.into_iter().map(|(k, v)| (k.to_owned(), ByteString(v.into_bytes()))).collect()),
        ..Secret::default()
    };
    let api: Api<Secret> = Api::namespaced(client.clone(), SECRET_NAMESPACE);
    api.create(&PostParams::default(), &secret).await.map(drop)
}

/// Adds the token's signature to `cluster-info`: kubeadm's proof that its publisher knows the token. Gives what was signed.
pub(crate) async fn sign_cluster_info(
    client: &kube::Client,
    token: &BootstrapToken,
) -> anyhow::Result<String> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), INFO_NAMESPACE);
    let info = api.get(INFO).await.context("read kube-public/cluster-info")?;
    let text = info.data.as_ref().and_then(|data| data.get("kubeconfig"));
    let text = text.context("kube-public/cluster-info holds no kubeconfig")?;
    let key = format!("jws-kubeconfig-{}", token.id());
    let patch = Patch::Merge(json!({"data": {key: token.sign(text)}}));
    api.patch(INFO, &PatchParams::default(), &patch).await.context("update kube-public/cluster-info")?;
    Ok(text.clone())
}

#[cfg(test)]
mod tests;
