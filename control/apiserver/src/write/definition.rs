//! What is its own of a definition's life: its creation is answered once it has a status, and its deletion waits for its instances
//! ([`crate::upkeep`] gives the one and deletes the others).

use crate::registry::Registry;
use crate::registry::kind::Kind;
use crate::registry::metadata::finalizers;
use machinery::custom::conditions;
use machinery::object;
use serde_json::{Value, json};
use std::time::Duration;
use store::Revision;
use store::cache::Scope;

/// How long a creation waits for the definition's first status at most.
const SETTLED: Duration = Duration::from_secs(1);

/// What holds a definition until its instances are gone.
pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The condition of a definition that is being deleted.
pub(crate) fn terminating(status: &str, reason: &str, message: String) -> Value {
    json!({"type": "Terminating", "status": status, "reason": reason, "message": message})
}

/// A definition as its first DELETE leaves it.
pub(crate) fn mark(crd: &mut Value, now: &str) {
    object::metadata_mut(crd).insert("deletionTimestamp".to_owned(), now.into());
    let mut held: Vec<String> = finalizers(crd).into_iter().map(str::to_owned).collect();
    if !held.iter().any(|f| f == FINALIZER) {
        held.push(FINALIZER.to_owned());
        object::set_finalizers(crd, held);
    }
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    conditions::write(crd, terminating("True", "InstanceDeletionPending", message.to_owned()), now);
}

/// Waits until the definition that was made at `made` has been looked at: it is served then, or says why not. So whoever made it can go on with
/// its objects, and nobody makes definitions faster than they are established. A keeper that is behind holds nobody up for long.
pub(super) async fn settled(registry: &Registry, kind: &Kind, name: &str, made: Revision) {
    let scope = Scope::Object { namespace: None, name: name.to_owned() };
    let Some((snapshot, mut changes)) =
        registry.cache(kind).ok().and_then(|c| c.snapshot_and_watch(&scope).ok())
    else {
        return;
    };
    // A revision behind the one that made it is of its status, or of its end.
    if snapshot.get(&kind.resource.key("", name)).is_some_and(|seen| seen.revision > made) {
        return;
    }
    let later = async { while changes.next().await.is_some_and(|change| change.object.revision <= made) {} };
    let _ = tokio::time::timeout(SETTLED, later).await;
}
