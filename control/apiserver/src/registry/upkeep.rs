//! Objects the server itself keeps: reconcilers woken by changes of what they read.

use super::Registry;
use super::kind::Kind;
use super::metadata::{at, items, list_mut, set, text, time};
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

impl Registry {
    /// Runs `reconcile` now, after every change of one of `kinds`, and every `period`, until `shutdown`, in a task `name`. It reads the
    /// newest state and brings objects to what they should be; what fails is tried again.
    pub(crate) fn keep_up(
        self: &Arc<Self>,
        name: &str,
        kinds: Vec<Kind>,
        period: Duration,
        reconcile: impl Fn(Arc<Registry>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
        shutdown: &CancellationToken,
    ) {
        let tasks = self.tasks(shutdown);
        let changed = Arc::new(Notify::new());
        for kind in kinds {
            let (registry, changed) = (self.clone(), changed.clone());
            tasks.keep(Task::endless(format!("{name}/{}", kind.resource.plural), move || {
                let (registry, changed) = (registry.clone(), changed.clone());
                async move { registry.tell_changes(&kind, &changed).await }
            }));
        }
        let (registry, reconcile) = (self.clone(), Arc::new(reconcile));
        tasks.keep(Task::endless(name, move || {
            let (registry, reconcile, changed) = (registry.clone(), reconcile.clone(), changed.clone());
            async move {
                loop {
                    reconcile(registry.clone()).await;
                    tokio::time::sleep(TOGETHER).await;
                    tokio::select! {
                        () = changed.notified() => {}
                        () = tokio::time::sleep(period) => {}
                    }
                }
            }
        }));
    }

    async fn tell_changes(&self, kind: &Kind, changed: &Notify) {
        let Ok(cache) = self.cache(kind) else { return };
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
    pub(crate) async fn say(&self, kind: &Kind, object: &Value, wanted: &Value) -> Result<(), Status> {
        if is_said(object, wanted) {
            return Ok(());
        }
        let now = time(jiff::Timestamp::now());
        let change = |old: &Value| {
            let mut new = old.clone();
            object::set_resource_version(&mut new, "");
            say(&mut new, wanted, &now);
            Ok(new)
        };
        match self.amend(kind, "", object::name(object), "status", &change).await {
            Err(error) if error.code != 404 => Err(error),
            _ => Ok(()),
        }
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
fn say(schema: &mut Value, wanted: &Value, now: &str) {
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
        say(&mut schema, &dangling("l", "True"), "t1");
        assert!(is_said(&schema, &dangling("l", "True")) && !is_said(&schema, &dangling("m", "True")));
        say(&mut schema, &dangling("m", "True"), "t2");
        assert_eq!(schema["status"]["conditions"][0]["lastTransitionTime"], "t1");
        say(&mut schema, &dangling("m", "False"), "t3");
        assert_eq!(schema["status"]["conditions"][0]["lastTransitionTime"], "t3");
    }
}
