//! The APIService objects of what is served here: one for each version of each group, always available.
//!
//! Woken by changes of APIServices and of what definitions serve, and every minute. Makes what is missing, brings the spec of
//! what it manages back, removes those of groups that no definition serves any more, and says that they are available. Servers see
//! definitions come and go one after another: what one of them has not seen yet is read in the store before anything is made or removed.
//! Upstream: `kube-aggregator/pkg/controllers/{autoregister,status/local}`, `pkg/controlplane/apiserver/aggregator.go`.

use super::reconcile::{self, Read, Round};
use crate::registry::Served;
use crate::registry::kind::Kind;
use crate::registry::storage::unready;
use crate::write::Writer;
use machinery::access::{Get as _, set_at};
use machinery::custom::{Outline, Sketch};
use machinery::object;
use machinery::resources;
use machinery::status::Status;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Group of the resource.
pub(crate) const GROUP: &str = "apiregistration.k8s.io";
/// Of the task.
pub(super) const NAME: &str = "api-services";
/// How often all is looked at again.
pub(super) const EVERY: Duration = Duration::from_secs(60);
/// Says who made an APIService: `onstart` for what is built in, `true` for what follows a definition.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Priorities of groups: among all groups, and that of their versions from `v1` on. Upstream's numbers.
const GROUPS: &[(&str, i64)] = &[
    ("", 18000),
    ("apps", 17800),
    ("events.k8s.io", 17750),
    ("authentication.k8s.io", 17700),
    ("authorization.k8s.io", 17600),
    ("autoscaling", 17500),
    ("batch", 17400),
    ("certificates.k8s.io", 17300),
    ("networking.k8s.io", 17200),
    ("policy", 17100),
    ("rbac.authorization.k8s.io", 17000),
    ("storage.k8s.io", 16800),
    ("apiextensions.k8s.io", 16700),
    ("admissionregistration.k8s.io", 16700),
    ("scheduling.k8s.io", 16600),
    ("coordination.k8s.io", 16500),
    ("node.k8s.io", 16300),
    ("discovery.k8s.io", 16200),
    ("resource.k8s.io", 16200),
    ("flowcontrol.apiserver.k8s.io", 16100),
    ("internal.apiserver.k8s.io", 16000),
    ("storagemigration.k8s.io", 15800),
];

/// Versions whose priority is not the usual one.
const VERSIONS: &[(&str, &str, i64)] = &[
    ("", "v1", 1),
    ("autoscaling", "v2", 30),
    ("admissionregistration.k8s.io", "v1beta1", 12),
    ("coordination.k8s.io", "v1beta1", 13),
    ("coordination.k8s.io", "v1alpha2", 12),
    ("flowcontrol.apiserver.k8s.io", "v1", 21),
    ("resource.k8s.io", "v1", 21),
    ("resource.k8s.io", "v1beta2", 15),
];

fn version_priority(group: &str, version: &str) -> i64 {
    let special = VERSIONS.iter().find(|(g, v, _)| *g == group && *v == version);
    match (special, version.contains("alpha"), version.contains("beta")) {
        (Some((.., priority)), ..) => *priority,
        (None, true, _) => 1,
        (None, _, true) => 9,
        _ => 15,
    }
}

fn api_service(group: &str, version: &str, managed: &str, priorities: (i64, i64)) -> Value {
    let mut spec = json!({
        "version": version,
        "groupPriorityMinimum": priorities.0,
        "versionPriority": priorities.1,
    });
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED: managed}},
        "spec": spec,
    })
}

/// What is built in and served.
fn builtin(served: &Served) -> impl Iterator<Item = Value> {
    resources::groups().iter().flat_map(move |group| {
        group.versions.iter().filter(move |version| served.has(group.name, version)).map(move |version| {
            // A group nobody has given a priority stands behind all that have one.
            let of_group = GROUPS.iter().find(|(name, _)| *name == group.name).map_or(15000, |(_, p)| *p);
            api_service(group.name, version, "onstart", (of_group, version_priority(group.name, version)))
        })
    })
}

/// What a definition serves.
fn defined(outline: &Outline) -> impl Iterator<Item = Value> {
    let served = outline.versions.iter().filter(|version| outline.established && version.served);
    served.map(|version| api_service(outline.group, version.name, "true", (1000, 100)))
}

pub(super) fn reads() -> Option<Vec<Read>> {
    Some(vec![reconcile::all(GROUP, "apiservices")?])
}

pub(crate) fn reconcile(writer: Arc<Writer>) -> Round {
    Box::pin(async move {
        let Some(services) = Kind::of(GROUP, "apiservices") else { return Ok(()) };
        round(&writer, &services).await
    })
}

