//! What a new cluster needs to be joined, written through its own API: the system namespaces, `cluster-info` for machines
//! that do not know us yet, the bindings that let bootstrap tokens ask for node certificates, and the given token.
//!
//! Runs once at every start. Promises: what is there and right stays; an administrator's changes to the bindings stay.
//! Names are kubeadm's, so that its users and tools find what they know.

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use pki::Kubeconfig;
use pki::bootstrap::{BootstrapToken, NODE_GROUP, SECRET_NAMESPACE, SECRET_TYPE};
use pki::kubeconfig::Credentials;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// Namespaces every cluster has.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const INFO_NAMESPACE: &str = "kube-public";
const INFO: &str = "cluster-info";
const RBAC: &str = "rbac.authorization.k8s.io";

/// With `several` servers, another one's address in `cluster-info` is as good as ours.
pub(crate) async fn publish(
    client: &kube::Client,
    server: &str,
    ca_pem: &str,
    token: Option<&BootstrapToken>,
    several: bool,
) -> anyhow::Result<()> {
    namespaces(client).await?;
    cluster_info(client, server, ca_pem, several).await?;
    dns_role(client).await?;
    bindings(client).await?;
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

/// The namespaces every cluster has.
pub(super) async fn namespaces(client: &kube::Client) -> anyhow::Result<()> {
    for name in NAMESPACES {
        let namespace = json!({"metadata": {"name": name}});
        ensure::<Namespace>(&Api::all(client.clone()), namespace).await?;
    }
    Ok(())
}

async fn cluster_info(
    client: &kube::Client,
    server: &str,
    ca_pem: &str,
    several: bool,
) -> anyhow::Result<()> {
    let kubeconfig = Kubeconfig::new("", server, ca_pem, "", Credentials::Anonymous).to_yaml()?;
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), INFO_NAMESPACE);
    let info = json!({"metadata": {"name": INFO}, "data": {"kubeconfig": kubeconfig}});
    let stored = ensure(&api, info).await?;
    let current = stored.data.as_ref().and_then(|data| data.get("kubeconfig"));
    let same_authority = |text: &String| {
        let authority = Kubeconfig::parse(text).and_then(|said| said.cluster()?.authority_pem());
        authority.is_ok_and(|said| said == ca_pem)
    };
    if current != Some(&kubeconfig) && !(several && current.is_some_and(same_authority)) {
        // Signatures of other tokens are of the old text: their holders must not take this one for genuine.
        let mut data = serde_json::Map::from_iter([("kubeconfig".to_owned(), Value::String(kubeconfig))]);
        let keys = stored.data.iter().flatten().map(|(key, _)| key);
        data.extend(keys.filter(|k| k.starts_with("jws-kubeconfig-")).map(|k| (k.clone(), Value::Null)));
        let patch = Patch::Merge(json!({ "data": data }));
        api.patch(INFO, &PatchParams::default(), &patch).await.context("update kube-public/cluster-info")?;
    }
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
    Ok(())
}

/// By which API servers behind this one know it, and the users it names in headers (upstream:
/// `pkg/controlplane/controller/clusterauthenticationtrust`).
pub(crate) async fn request_headers(
    client: &kube::Client,
    ca_pem: &str,
    front_ca_pem: &str,
) -> anyhow::Result<()> {
    const NAME: &str = "extension-apiserver-authentication";
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let data = json!({
        "client-ca-file": ca_pem,
        "requestheader-client-ca-file": front_ca_pem,
        "requestheader-allowed-names": r#"["front-proxy-client"]"#,
        "requestheader-username-headers": r#"["X-Remote-User"]"#,
        "requestheader-uid-headers": r#"["X-Remote-Uid"]"#,
        "requestheader-group-headers": r#"["X-Remote-Group"]"#,
        "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
    });
    let stored = ensure(&api, json!({"metadata": {"name": NAME}, "data": data})).await?;
    if serde_json::to_value(&stored.data)? != data {
        let patch = Patch::Merge(json!({ "data": data }));
        api.patch(NAME, &PatchParams::default(), &patch).await.with_context(|| format!("update {NAME}"))?;
    }
    Ok(())
}

/// Binding, cluster role, group.
const BINDINGS: [(&str, &str, &str); 5] = [
    ("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", NODE_GROUP),
    (
        "kubeadm:node-autoapprove-bootstrap",
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        NODE_GROUP,
    ),
    (
        "kubeadm:node-autoapprove-certificate-rotation",
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        "system:nodes",
    ),
    // the agent is its node's proxy and pod network too, with the node's own identity
    ("windlass:node-proxier", "system:node-proxier", "system:nodes"),
    (DNS_ROLE, DNS_ROLE, "system:nodes"),
];

/// What the nodes' DNS reads besides what their proxies may: which namespaces there are.
const DNS_ROLE: &str = "windlass:node-dns";

async fn dns_role(client: &kube::Client) -> anyhow::Result<()> {
    let rules = json!([{ "apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"] }]);
    let role = json!({ "metadata": { "name": DNS_ROLE }, "rules": rules });
    ensure::<ClusterRole>(&Api::all(client.clone()), role).await.map(drop)
}

async fn bindings(client: &kube::Client) -> anyhow::Result<()> {
    let api: Api<ClusterRoleBinding> = Api::all(client.clone());
    for (name, role, group) in BINDINGS {
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": group}],
        });
        ensure(&api, binding).await?;
    }
    Ok(())
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

/// Adds the token's signature to `cluster-info`: kubeadm's proof that its publisher knows the token.
pub(crate) async fn sign_cluster_info(client: &kube::Client, token: &BootstrapToken) -> anyhow::Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), INFO_NAMESPACE);
    let info = api.get(INFO).await.context("read kube-public/cluster-info")?;
    let text = info.data.as_ref().and_then(|data| data.get("kubeconfig"));
    let text = text.context("kube-public/cluster-info holds no kubeconfig")?;
    let key = format!("jws-kubeconfig-{}", token.id());
    let patch = Patch::Merge(json!({"data": {key: token.sign(text)}}));
    api.patch(INFO, &PatchParams::default(), &patch).await.context("update kube-public/cluster-info")?;
    Ok(())
}

#[cfg(test)]
mod tests;
