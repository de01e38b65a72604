//! Creates the Node object, or reconciles the one an earlier life left behind.
//!
//! Woken once at start. Reads the machine and the Node; writes the Node. An existing object keeps everything an
//! administrator did to it (labels, taints, cordon); only the built-in labels and the attach annotation are put right.
//! Promises: returns only with the object in the API server (or at shutdown); retries with backoff, never gives up.

use super::Config;
use super::machine::architecture;
use super::report::Reporter;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use supervise::Backoff;
use tokio_util::sync::CancellationToken;

/// First and longest pause between attempts, as upstream's.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(7));
/// Tells the attach/detach controller that it owns attaching for this node.
const ATTACH_ANNOTATION: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// Tries until the node is registered; `None` when `shutdown` came first.
pub async fn until_registered(reporter: &mut Reporter, shutdown: &CancellationToken) -> Option<Node> {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    loop {
        let attempt = tokio::select! {
            () = shutdown.cancelled() => return None,
            attempt = register(reporter) => attempt,
        };
        match attempt {
            Ok(node) => return Some(node),
            Err(error) => {
                let name = &reporter.config.name;
                tracing::warn!(node = %name, error = %error, "register node; will try again");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = backoff.pause() => {}
        }
    }
}

async fn register(reporter: &mut Reporter) -> Result<Node, kube::Error> {
    let api = reporter.nodes.clone();
    if !reporter.config.register {
        return api.get(&reporter.config.name).await;
    }
    let outcome = reporter.compute(&NodeStatus::default()).await;
    let wanted = initial_node(&reporter.config, outcome.status.clone());
    match api.create(&PostParams::default(), &wanted).await {
        Ok(node) => {
            tracing::info!(node = %reporter.config.name, "registered node");
            reporter.announce(&outcome);
            Ok(node)
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            reconcile(&api, &wanted, &reporter.config).await
        }
        Err(error) => Err(error),
    }
}

async fn reconcile(api: &Api<Node>, wanted: &Node, config: &Config) -> Result<Node, kube::Error> {
    let found = api.get(&config.name).await?;
    match metadata_patch(&found.metadata, &wanted.metadata, &config.labels) {
        None => Ok(found),
        Some(patch) => api.patch(&config.name, &PatchParams::default(), &Patch::Strategic(patch)).await,
    }
}

/// The object a new node starts as. Pure.
fn initial_node(config: &Config, status: NodeStatus) -> Node {
    let mut labels = builtin_labels(config);
    labels.extend(config.labels.clone());
    Node {
        metadata: ObjectMeta {
            name: Some(config.name.clone()),
            labels: Some(labels),
            annotations: Some(BTreeMap::from([(ATTACH_ANNOTATION.to_owned(), "true".to_owned())])),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!config.taints.is_empty()).then(|| config.taints.clone()),
            provider_id: config.provider_id.clone(),
            ..NodeSpec::default()
        }),
        status: Some(status),
    }
}

fn builtin_labels(config: &Config) -> BTreeMap<String, String> {
    [
        ("kubernetes.io/hostname", config.hostname.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Labels upstream reconciles at every start; others are only set at creation.
const RECONCILED: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// What must change in an existing object's metadata. Pure.
fn metadata_patch(
    found: &ObjectMeta,
    wanted: &ObjectMeta,
    configured: &BTreeMap<String, String>,
) -> Option<Value> {
    let value = |meta: &ObjectMeta, name: &str| meta.labels.as_ref().and_then(|l| l.get(name)).cloned();
    let mut labels = Map::new();
    for name in RECONCILED {
        let want = configured.get(name).cloned().or_else(|| value(wanted, name));
        if let Some(want) = want.filter(|w| value(found, name).as_ref() != Some(w)) {
            labels.insert(name.to_owned(), want.into());
        }
    }
    let attach =
        found.annotations.as_ref().and_then(|a| a.get(ATTACH_ANNOTATION)).is_some_and(|v| v == "true");
    let mut metadata = Map::new();
    if !labels.is_empty() {
        metadata.insert("labels".to_owned(), labels.into());
    }
    if !attach {
        metadata.insert("annotations".to_owned(), json!({ ATTACH_ANNOTATION: "true" }));
    }
    (!metadata.is_empty()).then(|| json!({ "metadata": metadata }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_name_with_its_provider_must_not_be_left_out() {
        let config =
            Config { provider_id: Some("cloud://7".into()), ..Config::new("n1", vec![], "/".into()) };
        let spec = initial_node(&config, NodeStatus::default()).spec.unwrap();
        assert_eq!(spec.provider_id.as_deref(), Some("cloud://7"));
    }

    #[test]
    fn an_existing_node_keeps_what_an_administrator_did() {
        let mut config = Config::new("n1", vec![], "/".into());
        config.labels.insert("team".into(), "storage".into());
        let wanted = initial_node(&config, NodeStatus::default());
        assert_eq!(wanted.metadata.labels.as_ref().unwrap()["team"], "storage");
        assert_eq!(metadata_patch(&wanted.metadata, &wanted.metadata, &config.labels), None);

        let mut found = wanted.metadata.clone();
        let labels = found.labels.as_mut().unwrap();
        labels.remove("team");
        labels.insert("kubernetes.io/os".into(), "plan9".into());
        labels.insert("mine".into(), "kept".into());
        found.annotations = None;
        assert_eq!(
            metadata_patch(&found, &wanted.metadata, &config.labels),
            Some(json!({"metadata": {
                "labels": {"kubernetes.io/os": "linux"},
                "annotations": {ATTACH_ANNOTATION: "true"}
            }}))
        );
    }
}
