//! An API server of Nodes and ConfigMaps, as far as watches and events need one.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

type Chunks = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

#[derive(Default)]
struct Objects {
    items: Vec<Value>,
    /// Every change so far; the resource version is one more than their number.
    log: Vec<Bytes>,
}

/// One resource.
#[derive(Clone)]
struct Resource {
    objects: Arc<Mutex<Objects>>,
    changes: broadcast::Sender<Bytes>,
}

impl Resource {
    fn new(items: Vec<Value>) -> Self {
        let (changes, _) = broadcast::channel(64);
        Self { objects: Arc::new(Mutex::new(Objects { items, log: Vec::new() })), changes }
    }

    fn send(&self, kind: &str, mut object: Value) {
        let mut objects = self.objects.lock().unwrap();
        objects.items.retain(|item| item["metadata"]["name"] != object["metadata"]["name"]);
        object["metadata"]["resourceVersion"] = (objects.log.len() + 2).to_string().into();
        if kind != "DELETED" {
            objects.items.push(object.clone());
        }
        let line = Bytes::from(format!("{}\n", json!({ "type": kind, "object": object })));
        objects.log.push(line.clone());
        // Without a watcher there is nobody to tell; the log has it for the next.
        drop(self.changes.send(line));
    }
}

/// Nodes, ConfigMaps, and what was said about them.
#[derive(Clone)]
pub(crate) struct Api {
    nodes: Resource,
    maps: Resource,
    events: Arc<Mutex<Vec<Value>>>,
}

pub(crate) fn node(name: &str, address: &str, cidrs: &[&str]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "resourceVersion": "1" },
        "spec": { "podCIDR": cidrs.first(), "podCIDRs": cidrs },
        "status": { "addresses": [{ "type": "InternalIP", "address": address }, { "type": "Hostname", "address": name }] },
    })
}

impl Api {
    pub(crate) fn new(nodes: Vec<Value>) -> Self {
        Self { nodes: Resource::new(nodes), maps: Resource::new(Vec::new()), events: Arc::default() }
    }

    /// The settings of the pod network, for all nodes.
    pub(crate) fn set(&self, data: Value) {
        let metadata = json!({ "name": "windlass-network", "namespace": "kube-system" });
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data });
        self.maps.send("MODIFIED", map);
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        kube::Client::new(tower::service_fn(move |request| api.answer(request)), "default")
    }

    pub(crate) fn send(&self, kind: &str, node: Value) {
        self.nodes.send(kind, node);
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.events.lock().unwrap().clone()
    }

    fn answer(&self, request: Request<Body>) -> Ready<Result<Response<Chunks>, Infallible>> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let path = request.uri().path().to_owned();
        let resource = if path.ends_with("/configmaps") { &self.maps } else { &self.nodes };
        let stream: BoxStream<'static, Result<Frame<Bytes>, Infallible>> = if path.ends_with("/events") {
            let events = Arc::clone(&self.events);
            futures::stream::once(async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                events.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                Ok(Frame::data(body))
            })
            .boxed()
        } else if query.contains("watch=") {
            let objects = resource.objects.lock().unwrap();
            let version = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap();
            let missed = objects.log[version.parse::<usize>().unwrap() - 1..].to_vec();
            let changes = BroadcastStream::new(resource.changes.subscribe()).map(Result::unwrap);
            futures::stream::iter(missed).chain(changes).map(|line| Ok(Frame::data(line))).boxed()
        } else {
            let objects = resource.objects.lock().unwrap();
            let list = json!({
                "apiVersion": "v1",
                "kind": "List",
                "metadata": { "resourceVersion": (objects.log.len() + 1).to_string() },
                "items": objects.items,
            });
            let body = Full::new(Bytes::from(list.to_string()));
            body.into_data_stream().map(|data| Ok(Frame::data(data.unwrap()))).boxed()
        };
        ready(Ok(Response::new(StreamBody::new(stream))))
    }
}
