use super::*;
use crate::fake::Fake;
use k8s_openapi::api::core::v1::Service;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::time::Duration;
use supervise::{Scope, Supervisor};
use tokio_util::sync::CancellationToken;

fn service(name: &str, version: u32, port: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": version.to_string()},
        "spec": {"ports": [{"port": port}]}})
}

/// An informer that runs, and what its handler was told.
async fn running(fake: &Fake) -> (Arc<Informer<Service>>, Arc<Mutex<Vec<String>>>, Scope) {
    let informer = Arc::new(Informer::<Service>::default());
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    informer.on_change(move |old, new| {
        let name = new.or(old).and_then(|s| s.metadata.name.clone()).unwrap_or_default();
        tell.lock().push(format!("{name} {} {}", old.is_some(), new.is_some()));
        assert!(name != "poison" || tell.lock().len() > 1, "the handler panics once");
    });
    let scope = Scope::new(&Supervisor::default(), "informer/", &CancellationToken::new());
    scope.keep(informer.task("services", Source::all::<Service>(&fake.client())));
    informer.synced().await;
    (informer, told, scope)
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_must_not_be_taken_for_absent() {
    let fake = Fake::new(vec![service("a", 1, json!(80)), service("b", 2, json!("x"))]);
    let (informer, told, _scope) = running(&fake).await;
    let (a, b) = (Key::new("n", "a"), Key::new("n", "b"));
    assert!(informer.get(&b).is_none() && informer.exists(&b) && informer.list("n").len() == 1);
    fake.watched().await;
    fake.send("MODIFIED", service("a", 101, json!({})));
    fake.send("MODIFIED", service("b", 102, json!(80)));
    until(|| informer.get(&b).is_some()).await;
    assert!(informer.get(&a).is_some(), "it stays as it was last known");
    fake.send("DELETED", service("a", 103, json!({})));
    until(|| !informer.exists(&a)).await;
    assert_eq!(*told.lock(), ["a false true", "b false true", "a true false"]);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_object_that_goes_during_a_lapse_is_forgotten() {
    let fake = Fake::new(vec![service("a", 1, json!(80)), service("b", 2, json!("x"))]);
    let (informer, told, _scope) = running(&fake).await;
    let tell = told.clone();
    informer.on_unread_gone(move |key| tell.lock().push(format!("unread {key} is gone")));
    fake.watched().await;
    fake.set_items(vec![service("a", 1, json!(80))]);
    fake.refuse_next_watch(410);
    fake.end_watches();
    until(|| !informer.exists(&Key::new("n", "b"))).await;
    let expected = ["a false true", "unread n/b is gone"];
    assert_eq!(*told.lock(), expected, "what did not change wakes nobody");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_is_told_again() {
    let fake = Fake::new(vec![service("poison", 1, json!(80)), service("z", 2, json!(80))]);
    let (informer, told, scope) = running(&fake).await;
    assert_eq!(informer.list("n").len(), 2);
    assert_eq!(scope.supervisor().report("informer/services").unwrap().panics, 1);
    assert!(told.lock().contains(&"z false true".to_owned()), "{told:?}");
}
