//! LoadBalancer Services on bare metal, from a machine on the nodes' link: the lab's own end of it.

use crate::harness::{Namespace, cluster, echo, eventually, lab, lab_output, on_node};
use std::time::Instant;

/// The pool of these tests. By their names n1 answers for .201 and .204, n2 for .200, .202 and .203.
const POOLS: &str = "apiVersion: v1
kind: ConfigMap
metadata: { name: windlass-load-balancer, namespace: kube-system }
data:
  default: '{ ranges: [192.168.77.200-192.168.77.201] }'
  named: '{ ranges: [192.168.77.202-192.168.77.204], autoAssign: false }'
";

/// The pools, which go with the test.
struct Pools;

impl Pools {
    fn apply() -> Self {
        cluster().apply("kube-system", POOLS);
        Self
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        let name =
            ["-n", "kube-system", "delete", "configmap", "windlass-load-balancer", "--ignore-not-found"];
        let _ = cluster().kubectl_output(&name);
    }
}

/// One answer from an address, by a new connection from the lab's network.
fn get(address: &str) -> Result<String, String> {
    let out = lab_output(&["net", "--", env!("CARGO_BIN_EXE_guest"), "get", &format!("http://{address}/")]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() { Ok(text) } else { Err(text) }
}

/// The node that answers ARP for an address; nobody is an error.
fn owner(address: &str) -> Result<&'static str, String> {
    let known = lab(&["net", "--", "ip", "neigh", "show", "to", address]);
    let hardware = |node: &str| {
        let out = on_node(node, &["ip", "-o", "link", "show", "eth0"]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        text.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("?").to_owned()
    };
    ["n1", "n2"].into_iter().find(|node| known.contains(&hardware(node))).ok_or(known)
}

/// Forgets who has an address, and asks.
fn asked(address: &str) -> Result<&'static str, String> {
    let _ = lab_output(&["net", "--", "ip", "neigh", "flush", "to", address]);
    let _ = get(address);
    owner(address)
}

/// The echo server on one node, behind a Service of type LoadBalancer with these further fields.
fn balanced(name: &str, node: &str, fields: &str) -> String {
    let manifest = echo(name, 1).replace("  type: NodePort\n", &format!("  type: LoadBalancer\n{fields}"));
    manifest.replace(
        "    spec:\n",
        &format!("    spec:\n      nodeSelector: {{ kubernetes.io/hostname: {node} }}\n"),
    )
}

fn address(namespace: &Namespace<'_>, service: &str) -> String {
    namespace.path(&format!("service/{service}"), "{.status.loadBalancer.ingress[*].ip}")
}

fn has(namespace: &Namespace<'_>, service: &str, wanted: &str) {
    eventually("the service's address", 30, || {
        let has = address(namespace, service);
        if has == wanted { Ok(()) } else { Err(format!("{has:?}, not {wanted:?}")) }
    });
}

fn events(namespace: &Namespace<'_>, service: &str) -> String {
    let of = format!("involvedObject.name={service},involvedObject.kind=Service");
    namespace.kubectl(&["get", "events", "--field-selector", &of, "-o", "jsonpath={.items[*].reason}"])
}

/// Gives every address back before the next test wants them.
fn finish(namespace: &Namespace<'_>) {
    namespace.kubectl(&["delete", "service", "--all", "--timeout=60s"]);
}

