//! Two servers on one store: what they hand out, and who they are.

use super::*;
use futures::future::join_all;
use std::collections::BTreeSet;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn node_port(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}})
}

fn at(address: &str) -> Config {
    Config {
        advertise_address: Some(address.parse().unwrap()),
        host_name: Some(address.into()),
        ..Config::default()
    }
}

/// Addresses and node ports of Services, each as often as it was given.
fn given(services: &[Value]) -> (Vec<String>, Vec<u64>) {
    let ips = services.iter().map(|s| s["spec"]["clusterIP"].as_str().unwrap().to_owned()).collect();
    let ports = services.iter().flat_map(|s| s["spec"]["ports"].as_array().unwrap().clone());
    (ips, ports.map(|port| port["nodePort"].as_u64().unwrap()).collect())
}

fn distinct<T: Ord + Clone>(all: &[T]) -> usize {
    all.iter().cloned().collect::<BTreeSet<T>>().len()
}

#[tokio::test]
async fn two_servers_must_not_give_an_address_or_a_port_twice() {
    // Fewer addresses and ports than would hide a collision.
    let config = || Config {
        service_cidrs: vec!["10.96.0.0/24".parse().unwrap()],
        node_ports: (30000, 30499),
        ..Config::default()
    };
    let a = Server::with(config()).await;
    let b = a.another(config()).await;
    let make = async |server: &Server, name: String| server.ok("POST", SERVICES, node_port(&name)).await;
    let all =
        (0..200).map(|i| if i % 2 == 0 { make(&a, format!("s{i}")) } else { make(&b, format!("s{i}")) });
    let made = join_all(all).await;
    let (ips, ports) = given(&made);
    assert_eq!((ips.len(), distinct(&ips)), (200, 200));
    assert_eq!((ports.len(), distinct(&ports)), (400, 400));
    // Each is written down, and nothing else.
    let addresses = a.get(ADDRESSES).await;
    assert_eq!(addresses["items"].as_array().unwrap().len(), 201, "with that of the kubernetes Service");
    // What one server gives back, the other gives.
    join_all((0..200).map(|i| {
        let server = if i % 2 == 0 { &b } else { &a };
        async move { server.ok("DELETE", &format!("{SERVICES}/s{i}"), Value::Null).await }
    }))
    .await;
    assert_eq!(a.get(ADDRESSES).await["items"].as_array().unwrap().len(), 1);
    let again = json!({"metadata": {"name": "again"}, "spec": {"type": "NodePort", "clusterIP": ips[0],
        "ports": [{"port": 1, "nodePort": ports[0]}]}});
    b.ok("POST", SERVICES, again).await;
}

#[tokio::test]
async fn who_loses_a_race_for_a_name_must_not_keep_what_it_claimed() {
    let a = Server::start().await;
    let b = a.another(Config::default()).await;
    let fixed = |ip: &str| json!({"metadata": {"name": "s"}, "spec": {"clusterIP": ip, "type": "NodePort", "ports": [{"port": 80}]}});
    let (first, second) = tokio::join!(
        a.ask("POST", SERVICES, fixed("10.96.0.71")),
        b.ask("POST", SERVICES, fixed("10.96.0.72"))
    );
    let codes = BTreeSet::from([first.code, second.code]);
    assert_eq!(codes, BTreeSet::from([201, 409]), "{} {}", first.body, second.body);
    let names: Vec<String> = a.get(ADDRESSES).await["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ip| ip["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    let won = if first.code == 201 { "10.96.0.71" } else { "10.96.0.72" };
    assert_eq!(names, ["10.96.0.1", won]);
}

#[tokio::test]
async fn every_server_is_listed_until_it_stops() {
    let a = Server::with(at("192.0.2.1")).await;
    let b = a.another(at("192.0.2.2")).await;
    let listed = async || {
        let slice = a.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await;
        let endpoints = a.get("/api/v1/namespaces/default/endpoints/kubernetes").await;
        let ips: Vec<Value> =
            slice["endpoints"].as_array().unwrap().iter().map(|e| e["addresses"][0].clone()).collect();
        let legacy: Vec<Value> = endpoints["subsets"][0]["addresses"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["ip"].clone())
            .collect();
        assert_eq!(ips, legacy);
        ips
    };
    assert_eq!(listed().await, [json!("192.0.2.1"), json!("192.0.2.2")]);
    let leases = async || {
        let all = a.get("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases").await;
        let host = |lease: &Value| {
            lease["metadata"]["labels"]["kubernetes.io/hostname"].as_str().unwrap().to_owned()
        };
        all["items"].as_array().unwrap().iter().map(host).collect::<BTreeSet<String>>()
    };
    let until = async |what: &str, hosts: &[&str]| {
        let wanted: BTreeSet<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        for _ in 0..1000 {
            if leases().await == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: {:?}", leases().await);
    };
    until("both have a Lease", &["192.0.2.1", "192.0.2.2"]).await;
    let writer = b.writer.clone();
    drop(b);
    writer.ended().await;
    assert_eq!(listed().await, [json!("192.0.2.1")]);
    until("one has a Lease", &["192.0.2.1"]).await;
}
