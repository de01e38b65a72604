//! An API server on an embedded store, in this process.

use apiserver::local::LocalService;
use apiserver::registry::{self, Registry};
use apiserver::server::{Authorization, Config, Parts};
use apiserver::tasks::Tasks;
use apiserver::write::Writer;
use apiserver::{ApiServer, Catalog, CustomResources, Dialer, Shared, User, default_node_addresses};
use pki::{Authority, Leaf};
use std::sync::Arc;
use store::embedded::{Options, Store};
use tokio_util::sync::CancellationToken;

pub struct Server {
    api: ApiServer,
    pub authority: Arc<Authority>,
    _stop: tokio_util::sync::DropGuard,
    _folder: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path().join("store"), Options::default()).unwrap());
        let registry = Registry::new(store, registry::Config::default());
        let writer = Writer::new(registry.clone());
        let stored = Shared(writer.clone());
        let now = jiff::Timestamp::now();
        let authority = Arc::new(Authority::generate("kubernetes", now).unwrap());
        let leaf = authority.issue(&Leaf::client("apiserver", &["system:masters"]), now).unwrap();
        let dialer =
            Arc::new(Dialer::new(Some(&authority.cert_pem()), &leaf.cert_pem, &leaf.key_pem).unwrap());
        let authorization = Authorization::default();
        let parts = Parts {
            aggregator: None,
            objects: Arc::new(stored.clone()),
            resources: Arc::new(stored.clone()),
            catalog: Arc::new(Catalog::new(vec![Arc::new(CustomResources(registry.clone()))])),
            documents: Vec::new(),
            authorization,
            health: Arc::default(),
            metrics: Arc::default(),
            tasks: Tasks::default(),
        };
        let stop = CancellationToken::new();
        let api = ApiServer::new(Config::default(), parts, stop.clone());
        registry.attach(api.front(dialer, Arc::new(stored), default_node_addresses()));
        writer.start(stop.clone()).await.unwrap();
        Self { api, authority, _stop: stop.drop_guard(), _folder: folder }
    }

    /// The way in as `user`, with an administrator's rights.
    pub fn service(&self, user: &str) -> LocalService {
        let groups = vec!["system:masters".to_owned(), "system:authenticated".to_owned()];
        self.api.local_service(User { name: user.to_owned(), groups, ..User::default() })
    }

    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.service("admin"), "default")
    }
}
