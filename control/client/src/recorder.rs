//! Events: what users read to learn why. Recording never waits; a full queue drops.
//!
//! Two styles, as upstream's components have them: with a source and a count (controllers, the kubelet), and with an action and a series
//! (the scheduler). The rules by which equal and similar events become one are the correlator's; the [`Writer`] writes what it says.

mod correlate;
mod recent;

use correlate::{Correlator, Style, Write};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Backoff, Rate, Task};
use tokio::sync::{Mutex, mpsc};

/// Events waiting to be written, as upstream's broadcaster holds them.
const QUEUE: usize = 1000;
/// How often an event is tried while the server cannot be reached.
const TRIES: usize = 12;
/// First and longest pause between tries.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// `Normal` or `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// `Normal`
    Normal,
    /// `Warning`
    Warning,
}

impl Severity {
    /// As the API spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Note {
    /// Who says so: `kubelet`, `deployment-controller`.
    pub component: &'static str,
    /// The object it happened to.
    pub about: ObjectReference,
    /// How bad it is.
    pub severity: Severity,
    /// The reason, one word.
    pub reason: Cow<'static, str>,
    /// Event text for people.
    pub message: String,
    /// What was done, and who else it concerns: an event with a series rather than a count.
    pub action: Option<(&'static str, Option<ObjectReference>)>,
}

/// Annotations of an event.
pub type Annotations = BTreeMap<String, String>;

/// Where events are recorded. A cheap handle for everyone.
#[derive(Clone, Debug)]
pub struct Recorder(mpsc::Sender<(Note, Annotations)>);

impl Recorder {
    /// A recorder, and what writes for it: as `host`, where the component is one a node or server. Without a client nothing is written.
    #[must_use]
    pub fn new(client: Option<Client>, host: Option<&str>) -> (Self, Writer) {
        Self::limited(client, host, Rate::new(0.0, 1))
    }

    /// The same, with no more than so many events written a second.
    #[must_use]
    pub fn limited(client: Option<Client>, host: Option<&str>, rate: Rate) -> (Self, Writer) {
        let (queue, notes) = mpsc::channel(QUEUE);
        let writing = Writing { notes, correlator: Correlator::new(host), pending: None, rate };
        (Self(queue), Writer(Arc::new(Inner { client, writing: Mutex::new(writing) })))
    }

    /// Queues an event; drops it when the queue is full.
    pub fn note(&self, note: Note) {
        self.annotated(note, Annotations::new());
    }

    /// The same with annotations, which equal events that only count have from the first.
    pub fn annotated(&self, note: Note, annotations: Annotations) {
        if let Err(full) = self.0.try_send((note, annotations)) {
            let (dropped, _) = full.into_inner();
            tracing::debug!(reason = &*dropped.reason, "too many events; this one is dropped");
        }
    }

    /// Records that something happened to `object`.
    pub fn record<K>(
        &self,
        component: &'static str,
        object: &K,
        severity: Severity,
        reason: &'static str,
        message: impl Into<String>,
    ) where
        K: Resource,
        K::DynamicType: Default,
    {
        let about = object.object_ref(&K::DynamicType::default());
        let (reason, message) = (reason.into(), message.into());
        self.note(Note { component, about, severity, reason, message, action: None });
    }
}

/// A Node as upstream's kubelet refers to it, and its tools find its events: the name stands for the uid, which whoever speaks for a node
/// need not have read.
#[must_use]
pub fn node(name: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

/// Writes what is recorded.
#[derive(Clone)]
pub struct Writer(Arc<Inner>);

struct Inner {
    client: Option<Client>,
    writing: Mutex<Writing>,
}

struct Writing {
    notes: mpsc::Receiver<(Note, Annotations)>,
    rate: Rate,
    correlator: Correlator,
    /// Being written; a life that ends meanwhile leaves it to the next.
    pending: Option<Write>,
}

impl Writer {
    /// The task that writes.
    #[must_use]
    pub fn task(self, name: impl Into<Arc<str>>) -> Task {
        Task::endless(name, move || self.clone().run())
    }

    async fn run(self) {
        let mut writing = self.0.writing.lock().await;
        let Writing { notes, rate, correlator, pending } = &mut *writing;
        loop {
            if let (Some(client), Some(write)) = (&self.0.client, pending.take()) {
                rate.take().await;
                put(client, &write).await;
            }
            match notes.recv().await {
                Some((note, annotations)) => {
                    *pending = correlator.correlate(&note, Timestamp::now());
                    if let Some(write) = pending.as_mut().filter(|_| !annotations.is_empty()) {
                        write.annotate(annotations);
                    }
                }
                // Nobody is left who could record.
                None => std::future::pending().await,
            }
        }
    }
}

/// Writes one event. What the server refuses is dropped; while it cannot be reached it is tried again.
async fn put(client: &Client, write: &Write) {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    for _ in 0..TRIES {
        match try_put(client, write).await {
            Ok(()) => return,
            Err(kube::Error::Api(status)) => return tracing::debug!(error = %status, "event refused"),
            Err(error) => tracing::debug!(%error, "event not written"),
        }
        backoff.pause().await;
    }
}

async fn try_put(client: &Client, write: &Write) -> Result<(), kube::Error> {
    match &write.event {
        Style::Counted(event) => put_event(client, &**event, write.patch.as_ref()).await,
        Style::Series(event) => put_event(client, &**event, write.patch.as_ref()).await,
    }
}

async fn put_event<E>(client: &Client, event: &E, patch: Option<&Value>) -> Result<(), kube::Error>
where
    E: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    E: Clone + Debug + Serialize + DeserializeOwned,
{
    let metadata = event.meta();
    let api: Api<E> = Api::namespaced(client.clone(), metadata.namespace.as_deref().unwrap_or_default());
    if let Some(patch) = patch {
        let name = metadata.name.as_deref().unwrap_or_default();
        match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            // It expired: it is written as a whole.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            done => return done.map(drop),
        }
    }
    api.create(&PostParams::default(), event).await.map(drop)
}
