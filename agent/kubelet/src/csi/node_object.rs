//! What the API knows of this node's storage drivers: the CSINode object, and on the Node the drivers' names for it and the topology
//! they tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::Mutex;

/// On the Node: the drivers' names for it, as JSON.
const NODE_ID: &str = "csi.volume.kubernetes.io/nodeid";
/// On the CSINode: the in-tree plugins whose work drivers do.
const MIGRATED: &str = "storage.alpha.kubernetes.io/migrated-plugins";
const MIGRATED_PLUGINS: &str = "kubernetes.io/aws-ebs,kubernetes.io/azure-disk,kubernetes.io/azure-file,\
                                kubernetes.io/cinder,kubernetes.io/gce-pd,kubernetes.io/portworx-volume,\
                                kubernetes.io/vsphere-volume";
/// Writes that somebody else came before are tried so often.
const TRIES: usize = 5;

/// Writes both objects, one change after another.
#[derive(Clone)]
pub struct NodeObject {
    client: kube::Client,
    name: String,
    turn: Arc<Mutex<()>>,
}

fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

impl NodeObject {
    /// The objects of a node.
    pub fn new(client: kube::Client, name: &str) -> Self {
        Self { client, name: name.to_owned(), turn: Arc::default() }
    }

    fn csi_nodes(&self) -> Api<CSINode> {
        Api::all(self.client.clone())
    }

    /// Makes the CSINode where there is none.
    pub async fn announce(&self) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        self.csi_node().await.map(drop)
    }

    async fn csi_node(&self) -> Result<CSINode, String> {
        let api = self.csi_nodes();
        if let Some(found) = api.get_opt(&self.name).await.map_err(|e| told(&e))? {
            return Ok(found);
        }
        let node = Api::<Node>::all(self.client.clone()).get(&self.name).await.map_err(|e| told(&e))?;
        let fresh = CSINode {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                annotations: Some(BTreeMap::from([(MIGRATED.to_owned(), MIGRATED_PLUGINS.to_owned())])),
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Node".to_owned(),
                    name: self.name.clone(),
                    uid: node.metadata.uid.unwrap_or_default(),
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            },
            spec: CSINodeSpec { drivers: Vec::new() },
        };
        api.create(&PostParams::default(), &fresh).await.map_err(|e| told(&e))
    }

    /// Reports a driver: its name for this node, how many volumes it takes (0: it does not say), and where the node is.
    pub async fn install(
        &self,
        driver: &str,
        node_id: &str,
        most: i64,
        topology: BTreeMap<String, String>,
    ) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        self.annotate(driver, Some(node_id), &topology)
            .await
            .map_err(|e| format!("error updating Node object with CSI driver node info: {e}"))?;
        let entry = CSINodeDriver {
            name: driver.to_owned(),
            node_id: node_id.to_owned(),
            topology_keys: Some(topology.into_keys().collect()),
            allocatable: (most > 0)
                .then(|| VolumeNodeResources { count: Some(i32::try_from(most).unwrap_or(i32::MAX)) }),
        };
        self.change(|drivers| {
            if drivers.contains(&entry) {
                return false;
            }
            drivers.retain(|d| d.name != driver);
            drivers.push(entry.clone());
            true
        })
        .await
        .map_err(|e| format!("error updating CSINode object with CSI driver node info: {e}"))
    }

    /// Takes a driver out.
    pub async fn remove(&self, driver: &str) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        self.change(|drivers| {
            let before = drivers.len();
            drivers.retain(|d| d.name != driver);
            drivers.len() != before
        })
        .await?;
        self.annotate(driver, None, &BTreeMap::new()).await
    }

    async fn change(&self, edit: impl Fn(&mut Vec<CSINodeDriver>) -> bool) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..TRIES {
            let found = self.csi_node().await?;
            let mut drivers = found.spec.drivers;
            if !edit(&mut drivers) {
                return Ok(());
            }
            let patch = json!({
                "metadata": {"resourceVersion": found.metadata.resource_version},
                "spec": {"drivers": drivers},
            });
            match self.csi_nodes().patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return Ok(()),
                Err(error) if is_conflict(&error) => last = told(&error),
                Err(error) => return Err(told(&error)),
            }
        }
        Err(last)
    }

    async fn annotate(
        &self,
        driver: &str,
        node_id: Option<&str>,
        topology: &BTreeMap<String, String>,
    ) -> Result<(), String> {
        let api: Api<Node> = Api::all(self.client.clone());
        let mut last = String::new();
        for _ in 0..TRIES {
            let node = api.get(&self.name).await.map_err(|e| told(&e))?;
            let Some(metadata) = node_change(&node, driver, node_id, topology)? else { return Ok(()) };
            let patch = Patch::Merge(json!({"metadata": metadata}));
            match api.patch(&self.name, &PatchParams::default(), &patch).await {
                Ok(_) => return Ok(()),
                Err(error) if is_conflict(&error) => last = told(&error),
                Err(error) => return Err(told(&error)),
            }
        }
        Err(last)
    }
}

/// What of the Node's metadata must change; an existing label of another value is an error.
fn node_change(
    node: &Node,
    driver: &str,
    node_id: Option<&str>,
    topology: &BTreeMap<String, String>,
) -> Result<Option<serde_json::Value>, String> {
    let meta = &node.metadata;
    let text = meta.annotations.as_ref().and_then(|a| a.get(NODE_ID)).cloned().unwrap_or_default();
    let before: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
    let mut ids = before.clone();
    match node_id {
        Some(id) => drop(ids.insert(driver.to_owned(), id.to_owned())),
        None => drop(ids.remove(driver)),
    }
    let labels = meta.labels.clone().unwrap_or_default();
    for (key, value) in topology {
        if let Some(other) = labels.get(key).filter(|other| *other != value) {
            return Err(format!(
                "detected topology value collision: driver reported {key:?}:{value:?} but existing label is \
                 {key:?}:{other:?}"
            ));
        }
    }
    if ids == before && topology.keys().all(|key| labels.contains_key(key)) {
        return Ok(None);
    }
    let shown = match ids.is_empty() {
        true => serde_json::Value::Null,
        false => json!(serde_json::to_string(&ids).map_err(|e| e.to_string())?),
    };
    Ok(Some(json!({
        "resourceVersion": meta.resource_version,
        "annotations": {NODE_ID: shown},
        "labels": topology,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_knows_its_names_and_places() {
        let node = |annotation: &str, labels: serde_json::Value| -> Node {
            serde_json::from_value(
                json!({"metadata": {"annotations": {NODE_ID: annotation}, "labels": labels}}),
            )
            .unwrap()
        };
        let place = BTreeMap::from([("topology.example.com/zone".to_owned(), "a".to_owned())]);
        let other = node("{\"other\":\"x\"}", json!({}));
        let change = node_change(&other, "d", Some("n-1"), &place).unwrap().unwrap();
        assert_eq!(change["annotations"][NODE_ID], "{\"d\":\"n-1\",\"other\":\"x\"}");
        assert_eq!(change["labels"]["topology.example.com/zone"], "a");
        let known = node("{\"d\":\"n-1\"}", json!({"topology.example.com/zone": "a"}));
        assert_eq!(node_change(&known, "d", Some("n-1"), &place), Ok(None));
        let moved = node("{}", json!({"topology.example.com/zone": "b"}));
        assert!(node_change(&moved, "d", Some("n-1"), &place).unwrap_err().contains("collision"));
        let left = node_change(&known, "d", None, &BTreeMap::new()).unwrap().unwrap();
        assert!(left["annotations"][NODE_ID].is_null());
    }
}
