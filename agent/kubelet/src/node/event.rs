//! Events about the node, as kubectl's `describe node` finds them: core/v1, in `default`, their subject's uid the
//! node's name (upstream's kubelet makes its node reference before it knows the object's uid).
//!
//! An event is a courtesy: failing to write one is logged and forgotten.

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use kube::api::PostParams;
use std::time::Duration;

/// An event that takes longer than this is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes events about one node.
#[derive(Clone, Debug)]
pub struct Recorder {
    api: Api<Event>,
    node: String,
}

impl Recorder {
    /// A recorder for the node `name`.
    #[must_use]
    pub fn new(client: kube::Client, name: &str) -> Self {
        Self { api: Api::namespaced(client, "default"), node: name.to_owned() }
    }

    /// Writes a `Normal` event.
    pub async fn normal(&self, reason: &str, message: &str) {
        self.write("Normal", reason, message).await;
    }

    /// Writes a `Warning` event.
    pub async fn warning(&self, reason: &str, message: &str) {
        self.write("Warning", reason, message).await;
    }

    async fn write(&self, kind: &str, reason: &str, message: &str) {
        let event = self.event(kind, reason, message, jiff::Timestamp::now());
        let params = PostParams::default();
        match tokio::time::timeout(PATIENCE, self.api.create(&params, &event)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(error = %error, reason, "write node event"),
            Err(_) => tracing::warn!(reason, "write node event: no answer"),
        }
    }

    fn event(&self, kind: &str, reason: &str, message: &str, now: jiff::Timestamp) -> Event {
        let seconds = Some(Time(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now)));
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{:x}", self.node, now.as_nanosecond())),
                namespace: Some("default".to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(self.node.clone()),
                uid: Some(self.node.clone()),
                ..ObjectReference::default()
            },
            type_: Some(kind.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            count: Some(1),
            first_timestamp: seconds.clone(),
            last_timestamp: seconds,
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        }
    }
}
