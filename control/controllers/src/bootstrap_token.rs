//! Bootstrap tokens: the expired go ([`TokenCleaner`]), the living sign what the cluster says of itself to those it does not know
//! ([`BootstrapSigner`], ConfigMap `kube-public/cluster-info`).
//!
//! Woken by: a token's secret, the end of its life, the ConfigMap. Reads: both. Writes: the secret's deletion; the ConfigMap's
//! `jws-kubeconfig-*` keys. Promises: a signature stands for the text beside it and for a token that may sign and has not expired; signatures
//! of other tokens are taken away.

use crate::cluster::{Cluster, INFO};
use crate::informer::{Informer, key_of};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, code, found};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use pki::bootstrap::{BootstrapToken, SECRET_NAMESPACE};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const SIGNATURE: &str = "jws-kubeconfig-";
const TEXT: &str = "kubeconfig";

fn datum<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value.and_then(|v| std::str::from_utf8(&v.0).ok()).unwrap_or_default()
}

/// How much of a token's life is left: nothing where it ends never, zero where it has ended (or its end cannot be read).
fn left(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let end = Some(datum(secret, "expiration")).filter(|end| !end.is_empty())?;
    let left = end.parse::<Timestamp>().map(|end| end.duration_since(now)).unwrap_or_default();
    Some(if left.is_positive() { left.unsigned_abs() } else { Duration::ZERO })
}

/// The token of a secret that may sign.
fn signing(secret: &Secret, now: Timestamp) -> Option<BootstrapToken> {
    let id = datum(secret, "token-id");
    let named = secret.metadata.name.as_deref()?.strip_prefix("bootstrap-token-")? == id;
    let expired = left(secret, now).is_some_and(|left| left.is_zero());
    if !named || expired || datum(secret, "usage-bootstrap-signing") != "true" {
        return None;
    }
    format!("{id}.{}", datum(secret, "token-secret")).parse().ok()
}

/// The signature keys to write: those that are new or different, and null for those that go.
fn signatures(data: &BTreeMap<String, String>, tokens: &[BootstrapToken]) -> Map<String, Value> {
    let Some(text) = data.get(TEXT) else { return Map::new() };
    let wanted: BTreeMap<String, String> =
        tokens.iter().map(|token| (format!("{SIGNATURE}{}", token.id()), token.sign(text))).collect();
    let stale = data.keys().filter(|key| key.starts_with(SIGNATURE) && !wanted.contains_key(*key));
    let mut changes: Map<String, Value> = stale.map(|key| (key.clone(), Value::Null)).collect();
    changes.extend(
        wanted
            .iter()
            .filter(|(key, sign)| data.get(*key) != Some(sign))
            .map(|(k, s)| (k.clone(), s.as_str().into())),
    );
    changes
}

/// Removes tokens that have expired.
pub(crate) struct TokenCleaner {
    tokens: Arc<Informer<Secret>>,
    client: Client,
}

impl TokenCleaner {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, queue: &Arc<Queue>) -> Self {
        let wake = queue.clone();
        cluster.bootstrap_tokens.on_change(move |_, new| {
            if let Some(secret) = new {
                wake.add(key_of(&**secret));
            }
        });
        Self { tokens: cluster.bootstrap_tokens.clone(), client }
    }
}

impl Reconcile for TokenCleaner {
    const NAME: &'static str = "token-cleaner-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(secret) = self.tokens.get(key) else { return Ok(None) };
        match left(&secret, Timestamp::now()) {
            None => return Ok(None),
            Some(left) if !left.is_zero() => return Ok(Some(left)),
            Some(_) => {}
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let only_this = Preconditions { uid: secret.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
        match api.delete(&key.name, &params).await {
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(None),
            deleted => deleted.map(|_| None).doing(|| format!("delete the expired bootstrap token {key}")),
        }
    }
}

/// Signs `cluster-info`. Run it with one worker.
pub(crate) struct BootstrapSigner {
    info: Arc<Informer<ConfigMap>>,
    tokens: Arc<Informer<Secret>>,
    client: Client,
}

impl BootstrapSigner {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, queue: &Arc<Queue>) -> Self {
        let wake = queue.clone();
        cluster.bootstrap_tokens.on_change(move |_, _| wake.add(Key::new(INFO.0, INFO.1)));
        let wake = queue.clone();
        cluster.cluster_info.on_change(move |_, _| wake.add(Key::new(INFO.0, INFO.1)));
        Self { info: cluster.cluster_info.clone(), tokens: cluster.bootstrap_tokens.clone(), client }
    }
}

impl Reconcile for BootstrapSigner {
    const NAME: &'static str = "bootstrap-signer-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(info) = self.info.get(key) else { return Ok(None) };
        let now = Timestamp::now();
        let secrets = self.tokens.list(SECRET_NAMESPACE);
        let tokens: Vec<BootstrapToken> = secrets.iter().filter_map(|secret| signing(secret, now)).collect();
        let changes = signatures(&info.data.clone().unwrap_or_default(), &tokens);
        if !changes.is_empty() {
            let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.namespace);
            let patch =
                json!({ "metadata": { "resourceVersion": info.resource_version() }, "data": changes });
            let patched = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            found(patched).doing(|| format!("sign config map {key}"))?;
        }
        // the end of a token's life is the end of its signature, also where nobody removes the secret
        Ok(secrets.iter().filter_map(|secret| left(secret, now)).filter(|left| !left.is_zero()).min())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(id: &str, name: &str, more: &[(&str, &str)]) -> Secret {
        let data =
            [("token-id", id), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-signing", "true")];
        let data = data.iter().chain(more).map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec())));
        let mut secret = Secret { data: Some(data.collect()), ..Secret::default() };
        secret.metadata.name = Some(name.to_owned());
        secret
    }

    #[test]
    fn a_token_signs_while_it_lives_and_may() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let ends = ("expiration", "1970-01-01T00:01:40Z");
        let mortal = secret("abcdef", "bootstrap-token-abcdef", &[ends]);
        assert!(signing(&mortal, at(99)).is_some());
        assert!(signing(&mortal, at(100)).is_none());
        assert_eq!(left(&mortal, at(40)), Some(Duration::from_secs(60)));
        let name = "bootstrap-token-abcdef";
        assert!(signing(&secret("abcdef", "bootstrap-token-other1", &[]), at(0)).is_none());
        assert!(signing(&secret("abcdef", name, &[("usage-bootstrap-signing", "false")]), at(0)).is_none());
        let unreadable = secret("abcdef", name, &[("expiration", "soon")]);
        assert_eq!(left(&unreadable, at(0)), Some(Duration::ZERO));
        assert_eq!(left(&secret("abcdef", name, &[]), at(0)), None);
    }

    #[test]
    fn signatures_follow_the_text_and_the_tokens() {
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        let mut data = BTreeMap::from([(TEXT.to_owned(), "text".to_owned())]);
        data.insert("jws-kubeconfig-gone00".to_owned(), "old".to_owned());
        let changes = signatures(&data, std::slice::from_ref(&token));
        assert_eq!(changes["jws-kubeconfig-gone00"], Value::Null);
        let signature = changes["jws-kubeconfig-abcdef"].as_str().unwrap().to_owned();
        assert!(token.verify("text", &signature));
        data.remove("jws-kubeconfig-gone00");
        data.insert("jws-kubeconfig-abcdef".to_owned(), signature);
        assert!(signatures(&data, std::slice::from_ref(&token)).is_empty());
        data.insert(TEXT.to_owned(), "other".to_owned());
        assert_eq!(signatures(&data, std::slice::from_ref(&token)).len(), 1);
    }
}
