//! The ServiceAccount `default` in every namespace.
//!
//! Woken by: a namespace, a service account. Writes: the account. Promises: it is back a moment after somebody removed it.

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::pods::terminating_namespace;
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, code};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct ServiceAccounts {
    namespaces: Arc<Informer<Namespace>>,
    accounts: Arc<Informer<ServiceAccount>>,
    client: Client,
}

impl ServiceAccounts {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, queue: &Arc<Queue>) -> Self {
        let wake = queue.clone();
        cluster.namespaces.on_change(move |_, new| {
            if let Some(namespace) = new {
                wake.add(key_of(&**namespace));
            }
        });
        let wake = queue.clone();
        cluster.service_accounts.on_change(move |old, new| {
            if let (Some(old), None) = (old, new) {
                wake.add(Key::new("", &old.namespace().unwrap_or_default()));
            }
        });
        Self { namespaces: cluster.namespaces.clone(), accounts: cluster.service_accounts.clone(), client }
    }
}

impl Reconcile for ServiceAccounts {
    const NAME: &'static str = "serviceaccount-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(namespace) = self.namespaces.get(key) else { return Ok(None) };
        if namespace.metadata.deletion_timestamp.is_some()
            || self.accounts.get(&Key::new(&key.name, "default")).is_some()
        {
            return Ok(None);
        }
        let meta = ObjectMeta { name: Some("default".to_owned()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata: meta, ..ServiceAccount::default() };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &key.name);
        match api.create(&PostParams::default(), &account).await {
            Err(error) if code(&error) == Some(409) || terminating_namespace(&error) => Ok(None),
            created => created.map(|_| None).doing(|| format!("create service account {key}/default")),
        }
    }
}
