//! An API server as far as watches need one. An object with a `kind` is its resource's; one without is every resource's.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[cfg(feature = "fake")]
pub mod services;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

#[derive(Default)]
struct State {
    items: Vec<Value>,
    page: usize,
    watches: Vec<(String, UnboundedSender<Bytes>)>,
    asked: Vec<String>,
    refuse_watch: Option<u16>,
}

/// The server; a cheap handle.
#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<State>>);

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

impl Fake {
    /// A server that has these objects.
    #[must_use]
    pub fn new(items: Vec<Value>) -> Self {
        let fake = Self::default();
        fake.0.lock().page = usize::MAX;
        fake.set_items(items);
        fake
    }

    /// A client of it.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        let fake = self.clone();
        let answer = move |request| std::future::ready(Ok::<_, Infallible>(fake.answer(&request)));
        kube::Client::new(tower::service_fn(answer), "default")
    }

    /// Has these objects from now on; no watch is sent it.
    pub fn set_items(&self, items: Vec<Value>) {
        self.0.lock().items = items;
    }

    /// Lists answer in pages of so many items.
    pub fn pages_of(&self, items: usize) {
        self.0.lock().page = items;
    }

    /// Answers the next watch with this status code.
    pub fn refuse_next_watch(&self, code: u16) {
        self.0.lock().refuse_watch = Some(code);
    }

    /// Sends to the newest watch of the object's resource.
    pub fn send(&self, kind: &str, object: Value) {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        let state = self.0.lock();
        let (_, watch) = state.watches.iter().rfind(|(path, _)| is_of(path, &object)).unwrap();
        watch.send(line.into()).unwrap();
    }

    /// Ends the watches that are open.
    pub fn end_watches(&self) {
        self.0.lock().watches.clear();
    }

    /// The queries so far.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.0.lock().asked.clone()
    }

    /// Waits until somebody watches.
    pub async fn watched(&self) {
        while self.0.lock().watches.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    fn answer(&self, request: &Request<kube::client::Body>) -> Response<Body> {
        let mut state = self.0.lock();
        let query = request.uri().query().unwrap_or_default().to_owned();
        state.asked.push(query.clone());
        let one = |code: u16, body: Value| {
            let bytes = Frame::data(Bytes::from(body.to_string()));
            let stream = futures::stream::iter([Ok(bytes)]).boxed();
            Response::builder().status(code).body(StreamBody::new(stream)).unwrap()
        };
        if query.contains("watch=true") {
            if let Some(code) = state.refuse_watch.take() {
                return one(
                    code,
                    json!({"kind": "Status", "status": "Failure", "code": code, "reason": "Expired"}),
                );
            }
            let (sender, receiver) = unbounded_channel();
            state.watches.push((request.uri().path().to_owned(), sender));
            return Response::new(StreamBody::new(frames(receiver)));
        }
        let from: usize = query
            .split_once("continue=")
            .map_or(0, |(_, rest)| rest.split('&').next().and_then(|n| n.parse().ok()).unwrap_or_default());
        let items: Vec<&Value> =
            state.items.iter().filter(|item| is_of(request.uri().path(), item)).collect();
        let until = from.saturating_add(state.page).min(items.len());
        let next = if until < items.len() { until.to_string() } else { String::new() };
        let metadata = json!({"resourceVersion": "100", "continue": next});
        one(200, json!({"kind": "List", "metadata": metadata, "items": items[from..until]}))
    }
}

/// Whether an object is of the resource at a path.
fn is_of(path: &str, object: &Value) -> bool {
    object["kind"].as_str().is_none_or(|kind| {
        let one = kind.to_lowercase();
        let all = one.strip_suffix('y').map_or_else(|| format!("{one}s"), |stem| format!("{stem}ies"));
        path.ends_with(&format!("/{all}"))
    })
}

fn frames(receiver: UnboundedReceiver<Bytes>) -> BoxStream<'static, Result<Frame<Bytes>, Infallible>> {
    let next = |mut receiver: UnboundedReceiver<Bytes>| async move {
        Some((Ok(Frame::data(receiver.recv().await?)), receiver))
    };
    futures::stream::unfold(receiver, next).boxed()
}
