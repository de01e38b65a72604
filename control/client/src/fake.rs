//! An API server of one resource, as far as a watch needs one.

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

#[derive(Default)]
struct State {
    items: Vec<Value>,
    page: usize,
    watches: Vec<UnboundedSender<Bytes>>,
    asked: Vec<String>,
    refuse_watch: Option<u16>,
}

#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

type Answer = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

impl Fake {
    pub(crate) fn new(items: Vec<Value>) -> Self {
        let fake = Self::default();
        fake.0.lock().page = usize::MAX;
        fake.set_items(items);
        fake
    }

    pub(crate) fn client(&self) -> kube::Client {
        let fake = self.clone();
        let answer = move |request| std::future::ready(Ok::<_, Infallible>(fake.answer(&request)));
        kube::Client::new(tower::service_fn(answer), "default")
    }

    pub(crate) fn set_items(&self, items: Vec<Value>) {
        self.0.lock().items = items;
    }

    pub(crate) fn pages_of(&self, items: usize) {
        self.0.lock().page = items;
    }

    pub(crate) fn refuse_next_watch(&self, code: u16) {
        self.0.lock().refuse_watch = Some(code);
    }

    /// Sends to the watch that is open.
    pub(crate) fn send(&self, kind: &str, object: Value) {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        let state = self.0.lock();
        state.watches.last().unwrap().send(line.into()).unwrap();
    }

    pub(crate) fn end_watches(&self) {
        self.0.lock().watches.clear();
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.0.lock().asked.clone()
    }

    pub(crate) async fn watched(&self) {
        while self.0.lock().watches.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    fn answer(&self, request: &Request<Body>) -> Response<Answer> {
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
            state.watches.push(sender);
            return Response::new(StreamBody::new(frames(receiver)));
        }
        let from: usize = query
            .split_once("continue=")
            .map_or(0, |(_, rest)| rest.split('&').next().and_then(|n| n.parse().ok()).unwrap_or_default());
        let until = from.saturating_add(state.page).min(state.items.len());
        let next = if until < state.items.len() { until.to_string() } else { String::new() };
        let metadata = json!({"resourceVersion": "100", "continue": next});
        one(200, json!({"kind": "List", "metadata": metadata, "items": state.items[from..until]}))
    }
}

fn frames(receiver: UnboundedReceiver<Bytes>) -> BoxStream<'static, Result<Frame<Bytes>, Infallible>> {
    let next = |mut receiver: UnboundedReceiver<Bytes>| async move {
        Some((Ok(Frame::data(receiver.recv().await?)), receiver))
    };
    futures::stream::unfold(receiver, next).boxed()
}
