//! ResourceQuota: a create (or a growth) is charged to every quota of its namespace that counts it.
//!
//! The charge is a compare-and-swap of the quota's status, so writes at once cannot together pass its hard limit. A charge
//! whose write then fails is corrected by the quota controller's recount, as upstream. Counted here: objects of any kind
//! (`count/*` and the old short names), pods' requests and limits, claims' storage, services by type.

use super::{Attributes, Operation, Verdict};
use crate::context::Context;
use crate::registry::Registry;
use crate::registry::create::Call;
use crate::registry::kind::Kind;
use crate::registry::metadata::{at, items, object_mut, set, text, texts};
use machinery::object;
use machinery::quantity::{Format, Quantity};
use machinery::status::Status;
use serde_json::Value;
use std::collections::BTreeMap;

type Amounts = BTreeMap<String, Quantity>;

/// Kinds that are also counted by their plain plural.
const COUNTED: &[&str] = &[
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
];

fn one() -> Quantity {
    Quantity::new(1, Format::DecimalSi)
}

fn add(to: &mut Amounts, name: impl Into<String>, amount: &Quantity) {
    let name = name.into();
    let sum = to.get(&name).map_or_else(|| amount.clone(), |present| present.add(amount));
    to.insert(name, sum);
}

fn ended(pod: &Value) -> bool {
    matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed")
}

/// What one object uses.
fn usage(kind: &Kind, object: &Value) -> Amounts {
    let mut used = Amounts::new();
    if object.is_null() {
        return used;
    }
    let (group, plural) = (kind.resource.group, kind.resource.plural);
    let name = if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") };
    add(&mut used, name, &one());
    if !group.is_empty() {
        return used;
    }
    if COUNTED.contains(&plural) && !(plural == "pods" && ended(object)) {
        add(&mut used, plural, &one());
    }
    match plural {
        "pods" if !ended(object) => pod_usage(object, &mut used),
        "services" => service_usage(object, &mut used),
        "persistentvolumeclaims" => {
            let size = at(object, &["spec", "resources", "requests", "storage"]).and_then(Value::as_str);
            if let Some(size) = size.and_then(|s| Quantity::parse(s).ok()) {
                add(&mut used, "requests.storage", &size);
                let class = text(object, &["spec", "storageClassName"]);
                if !class.is_empty() {
                    let prefix = format!("{class}.storageclass.storage.k8s.io");
                    add(&mut used, format!("{prefix}/requests.storage"), &size);
                    add(&mut used, format!("{prefix}/persistentvolumeclaims"), &one());
                }
            }
        }
        _ => {}
    }
    used
}

fn pod_usage(pod: &Value, used: &mut Amounts) {
    for (which, prefix) in [("requests", "requests."), ("limits", "limits.")] {
        let mut sum = Amounts::new();
        let of = |c: &Value| -> Amounts {
            texts(c, &["resources", which])
                .filter_map(|(k, v)| Some((k.to_owned(), Quantity::parse(v).ok()?)))
                .collect()
        };
        for container in items(pod, &["spec", "containers"]) {
            of(container).iter().for_each(|(k, v)| add(&mut sum, k.as_str(), v));
        }
        for container in items(pod, &["spec", "initContainers"]) {
            for (k, v) in of(container) {
                if sum.get(&k).is_none_or(|s| *s < v) {
                    sum.insert(k, v);
                }
            }
        }
        for (k, v) in texts(pod, &["spec", "overhead"]) {
            if let Ok(v) = Quantity::parse(v) {
                add(&mut sum, k, &v);
            }
        }
        for (resource, amount) in sum {
            add(used, format!("{prefix}{resource}"), &amount);
            let plain = matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage");
            if which == "requests" && (plain || resource.starts_with("hugepages-")) {
                add(used, resource, &amount);
            }
        }
    }
}

fn service_usage(service: &Value, used: &mut Amounts) {
    let ports = items(service, &["spec", "ports"]).len();
    let node_ports =
        |count: usize| Quantity::new(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi);
    match text(service, &["spec", "type"]) {
        "NodePort" => add(used, "services.nodeports", &node_ports(ports)),
        "LoadBalancer" => {
            add(used, "services.loadbalancers", &one());
            if at(service, &["spec", "allocateLoadBalancerNodePorts"]) == Some(&Value::Bool(false)) {
                let explicit =
                    items(service, &["spec", "ports"]).iter().filter(|p| p.get("nodePort").is_some());
                add(used, "services.nodeports", &node_ports(explicit.count()));
            } else {
                add(used, "services.nodeports", &node_ports(ports));
            }
        }
        _ => {}
    }
}

fn best_effort(pod: &Value) -> bool {
    ["containers", "initContainers"].iter().flat_map(|l| items(pod, &["spec", l])).all(|c| {
        ["requests", "limits"]
            .iter()
            .all(|w| texts(c, &["resources", w]).all(|(k, _)| k != "cpu" && k != "memory"))
    })
}

