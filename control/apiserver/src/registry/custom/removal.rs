//! A definition that is deleted takes its instances with it.
//!
//! Woken by: the keeper, once a definition with the finalizer is being deleted; then by changes of the instances. Reads: the
//! instances. Writes: their deletion, the definition's condition Terminating, and at last its finalizers. Promises: the
//! definition does not go while an instance is there.

use super::super::Registry;
use super::super::create::{Call, Warnings};
use super::super::delete::Deleted;
use super::super::kind::Kind;
use super::super::metadata::{finalizers, name, time};
use super::super::options::{DeleteOptions, WriteOptions};
use super::keeper::definitions;
use crate::admission::Seen;
use machinery::custom::conditions;
use machinery::custom::definition::is_true;
use machinery::object;
use machinery::status::Status;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use store::cache::Scope;
use tokio_util::sync::CancellationToken;

/// What holds a definition until its instances are gone.
pub(in crate::registry) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// How long instances may take to go before the definition says that they do not.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait after a failure.
const AGAIN: Duration = Duration::from_secs(5);

fn terminating(status: &str, reason: &str, message: String) -> Value {
    json!({"type": "Terminating", "status": status, "reason": reason, "message": message})
}

/// A definition as its first DELETE leaves it.
pub(in crate::registry) fn mark(crd: &mut Value, now: &str) {
    object::metadata_mut(crd).insert("deletionTimestamp".to_owned(), now.into());
    let mut held: Vec<String> = finalizers(crd).into_iter().map(str::to_owned).collect();
    if !held.iter().any(|f| f == FINALIZER) {
        held.push(FINALIZER.to_owned());
        object::set_finalizers(crd, held);
    }
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    conditions::write(crd, terminating("True", "InstanceDeletionPending", message.to_owned()), now);
}

impl Registry {
    /// Deletes a definition's instances in a task of its own, one a definition.
    pub(super) fn remove_instances(self: &Arc<Self>, crd: &Value, shutdown: &CancellationToken) {
        let of = name(crd).to_owned();
        if !self.custom.leaving.lock().insert(of.clone()) {
            return;
        }
        let tasks = self.tasks(shutdown);
        let (registry, crd) = (self.clone(), crd.clone());
        let (work, stop) = (tasks.work("remove-instances"), tasks.stop().clone());
        let emptying = Box::pin(async move {
            // A panic costs a pause, not the definition its end.
            while work.attempt(registry.empty(&crd)).await.is_err() {
                tokio::time::sleep(AGAIN).await;
            }
            registry.custom.leaving.lock().remove(&of);
        });
        self.tasks(shutdown).work("remove-definitions").spawn(async move {
            let _ = stop.run_until_cancelled_owned(emptying).await;
        });
    }

    async fn empty(&self, crd: &Value) {
        let of = name(crd);
        loop {
            let outcome = self.try_empty(crd).await;
            let (condition, done) = match &outcome {
                Ok(()) if is_true(crd, "Established") => {
                    let message = "removed all instances".to_owned();
                    (terminating("False", "InstanceDeletionCompleted", message), true)
                }
                Ok(()) => {
                    let message = "resource was never established".to_owned();
                    (terminating("False", "NeverEstablished", message), true)
                }
                Err((reason, error)) => {
                    tracing::warn!(%error, definition = of, "delete the instances of a definition");
                    let message = match *reason {
                        "InstanceDeletionCheck" => {
                            format!("could not confirm zero CustomResources remaining: {error}")
                        }
                        _ => format!("could not issue all deletes: {error}"),
                    };
                    (terminating("True", reason, message), false)
                }
            };
            match self.tell(of, condition, done).await {
                Ok(()) if done => return,
                Err(error) if error.code == 404 => return,
                Err(error) => tracing::warn!(%error, definition = of, "write the status of a definition"),
                Ok(()) => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Deletes all instances and waits until they are gone.
    async fn try_empty(&self, crd: &Value) -> Result<(), (&'static str, Status)> {
        const FAILED: &str = "InstanceDeletionFailed";
        let of = name(crd);
        if !is_true(crd, "Established") {
            return Ok(());
        }
        let message = "CustomResource deletion is in progress".to_owned();
        let progress = terminating("True", "InstanceDeletionInProgress", message);
        self.tell(of, progress, false).await.map_err(|e| (FAILED, e))?;
        let (plural, group) = of.split_once('.').unwrap_or((of, ""));
        let Some(kind) = self.kind_of(group, plural) else { return Ok(()) };
        let cache = self.cache(&kind).map_err(|e| (FAILED, e))?;
        let unready = |e: store::cache::Error| (FAILED, super::super::storage::unready(&kind, &e));
        cache.refresh().await.map_err(unready)?;
        let (snapshot, mut watcher) = cache.snapshot_and_watch(&Scope::All).map_err(unready)?;
        for object in snapshot.range(cache.prefix(), None) {
            let object = kind.decode_wire(&object.bytes).map_err(|e| (FAILED, e))?;
            self.delete_one(&kind, &object).await.map_err(|e| (FAILED, e))?;
        }
        let gone = async {
            loop {
                match cache.snapshot() {
                    Ok(now) if now.count(cache.prefix(), None) == 0 => return,
                    _ => {}
                }
                if watcher.next().await.is_none() {
                    cache.ready().await;
                    match cache.snapshot_and_watch(&Scope::All) {
                        Ok((_, next)) => watcher = next,
                        Err(_) => tokio::time::sleep(AGAIN).await,
                    }
                }
            }
        };
        let late = || ("InstanceDeletionCheck", Status::timeout("timed out waiting for the condition", 0));
        tokio::time::timeout(PATIENCE, gone).await.map_err(|_| late())
    }

    async fn delete_one(&self, kind: &Kind, object: &Value) -> Result<(), Status> {
        let context = super::super::bootstrap::own_context();
        let call = Call {
            context: &context,
            kind: *kind,
            namespace: object::namespace(object).to_owned(),
            name: object::name(object).to_owned(),
            subresource: "",
            options: WriteOptions::default(),
            warnings: Warnings::default(),
            // As upstream: what goes with its definition is asked of nobody.
            seen: Seen::Already,
        };
        match self.delete(&call, &DeleteOptions::default()).await {
            Ok(Deleted::Object(_) | Deleted::Status(_)) => Ok(()),
            Err(error) if error.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes the condition, and lets the definition go where that is done.
    async fn tell(&self, of: &str, condition: Value, done: bool) -> Result<(), Status> {
        let Some(kind) = definitions() else { return Ok(()) };
        let change = |old: &Value| {
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
        self.amend(&kind, "", of, "status", &change).await.map(drop)
    }
}
