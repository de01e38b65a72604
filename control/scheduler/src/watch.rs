//! The watches the scheduler lives on, each object parsed down to what scheduling reads as it arrives.

use crate::model::node::{Budget, Grouping};
use crate::model::selector::compile;
use crate::model::storage::{Class, Disk};
use crate::model::terms::Labels;
use crate::model::{NodeInfo, Pod};
use client::{Event, Identity, Source as From, mirror};
use futures::stream::{BoxStream, StreamExt, select_all};
use k8s_openapi::api::{apps::v1 as apps, core::v1 as api, policy::v1 as policy, storage::v1 as storage};
use kube::{Client, Resource, ResourceExt};
use machinery::binding::Claim;
use machinery::labels::Selector;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

/// Which watch something comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    Pods,
    Nodes,
    Namespaces,
    Claims,
    Volumes,
    Classes,
    Services,
    ReplicaSets,
    StatefulSets,
    ReplicationControllers,
    Budgets,
}

/// How many watches there are.
pub(crate) const SOURCES: usize = 11;

#[derive(Debug)]
pub(crate) enum Parsed {
    /// With the pod as the API has it, where that is kept.
    Pod(Box<Pod>, Option<Arc<Value>>),
    Node(Box<NodeInfo>, Option<Arc<Value>>),
    Namespace(Labels),
    Claim(Option<Box<Claim>>),
    Volume(Option<Box<Disk>>),
    Class(Box<Class>),
    Grouping(Box<Grouping>),
    Budget(Box<Budget>),
}

/// A change that a watch reports. Keys are `namespace/name`, or the name of a cluster-scoped object, or a pod's UID.
#[derive(Debug)]
pub(crate) enum WatchEvent {
    /// The object came or changed.
    Set(String, Parsed),
    Gone(String),
    /// The first list is complete.
    Synced,
    /// The watch failed and is tried again.
    Failed,
}

pub(crate) type Watches = BoxStream<'static, (Source, WatchEvent)>;

/// All the watches in one stream.
///
/// `whole`: pods and nodes are kept as the API has them, too.
pub(crate) fn watches(client: &Client, whole: bool) -> Watches {
    let running = From::all::<api::Pod>(client).fields("status.phase!=Succeeded,status.phase!=Failed");
    select_all([
        match whole {
            true => {
                watch(Source::Pods, running, |pod: api::Pod| Parsed::Pod(Box::new(Pod::new(&pod)), raw(&pod)))
            }
            false => {
                watch(Source::Pods, running, |pod: api::Pod| Parsed::Pod(Box::new(Pod::new(&pod)), None))
            }
        },
        match whole {
            true => all(Source::Nodes, client, |node: api::Node| {
                Parsed::Node(Box::new(NodeInfo::new(&node)), raw(&node))
            }),
            false => all(Source::Nodes, client, |node: api::Node| {
                Parsed::Node(Box::new(NodeInfo::new(&node)), None)
            }),
        },
        all(Source::Namespaces, client, |namespace: api::Namespace| {
            Parsed::Namespace(namespace.metadata.labels.unwrap_or_default())
        }),
        all(Source::Claims, client, |c: api::PersistentVolumeClaim| {
            Parsed::Claim(serde_json::to_value(&c).ok().map(|value| Box::new(Claim::new(&value))))
        }),
        all(Source::Volumes, client, |volume: api::PersistentVolume| {
            Parsed::Volume(Disk::new(&volume).map(Box::new))
        }),
        all(Source::Classes, client, |class: storage::StorageClass| {
            Parsed::Class(Box::new(Class::new(&class)))
        }),
        all(Source::Services, client, |s: api::Service| {
            let labels = s.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
            grouping(&s, "Service", Selector::from_set(labels))
        }),
        all(Source::ReplicaSets, client, |r: apps::ReplicaSet| {
            grouping(&r, "ReplicaSet", compile(r.spec.as_ref().map(|s| &s.selector)))
        }),
        all(Source::StatefulSets, client, |s: apps::StatefulSet| {
            grouping(&s, "StatefulSet", compile(s.spec.as_ref().map(|s| &s.selector)))
        }),
        all(Source::ReplicationControllers, client, |r: api::ReplicationController| {
            let labels = r.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
            grouping(&r, "ReplicationController", Selector::from_set(labels))
        }),
        all(Source::Budgets, client, |b: policy::PodDisruptionBudget| {
            let disrupted = b.status.as_ref().and_then(|s| s.disrupted_pods.clone()).unwrap_or_default();
            Parsed::Budget(Box::new(Budget {
                namespace: b.namespace().unwrap_or_default(),
                selector: compile(b.spec.as_ref().and_then(|s| s.selector.as_ref())),
                allowed: b.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0).into(),
                disrupted: disrupted.into_keys().collect(),
            }))
        }),
    ])
    .boxed()
}

fn raw(object: &impl serde::Serialize) -> Option<Arc<Value>> {
    serde_json::to_value(object).ok().map(Arc::new)
}

fn grouping(object: &impl ResourceExt, kind: &'static str, selector: Selector) -> Parsed {
    let namespace = object.namespace().unwrap_or_default();
    Parsed::Grouping(Box::new(Grouping { kind, namespace, name: object.name_any(), selector }))
}

fn all<K>(source: Source, client: &Client, parse: fn(K) -> Parsed) -> BoxStream<'static, (Source, WatchEvent)>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Send + 'static,
{
    watch(source, From::all::<K>(client), parse)
}

/// One watch. An object that cannot be read is not scheduled by, and hides no other.
fn watch<K>(source: Source, from: From, parse: fn(K) -> Parsed) -> BoxStream<'static, (Source, WatchEvent)>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Send + 'static,
{
    let seen = move |event| {
        let seen = match event {
            Event::Set(_, object) => {
                Some(WatchEvent::Set(key(source, &Identity::of(&object)), parse(object)))
            }
            Event::Gone(gone) => Some(WatchEvent::Gone(key(source, &gone))),
            Event::Synced => Some(WatchEvent::Synced),
            Event::Failed(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(?source, error, "scheduler: watch failed, trying again");
                Some(WatchEvent::Failed)
            }
            Event::Unreadable(_) => None,
        };
        std::future::ready(seen.map(|seen| (source, seen)))
    };
    mirror::<K>(from).filter_map(seen).boxed()
}

/// The key of an object of a source.
fn key(source: Source, identity: &Identity) -> String {
    match source {
        Source::Pods => identity.uid.as_ref().to_owned(),
        _ => identity.key.to_string(),
    }
}
