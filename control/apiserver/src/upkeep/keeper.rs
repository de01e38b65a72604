//! Follows CustomResourceDefinitions.
//!
//! Woken by: changes of them. Reads: those that changed, from the watch cache, without their schemas; with them once a generation. Writes:
//! their accepted names and conditions; the table of what is served. Promises: a definition says Established only once its objects are
//! served, names belong to those they were given first, what a deleted definition defined is no longer served, and a change of one
//! costs no look at any other, but for those that wait for names it gave up.

use super::Stop;
use super::removal::Removals;
use crate::registry::kind::Kind;
use crate::registry::metadata::{deleting, finalizers, time};
use crate::write::Writer;
use crate::write::definition::FINALIZER;
use futures::FutureExt as _;
use futures::future::join_all;
use machinery::access::Get as _;
use machinery::custom::conditions::{self, Schemas};
use machinery::custom::definition::is_true;
use machinery::custom::{Outline, Register, Sketch};
use machinery::object;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;
use store::cache::{Cached, Scope, Watcher};
use supervise::{Backoff, Task};

/// The pauses while the definitions cannot be read.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
/// Changes looked at together, so that their writes share what a commit costs.
const AT_ONCE: usize = 16;
/// How long what is compiled of a definition outlives its last use; looked for as often, and old changes in watch caches too.
const IDLE: Duration = Duration::from_secs(120);
/// Before a status that could not be written is written again.
const AGAIN: Duration = Duration::from_secs(2);

/// Serves what is defined already, and leaves a task behind that follows further definitions.
pub(super) async fn keep(writer: &Arc<Writer>, stop: &Stop) {
    let Some(kind) = Kind::of("apiextensions.k8s.io", "customresourcedefinitions") else { return };
    let mut keeper = Keeper {
        writer: writer.clone(),
        kind,
        known: BTreeMap::new(),
        names: Register::default(),
        waiting: BTreeSet::new(),
        failed: BTreeSet::new(),
        removals: Removals::default(),
        stop: stop.clone(),
    };
    let Some((first, all)) = keeper.take_stock() else { return };
    let first = Mutex::new(Some((first, all)));
    // What is known outlives a life of the task: the next one forgets what went meanwhile.
    let keeper = Arc::new(tokio::sync::Mutex::new(keeper));
    let tasks = writer.registry.tasks(&stop.begun);
    tasks.keep(Task::endless("custom-resource-definitions", move || {
        let (keeper, begin) = (keeper.clone(), first.lock().take());
        async move { keeper.lock().await.follow(begin).await }
    }));
    let writer = writer.clone();
    tasks.keep(Task::endless("idle", move || {
        let writer = writer.clone();
        async move {
            loop {
                tokio::time::sleep(IDLE).await;
                writer.registry.custom.rest(IDLE);
                writer.registry.forget_old();
            }
        }
    }));
}

struct Keeper {
    writer: Arc<Writer>,
    /// The resource of definitions.
    kind: Kind,
    /// By name: the uid and generation whose schemas were looked at last.
    known: BTreeMap<String, Option<(String, i64)>>,
    /// The names that are given.
    names: Register,
    /// Those that did not get every name they want: by group and name.
    waiting: BTreeSet<(String, String)>,
    /// Those whose status could not be written.
    failed: BTreeSet<String>,
    removals: Removals,
    stop: Stop,
}

/// A definition that is looked at.
struct Looked {
    name: String,
    sketch: Sketch,
    /// What it is to be, without its schemas; none where it is that already.
    planned: Option<Value>,
    /// What is to be said of its schemas, where those are new to us.
    schemas: Option<Schemas>,
}

