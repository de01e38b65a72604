//! TaintNodesByCondition: a new node takes no pods until its first Ready condition was seen.

use super::{Attributes, Operation, Verdict};
use crate::registry::Registry;
use machinery::access::{Get as _, list_at};
use serde_json::json;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) fn taint_new<'a>(_: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if a.is("", "nodes", "")
            && a.operation == Operation::Create
            && let Some(node) = &mut a.object
        {
            let taints = list_at(node, "spec.taints");
            if !taints.iter().any(|t| t.text("key") == NOT_READY && t.text("effect") == "NoSchedule") {
                taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            }
        }
        Ok(())
    })
}
