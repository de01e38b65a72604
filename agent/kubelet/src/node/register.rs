//! Creates the Node object, or reconciles the one an earlier life left behind.
//!
//! Woken once at start. Reads the machine and the Node; writes the Node. An existing object keeps everything an
//! administrator did to it (labels, taints, cordon); only the built-in labels and the attach annotation are put right. Where it was another
//! machine's (one that was made anew under the same name), the devices that one had are none until somebody says otherwise.
//! Promises: returns only with the object in the API server (or at shutdown); retries with backoff, never gives up.

use super::Config;
use super::machine::architecture;
use super::report::Reporter;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
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

/// Tells a cloud's own program which addresses the node was given.
const PROVIDED_IPS: &str = "alpha.kubernetes.io/provided-node-ip";
/// Keeps pods away until a cloud's own program has prepared the node.
const UNPREPARED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// What the names of resources have that are no devices: those of Kubernetes itself, and those that quotas are of.
const NATIVE: &str = "kubernetes.io/";
const REQUESTS: &str = "requests.";

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
    let mut found = api.get(&config.name).await?;
    let params = PatchParams::default();
    if let Some(patch) = metadata_patch(&found.metadata, &wanted.metadata, &config.labels) {
        found = api.patch(&config.name, &params, &Patch::Strategic(patch)).await?;
    }
    if let Some(patch) = devices_patch(found.status.as_ref(), wanted.status.as_ref()) {
        tracing::info!(node = %config.name, "the node was another machine's: its devices are none");
        found = api.patch_status(&config.name, &params, &Patch::Strategic(patch)).await?;
    }
    Ok(found)
}

/// The devices of a node that was another machine's, each none. Pure. Upstream: `reconcileExtendedResource`, which knows a machine that was made
/// anew by the records of devices that it lacks.
fn devices_patch(found: Option<&NodeStatus>, wanted: Option<&NodeStatus>) -> Option<Value> {
    let machine = |status: Option<&NodeStatus>| {
        let id = status?.node_info.as_ref()?.machine_id.clone();
        Some(id).filter(|id| !id.is_empty())
    };
    let (before, now) = (machine(found)?, machine(wanted)?);
    let none = |(name, amount): (&String, &Quantity)| {
        let device = name.contains('/') && !name.contains(NATIVE) && !name.starts_with(REQUESTS);
        (device && amount.0 != "0").then(|| (name.clone(), Value::from("0")))
    };
    let devices: Map<String, Value> = found?.capacity.iter().flatten().filter_map(none).collect();
    (before != now && !devices.is_empty())
        .then(|| json!({"status": {"capacity": devices, "allocatable": devices}}))
}

/// The object a new node starts as. Pure.
fn initial_node(config: &Config, status: NodeStatus) -> Node {
    let mut labels = builtin_labels(config);
    labels.extend(config.labels.clone());
    let mut annotations = BTreeMap::from([(ATTACH_ANNOTATION.to_owned(), "true".to_owned())]);
    let mut taints = config.taints.clone();
    if let Some(cloud) = config.cloud {
        taints.push(Taint {
            key: UNPREPARED.to_owned(),
            value: Some("true".to_owned()),
            effect: "NoSchedule".to_owned(),
            time_added: None,
        });
        if cloud.ips_given {
            let ips: Vec<String> = config.ips.iter().map(ToString::to_string).collect();
            annotations.insert(PROVIDED_IPS.to_owned(), ips.join(","));
        }
    }
    Node {
        metadata: ObjectMeta {
            name: Some(config.name.clone()),
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!taints.is_empty()).then_some(taints),
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
    let annotation =
        |meta: &ObjectMeta, name: &str| meta.annotations.as_ref().and_then(|a| a.get(name)).cloned();
    let mut annotations = Map::new();
    for name in [ATTACH_ANNOTATION, PROVIDED_IPS] {
        let want = annotation(wanted, name);
        if annotation(found, name) != want {
            annotations.insert(name.to_owned(), want.map_or(Value::Null, Value::from));
        }
    }
    let mut metadata = Map::new();
    for (field, changes) in [("labels", labels), ("annotations", annotations)] {
        if !changes.is_empty() {
            metadata.insert(field.to_owned(), changes.into());
        }
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
    fn a_node_of_a_cloud_waits_to_be_prepared_and_says_its_addresses() {
        let ips = vec!["192.0.2.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let of = |cloud| {
            initial_node(
                &Config { cloud, ..Config::new("n1", ips.clone(), "/".into()) },
                NodeStatus::default(),
            )
        };
        let given = of(Some(super::super::Cloud { ips_given: true }));
        let taint = given.spec.as_ref().unwrap().taints.as_ref().unwrap()[0].clone();
        assert_eq!(
            (taint.key.as_str(), taint.value.as_deref(), taint.effect.as_str()),
            (UNPREPARED, Some("true"), "NoSchedule")
        );
        assert_eq!(given.metadata.annotations.as_ref().unwrap()[PROVIDED_IPS], "192.0.2.1,fd00::1");
        let found = of(Some(super::super::Cloud { ips_given: false }));
        assert!(!found.metadata.annotations.as_ref().unwrap().contains_key(PROVIDED_IPS));
        let usual = of(None);
        assert_eq!(usual.spec.unwrap().taints, None);
        let patch = metadata_patch(&given.metadata, &usual.metadata, &BTreeMap::new());
        assert_eq!(
            patch,
            Some(json!({"metadata": {"annotations": {PROVIDED_IPS: null}}})),
            "what is stale goes"
        );
    }

    #[test]
    fn devices_of_a_machine_that_is_no_more_must_not_be_offered() {
        let status = |machine: &str| -> NodeStatus {
            let info = json!({"architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "", "machineID": machine, "operatingSystem": "", "osImage": "",
                "systemUUID": ""});
            let capacity = json!({"cpu": "2", "example.com/gpu": "8", "example.com/none": "0", "x.kubernetes.io/y": "1"});
            serde_json::from_value(json!({"nodeInfo": info, "capacity": capacity})).unwrap()
        };
        let (old, new) = (status("old"), status("new"));
        let none = json!({"example.com/gpu": "0"});
        let patch = devices_patch(Some(&old), Some(&new));
        assert_eq!(patch, Some(json!({"status": {"capacity": none, "allocatable": none}})));
        assert_eq!(devices_patch(Some(&old), Some(&old)), None, "one that was only started again has them");
        for unknown in [Some(&status("")), None] {
            assert_eq!(devices_patch(unknown, Some(&new)), None);
            assert_eq!(devices_patch(Some(&old), unknown), None);
        }
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
