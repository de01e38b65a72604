//! `pods/eviction`: a delete that asks the disruption budgets first (upstream: `pkg/registry/core/pod/storage/eviction.go`).
//!
//! A budget is charged by compare-and-swap of its status before the pod is deleted: two evictions at once cannot both take
//! its last allowed disruption. A charge whose delete then fails is given back by the disruption controller, which counts
//! `disruptedPods` that are still there after their deadline.

use super::super::{Exchange, body};
use super::created;
use crate::admission::{self, Attributes, Operation, Seen};
use crate::context::{Body, Response};
use crate::registry::create::Call;
use crate::registry::delete::Deleted;
use crate::registry::kind::Kind;
use crate::registry::metadata::{at, deleting, items, object_mut, set, text, time};
use crate::registry::options::DeleteOptions;
use bytes::Bytes;
use jiff::Timestamp;
use machinery::labels::Selector;
use machinery::object;
use machinery::object::{Gr, Gvk};
use machinery::status::Status;
use serde_json::{Map, Value};

/// Pods under way to their end that one budget may list.
const MAX_DISRUPTED: usize = 2000;

pub(super) async fn create(x: &Exchange<'_>, request: Body) -> Result<Response, Status> {
    let call = x.call()?;
    let bytes = in_v1(body::read(request).await?);
    let gvk = Gvk::new("policy", "v1", "Eviction");
    let (eviction, warnings) = body::decode(&x.headers, &bytes, &gvk, call.options.field_validation)?;
    x.warn(warnings);
    let name = object::name(&eviction);
    if name != call.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut attributes = Attributes::of_sent(&call, Operation::Create, gvk, eviction);
    admission::sent(x.registry, &mut attributes).await?;
    let eviction = attributes.object.take().unwrap_or_default();
    let null = Value::Null;
    let mut options = DeleteOptions::parse(x.context, eviction.get("deleteOptions").unwrap_or(&null))?;
    options.dry_run |= call.options.dry_run;
    let pod = x.registry.read_required(&x.kind, &call.namespace, &call.name).await?;
    if !needs_no_budget(&pod) {
        charge(x, &call, &pod, options.dry_run).await?;
        // What was weighed is what is deleted.
        options.uid.get_or_insert_with(|| object::uid(&pod).to_owned());
    }
    let call = Call { subresource: "eviction", seen: Seen::Already, ..call.clone() };
    match x.registry.delete(&call, &options).await? {
        Deleted::Object(_) | Deleted::Status(_) => {}
    }
    let mut status = Status::success();
    status.code = 201;
    created(x, &status.to_value())
}

/// The eviction as of `policy/v1`. This subresource takes `policy/v1beta1` too, as upstream's does: older clients send no other, and the
/// two are alike.
fn in_v1(bytes: Bytes) -> Bytes {
    let Ok(mut eviction) = serde_json::from_slice::<Value>(&bytes) else { return bytes };
    if object::api_version(&eviction) != "policy/v1beta1" {
        return bytes;
    }
    object::set_gvk(&mut eviction, &Gvk::new("policy", "v1", "Eviction"));
    machinery::codec::json::encode(&eviction).into()
}

/// A pod that has ended, has not begun, or is going disturbs nobody by its end.
fn needs_no_budget(pod: &Value) -> bool {
    matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed" | "Pending") || deleting(pod)
}

fn is_ready(pod: &Value) -> bool {
    items(pod, &["status", "conditions"])
        .iter()
        .any(|c| text(c, &["type"]) == "Ready" && text(c, &["status"]) == "True")
}

