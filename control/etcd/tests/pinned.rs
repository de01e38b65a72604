//! Two clusters, and a client that is told of both: one address came to another cluster. Skipped where there is no etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

#[path = "database/member.rs"]
mod member;

use etcd::v3::{RangeRequest, WatchCreateRequest};
use etcd::{Client, Config};
use member::{Member, PROGRAM, put, serves, until};
use std::path::Path;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_must_not_be_listened_to_or_written_to() {
    if !Path::new(PROGRAM).exists() {
        println!("skipped: there is no {PROGRAM}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [mut ours, mut other] = ["ours", "other"].map(|name| Member::new(dir.path(), name));
    for (name, member) in [("ours", &mut ours), ("other", &mut other)] {
        let alone = format!("{name}={}", member.peer);
        member.start(&alone, "new", 1000);
        serves(member).await;
    }
    let told = ours.client().member_list().await.unwrap();
    assert_ne!(told.cluster, other.client().member_list().await.unwrap().cluster);
    assert_eq!(told, ours.client().member_list_of_one().await.unwrap());

    // Clients begin with either of the two.
    let endpoints = vec![other.client.clone(), ours.client.clone()];
    let config = Config { endpoints, cluster: Some(told.cluster), ..Config::default() };
    let all = || RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..RangeRequest::default() };
    for n in 0..8 {
        let client = Client::new(&config).unwrap();
        put(&client, &format!("k{n}")).await;
        assert_eq!(client.range(all()).await.unwrap().count, n + 1);
        assert_eq!(client.member_list().await.unwrap(), told);
        let watch = || WatchCreateRequest { key: "k".into(), ..WatchCreateRequest::default() };
        let opened = until(&ours, || async { client.watch(watch()).await.ok() });
        let created = opened.await.next().await.unwrap();
        assert_eq!(created.header.unwrap().cluster_id, told.cluster);
    }
    assert_eq!(other.client().range(all()).await.unwrap().count, 0, "nothing was written there");
    other.stop();
    put(&Client::new(&config).unwrap(), "last").await;
}
