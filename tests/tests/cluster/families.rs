//! Clusters of both families, and of IPv6 alone: two nodes each, in labs of their own. The second node is told neither its addresses nor the cluster's ranges.

use crate::harness::{Lab, Namespace, echo, eventually, guest};
use std::collections::BTreeSet;

/// Pods `here` and `there` on the two nodes, behind `web` in each family policy and behind the headless `each`, and `host` on the second node's network.
fn workload(second: &str, policy: &str) -> String {
    let service = |name: &str, fields: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec:\n  selector: {{ app: web }}\n  \
             ports: [{{ port: 80, targetPort: 8080 }}]\n{fields}"
        )
    };
    let pod = |name: &str, node: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{ name: {name}, labels: {{ app: web, pod: {name} }} }}\nspec:\n  \
             nodeName: {node}\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    \
             image: 'lab.local/echo:1'\n    readinessProbe: {{ httpGet: {{ path: /, port: 8080 }}, periodSeconds: 1 }}\n    \
             env:\n    - {{ name: HOST_IPS, valueFrom: {{ fieldRef: {{ fieldPath: status.hostIPs }} }} }}\n    \
             - {{ name: POD_IPS, valueFrom: {{ fieldRef: {{ fieldPath: status.podIPs }} }} }}\n"
        )
    };
    let host = "---\napiVersion: v1\nkind: Pod\nmetadata: { name: host }\nspec:\n  hostNetwork: true\n  nodeName: n2\n  \
                dnsPolicy: ClusterFirstWithHostNet\n  terminationGracePeriodSeconds: 1\n  \
                containers: [{ name: c, image: 'lab.local/echo:1' }]\n";
    [
        pod("here", "n1"),
        pod("there", "n2"),
        host.to_owned(),
        service("web", &format!("  type: NodePort\n  ipFamilyPolicy: {policy}\n")),
        service("one", ""),
        service("six", &format!("  ipFamilies: [{second}]\n")),
        service("each", &format!("  clusterIP: None\n  ipFamilyPolicy: {policy}\n")),
    ]
    .concat()
}

fn started<'a>(lab: &'a Lab, manifest: &str) -> Namespace<'a> {
    let namespace = lab.cluster.namespace("families");
    namespace.apply(manifest);
    namespace.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "--timeout=90s",
        "pod/here",
        "pod/there",
        "pod/host",
    ]);
    namespace
}

/// An address as a URL has it.
fn host(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

fn addresses(namespace: &Namespace<'_>, object: &str, path: &str) -> Vec<String> {
    namespace.path(object, path).split_whitespace().map(str::to_owned).collect()
}

/// Whether each address is of IPv6.
fn families(addresses: &[String]) -> Vec<bool> {
    addresses.iter().map(|address| address.contains(':')).collect()
}

/// Who answers a pod there, of so many requests.
fn answers(namespace: &Namespace<'_>, pod: &str, at: &str, count: usize) -> BTreeSet<String> {
    let command = format!("timeout 4 /guest get 'http://{at}/' {count} || true");
    let text = namespace.kubectl(&["exec", pod, "--", "sh", "-c", &command]);
    text.lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
}

fn both() -> BTreeSet<String> {
    ["here", "there"].map(str::to_owned).into()
}

/// Waits until both pods, and nobody else, answer `pod` there.
fn shared(namespace: &Namespace<'_>, pod: &str, at: &str) {
    eventually(&format!("both pods' answers to {pod} at {at}"), 20, || {
        let got = answers(namespace, pod, at, 24);
        if got == both() { Ok(()) } else { Err(format!("{got:?}")) }
    });
}

/// Every pod reaches every other one, and itself, at each of its addresses.
fn pods_reach_each_other(namespace: &Namespace<'_>) {
    for to in ["here", "there"] {
        for address in addresses(namespace, &format!("pod/{to}"), "{.status.podIPs[*].ip}") {
            for from in ["here", "there", "host"] {
                let got = answers(namespace, from, &format!("{}:8080", host(&address)), 1);
                assert_eq!(got, BTreeSet::from([to.to_owned()]), "{from} to {address}");
            }
        }
    }
}

/// The Service answers at its addresses, by its name, and at its node port on both nodes' `nodes`, from inside and outside.
fn a_service_answers_everywhere(lab: &Lab, namespace: &Namespace<'_>, nodes: &[&str]) {
    for address in addresses(namespace, "service/web", "{.spec.clusterIPs[*]}") {
        for from in ["here", "there", "host"] {
            shared(namespace, from, &host(&address));
        }
    }
    shared(namespace, "here", "web");
    shared(namespace, "host", "web.families.svc.cluster.local");
    let port = namespace.path("service/web", "{.spec.ports[0].nodePort}");
    for node in nodes {
        let at = format!("{}:{port}", host(node));
        shared(namespace, "here", &at);
        let out = lab.output(&["net", "--", &guest(), "get", &format!("http://{at}/"), "24"]);
        let text = String::from_utf8_lossy(&out.stdout);
        let got: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(got, BTreeSet::from(["here", "there"]), "from outside at {at}");
    }
}

/// What a name leads to, by either of a pod's resolvers.
fn resolved(namespace: &Namespace<'_>, name: &str) -> String {
    let full = format!("{name}.families.svc.cluster.local");
    namespace.kubectl(&["exec", "here", "--", "sh", "-c", &format!("nslookup {full} || true")])
}

/// A policy of one family's block lets nobody in by the other, and only whom it names by its own.
fn a_policy_holds(namespace: &Namespace<'_>, blocks: &[&str], open: impl Fn(&str) -> bool) {
    let blocks: Vec<String> =
        blocks.iter().map(|cidr| format!("{{ ipBlock: {{ cidr: '{cidr}' }} }}")).collect();
    namespace.apply(&format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{ name: p }}\nspec:\n  \
         podSelector: {{ matchLabels: {{ pod: here }} }}\n  ingress: [{{ from: [{}] }}]\n",
        blocks.join(", ")
    ));
    let addresses = addresses(namespace, "pod/here", "{.status.podIPs[*].ip}");
    eventually("the policy in force", 20, || {
        let got: Vec<bool> = addresses
            .iter()
            .map(|address| {
                !answers(namespace, "there", &format!("{}:8080", host(address)), 1).is_disjoint(&both())
            })
            .collect();
        let wanted: Vec<bool> = addresses.iter().map(|address| open(address)).collect();
        if got == wanted { Ok(()) } else { Err(format!("{addresses:?}: {got:?}")) }
    });
    namespace.kubectl(&["delete", "networkpolicy", "p"]);
}