async fn charge(x: &Exchange<'_>, call: &Call<'_>, pod: &Value, dry_run: bool) -> Result<(), Status> {
    let kind = Kind::of("policy", "poddisruptionbudgets")
        .ok_or_else(|| Status::internal_error("poddisruptionbudgets are not served"))?;
    let empty = Map::new();
    let labels = object::labels(pod).unwrap_or(&empty);
    let mut budgets = Vec::new();
    for budget in x.registry.current(&kind, &call.namespace).await? {
        let selects = at(&budget, &["spec", "selector"])
            .and_then(|s| Selector::from_label_selector(s).ok())
            .is_some_and(|s| s.matches(labels));
        if selects {
            budgets.push(budget);
        }
    }
    let budget = match budgets.as_slice() {
        [] => return Ok(()),
        [budget] => budget,
        _ => {
            return Err(Status::internal_error(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    // An unready pod cannot make a healthy application unhealthy.
    let healthy = at(budget, &["status", "currentHealthy"]).and_then(Value::as_i64).unwrap_or_default();
    let desired = at(budget, &["status", "desiredHealthy"]).and_then(Value::as_i64).unwrap_or_default();
    let always = text(budget, &["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow";
    if !is_ready(pod) && (always || (healthy >= desired && desired > 0)) {
        return Ok(());
    }
    let context =
        crate::context::Context { user: x.context.user.clone(), ..crate::context::Context::default() };
    let update = Call {
        context: &context,
        kind,
        namespace: call.namespace.clone(),
        name: object::name(budget).to_owned(),
        subresource: "status",
        options: crate::registry::options::WriteOptions { dry_run, ..Default::default() },
        warnings: call.warnings.clone(),
        seen: Seen::Already,
    };
    let now = Timestamp::now();
    let pod_name = object::name(pod).to_owned();
    let take = |old: &Value| take(old, &pod_name, now);
    x.registry.update(&update, &take, None).await.map_err(|e| {
        if e.code == 409 {
            // Too many evictions at once for one budget.
            return Status::too_many_requests(
                format!("couldn't update PodDisruptionBudget {:?} due to conflicts", object::name(budget)),
                10,
            );
        }
        e
    })?;
    Ok(())
}

/// The budget's status with one disruption fewer, or 429.
fn take(budget: &Value, pod: &str, now: Timestamp) -> Result<Value, Status> {
    const REFUSAL: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
    let name = object::name(budget);
    let number = |field: &str| at(budget, &["status", field]).and_then(Value::as_i64).unwrap_or_default();
    if number("observedGeneration") < object::generation(budget) {
        return Err(Status::too_many_requests(REFUSAL, 10).with_cause(
            "DisruptionBudget",
            format!("The disruption budget {name} is still being processed by the server."),
            "",
        ));
    }
    let allowed = number("disruptionsAllowed");
    if allowed < 0 {
        return Err(Status::forbidden(
            &Gr::new("policy", "poddisruptionbudget"),
            name,
            "pdb disruptions allowed is negative",
        ));
    }
    let disrupted = at(budget, &["status", "disruptedPods"]).and_then(Value::as_object).map_or(0, Map::len);
    if disrupted > MAX_DISRUPTED {
        return Err(Status::forbidden(
            &Gr::new("policy", "poddisruptionbudget"),
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        let (healthy, desired) = (number("currentHealthy"), number("desiredHealthy"));
        let why = if healthy <= desired {
            format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")
        } else {
            format!(
                "The disruption budget {name} does not allow evicting pods currently because it failed sync"
            )
        };
        return Err(Status::too_many_requests(REFUSAL, 0).with_cause("DisruptionBudget", why, ""));
    }
    let mut new = budget.clone();
    object::set_resource_version(&mut new, "");
    set(&mut new, &["status", "disruptionsAllowed"], allowed - 1);
    object_mut(&mut new, &["status", "disruptedPods"]).insert(pod.to_owned(), time(now).into());
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::in_v1;
    use bytes::Bytes;

    #[test]
    fn evictions_of_both_versions_are_taken() {
        let old = Bytes::from_static(
            br#"{"apiVersion":"policy/v1beta1","kind":"Eviction","metadata":{"name":"p"}}"#,
        );
        assert_eq!(in_v1(old), r#"{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p"}}"#);
        for kept in ["{", "3", r#"{"apiVersion": "v2"}"#] {
            assert_eq!(in_v1(Bytes::from(kept)), kept);
        }
    }
}
