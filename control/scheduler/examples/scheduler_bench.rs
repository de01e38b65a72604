//! 1,000 pods over 100 nodes, decisions only: time a pod as a ratio to copying the pod's JSON through serde once, run in the
//! same breath. `cargo run --release -p scheduler --example scheduler_bench`

use k8s_openapi::api::core::v1 as api;
use scheduler::{Attempt, Cluster, Grouping, NodeInfo, Pod, attempt};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

const PODS: usize = 1000;
const NODES: usize = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut cluster = Cluster::default();
    for n in 0..NODES {
        let node = json!({
            "metadata": {"name": format!("n{n}"), "labels": {
                "kubernetes.io/hostname": format!("n{n}"), "topology.kubernetes.io/zone": format!("z{}", n % 3)}},
            "status": {"allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"}},
        });
        cluster.set_node(NodeInfo::new(&serde_json::from_value(node)?));
    }
    let selector = machinery::labels::Selector::from_set([("app", "web")]);
    let grouping = Grouping { kind: "Service", namespace: "ns".into(), name: "web".into(), selector };
    Arc::make_mut(&mut cluster.rest.groupings).insert(("Service", "ns/web".to_owned()), grouping);
    let texts: Vec<String> = (0..PODS)
        .map(|n| {
            json!({
                "metadata": {"name": format!("web-{n}"), "namespace": "ns", "uid": n.to_string(), "labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "registry.example/web:1", "resources":
                    {"requests": {"cpu": "100m", "memory": "128Mi"}}}]},
            })
            .to_string()
        })
        .collect();

    let start = Instant::now();
    let mut pods = Vec::new();
    for text in &texts {
        let parsed: api::Pod = serde_json::from_str(text)?;
        std::hint::black_box(serde_json::to_string(&parsed)?);
        pods.push(Pod::new(&parsed));
    }
    let copied = start.elapsed();

    let mut counts: HashMap<String, usize> = HashMap::new();
    let start = Instant::now();
    for (round, pod) in pods.iter().enumerate() {
        let placed = attempt(&cluster.snapshot(HashMap::new()), pod, round as u64);
        let Attempt::Placed(node) = placed else { return Err(format!("{} does not fit", pod.name).into()) };
        cluster.assume(pod, &node);
        *counts.entry(node).or_default() += 1;
    }
    let decided = start.elapsed();
    println!(
        "{PODS} pods over {NODES} nodes: a decision takes {:.1} times as long as reading and writing the pod's JSON \
         ({:.0} pods a second); {} to {} pods a node",
        decided.as_secs_f64() / copied.as_secs_f64(),
        PODS as f64 / decided.as_secs_f64(),
        counts.values().min().unwrap_or(&0),
        counts.values().max().unwrap_or(&0),
    );
    Ok(())
}
