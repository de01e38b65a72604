//! Nodes by command: described, cordoned, tainted, drained.

use super::{fails, group, has, is, works};

const BARE: &str = "apiVersion: v1
kind: Pod
metadata: {name: bare}
spec:
  nodeName: n2
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: 'lab.local/echo:1'}]
";

#[test]
fn kubectl_cordons_taints_and_drains_nodes() {
    group(
        "nodes",
        &[
            has(
                "describe node n1",
                &[
                    "kubernetes.io/hostname=n1",
                    "HolderIdentity:  n1",
                    "KubeletReady",
                    "InternalIP:  192.168.77.11",
                    "Container Runtime Version:  containerd://",
                    "PodCIDR:                      10.244.",
                    "Allocated resources:",
                    "Non-terminated Pods:",
                ],
            ),
            is("cordon n2", "node/n2 cordoned"),
            is("cordon n2", "node/n2 already cordoned"),
            has("get node n2", &["Ready,SchedulingDisabled"]),
            is("get node n2 -o jsonpath={.spec.taints[*].key}", "node.kubernetes.io/unschedulable"),
            is("uncordon n2", "node/n2 uncordoned"),
            is("taint node n2 k=v:NoSchedule", "node/n2 tainted"),
            fails(
                "taint node n2 k=v:NoSchedule",
                "error: node n2 already has k taint(s) with same effect(s) and --overwrite is false",
            )
            .current(),
            has("describe node n2", &["Taints:             k=v:NoSchedule"]),
            is("taint node n2 k-", "node/n2 untainted"),
            is("apply -f -", "pod/bare created").input(BARE),
            is("wait --for=condition=Ready pod/bare --timeout=60s", "pod/bare condition met"),
            fails(
                "drain n2 --pod-selector=nobody=here --dry-run=nonsense",
                "error: Invalid dry-run value (nonsense). Must be \"none\", \"server\", or \"client\".",
            ),
            has(
                "drain n2 --force --ignore-daemonsets --delete-emptydir-data --timeout=60s",
                &["node/n2 cordoned", "evicting pod {ns}/bare", "pod/bare evicted", "node/n2 "],
            ),
            fails("get pod bare", "Error from server (NotFound): pods \"bare\" not found"),
            works("uncordon n2"),
        ],
    );
}
