//! The handler in process, on a store of either engine (`ground`): requests as the front hands them over, answers to the letter.

use super::handle;
use crate::answer::body as full;
use crate::context::{Context, Response, User};
use crate::registry::{Config, Registry, hooks};
use crate::write::Writer;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use store::Backend;
use tokio_util::sync::{CancellationToken, DropGuard};

mod admission;
mod aggregated;
mod applies;
mod audit;
mod conversions;
mod custom;
mod definitions;
mod deletion;
mod devices;
mod escalation;
mod gate;
mod granting;
mod ground;
mod lists;
mod node_restriction;
mod numbers;
mod owners;
mod ownership;
mod pod_security;
mod policies;
mod servers;
mod services;
mod settings;
mod subresources;
mod supervision;
mod watches;
mod webhooks;
mod writes;

struct Server {
    writer: Arc<Writer>,
    registry: Arc<Registry>,
    _stop: DropGuard,
    _ground: Box<dyn std::any::Any + Send + Sync>,
}

struct Received {
    code: u16,
    headers: http::HeaderMap,
    body: Value,
}

fn admin() -> User {
    User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() }
}

impl Server {
    async fn start() -> Self {
        Self::with(Config::default()).await
    }

    async fn with(config: Config) -> Self {
        Self::with_hooks(config, Arc::new(hooks::AllowAll)).await
    }

    async fn with_hooks(config: Config, hooks: Arc<dyn hooks::Hooks>) -> Self {
        let (store, ground) = ground::open().await;
        let server = Self::on(store, config, hooks, ground).await;
        // The default account is a controller's work.
        server
            .ok(
                "POST",
                "/api/v1/namespaces/default/serviceaccounts",
                json!({"metadata": {"name": "default"}}),
            )
            .await;
        server
    }

    /// A server on a store that others may have, too.
    async fn on(
        store: Arc<dyn Backend>,
        config: Config,
        hooks: Arc<dyn hooks::Hooks>,
        ground: Box<dyn std::any::Any + Send + Sync>,
    ) -> Self {
        let registry = Registry::new(store, config);
        registry.attach(hooks);
        let stop = CancellationToken::new();
        let writer = Writer::new(registry.clone());
        writer.start(stop.clone()).await.unwrap();
        Server { writer, registry, _stop: stop.drop_guard(), _ground: ground }
    }

    /// Another server of the same cluster.
    async fn another(&self, config: Config) -> Self {
        Self::on(self.registry.backend.clone(), config, Arc::new(hooks::AllowAll), Box::new(())).await
    }

    async fn send(
        &self,
        method: &str,
        target: &str,
        body: impl Into<bytes::Bytes>,
        headers: &[(&str, &str)],
        user: User,
    ) -> Response {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let method: Method = method.parse().unwrap();
        let query = crate::query::parse(query);
        let info = crate::request::parse(&method, path, &query).unwrap();
        let context = Context { info, user, query, user_agent: "test/1".into(), ..Context::default() };
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        handle(&self.writer, context, request.body(full(body.into())).unwrap()).await
    }

    async fn call(&self, method: &str, target: &str, body: Value, headers: &[(&str, &str)]) -> Received {
        let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
        answer(self.send(method, target, bytes, headers, admin()).await).await
    }

    async fn ask(&self, method: &str, target: &str, body: Value) -> Received {
        self.call(method, target, body, &[]).await
    }

    async fn ok(&self, method: &str, target: &str, body: Value) -> Value {
        let answer = self.ask(method, target, body).await;
        assert!(answer.code < 300, "{method} {target}: {} {}", answer.code, answer.body);
        answer.body
    }

    async fn get(&self, target: &str) -> Value {
        self.ok("GET", target, Value::Null).await
    }

    async fn refused(&self, method: &str, target: &str, body: Value) -> (u16, String) {
        let answer = self.ask(method, target, body).await;
        assert!(answer.code >= 400, "{method} {target}: {}", answer.body);
        (answer.code, answer.body["message"].as_str().unwrap_or_default().to_owned())
    }

    async fn patch(&self, target: &str, kind: &str, body: Value) -> Received {
        self.call("PATCH", target, body, &[("content-type", &format!("application/{kind}"))]).await
    }
}

async fn answer(response: Response) -> Received {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Received { code: parts.status.as_u16(), headers: parts.headers, body }
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]},
    })
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn unknown_resources_and_verbs_are_refused() {
    let s = Server::start().await;
    let (code, text) = s.refused("GET", "/api/v1/namespaces/default/nonsense", Value::Null).await;
    assert_eq!((code, text.as_str()), (404, "the server could not find the requested resource"));
    let (code, _) = s.refused("DELETE", "/api/v1/namespaces", Value::Null).await;
    assert_eq!(code, 405);
}

#[tokio::test]
async fn a_new_cluster_holds_what_every_cluster_holds() {
    let advertise_address = Some("192.0.2.1".parse().unwrap());
    let s = Server::with(Config { advertise_address, ..Config::default() }).await;
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let ns = s.get(&format!("/api/v1/namespaces/{name}")).await;
        assert_eq!(ns["status"]["phase"], "Active");
        assert_eq!(ns["spec"]["finalizers"], json!(["kubernetes"]));
        assert_eq!(ns["metadata"]["labels"]["kubernetes.io/metadata.name"], name);
    }
    let service = s.get("/api/v1/namespaces/default/services/kubernetes").await;
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], 6443);
    let slice = s.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await;
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.0.2.1"]));
    let endpoints = s.get("/api/v1/namespaces/default/endpoints/kubernetes").await;
    assert_eq!(endpoints["subsets"][0]["addresses"], json!([{"ip": "192.0.2.1"}]));
    let class = s.get("/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical").await;
    assert_eq!(class["value"], 2_000_001_000);
}
