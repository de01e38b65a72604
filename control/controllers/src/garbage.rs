//! The garbage collector: objects go when their last owner is gone, owners wait for (foreground) or let go of (orphan) their dependents.
//!
//! Woken by: a change of any object's metadata (one metadata-only watch a kind, found by discovery, custom resources included). Reads: the
//! graph these watches build; the API server when an owner is not in it. Writes: deletions, owner references, the finalizers
//! `foregroundDeletion` and `orphan`. Promises: nothing is deleted for an owner that was not seen missing on the API server itself, and
//! never by name alone (uid and resourceVersion are preconditions).

mod graph;

use crate::inventory::Inventory;
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, code, found, spawn};
use futures::TryStreamExt;
use graph::{Graph, Node, Owner};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, PartialObjectMeta, Patch, PatchParams, Preconditions,
    PropagationPolicy,
};
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often new kinds are looked for (upstream's resync period).
const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);
/// How long an owner that was not found is known to be absent: uids never come back, but memory is bounded by it.
const ABSENT_FOR: Duration = Duration::from_secs(60);
/// Kinds that nobody owns and nobody should watch.
const IGNORED: [(&str, &str); 2] = [("", "Event"), ("events.k8s.io", "Event")];

type GroupKind = (String, String);

#[derive(Clone)]
struct Known {
    resource: ApiResource,
    namespaced: bool,
}

struct Collector {
    client: Client,
    graph: Mutex<Graph>,
    kinds: Mutex<HashMap<GroupKind, Known>>,
    absent: Mutex<HashMap<String, Instant>>,
    inventory: Arc<Inventory>,
}

/// Runs until cancelled. What it finds of kinds goes into `inventory`.
pub async fn run(client: Client, inventory: Arc<Inventory>, shutdown: CancellationToken) {
    let queue = Arc::new(Queue::default());
    let collector = Arc::new(Collector {
        client,
        graph: Mutex::default(),
        kinds: Mutex::default(),
        absent: Mutex::default(),
        inventory,
    });
    let mut tasks = JoinSet::new();
    spawn(&mut tasks, &queue, collector.clone(), 8, &shutdown);
    loop {
        match collector.new_kinds().await {
            Ok(kinds) => {
                for known in kinds {
                    tasks.spawn(watch(collector.clone(), queue.clone(), known, shutdown.clone()));
                }
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "discovery failed; tried again")
            }
        }
        let now = Instant::now();
        collector.absent.lock().retain(|_, since| now.duration_since(*since) < ABSENT_FOR);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(DISCOVERY_PERIOD) => {}
        }
    }
}

async fn watch(collector: Arc<Collector>, queue: Arc<Queue>, known: Known, shutdown: CancellationToken) {
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(collector.client.clone(), &known.resource);
    let kind = (known.resource.group.clone(), known.resource.kind.clone());
    let stream = watcher::watcher(api, watcher::Config::default()).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut listing = HashSet::new();
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = stream.try_next() => event,
        };
        let woken = match event {
            Ok(Some(Event::Init)) => {
                listing.clear();
                continue;
            }
            Ok(Some(Event::InitApply(object))) => {
                listing.insert(object.uid().unwrap_or_default());
                collector.graph.lock().observe(node(&kind, &object))
            }
            Ok(Some(Event::InitDone)) => {
                collector.inventory.gone(&known.resource, "");
                collector.graph.lock().keep_only(&kind, &std::mem::take(&mut listing))
            }
            Ok(Some(Event::Apply(object))) => collector.graph.lock().observe(node(&kind, &object)),
            Ok(Some(Event::Delete(object))) => {
                let namespace = object.metadata.namespace.as_deref();
                namespace.inspect(|namespace| collector.inventory.gone(&known.resource, namespace));
                collector.graph.lock().remove(&object.uid().unwrap_or_default())
            }
            // the kind went away: its custom resource definition was deleted
            Err(watcher::Error::InitialListFailed(error)) if code(&error) == Some(404) => {
                let woken = collector.graph.lock().keep_only(&kind, &HashSet::new());
                collector.kinds.lock().remove(&kind);
                collector.inventory.forget(&known.resource);
                woken.into_iter().for_each(|uid| queue.add(Key::new("", &uid)));
                return;
            }
            Err(_) => continue,
            Ok(None) => return,
        };
        woken.into_iter().for_each(|uid| queue.add(Key::new("", &uid)));
    }
}

