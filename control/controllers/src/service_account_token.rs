//! Secrets of the type `kubernetes.io/service-account-token` get a token of the account they name, and go with it.
//!
//! Woken by: such a secret, a service account, other authorities. Reads: both; the API server when the account is not known yet. Writes: the secret's `token`,
//! `ca.crt`, `namespace` and annotations; its deletion; an account's list of secrets, when one of these went. Promises: a token that is
//! there stays; a secret of an account that is gone, or that has another uid, is deleted.

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, code, found};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use pki::service_account::{LegacyClaims, SigningKey};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

/// The controller; its keys are secrets.
pub(crate) struct ServiceAccountTokens {
    secrets: Arc<Informer<Secret>>,
    accounts: Arc<Informer<ServiceAccount>>,
    /// Secrets that went, and the account each was of.
    gone: Arc<Mutex<HashMap<Key, AccountRef>>>,
    key: Arc<SigningKey>,
    bundle: watch::Receiver<String>,
    client: Client,
}

/// The account a secret names; an empty uid stands for any.
#[derive(Clone)]
struct AccountRef {
    name: String,
    uid: String,
}

impl AccountRef {
    fn of(secret: &Secret) -> Self {
        let annotation = |name: &str| secret.annotations().get(name).cloned().unwrap_or_default();
        Self { name: annotation(NAME), uid: annotation(UID) }
    }

    fn is(&self, account: &ServiceAccount) -> bool {
        self.uid.is_empty() || account.metadata.uid.as_deref() == Some(&self.uid)
    }
}

impl ServiceAccountTokens {
    /// Registers for what wakes it. `bundle` is the authorities' certificates in PEM, as they are at the time.
    #[must_use]
    pub(crate) fn new(
        cluster: &Cluster,
        client: Client,
        key: Arc<SigningKey>,
        bundle: watch::Receiver<String>,
        queue: &Arc<Queue>,
    ) -> Self {
        let gone: Arc<Mutex<HashMap<Key, AccountRef>>> = Arc::default();
        let (wake, went) = (queue.clone(), gone.clone());
        cluster.service_account_tokens.on_change(move |old, new| {
            let Some(secret) = new.or(old) else { return };
            let key = key_of(&**secret);
            match new {
                Some(_) => drop(went.lock().remove(&key)),
                None => drop(went.lock().insert(key.clone(), AccountRef::of(secret))),
            }
            wake.add(key);
        });
        let (wake, secrets) = (queue.clone(), cluster.service_account_tokens.clone());
        cluster.service_accounts.on_change(move |old, new| {
            let Some(account) = new.or(old) else { return };
            // nothing in an account but its being there matters here
            if old.map(|o| o.uid()) == new.map(|n| n.uid()) {
                return;
            }
            let secrets = secrets.list(&account.namespace().unwrap_or_default());
            secrets
                .iter()
                .filter(|s| AccountRef::of(s).name == account.name_any())
                .for_each(|s| wake.add(key_of(&**s)));
        });
        Self {
            secrets: cluster.service_account_tokens.clone(),
            accounts: cluster.service_accounts.clone(),
            gone,
            key,
            bundle,
            client,
        }
    }

    /// Looks at every secret again when other authorities are to be trusted; never returns.
    pub(crate) async fn follow(self: Arc<Self>, queue: Arc<Queue>) {
        let mut bundle = self.bundle.clone();
        while bundle.changed().await.is_ok() {
            self.secrets.list("").iter().for_each(|secret| queue.add(key_of(&**secret)));
        }
        // Nobody is left who could change them.
        std::future::pending().await
    }

    fn accounts_in(&self, namespace: &str) -> Api<ServiceAccount> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The account, when it is the one wanted.
    async fn account(&self, namespace: &str, wanted: &AccountRef) -> Result<Option<ServiceAccount>, Error> {
        let known = self.accounts.get(&Key::new(namespace, &wanted.name));
        if let Some(known) = known.filter(|account| wanted.is(account)) {
            return Ok(Some((*known).clone()));
        }
        // it may be newer than what is known of accounts here
        let read = self.accounts_in(namespace).get_opt(&wanted.name).await;
        let there = read.doing(|| format!("read service account {namespace}/{}", wanted.name))?;
        Ok(there.filter(|account| wanted.is(account)))
    }

