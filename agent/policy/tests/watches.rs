//! The task as a whole against an API server of objects, in a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use client::fake::Fake;
use client::fake::services::in_network_namespace;
use policy::Config;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use supervise::Supervisor;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

fn policy(name: &str) -> Value {
    json!({"kind": "NetworkPolicy", "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"podSelector": {"matchLabels": {"app": "closed"}}, "policyTypes": ["Ingress"]}})
}

fn pod(name: &str, uid: &str, app: &str, address: Option<&str>) -> Value {
    let ips: Vec<Value> = address.iter().map(|ip| json!({"ip": ip})).collect();
    json!({"kind": "Pod", "metadata": {"name": name, "namespace": "default", "uid": uid, "labels": {"app": app}},
        "spec": {"nodeName": "n1", "containers": []}, "status": {"podIPs": ips}})
}

fn namespace() -> Value {
    json!({"kind": "Namespace", "metadata": {"name": "default", "uid": "default"}})
}

async fn listed() -> String {
    let out = tokio::process::Command::new("nft").args(["list", "ruleset"]).output().await.unwrap();
    String::from_utf8(out.stdout).unwrap()
}

/// Waits until what nft lists is as wanted.
async fn until(what: &str, wanted: impl Fn(&str) -> bool) {
    let look = async {
        while !wanted(&listed().await) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(Duration::from_secs(20), look).await.is_ok(), "{what}\n{}", listed().await);
}

async fn watched(fake: &Fake, watches: usize) {
    let count = || fake.asked().iter().filter(|query| query.contains("watch=true")).count();
    let look = async {
        while count() < watches {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(Duration::from_secs(20), look).await.is_ok(), "{} watches", count());
}

/// Asks as the CNI plugin does.
async fn ask(directory: &Path, pod: &str, uid: &str, address: &str) -> String {
    let connect = async {
        loop {
            match UnixStream::connect(directory.join("policy.sock")).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let mut stream = timeout(Duration::from_secs(20), connect).await.unwrap();
    let question = json!({"namespace": "default", "name": pod, "uid": uid, "addresses": [address]});
    stream.write_all(format!("{question}\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

const GO_ON: &str = "{\"error\":\"\"}\n";

/// Runs the task on these objects while `test` looks.
fn with(objects: Vec<Value>, test: impl AsyncFnOnce(&Fake, &Path) + Send + 'static) {
    in_network_namespace(move || async move {
        let (fake, directory) = (Fake::new(objects), TempDir::new().unwrap());
        let config = Config {
            directory: directory.path().to_owned(),
            metrics: None,
            audit: Duration::from_millis(100),
            ..Config::new("n1".to_owned(), directory.path().join("net.d"))
        };
        let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
        let running = policy::run(config, fake.client(), &supervisor, stop.clone());
        let look = async {
            test(&fake, directory.path()).await;
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(running, look);
        ended.unwrap();
    });
}

#[test]
fn a_plugin_must_not_be_let_go_before_its_pod_is_judged() {
    let objects = vec![policy("deny"), namespace(), pod("a", "a", "closed", Some("10.244.1.2"))];
    with(objects, async |fake, directory| {
        until("a is judged", |rules| rules.contains("10.244.1.2 : goto")).await;
        watched(fake, 3).await;
        assert!(
            timeout(Duration::from_millis(500), ask(directory, "new", "u2", "10.244.1.3")).await.is_err()
        );
        until("nobody knows it: held", |rules| rules.contains("10.244.1.3 : goto held/")).await;
        let asking = ask(directory, "new", "u2", "10.244.1.3");
        let known = async {
            fake.send("ADDED", pod("new", "u1", "closed", None));
            tokio::time::sleep(Duration::from_millis(300)).await;
            let held = listed().await.contains("10.244.1.3 : goto held/");
            fake.send("MODIFIED", pod("new", "u2", "closed", None));
            held
        };
        let (answer, held) = tokio::join!(asking, known);
        assert!(held, "one of that name is not the one");
        assert_eq!(answer, GO_ON);
        assert!(listed().await.contains("10.244.1.3 : goto selected/"), "before the plugin goes on");
        // what its policies do not select is open
        fake.send("ADDED", pod("open", "u3", "open", None));
        assert_eq!(ask(directory, "open", "u3", "10.244.1.4").await, GO_ON);
        assert!(!listed().await.contains("10.244.1.4"));
    });
}

#[test]
fn there_must_be_no_table_without_policies_nor_under_anothers_network() {
    let objects = vec![namespace(), pod("a", "a", "closed", Some("10.244.1.2"))];
    with(objects, async |fake, directory| {
        assert_eq!(ask(directory, "new", "u", "10.244.1.3").await, GO_ON);
        watched(fake, 1).await;
        assert_eq!(listed().await, "");
        assert!(!fake.asked().iter().any(|query| query.contains("phase")), "no pod is looked at");
        fake.send("ADDED", policy("deny"));
        until("a is judged", |rules| rules.contains("10.244.1.2 : goto")).await;
        let flushed = tokio::process::Command::new("nft").args(["flush", "ruleset"]).status().await.unwrap();
        assert!(flushed.success());
        until("the table is back", |rules| rules.contains("10.244.1.2 : goto")).await;
        let other = directory.join("net.d/05-other.conflist");
        std::fs::create_dir_all(other.parent().unwrap()).unwrap();
        std::fs::write(&other, r#"{"name": "other", "plugins": []}"#).unwrap();
        until("another's network", str::is_empty).await;
        std::fs::remove_file(&other).unwrap();
        until("ours again", |rules| rules.contains("10.244.1.2 : goto")).await;
        fake.send("DELETED", policy("deny"));
        until("no policy", str::is_empty).await;
    });
}

#[test]
fn whose_an_address_is_must_outlive_the_agent() {
    let objects = vec![policy("deny"), namespace(), pod("a", "a", "closed", None)];
    in_network_namespace(move || async move {
        let directory = TempDir::new().unwrap();
        let life = async |objects: Vec<Value>, first: bool| {
            let fake = Fake::new(objects);
            let config = Config {
                directory: directory.path().to_owned(),
                metrics: None,
                ..Config::new("n1".to_owned(), directory.path().join("net.d"))
            };
            let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
            let running = policy::run(config, fake.client(), &supervisor, stop.clone());
            let look = async {
                if first {
                    assert_eq!(ask(directory.path(), "a", "a", "10.244.1.2").await, GO_ON);
                } else {
                    until("no status says it", |rules| rules.contains("10.244.1.2 : goto selected/")).await;
                }
                stop.cancel();
            };
            let (ended, ()) = tokio::join!(running, look);
            ended.unwrap();
        };
        life(objects.clone(), true).await;
        let flushed = tokio::process::Command::new("nft").args(["flush", "ruleset"]).status().await.unwrap();
        assert!(flushed.success());
        life(objects, false).await;
    });
}
