//! NodePorts: host ports are free.

use crate::fit::{Plugin, Refusal};
use crate::model::{NodeInfo, Pod};

pub(super) fn filter(pod: &Pod, node: &NodeInfo) -> Result<(), Refusal> {
    if pod.ports.iter().any(|p| node.ports.iter().any(|taken| p.conflicts(taken))) {
        let reason = "node(s) didn't have free ports for the requested pod ports";
        return Err(Refusal::curable(Plugin::NodePorts, reason));
    }
    Ok(())
}
