//! LimitRanger: a namespace's limit ranges fill in and bound what pods and claims ask for.

use super::{Attributes, Operation, Verdict};
use crate::registry::Registry;
use crate::registry::kind::Kind;
use machinery::access::{Get as _, list_at, object_at};
use machinery::quantity::Quantity;
use machinery::status::Status;
use machinery::totals::{Amounts, Asks, Resize, Side, amounts as parse};
use serde_json::Value;

/// Tells what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn applies(a: &Attributes<'_>) -> bool {
    // what is on its way out is left alone
    if a.old_object().present("metadata.deletionTimestamp").is_some() {
        return false;
    }
    match a.operation {
        Operation::Create => a.is("", "pods", "") || a.is("", "persistentvolumeclaims", ""),
        // The requirements of a pod do not change by an update of the pod itself.
        Operation::Update => a.is("", "persistentvolumeclaims", "") || a.is("", "pods", "resize"),
        _ => false,
    }
}

async fn ranges(registry: &Registry, a: &Attributes<'_>) -> Result<Vec<Value>, Status> {
    match Kind::of("", "limitranges") {
        Some(kind) => registry.current(&kind, &a.namespace).await,
        None => Ok(Vec::new()),
    }
}

fn amounts(value: &Value, path: &str) -> Amounts {
    parse(value.at(path))
}

pub(super) fn default<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if !applies(a) || !a.kind.is("", "pods") {
            return Ok(());
        }
        let ranges = ranges(registry, a).await?;
        let Some(pod) = &mut a.object else { return Ok(()) };
        for range in &ranges {
            let mut defaulted = Vec::new();
            for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
                if pod.at("spec").items(list).is_empty() {
                    continue;
                }
                for container in list_at(pod, &format!("spec.{list}")) {
                    defaulted.extend(fill(container, what, range));
                }
            }
            if !defaulted.is_empty() {
                let note = format!("LimitRanger plugin set: {}", defaulted.join("; "));
                object_at(pod, "metadata.annotations").insert(ANNOTATION.to_owned(), note.into());
            }
        }
        Ok(())
    })
}

/// Fills in what a container leaves open, requests and limits each from their own defaults, and says what it filled in.
fn fill(container: &mut Value, what: &str, range: &Value) -> Vec<String> {
    let name = container.text("name").to_owned();
    let mut defaulted = Vec::new();
    for (from, to, word) in [("defaultRequest", "requests", "request"), ("default", "limits", "limit")] {
        let of_containers = range.items("spec.limits").iter().filter(|l| l.text("type") == "Container");
        let defaults: std::collections::BTreeMap<&str, &str> =
            of_containers.flat_map(|limit| limit.texts(from)).collect();
        let mut filled = Vec::new();
        for (resource, amount) in defaults {
            if container.at("resources").at(to).get(resource).is_none_or(Value::is_null) {
                object_at(container, &format!("resources.{to}")).insert(resource.to_owned(), amount.into());
                filled.push(resource);
            }
        }
        if !filled.is_empty() {
            defaulted.push(format!("{} {word} for {what} {name}", filled.join(", ")));
        }
    }
    defaulted
}

pub(super) fn check<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if !applies(a) {
            return Ok(());
        }
        let object = a.new_object();
        for range in ranges(registry, a).await? {
            let mut problems = Vec::new();
            for limit in range.items("spec.limits") {
                match (limit.text("type"), a.kind.resource.plural) {
                    ("Container", "pods") => {
                        for list in ["containers", "initContainers"] {
                            for container in object.at("spec").items(list) {
                                let requests = amounts(container, "resources.requests");
                                let limits = amounts(container, "resources.limits");
                                bounds("Container", limit, &requests, &limits, &mut problems);
                            }
                        }
                    }
                    ("Pod", "pods") => {
                        let requests = Asks::read(object, Side::Requests, Resize::Ignored).stated();
                        let limits = Asks::read(object, Side::Limits, Resize::Ignored).stated();
                        bounds("Pod", limit, &requests, &limits, &mut problems);
                    }
                    ("PersistentVolumeClaim", "persistentvolumeclaims") => {
                        let requests = amounts(object, "spec.resources.requests");
                        claim_bounds(limit, &requests, &mut problems);
                    }
                    _ => {}
                }
            }
            let mut seen = std::collections::BTreeSet::new();
            problems.retain(|problem| seen.insert(problem.clone()));
            match problems.as_slice() {
                [] => {}
                [one] => return Err(a.forbidden(one)),
                all => return Err(a.forbidden(format!("[{}]", all.join(", ")))),
            }
        }
        Ok(())
    })
}

fn bounds(what: &str, limit: &Value, requests: &Amounts, limits: &Amounts, problems: &mut Vec<String>) {
    for (resource, min) in amounts(limit, "min") {
        let bound = min.canonical();
        match (requests.get(&resource), limits.get(&resource)) {
            (None, _) => problems
                .push(format!("minimum {resource} usage per {what} is {bound}.  No request is specified")),
            (Some(request), _) if *request < min => problems.push(format!(
                "minimum {resource} usage per {what} is {bound}, but request is {}",
                request.canonical()
            )),
            (_, Some(l)) if *l < min => problems.push(format!(
                "minimum {resource} usage per {what} is {bound}, but limit is {}",
                l.canonical()
            )),
            _ => {}
        }
    }
    for (resource, max) in amounts(limit, "max") {
        let bound = max.canonical();
        match (requests.get(&resource), limits.get(&resource)) {
            (_, None) => {
                problems
                    .push(format!("maximum {resource} usage per {what} is {bound}.  No limit is specified"));
            }
            (_, Some(l)) if *l > max => problems.push(format!(
                "maximum {resource} usage per {what} is {bound}, but limit is {}",
                l.canonical()
            )),
            (Some(request), _) if *request > max => problems.push(format!(
                "maximum {resource} usage per {what} is {bound}, but request is {}",
                request.canonical()
            )),
            _ => {}
        }
    }
    for (resource, ratio) in amounts(limit, "maxLimitRequestRatio") {
        let stated =
            |list: &Amounts| list.get(&resource).filter(|amount| !amount.is_zero()).map(Quantity::as_f64);
        let bound = ratio.canonical();
        let rule = format!("{resource} max limit to request ratio per {what} is {bound}");
        match (stated(requests), stated(limits)) {
            (None, _) => problems.push(format!("{rule}, but no request is specified or request is 0")),
            (_, None) => problems.push(format!("{rule}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) if limit / request > ratio.as_f64() => {
                problems.push(format!("{rule}, but provided ratio is {:.6}", limit / request));
            }
            _ => {}
        }
    }
}

fn claim_bounds(limit: &Value, requests: &Amounts, problems: &mut Vec<String>) {
    let what = "PersistentVolumeClaim";
    for (resource, min) in amounts(limit, "min") {
        match requests.get(&resource) {
            None => problems.push(format!(
                "minimum {resource} usage per {what} is {}.  No request is specified",
                min.canonical()
            )),
            Some(r) if *r < min => problems.push(format!(
                "minimum {resource} usage per {what} is {}, but request is {}",
                min.canonical(),
                r.canonical()
            )),
            _ => {}
        }
    }
    for (resource, max) in amounts(limit, "max") {
        let bound = max.canonical();
        match requests.get(&resource) {
            None => problems
                .push(format!("maximum {resource} usage per {what} is {bound}.  No request is specified")),
            Some(r) if *r > max => problems.push(format!(
                "maximum {resource} usage per {what} is {bound}, but request is {}",
                r.canonical()
            )),
            Some(_) => {}
        }
    }
}
