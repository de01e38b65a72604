//! The garbage collector: objects go when their last owner is gone, owners wait for (foreground) or release (orphan) their dependents.
//!
//! Woken by: a change of any object's metadata (one metadata-only watch a kind, found by discovery, custom resources included). Reads: the
//! graph these watches build; the API server when an owner is not in it as the dependent names it. Writes: deletions, owner references,
//! the finalizers `foregroundDeletion` and `orphan`, the event `OwnerRefInvalidNamespace`. Promises: nothing is deleted for an owner that was
//! not seen missing on the API server itself, under apiVersion, kind, namespace, name and uid together: what is missing in one namespace
//! says nothing of another. Nothing is deleted by name alone (uid and resourceVersion are preconditions), and no owner is deleted before
//! every kind has been listed once.

mod graph;
mod identity;
mod kinds;

use crate::discovery::Offers;
use crate::inventory::{Inventory, tells_of_kinds};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, code, found, work};
use crate::recorder::{Note, Recorder, Severity};
use client::{Event, Source, mirror};
use futures::StreamExt;
use graph::{Graph, Node, Outcome};
use identity::{Fit, Identity, Owner};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kinds::{GroupKind, Kinds, ServedKind};
use kube::api::{
    DeleteParams, DynamicObject, ObjectMeta, PartialObjectMeta, Patch, PatchParams, Preconditions,
    PropagationPolicy,
};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use supervise::{Scope, Task};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// How long the first lists are waited for: one kind that cannot be listed does not hold up all others forever (upstream's value).
const FIRST_LISTS: Duration = Duration::from_secs(30);
/// How long an owner that was not found is known to be absent: uids never come back, but memory is bounded by it.
const ABSENT_FOR: Duration = Duration::from_secs(60);

struct Collector {
    client: Client,
    graph: Mutex<Graph>,
    kinds: Mutex<Kinds>,
    complete: Notify,
    absent: Mutex<HashMap<Identity, Instant>>,
    inventory: Arc<Inventory>,
    recorder: Recorder,
    queue: Arc<Queue>,
    /// Who owns whom is remembered; otherwise only objects that go are told of.
    collects: bool,
}

/// Starts it, for the kinds in `inventory`. Returns once every kind has been listed and the workers are there.
pub(crate) async fn start(
    scope: &Scope,
    client: Client,
    recorder: Recorder,
    inventory: Arc<Inventory>,
    workers: usize,
) {
    let collector = Arc::new(Collector::new(client, recorder, inventory, true));
    follow(scope, "garbage-collector", &collector);
    if scope.stop().run_until_cancelled(collector.first_lists()).await.is_some() {
        work(scope, &collector.queue, &collector, workers);
    }
}

/// Tells of objects of every kind that go, where no garbage is collected.
pub(crate) fn listen(scope: &Scope, client: Client, recorder: Recorder, inventory: Arc<Inventory>) {
    follow(scope, "object-monitor", &Arc::new(Collector::new(client, recorder, inventory, false)));
}

/// Keeps the watches.
fn follow(scope: &Scope, name: &str, collector: &Arc<Collector>) {
    let (collector, supervisor) = (collector.clone(), scope.supervisor().clone());
    let prefix = format!("controllers/{name}/");
    scope.keep(Task::new(format!("{name}-kinds"), move |stop| {
        let collector = collector.clone();
        let watches = Scope::new(&supervisor, &prefix, &stop);
        async move {
            stop.run_until_cancelled(watch_all(&collector, &watches)).await;
            Ok(())
        }
    }));
}

/// Watches every kind there is, forever.
async fn watch_all(collector: &Arc<Collector>, watches: &Scope) {
    // The watches of a life before ended with it.
    collector.kinds.lock().unwatch();
    let mut offers = collector.inventory.offers();
    loop {
        let newest = offers.borrow_and_update().clone();
        for known in newest.iter().flat_map(|offers| collector.new_kinds(offers)) {
            let collector = collector.clone();
            let name = format!("{}.{}", known.resource.plural, known.resource.group);
            // It ends by itself when the kind goes.
            let _ = watches.keep_alone(Task::new(name.trim_end_matches('.'), move |stop| {
                let (collector, known) = (collector.clone(), known.clone());
                async move {
                    if stop.run_until_cancelled(watch(&collector, &known)).await.is_some() {
                        stop.cancel();
                    }
                    Ok(())
                }
            }));
        }
        let now = Instant::now();
        collector.absent.lock().retain(|_, since| now.duration_since(*since) < ABSENT_FOR);
        // The collector itself holds the sender.
        let _ = offers.changed().await;
    }
}

