//! NodeUnschedulable and TaintToleration.

use super::normalize;
use crate::fit::{Plugin, Refusal};
use crate::model::{NodeInfo, Pod};
use k8s_openapi::api::core::v1::Taint;
use std::sync::Arc;

/// Refuses a cordoned node, unless the pod tolerates the taint a cordon stands for.
pub(super) fn unschedulable(pod: &Pod, node: &NodeInfo) -> Result<(), Refusal> {
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    if node.unschedulable && !pod.tolerates(&cordon) {
        return Err(Refusal::final_(Plugin::NodeUnschedulable, "node(s) were unschedulable"));
    }
    Ok(())
}

pub(super) fn filter(pod: &Pod, node: &NodeInfo) -> Result<(), Refusal> {
    let mut hard = node.taints.iter().filter(|t| t.effect != "PreferNoSchedule");
    if hard.any(|t| !pod.tolerates(t)) {
        return Err(Refusal::final_(Plugin::TaintToleration, "node(s) had untolerated taint(s)"));
    }
    Ok(())
}

pub(super) fn score(pod: &Pod, nodes: &[Arc<NodeInfo>]) -> Vec<i64> {
    let soft = |n: &NodeInfo| {
        let taints = n.taints.iter().filter(|t| t.effect == "PreferNoSchedule");
        taints.filter(|t| !pod.tolerates(t)).count() as i64
    };
    normalize(nodes.iter().map(|n| soft(n)).collect(), true)
}
