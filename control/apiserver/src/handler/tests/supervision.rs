//! Panics put into the registry's tasks, one at a time.

use super::watches::{event, open};
use super::*;
use crate::health::{Endpoint, Health};
use supervise::Supervisor;

async fn start() -> (Server, Supervisor, Health) {
    let supervisor = Supervisor::default();
    let config = Config { supervisor: supervisor.clone(), ..Config::default() };
    (Server::with(config).await, supervisor.clone(), Health::new(supervisor))
}

/// What `/readyz?verbose` lists as failed.
async fn failed(health: &Health) -> Vec<String> {
    let response = health.answer(Endpoint::Ready, "", &crate::query::parse("verbose"));
    let text = response.into_body().collect().await.unwrap().to_bytes().to_vec();
    let text = String::from_utf8(text).unwrap();
    let failed = text.lines().filter_map(|line| line.strip_prefix("[-]"));
    failed.map(|line| line.trim_end_matches(" failed: reason withheld").to_owned()).collect()
}

async fn until(health: &Health, expected: &[&str]) {
    let wait = async {
        while failed(health).await != expected {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let within = Duration::from_secs(1);
    assert!(tokio::time::timeout(within, wait).await.is_ok(), "{:?}", failed(health).await);
}

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "b"}})
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_feed_that_panics_must_not_stop_another() {
    let (s, supervisor, health) = start().await;
    until(&health, &[]).await;
    s.ok("POST", MAPS, config_map("before")).await;
    let mut pods = open(&s, &format!("{PODS}?watch=1"), &[]).await;
    let mut maps = open(&s, &format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Dbefore"), &[]).await;
    assert_eq!(maps.named().await, event("ADDED", "before"));

    assert!(supervisor.inject_panic("feed/configmaps"));
    until(&health, &["feed/configmaps"]).await;
    // Another feed goes on as if nothing had happened, and writes of the fallen one's objects are taken.
    s.ok("POST", PODS, pod("meanwhile")).await;
    assert_eq!(pods.named().await, event("ADDED", "meanwhile"));
    s.ok("POST", MAPS, config_map("meanwhile")).await;
    until(&health, &[]).await;

    // Its watches end, as their history has a gap; whoever lists again misses nothing.
    assert!(maps.next().await.is_none());
    let names = s.get(MAPS).await;
    let has =
        |name: &str| names["items"].as_array().unwrap().iter().any(|item| item["metadata"]["name"] == name);
    assert!(has("before") && has("meanwhile"), "{names}");
    s.ok("POST", PODS, pod("after")).await;
    assert_eq!(pods.named().await, event("ADDED", "after"));
    assert_eq!(supervisor.report("feed/configmaps").unwrap().panics, 1);
}

#[tokio::test]
async fn the_tasks_that_keep_objects_are_back_within_a_second() {
    let (_server, supervisor, health) = start().await;
    until(&health, &[]).await;
    let names = [
        "kubernetes-service",
        "node-ports",
        "service-repair",
        "identity-lease",
        "flow-objects",
        "api-services",
    ];
    for name in names.into_iter().chain(["custom-resource-definitions"]) {
        assert!(supervisor.inject_panic(name), "{name}");
        until(&health, &[name]).await;
        until(&health, &[]).await;
    }
}

#[tokio::test]
async fn no_check_must_be_named_by_half() {
    let (s, supervisor, health) = start().await;
    let observer: Arc<dyn crate::objects::Observer> = Arc::new(Vec::new());
    s.registry.observe(&observer, &CancellationToken::new());
    assert!(supervisor.report("observe/pods").is_some() && supervisor.report("feed/pods").is_some());
    until(&health, &[]).await;
    let response = health.answer(Endpoint::Ready, "", &crate::query::parse("verbose"));
    let text = response.into_body().collect().await.unwrap().to_bytes().to_vec();
    for line in String::from_utf8(text).unwrap().lines().filter_map(|line| line.strip_prefix("[+]")) {
        let name = line.trim_end_matches(" ok");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "-./".contains(c)), "{name}");
        assert!(name.ends_with(|c: char| c.is_ascii_alphanumeric()), "{name}");
    }
}

#[tokio::test]
async fn a_definition_made_while_its_keeper_is_down_is_served() {
    let (s, supervisor, health) = start().await;
    assert!(supervisor.inject_panic("custom-resource-definitions"));
    until(&health, &["custom-resource-definitions"]).await;
    let definition = json!({
        "metadata": {"name": "gears.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "gears", "kind": "Gear"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]},
    });
    s.ok("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    let served = async {
        while s.ask("GET", "/apis/example.com/v1/gears", Value::Null).await.code != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), served).await.unwrap();
    assert!(supervisor.report("feed/example.com/gears").is_some(), "{supervisor:?}");
}
