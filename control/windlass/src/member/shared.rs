//! What all servers of a cluster must have alike: the authorities with their keys, the keys of service accounts, and the configuration of
//! encryption. A server puts them into the cluster, sealed with a key that only the operator is told; another takes them from there.
//!
//! Names, form and life are kubeadm's (`cmd/kubeadm/app/phases/copycerts`): the Secret `kubeadm-certs`, which any token for nodes may read, and
//! which goes with a token made for nothing else than to end two hours later.

use super::token::Invitation;
use anyhow::{Context as _, anyhow, bail, ensure};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use pki::bootstrap::{BootstrapToken, NODE_GROUP, SECRET_NAMESPACE, SECRET_TYPE};
use pki::kubeconfig::Credentials;
use pki::sealed::CertificateKey;
use pki::{Certificate, Kubeconfig, files};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use supervise::Backoff;

const SECRET: &str = "kubeadm-certs";
const ROLE: &str = "kubeadm:kubeadm-certs";
/// How long the files are there.
const LIFE: Duration = Duration::from_secs(2 * 3600);

/// Entries of the Secret and where their files are in a server's directory.
const FILES: [(&str, &str); 6] = [
    ("ca.key", "pki/ca.key"),
    ("ca.crt", "pki/ca.crt"),
    ("front-proxy-ca.key", "pki/front-proxy-ca.key"),
    ("front-proxy-ca.crt", "pki/front-proxy-ca.crt"),
    ("sa.key", "pki/sa.key"),
    ("sa.pub", "pki/sa.pub"),
];
/// With an etcd of the servers' own.
const ETCD: [(&str, &str); 2] = [("etcd-ca.key", "pki/etcd/ca.key"), ("etcd-ca.crt", "pki/etcd/ca.crt")];
/// Authorities of a rotation that is under way, and of those before it.
const ROTATION: [(&str, &str); 12] = [
    ("ca-next.key", "pki/ca-next.key"),
    ("ca-next.crt", "pki/ca-next.crt"),
    ("ca-old.crt", "pki/ca-old.crt"),
    ("ca-replaced.crt", "pki/ca-replaced.crt"),
    ("front-proxy-ca-next.key", "pki/front-proxy-ca-next.key"),
    ("front-proxy-ca-next.crt", "pki/front-proxy-ca-next.crt"),
    ("front-proxy-ca-old.crt", "pki/front-proxy-ca-old.crt"),
    ("front-proxy-ca-replaced.crt", "pki/front-proxy-ca-replaced.crt"),
    ("etcd-ca-next.key", "pki/etcd/ca-next.key"),
    ("etcd-ca-next.crt", "pki/etcd/ca-next.crt"),
    ("etcd-ca-old.crt", "pki/etcd/ca-old.crt"),
    ("etcd-ca-replaced.crt", "pki/etcd/ca-replaced.crt"),
];
/// Files that a flag may name, and their places at a server that got them from another.
const NAMED: [(&str, &str); 4] = [EXTERNAL[0], EXTERNAL[1], EXTERNAL[2], ENCRYPTION];
/// How an etcd is spoken to that is not the server's own.
const EXTERNAL: [(&str, &str); 3] = [
    ("external-etcd-ca.crt", "pki/external-etcd-ca.crt"),
    ("external-etcd.crt", "pki/external-etcd.crt"),
    ("external-etcd.key", "pki/external-etcd.key"),
];
/// The same of the members beside servers, which are external to a control plane of kubeadm's.
const OWN: [(&str, &str); 3] = [
    (EXTERNAL[0].0, "pki/etcd/ca-trusted.crt"),
    (EXTERNAL[1].0, "pki/apiserver-etcd-client.crt"),
    (EXTERNAL[2].0, "pki/apiserver-etcd-client.key"),
];
/// The configuration of encryption at rest, which holds keys.
pub(crate) const ENCRYPTION: (&str, &str) = ("encryption-provider-config", "encryption-provider-config.yaml");
/// Where a server says which files its flags name.
const LIST: &str = "shared.json";

/// The files that the server of `dir` was last told of by flags, or got from another, by their entries.
fn named(dir: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let Some(text) = files::read_optional(&dir.join(LIST))? else { return Ok(BTreeMap::new()) };
    serde_json::from_str(&text).context(LIST)
}

/// The configuration of encryption that the server of `dir` uses: its place in the directory of a server that gets it, and where it is here.
pub(crate) fn encryption(dir: &Path) -> anyhow::Result<Option<(String, PathBuf)>> {
    let path = named(dir)?.remove(ENCRYPTION.0);
    Ok(path.map(|path| (ENCRYPTION.1.to_owned(), path)))
}

