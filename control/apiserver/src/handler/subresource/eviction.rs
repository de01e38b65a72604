//! `pods/eviction`: a delete that asks the disruption budgets first (upstream: `pkg/registry/core/pod/storage/eviction.go`).
//!
//! A budget is charged by compare-and-swap of its status before the pod is deleted: two evictions at once cannot both take
//! its last allowed disruption. A charge whose delete then fails is given back by the disruption controller, which counts
//! `disruptedPods` that are still there after their deadline.

use super::super::{Exchange, body};
use super::created;
use crate::admission::{self, Attributes, Operation, Seen};
use crate::context::{Body, Response};
use crate::registry::call::Call;
use crate::registry::kind::Kind;
use crate::registry::metadata::{deleting, time};
use crate::registry::options::DeleteOptions;
use crate::write::delete::Deleted;
use bytes::Bytes;
use jiff::Timestamp;
use machinery::access::{Get as _, list_at, object_at, set_at};
use machinery::labels::Selector;
use machinery::object;
use machinery::object::{Gr, Gvk};
use machinery::status::{Reason, Status};
use serde_json::{Map, Value, json};

/// How often a pod that keeps changing is looked at again.
const TRIES: usize = 10;
/// Pods under way to their end that one budget may list.
const MAX_DISRUPTED: usize = 2000;

pub(super) async fn create(x: &Exchange<'_>, request: Body) -> Result<Response, Status> {
    let call = x.call()?;
    let bytes = in_v1(body::read(request).await?);
    let gvk = Gvk::new("policy", "v1", "Eviction");
    let (eviction, warnings) = body::decode(&x.headers, &bytes, &gvk, call.options.field_validation)?;
    x.warn(warnings);
    x.audit_as_is(&eviction);
    let name = object::name(&eviction);
    if name != call.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut attributes = Attributes::of_sent(&x.writer.admission, &call, Operation::Create, gvk, eviction);
    admission::sent(x.registry, &mut attributes).await?;
    let eviction = attributes.object.take().unwrap_or_default();
    let null = Value::Null;
    let mut options = DeleteOptions::parse(x.context, eviction.get("deleteOptions").unwrap_or(&null))?;
    options.dry_run |= call.options.dry_run;
    evict(x, &call, &options).await?;
    let mut status = Status::success();
    status.code = 201;
    created(x, &status.to_value())
}

async fn evict(x: &Exchange<'_>, call: &Call<'_>, options: &DeleteOptions) -> Result<(), Status> {
    // A pod without a budget's protection must still be without it when it goes.
    for _ in 0..TRIES {
        let pod = x.registry.read_required(&x.kind, &call.namespace, &call.name).await?;
        let weighed = object::resource_version(&pod).to_owned();
        if needs_no_budget(&pod) {
            let begins = pod.text("status.phase") == "Pending" && !deleting(&pod);
            let mut held = options.clone();
            if begins {
                held.resource_version.get_or_insert(weighed);
            }
            match condemn(x, call, held).await {
                Err(lost) if lost.code == 409 && options.resource_version.is_none() => continue,
                done => return done,
            }
        }
        let budget = charge(x, call, &pod, options.dry_run).await?;
        let mut held = options.clone();
        // What was weighed is what is deleted.
        held.uid.get_or_insert_with(|| object::uid(&pod).to_owned());
        if budget.is_some() {
            held.resource_version.get_or_insert(weighed);
        }
        return condemn(x, call, held).await.map_err(|error| match budget {
            Some(budget) if error.code == 409 && options.resource_version.is_none() => in_process(&budget),
            _ => error,
        });
    }
    Err(Status::conflict_modified(&x.kind.gr(), &call.name))
}

