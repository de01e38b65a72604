//! Why a pod fits nowhere, in upstream's words.

use std::collections::BTreeMap;
use std::fmt;

/// The filters, in the order they run. They also decide which change of the cluster may help a pod that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "upstream's plugin names")]
pub enum Plugin {
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    VolumeBinding,
    VolumeZone,
    PodTopologySpread,
    InterPodAffinity,
    /// An HTTP extender.
    Extender,
}

/// Why one node was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The filter that refused.
    pub plugin: Plugin,
    /// Its reasons; one for most filters.
    pub reasons: Vec<String>,
    /// Whether evicting pods from the node could help.
    pub preemptable: bool,
}

impl Refusal {
    /// A refusal that evictions may lift.
    pub fn curable(plugin: Plugin, reason: &str) -> Self {
        Self { plugin, reasons: vec![reason.to_owned()], preemptable: true }
    }

    /// A refusal that no eviction lifts.
    pub fn final_(plugin: Plugin, reason: &str) -> Self {
        Self { plugin, reasons: vec![reason.to_owned()], preemptable: false }
    }
}

/// No node takes the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FitError {
    /// How many nodes there are.
    pub nodes: usize,
    /// Why the pod fits no node whatever the nodes are like.
    pub pod_refused: Option<(Plugin, String)>,
    /// Why each node was refused.
    pub refusals: BTreeMap<String, Refusal>,
    /// What preemption had to say.
    pub preemption: Option<String>,
}

impl FitError {
    /// The filters that refused.
    pub fn plugins(&self) -> Vec<Plugin> {
        let own = self.pod_refused.iter().map(|(p, _)| *p);
        let mut all: Vec<_> = own.chain(self.refusals.values().map(|r| r.plugin)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// `0/N nodes are available: ` and how many nodes gave which reason, sorted as text.
pub(crate) fn histogram<'a>(nodes: usize, reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    let mut lines: Vec<_> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    lines.sort();
    let mut text = format!("0/{nodes} nodes are available:");
    if !lines.is_empty() {
        text.push_str(&format!(" {}.", lines.join(", ")));
    }
    text
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        match &self.pod_refused {
            Some((_, why)) => write!(f, "0/{} nodes are available: {why}.", self.nodes)?,
            None => {
                let reasons = self.refusals.values().flat_map(|r| r.reasons.iter().map(String::as_str));
                f.write_str(&histogram(self.nodes, reasons))?;
            }
        }
        match &self.preemption {
            Some(text) => write!(f, " {text}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for FitError {}