/// Does the scope hold this object? Scopes are about pods (and claims' attributes, which nobody sets here).
fn in_scope(kind: &Kind, object: &Value, scope: &str, operator: &str, values: &[Value]) -> bool {
    if !kind.is("", "pods") {
        return false;
    }
    match scope {
        "Terminating" => at(object, &["spec", "activeDeadlineSeconds"]).is_some(),
        "NotTerminating" => at(object, &["spec", "activeDeadlineSeconds"]).is_none(),
        "BestEffort" => best_effort(object),
        "NotBestEffort" => !best_effort(object),
        "PriorityClass" => {
            let class = text(object, &["spec", "priorityClassName"]);
            let listed = values.iter().any(|v| v.as_str() == Some(class));
            match operator {
                "In" => listed,
                "NotIn" => !listed,
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        _ => false,
    }
}

fn scoped(kind: &Kind, quota: &Value, object: &Value) -> bool {
    let plain = items(quota, &["spec", "scopes"]).iter().filter_map(Value::as_str);
    let mut plain = plain.map(|s| in_scope(kind, object, s, "Exists", &[]));
    let mut selected = items(quota, &["spec", "scopeSelector", "matchExpressions"]).iter().map(|e| {
        in_scope(kind, object, text(e, &["scopeName"]), text(e, &["operator"]), items(e, &["values"]))
    });
    plain.all(|s| s) && selected.all(|s| s)
}

fn hard(quota: &Value) -> Amounts {
    texts(quota, &["status", "hard"])
        .filter_map(|(k, v)| Some((k.to_owned(), Quantity::parse(v).ok()?)))
        .collect()
}

pub(super) fn charge<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if !a.kind.resource.namespaced || !a.subresource.is_empty() || a.operation == Operation::Delete {
            return Ok(());
        }
        let Some(quotas) = Kind::of("", "resourcequotas") else { return Ok(()) };
        let mut growth = Amounts::new();
        let before = usage(&a.kind, a.old_object());
        for (name, after) in usage(&a.kind, a.new_object()) {
            let delta = before.get(&name).map_or_else(|| after.clone(), |b| after.sub(b));
            if a.operation == Operation::Create || delta.sign() > 0 {
                growth.insert(name, delta);
            }
        }
        if growth.is_empty() {
            return Ok(());
        }
        for quota in registry.current(&quotas, &a.namespace).await? {
            if !scoped(&a.kind, &quota, a.new_object()) {
                continue;
            }
            demand_stated(a, &quota)?;
            let hard = hard(&quota);
            if !growth.keys().any(|k| hard.contains_key(k)) {
                continue;
            }
            take(registry, a, &quotas, object::name(&quota), &growth).await?;
        }
        Ok(())
    })
}

/// A quota on cpu or memory demands that every container states what it asks for.
fn demand_stated(a: &Attributes<'_>, quota: &Value) -> Result<(), Status> {
    if !a.kind.is("", "pods") || a.operation != Operation::Create {
        return Ok(());
    }
    let used = usage(&a.kind, a.new_object());
    let compute = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
    let constrained: Vec<&str> =
        compute.into_iter().filter(|c| texts(quota, &["status", "hard"]).any(|(k, _)| k == *c)).collect();
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for resource in constrained {
        let (list, plain) = match resource.split_once('.') {
            Some((list, plain)) => (list, plain),
            None => ("requests", resource),
        };
        for container in
            ["containers", "initContainers"].iter().flat_map(|l| items(a.new_object(), &["spec", l]))
        {
            if at(container, &["resources", list, plain]).is_none() {
                missing.entry(resource).or_default().push(text(container, &["name"]));
            }
        }
    }
    if missing.is_empty() || used.is_empty() {
        return Ok(());
    }
    let text: Vec<String> = missing.iter().map(|(r, c)| format!("{r} for: {}", c.join(","))).collect();
    Err(a.forbidden(format!("failed quota: {}: must specify {}", object::name(quota), text.join("; "))))
}

async fn take(
    registry: &Registry,
    a: &Attributes<'_>,
    quotas: &Kind,
    name: &str,
    growth: &Amounts,
) -> Result<(), Status> {
    let context = Context { user: a.user.clone(), ..Context::default() };
    let options = crate::registry::options::WriteOptions { dry_run: a.dry_run, ..Default::default() };
    let call = Call {
        context: &context,
        kind: *quotas,
        namespace: a.namespace.clone(),
        name: name.to_owned(),
        subresource: "status",
        options,
        warnings: a.warnings.clone(),
    };
    let change = |old: &Value| {
        let hard = hard(old);
        let mut new = old.clone();
        object::set_resource_version(&mut new, "");
        let (mut over_asked, mut over_used, mut over_hard) = (Vec::new(), Vec::new(), Vec::new());
        for (resource, amount) in growth {
            let Some(limit) = hard.get(resource) else { continue };
            let used = at(old, &["status", "used", resource])
                .and_then(Value::as_str)
                .and_then(|q| Quantity::parse(q).ok())
                .unwrap_or_else(|| Quantity::new(0, Format::DecimalSi));
            let sum = used.add(amount);
            if sum > *limit {
                over_asked.push(format!("{resource}={}", amount.canonical()));
                over_used.push(format!("{resource}={}", used.canonical()));
                over_hard.push(format!("{resource}={}", limit.canonical()));
            }
            object_mut(&mut new, &["status", "used"]).insert(resource.clone(), sum.canonical().into());
        }
        if !over_asked.is_empty() {
            return Err(a.forbidden(format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                over_asked.join(","),
                over_used.join(","),
                over_hard.join(",")
            )));
        }
        set(&mut new, &["metadata", "name"], name);
        Ok(new)
    };
    // Boxed: this write passes admission itself (where quotas are not charged for their own status).
    match Box::pin(registry.update(&call, &change, None)).await {
        Ok(_) => Ok(()),
        // The quota went while it was charged.
        Err(e) if e.code == 404 => Ok(()),
        Err(e) => Err(e),
    }
}
