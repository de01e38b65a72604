//! Definitions by the hundred: what one of them costs, and what it costs the others.

use super::*;
use crate::discovery::{Catalog, CustomResources, Source as _};
use crate::registry::serving::Serving;
use std::sync::Weak;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn crd(plural: &str, kind: &str, note: &str) -> Value {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "description": note,
        "x-kubernetes-validations": [{"rule": "self.size >= 0"}],
        "properties": {"size": {"type": "integer", "default": 1}}}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{plural}.io")},
        "spec": {"group": format!("{plural}.io"), "scope": "Cluster", "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
}

fn collection(plural: &str) -> String {
    format!("/apis/{plural}.io/v1/{plural}")
}

fn object(kind: &str, plural: &str, name: &str) -> Value {
    json!({"apiVersion": format!("{plural}.io/v1"), "kind": kind, "metadata": {"name": name}, "spec": {}})
}

pub(super) async fn until(what: impl Fn() -> bool) {
    for _ in 0..1000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not come to be");
}

fn serving(s: &Server, plural: &str) -> Option<Arc<Serving>> {
    s.registry.custom.slot(&format!("{plural}.{plural}.io")).serving()
}

fn established(s: &Server, plural: &str) -> bool {
    serving(s, plural).is_some_and(|serving| serving.outline.established)
}

async fn define(s: &Server, plural: &str, kind: &str) {
    s.ok("POST", CRDS, crd(plural, kind, "first")).await;
    until(|| established(s, plural)).await;
}

fn catalog(s: &Server) -> Catalog {
    Catalog::new(vec![Arc::new(CustomResources(s.registry.clone()))])
}

fn hash(catalog: &Catalog, plural: &str) -> String {
    let groups = catalog.groups();
    let group = groups.iter().find(|group| group.name == format!("{plural}.io")).unwrap();
    catalog.hash(&group.name, &group.versions[0])
}

#[tokio::test]
async fn a_change_of_one_definition_must_not_compile_another() {
    let s = Server::start().await;
    for (plural, kind) in [("as", "A"), ("bs", "B")] {
        define(&s, plural, kind).await;
        s.ok("POST", &collection(plural), object(kind, plural, "one")).await;
    }
    assert_eq!(s.registry.custom.compilations(), 2, "once each, however often it is used");
    let path = format!("{CRDS}/as.as.io");
    let (generation, catalog) = (s.registry.custom.generation(), catalog(&s));
    let before = [hash(&catalog, "as"), hash(&catalog, "bs")];
    let mut changed = s.get(&path).await;
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"]
        ["default"] = json!(7);
    s.ok("PUT", &path, changed).await;
    until(|| s.registry.custom.generation() > generation).await;
    for (plural, kind, size) in [("as", "A", 7), ("bs", "B", 1)] {
        let made = s.ok("POST", &collection(plural), object(kind, plural, "two")).await;
        assert_eq!(made["spec"]["size"], size);
    }
    assert_eq!(s.registry.custom.compilations(), 3, "the one that changed");
    assert_ne!(hash(&catalog, "as"), before[0], "it is described in another way");
    assert_eq!(hash(&catalog, "bs"), before[1], "clients need not read the other's description again");
}

#[tokio::test]
async fn a_change_of_labels_or_status_must_not_cost_watches_or_what_is_compiled() {
    let s = Server::start().await;
    define(&s, "as", "A").await;
    s.ok("POST", &collection("as"), object("A", "as", "one")).await;
    let storage = s.registry.custom.slot("as.as.io").storage().unwrap();
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    let before = serving(&s, "as").unwrap();
    let path = format!("{CRDS}/as.as.io");
    assert_eq!(s.patch(&path, "merge-patch+json", labels).await.code, 200);
    until(|| !Arc::ptr_eq(&serving(&s, "as").unwrap(), &before)).await;
    s.ok("POST", &collection("as"), object("A", "as", "two")).await;
    assert_eq!(s.registry.custom.compilations(), 1);
    assert!(!storage.replaced.is_cancelled());
}

