//! Events, as upstream's recorder writes them (core/v1, `source.component`): the same event again only raises its count.
//!
//! Recording never waits: events go through a bounded channel to one task, and are dropped when it is full.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use std::collections::{HashMap, VecDeque};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;

/// Events waiting to be written.
const QUEUE: usize = 1000;
/// Events remembered for counting (upstream's LRU has 4096).
const REMEMBERED: usize = 4096;

/// Severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// `Normal`
    Normal,
    /// `Warning`
    Warning,
}

struct Item {
    component: &'static str,
    about: ObjectReference,
    severity: Severity,
    reason: &'static str,
    message: String,
}

/// Writes events from any controller.
#[derive(Clone)]
pub struct Recorder {
    sender: Sender<Item>,
}

impl Recorder {
    /// A recorder and the task that writes for it.
    pub fn new(
        client: Client,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, receiver) = channel(QUEUE);
        (Self { sender }, write_all(client, receiver, shutdown))
    }

    /// Records that something happened to `object`.
    pub fn record<K>(
        &self,
        component: &'static str,
        object: &K,
        severity: Severity,
        reason: &'static str,
        message: String,
    ) where
        K: Resource,
        K::DynamicType: Default,
    {
        let about = object.object_ref(&K::DynamicType::default());
        if self.sender.try_send(Item { component, about, severity, reason, message }).is_err() {
            tracing::debug!(reason, "too many events; this one is dropped");
        }
    }
}

async fn write_all(client: Client, mut receiver: Receiver<Item>, shutdown: CancellationToken) {
    let mut known = Known::default();
    loop {
        let item = tokio::select! {
            () = shutdown.cancelled() => return,
            item = receiver.recv() => match item { Some(item) => item, None => return },
        };
        if let Err(error) = write(&client, &mut known, item).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "event not written");
        }
    }
}

type Identity = (String, &'static str, &'static str, String);

/// Events written lately, by what they say: their name and count.
#[derive(Default)]
struct Known {
    events: HashMap<Identity, (String, i32)>,
    order: VecDeque<Identity>,
}

impl Known {
    fn remember(&mut self, identity: Identity, name: String) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.events.remove(&oldest);
        }
        self.order.push_back(identity.clone());
        self.events.insert(identity, (name, 1));
    }
}

async fn write(client: &Client, known: &mut Known, item: Item) -> Result<(), kube::Error> {
    let namespace = item.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let now = Timestamp::now();
    let identity =
        (item.about.uid.clone().unwrap_or_default(), item.component, item.reason, item.message.clone());
    if let Some((name, count)) = known.events.get_mut(&identity) {
        *count += 1;
        let patch = serde_json::json!({ "count": *count, "lastTimestamp": Time(now) });
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => *count = 0,
            other => return other.map(drop),
        }
    }
    let name = format!("{}.{:x}", item.about.name.as_deref().unwrap_or_default(), now.as_nanosecond());
    let severity = match item.severity {
        Severity::Normal => "Normal",
        Severity::Warning => "Warning",
    };
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        involved_object: item.about,
        message: Some(item.message),
        reason: Some(item.reason.to_owned()),
        reporting_component: Some(item.component.to_owned()),
        source: Some(EventSource { component: Some(item.component.to_owned()), host: None }),
        type_: Some(severity.to_owned()),
        ..Event::default()
    };
    api.create(&PostParams::default(), &event).await?;
    match known.events.get_mut(&identity) {
        Some(entry) => *entry = (name, 1),
        None => known.remember(identity, name),
    }
    Ok(())
}
