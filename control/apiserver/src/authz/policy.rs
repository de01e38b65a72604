//! Roles and bindings in memory, parsed once, kept current by observed changes.

use super::rbac::{Binding, GROUP, PolicyRule, PolicySource};
use crate::objects::{Observer, names};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

type Rules = Arc<Vec<PolicyRule>>;

/// The policy of a cluster. Reading takes a short lock and clones a pointer.
#[derive(Default)]
pub struct Policy(RwLock<State>);

#[derive(Default)]
struct State {
    /// (namespace or empty, name) to rules.
    roles: FxHashMap<(String, String), Rules>,
    /// Namespace (or empty) to bindings by name.
    bindings: FxHashMap<String, Namespace>,
}

#[derive(Default)]
struct Namespace {
    by_name: BTreeMap<String, Arc<Binding>>,
    /// The same bindings as readers take them; rebuilt on change.
    all: Arc<Vec<Arc<Binding>>>,
}

impl Policy {
    /// Reads one Role, ClusterRole, RoleBinding or ClusterRoleBinding. A malformed part grants nothing.
    pub fn put(&self, object: &Value) {
        match object.get("kind").and_then(Value::as_str) {
            Some("ClusterRole") => self.put_role(object, true),
            Some("Role") => self.put_role(object, false),
            Some("ClusterRoleBinding") => self.put_binding(object, true),
            Some("RoleBinding") => self.put_binding(object, false),
            _ => {}
        }
    }

    fn put_role(&self, object: &Value, cluster: bool) {
        let (namespace, name) = names(object);
        let namespace = if cluster { "" } else { namespace };
        let rules = read::<Vec<PolicyRule>>(object, "rules");
        self.0.write().roles.insert((namespace.to_owned(), name.to_owned()), Arc::new(rules));
    }

    fn put_binding(&self, object: &Value, cluster: bool) {
        let (namespace, name) = names(object);
        let binding = Binding {
            namespace: if cluster { String::new() } else { namespace.to_owned() },
            name: name.to_owned(),
            role: read(object, "roleRef"),
            subjects: read(object, "subjects"),
        };
        let mut state = self.0.write();
        let namespace = state.bindings.entry(binding.namespace.clone()).or_default();
        namespace.by_name.insert(name.to_owned(), Arc::new(binding));
        namespace.all = Arc::new(namespace.by_name.values().cloned().collect());
    }

    fn remove_binding(&self, namespace: &str, name: &str) {
        let mut state = self.0.write();
        if let Some(held) = state.bindings.get_mut(namespace) {
            held.by_name.remove(name);
            held.all = Arc::new(held.by_name.values().cloned().collect());
            if held.by_name.is_empty() {
                state.bindings.remove(namespace);
            }
        }
    }
}

fn read<T: for<'de> Deserialize<'de> + Default>(object: &Value, field: &str) -> T {
    object.get(field).and_then(|v| T::deserialize(v).ok()).unwrap_or_default()
}

impl Observer for Policy {
    fn put(&self, group: &str, resource: &str, object: &Value) {
        if group != GROUP {
            return;
        }
        match resource {
            "clusterroles" => self.put_role(object, true),
            "roles" => self.put_role(object, false),
            "clusterrolebindings" => self.put_binding(object, true),
            "rolebindings" => self.put_binding(object, false),
            _ => {}
        }
    }

    fn delete(&self, group: &str, resource: &str, namespace: &str, name: &str) {
        if group != GROUP {
            return;
        }
        match resource {
            "clusterroles" | "roles" => {
                self.0.write().roles.remove(&(namespace.to_owned(), name.to_owned()));
            }
            "clusterrolebindings" | "rolebindings" => self.remove_binding(namespace, name),
            _ => {}
        }
    }
}

impl PolicySource for Policy {
    fn cluster_bindings(&self) -> Arc<Vec<Arc<Binding>>> {
        self.bindings("")
    }

    fn bindings(&self, namespace: &str) -> Arc<Vec<Arc<Binding>>> {
        self.0.read().bindings.get(namespace).map(|n| n.all.clone()).unwrap_or_default()
    }

    fn cluster_role(&self, name: &str) -> Option<Rules> {
        self.role("", name)
    }

    fn role(&self, namespace: &str, name: &str) -> Option<Rules> {
        self.0.read().roles.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }
}