#[tokio::test]
async fn a_definition_nobody_uses_must_not_be_compiled_at_start() {
    let s = Server::start().await;
    for (plural, kind) in [("as", "A"), ("bs", "B"), ("cs", "C")] {
        define(&s, plural, kind).await;
    }
    s.ok("POST", &collection("as"), object("A", "as", "one")).await;
    let next = s.another(Config::default()).await;
    assert!(["as", "bs", "cs"].iter().all(|plural| established(&next, plural)), "served from the start");
    let catalog = catalog(&next);
    for plural in ["as", "bs", "cs"] {
        let slot = next.registry.custom.slot(&format!("{plural}.{plural}.io"));
        assert!(slot.storage().unwrap().fed().is_none(), "nothing was read of {plural}");
        // The same cluster is described alike by each of its servers.
        assert_eq!(hash(&catalog, plural), hash(&self::catalog(&s), plural));
    }
    assert_eq!(next.get(&collection("bs")).await["items"], json!([]));
    assert_eq!(next.get(&format!("{}?resourceVersion=0", collection("cs"))).await["items"], json!([]));
    assert_eq!(next.registry.custom.compilations(), 0, "there was no object to read");
    assert_eq!(next.get(&format!("{}/one", collection("as"))).await["spec"]["size"], 1);
    assert_eq!(next.registry.custom.compilations(), 1);
}

#[tokio::test]
async fn what_is_compiled_must_not_be_kept_of_idle_definitions() {
    let s = Server::start().await;
    define(&s, "as", "A").await;
    s.ok("POST", &collection("as"), object("A", "as", "one")).await;
    let kept = |s: &Server| Arc::downgrade(&serving(s, "as").unwrap().definition());
    let compiled = kept(&s);
    s.registry.custom.rest(Duration::from_secs(3600));
    assert!(compiled.upgrade().is_some(), "it was used just now");
    s.registry.custom.rest(Duration::ZERO);
    assert!(compiled.upgrade().is_none());
    let broken =
        json!({"apiVersion": "as.io/v1", "kind": "A", "metadata": {"name": "x"}, "spec": {"size": -1}});
    assert_eq!(s.refused("POST", &collection("as"), broken).await.0, 422, "its rules hold as before");
    assert_eq!(s.registry.custom.compilations(), 2);
}