    async fn fill(&self, key: &Key, secret: &Secret, account: &ServiceAccount) -> Result<(), Error> {
        let (name, uid) = (account.name_any(), account.uid().unwrap_or_default());
        let bundle = self.bundle.borrow().clone();
        let data = missing(secret, &bundle, || {
            self.key.sign_legacy(&LegacyClaims::new(&key.namespace, &name, &uid, &key.name))
        })
        .map_err(|error| Error::Unusable(format!("sign the token of secret {key}: {error}")))?;
        if data.is_empty() {
            return Ok(());
        }
        let patch = json!({
            "metadata": { "uid": secret.uid(), "resourceVersion": secret.resource_version(),
                "annotations": { NAME: name, UID: uid } },
            "data": data,
        });
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            // a newer one is on its way here
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
            patched => patched.map(drop).doing(|| format!("fill secret {key}")),
        }
    }

    async fn delete(&self, key: &Key, secret: &Secret) -> Result<(), Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let only_this = Preconditions { uid: secret.uid(), resource_version: None };
        match api.delete(&key.name, &DeleteParams::default().preconditions(only_this)).await {
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
            deleted => deleted.map(drop).doing(|| format!("delete secret {key}, whose account is gone")),
        }
    }

    /// Takes a secret that went from its account's list.
    async fn unlist(&self, key: &Key, wanted: &AccountRef) -> Result<(), Error> {
        let account = self.accounts.get(&Key::new(&key.namespace, &wanted.name));
        let Some(account) = account.filter(|account| wanted.is(account)) else { return Ok(()) };
        let listed = account.secrets.as_deref().unwrap_or_default();
        let kept: Vec<_> = listed.iter().filter(|s| s.name.as_deref() != Some(&key.name)).collect();
        if kept.len() == listed.len() {
            return Ok(());
        }
        let patch = json!({
            "metadata": { "uid": account.uid(), "resourceVersion": account.resource_version() },
            "secrets": kept,
        });
        let api = self.accounts_in(&key.namespace);
        let patched = api.patch(&wanted.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        found(patched).map(drop).doing(|| format!("take secret {key} from service account {}", wanted.name))
    }
}

/// What a secret lacks, in base64.
fn missing<E>(
    secret: &Secret,
    bundle: &str,
    token: impl FnOnce() -> Result<String, E>,
) -> Result<Map<String, Value>, E> {
    let there =
        |name: &str| secret.data.as_ref().and_then(|d| d.get(name)).map_or(&[][..], |ByteString(b)| b);
    let mut data = Map::new();
    let mut put = |name: &str, value: &str| data.insert(name.to_owned(), json!(STANDARD.encode(value)));
    // Without authorities of ours, what somebody else put there stays.
    if !bundle.is_empty() && there("ca.crt") != bundle.as_bytes() {
        put("ca.crt", bundle);
    }
    if there("namespace").is_empty() {
        put("namespace", &secret.namespace().unwrap_or_default());
    }
    if there("token").is_empty() {
        put("token", &token()?);
    }
    Ok(data)
}

impl Reconcile for ServiceAccountTokens {
    const NAME: &'static str = "serviceaccount-token-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(secret) = self.secrets.get(key) else {
            let went = self.gone.lock().get(key).cloned();
            if let Some(wanted) = went {
                self.unlist(key, &wanted).await?;
                self.gone.lock().remove(key);
            }
            return Ok(None);
        };
        let wanted = AccountRef::of(&secret);
        if wanted.name.is_empty() || secret.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        match self.account(&key.namespace, &wanted).await? {
            Some(account) => self.fill(key, &secret, &account).await?,
            None => self.delete(key, &secret).await?,
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
