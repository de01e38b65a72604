//! DefaultTolerationSeconds: a pod stays for a while, five minutes by default, on a node that is not ready or not reachable.

use super::{Attributes, Operation, Verdict};
use crate::registry::Registry;
use machinery::access::{Get as _, list_at};
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

pub(super) fn default<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if !a.is("", "pods", "") || a.operation == Operation::Delete {
            return Ok(());
        }
        let Some(pod) = &mut a.object else { return Ok(()) };
        let (not_ready, unreachable) = registry.config.toleration_seconds;
        for (key, seconds) in [(NOT_READY, not_ready), (UNREACHABLE, unreachable)] {
            let tolerated = |t: &Value| {
                let (k, effect) = (t.text("key"), t.text("effect"));
                (k == key || k.is_empty()) && (effect == "NoExecute" || effect.is_empty())
            };
            if !pod.items("spec.tolerations").iter().any(tolerated) {
                list_at(pod, "spec.tolerations").push(
                    json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}),
                );
            }
        }
        Ok(())
    })
}
