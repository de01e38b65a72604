//! Each part of a node speaks to the API server as itself, and sees what it may and no more.

use crate::harness::{cluster, eventually, on_node};

/// Kubeconfig in the agent's directory, and who it is.
const PARTS: [(&str, &str); 4] = [
    ("kubeconfig", "system:node:n2"),
    ("proxy.kubeconfig", "system:kube-proxy"),
    ("dns.kubeconfig", "windlass:dns"),
    ("network.kubeconfig", "windlass:network"),
];

fn ask(kubeconfig: &str, args: &[&str]) -> String {
    let path = format!("--kubeconfig=/var/lib/windlass/agent/{kubeconfig}");
    let mut argv = vec!["kubectl", path.as_str()];
    argv.extend_from_slice(args);
    let output = on_node("n2", &argv);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn identities_of_a_node_and_its_parts_must_not_see_more_than_theirs() {
    cluster();
    for (kubeconfig, user) in PARTS {
        // the certificate may be on its way still
        eventually(&format!("credentials of {user}"), 30, || {
            let name = ask(kubeconfig, &["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
            if name == user { Ok(()) } else { Err(name) }
        });
    }
    // what is asked, and whether node, proxy, DNS and network may
    for (asked, may) in [
        ("list endpointslices.discovery.k8s.io -A", [false, true, true, false]),
        ("list services -A", [true, true, true, false]),
        ("list namespaces", [false, false, true, true]),
        ("list networkpolicies.networking.k8s.io -A", [false, false, false, true]),
        ("list nodes", [false, true, false, true]),
        ("list secrets -A", [false; 4]),
        ("create pods", [true, false, false, false]),
        ("create certificatesigningrequests.certificates.k8s.io", [true, false, false, false]),
    ] {
        for ((kubeconfig, user), allowed) in PARTS.into_iter().zip(may) {
            let words: Vec<&str> = ["auth", "can-i"].into_iter().chain(asked.split(' ')).collect();
            let told = ask(kubeconfig, &words);
            // a refusal may say why
            let answer = told.split(' ').next().unwrap_or_default();
            assert_eq!(answer, if allowed { "yes" } else { "no" }, "{user}: {asked}");
        }
    }
    // its own object is all a node sees of nodes
    assert_eq!(ask("kubeconfig", &["get", "node", "n2", "-o", "name"]), "node/n2");
    assert_eq!(ask("kubeconfig", &["get", "node", "n1", "-o", "name"]), "");
}
