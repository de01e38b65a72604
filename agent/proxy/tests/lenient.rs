//! The proxy against an API server that has objects nobody expects, in a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use client::fake::Fake;
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use std::time::Duration;
use supervise::Supervisor;
use tokio_util::sync::CancellationToken;

fn service(name: &str, ip: &str, port: Value) -> Value {
    let condition =
        json!({"type": "t", "status": "True", "reason": "", "message": "", "lastTransitionTime": null});
    json!({"kind": "Service", "metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": "7"},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": port, "protocol": "TCP"}]},
        "status": {"conditions": [condition]}})
}

/// Waits until the rules name exactly these of the addresses.
async fn proxied(expected: &[&str]) {
    let all = ["10.96.0.50", "10.96.0.66", "10.96.0.77"];
    let look = async {
        loop {
            let listed =
                tokio::process::Command::new("nft").args(["list", "ruleset"]).output().await.unwrap();
            let text = String::from_utf8(listed.stdout).unwrap();
            if all.iter().filter(|ip| text.contains(**ip)).eq(expected) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), look).await.is_ok(), "{expected:?}");
}

#[test]
fn a_service_that_is_hard_to_read_must_not_hide_the_others() {
    let test = async {
        let services = [
            service("odd", "10.96.0.66", json!(80)),
            service("good", "10.96.0.50", json!(80)),
            service("bad", "10.96.0.77", json!({})),
        ];
        let fake = Fake::new(services.into());
        let config = proxy::Config {
            node: "n1".to_owned(),
            cluster_cidrs: Vec::new(),
            local_addresses: Vec::new(),
            healthz: "127.0.0.1:10256".parse().unwrap(),
            mode: "127.0.0.1:10249".parse().unwrap(),
        };
        let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
        let running = proxy::run(config, fake.client(), &supervisor, stop.clone());
        let look = async {
            proxied(&["10.96.0.50", "10.96.0.66"]).await;
            fake.send("DELETED", service("odd", "10.96.0.66", json!(80)));
            proxied(&["10.96.0.50"]).await;
            fake.send("MODIFIED", service("bad", "10.96.0.77", json!(80)));
            proxied(&["10.96.0.50", "10.96.0.77"]).await;
            // Its last state cannot be read; its end is seen all the same.
            fake.send("DELETED", service("bad", "10.96.0.77", json!({})));
            proxied(&["10.96.0.50"]).await;
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(running, look);
        ended.unwrap();
    };
    let in_namespace = move || {
        assert!(unshare(CloneFlags::CLONE_NEWNET).is_ok(), "network namespaces need root");
        assert!(
            std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success()
        );
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    };
    std::thread::spawn(in_namespace).join().unwrap();
}
