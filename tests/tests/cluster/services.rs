//! Services, node ports and names, with real connections.

use crate::harness::{Namespace, cluster, echo, eventually, guest, lab_output, on_node};
use std::collections::BTreeMap;

/// A pod on `node` that can be told to connect somewhere.
fn client_pod(namespace: &Namespace<'_>, name: &str, node: &str) {
    namespace.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers: [{{ name: c, image: 'lab.local/echo:1' }}]
"
    ));
    namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=300s", &format!("pod/{name}")]);
}

/// Who answers `count` requests from a pod: answers by server.
fn shares(namespace: &Namespace<'_>, pod: &str, url: &str, count: usize) -> BTreeMap<String, usize> {
    let count = count.to_string();
    let text =
        namespace.kubectl(&["exec", pod, "--", "sh", "-c", &format!("/guest get {url} {count} || true")]);
    let mut shares = BTreeMap::new();
    for line in text.lines() {
        *shares.entry(line.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    shares
}

#[test]
fn a_service_name_reaches_pods_on_both_nodes_evenly_and_follows_them() {
    let namespace = cluster().namespace("svc-even");
    namespace.apply(&echo("web", 4));
    namespace.kubectl(&["rollout", "status", "deployment/web", "--timeout=300s"]);
    client_pod(&namespace, "client", "n1");
    let nodes = namespace.path("pods", "{.items[*].spec.nodeName}");
    assert!(nodes.contains("n1") && nodes.contains("n2"), "spread over both nodes: {nodes}");
    for url in ["http://web/", &format!("http://web.{}.svc.cluster.local/", namespace.name)] {
        let got = shares(&namespace, "client", url, 200);
        assert_eq!(got.len(), 4, "{url}: {got:?}");
        // 200 draws of 4: a share outside 20..=85 has a chance below one in ten million
        assert!(got.values().all(|n| (20..=85).contains(n)), "{url}: {got:?}");
    }
    let victim = namespace.path("pods", "{.items[?(@.metadata.labels.app=='web')].metadata.name}");
    let victim = victim.split(' ').next().unwrap().to_owned();
    namespace.kubectl(&["delete", "pod", &victim]);
    namespace.kubectl(&["rollout", "status", "deployment/web", "--timeout=300s"]);
    eventually("traffic has moved to the new pod", 60, || {
        let got = shares(&namespace, "client", "http://web/", 60);
        if got.len() == 4 && !got.contains_key(&victim) && !got.contains_key("failed") {
            Ok(())
        } else {
            Err(format!("{got:?}"))
        }
    });
}

#[test]
fn a_node_port_answers_on_both_nodes_from_outside_and_inside() {
    let namespace = cluster().namespace("svc-nodeport");
    namespace.apply(&echo("np", 2));
    namespace.kubectl(&["rollout", "status", "deployment/np", "--timeout=300s"]);
    let port = namespace.path("service/np", "{.spec.ports[0].nodePort}");
    client_pod(&namespace, "client", "n2");
    for address in ["192.168.77.11", "192.168.77.12"] {
        let url = format!("http://{address}:{port}/");
        let outside = eventually("the node port from the lab's network", 60, || {
            let out = lab_output(&["net", "--", &guest(), "get", &url]);
            if out.status.success() {
                Ok(out.stdout)
            } else {
                Err(String::from_utf8_lossy(&out.stdout).into_owned())
            }
        });
        assert!(outside.starts_with(b"np-"), "{url}");
        let got = shares(&namespace, "client", &url, 20);
        assert!(!got.contains_key("failed"), "{url}: {got:?}");
    }
}

#[test]
fn a_pod_reaches_itself_and_the_api_through_services() {
    let namespace = cluster().namespace("svc-self");
    namespace.apply(&echo("self", 1));
    namespace.kubectl(&["rollout", "status", "deployment/self", "--timeout=300s"]);
    let pod = namespace.path("pods", "{.items[0].metadata.name}");
    let got = shares(&namespace, &pod, "http://self/", 5);
    assert_eq!(got, BTreeMap::from([(pod.clone(), 5)]));
    let environment = namespace.kubectl(&["exec", &pod, "--", "env"]);
    assert!(
        environment.contains("KUBERNETES_SERVICE_HOST=") && environment.contains("SELF_SERVICE_PORT=80"),
        "{environment}"
    );
    let resolved =
        namespace.kubectl(&["exec", &pod, "--", "nslookup", "kubernetes.default.svc.cluster.local"]);
    assert!(resolved.contains("10.96.0.1"), "{resolved}");
}

#[test]
fn a_headless_service_names_its_pods() {
    let namespace = cluster().namespace("svc-headless");
    namespace.apply(&echo("hl", 2).replace("  type: NodePort\n", "  clusterIP: None\n"));
    namespace.kubectl(&["rollout", "status", "deployment/hl", "--timeout=300s"]);
    client_pod(&namespace, "client", "n1");
    let ips = namespace.path("pods", "{.items[?(@.metadata.labels.app=='hl')].status.podIP}");
    eventually("both addresses", 60, || {
        let text = namespace.kubectl(&[
            "exec",
            "client",
            "--",
            "nslookup",
            &format!("hl.{}.svc.cluster.local", namespace.name),
        ]);
        if ips.split(' ').all(|ip| text.contains(ip)) { Ok(()) } else { Err(text) }
    });
}

#[test]
fn what_somebody_flushed_of_nftables_is_mended_with_host_ports() {
    let namespace = cluster().namespace("svc-flush");
    namespace.apply(&echo("kept", 2));
    namespace.apply(
        "apiVersion: v1
kind: Pod
metadata: { name: port }
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  containers: [{ name: c, image: 'lab.local/echo:1', ports: [{ containerPort: 8080, hostPort: 18088 }] }]
",
    );
    namespace.kubectl(&["rollout", "status", "deployment/kept", "--timeout=300s"]);
    client_pod(&namespace, "client", "n1");
    namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pod/port"]);
    let url = "http://192.168.77.11:18088/";
    let works = || {
        let out = lab_output(&["net", "--", &guest(), "get", url]);
        if !out.status.success() || !out.stdout.starts_with(b"port ") {
            return Err(format!("the host port: {}", String::from_utf8_lossy(&out.stdout)));
        }
        let got = shares(&namespace, "client", "http://kept/", 10);
        if got.len() == 2 && !got.contains_key("failed") { Ok(()) } else { Err(format!("{got:?}")) }
    };
    eventually("host port and Service", 60, works);
    let flushed = on_node("n1", &["nft", "flush", "ruleset"]);
    assert!(flushed.status.success(), "{}", String::from_utf8_lossy(&flushed.stderr));
    eventually("host port and Service after all rules were flushed", 60, works);
}
