//! Which nodes a daemon pod belongs on, and what the pod for one node looks like. Pure.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    PodTemplateSpec, Toleration,
};
use kube::ResourceExt;
use machinery::node_terms;
use machinery::taints::any_tolerates;

/// The label that tells pods of one template from those of another.
pub(super) const HASH_LABEL: &str = "controller-revision-hash";
/// The old numbering of templates, kept for sets that still have it.
const GENERATION_LABEL: &str = "pod-template-generation";
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";

/// Taints every daemon pod bears: key, effect. The last only where it uses the host's network.
const BORNE: [(&str, &str); 7] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ("node.kubernetes.io/network-unavailable", "NoSchedule"),
];

/// Whether a pod starts, and whether one that is there stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fit {
    /// A pod belongs here.
    pub run: bool,
    /// A pod that is here may stay.
    pub stay: bool,
}

/// Whether a set's pods belong on a node.
#[must_use]
pub(super) fn fit(set: &DaemonSet, node: &Node) -> Fit {
    const NO: Fit = Fit { run: false, stay: false };
    let Some(spec) = set.spec.as_ref().and_then(|s| s.template.spec.as_ref()) else { return NO };
    let name = node.name_any();
    let named = spec.node_name.as_deref().unwrap_or_default();
    if (!named.is_empty() && named != name) || !node_terms::allows(spec, &name, node.labels()) {
        return NO;
    }
    let tolerations = tolerations(spec);
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let bears = |effects: &[&str]| {
        taints
            .iter()
            .filter(|t| effects.contains(&t.effect.as_str()))
            .all(|taint| any_tolerates(&tolerations, taint))
    };
    if bears(&["NoSchedule", "NoExecute"]) {
        return Fit { run: true, stay: true };
    }
    Fit { run: false, stay: bears(&["NoExecute"]) }
}

/// The template's tolerations and those every daemon pod has.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let count = if spec.host_network == Some(true) { BORNE.len() } else { BORNE.len() - 1 };
    for (key, effect) in &BORNE[..count] {
        let toleration = Toleration {
            key: Some((*key).to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some((*effect).to_owned()),
            ..Toleration::default()
        };
        let same = all.iter_mut().find(|t| {
            t.key == toleration.key
                && t.effect == toleration.effect
                && t.operator == toleration.operator
                && t.value.as_deref().unwrap_or_default().is_empty()
        });
        match same {
            Some(same) => *same = toleration,
            None => all.push(toleration),
        }
    }
    all
}

fn generation(set: &DaemonSet) -> Option<String> {
    let text = set.annotations().get(GENERATION_ANNOTATION)?;
    text.parse::<i64>().ok().map(|n| n.to_string())
}

/// The template of a pod with `hash` that only `node` can take.
#[must_use]
pub(super) fn template_for(set: &DaemonSet, hash: &str, node: &str) -> PodTemplateSpec {
    let mut template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    if let Some(generation) = generation(set) {
        labels.insert(GENERATION_LABEL.to_owned(), generation);
    }
    let spec = template.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    // the node was found eligible: its name alone says all the template's required terms said
    let name = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![name]), match_expressions: None };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let node_affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    node_affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
    template
}

/// The node a daemon pod is on, or waits for.
#[must_use]
pub(super) fn target(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        return Some(node);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    required
        .node_selector_terms
        .iter()
        .flat_map(|t| t.match_fields.iter().flatten())
        .find(|f| f.key == "metadata.name" && f.operator == "In" && f.values.iter().flatten().count() == 1)
        .and_then(|f| f.values.as_ref()?.first().map(String::as_str))
}

