//! Events of this node's kubelet. Recording never waits; counting, bounds and writing are the crate `client`'s.

#[cfg(test)]
pub(crate) mod fake;

use client::recorder::{Annotations, Note, Severity, Writer};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim, Pod};
use kube::Resource;
use std::borrow::Cow;

/// `Normal` or `Warning`.
pub type Kind = Severity;

/// The object an event is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject(ObjectReference);

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
        Self(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(crate::pod::namespace(pod).to_owned()),
            name: Some(crate::pod::name(pod).to_owned()),
            uid: Some(crate::pod::uid(pod).to_owned()),
            field_path,
            ..ObjectReference::default()
        })
    }

    pub(crate) fn claim(claim: &PersistentVolumeClaim) -> Self {
        Self(claim.object_ref(&()))
    }

    /// The node itself.
    pub fn node(name: &str) -> Self {
        Self(client::recorder::node(name))
    }
}

/// The sending side, for everyone.
#[derive(Clone, Debug)]
pub struct Recorder(client::recorder::Recorder);

impl Recorder {
    /// A recorder of this node's kubelet, and what writes for it; without a client records are only logged.
    pub fn new(client: Option<kube::Client>, node: &str) -> (Self, Writer) {
        Self::limited(client, node, 0, 1)
    }

    /// The same, with so many events a second and at once (`eventRecordQPS`, 0: no limit; `eventBurst`).
    pub fn limited(client: Option<kube::Client>, node: &str, per_second: u32, burst: u32) -> (Self, Writer) {
        let rate = supervise::Rate::new(f64::from(per_second), burst);
        let (recorder, writer) = client::recorder::Recorder::limited(client, Some(node), rate);
        (Self(recorder), writer)
    }

    /// Records; also in the log.
    pub fn record(
        &self,
        subject: Subject,
        kind: Kind,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) {
        self.annotated(subject, kind, (reason, message), Annotations::new());
    }

    /// The same with annotations on the event.
    pub fn annotated(
        &self,
        subject: Subject,
        kind: Kind,
        (reason, message): (impl Into<Cow<'static, str>>, impl Into<String>),
        annotations: Annotations,
    ) {
        let (about, reason, message) = (subject.0, reason.into(), message.into());
        tracing::info!(
            subject = %format_args!(
                "{}/{}",
                about.namespace.as_deref().unwrap_or("default"),
                about.name.as_deref().unwrap_or_default()
            ),
            reason = &*reason,
            "{message}"
        );
        let note = Note { component: "kubelet", about, severity: kind, reason, message, action: None };
        self.0.annotated(note, annotations);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_drops_instead_of_waiting() {
        let (recorder, _writer) = Recorder::new(None, "n");
        for _ in 0..2000 {
            recorder.record(Subject::node("n"), Kind::Normal, "Test", "text");
        }
    }
}