/// Watches the metadata of a kind until the kind goes.
async fn watch(collector: &Collector, known: &ServedKind) {
    type Meta = PartialObjectMeta<DynamicObject>;
    let kind = (known.resource.group.clone(), known.resource.kind.clone());
    let api: Api<Meta> = Api::all_with(collector.client.clone(), &known.resource);
    let mut events = mirror::<Meta>(Source::of(api));
    // What a life before knew may be gone.
    let mut first = Some(HashSet::new());
    while let Some(event) = events.next().await {
        // What the first list has was there when the kinds were looked for.
        if first.is_none()
            && matches!(event, Event::Set(..) | Event::Gone(_))
            && tells_of_kinds(&known.resource)
        {
            collector.inventory.look_again();
        }
        match event {
            Event::Set(_, object) => {
                if let Some(seen) = &mut first {
                    seen.insert(object.uid().unwrap_or_default());
                }
                collector.observe(node(known, &object.metadata));
            }
            Event::Gone(gone) => {
                // Nothing is counted in no namespace.
                if !gone.key.namespace.is_empty() {
                    collector.inventory.gone(&known.resource, &gone.key.namespace);
                }
                let outcome = collector.graph.lock().remove(&gone.uid);
                collector.take(outcome);
            }
            Event::Synced => {
                collector.inventory.gone(&known.resource, "");
                if let Some(seen) = first.take() {
                    let woken = collector.graph.lock().keep_only(&kind, &seen);
                    collector.wake(woken);
                }
                collector.listed(&kind);
            }
            // the kind went away: its custom resource definition was deleted
            Event::Failed(error) if error.code() == Some(404) => {
                let woken = collector.graph.lock().keep_only(&kind, &HashSet::new());
                collector.inventory.forget(&known.resource);
                if collector.kinds.lock().forget(&kind) {
                    collector.complete.notify_one();
                }
                collector.wake(woken);
                return;
            }
            Event::Failed(_) | Event::Unreadable(_) => {}
        }
    }
}

fn node(known: &ServedKind, meta: &ObjectMeta) -> Node {
    let finalizer = |name: &str| meta.finalizers.iter().flatten().any(|f| f == name);
    Node {
        identity: Identity {
            api_version: known.resource.api_version.clone(),
            kind: known.resource.kind.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        },
        version: meta.resource_version.clone().unwrap_or_default(),
        owners: meta.owner_references.iter().flatten().map(owner).collect(),
        deleting: meta.deletion_timestamp.is_some(),
        foreground: finalizer("foregroundDeletion"),
        orphan: finalizer("orphan"),
    }
}

fn owner(reference: &OwnerReference) -> Owner {
    Owner {
        api_version: reference.api_version.clone(),
        kind: reference.kind.clone(),
        name: reference.name.clone(),
        uid: reference.uid.clone(),
        blocks: reference.block_owner_deletion.unwrap_or(false),
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
        match (item.deleting, item.orphan, item.foreground) {
            (true, true, _) => self.orphan(&item).await?,
            (true, false, true) => self.foreground(&item).await?,
            (true, false, false) => {}
            (false, ..) => self.consider(&item).await?,
        }
        Ok(None)
    }
}

impl Collector {
    fn new(client: Client, recorder: Recorder, inventory: Arc<Inventory>, collects: bool) -> Self {
        Self {
            client,
            graph: Mutex::default(),
            kinds: Mutex::default(),
            complete: Notify::new(),
            absent: Mutex::default(),
            inventory,
            recorder,
            queue: Arc::default(),
            collects,
        }
    }

    fn new_kinds(&self, offers: &Offers) -> Vec<ServedKind> {
        let fresh = self.kinds.lock().learn(offers);
        self.complete.notify_one();
        fresh
    }

    /// Before every kind is listed an owner may seem to have no dependents.
    async fn first_lists(&self) {
        let until = async |so: fn(&Kinds) -> bool| {
            while !so(&self.kinds.lock()) {
                self.complete.notified().await;
            }
        };
        until(Kinds::known).await;
        if timeout(FIRST_LISTS, until(Kinds::complete)).await.is_err() {
            tracing::warn!("not every kind could be listed; garbage is collected all the same");
        }
    }