impl Keeper {
    /// Serves every definition as it says it is, with no look at its schemas. Gives the watch that goes on from there, and the names of
    /// all, to be looked at.
    fn take_stock(&mut self) -> Option<(Watcher, Vec<String>)> {
        let cache = self.writer.registry.cache(&self.kind).ok()?;
        let (snapshot, watcher) = cache.snapshot_and_watch(&Scope::All).ok()?;
        let mut before = std::mem::take(&mut self.known);
        let mut all = Vec::new();
        for object in snapshot.range(&self.kind.resource.key_prefix, None) {
            let Ok(sketch) = Sketch::read(&object.bytes) else { continue };
            let (name, crd) = (object.name.to_string(), &sketch.crd);
            let settled = is_true(crd, "Established").then(|| seen(crd));
            self.known.insert(name.clone(), before.remove(&name).flatten().or(settled));
            self.names.hold(&name, crd.text("spec.group"), crd.at("status.acceptedNames"));
            self.install(object, &sketch, &sketch.crd);
            all.push(name);
        }
        for gone in before.into_keys() {
            self.forget(&gone);
        }
        Some((watcher, all))
    }

    async fn follow(&mut self, begin: Option<(Watcher, Vec<String>)>) {
        let mut pauses = PAUSES;
        let mut begin = begin;
        loop {
            if let Some((mut watcher, all)) = begin.take() {
                pauses.reset();
                let mut due: BTreeSet<String> = all.into_iter().collect();
                let mut last = String::new();
                loop {
                    while let Some(change) = watcher.next().now_or_never().flatten() {
                        due.insert(change.object.name.to_string());
                    }
                    if due.is_empty() {
                        let next = match self.failed.is_empty() {
                            true => Some(watcher.next().await),
                            false => tokio::time::timeout(AGAIN, watcher.next()).await.ok(),
                        };
                        due.append(&mut self.failed);
                        match next {
                            Some(Some(change)) => drop(due.insert(change.object.name.to_string())),
                            Some(None) => break,
                            None => {}
                        }
                        continue;
                    }
                    let next = turn(&mut due, &last);
                    if let Some(name) = next.last() {
                        last.clone_from(name);
                    }
                    due.extend(self.look_at(next).await);
                }
            }
            let Ok(cache) = self.writer.registry.cache(&self.kind) else { return };
            cache.ready().await;
            begin = self.take_stock();
            if begin.is_none() {
                pauses.pause().await;
            }
        }
    }

    /// Brings definitions to what they should say, and serves what they say. Gives those to look at for names that are free now.
    async fn look_at(&mut self, due: Vec<String>) -> Vec<String> {
        let Ok(snapshot) = self.writer.registry.cache(&self.kind).and_then(|cache| {
            cache.snapshot().map_err(|e| crate::registry::storage::unready(&self.kind, &e))
        }) else {
            return Vec::new();
        };
        let mut freed = BTreeSet::new();
        let mut looked = Vec::new();
        for name in due {
            match snapshot.get(&self.kind.resource.key("", &name)) {
                None => freed.extend(self.forget(&name)),
                Some(object) => {
                    if let Some((of, frees)) = self.plan(object) {
                        freed.extend(frees.then(|| of.sketch.crd.text("spec.group").to_owned()));
                        looked.push(of);
                    }
                }
            }
        }
        let this = &*self;
        let written = join_all(looked.into_iter().map(|of| async move {
            let outcome = this.report(&of).await;
            (of, outcome)
        }))
        .await;
        for (of, outcome) in written {
            self.wrote(of, outcome);
        }
        let waits = |(group, _): &&(String, String)| freed.contains(group);
        self.waiting.iter().filter(waits).map(|(_, name)| name.clone()).collect()
    }

    /// What a definition is to say: its names are its own from now on, and it is served. True where it gave names up.
    fn plan(&mut self, object: &Arc<Cached>) -> Option<(Looked, bool)> {
        let sketch = Sketch::read(&object.bytes).ok()?;
        let name = object.name.to_string();
        let new = self.known.get(&name).is_none_or(|known| *known != Some(seen(&sketch.crd)));
        let whole = if new { self.kind.decode_wire(&object.bytes).ok() } else { None };
        let schemas = whole.as_ref().map(Schemas::of);
        let now = time(jiff::Timestamp::now());
        let planned = conditions::plan(&sketch.crd, schemas.as_ref(), &self.names, &now);
        let crd = planned.as_ref().unwrap_or(&sketch.crd);
        let group = crd.text("spec.group").to_owned();
        let frees = self.names.hold(&name, &group, crd.at("status.acceptedNames"));
        let place = (group, name.clone());
        match is_true(crd, "NamesAccepted") {
            true => drop(self.waiting.remove(&place)),
            false => drop(self.waiting.insert(place)),
        }
        self.install(object, &sketch, crd);
        let known = self.known.entry(name.clone()).or_default();
        if planned.is_none() {
            *known = Some(seen(&sketch.crd));
        }
        Some((Looked { name, sketch, planned, schemas }, frees))
    }