/// Fills what flags leave open with what came from another server, and notes the files for those that ask for them.
pub(crate) fn settle(flags: &mut crate::cli::StorageFlags, dir: &Path) -> anyhow::Result<()> {
    let external = !flags.etcd_servers.is_empty();
    let places = [
        (&mut flags.etcd_cafile, external),
        (&mut flags.etcd_certfile, external),
        (&mut flags.etcd_keyfile, external),
        (&mut flags.encryption_provider_config, true),
    ];
    let mut named = BTreeMap::new();
    for ((entry, below), (flag, wanted)) in NAMED.into_iter().zip(places) {
        let got = dir.join(below);
        if flag.is_none() && wanted && got.exists() {
            *flag = Some(got);
        }
        if let Some(path) = flag {
            named.insert(entry, std::path::absolute(&*path)?);
        }
    }
    let text = serde_json::to_vec(&named)?;
    Ok(files::write_atomic(&dir.join(LIST), &text, files::PRIVATE)?)
}

/// Puts the files of the server's directory `dir` into the cluster, in place of what was there.
pub(crate) async fn upload(client: &kube::Client, dir: &Path, key: &CertificateKey) -> anyhow::Result<()> {
    let data = sealed(dir, key)?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SECRET_NAMESPACE);
    let owner = clock(&secrets).await.context("create the token that ends with the shared files")?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..Secret::default()
    };
    match secrets.delete(SECRET, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        done => done.map(drop).with_context(|| format!("replace secret {SECRET}"))?,
    }
    secrets
        .create(&PostParams::default(), &secret)
        .await
        .with_context(|| format!("create secret {SECRET}"))?;
    readable(client).await
}

/// The Secret's entries, of the files of the server's directory `dir`. kubeadm asks for every entry of an external etcd, and takes an empty one
/// for a file that there is none of.
fn sealed(dir: &Path, key: &CertificateKey) -> anyhow::Result<BTreeMap<String, ByteString>> {
    let place = |(entry, below): (&str, &str)| (entry.to_owned(), dir.join(below));
    let mut paths: BTreeMap<String, PathBuf> = FILES.into_iter().map(place).collect();
    let others = ETCD.into_iter().chain(OWN).chain(ROTATION);
    paths.extend(others.map(place).filter(|(_, path)| path.exists()));
    paths.extend(named(dir)?);
    let mut data: BTreeMap<String, ByteString> =
        EXTERNAL.into_iter().map(|(entry, _)| (entry.to_owned(), ByteString(Vec::new()))).collect();
    for (entry, path) in paths {
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        data.insert(entry, ByteString(key.seal(&text)?));
    }
    Ok(data)
}

/// A token that nobody knows, whose end takes the files along.
async fn clock(secrets: &Api<Secret>) -> anyhow::Result<OwnerReference> {
    let token = BootstrapToken::generate()?;
    let end = Timestamp::now().checked_add(LIFE)?;
    let mut data = token.secret_data("Proxy for managing TTL for the kubeadm-certs secret", Some(end));
    data.retain(|field, _| !field.starts_with("usage-") && *field != "auth-extra-groups");
    let secret = Secret {
        metadata: ObjectMeta { name: Some(token.secret_name()), ..ObjectMeta::default() },
        type_: Some(SECRET_TYPE.to_owned()),
        data: Some(data.into_iter().map(|(k, v)| (k.to_owned(), ByteString(v.into_bytes()))).collect()),
        ..Secret::default()
    };
    let made = secrets.create(&PostParams::default(), &secret).await?;
    Ok(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Secret".to_owned(),
        name: token.secret_name(),
        uid: made.metadata.uid.unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    })
}

/// Lets tokens for nodes read the files, which say nothing without the key.
async fn readable(client: &kube::Client) -> anyhow::Result<()> {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let rule =
        json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": [SECRET], "verbs": ["get"]});
    let role: Role = serde_json::from_value(json!({"metadata": {"name": ROLE}, "rules": [rule]}))?;
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": ROLE},
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": ROLE},
        "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": NODE_GROUP}],
    }))?;
    let there = |done: Result<(), kube::Error>| match done {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        done => done,
    };
    let roles: Api<Role> = Api::namespaced(client.clone(), SECRET_NAMESPACE);
    there(roles.create(&PostParams::default(), &role).await.map(drop))
        .with_context(|| format!("create role {ROLE}"))?;
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), SECRET_NAMESPACE);
    let bound = bindings.create(&PostParams::default(), &binding).await.map(drop);
    there(bound).with_context(|| format!("create role binding {ROLE}"))
}

