//! Pods of nodes that share no link, and of nodes that shared one until they were told otherwise: by VXLAN, through Services and DNS, with policies in force.

use crate::harness::{Cluster, Namespace, cluster, eventually};
use crate::policies::{address, policy, ready, server, settles};
use std::process::{Command, Output, Stdio};

/// A lab whose second node is behind a router.
const APART: &str = "suite-overlay";

fn apart(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(["--lab", APART]).args(args).stdin(Stdio::null()).output().unwrap()
}

/// That lab, taken down whatever comes.
struct Lab(Cluster);

impl Lab {
    fn up() -> Self {
        let kubeconfig = std::env::temp_dir().join(format!("windlass-{APART}-kubeconfig"));
        let path = kubeconfig.to_string_lossy().into_owned();
        let up = apart(&["up", "--nodes", "2", "--apart", "1", "--no-example", "--kubeconfig", &path]);
        let lab = Self(Cluster::by(kubeconfig));
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        lab
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(apart(&["down"]));
    }
}

/// The link by which a node sends there.
fn link(on: &dyn Fn(&[&str]) -> Output, to: &str) -> String {
    let out = on(&["ip", "route", "get", to]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.split(" dev ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned()
}

/// Two pods on two nodes with a service before one, by which all ways are tried.
struct Pods<'a> {
    namespace: &'a Namespace<'a>,
    web: String,
    service: String,
}

impl<'a> Pods<'a> {
    fn new(namespace: &'a Namespace<'a>) -> Self {
        server(namespace, "web", "n1");
        server(namespace, "far", "n2");
        ready(namespace, &["web", "far"]);
        namespace.kubectl(&["expose", "pod", "web", "--port=80", "--target-port=8080"]);
        let web = format!("{}:8080", address(namespace, "web"));
        let service = format!("{}:80", namespace.path("service/web", "{.spec.clusterIP}"));
        Self { namespace, web, service }
    }

    /// The pod itself, and its service, from the other node.
    fn settle(&self, what: &str, open: bool) {
        let all = [&self.web, &self.service].map(|at| (self.namespace, "far", at.as_str()));
        settles(what, &all, &[open, open]);
    }

    fn named(&self) {
        let name = format!("web.{}.svc.cluster.local", self.namespace.name);
        eventually("the service's name", 20, || {
            let out = self.namespace.kubectl_output(&["exec", "far", "--", "nslookup", &name]);
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let address = self.service.trim_end_matches(":80");
            if text.contains(address) { Ok(()) } else { Err(text) }
        });
    }

    /// Closed by one policy, opened by another for the one pod.
    fn judge(&self) {
        policy(self.namespace, "deny", "{ podSelector: {} }");
        self.settle("default deny", false);
        let allow = "{ podSelector: { matchLabels: { pod: web } }, ingress: [{ from: [{ podSelector: { matchLabels: { pod: far } } }] }] }";
        policy(self.namespace, "allow", allow);
        self.settle("the one that may", true);
        self.namespace.kubectl(&["delete", "networkpolicy", "--all"]);
    }

    /// Sends megabytes from one pod to the other, which counts them.
    fn transfer(&self) {
        let listen = "nc -ll -p 9001 -e wc -c > /dev/null 2>&1 &";
        self.namespace.kubectl(&["exec", "web", "--", "sh", "-c", listen]);
        let web = address(self.namespace, "web");
        let send = format!("head -c 3000000 /dev/zero | timeout 20 nc {web} 9001");
        eventually("three megabytes", 30, || {
            let out = self.namespace.kubectl_output(&["exec", "far", "--", "sh", "-c", &send]);
            let counted = String::from_utf8_lossy(&out.stdout).trim().to_owned();
            if counted == "3000000" { Ok(()) } else { Err(counted) }
        });
    }
}

#[test]
fn pods_of_a_node_behind_a_router_are_reached_and_judged() {
    let lab = Lab::up();
    let namespace = lab.0.namespace("overlay");
    let pods = Pods::new(&namespace);
    let on = |node: &'static str| move |argv: &[&str]| apart(&[&["exec", node, "--"], argv].concat());
    assert_eq!(link(&on("n1"), &address(&namespace, "far")), "wl-vxlan");
    assert_eq!(link(&on("n2"), &address(&namespace, "web")), "wl-vxlan");
    pods.settle("no policy", true);
    pods.named();
    pods.transfer();
    // the node's own `ip` shows the measure of a route; the pod's has no word for it
    let routes = on("n2")(&["sh", "-c", "for net in /run/netns/*; do nsenter --net=$net ip route; done"]);
    let routes = String::from_utf8_lossy(&routes.stdout).into_owned();
    assert!(routes.lines().any(|line| line.starts_with("default") && line.contains("mtu 1450")), "{routes}");
    pods.judge();
    // The agent dies, and what it made goes on and is used again.
    let index = || on("n2")(&["cat", "/sys/class/net/wl-vxlan/ifindex"]).stdout;
    let before = index();
    assert!(apart(&["kill", "n2", "agent"]).status.success());
    pods.settle("after kill -9", true);
    assert_eq!(index(), before);
}

#[test]
fn a_cluster_is_switched_to_vxlan_and_back_with_its_connections_open() {
    let namespace = cluster().namespace("overlay-switch");
    let pods = Pods::new(&namespace);
    let on = |node: &'static str| move |argv: &[&str]| crate::harness::on_node(node, argv);
    let led = |by_vxlan: bool| {
        for (node, pod) in [("n1", "far"), ("n2", "web")] {
            let to = address(&namespace, pod);
            eventually("the way", 20, || {
                let link = link(&on(node), &to);
                if !link.is_empty() && (link == "wl-vxlan") == by_vxlan {
                    Ok(())
                } else {
                    Err(format!("{node} sends by {link}"))
                }
            });
        }
    };
    led(false);
    let web = address(&namespace, "web");
    let stream =
        format!("(while true; do echo ping; sleep 0.1; done | nc {web} 9000 > /tmp/out) > /dev/null 2>&1 &");
    namespace.kubectl(&["exec", "far", "--", "sh", "-c", &stream]);
    let lines = || {
        let text = namespace.kubectl(&["exec", "far", "--", "sh", "-c", "wc -l < /tmp/out"]);
        text.trim().parse::<u32>().unwrap()
    };
    let goes_on = |what: &str| {
        let before = lines();
        eventually(what, 15, || if lines() > before + 5 { Ok(()) } else { Err(lines().to_string()) });
    };
    goes_on("an open connection");
    let settings = Settings::apply("vxlan");
    led(true);
    goes_on("the connection by VXLAN");
    pods.settle("by VXLAN", true);
    pods.named();
    pods.transfer();
    pods.judge();
    drop(settings);
    led(false);
    goes_on("the connection by the link");
    pods.settle("by the link", true);
}

/// The cluster's settings, which go with the test.
struct Settings;

impl Settings {
    fn apply(backend: &str) -> Self {
        let map = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: windlass-network, namespace: kube-system }}\ndata: {{ backend: {backend} }}\n"
        );
        cluster().apply("kube-system", &map);
        Self
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        let args = ["-n", "kube-system", "delete", "configmap", "windlass-network", "--ignore-not-found"];
        drop(cluster().kubectl_output(&args));
    }
}
