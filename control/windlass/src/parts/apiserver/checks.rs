//! Health checks under the names upstream's server has them, for those who watch or exclude them by name.

use apiserver::health::Health;
use apiserver::registry::Registry;
use std::sync::Arc;
use tokio::sync::watch;

/// What upstream starts by hooks and has a counterpart here. All of it is done once the server is ready.
const STARTED: [&str; 20] = [
    "poststarthook/start-registry",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
];

/// Adds the checks of what is started once, and of the watch caches.
pub(super) fn add(health: &Health, ready: &watch::Sender<bool>, registry: &Arc<Registry>) {
    for name in STARTED {
        let seen = ready.subscribe();
        health.add_start(name, move || if *seen.borrow() { Ok(()) } else { Err("not finished".to_owned()) });
    }
    let registry = registry.clone();
    health.add("informer-sync", false, move || match registry.unsynced().as_slice() {
        [] => Ok(()),
        left => Err(format!("{} informers not started yet: {}", left.len(), left.join(" "))),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use apiserver::health::Endpoint;
    use apiserver::registry::Config;
    use store::embedded::{Options, Store};

    #[tokio::test]
    async fn a_server_that_still_starts_must_not_be_called_ready() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store"), Options::default()).unwrap();
        let registry = Registry::new(Arc::new(store), Config::default());
        let (health, ready) = (Health::default(), watch::Sender::new(false));
        add(&health, &ready, &registry);
        let code = |check: &str| health.answer(Endpoint::Ready, check, &[]).status().as_u16();
        assert_eq!((code("poststarthook/rbac/bootstrap-roles"), code("informer-sync")), (500, 500));
        ready.send_replace(true);
        assert_eq!((code("poststarthook/rbac/bootstrap-roles"), code("autoregister-completion")), (200, 200));
        assert_eq!(code("informer-sync"), 500, "nothing was read yet");
    }
}