    /// Writes what a definition is to say.
    async fn report(&self, of: &Looked) -> Result<(), machinery::status::Status> {
        if of.planned.is_none() {
            return Ok(());
        }
        let change = |old: &Value| {
            let now = time(jiff::Timestamp::now());
            // Schemas that changed since are looked at when that change arrives here.
            let schemas = of.schemas.as_ref().filter(|_| seen(old) == seen(&of.sketch.crd));
            let mut new = conditions::plan(old, schemas, &self.names, &now).unwrap_or_else(|| old.clone());
            object::set_resource_version(&mut new, "");
            Ok(new)
        };
        self.writer.amend(&self.kind, "", &of.name, "status", &change).await.map(drop)
    }

    /// After a definition says what it should: its instances go where it is being deleted.
    fn wrote(&mut self, of: Looked, outcome: Result<(), machinery::status::Status>) {
        match outcome {
            Ok(()) => drop(self.known.insert(of.name.clone(), Some(seen(&of.sketch.crd)))),
            Err(error) if error.code == 404 => {}
            Err(error) => {
                tracing::warn!(%error, definition = of.name, "write the status of a definition");
                self.failed.insert(of.name.clone());
            }
        }
        let crd = of.planned.as_ref().unwrap_or(&of.sketch.crd);
        if deleting(crd) && finalizers(crd).contains(&FINALIZER) {
            self.removals.begin(&self.writer, self.kind, crd, &self.stop.begun);
        }
    }

    /// Serves what a definition says with the status of `planned`.
    fn install(&self, object: &Cached, sketch: &Sketch, planned: &Value) {
        let served = &self.writer.registry.custom;
        match Outline::of(sketch, planned) {
            Ok(outline) => served.serve(outline, object.bytes.clone()),
            Err(reason) => {
                tracing::debug!(%reason, "a definition is not served");
                served.forget(&object.name);
            }
        }
    }

    /// Serves a definition that went no longer; its names are free. Gives its group, others of which may have been waiting for them.
    fn forget(&mut self, name: &str) -> Option<String> {
        self.known.remove(name);
        self.failed.remove(name);
        self.waiting.retain(|(_, waits)| waits != name);
        self.writer.registry.custom.forget(name);
        self.names.release(name)
    }
}

/// Takes out of `due` what is looked at next: a ring that goes on behind `last`, so that nothing waits for ever for what changes all the time.
fn turn(due: &mut BTreeSet<String>, last: &str) -> Vec<String> {
    let behind = due.range::<str, _>((Bound::Excluded(last), Bound::Unbounded));
    let before = due.range::<str, _>((Bound::Unbounded, Bound::Included(last)));
    let next: Vec<String> = behind.chain(before).take(AT_ONCE).cloned().collect();
    for name in &next {
        due.remove(name);
    }
    next
}

/// The state of a definition's schemas.
fn seen(crd: &Value) -> (String, i64) {
    (object::uid(crd).to_owned(), object::generation(crd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_must_not_wait_for_others_that_are_fought_over() {
        let name = |number: usize| format!("d{number:02}.acme.com");
        let mut due: BTreeSet<String> = (0..2 * AT_ONCE + 1).map(name).collect();
        let (mut seen, mut last) = (BTreeSet::new(), String::new());
        for _ in 0..3 {
            let next = turn(&mut due, &last);
            assert!(next.len() <= AT_ONCE);
            last.clone_from(next.last().unwrap());
            seen.extend(next);
            // Somebody changes the first of them again and again.
            due.extend((0..AT_ONCE).map(name));
        }
        assert_eq!(seen.len(), 2 * AT_ONCE + 1, "everyone had a turn");
        assert_eq!(turn(&mut BTreeSet::from([name(3)]), &name(3)), [name(3)], "one by itself is next");
        assert!(turn(&mut BTreeSet::new(), &last).is_empty());
    }
}
