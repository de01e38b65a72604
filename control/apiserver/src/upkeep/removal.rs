//! A definition that is deleted takes its instances with it.
//!
//! Woken by: the keeper, once a definition with the finalizer is being deleted; then by changes of the instances. Reads: the
//! instances. Writes: their deletion, the definition's condition Terminating, and at last its finalizers. Promises: the
//! definition does not go while an instance is there.

use crate::registry::kind::Kind;
use crate::registry::metadata::{finalizers, name, namespace, time};
use crate::registry::options::DeleteOptions;
use crate::registry::storage::unready;
use crate::write::Writer;
use crate::write::definition::{FINALIZER, terminating};
use machinery::custom::conditions;
use machinery::custom::definition::is_true;
use machinery::object;
use machinery::status::Status;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use store::cache::Scope;
use supervise::Backoff;
use tokio_util::sync::CancellationToken;

/// How long instances may take to go before the definition says that they do not.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pauses after failures.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// Definitions whose instances are being deleted.
#[derive(Clone, Default)]
pub(super) struct Removals(Arc<Mutex<BTreeSet<String>>>);

impl Removals {
    /// Deletes the instances of `crd`, of the resource `definitions`, in a task of its own: one a definition.
    pub(super) fn begin(
        &self,
        writer: &Arc<Writer>,
        definitions: Kind,
        crd: &Value,
        shutdown: &CancellationToken,
    ) {
        let of = object::uid(crd).to_owned();
        if !self.0.lock().insert(of.clone()) {
            return;
        }
        let tasks = writer.registry.tasks(shutdown);
        let (work, stop) = (tasks.work("remove-instances"), tasks.stop().clone());
        let removal = Removal { writer: writer.clone(), definitions, crd: crd.clone() };
        let running = self.clone();
        let emptying = Box::pin(async move {
            let mut pauses = PAUSES;
            // A panic costs a pause, not the definition its end.
            while work.attempt(removal.run()).await.is_err() {
                pauses.pause().await;
            }
            running.0.lock().remove(&of);
        });
        tasks.work("remove-definitions").spawn(async move {
            let _ = stop.run_until_cancelled_owned(emptying).await;
        });
    }
}

struct Removal {
    writer: Arc<Writer>,
    definitions: Kind,
    crd: Value,
}

impl Removal {
    async fn run(&self) {
        let mut pauses = PAUSES;
        let of = name(&self.crd);
        loop {
            let (condition, done) = match self.empty().await {
                Ok(()) if is_true(&self.crd, "Established") => {
                    let message = "removed all instances".to_owned();
                    (terminating("False", "InstanceDeletionCompleted", message), true)
                }
                Ok(()) => {
                    let message = "resource was never established".to_owned();
                    (terminating("False", "NeverEstablished", message), true)
                }
                Err((reason, error)) => {
                    tracing::warn!(%error, definition = of, "delete the instances of a definition");
                    let message = match reason {
                        "InstanceDeletionCheck" => {
                            format!("could not confirm zero CustomResources remaining: {error}")
                        }
                        _ => format!("could not issue all deletes: {error}"),
                    };
                    (terminating("True", reason, message), false)
                }
            };
            match self.report(condition, done).await {
                Ok(()) if done => return,
                Err(error) if error.code == 404 => return,
                Err(error) => tracing::warn!(%error, definition = of, "write the status of a definition"),
                Ok(()) => {}
            }
            pauses.pause().await;
        }
    }

    /// Deletes all instances and waits until they are gone.
    async fn empty(&self) -> Result<(), (&'static str, Status)> {
        const FAILED: &str = "InstanceDeletionFailed";
        let of = name(&self.crd);
        if !is_true(&self.crd, "Established") {
            return Ok(());
        }
        let message = "CustomResource deletion is in progress".to_owned();
        let progress = terminating("True", "InstanceDeletionInProgress", message);
        self.report(progress, false).await.map_err(|e| (FAILED, e))?;
        let (plural, group) = of.split_once('.').unwrap_or((of, ""));
        let registry = &self.writer.registry;
        let Some(kind) = registry.kind_of(group, plural) else {
            let why = "the definition is not served: its instances cannot be deleted";
            return Err((FAILED, Status::service_unavailable(why)));
        };
        let cache = registry.cache(&kind).map_err(|e| (FAILED, e))?;
        let unready = |e: store::cache::Error| (FAILED, unready(&kind, &e));
        cache.refresh().await.map_err(unready)?;
        let (snapshot, mut watcher) = cache.snapshot_and_watch(&Scope::All).map_err(unready)?;
        for object in snapshot.range(cache.prefix(), None) {
            let object = kind.decode_wire(&object.bytes).map_err(|e| (FAILED, e))?;
            // As upstream: what goes with its definition is asked of nobody.
            let (namespace, name, options) = (namespace(&object), name(&object), DeleteOptions::default());
            let discarded = self.writer.discard(&kind, namespace, name, &options);
            discarded.await.map_err(|e| (FAILED, e))?;
        }
        let gone = async {
            let mut pauses = PAUSES;
            loop {
                match cache.snapshot() {
                    Ok(now) if now.count(cache.prefix(), None) == 0 => return,
                    _ => {}
                }
                if watcher.next().await.is_none() {
                    cache.ready().await;
                    match cache.snapshot_and_watch(&Scope::All) {
                        Ok((_, next)) => watcher = next,
                        Err(_) => pauses.pause().await,
                    }
                }
            }
        };
        let late = || ("InstanceDeletionCheck", Status::timeout("timed out waiting for the condition", 0));
        tokio::time::timeout(PATIENCE, gone).await.map_err(|_| late())
    }

    /// Writes the condition, and lets the definition go where that is done.
    async fn report(&self, condition: Value, done: bool) -> Result<(), Status> {
        let change = |old: &Value| {
            if object::uid(old) != object::uid(&self.crd) {
                return Err(Status::not_found(&self.definitions.gr(), name(&self.crd)));
            }
            let mut new = old.clone();
            conditions::write(&mut new, condition.clone(), &time(jiff::Timestamp::now()));
            if done {
                let rest: Vec<String> =
                    finalizers(old).into_iter().filter(|f| *f != FINALIZER).map(str::to_owned).collect();
                object::set_finalizers(&mut new, rest);
            }
            object::set_resource_version(&mut new, "");
            Ok(new)
        };
        self.writer.amend(&self.definitions, "", name(&self.crd), "status", &change).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