/// Makes sure that `dir` has the files of the cluster behind `server`, which is waited for where it does not answer.
pub(crate) async fn wait(
    server: &str,
    invitation: &Invitation,
    dir: &Path,
    stacked: bool,
) -> anyhow::Result<()> {
    let mut pauses = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        match fetch(server, invitation, dir, stacked).await {
            Err(error) if may_pass(&error) => {
                tracing::warn!(error = format!("{error:#}"), "get what servers share; will try again");
                pauses.pause().await;
            }
            done => return done,
        }
    }
}

/// Whether a server said nothing, and not that something is wrong.
pub(crate) fn may_pass(error: &anyhow::Error) -> bool {
    let unknown = error.downcast_ref::<node::cluster_info::Error>().is_some_and(|error| !error.is_final());
    unknown
        || error.downcast_ref::<kube::Error>().is_some_and(|error| match error {
            kube::Error::Api(status) => status.code >= 500 || status.code == 429,
            _ => true,
        })
}

/// Makes sure that `dir` has the files of the cluster behind `server`. What an earlier start got is kept; half of it is fetched again.
async fn fetch(server: &str, invitation: &Invitation, dir: &Path, stacked: bool) -> anyhow::Result<()> {
    let wanted: Vec<_> = FILES.iter().chain(ETCD.iter().filter(|_| stacked)).collect();
    let held = files::read_optional(&dir.join("pki/ca.crt"))?;
    if held.is_some() {
        // The first token may name an authority that was replaced since.
        let known = pki::rotation::known(&dir.join("pki"), "ca")?;
        let known = invitation.token.check_authority(&known);
        known.with_context(|| format!("{} belongs to another cluster", dir.join("pki").display()))?;
        if wanted.iter().all(|(_, below)| dir.join(below).exists()) {
            return Ok(());
        }
    }
    let key = invitation.key.as_ref().context(
        "the token is one for nodes: make one for servers with `windlass token create --control-plane`, or give --certificate-key",
    )?;
    let authority = node::cluster_info::authority(server, &invitation.token).await?;
    let credentials = Credentials::Token(invitation.token.token.expose());
    let client = client(&Kubeconfig::new("kubernetes", server, &authority, "bootstrap", credentials)).await?;
    let secrets: Api<Secret> = Api::namespaced(client, SECRET_NAMESPACE);
    let found = match secrets.get(SECRET).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => bail!(
            "what servers share is no longer in the cluster: make a new token with `windlass token create --control-plane`"
        ),
        found => found.with_context(|| format!("read secret {SECRET}"))?,
    };
    let sealed = found.data.unwrap_or_default();
    let mut open = BTreeMap::new();
    for (entry, text) in &sealed {
        // kubeadm leaves an entry empty whose file it did not have.
        if !text.0.is_empty() {
            open.insert(entry.as_str(), key.open(&text.0).with_context(|| format!("{SECRET}: {entry}"))?);
        }
    }
    if let Some((entry, _)) = wanted.iter().find(|(entry, _)| !open.contains_key(entry)) {
        bail!(
            "{SECRET} holds no {entry}{}",
            if stacked {
                ": do the other servers keep their objects in an etcd of their own (--cluster-init)?"
            } else {
                ""
            }
        );
    }
    let given = open.get("ca.crt").and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
    ensure!(
        Certificate::from_pem(given)?.public_key_hash()
            == Certificate::from_pem(&authority)?.public_key_hash(),
        "{SECRET} is of another cluster"
    );
    files::create_private_dir(&dir.join("pki/etcd"))?;
    // Whether all is there is told by the first two lists: what else there is comes before them.
    for (entry, below) in NAMED.iter().chain(&ROTATION).chain(&ETCD).chain(&FILES) {
        if stacked && EXTERNAL.iter().any(|(external, _)| external == entry) {
            continue;
        }
        let Some(text) = open.get(entry) else { continue };
        let public = [".crt", ".pub"].iter().any(|end| below.ends_with(end));
        files::write_atomic(&dir.join(below), text, if public { files::PUBLIC } else { files::PRIVATE })?;
    }
    tracing::info!(server, files = open.len(), "got what servers share");
    Ok(())
}

/// A client of a kubeconfig.
pub(super) async fn client(kubeconfig: &Kubeconfig) -> anyhow::Result<kube::Client> {
    let parsed = kube::config::Kubeconfig::from_yaml(&kubeconfig.to_yaml()?).map_err(|e| anyhow!(e))?;
    let options = kube::config::KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(parsed, &options).await?;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(Duration::from_secs(10));
    Ok(kube::Client::try_from(config)?)
}

#[cfg(test)]
mod tests;