/// Says in the pod why it goes, then deletes it.
async fn condemn(x: &Exchange<'_>, call: &Call<'_>, mut options: DeleteOptions) -> Result<(), Status> {
    if !options.dry_run {
        let context =
            crate::context::Context { user: x.context.user.clone(), ..crate::context::Context::default() };
        let update = Call { context: &context, subresource: "status", seen: Seen::Already, ..call.clone() };
        let now = Timestamp::now();
        let change = |old: &Value| {
            check(&x.kind.gr(), old, &options)?;
            let mut new = old.clone();
            object::set_resource_version(&mut new, "");
            disrupt(&mut new, now);
            Ok(new)
        };
        let marked = x.writer.update(&update, &change, None).await?;
        if options.resource_version.is_some() {
            // the version asked for was the one before this mark
            options.resource_version = Some(object::resource_version(&marked.object).to_owned());
        }
    }
    let call = Call { subresource: "eviction", seen: Seen::Already, ..call.clone() };
    match x.writer.delete(&call, &options).await? {
        Deleted::Object(_) | Deleted::Status(_) => Ok(()),
    }
}

/// Refuses another pod of the name, or another state of it, than the client means.
fn check(resource: &Gr, pod: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let why = match (&options.uid, &options.resource_version) {
        (Some(uid), _) if uid != object::uid(pod) => format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            object::uid(pod)
        ),
        (_, Some(version)) if version != object::resource_version(pod) => format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). The object might have been modified",
            object::resource_version(pod)
        ),
        _ => return Ok(()),
    };
    Err(Status::conflict(resource, object::name(pod), why))
}

/// The condition `DisruptionTarget`.
fn disrupt(pod: &mut Value, now: Timestamp) {
    let conditions = list_at(pod, "status.conditions");
    let mut since = Value::from(time(now));
    if let Some(at) = conditions.iter().position(|c| c.text("type") == "DisruptionTarget") {
        let old = conditions.remove(at);
        if old.text("status") == "True" {
            since = old.get("lastTransitionTime").cloned().unwrap_or(since);
        }
    }
    conditions.push(json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastTransitionTime": since,
    }));
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
    matches!(pod.text("status.phase"), "Succeeded" | "Failed" | "Pending") || deleting(pod)
}

fn is_ready(pod: &Value) -> bool {
    pod.items("status.conditions").iter().any(|c| c.text("type") == "Ready" && c.text("status") == "True")
}

/// Takes a disruption from the pod's budget. Gives the budget's name where it did not have to, since the pod is not ready: then the pod must
/// still be so when it goes.
async fn charge(
    x: &Exchange<'_>,
    call: &Call<'_>,
    pod: &Value,
    dry_run: bool,
) -> Result<Option<String>, Status> {
    let kind = Kind::of("policy", "poddisruptionbudgets")
        .ok_or_else(|| Status::internal_error("poddisruptionbudgets are not served"))?;
    let empty = Map::new();
    let labels = object::labels(pod).unwrap_or(&empty);
    let mut budgets = Vec::new();
    for budget in x.registry.current(&kind, &call.namespace).await? {
        let selects = budget
            .present("spec.selector")
            .and_then(|s| Selector::from_label_selector(s).ok())
            .is_some_and(|s| s.matches(labels));
        if selects {
            budgets.push(budget);
        }
    }
    let budget = match budgets.as_slice() {
        [] => return Ok(None),
        [budget] => budget,
        _ => {
            let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::failure(500, Reason::Unknown, why));
        }
    };
    // An unready pod cannot make a healthy application unhealthy.
    let healthy = budget.present("status.currentHealthy").and_then(Value::as_i64).unwrap_or_default();
    let desired = budget.present("status.desiredHealthy").and_then(Value::as_i64).unwrap_or_default();
    let always = budget.text("spec.unhealthyPodEvictionPolicy") == "AlwaysAllow";
    if !is_ready(pod) && (always || (healthy >= desired && desired > 0)) {
        return Ok(Some(object::name(budget).to_owned()));
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
    x.writer.update(&update, &take, None).await.map_err(|e| {
        if e.code == 409 {
            // Too many evictions at once for one budget.
            let name = object::name(budget);
            return Status::timeout(
                format!("couldn't update PodDisruptionBudget {name:?} due to conflicts"),
                10,
            );
        }
        e
    })?;
    Ok(None)
}

