//! A snapshot of etcd, taken while it is written to, is a cluster again on a machine that has nothing.

use crate::server::{Server, etcd_is_there, named};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use std::collections::BTreeSet;

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_snapshot_of_etcd_began_must_come_back() {
    if !etcd_is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut one = Server::new(dir.path(), "127.0.64.1");
    one.start(&["--cluster-init"]);
    let client = one.ready().await;
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

    let mut other = Server::new(dir.path(), "127.0.64.2");
    other.says(&["snapshot", "restore", &file]);
    // Whoever dies at once begins again.
    other.start(&[]);
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    other.kill();
    other.start(&[]);
    let client = other.ready().await;
    assert!(other.file("etcd.db.restored").exists() && !other.file("etcd.db").exists());
    let list = maps(&client).list(&ListParams::default()).await.unwrap();
    let found: BTreeSet<String> = list.items.iter().map(ResourceExt::name_any).collect();
    assert!(written.is_subset(&found), "{:?}", written.difference(&found).collect::<Vec<_>>());
    let now: u64 = list.metadata.resource_version.unwrap().parse().unwrap();
    assert!(now > newest + 500_000_000, "no revision after the snapshot comes again: {now} after {newest}");
    maps(&client).create(&PostParams::default(), &named("and-goes-on")).await.unwrap();
    other.stop();
}
