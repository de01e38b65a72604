//! `kill -9` of the agent, the server and containerd, while pods run and while pods are made: afterwards every pod is there once, nothing
//! was restarted that need not be, and no sandbox or address is leaked.

use crate::harness::{LAB, Namespace, cluster, echo, eventually, lab, on_node};
use cri_proto::client::{Deadlines, Runtime};
use lab::layout::Layout;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

const VICTIMS: [(&str, &str); 4] =
    [("n2", "windlass"), ("n1", "agent"), ("n1", "windlass"), ("n2", "containerd")];

/// Container ids and restart counts by pod.
fn containers(namespace: &Namespace<'_>) -> BTreeMap<String, (String, String)> {
    let template = "{range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{'\\n'}{end}";
    let text = namespace.path("pods", template);
    text.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?.to_owned(), (words.next()?.to_owned(), words.next()?.to_owned())))
        })
        .collect()
}

/// Ids of a node's sandboxes, as the runtime shows them to a kubelet.
fn sandboxes(node: &str) -> Result<BTreeSet<String>, String> {
    let socket = Layout::new(LAB).node_path(node, "/run/containerd/containerd.sock");
    let list = async {
        let runtime = Runtime::connect(&socket.to_string_lossy(), Deadlines::default())?;
        runtime.list_pod_sandboxes(HashMap::new()).await
    };
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listed = executor.block_on(list).map_err(|error| error.to_string())?;
    Ok(listed.into_iter().map(|sandbox| sandbox.id).collect())
}

/// The same as the runtime keeps them, those included that it does not show.
fn records(node: &str) -> BTreeSet<String> {
    let out = on_node(
        node,
        &["ctr", "-n", "k8s.io", "containers", "ls", "-q", "labels.\"io.cri-containerd.kind\"==sandbox"],
    );
    String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
}

fn leases(node: &str) -> usize {
    let out = on_node(node, &["sh", "-c", "ls /var/lib/cni/networks/*/ | grep -c '^[0-9]'"]);
    String::from_utf8_lossy(&out.stdout).trim().parse().unwrap_or(0)
}

/// Pods the API server has on a node that need an address.
fn pods_with_address(node: &str) -> usize {
    let text = cluster().kubectl(&[
        "get",
        "pods",
        "-A",
        "--field-selector",
        &format!("spec.nodeName={node}"),
        "-o",
        "jsonpath={range .items[*]}{.spec.hostNetwork}|{.status.phase}{'\\n'}{end}",
    ]);
    text.lines()
        .filter(|l| !l.starts_with("true") && !l.ends_with("Succeeded") && !l.ends_with("Failed"))
        .count()
}

/// Tells, when its test fails, whose each sandbox of the node is, and what runtime and agent last said of it.
struct Witness(&'static str);

impl Drop for Witness {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let tasks = on_node(self.0, &["ctr", "-n", "k8s.io", "tasks", "ls"]).stdout;
        eprintln!("tasks of {}:\n{}", self.0, String::from_utf8_lossy(&tasks));
        let shown = sandboxes(self.0).unwrap_or_default();
        for id in records(self.0) {
            let info = on_node(self.0, &["ctr", "-n", "k8s.io", "containers", "info", &id]).stdout;
            let labels =
                serde_json::from_slice::<Value>(&info).map(|i| i["Labels"].clone()).unwrap_or_default();
            let label = |name: &str| labels[name].as_str().unwrap_or_default().to_owned();
            let (pod, uid) = (label("io.kubernetes.pod.name"), label("io.kubernetes.pod.uid"));
            let namespace = label("io.kubernetes.pod.namespace");
            eprintln!("sandbox {id}: {namespace}/{pod} {uid}, shown: {}", shown.contains(&id));
            for (service, words) in [("windlass", [&pod, &uid]), ("containerd", [&id, &id])] {
                let log =
                    std::fs::read_to_string(Layout::new(LAB).node_log(self.0, service)).unwrap_or_default();
                let said =
                    log.lines().rev().filter(|line| words.iter().any(|w| !w.is_empty() && line.contains(*w)));
                let mut last: Vec<&str> = said.take(15).collect();
                last.reverse();
                eprintln!("{service}:\n{}", last.join("\n"));
            }
        }
    }
}

fn nothing_is_leaked() {
    for node in ["n1", "n2"] {
        let _witness = Witness(node);
        eventually("as many sandboxes and addresses as pods", 60, || {
            let (pods, boxes, leases) = (pods_with_address(node), sandboxes(node)?.len(), leases(node));
            if pods == boxes && pods == leases {
                Ok(())
            } else {
                Err(format!("{node}: {pods} pods, {boxes} sandboxes, {leases} leases"))
            }
        });
    }
}

#[test]
fn running_pods_do_not_notice_a_kill() {
    let namespace = cluster().namespace("kill-running");
    namespace.apply(&echo("web", 6));
    namespace.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    let before = containers(&namespace);
    assert_eq!(before.len(), 6);
    for (node, victim) in VICTIMS {
        lab(&["kill", node, victim]);
        for name in ["n1", "n2"] {
            eventually("the cluster is whole again", 60, || {
                let out = cluster().kubectl_output(&[
                    "wait",
                    "--for=condition=Ready",
                    "--timeout=5s",
                    &format!("node/{name}"),
                ]);
                if out.status.success() {
                    Ok(())
                } else {
                    Err(format!("after {node} {victim}: {}", String::from_utf8_lossy(&out.stderr)))
                }
            });
        }
        eventually("every pod ready", 60, || {
            let ready = cluster().kubectl_output(&[
                "-n",
                &namespace.name,
                "get",
                "deployment/web",
                "-o",
                "jsonpath={.status.readyReplicas}",
            ]);
            if ready.stdout == b"6" {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&ready.stdout).into_owned())
            }
        });
        assert_eq!(containers(&namespace), before, "after kill -9 of {victim} on {node}");
    }
    nothing_is_leaked();
}

#[test]
fn pods_in_the_making_survive_a_kill() {
    for (round, (node, victim)) in VICTIMS.into_iter().enumerate() {
        let namespace = cluster().namespace(&format!("kill-making-{round}"));
        namespace.apply(&echo("web", 20));
        // in the middle of it: some pods are there, most are not
        eventually("the first pod runs", 60, || {
            let phases = namespace.path("pods", "{.items[*].status.phase}");
            if phases.contains("Running") { Ok(()) } else { Err(phases) }
        });
        lab(&["kill", node, victim]);
        eventually("twenty pods are ready", 120, || {
            let out = cluster().kubectl_output(&[
                "-n",
                &namespace.name,
                "rollout",
                "status",
                "deployment/web",
                "--timeout=10s",
            ]);
            if out.status.success() {
                Ok(())
            } else {
                Err(format!("after {node} {victim}: {}", String::from_utf8_lossy(&out.stderr)))
            }
        });
        let pods = containers(&namespace);
        assert_eq!(pods.len(), 20, "every pod is there once, after kill -9 of {victim} on {node}");
        drop(namespace);
    }
    nothing_is_leaked();
}
