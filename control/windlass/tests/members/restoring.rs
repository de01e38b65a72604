//! A snapshot of etcd, taken while it is written to, is a cluster again on a machine that has nothing.

use crate::server::{Block, PATIENCE, Server, etcd_is_there, named};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const ENCRYPTION: &str = "
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox: {keys: [{name: k1, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}
";

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

/// What servers that join are told, once it is said.
async fn announced(client: &Client) -> BTreeMap<String, String> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(map) = maps.get_opt("windlass-etcd").await.unwrap() {
            return map.data.unwrap();
        }
        assert!(Instant::now() < end, "nothing is said");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_snapshot_of_etcd_began_must_come_back() {
    if !etcd_is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let block = Block::claim();
    let mut one = Server::new(dir.path(), &block.ip(1));
    let keys = dir.path().join("keys.yaml");
    std::fs::write(&keys, ENCRYPTION).unwrap();
    one.start(&["--cluster-init", "--encryption-provider-config", keys.to_str().unwrap()]);
    let client = one.ready().await;
    let secrets = |client: &Client| Api::<Secret>::namespaced(client.clone(), "default");
    let secret = serde_json::from_value(json!({"metadata": {"name": "sealed"}, "stringData": {"k": "v"}}));
    secrets(&client).create(&PostParams::default(), &secret.unwrap()).await.unwrap();
    let before = announced(&client).await;
    let mut written = BTreeSet::new();
    let mut newest = 0;
    for n in 0..200 {
        let made = maps(&client).create(&PostParams::default(), &named(&format!("m{n}"))).await.unwrap();
        written.insert(made.name_any());
        newest = newest.max(made.resource_version().unwrap().parse::<u64>().unwrap());
    }
    let file = {
        let api = maps(&client);
        let writing = async {
            for n in 0.. {
                api.create(&PostParams::default(), &named(&format!("meanwhile-{n}"))).await.unwrap();
            }
        };
        let saving = tokio::task::spawn_blocking({
            let mut save = one.command(&["snapshot", "save", "--name", "test"]);
            move || save.output()
        });
        tokio::select! {
            () = writing => unreachable!(),
            saved = saving => saved,
        }
    };
    let file = file.unwrap().unwrap();
    assert!(file.status.success(), "{}\n{}", String::from_utf8_lossy(&file.stderr), one.log());
    let file = String::from_utf8(file.stdout).unwrap().trim().to_owned();
    one.kill();
    // Where the other machine has nothing.
    std::fs::remove_file(&keys).unwrap();

    let mut other = Server::new(dir.path(), &block.ip(2));
    other.says(&["snapshot", "restore", &file]);
    // Whoever dies at once begins again.
    other.start(&[]);
    tokio::time::sleep(Duration::from_millis(700)).await;
    other.kill();
    other.start(&[]);
    let client = other.ready().await;
    assert!(other.file("etcd.db.restored").exists() && !other.file("etcd.db").exists());
    let sealed = secrets(&client).get("sealed").await.unwrap().data.unwrap();
    assert_eq!(sealed["k"].0, b"v", "what was encrypted can be read");
    // A server that joins must not be sent to the members there were.
    let said = announced(&client).await;
    assert_eq!(said["endpoints"], format!("https://{}:2379", other.ip));
    assert_ne!(said["cluster-id"], before["cluster-id"]);
    let list = maps(&client).list(&ListParams::default()).await.unwrap();
    let found: BTreeSet<String> = list.items.iter().map(ResourceExt::name_any).collect();
    assert!(written.is_subset(&found), "{:?}", written.difference(&found).collect::<Vec<_>>());
    let now: u64 = list.metadata.resource_version.unwrap().parse().unwrap();
    assert!(now > newest + 500_000_000, "no revision after the snapshot comes again: {now} after {newest}");
    maps(&client).create(&PostParams::default(), &named("and-goes-on")).await.unwrap();
    other.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_must_not_be_restored_beside_members_that_serve() {
    if !etcd_is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let block = Block::claim();
    let [mut one, mut two] = [1, 2].map(|n| Server::new(dir.path(), &block.ip(n)));
    one.start(&["--cluster-init", "--etcd-prefix", "/elsewhere"]);
    let client = one.ready().await;
    maps(&client).create(&PostParams::default(), &named("kept")).await.unwrap();
    let token = one.token(&["--control-plane"]);
    two.start(&["--server", &one.url(), "--token", &token, "--etcd-prefix", "/elsewhere"]);
    two.ready().await;
    // The first is told of the second a moment later.
    let known = |one: &Server| std::fs::read_to_string(one.file("etcd/member.json")).unwrap();
    let end = Instant::now() + PATIENCE;
    while !known(&one).contains(&two.name()) {
        assert!(Instant::now() < end, "{}", known(&one));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let file = one.says(&["snapshot", "save"]);
    one.kill();
    let refused = one.windlass(&["snapshot", "restore", &file]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains(&two.name()), "{said}");
    assert!(one.file("etcd/member.json").exists(), "nothing has changed");
    two.kill();
    let said = one.says(&["snapshot", "restore", &file]);
    assert!(said.contains(&format!("empty the servers of {}", two.name())), "{said}");
    // Under the prefix it had, which nobody has to name again.
    one.start(&[]);
    let client = one.ready().await;
    maps(&client).get("kept").await.unwrap();
    one.stop();
}
