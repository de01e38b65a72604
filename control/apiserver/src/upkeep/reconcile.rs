//! Objects the server itself keeps: reconcilers woken by changes of what they read.

use crate::registry::Registry;
use crate::registry::kind::Kind;
use crate::registry::metadata::{at, items, list_mut, set, text, time};
use crate::write::Writer;
use futures::future::BoxFuture;
use machinery::object;
use machinery::status::Status;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use store::cache::Scope;
use supervise::Task;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Changes that come together are met by one round.
const TOGETHER: Duration = Duration::from_millis(100);

/// Runs `reconcile` now, after every change of one of `kinds`, and every `period`, until `shutdown`, in a task `name`. It reads the
/// newest state and brings objects to what they should be; what fails is tried again in the next round.
pub(crate) fn keep_up(
    registry: &Arc<Registry>,
    name: &str,
    kinds: Vec<Kind>,
    period: Duration,
    reconcile: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static,
    shutdown: &CancellationToken,
) {
    let tasks = registry.tasks(shutdown);
    let changed = Arc::new(Notify::new());
    for kind in kinds {
        let (registry, changed) = (registry.clone(), changed.clone());
        tasks.keep(Task::endless(format!("{name}/{}", kind.resource.plural), move || {
            let (registry, changed) = (registry.clone(), changed.clone());
            async move { tell_changes(&registry, &kind, &changed).await }
        }));
    }
    let reconcile = Arc::new(reconcile);
    tasks.keep(Task::endless(name, move || {
        let (reconcile, changed) = (reconcile.clone(), changed.clone());
        async move {
            loop {
                reconcile().await;
                tokio::time::sleep(TOGETHER).await;
                tokio::select! {
                    () = changed.notified() => {}
                    () = tokio::time::sleep(period) => {}
                }
            }
        }
    }));
}

async fn tell_changes(registry: &Registry, kind: &Kind, changed: &Notify) {
    let Ok(cache) = registry.cache(kind) else { return };
    loop {
        cache.ready().await;
        let Ok((_, mut watcher)) = cache.snapshot_and_watch(&Scope::All) else { return };
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
    items(schema, &["status", "conditions"]).iter().any(|condition| {
        ["type", "status", "reason", "message"]
            .iter()
            .all(|field| at(condition, &[field]) == at(wanted, &[field]))
    })
}

/// Writes a condition; its time changes with its status only.
fn put(schema: &mut Value, wanted: &Value, now: &str) {
    let conditions = list_mut(schema, &["status", "conditions"]);
    let mut wanted = wanted.clone();
    let present = conditions.iter_mut().find(|c| text(c, &["type"]) == text(&wanted, &["type"]));
    let since = match &present {
        Some(old) if text(old, &["status"]) == text(&wanted, &["status"]) => {
            text(old, &["lastTransitionTime"]).to_owned()
        }
        _ => now.to_owned(),
    };
    set(&mut wanted, &["lastTransitionTime"], since);
    match present {
        Some(old) => *old = wanted,
        None => conditions.push(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dangling(message: &str, status: &str) -> Value {
        json!({"type": "Dangling", "status": status, "reason": "x", "message": message})
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