async fn round(writer: &Writer, services: &Kind) -> Result<(), Status> {
    let definitions = writer.registry.custom.all();
    let wanted: BTreeMap<String, Value> = definitions
        .iter()
        .flat_map(|serving| defined(&serving.outline))
        .chain(builtin(&writer.registry.config.served))
        .map(|service| (object::name(&service).to_owned(), service))
        .collect();
    let present: BTreeMap<String, Value> = writer
        .registry
        .cached(services, "")?
        .into_iter()
        .map(|service| (object::name(&service).to_owned(), service))
        .collect();
    let unserved = |name: &str, found: &Value| {
        let known = || builtin(&Served::default()).any(|service| object::name(&service) == name);
        object::label(found, MANAGED) == Some("onstart") && known()
    };
    let missing = wanted.iter().filter(|(name, _)| !present.contains_key(*name));
    let unwanted = present.iter().filter(|(name, _)| !wanted.contains_key(*name));
    // What follows a definition, and is to be made or to go.
    let follows = |(_, service): &(&String, &Value)| object::label(service, MANAGED) == Some("true");
    let groups = missing.clone().chain(unwanted.clone()).filter(follows);
    let groups: BTreeSet<&str> = groups.map(|(_, service)| service.text("spec.group")).collect();
    let stored = stored(writer, &groups).await?;
    for (name, service) in missing {
        // A definition that went is seen to go by one server after another.
        if !follows(&(name, service)) || stored.contains(name) {
            writer.ensure(services, service.clone()).await?;
        }
    }
    for (name, service) in &wanted {
        match present.get(name) {
            None => {}
            Some(found) if is_ours(found) && found.get("spec") != service.get("spec") => {
                let change = |old: &Value| {
                    let mut new = old.clone();
                    object::set_resource_version(&mut new, "");
                    set_at(&mut new, "spec", service.get("spec").cloned().unwrap_or_default());
                    Ok(new)
                };
                writer.amend(services, "", name, "", &change).await?;
            }
            Some(found) => make_available(writer, services, found).await?,
        }
    }
    for (name, found) in unwanted {
        // Another server may serve a definition that this one has not seen yet.
        if (follows(&(name, found)) && !stored.contains(name)) || unserved(name, found) {
            writer.discard_seen(services, found).await?;
        }
    }
    Ok(())
}

/// The names of the APIServices of what is defined in `groups`, by all that is stored when this is called: what is served here may be older.
async fn stored(writer: &Writer, groups: &BTreeSet<&str>) -> Result<BTreeSet<String>, Status> {
    let mut names = BTreeSet::new();
    let Some(kind) = Kind::of("apiextensions.k8s.io", "customresourcedefinitions") else { return Ok(names) };
    if groups.is_empty() {
        return Ok(names);
    }
    let newest = writer.registry.cache(&kind)?.newest().await;
    let snapshot = newest.map_err(|error| unready(&kind, &error))?;
    for object in snapshot.range(&kind.resource.key_prefix, None) {
        let Some((_, group)) = object.name.split_once('.') else { continue };
        let sketch = groups.contains(group).then(|| Sketch::read(&object.bytes));
        let Some(Ok(sketch)) = sketch else { continue };
        let served = sketch.crd.items("spec.versions").iter().filter(|version| version.flag("served"));
        names.extend(served.map(|version| format!("{}.{group}", version.text("name"))));
    }
    Ok(names)
}

fn is_ours(service: &Value) -> bool {
    object::label(service, MANAGED).is_some()
}

/// The condition of what is served here.
pub(crate) fn available(status: &str, reason: &str, message: &str) -> Value {
    json!({"type": "Available", "status": status, "reason": reason, "message": message})
}

async fn make_available(writer: &Writer, services: &Kind, service: &Value) -> Result<(), Status> {
    if service.present("spec.service").is_some() {
        return Ok(());
    }
    let wanted = available("True", "Local", "Local APIServices are always available");
    reconcile::say(writer, services, service, &wanted).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_group_comes_first_and_stable_versions_before_others() {
        let all: Vec<Value> = builtin(&Served::default()).collect();
        let of = |name: &str| {
            let found = all.iter().find(|s| s["metadata"]["name"] == name).unwrap();
            (found["spec"]["groupPriorityMinimum"].clone(), found["spec"]["versionPriority"].clone())
        };
        assert_eq!(of("v1."), (json!(18000), json!(1)));
        assert_eq!(of("v1.apps"), (json!(17800), json!(15)));
        assert_eq!(of("v2.autoscaling"), (json!(17500), json!(30)));
        assert_eq!(of("v1beta1.storagemigration.k8s.io"), (json!(15800), json!(9)));
        assert!(all[0]["spec"].get("group").is_none());
    }

    #[test]
    fn definitions_count_once_they_are_established() {
        let names = json!({"plural": "as", "singular": "a", "kind": "A", "listKind": "AList"});
        let of = |established: &str| {
            let definition = json!({"metadata": {"name": "as.g.io"}, "spec": {"group": "g.io", "versions": [
                {"name": "v1", "served": true, "storage": true}, {"name": "v0", "served": false}]},
                "status": {"acceptedNames": names, "conditions": [{"type": "NamesAccepted", "status": "True"},
                    {"type": "Established", "status": established}]}});
            let sketch = Sketch::read(definition.to_string().as_bytes()).unwrap();
            let outline = Outline::of(&sketch, &sketch.crd).unwrap();
            defined(&outline).map(|s| object::name(&s).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(of("False"), Vec::<String>::new());
        assert_eq!(of("True"), ["v1.g.io"]);
    }
}
