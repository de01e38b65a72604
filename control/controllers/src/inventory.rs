//! The kinds the API server has, custom resources included, and word of their objects that go. Kept by [`follow`], the one that asks for them;
//! read by whoever deals with any kind. Of objects that go, those tell who watch every kind ([`crate::garbage`]).

use crate::discovery::{Offers, discover};
use kube::Client;
use kube::api::ApiResource;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use supervise::Task;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

/// How often new kinds are looked for (upstream's resync period) while nobody says that there are some.
pub(crate) const PERIOD: Duration = Duration::from_secs(30);
/// How long word of new kinds is gathered: a definition is written before its kind is served, and many come at once.
const SETTLE: Duration = Duration::from_secs(1);

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
    /// What was found last.
    offers: watch::Sender<Option<Arc<Offers>>>,
    handlers: RwLock<Vec<Handler>>,
    changed: Notify,
}

/// Whether objects of this kind say which kinds there are.
pub(crate) fn tells_of_kinds(resource: &ApiResource) -> bool {
    let kind = (resource.group.as_str(), resource.kind.as_str());
    matches!(
        kind,
        ("apiextensions.k8s.io", "CustomResourceDefinition") | ("apiregistration.k8s.io", "APIService")
    )
}

impl Inventory {
    /// Other kinds may be served from now on.
    pub(crate) fn look_again(&self) {
        self.changed.notify_one();
    }

    /// Everything that is served in every version, as it is found; nothing before the first time.
    pub(crate) fn offers(&self) -> watch::Receiver<Option<Arc<Offers>>> {
        self.offers.subscribe()
    }

    /// These are the kinds that are served, and no others.
    pub(crate) fn replace(&self, offers: Offers) {
        let served = offers.preferred().map(|offer| {
            let resource = offer.resource.clone();
            let key = (resource.group.clone(), resource.plural.clone());
            (key, Served { resource, namespaced: offer.namespaced })
        });
        *self.served.lock() = served.collect();
        self.offers.send_replace(Some(Arc::new(offers)));
    }

    /// A kind is served no more.
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

    /// Has `handler` called when objects of a kind are gone. Register before any kind is watched.
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

/// Keeps the inventory.
pub(crate) fn follow(client: Client, inventory: Arc<Inventory>) -> Task {
    Task::endless("discovery", move || {
        let (client, inventory) = (client.clone(), inventory.clone());
        async move {
            loop {
                match discover(&client).await {
                    Ok(offers) => inventory.replace(offers),
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::debug!(error, "discovery failed; tried again");
                    }
                }
                let changed = async {
                    inventory.changed.notified().await;
                    sleep(SETTLE).await;
                };
                // Without a change it is time all the same.
                let _ = timeout(PERIOD, changed).await;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::tests::group;
    use crate::fake::Fake;
    use serde_json::json;
    use supervise::{Scope, Supervisor};
    use tokio_util::sync::CancellationToken;

    #[tokio::test(start_paused = true)]
    async fn every_kind_that_is_served_becomes_known() {
        let fake = Fake::default();
        let list = |group: serde_json::Value| json!({ "metadata": {}, "items": [group] });
        fake.put("/api", list(group("", &[("v1", &["pods"])])));
        fake.put("/apis", list(group("g.io", &[("v1", &["as"]), ("v1beta1", &["bs"])])));
        let inventory = Arc::new(Inventory::default());
        let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
        let scope = Scope::new(&supervisor, "", &stop);
        scope.keep(follow(fake.client(), inventory.clone()));
        let mut offers = inventory.offers();
        let found = offers.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert_eq!((found.kinds.len(), found.incomplete()), (3, None));
        assert!(inventory.get("", "pods").is_some_and(|served| served.namespaced));
        assert_eq!(inventory.by_kind("g.io", "bs").unwrap().resource.version, "v1beta1");
        stop.cancel();
        scope.ended().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_kind_must_not_wait_for_the_period() {
        let fake = Fake::default();
        let list = |group: serde_json::Value| json!({ "metadata": {}, "items": [group] });
        fake.put("/api", list(group("", &[("v1", &["pods"])])));
        fake.put("/apis", list(group("g.io", &[("v1", &["as"])])));
        let inventory = Arc::new(Inventory::default());
        let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
        let scope = Scope::new(&supervisor, "", &stop);
        scope.keep(follow(fake.client(), inventory.clone()));
        let mut offers = inventory.offers();
        offers.wait_for(Option::is_some).await.unwrap();
        for kinds in [&["as", "bs"][..], &["as", "bs", "cs"], &["cs"]] {
            fake.put("/apis", list(group("g.io", &[("v1", kinds)])));
            let asked = tokio::time::Instant::now();
            inventory.look_again();
            offers.borrow_and_update();
            offers.changed().await.unwrap();
            assert!(asked.elapsed() < Duration::from_secs(2), "{kinds:?}: {:?}", asked.elapsed());
            let served: Vec<bool> =
                ["as", "bs", "cs"].map(|kind| inventory.get("g.io", kind).is_some()).into();
            assert_eq!(served, ["as", "bs", "cs"].map(|kind| kinds.contains(&kind)));
        }
        stop.cancel();
        scope.ended().await;
    }

    #[test]
    fn definitions_and_api_services_tell_of_kinds() {
        let tells = |group: &str, kind: &str| {
            tells_of_kinds(&ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, "v1", kind)))
        };
        assert!(tells("apiextensions.k8s.io", "CustomResourceDefinition"));
        assert!(tells("apiregistration.k8s.io", "APIService"));
        assert!(!tells("", "ConfigMap"));
        assert!(!tells("acme.com", "APIService"));
    }
}