/// Whether a pod has the set's template.
#[must_use]
pub(super) fn updated(set: &DaemonSet, pod: &Pod, hash: &str) -> bool {
    let label = |name| pod.labels().get(name).map(String::as_str);
    (!hash.is_empty() && label(HASH_LABEL) == Some(hash))
        || generation(set).is_some_and(|g| label(GENERATION_LABEL) == Some(&g))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(spec: Value) -> DaemonSet {
        serde_json::from_value(json!({ "metadata": { "name": "ds" },
            "spec": { "selector": {}, "template": { "spec": spec } } }))
        .unwrap()
    }

    fn node(taints: Value) -> Node {
        serde_json::from_value(json!({ "metadata": { "name": "n1", "labels": { "disk": "ssd" } },
            "spec": { "taints": taints } }))
        .unwrap()
    }

    fn verdict(spec: Value, taints: Value) -> (bool, bool) {
        let fit = fit(&set(spec), &node(taints));
        (fit.run, fit.stay)
    }

    #[test]
    fn selectors_and_taints_decide() {
        let c = json!([{ "name": "c" }]);
        let with = |key: &str, value: Value| {
            let mut spec = json!({ "containers": c });
            spec[key] = value;
            spec
        };
        let plain = json!({ "containers": c });
        assert_eq!(verdict(plain.clone(), json!([])), (true, true));
        assert_eq!(verdict(with("nodeSelector", json!({ "disk": "ssd" })), json!([])), (true, true));
        assert_eq!(verdict(with("nodeSelector", json!({ "disk": "hdd" })), json!([])), (false, false));
        assert_eq!(verdict(with("nodeName", json!("n2")), json!([])), (false, false));
        let affinity = |term: Value| {
            with(
                "affinity",
                json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution":
                { "nodeSelectorTerms": [term] } } }),
            )
        };
        let by_name = |op: &str| json!({ "matchFields": [{ "key": "metadata.name", "operator": op, "values": ["n1"] }] });
        assert_eq!(verdict(affinity(by_name("In")), json!([])), (true, true));
        assert_eq!(verdict(affinity(by_name("NotIn")), json!([])), (false, false));
        assert_eq!(verdict(affinity(json!({})), json!([])), (false, false));
        let own = |effect: &str| json!([{ "key": "own", "value": "x", "effect": effect }]);
        assert_eq!(verdict(plain.clone(), own("NoSchedule")), (false, true));
        assert_eq!(verdict(plain.clone(), own("NoExecute")), (false, false));
        assert_eq!(verdict(plain.clone(), own("PreferNoSchedule")), (true, true));
        let tolerant = with("tolerations", json!([{ "key": "own", "operator": "Equal", "value": "x" }]));
        assert_eq!(verdict(tolerant, own("NoExecute")), (true, true));
        let cordoned = json!([{ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" },
            { "key": "node.kubernetes.io/not-ready", "effect": "NoExecute" }]);
        assert_eq!(verdict(plain.clone(), cordoned), (true, true));
        let unplugged = json!([{ "key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule" }]);
        assert_eq!(verdict(plain, unplugged.clone()), (false, true));
        assert_eq!(verdict(with("hostNetwork", json!(true)), unplugged), (true, true));
    }

    #[test]
    fn a_pod_made_for_a_node_names_it() {
        let set = set(json!({ "containers": [{ "name": "c" }] }));
        let template = template_for(&set, "abc", "n7");
        let pod = Pod { metadata: template.metadata.unwrap(), spec: template.spec, status: None };
        assert_eq!(target(&pod), Some("n7"));
        assert!(updated(&set, &pod, "abc") && !updated(&set, &pod, "abd"));
        let keys: Vec<_> = pod.spec.unwrap().tolerations.unwrap().into_iter().filter_map(|t| t.key).collect();
        assert_eq!(
            keys,
            [
                "node.kubernetes.io/not-ready",
                "node.kubernetes.io/unreachable",
                "node.kubernetes.io/disk-pressure",
                "node.kubernetes.io/memory-pressure",
                "node.kubernetes.io/pid-pressure",
                "node.kubernetes.io/unschedulable"
            ]
        );
    }
}