    fn listed(&self, kind: &GroupKind) {
        if self.kinds.lock().listed(kind) {
            self.complete.notify_one();
        }
    }

    fn observe(&self, node: Node) {
        if !self.collects {
            return;
        }
        let outcome = self.graph.lock().observe(node);
        self.take(outcome);
    }

    fn take(&self, outcome: Outcome) {
        if let Some(absent) = outcome.absent {
            self.absent.lock().insert(absent, Instant::now());
        }
        for (dependent, owner) in outcome.misplaced {
            let namespace = &dependent.identity.namespace;
            let message =
                format!("ownerRef {} does not exist in namespace {namespace:?}", owner.within(namespace));
            self.recorder.note(Note {
                component: Self::NAME,
                about: dependent.identity.reference(),
                severity: Severity::Warning,
                reason: "OwnerRefInvalidNamespace".into(),
                message,
                action: None,
            });
        }
        self.wake(outcome.woken);
    }

    fn wake(&self, uids: Vec<String>) {
        uids.into_iter().for_each(|uid| self.queue.add(Key::new("", &uid)));
    }

    /// Where an object is read and written; nothing while its kind is not served in its version.
    fn api(&self, identity: &Identity) -> Result<Api<DynamicObject>, Error> {
        let Identity { api_version, kind, namespace, name, .. } = identity;
        let known = self.kinds.lock().get(api_version, kind);
        let known =
            known.ok_or_else(|| Error::Unusable(format!("{kind} {name}: no such kind in {api_version}")))?;
        let client = self.client.clone();
        Ok(if known.namespaced {
            Api::namespaced_with(client, namespace, &known.resource)
        } else {
            Api::all_with(client, &known.resource)
        })
    }

    /// The object itself, when it is still this one.
    async fn live(&self, identity: &Identity) -> Result<Option<PartialObjectMeta<DynamicObject>>, Error> {
        let read = self.api(identity)?.get_metadata_opt(&identity.name).await;
        let live = read.doing(|| format!("read {} {}", identity.kind, identity.name))?;
        Ok(live.filter(|live| live.uid().as_deref() == Some(&identity.uid)))
    }