const REFUSAL: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// 429: come again soon.
fn in_process(budget: &str) -> Status {
    Status::too_many_requests(REFUSAL, 10).with_cause(
        "DisruptionBudget",
        format!("The disruption budget {budget} is still being processed by the server."),
        "",
    )
}

/// Why a budget allows nothing now.
fn exhausted(budget: &Value) -> String {
    let name = object::name(budget);
    let number = |field: &str| budget.at("status").int(field).unwrap_or_default();
    let (healthy, desired) = (number("currentHealthy"), number("desiredHealthy"));
    let refusing = budget.items("status.conditions").iter().find(|c| {
        c.text("type") == "DisruptionAllowed" && c.text("status") == "False" && !c.text("message").is_empty()
    });
    let said = refusing.map(|c| (c.text("reason"), c.text("message")));
    match said {
        Some(("SyncFailed", why)) => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {why}"
        ),
        _ if healthy <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")
        }
        Some((reason, why)) => {
            format!("The disruption budget {name} does not allow evicting pods currently ({reason}): {why}")
        }
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

/// The budget's status with one disruption fewer, or 429.
fn take(budget: &Value, pod: &str, now: Timestamp) -> Result<Value, Status> {
    let name = object::name(budget);
    let number = |field: &str| budget.at("status").int(field).unwrap_or_default();
    if number("observedGeneration") < object::generation(budget) {
        return Err(in_process(name));
    }
    let allowed = number("disruptionsAllowed");
    if allowed < 0 {
        return Err(Status::forbidden(
            &Gr::new("policy", "poddisruptionbudget"),
            name,
            "pdb disruptions allowed is negative",
        ));
    }
    let disrupted = budget.present("status.disruptedPods").and_then(Value::as_object).map_or(0, Map::len);
    if disrupted > MAX_DISRUPTED {
        return Err(Status::forbidden(
            &Gr::new("policy", "poddisruptionbudget"),
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        let why = exhausted(budget);
        return Err(Status::too_many_requests(REFUSAL, 0).with_cause("DisruptionBudget", why, ""));
    }
    let mut new = budget.clone();
    object::set_resource_version(&mut new, "");
    set_at(&mut new, "status.disruptionsAllowed", allowed - 1);
    if allowed == 1 {
        let generation = number("observedGeneration");
        let stated = list_at(&mut new, "status.conditions");
        if let Some(condition) = stated.iter_mut().find(|c| c.text("type") == "DisruptionAllowed") {
            let turned = condition.text("status") != "False";
            set_at(condition, "status", "False");
            set_at(condition, "reason", "InsufficientPods");
            set_at(condition, "message", "");
            set_at(condition, "observedGeneration", generation);
            if turned {
                set_at(condition, "lastTransitionTime", time(now));
            }
        }
    }
    object_at(&mut new, "status.disruptedPods").insert(pod.to_owned(), time(now).into());
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_says_once_why_it_goes() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut pod = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        disrupt(&mut pod, at(5));
        disrupt(&mut pod, at(90));
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        assert_eq!(conditions.len(), 2);
        assert_eq!(conditions[1]["lastTransitionTime"], "1970-01-01T00:00:05Z");
        assert_eq!(conditions[1]["reason"], "EvictionByEvictionAPI");
    }

    #[test]
    fn a_budget_says_why_it_refuses() {
        let budget = |healthy, desired, conditions: Value| {
            json!({"metadata": {"name": "b"}, "status": {"currentHealthy": healthy, "desiredHealthy": desired,
                "disruptionsAllowed": 0, "conditions": conditions}})
        };
        let failed = json!([{"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "who?"}]);
        assert_eq!(
            exhausted(&budget(1, 2, failed)),
            "The disruption budget b does not allow evicting pods currently because it failed sync: who?"
        );
        assert_eq!(
            exhausted(&budget(1, 2, json!([]))),
            "The disruption budget b needs 2 healthy pods and has 1 currently"
        );
        assert_eq!(
            exhausted(&budget(3, 2, json!([]))),
            "The disruption budget b does not allow evicting pods currently"
        );
        let refused = take(&budget(1, 2, json!([])), "p", Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (429, REFUSAL));
    }

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
