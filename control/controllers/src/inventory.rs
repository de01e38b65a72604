//! The kinds the API server has, custom resources included, and word of their objects that go. Filled by the garbage collector, which watches
//! every kind there is; read by whoever deals with any kind.

use kube::api::ApiResource;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;

/// A kind that is served.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    /// How to ask for it.
    pub resource: ApiResource,
    /// Its objects live in namespaces.
    pub namespaced: bool,
}

/// Called with group, plural name and namespace; the namespace is empty when objects may have gone anywhere.
type Handler = Box<dyn Fn(&str, &str, &str) + Send + Sync>;

/// The kinds, by group and plural name.
#[derive(Default)]
pub(crate) struct Inventory {
    served: Mutex<HashMap<(String, String), Served>>,
    handlers: RwLock<Vec<Handler>>,
}

impl Inventory {
    /// A kind is served.
    pub(crate) fn learn(&self, resource: &ApiResource, namespaced: bool) {
        let key = (resource.group.clone(), resource.plural.clone());
        self.served.lock().insert(key, Served { resource: resource.clone(), namespaced });
    }

    /// A kind is no longer served.
    pub(crate) fn forget(&self, resource: &ApiResource) {
        self.served.lock().remove(&(resource.group.clone(), resource.plural.clone()));
    }

    /// A kind by its group and plural name.
    pub(crate) fn get(&self, group: &str, plural: &str) -> Option<Served> {
        self.served.lock().get(&(group.to_owned(), plural.to_owned())).cloned()
    }

    /// A kind by its group and kind.
    pub(crate) fn by_kind(&self, group: &str, kind: &str) -> Option<Served> {
        let served = self.served.lock();
        served.values().find(|s| s.resource.group == group && s.resource.kind == kind).cloned()
    }

    /// Has `handler` called when objects of a kind are gone. Register before the garbage collector runs.
    pub(crate) fn on_gone(&self, handler: impl Fn(&str, &str, &str) + Send + Sync + 'static) {
        self.handlers.write().push(Box::new(handler));
    }

    /// An object of a kind is gone (with an empty namespace: some may be, anywhere).
    pub(crate) fn gone(&self, resource: &ApiResource, namespace: &str) {
        for handler in self.handlers.read().iter() {
            handler(&resource.group, &resource.plural, namespace);
        }
    }
}