#[tokio::test]
async fn a_deleted_definition_must_not_leave_anything_in_memory() {
    let s = Server::start().await;
    for (plural, kind) in [("as", "A"), ("bs", "B")] {
        define(&s, plural, kind).await;
        s.ok("POST", &collection(plural), object(kind, plural, "one")).await;
        s.get(&collection(plural)).await;
    }
    let slot = s.registry.custom.slot("as.as.io");
    let (storage, gone): (_, Weak<Serving>) =
        (Arc::downgrade(&slot.storage().unwrap()), Arc::downgrade(&slot.serving().unwrap()));
    let compiled = Arc::downgrade(&slot.serving().unwrap().definition());
    let feeds = || {
        let tasks = s.registry.config.supervisor.reports();
        tasks.iter().filter(|task| task.name.starts_with("feed/as.io")).count()
    };
    assert_eq!(feeds(), 1);
    s.ok("DELETE", &format!("{CRDS}/as.as.io"), Value::Null).await;
    until(|| slot.serving().is_none() && slot.storage().is_none()).await;
    until(|| storage.upgrade().is_none() && gone.upgrade().is_none() && compiled.upgrade().is_none()).await;
    until(|| feeds() == 0).await;
    assert_eq!(s.refused("GET", &collection("as"), Value::Null).await.0, 404);
    let groups = CustomResources(s.registry.clone()).groups();
    assert_eq!(groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>(), ["bs.io"]);
    assert_eq!(s.get(&collection("bs")).await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_definition_that_waits_for_a_name_must_not_wait_for_ever() {
    let s = Server::start().await;
    let of = |plural: &str| {
        let mut crd = crd(plural, plural, "x");
        crd["metadata"]["name"] = format!("{plural}.shared.io").into();
        crd["spec"]["group"] = "shared.io".into();
        crd["spec"]["names"]["shortNames"] = json!(["x"]);
        crd
    };
    let served = |plural: &str| s.registry.custom.slot(&format!("{plural}.shared.io")).serving().is_some();
    s.ok("POST", CRDS, of("as")).await;
    until(|| served("as")).await;
    s.ok("POST", CRDS, of("bs")).await;
    let path = format!("{CRDS}/bs.shared.io");
    becomes(&s, &path, "/status/conditions/0/reason", &json!("ShortNamesConflict")).await;
    assert!(!served("bs"));
    // The first gives the name up, and stays.
    let names = json!({"spec": {"names": {"shortNames": null}}});
    assert_eq!(s.patch(&format!("{CRDS}/as.shared.io"), "merge-patch+json", names).await.code, 200);
    until(|| served("bs")).await;
    becomes(&s, &path, "/status/acceptedNames/shortNames", &json!(["x"])).await;
}

#[tokio::test]
async fn the_api_service_of_a_definition_must_not_come_and_go_with_what_one_server_has_seen() {
    let s = Server::start().await;
    define(&s, "as", "A").await;
    let path = "/apis/apiregistration.k8s.io/v1/apiservices/v1.as.io";
    becomes(&s, &format!("{CRDS}/as.as.io"), "/status/storedVersions/0", &json!("v1")).await;
    let code = async || s.ask("GET", path, Value::Null).await.code;
    let look = async || crate::upkeep::api_services::reconcile(s.writer.clone()).await.unwrap();
    look().await;
    let uid = s.get(path).await["metadata"]["uid"].clone();
    let seen = serving(&s, "as").unwrap();
    // As a server that has not heard of the definition yet.
    s.registry.custom.forget("as.as.io");
    look().await;
    assert_eq!(s.get(path).await["metadata"]["uid"], uid, "it is another server's");
    let source = bytes::Bytes::from(s.get(&format!("{CRDS}/as.as.io")).await.to_string());
    s.registry.custom.serve(seen.outline.clone(), source.clone());
    s.ok("DELETE", &format!("{CRDS}/as.as.io"), Value::Null).await;
    until(|| serving(&s, "as").is_none()).await;
    // It goes once the definition itself has: its store shows that a little later than the watch.
    let mut rounds = 0;
    while code().await != 404 {
        assert!(rounds < 1000, "nothing defines it");
        tokio::time::sleep(Duration::from_millis(10)).await;
        look().await;
        rounds += 1;
    }
    // As a server that has not heard of the end yet.
    s.registry.custom.serve(seen.outline.clone(), source);
    look().await;
    assert_eq!(code().await, 404, "it does not come back");
}

#[tokio::test]
async fn a_watch_opened_while_its_definition_changes_must_not_be_deaf() {
    let s = Server::start().await;
    define(&s, "as", "A").await;
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/size/default";
    let (path, target) = (format!("{CRDS}/as.as.io"), format!("{}?watch=true", collection("as")));
    for round in 0..20 {
        let generation = s.registry.custom.generation();
        let change = json!([{"op": "replace", "path": field, "value": round + 2}]);
        let changing = s.patch(&path, "json-patch+json", change);
        let (changed, mut watch) = tokio::join!(changing, watches::open(&s, &target, &[]));
        assert_eq!(changed.code, 200);
        until(|| s.registry.custom.generation() > generation).await;
        let name = format!("o{round}");
        s.ok("POST", &collection("as"), object("A", "as", &name)).await;
        // It tells of what happens, or it has ended and its client opens another.
        while let Some((_, object)) = watch.next().await {
            if object["metadata"]["name"] == name {
                break;
            }
        }
    }
}

/// Waits until a field of an object has a value; as a rule, that is within milliseconds.
async fn becomes(s: &Server, path: &str, field: &str, value: &Value) {
    for _ in 0..1000 {
        if s.get(path).await.pointer(field) == Some(value) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{path}: {}", s.get(path).await);
}
