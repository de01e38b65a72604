//! PodResizeValidator: a pod that runs may not ask for more than its node has to give.

use super::{Attributes, Operation, Verdict};
use crate::registry::Registry;
use crate::registry::kind::Kind;
use machinery::access::Get as _;
use machinery::object;
use machinery::quantity::Quantity;
use machinery::status::Status;
use machinery::totals::{self, Resize, Side};
use serde_json::Value;

pub(super) fn check<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        let generation = |pod: &Value| pod.present("metadata.generation").cloned();
        let pod = a.new_object();
        let name = pod.text("spec.nodeName");
        if !a.is("", "pods", "resize")
            || a.operation != Operation::Update
            || name.is_empty()
            || generation(pod) == generation(a.old_object())
        {
            return Ok(());
        }
        let Some(kind) = Kind::of("", "nodes") else { return Ok(()) };
        let Some(node) = registry.lookup(&kind, "", name).await? else {
            return Err(a.forbidden(format!("node {name:?} not found")));
        };
        let system = object::label(&node, "kubernetes.io/os").unwrap_or_default();
        if !matches!(system, "" | "linux") {
            let why = format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
            return Err(refused(a, &why, "UnsupportedPlatform"));
        }
        let short = short(pod, &node);
        if short.is_empty() {
            return Ok(());
        }
        let why = format!("node didn't have enough allocatable resources: {}", short.join("; "));
        Err(refused(a, &why, "NodeCapacity"))
    })
}

fn refused(a: &Attributes<'_>, why: &str, reason: &str) -> Status {
    a.forbidden(why).with_cause(reason, "", "")
}

fn short(pod: &Value, node: &Value) -> Vec<String> {
    let requests = totals::of(pod, Side::Requests, Resize::Ignored);
    let shown = |quantity: &Quantity, milli: bool| {
        if milli { quantity.milli_value() } else { quantity.value() }
    };
    let mut short = Vec::new();
    for (name, milli) in [("cpu", true), ("memory", false)] {
        let asked = requests.get(name).cloned().unwrap_or_else(Quantity::zero);
        let has = Quantity::parse(
            node.at("status.allocatable").get(name).and_then(Value::as_str).unwrap_or_default(),
        )
        .unwrap_or_else(|_| Quantity::zero());
        if asked.sub(&has).sign() > 0 {
            short.push(format!(
                "{name}, requested: {}, allocatable: {}",
                shown(&asked, milli),
                shown(&has, milli)
            ));
        }
    }
    short
}
