//! Machines that come back: made anew under the same name, at another address, or after their Node was removed.

use super::*;

/// The Node that another machine of this name left, or this one in an earlier life.
fn left(machine: &str) -> Value {
    let conditions = ["MemoryPressure", "Ready"].map(|kind| json!({"type": kind, "status": "Unknown"}));
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": "n1", "uid": "uid-of-old", "resourceVersion": "7",
            "labels": {"kubernetes.io/hostname": "other", "team": "storage"},
        },
        "spec": {"unschedulable": true, "podCIDRs": ["10.244.7.0/24"], "taints": [
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "198.51.100.7"}, {"type": "Hostname", "address": "other"}],
            "capacity": {"cpu": "1", "memory": "1Ki", "pods": "1", "example.com/gpu": "8"},
            "allocatable": {"cpu": "1", "memory": "1Ki", "pods": "1", "example.com/gpu": "8"},
            "conditions": conditions,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}},
            "nodeInfo": {"architecture": "", "bootID": "boot-of-old", "containerRuntimeVersion": "", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "", "machineID": machine, "operatingSystem": "", "osImage": "",
                "systemUUID": "old"},
            "volumesInUse": ["kubernetes.io/csi/d^v"],
        },
    })
}

fn told(server: &Server, reason: &str) -> bool {
    server.writes.iter().any(|(_, body)| body["reason"] == reason)
}

fn is_ready(server: &Server) -> bool {
    ready(server).is_some_and(|(status, _)| status == "True")
}

#[tokio::test]
async fn a_machine_that_was_made_anew_must_not_be_taken_for_the_one_before() {
    let server = Arc::new(Mutex::new(Server { node: Some(left("machine-of-old")), ..Server::default() }));
    with_node(&server, |_health, _reported| {
        let server = server.clone();
        async move {
            until(&server, is_ready).await;
            until(&server, |s| told(s, "Rebooted")).await;
            until(&server, |s| s.lease.is_some()).await;
        }
    })
    .await;
    let server = server.lock().unwrap();
    let node = server.node.as_ref().unwrap();
    let info = &node["status"]["nodeInfo"];
    for (field, old) in [("machineID", "machine-of-old"), ("bootID", "boot-of-old"), ("systemUUID", "old")] {
        assert_ne!(info[field], old, "{field}");
    }
    assert_eq!(node["status"]["capacity"]["example.com/gpu"], "0");
    assert_eq!(node["status"]["allocatable"]["example.com/gpu"], "0");
    assert_ne!(node["status"]["capacity"]["memory"], "1Ki");
    assert_eq!(node["status"]["volumesInUse"], Value::Null);
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    // What administrators and controllers said of it is theirs.
    assert_eq!(node["metadata"]["labels"]["team"], "storage");
    assert_eq!(node["spec"], left("")["spec"]);
    let owner = &server.lease.as_ref().unwrap()["metadata"]["ownerReferences"][0];
    assert_eq!(owner["uid"], "uid-of-old");
}

#[tokio::test]
async fn a_node_that_moved_must_not_be_looked_for_at_its_old_address() {
    let server = Arc::new(Mutex::new(Server { node: Some(left("")), ..Server::default() }));
    with_node(&server, |_health, _reported| {
        let server = server.clone();
        async move { until(&server, is_ready).await }
    })
    .await;
    let node = server.lock().unwrap().node.clone().unwrap();
    let addresses =
        json!([{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n1"}]);
    assert_eq!(node["status"]["addresses"], addresses);
    assert_eq!(node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"], 10250);
}

#[tokio::test]
async fn a_node_that_was_removed_while_its_machine_was_off_is_made_again() {
    let server = Arc::new(Mutex::new(Server::default()));
    for life in 1..=2 {
        with_node(&server, |_health, _reported| {
            let server = server.clone();
            async move {
                until(&server, is_ready).await;
                until(&server, |s| s.lease.is_some()).await;
            }
        })
        .await;
        let mut server = server.lock().unwrap();
        assert_eq!(server.made, life);
        (server.node, server.lease) = (None, None);
    }
}

#[tokio::test]
async fn a_node_that_was_removed_while_nobody_could_reach_the_api_must_not_stay_away() {
    let server = Arc::new(Mutex::new(Server::default()));
    with_node(&server, |_health, reported| {
        let server = server.clone();
        async move {
            until(&server, is_ready).await;
            until(&server, |s| s.lease.is_some()).await;
            server.lock().unwrap().away = true;
            // It has something to say, and nobody hears it.
            reported.send_modify(|reported| reported.disk_pressure = true);
            until(&server, |s| s.unheard > 0).await;
            {
                let mut server = server.lock().unwrap();
                (server.node, server.lease, server.away) = (None, None, false);
            }
            until(&server, |s| s.made == 2 && is_ready(s)).await;
            let owned = |s: &Server| {
                let lease = s.lease.as_ref()?;
                Some(lease["metadata"]["ownerReferences"][0]["uid"] == "uid-2-of-n1")
            };
            until(&server, |s| owned(s) == Some(true)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_node_that_somebody_removed_must_not_come_back_by_itself() {
    let server = Arc::new(Mutex::new(Server::default()));
    with_node(&server, |_health, _reported| {
        let server = server.clone();
        async move {
            until(&server, is_ready).await;
            let reads = {
                let mut server = server.lock().unwrap();
                server.node = None;
                server.reads
            };
            until(&server, |s| s.reads > reads + 3).await;
            assert_eq!(server.lock().unwrap().made, 1);
        }
    })
    .await;
}
