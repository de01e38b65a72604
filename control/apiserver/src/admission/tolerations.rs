//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or not reachable.

use super::{Attributes, Operation, Verdict};
use crate::registry::Registry;
use machinery::access::{Get as _, list_at};
use serde_json::{Value, json};

const KEYS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

pub(super) fn default<'a>(_: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if !a.is("", "pods", "") || a.operation == Operation::Delete {
            return Ok(());
        }
        let Some(pod) = &mut a.object else { return Ok(()) };
        for key in KEYS {
            let tolerated = |t: &Value| {
                let (k, effect) = (t.text("key"), t.text("effect"));
                (k == key || k.is_empty()) && (effect == "NoExecute" || effect.is_empty())
            };
            if !pod.items("spec.tolerations").iter().any(tolerated) {
                list_at(pod, "spec.tolerations").push(
                    json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}),
                );
            }
        }
        Ok(())
    })
}
