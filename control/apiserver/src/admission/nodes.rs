//! TaintNodesByCondition: a new node takes no pods until its first Ready condition was seen.

use super::{Attributes, Operation, Verdict};
use crate::registry::Registry;
use crate::registry::metadata::{list_mut, text};
use serde_json::json;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) fn taint_new<'a>(_: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if a.is("", "nodes", "")
            && a.operation == Operation::Create
            && let Some(node) = &mut a.object
        {
            let taints = list_mut(node, &["spec", "taints"]);
            if !taints.iter().any(|t| text(t, &["key"]) == NOT_READY && text(t, &["effect"]) == "NoSchedule")
            {
                taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            }
        }
        Ok(())
    })
}