fn node(kind: &GroupKind, object: &PartialObjectMeta<DynamicObject>) -> Node {
    let meta = &object.metadata;
    let finalizer = |name: &str| meta.finalizers.iter().flatten().any(|f| f == name);
    let owner = |o: &OwnerReference| Owner {
        uid: o.uid.clone(),
        group: o.api_version.split_once('/').map_or("", |(group, _)| group).to_owned(),
        kind: o.kind.clone(),
        name: o.name.clone(),
        blocks: o.block_owner_deletion.unwrap_or(false),
    };
    Node {
        uid: object.uid().unwrap_or_default(),
        kind: kind.clone(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        version: meta.resource_version.clone().unwrap_or_default(),
        owners: meta.owner_references.iter().flatten().map(owner).collect(),
        deleting: meta.deletion_timestamp.is_some(),
        foreground: finalizer("foregroundDeletion"),
        orphan: finalizer("orphan"),
    }
}

/// How an owner is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It exists.
    Solid,
    /// It exists, and waits for its dependents to go.
    Waiting,
    /// It does not exist.
    Gone,
}

impl Reconcile for Collector {
    const NAME: &'static str = "garbage-collector-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(item) = self.graph.lock().get(&key.name) else { return Ok(None) };
        if item.deleting && item.orphan {
            return self.orphan(&item).await.map(|()| None);
        }
        if item.deleting && item.foreground {
            self.foreground(&item).await?;
        } else if item.deleting {
            return Ok(None);
        }
        self.consider(&item).await.map(|()| None)
    }
}