#[test]
fn a_service_gets_an_address_that_answers_and_gives_it_back() {
    let namespace = cluster().namespace("lb-life");
    namespace.apply(&balanced("one", "n1", ""));
    namespace.apply(&balanced("foreign", "n1", "  loadBalancerClass: example.com/lb\n"));
    namespace.kubectl(&["rollout", "status", "deployment/one", "--timeout=90s"]);
    assert_eq!(address(&namespace, "one"), "", "without pools it is pending");
    let _pools = Pools::apply();
    has(&namespace, "one", "192.168.77.200");
    let body = eventually("an answer", 30, || get("192.168.77.200"));
    assert!(body.starts_with("one-"), "{body}");
    assert_eq!(asked("192.168.77.200"), Ok("n2"), "whose pods are elsewhere");
    // The pool is used up, and the next one waits until something is free.
    namespace.apply(&balanced("two", "n2", "  loadBalancerIP: 192.168.77.201\n"));
    has(&namespace, "two", "192.168.77.201");
    namespace.apply(&balanced("three", "n2", ""));
    eventually("word that nothing is free", 30, || {
        let reasons = events(&namespace, "three");
        if reasons.contains("SyncLoadBalancerFailed") { Ok(()) } else { Err(reasons) }
    });
    assert_eq!(address(&namespace, "three"), "");
    namespace.kubectl(&["delete", "service", "one", "--timeout=60s"]);
    has(&namespace, "three", "192.168.77.200");
    eventually("the new service's answer", 30, || match get("192.168.77.200") {
        Ok(body) if body.starts_with("three-") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let reasons = events(&namespace, "two");
    assert!(reasons.contains("EnsuringLoadBalancer") && reasons.contains("EnsuredLoadBalancer"), "{reasons}");
    assert_eq!(address(&namespace, "foreign"), "", "another provider's");
    // Another type: it goes back, and nobody answers.
    namespace.kubectl(&[
        "patch",
        "service",
        "two",
        "-p",
        "{\"spec\":{\"type\":\"ClusterIP\",\"loadBalancerIP\":null}}",
    ]);
    has(&namespace, "two", "");
    eventually("silence", 30, || match asked("192.168.77.201") {
        Err(_) => Ok(()),
        Ok(node) => Err(format!("{node} answers")),
    });
    let finalizers = namespace.path("service/two", "{.metadata.finalizers}");
    assert_eq!(finalizers, "", "nothing holds it");
    finish(&namespace);
}

#[test]
fn a_local_service_is_answered_for_where_its_pods_are_and_keeps_its_clients_address() {
    let namespace = cluster().namespace("lb-local");
    let _pools = Pools::apply();
    let fields = "  externalTrafficPolicy: Local\n  allocateLoadBalancerNodePorts: false\n";
    namespace.apply(&balanced("here", "n1", fields));
    namespace.kubectl(&["rollout", "status", "deployment/here", "--timeout=90s"]);
    has(&namespace, "here", "192.168.77.200");
    let body = eventually("an answer", 30, || get("192.168.77.200"));
    assert!(body.replace("::ffff:", "").contains(" [192.168.77.1]:"), "from the lab's own address: {body}");
    assert_eq!(asked("192.168.77.200"), Ok("n1"), "n2 would be the first, and has no pod");
    assert_eq!(namespace.path("service/here", "{.spec.ports[*].nodePort}"), "");
    namespace.apply(&balanced("here", "n2", fields));
    namespace.kubectl(&["rollout", "status", "deployment/here", "--timeout=90s"]);
    eventually("the address with its pods", 30, || match asked("192.168.77.200") {
        Ok("n2") => get("192.168.77.200").map(drop),
        other => Err(format!("{other:?}")),
    });
    // Who may come: first not the lab, then the lab.
    for (range, allowed) in [("203.0.113.0/24", false), ("192.168.77.1/32", true)] {
        let patch = format!("{{\"spec\":{{\"loadBalancerSourceRanges\":[\"{range}\"]}}}}");
        namespace.kubectl(&["patch", "service", "here", "-p", &patch]);
        eventually("the ranges at work", 30, || match get("192.168.77.200") {
            got if got.is_ok() == allowed => Ok(()),
            got => Err(format!("{range}: {got:?}")),
        });
    }
    finish(&namespace);
}

#[test]
fn an_address_whose_node_is_cut_off_is_answered_for_by_another() {
    let namespace = cluster().namespace("lb-cut");
    let _pools = Pools::apply();
    namespace.apply(&balanced("web", "n1", "  loadBalancerIP: 192.168.77.202\n"));
    namespace.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    has(&namespace, "web", "192.168.77.202");
    eventually("an answer", 30, || get("192.168.77.202").map(drop));
    assert_eq!(asked("192.168.77.202"), Ok("n2"));
    lab(&["unplug", "n2"]);
    let cut = Instant::now();
    // Until its neighbour entry is old a client goes on sending there; an announcement makes it new.
    let moved = eventually("another node", 60, || match owner("192.168.77.202") {
        Ok("n1") => Ok(cut.elapsed()),
        other => Err(format!("{other:?}")),
    });
    let answered = eventually("an answer", 60, || get("192.168.77.202").map(|_| cut.elapsed()));
    println!(
        "lb-cut: announced again after {:.2} s, answered after {:.2} s",
        moved.as_secs_f64(),
        answered.as_secs_f64()
    );
    lab(&["plug", "n2"]);
    cluster().kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", "node/n2"]);
    eventually("the first one again", 90, || match asked("192.168.77.202") {
        Ok("n2") => get("192.168.77.202").map(drop),
        other => Err(format!("{other:?}")),
    });
    // The agent alone: what it announced is as silent as it is, and it comes back.
    lab(&["kill", "n2", "windlass"]);
    eventually("an answer after kill -9", 60, || get("192.168.77.202").map(drop));
    finish(&namespace);
}
