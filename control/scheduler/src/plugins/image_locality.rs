//! ImageLocality: nodes that have the pod's images, the more so where many nodes have them (few big pulls).

use super::MAX_SCORE;
use crate::model::{NodeInfo, Pod, Snapshot};
use std::sync::Arc;

const MIB: i64 = 1 << 20;
/// Images smaller than this together do not matter.
const MIN: i64 = 23 * MIB;
/// Nor does more than this for each container.
const MAX_EACH: i64 = 1000 * MIB;

pub(super) fn score(snapshot: &Snapshot, pod: &Pod, nodes: &[Arc<NodeInfo>]) -> Vec<i64> {
    let total = snapshot.nodes.len().max(1) as f64;
    let images: Vec<(String, f64)> = pod
        .images
        .iter()
        .chain(&pod.image_volumes)
        .map(|i| normalized(i))
        .map(|i| {
            let having = snapshot.nodes.iter().filter(|n| n.images.contains_key(&i)).count();
            (i, having as f64 / total)
        })
        .filter(|(_, share)| *share > 0.0)
        .collect();
    let max = MAX_EACH * (pod.images.len().max(1) as i64);
    nodes
        .iter()
        .map(|node| {
            let present =
                images.iter().filter_map(|(i, share)| Some((*node.images.get(i)? as f64 * share) as i64));
            (present.sum::<i64>().clamp(MIN, max) - MIN) * MAX_SCORE / (max - MIN)
        })
        .collect()
}

/// Node status names images with their tag.
fn normalized(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains(':') || name.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}
