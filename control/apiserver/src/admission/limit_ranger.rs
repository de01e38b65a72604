//! LimitRanger: a namespace's limit ranges fill in and bound what pods and claims ask for.

use super::{Attributes, Operation, Verdict};
use crate::registry::Registry;
use crate::registry::kind::Kind;
use crate::registry::metadata::{at, items, list_mut, object_mut, text, texts};
use machinery::quantity::{Format, Quantity};
use machinery::status::Status;
use serde_json::Value;
use std::collections::BTreeMap;

type Amounts = BTreeMap<String, Quantity>;

fn applies(a: &Attributes<'_>) -> bool {
    match a.operation {
        Operation::Create => a.is("", "pods", "") || a.is("", "persistentvolumeclaims", ""),
        // The requirements of a pod do not change by an update of the pod itself.
        Operation::Update => a.is("", "persistentvolumeclaims", "") || a.is("", "pods", "resize"),
        Operation::Delete => false,
    }
}

async fn ranges(registry: &Registry, a: &Attributes<'_>) -> Result<Vec<Value>, Status> {
    match Kind::of("", "limitranges") {
        Some(kind) => registry.current(&kind, &a.namespace).await,
        None => Ok(Vec::new()),
    }
}

fn amounts(value: &Value, path: &[&str]) -> Amounts {
    texts(value, path).filter_map(|(k, v)| Some((k.to_owned(), Quantity::parse(v).ok()?))).collect()
}

pub(super) fn default<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if !applies(a) || a.operation != Operation::Create || !a.kind.is("", "pods") {
            return Ok(());
        }
        let ranges = ranges(registry, a).await?;
        let Some(pod) = &mut a.object else { return Ok(()) };
        for range in &ranges {
            for limit in
                items(range, &["spec", "limits"]).iter().filter(|l| text(l, &["type"]) == "Container")
            {
                for list in ["initContainers", "containers"] {
                    if items(pod, &["spec", list]).is_empty() {
                        continue;
                    }
                    for container in list_mut(pod, &["spec", list]) {
                        fill(container, limit);
                    }
                }
            }
        }
        Ok(())
    })
}

/// Limits first; a request that is still open is the limit's own default or, failing that, the container's limit.
fn fill(container: &mut Value, limit: &Value) {
    for (from, to) in [("default", "limits"), ("defaultRequest", "requests")] {
        let defaults: Vec<(String, String)> =
            texts(limit, &[from]).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        for (resource, amount) in defaults {
            let present = at(container, &["resources", to, &resource]).is_some();
            if !present {
                object_mut(container, &["resources", to]).insert(resource, amount.into());
            }
        }
    }
}

pub(super) fn check<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if !applies(a) {
            return Ok(());
        }
        let mut problems = Vec::new();
        for range in ranges(registry, a).await? {
            for limit in items(&range, &["spec", "limits"]) {
                let object = a.new_object();
                match (text(limit, &["type"]), a.kind.resource.plural) {
                    ("Container", "pods") => {
                        for list in ["containers", "initContainers"] {
                            for container in items(object, &["spec", list]) {
                                let requests = amounts(container, &["resources", "requests"]);
                                let limits = amounts(container, &["resources", "limits"]);
                                bounds("Container", limit, &requests, &limits, &mut problems);
                            }
                        }
                    }
                    ("Pod", "pods") => {
                        let (requests, limits) = (pod_sum(object, "requests"), pod_sum(object, "limits"));
                        bounds("Pod", limit, &requests, &limits, &mut problems);
                    }
                    ("PersistentVolumeClaim", "persistentvolumeclaims") => {
                        let requests = amounts(object, &["spec", "resources", "requests"]);
                        claim_bounds(limit, &requests, &mut problems);
                    }
                    _ => {}
                }
            }
        }
        match problems.as_slice() {
            [] => Ok(()),
            [one] => Err(a.forbidden(one)),
            all => Err(a.forbidden(format!("[{}]", all.join(", ")))),
        }
    })
}

/// What a pod as a whole asks for: its containers together, or its largest init container.
fn pod_sum(pod: &Value, which: &str) -> Amounts {
    let mut sum = Amounts::new();
    for container in items(pod, &["spec", "containers"]) {
        for (resource, amount) in amounts(container, &["resources", which]) {
            let so_far = sum.remove(&resource).unwrap_or_else(|| Quantity::new(0, Format::DecimalSi));
            sum.insert(resource, so_far.add(&amount));
        }
    }
    for container in items(pod, &["spec", "initContainers"]) {
        for (resource, amount) in amounts(container, &["resources", which]) {
            match sum.get(&resource) {
                Some(present) if *present >= amount => {}
                _ => {
                    sum.insert(resource, amount);
                }
            }
        }
    }
    sum
}

fn bounds(what: &str, limit: &Value, requests: &Amounts, limits: &Amounts, problems: &mut Vec<String>) {
    for (resource, min) in amounts(limit, &["min"]) {
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
    for (resource, max) in amounts(limit, &["max"]) {
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
    for (resource, ratio) in amounts(limit, &["maxLimitRequestRatio"]) {
        match (requests.get(&resource), limits.get(&resource)) {
            (Some(request), Some(l)) if !request.is_zero() => {
                let observed = l.as_f64() / request.as_f64();
                if observed > ratio.as_f64() {
                    problems.push(format!(
                        "{resource} max limit to request ratio per {what} is {}, but provided ratio is {observed:.6}",
                        ratio.canonical()
                    ));
                }
            }
            (None, _) => problems.push(format!(
                "{resource} max limit to request ratio per {what} is {}, but no request is specified or request is 0",
                ratio.canonical()
            )),
            (_, None) => problems.push(format!(
                "{resource} max limit to request ratio per {what} is {}, but no limit is specified or limit is 0",
                ratio.canonical()
            )),
            _ => {}
        }
    }
}

fn claim_bounds(limit: &Value, requests: &Amounts, problems: &mut Vec<String>) {
    let what = "PersistentVolumeClaim";
    for (resource, min) in amounts(limit, &["min"]) {
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
    for (resource, max) in amounts(limit, &["max"]) {
        if let Some(r) = requests.get(&resource).filter(|r| **r > max) {
            problems.push(format!(
                "maximum {resource} usage per {what} is {}, but request is {}",
                max.canonical(),
                r.canonical()
            ));
        }
    }
}
