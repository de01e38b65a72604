//! Servers that join, die, lose their disks and come again.

use crate::server::{Block, PATIENCE, Server, etcd_is_there, named};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::Value;
use std::time::{Duration, Instant};

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

fn members(server: &Server) -> Vec<Value> {
    let text = server.says(&["member", "list", "--output", "json"]);
    serde_json::from_str::<Vec<Value>>(&text).unwrap()
}

/// Writes until it is taken: what failed without a trace may be done again.
async fn write(server: &mut Server, name: &str) {
    let client = server.ready().await;
    let end = Instant::now() + PATIENCE;
    loop {
        match maps(&client).create(&PostParams::default(), &named(name)).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.is_already_exists() => return,
            Err(kube::Error::Api(status)) if status.code < 500 => panic!("{status:?}"),
            Err(error) => assert!(Instant::now() < end, "{error}\n{}", server.log()),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn reads(server: &mut Server, names: &[&str]) {
    let client = server.ready().await;
    for name in names {
        maps(&client).get(name).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_join_however_often_they_are_killed_and_one_may_lose_its_disk() {
    if !etcd_is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let block = Block::claim();
    let [mut one, mut two, mut three] = [1, 2, 3].map(|n| Server::new(dir.path(), &block.ip(n)));
    one.start(&["--cluster-init"]);
    write(&mut one, "first").await;
    let token = one.token(&["--control-plane"]);
    let url = one.url();
    let join = ["--server", &url, "--token", &token];

    for delay in [300, 1000, 2000, 3500] {
        two.start(&join);
        tokio::time::sleep(Duration::from_millis(delay)).await;
        assert!(!two.has_ended(), "{}", two.log());
        two.kill();
    }
    two.start(&join);
    reads(&mut two, &["first"]).await;
    for file in ["pki/ca.key", "pki/sa.key", "pki/front-proxy-ca.key", "pki/etcd/ca.key"] {
        assert!(std::fs::read(one.file(file)).unwrap() == std::fs::read(two.file(file)).unwrap(), "{file}");
    }
    three.start(&["--server", &two.url(), "--token", &token]);
    reads(&mut three, &["first"]).await;
    let voters = members(&three).iter().filter(|m| m["role"] == "voter").count();
    assert_eq!(voters, 3, "{:?}", members(&three));

    // One dies: the others go on.
    one.kill();
    write(&mut two, "without-one").await;
    reads(&mut three, &["first", "without-one"]).await;
    // It comes again as what it is.
    one.start(&[]);
    reads(&mut one, &["without-one"]).await;

    // Another one's disk is gone. It joins anew, by a token of its own time.
    three.kill();
    std::fs::remove_dir_all(&three.dir).unwrap();
    let token = one.token(&["--control-plane"]);
    three.start(&["--server", &one.url(), "--token", &token]);
    reads(&mut three, &["first", "without-one"]).await;
    assert_eq!(members(&one).len(), 3, "the member before it is gone: {:?}", members(&one));

    // One is taken out, and the rest is two.
    three.kill();
    one.says(&["member", "remove", &three.name()]);
    assert_eq!(members(&one).len(), 2);
    write(&mut two, "after").await;
    // With what it has on disk it is nobody's, and says so; told to join, it does so anew.
    three.start(&["--cluster-init"]);
    ends(&mut three).await;
    assert!(three.log().contains("was removed: to join anew"), "{}", three.log());
    let token = one.token(&["--control-plane"]);
    three.start(&["--server", &one.url(), "--token", &token]);
    reads(&mut three, &["after"]).await;
    assert_eq!(members(&one).len(), 3);

    // Another one's etcd is gone: it must not begin a cluster of its own, whatever its unit says. Told to join, it does so.
    one.kill();
    std::fs::remove_dir_all(one.file("etcd")).unwrap();
    one.start(&["--cluster-init"]);
    ends(&mut one).await;
    assert!(one.log().contains("restore a snapshot"), "{}", one.log());
    one.start(&["--server", &two.url()]);
    reads(&mut one, &["first", "after"]).await;
    assert_eq!(members(&two).len(), 3);
}

async fn ends(server: &mut Server) {
    let end = Instant::now() + PATIENCE;
    while !server.has_ended() {
        assert!(Instant::now() < end, "it must end: {}", server.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn a_token_for_nodes_must_not_make_a_server() {
    if !etcd_is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let block = Block::claim();
        let mut one = Server::new(dir.path(), &block.ip(1));
        one.start(&["--cluster-init"]);
        one.ready().await;
        let token = one.token(&[]);
        let mut two = Server::new(dir.path(), &block.ip(2));
        two.start(&["--server", &one.url(), "--token", &token]);
        ends(&mut two).await;
        assert!(two.log().contains("--control-plane"), "{}", two.log());
        assert!(!two.file("pki/ca.key").exists());
    });
}
