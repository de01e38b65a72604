//! The embedded store becomes etcd's, whatever happens on the way.

use crate::server::{Block, Server, etcd_is_there, named};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use store::embedded::{Options, Store};
use store::{Backend as _, Expect};

/// Name and uid to resource version: what hardly anybody writes unasked.
async fn state(client: &Client) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "moved");
    for map in maps.list(&ListParams::default()).await.unwrap() {
        found.insert(format!("{} {}", map.name_any(), map.uid().unwrap()), map.resource_version().unwrap());
    }
    let roles: Api<ClusterRole> = Api::all(client.clone());
    for role in roles.list(&ListParams::default()).await.unwrap() {
        found
            .insert(format!("{} {}", role.name_any(), role.uid().unwrap()), role.resource_version().unwrap());
    }
    found
}

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "moved")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_object_and_no_revision_must_be_lost_on_the_way_to_etcd() {
    if !etcd_is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let block = Block::claim();
    let mut server = Server::new(dir.path(), &block.ip(1));
    server.start(&[]);
    let client = server.ready().await;
    let namespace = serde_json::from_value(json!({"metadata": {"name": "moved"}})).unwrap();
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let held = maps(&client).create(&PostParams::default(), &named("held")).await.unwrap();
    server.stop();
    {
        let store = Store::open(server.file("store.redb"), Options::default()).unwrap();
        let puts = (0..3000).map(|n| {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"n": n.to_string()},
                "metadata": {"name": format!("m{n}"), "namespace": "moved", "uid": format!("uid-{n}"),
                "creationTimestamp": "2026-01-01T00:00:00Z"}});
            let value = serde_json::to_vec(&map).unwrap().into();
            let store = &store;
            async move {
                store.put(&format!("/registry/configmaps/moved/m{n}"), value, Expect::Absent, None).await
            }
        });
        futures::future::try_join_all(puts).await.unwrap();
    }
    server.start(&[]);
    let client = server.ready().await;
    let before = state(&client).await;
    assert!(before.len() > 3000);
    server.stop();
    let revision = Store::open(server.file("store.redb"), Options::default()).unwrap().revision();

    // Long before anything is moved, and up to when it may be done: on this machine, today.
    for delay in [100, 400, 900, 1600, 2500, 4000] {
        server.start(&["--cluster-init"]);
        tokio::time::sleep(Duration::from_millis(delay)).await;
        assert!(!server.has_ended(), "{}", server.log());
        server.kill();
    }
    server.start(&["--cluster-init"]);
    let client = server.ready().await;
    assert!(!server.file("store.redb").exists() && server.file("store.redb.moved").exists());
    let after = state(&client).await;
    for (object, version) in &before {
        let (now, then) = (after.get(object).map(|v| v.parse::<u64>().unwrap()), version.parse().unwrap());
        assert!(now >= Some(then), "{object}: {now:?} after {then}");
        // Roles that are made of others are written at every start.
        assert!(now == Some(then) || !object.contains("uid-"), "{object}: {now:?}, not {then}");
    }

    // Who has seen an object before may still write it; who watched goes on, or is told to look afresh.
    let patch = json!({"metadata": {"resourceVersion": held.resource_version()}, "data": {"k": "v"}});
    let written = maps(&client).patch("held", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    let version: u64 = written.resource_version().unwrap().parse().unwrap();
    assert!(version > revision, "{version} is not after {revision}");
    match first_event(&client, &revision.to_string()).await {
        WatchEvent::Modified(map) => assert_eq!(map.name_any(), "held"),
        WatchEvent::Error(status) => assert_eq!(status.code, 410, "{status:?}"),
        other => panic!("{other:?}"),
    }
    let old = first_event(&client, "1").await;
    assert!(matches!(&old, WatchEvent::Error(status) if status.code == 410), "{old:?}");

    // It is what it is, flag or none.
    server.kill();
    server.start(&[]);
    let client = server.ready().await;
    assert_eq!(maps(&client).get("held").await.unwrap().resource_version(), written.resource_version());
    let listed: serde_json::Value =
        serde_json::from_str(&server.says(&["member", "list", "--output", "json"])).unwrap();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["healthy"]), (1, &json!(true)), "{listed}");
    server.stop();
}

async fn first_event(client: &Client, from: &str) -> WatchEvent<ConfigMap> {
    use futures::{StreamExt as _, TryStreamExt as _};
    let events = maps(client).watch(&WatchParams::default().timeout(60), from).await;
    let mut events = match events {
        Ok(events) => events.boxed(),
        Err(kube::Error::Api(status)) => return WatchEvent::Error(status),
        Err(error) => panic!("{error}"),
    };
    match events.try_next().await {
        Ok(event) => event.expect("the watch ended"),
        Err(error) => panic!("{error}"),
    }
}