/// Logs, commands and ports of a pod, through the kubelet of its node.
fn a_kubelet_is_reached(namespace: &Namespace<'_>) {
    for pod in ["here", "there", "host"] {
        assert!(namespace.kubectl(&["logs", pod]).contains("listens on port 8080"), "{pod}");
        assert_eq!(namespace.kubectl(&["exec", pod, "--", "echo", "hello"]).trim(), "hello", "{pod}");
    }
}

#[test]
fn a_cluster_of_both_families_serves_both() {
    let lab = Lab::up("suite-dual", &["--nodes", "2", "--family", "dual"]);
    let namespace = started(&lab, &workload("IPv6", "PreferDualStack"));
    let nodes = ["192.168.77.11", "fd77::11", "192.168.77.12", "fd77::12"];
    let of = |node: &str| addresses(&namespace, node, "{.status.addresses[?(@.type=='InternalIP')].address}");
    assert_eq!(of("node/n1"), nodes[..2], "as it was told");
    assert_eq!(of("node/n2"), nodes[2..], "as it found out");
    for pod in ["pod/here", "pod/there"] {
        let ips = addresses(&namespace, pod, "{.status.podIPs[*].ip}");
        assert_eq!(families(&ips), [false, true], "{ips:?}");
        assert_eq!(families(&addresses(&namespace, pod, "{.status.hostIPs[*].ip}")), [false, true]);
    }
    let environment = namespace.kubectl(&["exec", "there", "--", "env"]);
    assert!(environment.contains("HOST_IPS=192.168.77.12,fd77::12"), "{environment}");
    assert_eq!(addresses(&namespace, "pod/host", "{.status.podIPs[*].ip}"), nodes[2..]);
    let clusters = |name: &str| families(&addresses(&namespace, name, "{.spec.clusterIPs[*]}"));
    assert_eq!(clusters("service/one"), [false], "one family where nobody asks for two");
    assert_eq!(clusters("service/six"), [true]);
    assert_eq!(clusters("service/web"), [false, true]);
    pods_reach_each_other(&namespace);
    a_service_answers_everywhere(&lab, &namespace, &nodes);
    shared(&namespace, "there", "six");
    let names = resolved(&namespace, "web");
    for address in addresses(&namespace, "service/web", "{.spec.clusterIPs[*]}") {
        assert!(names.contains(&address), "{address}: {names}");
    }
    let names = resolved(&namespace, "each");
    for pod in ["pod/here", "pod/there"] {
        for address in addresses(&namespace, pod, "{.status.podIPs[*].ip}") {
            assert!(names.contains(&address), "{address}: {names}");
        }
    }
    let resolvers = namespace.kubectl(&["exec", "there", "--", "cat", "/etc/resolv.conf"]);
    assert!(resolvers.contains("nameserver 10.96.0.10\nnameserver fd00:96::a\n"), "{resolvers}");
    a_policy_holds(&namespace, &["fd00:244::/56"], |address| address.contains(':'));
    a_policy_holds(&namespace, &["10.244.0.0/16"], |address| !address.contains(':'));
    a_kubelet_is_reached(&namespace);
    a_service_changes_its_families(&namespace);
}

