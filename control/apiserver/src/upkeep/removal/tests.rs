use super::*;
use crate::registry::{Config, Registry, hooks};
use serde_json::json;
use store::embedded::{Options, Store};
use tokio_util::sync::DropGuard;

/// A registry with one definition, its resource, and the definition as stored.
struct World {
    writer: Arc<Writer>,
    definitions: Kind,
    crd: Value,
    stop: CancellationToken,
    _stopped: DropGuard,
    _dir: tempfile::TempDir,
}

const NAME: &str = "widgets.acme.com";

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store"), Options::default()).unwrap();
        let registry = Registry::new(Arc::new(store), Config::default());
        registry.attach(Arc::new(hooks::AllowAll));
        let (stop, writer) = (CancellationToken::new(), Writer::new(registry));
        let stopped = stop.clone().drop_guard();
        writer.start(stop.clone()).await.unwrap();
        let definitions = Kind::of("apiextensions.k8s.io", "customresourcedefinitions").unwrap();
        let crd = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": NAME},
            "spec": {"group": "acme.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}}}]},
        });
        writer.ensure(&definitions, crd).await.unwrap();
        let crd = writer.registry.lookup(&definitions, "", NAME).await.unwrap().unwrap();
        World { writer, definitions, crd, stop, _stopped: stopped, _dir: dir }
    }

    async fn terminating(&self) -> Option<Value> {
        let crd = self.writer.registry.lookup(&self.definitions, "", NAME).await.unwrap().unwrap();
        let conditions = crd["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == "Terminating")
    }
}

/// The same definition before it was made again.
fn former(crd: &Value) -> Value {
    let mut former = crd.clone();
    object::set_uid(&mut former, "former");
    former
}

#[tokio::test]
async fn a_removal_must_not_touch_a_definition_made_again_under_its_name() {
    let world = World::start().await;
    let crd = former(&world.crd);
    let removal = Removal { writer: world.writer.clone(), definitions: world.definitions, crd };
    let done = terminating("False", "InstanceDeletionCompleted", "removed all instances".to_owned());
    assert_eq!(removal.report(done, true).await.unwrap_err().code, 404);
    tokio::time::timeout(Duration::from_secs(10), removal.run()).await.unwrap();
    assert_eq!(world.terminating().await, None);
}

#[tokio::test]
async fn the_end_of_a_removal_must_not_hide_the_next_definition_of_its_name() {
    let world = World::start().await;
    let removals = Removals::default();
    removals.0.lock().insert(object::uid(&former(&world.crd)).to_owned());
    removals.begin(&world.writer, world.definitions, &world.crd, &world.stop);
    let uid = object::uid(&world.crd);
    for _ in 0..400 {
        if !removals.0.lock().contains(uid) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(world.terminating().await.is_some());
}
