//! The watches the scheduler lives on, each object parsed down to what scheduling reads as it arrives.

use crate::model::node::{Budget, Grouping};
use crate::model::selector::compile;
use crate::model::storage::{Class, Disk};
use crate::model::terms::Labels;
use crate::model::{NodeInfo, Pod};
use futures::stream::{BoxStream, StreamExt, select_all};
use k8s_openapi::api::{apps::v1 as apps, core::v1 as api, policy::v1 as policy, storage::v1 as storage};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use machinery::binding::Claim;
use machinery::labels::Selector;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

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

/// An object, parsed.
#[derive(Debug)]
pub(crate) enum Parsed {
    Pod(Box<Pod>),
    Node(Box<NodeInfo>),
    Namespace(Labels),
    Claim(Option<Box<Claim>>),
    Volume(Option<Box<Disk>>),
    Class(Box<Class>),
    Grouping(Box<Grouping>),
    Budget(Box<Budget>),
}

/// What a watch says. Keys are `namespace/name`, or the name of a cluster-scoped object, or a pod's UID.
#[derive(Debug)]
pub(crate) enum Seen {
    /// The object came or changed.
    Set(String, Parsed),
    /// It is gone.
    Gone(String),
    /// These are all there are.
    All(Vec<(String, Parsed)>),
    /// The watch failed and is tried again.
    Failed,
}

pub(crate) type Watches = BoxStream<'static, (Source, Seen)>;

/// All the watches in one stream.
pub(crate) fn watches(client: &Client) -> Watches {
    let running = "status.phase!=Succeeded,status.phase!=Failed";
    let any = watcher::Config::default;
    select_all([
        watch(Source::Pods, client, any().fields(running), |pod: api::Pod| {
            (pod.uid().unwrap_or_default(), Parsed::Pod(Box::new(Pod::new(&pod))))
        }),
        watch(Source::Nodes, client, any(), |node: api::Node| {
            (node.name_any(), Parsed::Node(Box::new(NodeInfo::new(&node))))
        }),
        watch(Source::Namespaces, client, any(), |namespace: api::Namespace| {
            (namespace.name_any(), Parsed::Namespace(namespace.metadata.labels.unwrap_or_default()))
        }),
        watch(Source::Claims, client, any(), |c: api::PersistentVolumeClaim| {
            let claim = serde_json::to_value(&c).ok().map(|value| Box::new(Claim::new(&value)));
            (key(&c), Parsed::Claim(claim))
        }),
        watch(Source::Volumes, client, any(), |volume: api::PersistentVolume| {
            (volume.name_any(), Parsed::Volume(Disk::new(&volume).map(Box::new)))
        }),
        watch(Source::Classes, client, any(), |class: storage::StorageClass| {
            (class.name_any(), Parsed::Class(Box::new(Class::new(&class))))
        }),
        watch(Source::Services, client, any(), |s: api::Service| {
            let labels = s.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
            grouping(&s, "Service", Selector::from_set(labels))
        }),
        watch(Source::ReplicaSets, client, any(), |r: apps::ReplicaSet| {
            grouping(&r, "ReplicaSet", compile(r.spec.as_ref().map(|s| &s.selector)))
        }),
        watch(Source::StatefulSets, client, any(), |s: apps::StatefulSet| {
            grouping(&s, "StatefulSet", compile(s.spec.as_ref().map(|s| &s.selector)))
        }),
        watch(Source::ReplicationControllers, client, any(), |r: api::ReplicationController| {
            let labels = r.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
            grouping(&r, "ReplicationController", Selector::from_set(labels))
        }),
        watch(Source::Budgets, client, any(), |b: policy::PodDisruptionBudget| {
            let disrupted = b.status.as_ref().and_then(|s| s.disrupted_pods.clone()).unwrap_or_default();
            let budget = Budget {
                namespace: b.namespace().unwrap_or_default(),
                selector: compile(b.spec.as_ref().and_then(|s| s.selector.as_ref())),
                allowed: b.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0).into(),
                disrupted: disrupted.into_keys().collect(),
            };
            (key(&b), Parsed::Budget(Box::new(budget)))
        }),
    ])
    .boxed()
}

fn key(object: &impl ResourceExt) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

fn grouping(object: &impl ResourceExt, kind: &'static str, selector: Selector) -> (String, Parsed) {
    let namespace = object.namespace().unwrap_or_default();
    let grouping = Grouping { kind, namespace, name: object.name_any(), selector };
    (key(object), Parsed::Grouping(Box::new(grouping)))
}

/// One watch with upstream's retry; a relist is gathered and given as a whole.
fn watch<K>(
    source: Source,
    client: &Client,
    config: watcher::Config,
    parse: fn(K) -> (String, Parsed),
) -> BoxStream<'static, (Source, Seen)>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut listed = Vec::new();
    watcher(Api::all(client.clone()), config)
        .default_backoff()
        .filter_map(move |event| {
            let seen = match event {
                Ok(watcher::Event::Apply(object)) => {
                    let (key, parsed) = parse(object);
                    Some(Seen::Set(key, parsed))
                }
                Ok(watcher::Event::Delete(object)) => Some(Seen::Gone(parse(object).0)),
                Ok(watcher::Event::Init) => {
                    listed.clear();
                    None
                }
                Ok(watcher::Event::InitApply(object)) => {
                    listed.push(parse(object));
                    None
                }
                Ok(watcher::Event::InitDone) => Some(Seen::All(std::mem::take(&mut listed))),
                Err(error) => {
                    tracing::warn!(?source, %error, "scheduler: watch failed, trying again");
                    Some(Seen::Failed)
                }
            };
            std::future::ready(seen.map(|s| (source, s)))
        })
        .boxed()
}
