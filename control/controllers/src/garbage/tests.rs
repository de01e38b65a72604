use super::*;
use crate::fake::Fake;
use client::recorder::Writer;
use kube::api::ApiResource;
use serde_json::Value;
use supervise::Supervisor;
use tokio_util::sync::CancellationToken;

const PATH: &str = "/api/v1";

fn collector(fake: &Fake) -> Collector {
    recording(fake).0
}

fn recording(fake: &Fake) -> (Collector, Writer) {
    let client = fake.client();
    let (recorder, writing) = Recorder::new(Some(client.clone()), None);
    let collector = Collector::new(client, recorder, Arc::default(), true);
    let served = [
        ("", "ConfigMap", "configmaps", true),
        ("", "Secret", "secrets", true),
        ("rbac.authorization.k8s.io", "ClusterRole", "clusterroles", false),
    ];
    for (group, kind, plural, namespaced) in served {
        let gvk = kube::core::GroupVersionKind::gvk(group, "v1", kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        collector.kinds.lock().serve(ServedKind { resource, namespaced });
    }
    (collector, writing)
}

fn object(namespace: &str, name: &str, uid: &str, owners: &[(&str, &str, &str)]) -> Value {
    let owners: Vec<Value> = owners
        .iter()
        .map(|(kind, name, uid)| json!({ "apiVersion": "v1", "kind": kind, "name": name, "uid": uid }))
        .collect();
    json!({ "metadata": { "name": name, "namespace": namespace, "uid": uid, "resourceVersion": "1",
        "ownerReferences": owners } })
}

/// Makes an object on the server and in the graph.
fn there(collector: &Collector, fake: &Fake, kind: (&str, &str), object: &Value) {
    let (api_version, kind) = kind;
    let meta: ObjectMeta = serde_json::from_value(object["metadata"].clone()).unwrap();
    fake.put(
        &path(kind, meta.namespace.as_deref().unwrap_or_default(), &object["metadata"]["name"]),
        object.clone(),
    );
    let known = collector.kinds.lock().get(api_version, kind).unwrap();
    let mut node = node(&known, &meta);
    if !known.namespaced {
        node.identity.namespace.clear();
    }
    collector.observe(node);
}

fn path(kind: &str, namespace: &str, name: &Value) -> String {
    let name = name.as_str().unwrap();
    match kind {
        "ClusterRole" => format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}"),
        kind => format!("{PATH}/namespaces/{namespace}/{}s/{name}", kind.to_lowercase()),
    }
}

const CONFIG_MAP: (&str, &str) = ("v1", "ConfigMap");
const CLUSTER_ROLE: (&str, &str) = ("rbac.authorization.k8s.io/v1", "ClusterRole");

/// Works until nobody is to be looked at.
async fn settle(collector: &Collector) {
    for _ in 0..100 {
        let Ok(key) = timeout(Duration::from_millis(50), collector.queue.next()).await else { return };
        let outcome = collector.reconcile(&key).await;
        collector.queue.done(key, outcome.map_err(drop));
    }
    panic!("never at rest");
}

#[tokio::test]
async fn an_owner_missing_in_one_namespace_must_not_be_missing_in_another() {
    let fake = Fake::default();
    let collector = collector(&fake);
    // seen before the owners are, as after a start
    for n in 0..6 {
        let (name, uid) = (format!("owner-{n}"), format!("o{n}"));
        fake.put(&path("ConfigMap", "z", &json!(name)), object("z", &name, &uid, &[]));
        let owner = [("ConfigMap", name.as_str(), uid.as_str())];
        for namespace in ["b", "z"] {
            let child = object(namespace, &format!("child-{n}"), &format!("{namespace}{n}"), &owner);
            there(&collector, &fake, CONFIG_MAP, &child);
        }
    }
    settle(&collector).await;
    assert_eq!(fake.under(&format!("{PATH}/namespaces/z/configmaps/child")).len(), 6, "their owners live");
    assert!(fake.under(&format!("{PATH}/namespaces/b/")).is_empty());
    // nor when the owners are seen afterwards
    for n in 0..6 {
        there(&collector, &fake, CONFIG_MAP, &object("z", &format!("owner-{n}"), &format!("o{n}"), &[]));
    }
    settle(&collector).await;
    assert_eq!(fake.under(&format!("{PATH}/namespaces/z/configmaps/")).len(), 12);
}

#[tokio::test]
async fn a_dependent_in_another_namespace_or_of_another_kind_must_not_stay() {
    let fake = Fake::default();
    let (collector, writing) = recording(&fake);
    there(&collector, &fake, CONFIG_MAP, &object("a", "owner", "o", &[]));
    there(&collector, &fake, CONFIG_MAP, &object("b", "elsewhere", "1", &[("ConfigMap", "owner", "o")]));
    there(&collector, &fake, CONFIG_MAP, &object("a", "miscast", "2", &[("Secret", "owner", "o")]));
    there(&collector, &fake, CONFIG_MAP, &object("a", "misnamed", "3", &[("ConfigMap", "other", "o")]));
    there(&collector, &fake, CONFIG_MAP, &object("a", "true", "4", &[("ConfigMap", "owner", "o")]));
    settle(&collector).await;
    let left = fake.under(&format!("{PATH}/namespaces/"));
    let names: Vec<&Value> = left.iter().map(|o| &o["metadata"]["name"]).collect();
    assert_eq!(names, ["owner", "true"]);
    let scope = Scope::new(&Supervisor::default(), "", &CancellationToken::new());
    scope.keep(writing.task("events"));
    let written = async || {
        loop {
            let events: Vec<Value> =
                fake.under(PATH).into_iter().filter(|o| !o["reason"].is_null()).collect();
            if !events.is_empty() {
                return events;
            }
            tokio::task::yield_now().await;
        }
    };
    let events = timeout(Duration::from_secs(10), written()).await.unwrap();
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!(event["reason"], "OwnerRefInvalidNamespace");
    assert_eq!(event["involvedObject"]["name"], "elsewhere");
    let message =
        "ownerRef [v1/ConfigMap, namespace: b, name: owner, uid: o] does not exist in namespace \"b\"";
    assert_eq!(event["message"], message);
}

