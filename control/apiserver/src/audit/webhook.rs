//! Events as lists that are posted to a service. Upstream: `apiserver/plugin/pkg/audit/webhook`.

use super::backend::Backend;
use super::counters::Counters;
use super::delivery::Delivery;
use super::event::Event;
use bytes::Bytes;
use futures::future::BoxFuture;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Supervisor, Work};
use tokio::sync::oneshot;

const PLUGIN: &str = "webhook";
/// How often a list is posted before it is lost.
const TRIES: u32 = 5;
/// Each pause is so much longer than the one before.
const FACTOR: f64 = 1.5;

/// The service.
pub trait Receiver: Send + Sync {
    /// Posts an `EventList`; the error, in words, is that the service has not taken it.
    fn post(&self, list: Bytes) -> BoxFuture<'_, Result<(), String>>;
}

/// What is posted where.
pub struct Webhook {
    /// The service.
    pub receiver: Arc<dyn Receiver>,
    /// The pause after the first try.
    pub initial_backoff: Duration,
    /// Whether requests wait for it.
    pub delivery: Delivery,
}

impl Webhook {
    pub(super) fn open(self, supervisor: &Supervisor, counters: &Arc<Counters>) -> Box<dyn Backend> {
        let posts = Posts {
            receiver: self.receiver,
            initial_backoff: self.initial_backoff,
            posting: Work::new(supervisor, "apiserver/audit-webhook"),
            counters: counters.clone(),
        };
        self.delivery.before(Box::new(posts), supervisor, counters)
    }
}

struct Posts {
    receiver: Arc<dyn Receiver>,
    initial_backoff: Duration,
    posting: Work,
    counters: Arc<Counters>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventList<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: serde_json::Map<String, serde_json::Value>,
    items: Vec<&'a Event>,
}

fn list(events: &[Arc<Event>]) -> Result<Bytes, serde_json::Error> {
    let list = EventList {
        kind: "EventList",
        api_version: "audit.k8s.io/v1",
        metadata: serde_json::Map::new(),
        items: events.iter().map(|event| &**event).collect(),
    };
    serde_json::to_vec(&list).map(Bytes::from)
}

/// Posts until it is taken, a few times.
async fn insist(receiver: &dyn Receiver, list: &Bytes, first: Duration) -> Result<(), String> {
    let mut pause = first;
    let mut tries = 1;
    loop {
        match receiver.post(list.clone()).await {
            Err(why) if tries < TRIES => {
                tracing::debug!(error = why, "post audit events again");
                tokio::time::sleep(supervise::jittered(pause)).await;
                pause = pause.mul_f64(FACTOR);
                tries += 1;
            }
            done => return done,
        }
    }
}

impl Backend for Posts {
    fn process(&self, events: Vec<Arc<Event>>) -> BoxFuture<'_, bool> {
        let (receiver, counters, first) =
            (self.receiver.clone(), self.counters.clone(), self.initial_backoff);
        let (done, heard) = oneshot::channel();
        // In a task of its own: a client that hangs up must not take the event with it.
        self.posting.spawn(async move {
            let posted = match list(&events) {
                Ok(list) => insist(&*receiver, &list, first).await,
                Err(e) => Err(e.to_string()),
            };
            if let Err(why) = &posted {
                counters.lost(PLUGIN, why, &events);
            }
            // Nobody may wait any more.
            let _ = done.send(posted.is_ok());
        });
        Box::pin(async move { heard.await.unwrap_or(false) })
    }

    fn finish(&self, patience: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.posting.finish(patience).await;
        })
    }
}
