//! Events: what users read to learn why. Recording never waits; a full queue drops, a chatty subject is throttled, and
//! equal events are one event with a count.
//!
//! Bounds: 1,000 queued, 4,096 remembered for counting, and for each subject a burst of 25 and then one in five minutes,
//! as upstream's spam filter has it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;

const QUEUE: usize = 1000;
const REMEMBERED: usize = 4096;
const BURST: f64 = 25.0;
const REFILL: f64 = 1.0 / 300.0;

/// `Normal` or `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// As it should be.
    Normal,
    /// Not so.
    Warning,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Whom it happened to.
    pub subject: Subject,
    /// Good or bad.
    pub kind: Kind,
    /// The reason, one word.
    pub reason: &'static str,
    /// The text.
    pub message: String,
}

/// Whom an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// `Pod` or `Node`.
    pub kind: &'static str,
    /// Its namespace; `default` for a node's events.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The container, as a field path.
    pub field_path: Option<String>,
}

impl Subject {
    /// A pod, or one of its containers. The API knows a static pod by its mirror, whose UID the manifest's hash names.
    pub fn pod(pod: &Pod, container: Option<&str>) -> Self {
        let field_path = container.map(|name| {
            let init = crate::pod::init_containers(pod).iter().any(|c| c.name == name);
            let ephemeral = crate::pod::ephemeral_containers(pod).iter().any(|c| c.name == name);
            let list = match (init, ephemeral) {
                (true, _) => "initContainers",
                (_, true) => "ephemeralContainers",
                _ => "containers",
            };
            format!("spec.{list}{{{name}}}")
        });
        Self {
            kind: "Pod",
            namespace: crate::pod::namespace(pod).to_owned(),
            name: crate::pod::name(pod).to_owned(),
            uid: crate::pod::uid(pod).to_owned(),
            field_path,
        }
    }

    /// The node itself, as upstream refers to it: its name is its UID.
    pub fn node(name: &str) -> Self {
        Self {
            kind: "Node",
            namespace: "default".to_owned(),
            name: name.to_owned(),
            uid: name.to_owned(),
            field_path: None,
        }
    }
}

/// The sending side, for everyone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Record>,
}

impl Recorder {
    /// A recorder and the queue that [`Sink::run`] empties.
    pub fn new() -> (Self, mpsc::Receiver<Record>) {
        let (queue, records) = mpsc::channel(QUEUE);
        (Self { queue }, records)
    }

    /// Records; also in the log.
    pub fn record(&self, subject: Subject, kind: Kind, reason: &'static str, message: impl Into<String>) {
        let record = Record { subject, kind, reason, message: message.into() };
        tracing::info!(
            subject = %format_args!("{}/{}", record.subject.namespace, record.subject.name),
            reason,
            "{}",
            record.message
        );
        if self.queue.try_send(record).is_err() {
            tracing::debug!("event dropped: the queue is full");
        }
    }

    /// A normal event of a pod or container.
    pub fn normal(
        &self,
        pod: &Pod,
        container: Option<&str>,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.record(Subject::pod(pod, container), Kind::Normal, reason, message);
    }

    /// A warning of a pod or container.
    pub fn warning(
        &self,
        pod: &Pod,
        container: Option<&str>,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.record(Subject::pod(pod, container), Kind::Warning, reason, message);
    }
}

struct Known {
    name: String,
    namespace: String,
    first: Time,
    count: i32,
}

struct Bucket {
    tokens: f64,
    filled: std::time::Instant,
}

/// The receiving side: writes events to the API.
pub struct Sink {
    client: Option<kube::Client>,
    node: Arc<str>,
    known: HashMap<Record, Known>,
    buckets: HashMap<(String, String), Bucket>,
}

impl Sink {
    /// Writes as this node's kubelet; without a client records are only logged.
    pub fn new(client: Option<kube::Client>, node: &str) -> Self {
        Self { client, node: node.into(), known: HashMap::new(), buckets: HashMap::new() }
    }