    /// Deletes an object whose owners are all gone; takes gone owners from one that has others.
    async fn consider(&self, item: &Node) -> Result<(), Error> {
        if item.owners.is_empty() {
            return Ok(());
        }
        let mut states = Vec::new();
        for owner in &item.owners {
            let Some(state) = self.state(item, owner).await? else { return Ok(()) };
            states.push((owner, state));
        }
        let any = |state| states.iter().any(|(_, s)| *s == state);
        if any(State::Solid) {
            let rest: Vec<&str> =
                states.iter().filter(|(_, s)| *s != State::Solid).map(|(o, _)| o.uid.as_str()).collect();
            return if rest.is_empty() { Ok(()) } else { self.disown(item, &rest).await };
        }
        let dependents = self.graph.lock().dependents(&item.identity.uid);
        if any(State::Waiting) && graph::closes_a_circle(item, &dependents) {
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
        self.delete(item, policy).await
    }

    async fn delete(&self, item: &Node, policy: PropagationPolicy) -> Result<(), Error> {
        let Identity { uid, name, .. } = &item.identity;
        let api = self.api(&item.identity)?;
        let params = |version: Option<&String>| DeleteParams {
            propagation_policy: Some(policy.clone()),
            preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: version.cloned() }),
            ..DeleteParams::default()
        };
        let mut deleted = api.delete(name, &params(Some(&item.version))).await;
        if deleted.as_ref().is_err_and(|error| code(error) == Some(409))
            && let Some(live) = self.live(&item.identity).await?
            && live.owner_references().iter().map(owner).eq(item.owners.iter().cloned())
        {
            // it is written all the time, but its owners are the same
            deleted = api.delete(name, &params(None)).await;
        }
        match deleted {
            // newer than what we know: its watch event is on its way and will bring it back here
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
            deleted => deleted.map(drop).doing(|| format!("delete {item}, whose owners are gone")),
        }
    }

    /// How an owner is; none when an object of cluster scope names one in a namespace, which nobody can look for: the object is kept.
    async fn state(&self, item: &Node, owner: &Owner) -> Result<Option<State>, Error> {
        let namespace = &item.identity.namespace;
        {
            let absent = self.absent.lock();
            if absent.contains_key(&owner.within("")) || absent.contains_key(&owner.within(namespace)) {
                return Ok(Some(State::Gone));
            }
        }
        let seen = self.graph.lock().get(&owner.uid);
        if let Some(seen) = seen.filter(|seen| owner.fit(namespace, &seen.identity) == Fit::Exact) {
            let waiting = seen.deleting && seen.foreground;
            return Ok(Some(if waiting { State::Waiting } else { State::Solid }));
        }
        let Some(known) = self.kinds.lock().get(&owner.api_version, &owner.kind) else {
            return Err(Error::Unusable(format!(
                "{item} has an owner of the unknown kind {} in {}",
                owner.kind, owner.api_version
            )));
        };
        if known.namespaced && namespace.is_empty() {
            return Ok(None);
        }
        let wanted = owner.within(if known.namespaced { namespace } else { "" });
        let Some(there) = self.live(&wanted).await? else {
            self.absent.lock().insert(wanted, Instant::now());
            return Ok(Some(State::Gone));
        };
        let waits = there.finalizers().iter().any(|f| f == "foregroundDeletion");
        let waiting = there.metadata.deletion_timestamp.is_some() && waits;
        Ok(Some(if waiting { State::Waiting } else { State::Solid }))
    }

    /// Takes owners from an object.
    async fn disown(&self, item: &Node, owners: &[&str]) -> Result<(), Error> {
        self.rewrite_owners(item, |references| {
            references.retain(|o| !owners.contains(&o.uid.as_str()));
        })
        .await
    }

    /// Lets an object's owners go before it. The change's own watch event brings the object back here.
    async fn unblock(&self, item: &Node) -> Result<(), Error> {
        self.rewrite_owners(item, |references| {
            references.iter_mut().for_each(|owner| owner.block_owner_deletion = Some(false));
        })
        .await
    }

    async fn rewrite_owners(
        &self,
        item: &Node,
        change: impl FnOnce(&mut Vec<OwnerReference>),
    ) -> Result<(), Error> {
        let Some(live) = self.live(&item.identity).await? else { return Ok(()) };
        let mut owners = live.owner_references().to_vec();
        change(&mut owners);
        let patch =
            json!({ "metadata": { "resourceVersion": live.resource_version(), "ownerReferences": owners } });
        self.patch(item, &patch).await
    }

    async fn patch(&self, item: &Node, patch: &serde_json::Value) -> Result<(), Error> {
        let api = self.api(&item.identity)?;
        let patched =
            api.patch_metadata(&item.identity.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        found(patched).map(drop).doing(|| format!("write the metadata of {item}"))
    }

    /// An owner that waits: its dependents are considered; when none blocks it any more it may go.
    async fn foreground(&self, item: &Node) -> Result<(), Error> {
        let uid = &item.identity.uid;
        let dependents = self.graph.lock().dependents(uid);
        let blocking = dependents.iter().any(|d| d.owners.iter().any(|o| o.uid == *uid && o.blocks));
        if !blocking {
            return self.remove_finalizer(item, "foregroundDeletion").await;
        }
        // each by itself: one that cannot be considered holds up no other
        self.wake(dependents.into_iter().filter(|d| !d.deleting).map(|d| d.identity.uid).collect());
        Ok(())
    }

    /// An owner that lets go: its dependents lose it, then it may go.
    async fn orphan(&self, item: &Node) -> Result<(), Error> {
        let dependents = self.graph.lock().dependents(&item.identity.uid);
        let mut outcome = Ok(());
        for dependent in dependents {
            outcome = outcome.and(self.disown(&dependent, &[&item.identity.uid]).await);
        }
        outcome?;
        self.remove_finalizer(item, "orphan").await
    }

    async fn remove_finalizer(&self, item: &Node, finalizer: &str) -> Result<(), Error> {
        let Some(live) = self.live(&item.identity).await? else { return Ok(()) };
        let kept: Vec<_> = live.finalizers().iter().filter(|f| *f != finalizer).collect();
        if kept.len() == live.finalizers().len() {
            return Ok(());
        }
        let patch = json!({ "metadata": { "resourceVersion": live.resource_version(), "finalizers": kept } });
        self.patch(item, &patch).await
    }
}

#[cfg(test)]
mod tests;
