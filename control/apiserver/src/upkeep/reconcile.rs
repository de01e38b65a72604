//! Objects the server itself keeps: reconcilers woken by changes of what they read.

use crate::registry::Registry;
use crate::registry::kind::Kind;
use crate::registry::metadata::time;
use crate::write::Writer;
use futures::future::BoxFuture;
use machinery::access::{Get as _, list_at, set_at};
use machinery::object;
use machinery::status::Status;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use store::cache::Scope;
use supervise::{Backoff, Task};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A round reads every object of its kinds. Changes this close to each other share one, or making n objects would cost n rounds of n.
const QUIET: Duration = Duration::from_millis(100);
/// Changes that never pause delay a round by no more than this.
const LATEST: Duration = Duration::from_secs(1);
/// The pauses after rounds that failed, whatever changes meanwhile: what a failed round wrote is a change as well.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));

/// One look at everything, and the writes that follow from it.
pub(crate) type Round = BoxFuture<'static, Result<(), Status>>;

/// What a reconciler reads: changes of these objects wake it.
pub(crate) type Read = (Kind, Scope);

/// All objects of a kind; none where it is not served.
pub(crate) fn all(group: &str, plural: &str) -> Option<Read> {
    Some((Kind::of(group, plural)?, Scope::All))
}

/// Runs `reconcile` now, after every change of what it `reads`, and every `period`, until `shutdown`, in a task `name`. It reads the
/// newest state and brings objects to what they should be; a round that fails is logged and repeated with backoff. Gives the bell that calls
/// for a round, for what is no object.
pub(crate) fn keep_up(
    registry: &Arc<Registry>,
    name: &'static str,
    reads: Vec<Read>,
    period: Duration,
    reconcile: impl Fn() -> Round + Send + Sync + 'static,
    shutdown: &CancellationToken,
) -> Arc<Notify> {
    let tasks = registry.tasks(shutdown);
    let changed = Arc::new(Notify::new());
    for (kind, scope) in reads {
        let (registry, changed) = (registry.clone(), changed.clone());
        tasks.keep(Task::endless(format!("{name}/{}", kind.resource.plural), move || {
            let (registry, changed, scope) = (registry.clone(), changed.clone(), scope.clone());
            async move { tell_changes(&registry, &kind, &scope, &changed).await }
        }));
    }
    let (reconcile, bell) = (Arc::new(reconcile), changed.clone());
    tasks.keep(Task::endless(name, move || {
        let (reconcile, changed) = (reconcile.clone(), changed.clone());
        async move { rounds(name, &*reconcile, &changed, period).await }
    }));
    bell
}

/// Rings `bell` whenever what definitions serve changes.
pub(super) fn follow_definitions(registry: &Arc<Registry>, bell: Arc<Notify>, shutdown: &CancellationToken) {
    let registry = registry.clone();
    let tasks = registry.tasks(shutdown);
    let served = registry.clone();
    tasks.keep(Task::endless("served-definitions", move || {
        let (mut changes, bell) = (served.custom.changes(), bell.clone());
        async move {
            loop {
                bell.notify_one();
                if changes.changed().await.is_err() {
                    return;
                }
            }
        }
    }));
}

async fn rounds(name: &str, reconcile: &(impl Fn() -> Round + Sync), changed: &Notify, period: Duration) {
    let mut pauses = PAUSES;
    loop {
        if let Err(error) = reconcile().await {
            tracing::warn!(%error, reconciler = name, "a round failed");
            pauses.pause().await;
            continue;
        }
        pauses.reset();
        let ended = Instant::now();
        let _ = tokio::time::timeout(period, changed.notified()).await;
        // The first change after a calm is met at once.
        if ended.elapsed() < LATEST {
            let latest = Instant::now() + LATEST;
            while Instant::now() < latest && tokio::time::timeout(QUIET, changed.notified()).await.is_ok() {}
        }
    }
}

async fn tell_changes(registry: &Registry, kind: &Kind, scope: &Scope, changed: &Notify) {
    let Ok(cache) = registry.cache(kind) else { return };
    loop {
        cache.ready().await;
        let Ok((_, mut watcher)) = cache.snapshot_and_watch(scope) else { return };
        changed.notify_one();
        while watcher.next().await.is_some() {
            changed.notify_one();
        }
    }
}

/// Writes a condition into the status of a cluster-scoped object, unless it says so already.
pub(crate) async fn say(writer: &Writer, kind: &Kind, object: &Value, wanted: &Value) -> Result<(), Status> {
    if is_said(object, wanted) {
        return Ok(());
    }
    let now = time(jiff::Timestamp::now());
    let change = |old: &Value| {
        let mut new = old.clone();
        object::set_resource_version(&mut new, "");
        put(&mut new, wanted, &now);
        Ok(new)
    };
    match writer.amend(kind, "", object::name(object), "status", &change).await {
        Err(error) if error.code != 404 => Err(error),
        _ => Ok(()),
    }
}

fn is_said(schema: &Value, wanted: &Value) -> bool {
    schema.items("status.conditions").iter().any(|condition| {
        ["type", "status", "reason", "message"].iter().all(|field| condition.at(field) == wanted.at(field))
    })
}

/// Writes a condition; its time changes with its status only.
fn put(schema: &mut Value, wanted: &Value, now: &str) {
    let conditions = list_at(schema, "status.conditions");
    let mut wanted = wanted.clone();
    let present = conditions.iter_mut().find(|c| c.text("type") == wanted.text("type"));
    let since = match &present {
        Some(old) if old.text("status") == wanted.text("status") => old.text("lastTransitionTime").to_owned(),
        _ => now.to_owned(),
    };
    set_at(&mut wanted, "lastTransitionTime", since);
    match present {
        Some(old) => *old = wanted,
        None => conditions.push(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn dangling(message: &str, status: &str) -> Value {
        json!({"type": "Dangling", "status": status, "reason": "x", "message": message})
    }

    /// How many rounds run within `span`, of changes every 10 ms.
    async fn rounds_within(span: Duration, outcome: fn() -> Result<(), Status>) -> u32 {
        let count = Arc::new(AtomicU32::new(0));
        let changed = Notify::new();
        let reconcile = || -> Round {
            count.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::ready(outcome()))
        };
        let changes = async {
            loop {
                changed.notify_one();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let both =
            futures::future::join(rounds("test", &reconcile, &changed, Duration::from_secs(3600)), changes);
        assert!(tokio::time::timeout(span, both).await.is_err());
        count.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_that_fails_must_not_be_repeated_at_every_change() {
        let rounds = rounds_within(Duration::from_secs(60), || Err(Status::internal_error("no"))).await;
        assert!((5..=10).contains(&rounds), "{rounds}");
    }

    #[tokio::test(start_paused = true)]
    async fn changes_without_a_pause_must_not_hold_a_round_up() {
        let rounds = rounds_within(Duration::from_secs(60), || Ok(())).await;
        assert!((50..=62).contains(&rounds), "{rounds}");
    }

    #[test]
    fn a_conditions_time_follows_its_status() {
        let mut schema = json!({"metadata": {"name": "s"}});
        put(&mut schema, &dangling("l", "True"), "t1");
        assert!(is_said(&schema, &dangling("l", "True")) && !is_said(&schema, &dangling("m", "True")));
        put(&mut schema, &dangling("m", "True"), "t2");
        assert_eq!(schema["status"]["conditions"][0]["lastTransitionTime"], "t1");
        put(&mut schema, &dangling("m", "False"), "t3");
        assert_eq!(schema["status"]["conditions"][0]["lastTransitionTime"], "t3");
    }
}