/// A second family comes and goes with the policy, its address and its slices with it; the first address stays.
fn a_service_changes_its_families(namespace: &Namespace<'_>) {
    let ips = || addresses(namespace, "service/one", "{.spec.clusterIPs[*]}");
    let slices = |count: usize| {
        eventually("the slices of its families", 20, || {
            let of = [
                "get",
                "endpointslices",
                "-l",
                "kubernetes.io/service-name=one",
                "-o",
                "jsonpath={.items[*].addressType}",
            ];
            let types: BTreeSet<String> = namespace.kubectl(&of).split(' ').map(str::to_owned).collect();
            if types.len() == count { Ok(()) } else { Err(format!("{types:?}")) }
        });
    };
    let first = ips();
    slices(1);
    let patch =
        |spec: &str| namespace.kubectl(&["patch", "service", "one", "-p", &format!("{{\"spec\":{spec}}}")]);
    patch("{\"ipFamilyPolicy\":\"RequireDualStack\"}");
    let two = ips();
    assert_eq!((two.len(), &two[0]), (2, &first[0]));
    slices(2);
    shared(namespace, "here", &host(&two[1]));
    patch("{\"ipFamilyPolicy\":\"SingleStack\"}");
    assert_eq!(ips(), first);
    slices(1);
    eventually("the second address given back", 20, || {
        let out = namespace.kubectl_output(&["get", "ipaddress", &two[1]]);
        if out.status.success() { Err(two[1].clone()) } else { Ok(()) }
    });
    patch("{\"type\":\"ExternalName\",\"externalName\":\"example.org\"}");
    assert!(ips().is_empty(), "another's name has no address");
    patch("{\"type\":\"ClusterIP\",\"externalName\":null,\"ipFamilyPolicy\":\"PreferDualStack\"}");
    assert_eq!(families(&ips()), [false, true], "it asks anew");
}

#[test]
fn a_cluster_of_ipv6_alone_must_not_need_ipv4() {
    let lab = Lab::up("suite-ipv6", &["--nodes", "2", "--family", "ipv6"]);
    let namespace = started(&lab, &workload("IPv6", "PreferDualStack"));
    let of = |node: &str| addresses(&namespace, node, "{.status.addresses[?(@.type=='InternalIP')].address}");
    assert_eq!((of("node/n1"), of("node/n2")), (vec!["fd77::11".to_owned()], vec!["fd77::12".to_owned()]));
    for (object, path) in [
        ("pod/here", "{.status.podIPs[*].ip}"),
        ("pod/there", "{.status.podIPs[*].ip}"),
        ("pod/host", "{.status.podIPs[*].ip}"),
        ("service/web", "{.spec.clusterIPs[*]}"),
        ("service/one", "{.spec.clusterIPs[*]}"),
    ] {
        assert_eq!(families(&addresses(&namespace, object, path)), [true], "{object}");
    }
    let four = echo("four", 1).replace("  type: NodePort\n", "  ipFamilies: [IPv4]\n");
    let refused = lab.cluster.feed(&["-n", "families", "apply", "-f", "-"], &four);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not configured on this cluster"));
    pods_reach_each_other(&namespace);
    a_service_answers_everywhere(&lab, &namespace, &["fd77::11", "fd77::12"]);
    let names = resolved(&namespace, "each");
    for pod in ["pod/here", "pod/there"] {
        let address = namespace.path(pod, "{.status.podIP}");
        assert!(names.contains(&address), "{address}: {names}");
    }
    let resolvers = namespace.kubectl(&["exec", "there", "--", "cat", "/etc/resolv.conf"]);
    assert!(resolvers.contains("nameserver fd00:96::a\n") && !resolvers.contains("10.96"), "{resolvers}");
    a_policy_holds(&namespace, &["fd00:244::/64"], |_| false);
    a_policy_holds(&namespace, &["fd00:244::/56"], |_| true);
    a_kubelet_is_reached(&namespace);
    let inside = namespace.kubectl(&["exec", "there", "--", "sh", "-c", "echo $KUBERNETES_SERVICE_HOST"]);
    assert_eq!(inside.trim(), "fd00:96::1");
}
