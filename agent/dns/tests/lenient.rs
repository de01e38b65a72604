//! DNS against an API server that has objects nobody expects, in a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use client::fake::{Fake, services};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use k8s_openapi::serde_json::{Value, json};
use std::str::FromStr;
use std::time::Duration;
use supervise::Supervisor;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

const SERVER: &str = "10.96.0.10:53";

async fn ask(name: &str) -> std::io::Result<(ResponseCode, Vec<String>)> {
    ask_whole(&format!("{name}.n.svc.cluster.local.")).await
}

async fn ask_whole(name: &str) -> std::io::Result<(ResponseCode, Vec<String>)> {
    let mut message = Message::new(1, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).unwrap(), RecordType::A));
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(SERVER).await?;
    socket.send(&message.to_vec().unwrap()).await?;
    let mut buffer = vec![0; 4096];
    let length = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut buffer)).await??;
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    let ips = answer.answers.iter().filter_map(|record| record.data.ip_addr()).map(|ip| ip.to_string());
    Ok((answer.metadata.response_code, ips.collect()))
}

/// Waits for an answer; an empty one is "no such name".
async fn answered(name: &str, expected: &[&str]) {
    let code = if expected.is_empty() { ResponseCode::NXDomain } else { ResponseCode::NoError };
    let expected = (code, expected.iter().map(ToString::to_string).collect::<Vec<_>>());
    let look = async {
        while ask(name).await.ok().as_ref() != Some(&expected) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(20), look).await.is_ok(),
        "{name}: {:?}",
        ask(name).await
    );
}

/// Runs DNS beside `look`, and stops it.
async fn beside(look: impl AsyncFnOnce()) {
    beside_of(&services::server(), look).await;
}

/// The same with another API server.
async fn beside_of(fake: &Fake, look: impl AsyncFnOnce()) {
    let config = dns::Config {
        addresses: vec!["10.96.0.10".parse().unwrap()],
        domain: "cluster.local".to_owned(),
        resolv_conf: "/nonexistent".into(),
    };
    let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
    let running = dns::run(config, fake.client(), &supervisor, stop.clone());
    let look = async {
        look().await;
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(running, look);
    ended.unwrap();
}

#[test]
fn a_dns_server_of_the_hosts_own_must_not_exclude_ours_nor_ours_it() {
    services::in_network_namespace(|| async {
        let theirs = UdpSocket::bind("0.0.0.0:53").await.unwrap();
        let streams = tokio::net::TcpListener::bind("0.0.0.0:53").await.unwrap();
        beside(async || {
            answered("good", &["10.96.0.50"]).await;
            drop((theirs, streams));
            UdpSocket::bind("0.0.0.0:53").await.unwrap();
            tokio::net::TcpListener::bind("0.0.0.0:53").await.unwrap();
            let mut stream = tokio::net::TcpStream::connect(SERVER).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, &[0, 0]).await.unwrap();
        })
        .await;
    });
}

#[test]
fn what_is_counted_of_questions_must_not_be_hidden() {
    services::in_network_namespace(|| async {
        beside(async || {
            answered("good", &["10.96.0.50"]).await;
            let get = async |port: u16, path: &str| {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut stream = tokio::net::TcpStream::connect(("10.96.0.10", port)).await.unwrap();
                let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                text
            };
            let text = get(9153, "/metrics").await;
            for line in [
                r#"coredns_dns_requests_total{server="dns://:53",zone="cluster.local.",view="",proto="udp",family="1",type="A"}"#,
                r#"coredns_dns_responses_total{server="dns://:53",zone="cluster.local.",view="",rcode="NOERROR",plugin="kubernetes"}"#,
                r#"coredns_dns_request_duration_seconds_bucket{le="0.00025","#,
            ] {
                assert!(text.contains(line), "{line}\n{text}");
            }
            assert!(get(8080, "/health").await.starts_with("HTTP/1.1 200"));
            let ready = async {
                while !get(8181, "/ready").await.starts_with("HTTP/1.1 200") {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), ready).await.unwrap();
        })
        .await;
    });
}

/// kubeadm's ConfigMap, with these lines beside the usual ones.
fn corefile(lines: &str) -> Value {
    let text = format!(
        ".:53 {{\n  kubernetes cluster.local in-addr.arpa ip6.arpa\n  forward . /etc/resolv.conf\n  {lines}\n}}\n"
    );
    json!({
        "kind": "ConfigMap",
        "metadata": {"name": "coredns", "namespace": "kube-system", "uid": "m", "resourceVersion": "7"},
        "data": {"Corefile": text},
    })
}

/// Waits until a name has this address.
async fn leads_to(name: &str, address: &str) {
    let look = async {
        while !ask_whole(name).await.is_ok_and(|(_, found)| found == [address]) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(20), look).await.is_ok(),
        "{name}: {:?}",
        ask_whole(name).await
    );
}

#[test]
fn what_the_clusters_corefile_says_must_not_be_ignored() {
    services::in_network_namespace(|| async {
        let fake = Fake::new(vec![corefile("hosts {\n 192.0.2.7 git.example\n fallthrough\n }")]);
        beside_of(&fake, async || {
            leads_to("git.example.", "192.0.2.7").await;
            // one that cannot be read changes nothing, and the next one does
            fake.send("MODIFIED", corefile("hosts {"));
            let next = "hosts {\n 192.0.2.8 git.example db.internal\n fallthrough\n }\n rewrite name db.example db.internal";
            leads_to("git.example.", "192.0.2.7").await;
            fake.send("MODIFIED", corefile(next));
            leads_to("git.example.", "192.0.2.8").await;
            leads_to("db.example.", "192.0.2.8").await;
            fake.send("DELETED", corefile(next));
            let gone = async {
                while ask_whole("git.example.").await.is_ok_and(|(_, found)| !found.is_empty()) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
        })
        .await;
    });
}

#[test]
fn a_host_port_must_not_take_the_clusters_questions() {
    services::in_network_namespace(|| async {
        // as the plugin portmap leads host port 53 to a pod
        let rules = "table inet windlass-cni {
            chain output { type nat hook output priority -101; fib daddr type local jump hostports; }
            chain hostports { meta nfproto ipv4 udp dport 53 dnat ip to 192.0.2.1:53; }
        }";
        assert!(std::process::Command::new("nft").arg(rules).status().unwrap().success());
        beside(async || answered("good", &["10.96.0.50"]).await).await;
    });
}

#[test]
fn a_service_that_is_hard_to_read_must_not_silence_the_others() {
    services::in_network_namespace(|| async {
        let fake = services::server();
        let config = dns::Config {
            addresses: vec!["10.96.0.10".parse().unwrap()],
            domain: "cluster.local".to_owned(),
            resolv_conf: "/nonexistent".into(),
        };
        let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
        let running = dns::run(config, fake.client(), &supervisor, stop.clone());
        let look = async {
            services::change(&fake, async |served, gone| {
                for (name, ip) in served {
                    answered(name, &[ip]).await;
                }
                for (name, _) in gone {
                    answered(name, &[]).await;
                }
            })
            .await;
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(running, look);
        ended.unwrap();
    });
}
