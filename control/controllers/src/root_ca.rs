//! The ConfigMap `kube-root-ca.crt` in every namespace: what pods trust the API server by.
//!
//! Woken by: a namespace, the ConfigMap, other authorities. Writes: the ConfigMap. Promises: it is back a moment after somebody changed or removed it.

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::pods::terminating_namespace;
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, code};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Name of the ConfigMap.
const NAME: &str = "kube-root-ca.crt";
/// What it says of itself.
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

pub(crate) struct RootCa {
    namespaces: Arc<Informer<Namespace>>,
    config_maps: Arc<Informer<ConfigMap>>,
    bundle: watch::Receiver<String>,
    client: Client,
}

impl RootCa {
    /// Registers for what wakes it. `bundle` is the authorities' certificates in PEM.
    #[must_use]
    pub(crate) fn new(
        cluster: &Cluster,
        client: Client,
        bundle: watch::Receiver<String>,
        queue: &Arc<Queue>,
    ) -> Self {
        let wake = queue.clone();
        cluster.namespaces.on_change(move |_, new| {
            if let Some(namespace) = new {
                wake.add(key_of(&**namespace));
            }
        });
        let wake = queue.clone();
        cluster.config_maps.on_change(move |old, new| {
            if let Some(namespace) = new.or(old).and_then(|m| m.namespace()) {
                wake.add(Key::new("", &namespace));
            }
        });
        Self {
            namespaces: cluster.namespaces.clone(),
            config_maps: cluster.config_maps.clone(),
            bundle,
            client,
        }
    }

    /// Looks at every namespace again when other authorities are to be trusted; never returns.
    pub(crate) async fn follow(self: Arc<Self>, queue: Arc<Queue>) {
        let mut bundle = self.bundle.clone();
        while bundle.changed().await.is_ok() {
            self.namespaces.list("").iter().for_each(|namespace| queue.add(key_of(&**namespace)));
        }
        // Nobody is left who could change them.
        std::future::pending().await
    }
}

impl Reconcile for RootCa {
    const NAME: &'static str = "root-ca-certificate-publisher";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(namespace) = self.namespaces.get(key) else { return Ok(None) };
        if namespace.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.name);
        let data = BTreeMap::from([("ca.crt".to_owned(), self.bundle.borrow().clone())]);
        match self.config_maps.get(&Key::new(&key.name, NAME)) {
            Some(there) if there.data.as_ref() == Some(&data) => Ok(None),
            Some(_) => {
                let patch = [json!({ "op": "add", "path": "/data", "value": data })];
                let patch: Patch<ConfigMap> =
                    Patch::Json(serde_json::from_value(json!(patch)).unwrap_or_default());
                api.patch(NAME, &PatchParams::default(), &patch)
                    .await
                    .doing(|| format!("mend {NAME} in {key}"))?;
                Ok(None)
            }
            None => {
                let meta = ObjectMeta {
                    name: Some(NAME.to_owned()),
                    annotations: Some(BTreeMap::from([(
                        "kubernetes.io/description".to_owned(),
                        DESCRIPTION.to_owned(),
                    )])),
                    ..ObjectMeta::default()
                };
                let map = ConfigMap { metadata: meta, data: Some(data), ..ConfigMap::default() };
                match api.create(&PostParams::default(), &map).await {
                    Err(error) if code(&error) == Some(409) || terminating_namespace(&error) => Ok(None),
                    created => created.map(|_| None).doing(|| format!("create {NAME} in {key}")),
                }
            }
        }
    }
}