impl Collector {
    async fn new_kinds(&self) -> Result<Vec<Known>, kube::Error> {
        let discovery = Discovery::new(self.client.clone()).run_aggregated().await?;
        let mut fresh = Vec::new();
        let mut kinds = self.kinds.lock();
        for (resource, capabilities) in
            discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources)
        {
            let complete =
                [verbs::LIST, verbs::WATCH, verbs::DELETE].iter().all(|v| capabilities.supports_operation(v));
            let kind = (resource.group.clone(), resource.kind.clone());
            if !complete || IGNORED.contains(&(kind.0.as_str(), kind.1.as_str())) || kinds.contains_key(&kind)
            {
                continue;
            }
            let known = Known { resource, namespaced: capabilities.scope == Scope::Namespaced };
            self.inventory.learn(&known.resource, known.namespaced);
            kinds.insert(kind, known.clone());
            fresh.push(known);
        }
        Ok(fresh)
    }

    fn api(&self, kind: &GroupKind, namespace: &str) -> Option<Api<DynamicObject>> {
        let known = self.kinds.lock().get(kind).cloned()?;
        let client = self.client.clone();
        Some(if known.namespaced {
            Api::namespaced_with(client, namespace, &known.resource)
        } else {
            Api::all_with(client, &known.resource)
        })
    }

    /// Deletes an object whose owners are all gone; takes gone owners from one that has others.
    async fn consider(&self, item: &Node) -> Result<(), Error> {
        if item.owners.is_empty() {
            return Ok(());
        }
        let mut states = Vec::new();
        for owner in &item.owners {
            states.push((owner, self.state(item, owner).await?));
        }
        let any = |state| states.iter().any(|(_, s)| *s == state);
        if any(State::Solid) {
            let rest: Vec<&str> =
                states.iter().filter(|(_, s)| *s != State::Solid).map(|(o, _)| o.uid.as_str()).collect();
            return if rest.is_empty() { Ok(()) } else { self.disown(item, &rest).await };
        }
        let dependents = self.graph.lock().dependents(&item.uid);
        if any(State::Waiting) && !item.deleting && graph::closes_a_circle(item, &dependents) {
            // each would wait for the next: this one no longer holds up its owners
            return self.unblock(item).await;
        }
        let policy = if any(State::Waiting) && !dependents.is_empty() {
            // its own dependents go before it, so that the order holds all the way down
            PropagationPolicy::Foreground
        } else if item.orphan {
            PropagationPolicy::Orphan
        } else if item.foreground {
            PropagationPolicy::Foreground
        } else {
            PropagationPolicy::Background
        };
        if item.deleting {
            return Ok(());
        }
        let Some(api) = self.api(&item.kind, &item.namespace) else { return Ok(()) };
        let same =
            Preconditions { uid: Some(item.uid.clone()), resource_version: Some(item.version.clone()) };
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(same),
            ..DeleteParams::default()
        };
        match api.delete(&item.name, &params).await {
            // newer than what we know: its watch event is on its way and will bring it back here
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
            deleted => deleted.map(drop).doing(|| format!("delete {item}, whose owners are gone")),
        }
    }

    async fn state(&self, item: &Node, owner: &Owner) -> Result<State, Error> {
        if self.absent.lock().contains_key(&owner.uid) {
            return Ok(State::Gone);
        }
        let known = self.graph.lock().get(&owner.uid);
        if let Some(known) = known {
            // an owner in another namespace is no owner
            if !known.namespace.is_empty() && known.namespace != item.namespace {
                return Ok(State::Gone);
            }
            return Ok(if known.deleting && known.foreground { State::Waiting } else { State::Solid });
        }
        let kind = (owner.group.clone(), owner.kind.clone());
        let Some(api) = self.api(&kind, &item.namespace) else {
            return Err(Error::Unusable(format!(
                "{item} has an owner of the unknown kind {}.{}",
                owner.kind, owner.group
            )));
        };
        let there = api
            .get_metadata_opt(&owner.name)
            .await
            .doing(|| format!("look for {} {}, an owner of {item}", owner.kind, owner.name))?;
        if there.is_some_and(|o| o.uid().as_deref() == Some(&owner.uid)) {
            return Ok(State::Solid);
        }
        self.absent.lock().insert(owner.uid.clone(), Instant::now());
        Ok(State::Gone)
    }

    /// Takes owners from an object.
    async fn disown(&self, item: &Node, owners: &[&str]) -> Result<(), Error> {
        let Some(api) = self.api(&item.kind, &item.namespace) else { return Ok(()) };
        let Some(live) = api.get_metadata_opt(&item.name).await.doing(|| format!("read {item}"))? else {
            return Ok(());
        };
        if live.uid().as_deref() != Some(&item.uid) {
            return Ok(());
        }
        let kept: Vec<_> =
            live.owner_references().iter().filter(|o| !owners.contains(&o.uid.as_str())).collect();
        let patch =
            json!({ "metadata": { "resourceVersion": live.resource_version(), "ownerReferences": kept } });
        let patched = api.patch_metadata(&item.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        found(patched).map(drop).doing(|| format!("take owners from {item}"))
    }

    /// Lets an object's owners go before it. The change's own watch event brings the object back here.
    async fn unblock(&self, item: &Node) -> Result<(), Error> {
        let Some(api) = self.api(&item.kind, &item.namespace) else { return Ok(()) };
        let Some(live) = api.get_metadata_opt(&item.name).await.doing(|| format!("read {item}"))? else {
            return Ok(());
        };
        if live.uid().as_deref() != Some(&item.uid) {
            return Ok(());
        }
        let owners: Vec<_> = live
            .owner_references()
            .iter()
            .map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner.clone() })
            .collect();
        let patch =
            json!({ "metadata": { "resourceVersion": live.resource_version(), "ownerReferences": owners } });
        let patched = api.patch_metadata(&item.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        match patched {
            // newer than what was read: its watch event brings it back
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
            patched => patched.map(drop).doing(|| format!("unblock the owners of {item}")),
        }
    }

    /// An owner that waits: its dependents are considered; when none blocks it any more it may go.
    async fn foreground(&self, item: &Node) -> Result<(), Error> {
        let dependents = self.graph.lock().dependents(&item.uid);
        let blocking = dependents.iter().any(|d| d.owners.iter().any(|o| o.uid == item.uid && o.blocks));
        if !blocking {
            return self.remove_finalizer(item, "foregroundDeletion").await;
        }
        for dependent in dependents.iter().filter(|d| !d.deleting) {
            self.consider(dependent).await?;
        }
        Ok(())
    }

    /// An owner that lets go: its dependents lose it, then it may go.
    async fn orphan(&self, item: &Node) -> Result<(), Error> {
        let dependents = self.graph.lock().dependents(&item.uid);
        for dependent in dependents {
            self.disown(&dependent, &[&item.uid]).await?;
        }
        self.remove_finalizer(item, "orphan").await
    }

    async fn remove_finalizer(&self, item: &Node, finalizer: &str) -> Result<(), Error> {
        let Some(api) = self.api(&item.kind, &item.namespace) else { return Ok(()) };
        let Some(live) = api.get_metadata_opt(&item.name).await.doing(|| format!("read {item}"))? else {
            return Ok(());
        };
        if live.uid().as_deref() != Some(&item.uid) {
            return Ok(());
        }
        let kept: Vec<_> = live.finalizers().iter().filter(|f| *f != finalizer).collect();
        if kept.len() == live.finalizers().len() {
            return Ok(());
        }
        let patch = json!({ "metadata": { "resourceVersion": live.resource_version(), "finalizers": kept } });
        let patched = api.patch_metadata(&item.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        found(patched).map(drop).doing(|| format!("remove the finalizer {finalizer} from {item}"))
    }
}