#[tokio::test]
async fn a_cluster_scoped_object_naming_a_namespaced_owner_must_not_be_deleted_with_it() {
    let fake = Fake::default();
    let collector = collector(&fake);
    let owner = object("a", "owner", "o", &[]);
    let role = object("", "role", "r", &[("ConfigMap", "owner", "o")]);
    there(&collector, &fake, CONFIG_MAP, &owner);
    there(&collector, &fake, CLUSTER_ROLE, &role);
    settle(&collector).await;
    let outcome = collector.graph.lock().remove("o");
    collector.take(outcome);
    settle(&collector).await;
    assert!(fake.writes().is_empty(), "{:?}", fake.writes());
}

#[tokio::test]
async fn an_owner_in_a_version_that_is_not_served_must_not_be_taken_for_gone() {
    let fake = Fake::default();
    let collector = collector(&fake);
    let mut child = object("a", "child", "c", &[("ConfigMap", "owner", "o")]);
    child["metadata"]["ownerReferences"][0]["apiVersion"] = json!("v0");
    there(&collector, &fake, CONFIG_MAP, &child);
    assert!(collector.reconcile(&Key::new("", "c")).await.is_err());
    assert!(fake.writes().is_empty());
}

#[tokio::test]
async fn an_object_written_all_the_time_must_not_outlive_its_owner() {
    let fake = Fake::default();
    let collector = collector(&fake);
    let mut child = object("a", "child", "c", &[("ConfigMap", "owner", "o")]);
    there(&collector, &fake, CONFIG_MAP, &child);
    child["metadata"]["resourceVersion"] = json!("2");
    fake.put(&path("ConfigMap", "a", &json!("child")), child);
    settle(&collector).await;
    assert!(fake.under(PATH).is_empty());
}

#[tokio::test]
async fn a_newly_adopted_object_must_not_be_deleted_for_its_old_owner() {
    let fake = Fake::default();
    let collector = collector(&fake);
    let child = object("a", "child", "c", &[("ConfigMap", "owner", "o")]);
    there(&collector, &fake, CONFIG_MAP, &child);
    let mut adopted = object("a", "child", "c", &[("ConfigMap", "new", "n")]);
    adopted["metadata"]["resourceVersion"] = json!("2");
    fake.put(&path("ConfigMap", "a", &json!("child")), adopted);
    settle(&collector).await;
    assert_eq!(fake.under(PATH).len(), 1);
}

#[tokio::test]
async fn an_owner_that_lets_go_must_not_keep_a_dependent() {
    let fake = Fake::default();
    let collector = collector(&fake);
    let mut owner = object("a", "owner", "o", &[]);
    owner["metadata"]["finalizers"] = json!(["orphan"]);
    owner["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    there(&collector, &fake, CONFIG_MAP, &owner);
    for (name, uid) in [("first", "1"), ("second", "2")] {
        there(&collector, &fake, CONFIG_MAP, &object("a", name, uid, &[("ConfigMap", "owner", "o")]));
    }
    settle(&collector).await;
    for name in ["first", "second"] {
        let child = fake.get(&path("ConfigMap", "a", &json!(name))).unwrap();
        assert_eq!(child["metadata"]["ownerReferences"], json!([]));
    }
    let owner = fake.get(&path("ConfigMap", "a", &json!("owner"))).unwrap();
    assert_eq!(owner["metadata"]["finalizers"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn objects_that_go_must_not_be_unheard_of_where_no_garbage_is_collected() {
    let fake = Fake::default();
    let list = |items: Value| json!({ "metadata": { "resourceVersion": "1" }, "items": items });
    fake.put("/api", list(json!([crate::discovery::tests::group("", &[("v1", &["configmaps"])])])));
    fake.put("/apis", list(json!([crate::discovery::tests::group("g.io", &[("v1", &["as"])])])));
    let owned = object("n", "a", "ua", &[("configmaps", "gone", "ug")]);
    fake.put("/apis/g.io/v1/as", list(json!([owned])));
    fake.put("/api/v1/configmaps", list(json!([])));
    let (inventory, (told, mut heard)) =
        (Arc::new(Inventory::default()), tokio::sync::mpsc::unbounded_channel());
    inventory.on_gone(move |group, plural, _| drop(told.send(format!("{plural}.{group}"))));
    let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
    let scope = Scope::new(&supervisor, "", &stop);
    let (recorder, _writing) = Recorder::new(None, None);
    scope.keep(crate::inventory::follow(fake.client(), inventory.clone()));
    listen(&scope, fake.client(), recorder, inventory);
    // Whoever counts is told to count anew once a kind is watched, and from then on of each object.
    let mut kinds = [heard.recv().await.unwrap(), heard.recv().await.unwrap()];
    kinds.sort();
    assert_eq!(kinds, ["as.g.io", "configmaps."]);
    let none: [String; 0] = [];
    assert_eq!(fake.writes(), none, "nobody collects");
    stop.cancel();
    scope.ended().await;
}
