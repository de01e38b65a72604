//! An API server of Nodes, as far as a watch and events need one.

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
struct Nodes {
    items: Vec<Value>,
    /// Every change so far; the resource version is one more than their number.
    log: Vec<Bytes>,
}

/// Nodes, and what was said about them.
#[derive(Clone)]
pub(crate) struct Api {
    nodes: Arc<Mutex<Nodes>>,
    changes: broadcast::Sender<Bytes>,
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
        let (changes, _) = broadcast::channel(64);
        let nodes = Nodes { items: nodes, log: Vec::new() };
        Self { nodes: Arc::new(Mutex::new(nodes)), changes, events: Arc::default() }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        kube::Client::new(tower::service_fn(move |request| api.answer(request)), "default")
    }

    pub(crate) fn send(&self, kind: &str, mut object: Value) {
        let mut nodes = self.nodes.lock().unwrap();
        nodes.items.retain(|node| node["metadata"]["name"] != object["metadata"]["name"]);
        object["metadata"]["resourceVersion"] = (nodes.log.len() + 2).to_string().into();
        if kind != "DELETED" {
            nodes.items.push(object.clone());
        }
        let line = Bytes::from(format!("{}\n", json!({ "type": kind, "object": object })));
        nodes.log.push(line.clone());
        // Without a watcher there is nobody to tell; the log has it for the next.
        drop(self.changes.send(line));
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.events.lock().unwrap().clone()
    }

    fn answer(&self, request: Request<Body>) -> Ready<Result<Response<Chunks>, Infallible>> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let path = request.uri().path().to_owned();
        let stream: BoxStream<'static, Result<Frame<Bytes>, Infallible>> = if path.ends_with("/events") {
            let events = Arc::clone(&self.events);
            futures::stream::once(async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                events.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                Ok(Frame::data(body))
            })
            .boxed()
        } else if query.contains("watch=") {
            let nodes = self.nodes.lock().unwrap();
            let version = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap();
            let missed = nodes.log[version.parse::<usize>().unwrap() - 1..].to_vec();
            let changes = BroadcastStream::new(self.changes.subscribe()).map(Result::unwrap);
            futures::stream::iter(missed).chain(changes).map(|line| Ok(Frame::data(line))).boxed()
        } else {
            let nodes = self.nodes.lock().unwrap();
            let list = json!({
                "apiVersion": "v1",
                "kind": "NodeList",
                "metadata": { "resourceVersion": (nodes.log.len() + 1).to_string() },
                "items": nodes.items,
            });
            let body = Full::new(Bytes::from(list.to_string()));
            body.into_data_stream().map(|data| Ok(Frame::data(data.unwrap()))).boxed()
        };
        ready(Ok(Response::new(StreamBody::new(stream))))
    }
}
