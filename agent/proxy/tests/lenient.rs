//! The proxy against an API server that has objects nobody expects, in a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use client::fake::services;
use std::time::Duration;
use supervise::Supervisor;
use tokio_util::sync::CancellationToken;

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
    services::in_network_namespace(|| async {
        let fake = services::server();
        let config = proxy::Config {
            healthz: Some("127.0.0.1:10256".parse().unwrap()),
            mode: Some("127.0.0.1:10249".parse().unwrap()),
            ..proxy::Config::new("n1".to_owned(), Vec::new())
        };
        let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
        let running = proxy::run(config, fake.client(), &supervisor, stop.clone());
        let look = async {
            services::change(&fake, async |served, _| {
                let mut served: Vec<&str> = served.iter().map(|(_, ip)| *ip).collect();
                served.sort_unstable();
                proxied(&served).await;
            })
            .await;
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(running, look);
        ended.unwrap();
    });
}