    /// Writes every record until the queue closes.
    pub async fn run(mut self, mut records: mpsc::Receiver<Record>) {
        while let Some(record) = records.recv().await {
            if self.client.is_none() || !self.admit(&record.subject) {
                continue;
            }
            // Two tries: an event is worth a retry, and not worth holding up the others.
            for pause in [Some(Duration::from_secs(1)), None] {
                match (self.write(&record).await, pause) {
                    (Ok(()), _) => break,
                    (Err(kube::Error::Api(status)), _) => {
                        tracing::debug!(error = %status, "event refused");
                        break;
                    }
                    (Err(error), None) => tracing::debug!(%error, "event not written"),
                    (Err(_), Some(pause)) => tokio::time::sleep(pause).await,
                }
            }
        }
    }

    fn admit(&mut self, subject: &Subject) -> bool {
        let now = std::time::Instant::now();
        if self.buckets.len() > REMEMBERED {
            self.buckets.clear();
        }
        let key = (subject.namespace.clone(), subject.name.clone());
        let bucket = self.buckets.entry(key).or_insert(Bucket { tokens: BURST, filled: now });
        let earned = now.duration_since(bucket.filled).as_secs_f64() * REFILL;
        bucket.tokens = (bucket.tokens + earned).min(BURST);
        bucket.filled = now;
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        admitted
    }

    async fn write(&mut self, record: &Record) -> Result<(), kube::Error> {
        let Some(client) = self.client.clone() else { return Ok(()) };
        let now = Time(Timestamp::now());
        let api: Api<Event> = Api::namespaced(client, &record.subject.namespace);
        if let Some(known) = self.known.get_mut(record) {
            known.count += 1;
            let patch = serde_json::json!({
                "count": known.count, "lastTimestamp": now, "message": record.message, "firstTimestamp": known.first,
            });
            let name = known.name.clone();
            match api.patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => return Ok(()),
                // It expired: write it anew.
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    self.known.remove(record);
                }
                Err(error) => return Err(error),
            }
        }
        let event = self.event(record, &now);
        let known = Known {
            name: event.metadata.name.clone().unwrap_or_default(),
            namespace: record.subject.namespace.clone(),
            first: now,
            count: 1,
        };
        api.create(&PostParams::default(), &event).await?;
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        tracing::trace!(namespace = known.namespace, name = known.name, "event written");
        self.known.insert(record.clone(), known);
        Ok(())
    }

    fn event(&self, record: &Record, now: &Time) -> Event {
        let subject = &record.subject;
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{:x}", subject.name, now.0.as_nanosecond())),
                namespace: Some(subject.namespace.clone()),
                ..Default::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some(subject.kind.to_owned()),
                name: Some(subject.name.clone()),
                namespace: (subject.kind == "Pod").then(|| subject.namespace.clone()),
                uid: Some(subject.uid.clone()),
                field_path: subject.field_path.clone(),
                ..Default::default()
            },
            reason: Some(record.reason.to_owned()),
            message: Some(record.message.chars().take(1024).collect()),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.node.to_string()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.node.to_string()),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now.clone()),
            count: Some(1),
            type_: Some(
                match record.kind {
                    Kind::Normal => "Normal",
                    Kind::Warning => "Warning",
                }
                .to_owned(),
            ),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chatty_subject_is_throttled_alone() {
        let mut sink = Sink::new(None, "n");
        let node = |name: &str| Subject::node(name);
        let admitted = (0..40).filter(|_| sink.admit(&node("a"))).count();
        assert_eq!(admitted, 25);
        assert!(sink.admit(&node("b")));
    }

    #[tokio::test]
    async fn a_full_queue_drops_instead_of_waiting() {
        let (recorder, _records) = Recorder::new();
        for _ in 0..(QUEUE + 10) {
            recorder.record(Subject::node("n"), Kind::Normal, "Test", "text");
        }
    }
}
