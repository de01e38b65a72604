//! What the front of the server reads of stored objects, and how it follows their changes.
//!
//! The registry's cache is on the other side of both traits; tests use `Fixed`.

#[cfg(test)]
mod fixed;

#[cfg(test)]
pub(crate) use fixed::Fixed;

use futures::future::BoxFuture;
use serde_json::Value;
use std::sync::Arc;

/// Reads single objects. `namespace` is empty for cluster scope; the value may be a moment old.
pub trait Lookup: Send + Sync {
    /// The object, or `None` where there is none.
    fn get<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Option<Arc<Value>>>;

    /// Sets a label of a secret, if the object of that name still has that uid. Failures are logged: nobody waits for it.
    fn label_secret<'a>(
        &'a self,
        secret: &'a Value,
        label: &'static str,
        value: &'a str,
    ) -> BoxFuture<'a, ()>;
}

/// Is given every stored object of the resources in [`OBSERVED`], in the order of their revisions.
pub trait Observer: Send + Sync {
    /// The object was added or changed.
    fn put(&self, group: &str, resource: &str, object: &Value);
    /// The object is gone.
    fn delete(&self, group: &str, resource: &str, namespace: &str, name: &str);
}

/// The (group, resource) pairs whose changes authorisation and flow control need.
pub const OBSERVED: [(&str, &str); 11] = [
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("", "pods"),
    ("", "persistentvolumes"),
    ("storage.k8s.io", "volumeattachments"),
    ("resource.k8s.io", "resourceslices"),
    ("", "nodes"),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
];

/// Lets several observers hear the same changes.
impl Observer for Vec<Arc<dyn Observer>> {
    fn put(&self, group: &str, resource: &str, object: &Value) {
        self.iter().for_each(|o| o.put(group, resource, object));
    }

    fn delete(&self, group: &str, resource: &str, namespace: &str, name: &str) {
        self.iter().for_each(|o| o.delete(group, resource, namespace, name));
    }
}

/// Namespace (or empty) and name of an object.
pub(crate) fn names(object: &Value) -> (&str, &str) {
    (text(object, "/metadata/namespace"), text(object, "/metadata/name"))
}

/// The string at a JSON pointer, or the empty string.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a JSON pointer, or an empty one.
pub(crate) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The strings of the list at a JSON pointer.
pub(crate) fn texts(object: &Value, pointer: &str) -> Vec<String> {
    list(object, pointer).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}
