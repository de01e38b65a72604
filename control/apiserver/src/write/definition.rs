//! How a definition is deleted: its instances go first ([`crate::upkeep`] deletes them).

use crate::registry::metadata::finalizers;
use machinery::custom::conditions;
use machinery::object;
use serde_json::{Value, json};

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
